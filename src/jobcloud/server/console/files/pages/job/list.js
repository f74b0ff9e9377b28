// The list of jobs.
import {canSomewhere} from "../../core/access.js";
import {all} from "../../core/api.js";
import {TextFilter} from "../../core/filters.js";
import {html, useRef} from "../../core/html.js";
import {texts} from "../../core/i18n.js";
import {useLoaded, usePages} from "../../core/live.js";
import {Ago, Choice, Listing, Page, State} from "../../core/parts.js";
import {link, setQuery, withQuery} from "../../core/router.js";
import {word} from "../../core/words.js";

const t = texts({
  en: {
    title: "Jobs", new_job: "New job", q: "Search", filters: "Filters", team: "Team", app: "App", label: "Label",
    owner: "Owner",
    state: "State", any: "any", name: "Name", kind: "Kind", schedule: "Schedule", last: "Last run", next: "Next firing",
    none: "No job matches.", clear: "Clear the filters", label_example: "tier=gold",
  },
  zh: {
    title: "作业", new_job: "新建作业", q: "搜索", filters: "筛选", team: "团队", app: "应用", label: "标签", owner: "负责人",
    state: "状态", any: "不限", name: "名称", kind: "种类", schedule: "调度", last: "上次运行", next: "下次触发",
    none: "没有符合条件的作业。", clear: "清除筛选", label_example: "tier=gold",
  },
});

const FILTERS = ["q", "team", "app", "label", "owner", "state"];
const NO_FILTERS = Object.fromEntries(FILTERS.map(name => [name, ""]));
const STATES = ["enabled", "disabled", "paused", "running", "waiting", "failed", "dead"];

function Name({job}) {
  const [name, team] = job.jobName.split(":").reverse();
  return html`<a href=${link`/jobs/${job.jobName}`} title=${job.description || undefined}>
    ${team && html`<span class="quiet">${team}:</span>`}${name}</a>`;
}

function States({job}) {
  return html`<span class="states nowrap"><${State} of=${job.enabled ? "enabled" : "disabled"} />
    ${job.pausedBy.length > 0 && html` <${State} of="paused" />`}
    ${job.activeShards > 0 && html` <${State} of="ACTIVE" text=${`${job.activeShards} ${word("ACTIVE")}`} />`}
    ${job.waitingShards > 0 && html` <${State} of="WAITING" text=${`${job.waitingShards} ${word("WAITING")}`} />`}
    </span>`;
}

const COLUMNS = [
  {key: "name", title: t("name"), sort: "name", wide: true, cell: job => html`<${Name} job=${job} />`},
  {
    key: "app", title: t("app"),
    cell: job => html`<a href=${link`/apps/${job.appName}`}>${job.appName.split(":").pop()}</a>`,
  },
  {key: "kind", title: t("kind"), cell: job => html`<span class="nowrap">${word(job.kind)}</span>`},
  {key: "schedule", title: t("schedule"), cell: job => html`<code class="nowrap">${job.cron}</code>`},
  {key: "state", title: t("state"), cell: job => html`<${States} job=${job} />`},
  {key: "last", title: t("last"), sort: "last", cell: job => job.lastRun && html`<span class="nowrap">
    <a href=${link`/runs/${job.lastRun.id}`}><${State} of=${job.lastRun.state} /></a>
    ${" "}<${Ago} at=${job.lastRun.firedAt} /></span>`},
  {key: "next", title: t("next"), sort: "next", cell: job => html`<${Ago} at=${job.nextFiring} />`},
];

/** As usePages. While another list is loaded, the present one stays. */
function useKept(jobs) {
  const kept = useRef(null);
  if (jobs.data) kept.current = jobs;
  return jobs.loading && kept.current ? {...kept.current, loading: false, more: false} : jobs;
}

/** The apps that the person may see: their keys, and their teams. */
function useChoices() {
  const apps = useLoaded("apps", () => all("apps", {}, 1_000), () => false).data ?? [];
  return {app: apps.map(one => one.appName), team: [...new Set(apps.map(one => one.team))]};
}

export default function JobList({query}) {
  const wanted = Object.fromEntries(FILTERS.map(name => [name, query.get(name) ?? ""]));
  const order = query.get("sort") ?? "name";
  const asked = {...wanted, label: wanted.label.split(/[\s,]+/), sort: order, brief: "true"};
  const loaded = usePages("jobs", asked, changes => changes.more || changes.jobs.length > 0);
  const jobs = useKept(loaded), choices = useChoices();
  const filtered = FILTERS.some(name => wanted[name]);
  const text = (name, placeholder) => html`<${TextFilter} key=${name} label=${t(name)} name=${name}
    value=${wanted[name]} placeholder=${placeholder} list=${choices[name]} />`;
  return html`<${Page} title=${t("title")}
      actions=${canSomewhere("configure") && html`<a class="button primary" href="/jobs?new=1">${t("new_job")}</a>`}>
    <div class="filters" role="search" aria-label=${t("filters")}>${text("q")}${text("team")}${text("app")}
      ${text("label", t("label_example"))}${text("owner")}
      <${Choice} label=${t("state")} value=${wanted.state} set=${state => setQuery({state})}
        options=${[["", t("any")], ...STATES.map(state => [state, word(state)])]} />
      ${filtered && html`<a href=${withQuery(NO_FILTERS)}>${t("clear")}</a>`}</div>
    <div aria-busy=${loaded.loading}><${Listing} of=${jobs} label=${t("title")} columns=${COLUMNS}
      rowKey=${job => job.jobName}
      order=${order} choose=${sort => setQuery({sort})} empty=${filtered ? t("none") : undefined} /></div><//>`;
}
