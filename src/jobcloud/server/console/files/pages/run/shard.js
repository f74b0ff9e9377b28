// One shard of a run: its attempts, the message and the result of one of them, and its output.
import {can} from "../../core/access.js";
import {path} from "../../core/api.js";
import {html, useEffect, useRef} from "../../core/html.js";
import {texts} from "../../core/i18n.js";
import {useGet, usePages} from "../../core/live.js";
import {Ago, Copyable, Facts, Instant, Loaded, Section, State, Table, Took} from "../../core/parts.js";
import {link, setQuery, withQuery} from "../../core/router.js";
import {causeWord, word} from "../../core/words.js";
import {Log} from "./log.js";
import {Message} from "./message.js";

const t = texts({
  en: {
    title: "Shard {item}", close: "Close", attempts: "Attempts of the shard", attempt: "Attempt", state: "State",
    host: "Host", started: "Started", ended: "Ended", took: "Duration", cause: "Cause",
    result: "Result", waits: "Waits because", next: "Next attempt", retries: "Repeats after failures",
    lost: "Attempts in a row that the cluster lost", task: "Task", executor: "Executor", none: "It has no attempt yet.",
    colon: ": ", after: "attempt {number} is {state}", after_why: "attempt {number} is {state}: {why}",
    open: "Show the output", shown: "shown", no_right: "You may not read the output of this team.",
  },
  zh: {
    title: "分片 {item}", close: "关闭", attempts: "该分片的各次尝试", attempt: "尝试", state: "状态",
    host: "主机", started: "开始时间", ended: "结束时间", took: "时长", cause: "起因",
    result: "结果", waits: "等待原因", next: "下次尝试", retries: "失败后的重试次数",
    lost: "集群连续丢失的尝试", task: "任务", executor: "执行器", none: "尚无尝试。",
    colon: "：", after: "第 {number} 次尝试{state}", after_why: "第 {number} 次尝试{state}：{why}",
    open: "查看输出", shown: "当前显示", no_right: "您无权查看此团队的输出。",
  },
});

export function ShardSection({run, query}) {
  const item = query.get("shard");
  const concerns = changes => changes.more || changes.runs.includes(run.id);
  const where = path`runs/${run.id}/shards/${item}`;
  const shard = useGet(where, {}, concerns, {prompt: true});
  const attempts = usePages(`${where}/attempts`, {}, concerns, 100, {prompt: true});
  const place = useRef();
  useEffect(() => place.current.scrollIntoView({block: "nearest"}), []);
  const close = html`<a class="button" href=${withQuery({shard: "", attempt: "", log: "", find: ""})}>${t("close")}</a>`;
  const wanted = Number(query.get("attempt"));
  const chosen = attempts.items.find(one => one.number === wanted) ?? attempts.items[0];
  return html`<div ref=${place} class="panel"><${Section} title=${t("title", {item})} actions=${close}>
    <${Loaded} of=${shard}>${found => html`<${Facts} of=${[
      [t("state"), html`<${State} of=${found.state} />`],
      [t("next"), found.notBefore && html`<${Instant} at=${found.notBefore} /> <span
        class="quiet">(<${Ago} at=${found.notBefore} />)</span>`],
      [t("retries"), found.retries || null],
      [t("lost"), found.failures || null],
    ]} />
      ${found.waitsBecause && html`<p><span class="quiet">${t("waits")}:</span>
        ${" "}${waitsFor(found, attempts.items[0])}</p>`}`}<//>
    <${Loaded} of=${attempts}>${() => html`
      <${Attempts} of=${attempts.items} chosen=${chosen} />
      ${chosen && html`<${Details} key=${chosen.number} attempt=${chosen} />
        ${can("read-logs", run.team) ? html`<${Output} run=${run} item=${item} attempt=${chosen} query=${query} />`
          : html`<p class="quiet">${t("no_right")}</p>`}`}`}<//><//></div>`;
}

// The message of the attempt has the rest.
const firstLine = text => text.split("\n", 1)[0];

/** Why a shard waits: how its last attempt ended. Before the first one, its message says it. */
function waitsFor(shard, last) {
  if (!last || last.active) return firstLine(shard.waitsBecause);
  const why = [causeWord(last.cause), firstLine(last.message)].filter(Boolean).join(t("colon"));
  return t(why ? "after_why" : "after", {number: String(last.number), state: word(last.state), why});
}

export function Output({run, item, attempt, query}) {
  if (!query.get("log")) {
    return html`<p><button type="button" class="primary" onClick=${() => setQuery({log: "both"})}>${t("open")}</button></p>`;
  }
  return html`<${Log} key=${`${run.id} ${item} ${attempt.number}`} run=${run.id} item=${item} attempt=${attempt}
    query=${query} />`;
}

function Attempts({of, chosen}) {
  const columns = [
    {key: "number", title: t("attempt"), number: true, cell: one => one === chosen
      ? html`<strong aria-current="true">${one.number} <span class="quiet">(${t("shown")})</span></strong>`
      : html`<a href=${withQuery({attempt: one.number})}>${one.number}</a>`},
    {key: "state", title: t("state"), cell: one => html`<${State} of=${one.state} />`},
    {key: "host", title: t("host"), cell: one => html`<span class="nowrap">${one.hostname}</span>`},
    {key: "started", title: t("started"), cell: one => html`<${Instant} at=${one.startedAt} />`},
    {key: "ended", title: t("ended"), cell: one => html`<${Instant} at=${one.endedAt} />`},
    {key: "took", title: t("took"), number: true, cell: one => one.startedAt && (one.active || one.endedAt)
      && html`<${Took} from=${one.startedAt} until=${one.endedAt} />`},
    {key: "cause", title: t("cause"), cell: one => causeWord(one.cause)},
  ];
  return html`<${Table} label=${t("attempts")} columns=${columns} rows=${of} rowKey=${one => one.number}
    empty=${t("none")} />`;
}

export function Details({attempt}) {
  return html`
    ${attempt.message && html`<${Message} text=${attempt.message} />`}
    ${attempt.result !== null && attempt.result !== undefined && html`<h3>${t("result")}</h3>
      <pre class="log" tabindex="0">${JSON.stringify(attempt.result, null, 2)}</pre>`}
    <${Facts} of=${[
      [t("task"), attempt.taskId && html`<${Copyable} text=${attempt.taskId} />`],
      [t("executor"), attempt.executorId && html`<a href=${link`/executors`}><code>${attempt.executorId}</code></a>`],
    ]} />`;
}
