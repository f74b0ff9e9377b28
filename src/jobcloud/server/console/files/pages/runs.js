// The runs: the unfinished and recent ones, those that failed since a time, and one run.
import {TextFilter} from "../core/filters.js";
import {html} from "../core/html.js";
import {texts} from "../core/i18n.js";
import {usePages} from "../core/live.js";
import {Choice, Page} from "../core/parts.js";
import {setQuery, withQuery} from "../core/router.js";
import {word} from "../core/words.js";
import {FailedRuns} from "./run/failed.js";
import {RunPage} from "./run/page.js";
import {RunTable} from "./run/table.js";

const t = texts({
  en: {
    title: "Runs", job: "Job", team: "Team", state: "State", any: "any", recent: "Unfinished and recent",
    failed: "Failed since …", views: "Views", empty: "No run that the scheduler keeps fits the filters.",
  },
  zh: {
    title: "运行", job: "作业", team: "团队", state: "状态", any: "不限", recent: "未结束与最近的运行",
    failed: "某时间以来的失败…", views: "视图", empty: "调度器保留的运行中没有符合筛选条件的。",
  },
});

const STATES = ["ACTIVE", "WAITING", "FINISHED", "FAILED", "DEAD", "KILLED", "CANCELLED"];
// The API lists up to a hundred shards with each run.
const PAGE = 50;

export default function Runs({parts, query}) {
  if (parts.length) return html`<${RunPage} id=${parts[0]} query=${query} />`;
  const failed = query.has("failed");
  const tab = (text, here, values) => html`<a href=${withQuery(values)} aria-current=${here ? "page" : undefined}>
    ${text}</a>`;
  return html`<${Page} title=${t("title")}>
    <nav class="tabs" aria-label=${t("views")}>
      ${tab(t("recent"), !failed, {failed: "", killed: ""})}${tab(t("failed"), failed, {failed: "24h", state: ""})}</nav>
    ${failed ? html`<${FailedRuns} query=${query} />` : html`<${RecentRuns} query=${query} />`}<//>`;
}

function RecentRuns({query}) {
  const [job, team, state] = ["job", "team", "state"].map(name => query.get(name) ?? "");
  const concerns = changes => changes.more || (job ? changes.jobs.includes(job) : changes.runs.length > 0);
  const runs = usePages("runs", {job, team, state}, concerns, PAGE);
  return html`
    <div class="filters">
      <${TextFilter} name="job" label=${t("job")} value=${query.get("job") ?? ""} /><${TextFilter} name="team" label=${t("team")} value=${query.get("team") ?? ""} />
      <${Choice} label=${t("state")} value=${state} set=${value => setQuery({state: value})}
        options=${[["", t("any")], ...STATES.map(one => [one, word(one)])]} /></div>
    <${RunTable} of=${runs} label=${t("recent")} empty=${t("empty")} />`;
}
