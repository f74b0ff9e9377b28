// A run that the scheduler no longer keeps: what the history and the archive of logs have of it.
import {can} from "../../core/access.js";
import {html} from "../../core/html.js";
import {durationText, texts} from "../../core/i18n.js";
import {usePages} from "../../core/live.js";
import {Facts, Instant, Listing, Page, Section, State} from "../../core/parts.js";
import {link, withQuery} from "../../core/router.js";
import {causeWord, word} from "../../core/words.js";
import {Notes} from "./notes.js";
import {Details, Output} from "./shard.js";

const t = texts({
  en: {
    gone: "The scheduler does not keep this run. Here is what the history has of it.", attempts: "Attempts",
    none: "The history does not know this run either.", item: "Shard", attempt: "Attempt", state: "State", host: "Host",
    started: "Started", ended: "Ended", took: "Duration", cause: "Cause", job: "Job", fired: "Fired", team: "Team",
    one: "Shard {item}, attempt {number}", log: "Log", close: "Close",
  },
  zh: {
    gone: "调度器已不再保留此运行，以下是历史库中的记录。", attempts: "各次尝试",
    none: "历史库中也没有此运行。", item: "分片", attempt: "尝试", state: "状态", host: "主机",
    started: "开始时间", ended: "结束时间", took: "时长", cause: "起因", job: "作业", fired: "触发时间", team: "团队",
    one: "分片 {item}，第 {number} 次尝试", log: "日志", close: "关闭",
  },
});

const columns = mayRead => [
  {key: "item", title: t("item"), number: true, cell: one => html`
    <a href=${withQuery({shard: one.item, attempt: one.attempt})}>${one.item}</a>`},
  {key: "attempt", title: t("attempt"), number: true, cell: one => one.attempt},
  {key: "state", title: t("state"), cell: one => html`<${State} of=${stateOf(one)} />`},
  {key: "host", title: t("host"), cell: one => html`<span class="nowrap">${one.hostname}</span>`},
  {key: "started", title: t("started"), cell: one => html`<${Instant} at=${one.startedAt} />`},
  {key: "ended", title: t("ended"), cell: one => html`<${Instant} at=${one.endedAt} />`},
  {key: "took", title: t("took"), number: true, cell: one => durationText(one.durationSeconds && 1_000 * one.durationSeconds)},
  {key: "cause", title: t("cause"), cell: one => causeWord(one.cause)},
  {key: "log", title: t("log"), cell: one => mayRead(one) && html`
    <a href=${withQuery({shard: one.item, attempt: one.attempt, log: "both"})}
      aria-label=${`${t("log")} ${one.item}`}>${t("log")}</a>`},
];

const stateOf = attempt => attempt.outcome === "SUCCEEDED" ? "FINISHED" : attempt.outcome;

export function PastRun({id, query, above}) {
  const attempts = usePages("history/attempts", {run: id}, () => false, 100);
  const first = attempts.items[0];
  const wanted = attempts.items.find(one => String(one.item) === query.get("shard")
    && String(one.attempt) === query.get("attempt"));
  const mayRead = one => can("read-logs", one.team);
  return html`<${Page} title=${id} above=${above}>
    <p>${t("gone")}</p>
    ${first && html`<${Facts} of=${[
      [t("job"), html`<a href=${link`/jobs/${first.jobName}`}>${first.jobName}</a>`], [t("team"), first.team],
      [t("cause"), word(first.runCause)], [t("fired"), html`<${Instant} at=${first.firedAt} />`],
    ]} />`}
    ${wanted && html`<div class="panel"><${Section} key=${`${wanted.item} ${wanted.attempt}`}
        title=${t("one", {item: String(wanted.item), number: String(wanted.attempt)})}
        actions=${html`<a class="button" href=${withQuery({shard: "", attempt: "", log: "", find: ""})}>${t("close")}</a>`}>
      <${Details} attempt=${wanted} />
      ${mayRead(wanted) && html`<${Output} run=${{id}} item=${wanted.item} query=${query}
        attempt=${{number: wanted.attempt, active: false, state: stateOf(wanted)}} />`}<//></div>`}
    <${Section} title=${t("attempts")}><${Listing} of=${attempts} label=${t("attempts")} columns=${columns(mayRead)}
      rowKey=${one => one.taskId} empty=${t("none")} /><//>
    ${first && html`<${Notes} run=${{id, team: first.team}} />`}<//>`;
}
