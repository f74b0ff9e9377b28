// The list of workflows.
import {me} from "../../core/access.js";
import {TextFilter} from "../../core/filters.js";
import {html} from "../../core/html.js";
import {texts} from "../../core/i18n.js";
import {usePages} from "../../core/live.js";
import {Ago, Choice, Listing, Page, State} from "../../core/parts.js";
import {link, setQuery, withQuery} from "../../core/router.js";
import {word} from "../../core/words.js";
import {jobOf} from "./keys.js";

const t = texts({
  en: {
    title: "Workflows", filters: "Filters", q: "Search", team: "Team", job: "Job", state: "Last run", any: "any",
    name: "Name", start: "Starts with", nodes: "Nodes", last: "Last run", none: "No workflow matches.",
    empty: "There is no workflow. A file or the API makes one: jobcloud workflow set FILE.",
    clear: "Clear the filters",
  },
  zh: {
    title: "工作流", filters: "筛选", q: "搜索", team: "团队", job: "作业", state: "上次运行", any: "不限",
    name: "名称", start: "起始作业", nodes: "节点", last: "上次运行", none: "没有符合条件的工作流。",
    empty: "没有工作流。可通过文件或 API 创建：jobcloud workflow set FILE。", clear: "清除筛选",
  },
});

const FILTERS = ["q", "team", "job", "state"];
const NO_FILTERS = Object.fromEntries(FILTERS.map(name => [name, ""]));
const STATES = ["RUNNING", "SUCCEEDED", "FAILED", "CANCELLED"];

function Name({of}) {
  const [name, team] = of.workflow.split(":").reverse();
  return html`<a href=${link`/workflows/${of.workflow}`} title=${of.description || undefined}>
    ${team && html`<span class="quiet">${team}:</span>`}${name}</a>`;
}

const COLUMNS = [
  {key: "name", title: t("name"), sort: "name", wide: true, cell: one => html`<${Name} of=${one} />`},
  {
    key: "start", title: t("start"),
    cell: one => {
      const {job} = one.nodes.find(node => node.name === one.start);
      return html`<a href=${link`/jobs/${jobOf(one, job)}`}>${job}</a>`;
    },
  },
  {key: "nodes", title: t("nodes"), number: true, cell: one => one.nodes.length},
  {
    key: "last", title: t("last"), sort: "last",
    cell: one => one.lastRun && html`<span class="nowrap">
      <a href=${link`/workflows/runs/${one.lastRun.id}`}><${State} of=${one.lastRun.state} /></a>
      ${" "}<${Ago} at=${one.lastRun.beganAt} /></span>`,
  },
];

export default function WorkflowList({query}) {
  const wanted = Object.fromEntries(FILTERS.map(name => [name, query.get(name) ?? ""]));
  const order = query.get("sort") ?? "name";
  const found = usePages("workflows", {...wanted, sort: order}, changes => changes.more || changes.jobs.length > 0);
  const filtered = FILTERS.some(name => wanted[name]);
  const text = (name, list) => html`<${TextFilter} key=${name} label=${t(name)} name=${name} value=${wanted[name]}
    list=${list} />`;
  return html`<${Page} title=${t("title")}>
    <div class="filters" role="search" aria-label=${t("filters")}>${text("q")}
      ${text("team", me.teams.map(one => one.team).filter(team => team !== "*"))}${text("job")}
      <${Choice} label=${t("state")} value=${wanted.state} set=${state => setQuery({state})}
        options=${[["", t("any")], ...STATES.map(state => [state, word(state)])]} />
      ${filtered && html`<a href=${withQuery(NO_FILTERS)}>${t("clear")}</a>`}</div>
    <${Listing} of=${found} label=${t("title")} columns=${COLUMNS} rowKey=${one => one.workflow} order=${order}
      choose=${sort => setQuery({sort})} empty=${t(filtered ? "none" : "empty")} /><//>`;
}
