// Short lists of the first page. Each of them links to the page that has all.
import {get} from "../../core/api.js";
import {html} from "../../core/html.js";
import {browserZone, instantText, number, texts} from "../../core/i18n.js";
import {useGet, useLoaded} from "../../core/live.js";
import {Ago, Empty, Instant, Loaded, Section, State, Table} from "../../core/parts.js";
import {reasonText} from "../../core/reasons.js";
import {link} from "../../core/router.js";
import {word} from "../../core/words.js";

const t = texts({
  en: {
    waiting: "What waits, and why", queue: "the queue", nothing_waits: "No shard waits.",
    resources: "for an agent with room", quota: "for room in the quota of their team",
    stopped: "for the end of a pause", backOff: "for the time of their next attempt",
    earlierRun: "for the end of an earlier run", shards: "{n} shards", shards_one: "{n} shard",
    failed: "Failed in the last day", all_failed: "all failed runs", none_failed: "No run failed in the last 24 hours.",
    run: "Run", job: "Job", state: "State", fired: "Fired", message: "Message", late: "Late",
    none_late: "No run is late.", late_since: "Late", alerts: "alerts", next: "Due next", none_next: "No job is due.",
    due: "Due", count: "Shards", oldest: "Waits since", list: "{name}: list", reason: "Reason", jobs: "all jobs",
  },
  zh: {
    waiting: "等待中的分片及原因", queue: "队列", nothing_waits: "没有等待的分片。",
    resources: "等待有空闲资源的节点", quota: "等待团队配额空间",
    stopped: "等待暂停结束", backOff: "等待下次重试时间",
    earlierRun: "等待更早的运行结束", shards: "{n} 个分片", shards_one: "{n} 个分片",
    failed: "最近一天的失败", all_failed: "全部失败的运行", none_failed: "最近 24 小时没有失败的运行。",
    run: "运行", job: "作业", state: "状态", fired: "触发", message: "消息", late: "延迟",
    none_late: "没有延迟的运行。", late_since: "延迟自", alerts: "告警", next: "即将触发", none_next: "没有即将触发的作业。",
    due: "时间", count: "分片", oldest: "等待始于", list: "{name}：列表", reason: "原因", jobs: "全部作业",
  },
});

const DAY_MS = 86_400_000;
const MOST_RUNS = 6, MOST_JOBS = 5, MOST_LISTED = 8, LONGEST_TEXT = 120;
// What shards wait for → the page that tells more.
const WAITS = {
  resources: "/queue", quota: "/teams", stopped: "/jobs?state=paused", backOff: "/queue", earlierRun: "/runs?state=ACTIVE",
};

const jobLink = row => html`<a href=${link`/jobs/${row.jobName}`}>${row.jobName}</a>`;
const all = (href, text) => html`<a href=${href}>${text}</a>`;

const shortened = text => text.length > LONGEST_TEXT ? `${text.slice(0, LONGEST_TEXT)} …` : text;

/** The last line of a message, because that of a traceback names the error. */
const lastLine = text => shortened(text.trimEnd().split("\n").at(-1).trim());

/** The jobs that wait longest. */
function Queue() {
  const jobs = useGet("queue", {limit: MOST_JOBS}, changes => changes.more
    || changes.topics.some(topic => ["fired", "launched", "config"].includes(topic)));
  return html`<${Loaded} of=${jobs}>${({items}) => items.length > 0 && html`<${Table}
    label=${t("list", {name: t("waiting")})} rows=${items} rowKey=${row => row.jobName} columns=${[
      {key: "job", title: t("job"), cell: jobLink},
      {key: "count", title: t("count"), number: true, cell: row => number(row.waiting)},
      {key: "reason", title: t("reason"), wide: true, cell: row => shortened(reasonText(row.because))},
      {key: "oldest", title: t("oldest"), cell: row => html`<${Ago} at=${row.oldestWait} />`},
    ]} />`}<//>`;
}

