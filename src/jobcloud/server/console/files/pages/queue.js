// The shards that wait, by job, and why; and the pools that limit what starts.
import {TextFilter} from "../core/filters.js";
import {html} from "../core/html.js";
import {number, texts} from "../core/i18n.js";
import {usePages} from "../core/live.js";
import {Ago, Listing, Page} from "../core/parts.js";
import {reasonText} from "../core/reasons.js";
import {link} from "../core/router.js";
import {Pools} from "./queue/pools.js";

const t = texts({
  en: {
    title: "Queue", team: "Team", job: "Job", priority: "Priority", waiting: "Waiting", ready: "Ready",
    oldest: "Oldest wait", reason: "First reason", explain: "explain", explain_of: "Explain {job}",
    none: "No shard waits.",
    hint: "Jobs with waiting shards, the longest wait first. Ready shards wait only for resources.",
  },
  zh: {
    title: "队列", team: "团队", job: "作业", priority: "优先级", waiting: "等待", ready: "就绪",
    oldest: "最长等待", reason: "首要原因", explain: "解释", explain_of: "解释 {job}",
    none: "没有等待的分片。",
    hint: "有等待分片的作业，等待最久的在前。就绪的分片只缺资源。",
  },
});

// The API gives at most so many at a time.
const PAGE = 50;

// The reason stands early, because narrow windows cut the last columns.
const COLUMNS = [
  {key: "job", title: t("job"), cell: row => html`<a href=${link`/jobs/${row.jobName}`}>${row.jobName}</a>`},
  {key: "waiting", title: t("waiting"), number: true, cell: row => number(row.waiting)},
  {key: "reason", title: t("reason"), wide: true, cell: row => html`${reasonText(row.because).slice(0, 500)} <a class="nowrap"
    href=${link`/jobs/${row.jobName}`} aria-label=${t("explain_of", {job: row.jobName})}>${t("explain")}</a>`},
  {key: "oldest", title: t("oldest"), cell: row => html`<${Ago} at=${row.oldestWait} />`},
  {key: "ready", title: t("ready"), number: true, cell: row => number(row.ready)},
  {key: "priority", title: t("priority"), number: true, cell: row => row.priority},
  {key: "team", title: t("team"), cell: row => row.team},
];

export default function Queue({query}) {
  const team = query.get("team") ?? "";
  const jobs = usePages("queue", {team}, () => true, PAGE);
  return html`<${Page} title=${t("title")}>
    <p class="quiet">${t("hint")}</p>
    <div class="filters"><${TextFilter} name="team" label=${t("team")} value=${query.get("team") ?? ""} /></div>
    <${Listing} of=${jobs} label=${t("title")} columns=${COLUMNS} rowKey=${row => row.jobName} empty=${t("none")} />
    <${Pools} /><//>`;
}