export function Waiting({of: shards}) {
  const found = Object.entries(WAITS).filter(([name]) => shards.waitingFor[name] > 0);
  return html`<${Section} title=${t("waiting")} actions=${all("/queue", t("queue"))}>
    ${shards.waiting === 0 ? html`<${Empty}>${t("nothing_waits")}<//>` : html`
      <ul class="plain">${found.map(([name, href]) => html`<li key=${name}>
        <strong>${t("shards", {n: shards.waitingFor[name]})}</strong> <a href=${href}>${t(name)}</a></li>`)}</ul>
      <${Queue} />`}<//>`;
}

async function failedRuns(signal) {
  const lists = await Promise.all(["DEAD", "FAILED"].map(state => get("runs", {state, limit: MOST_RUNS}, {signal})));
  const since = Date.now() - DAY_MS;
  return lists.flatMap(list => list.items).filter(run => Date.parse(run.endedAt ?? run.firedAt) >= since)
    .sort((one, other) => Date.parse(other.firedAt) - Date.parse(one.firedAt)).slice(0, MOST_LISTED);
}

export function Failed() {
  const runs = useLoaded("failed", failedRuns, changes => changes.more || changes.topics.includes("done"));
  return html`<${Section} title=${t("failed")} actions=${all("/runs?state=FAILED", t("all_failed"))}>
    <${Loaded} of=${runs}>${rows => html`<${Table} label=${t("list", {name: t("failed")})} rows=${rows} rowKey=${run => run.id}
      empty=${t("none_failed")} columns=${[
        {key: "job", title: t("job"), cell: jobLink},
        {key: "state", title: t("state"), cell: run => html`<a href=${link`/runs/${run.id}`}
          aria-label=${`${t("run")} ${run.id}: ${word(run.state)}`}><${State} of=${run.state} /></a>`},
        {key: "fired", title: t("fired"), cell: run => html`<${Ago} at=${run.firedAt} />`},
        {key: "message", title: t("message"), wide: true,
          cell: run => lastLine(run.shards.find(shard => shard.message)?.message ?? "")},
      ]} />`}<//><//>`;
}

export function Late({of: rows}) {
  return html`<${Section} title=${t("late")} actions=${all("/alerts?condition=late", t("alerts"))}>
    <${Table} label=${t("list", {name: t("late")})} rows=${rows.slice(0, MOST_LISTED)} rowKey=${row => row.runId} empty=${t("none_late")}
      columns=${[
        {key: "job", title: t("job"), cell: jobLink},
        {key: "run", title: t("run"), cell: row => html`<a href=${link`/runs/${row.runId}`}>${row.runId}</a>`, wide: true},
        {key: "fired", title: t("fired"), cell: row => html`<${Ago} at=${row.firedAt} />`},
        {key: "late", title: t("late_since"), cell: row => html`<${Ago} at=${row.lateSince} />`},
      ]} /><//>`;
}

/** When a job is due: how soon, on the clock of its time zone, and on that of the reader if that shows something else. */
function Due({of: {at, timeZone}}) {
  const differs = instantText(at, timeZone) !== instantText(at);
  return html`<${Ago} at=${at} /> <span class="quiet"><span class="nowrap"><${Instant} at=${at} zone=${timeZone} />
    ${" "}${timeZone}${differs && ","}</span>${differs && html` <span class="nowrap"><${Instant} at=${at} /> ${browserZone}</span>`}</span>`;
}

export function Next({of: rows}) {
  return html`<${Section} title=${t("next")} actions=${all("/jobs?sort=next", t("jobs"))}>
    <${Table} label=${t("list", {name: t("next")})} rows=${rows.slice(0, MOST_LISTED)} rowKey=${row => row.jobName} empty=${t("none_next")}
      columns=${[
        {key: "job", title: t("job"), cell: jobLink, wide: true},
        {key: "due", title: t("due"), wide: true, cell: row => html`<${Due} of=${row} />`},
      ]} /><//>`;
}
