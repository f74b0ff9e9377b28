// One run: its state, its shards and attempts over time, one shard with its output, and notes.
import {can} from "../../core/access.js";
import {change, get, path} from "../../core/api.js";
import {html, useRef} from "../../core/html.js";
import {number, texts} from "../../core/i18n.js";
import {useLoaded} from "../../core/live.js";
import {
  Action, Ago, Copyable, ErrorBox, Facts, Instant, Loading, Page, Section, State, Table, Took,
} from "../../core/parts.js";
import {link, withQuery} from "../../core/router.js";
import {word} from "../../core/words.js";
import {BAD, badOf, MOST_UNFOLDED, WORST_FIRST} from "./folds.js";
import {Gantt} from "./gantt.js";
import {PastRun} from "./past.js";
import {Notes} from "./notes.js";
import {ShardSection} from "./shard.js";
import {isCancellable, isRetryable} from "./table.js";

const t = texts({
  en: {
    runs: "Runs", job: "Job", team: "Team", state: "State", cause: "Cause", fired: "Fired", ended: "Ended",
    took: "Duration", next: "Next attempt", shards: "Shards", parameter: "Parameter", parameters: "Parameters of shards",
    chosen: "Only the shards", priority: "Priority", key: "Key", id: "Id", retry_all: "Retry all that failed",
    retry_question: "The dead, failed and killed shards start again. Their failures and retries count from zero.",
    retried: "The shards start again.", cancel: "Cancel the run",
    cancel_question: "Running shards are killed and not repeated. Waiting shards are cancelled.",
    cancelled: "The run is cancelled.", terms: "Terms of the trigger", range: "Divided range", item: "Shard", attempt: "Attempt", host: "Host",
    started: "Started", message: "Message", actions: "Actions", retry: "Retry", kill: "Kill",
    kill_question: "Ask the task of shard {item} to end? It is not repeated.",
    kill_question_daemon: "Ask the task of shard {item} to end? Another attempt follows.",
    killed: "The task was asked to end.", log: "Log", all: "all {n}", none: "No shard is in this state.",
    first: "First page", following: "Next page", page_of: "{n} of {total} shards are shown.",
    config: "Configuration of this ad-hoc run", waits_until: "next attempt", failed_first: "failed first",
    folded: "Folded shards", open: "show them", show: "Show the shards: {state}", show_all: "Show all {n} shards",
    before: "listener before", after: "listener after", shown_states: "Shards by state",
    workflow: "Run of a workflow", node_of: "node {node} of",
  },
  zh: {
    runs: "运行", job: "作业", team: "团队", state: "状态", cause: "起因", fired: "触发时间", ended: "结束时间",
    took: "时长", next: "下次尝试", shards: "分片", parameter: "参数", parameters: "各分片参数",
    chosen: "仅限分片", priority: "优先级", key: "键", id: "标识", retry_all: "重试全部失败分片",
    retry_question: "已放弃、失败和被终止的分片将重新启动，失败次数与重试次数从零开始计算。",
    retried: "分片已重新启动。", cancel: "取消运行",
    cancel_question: "正在运行的分片将被终止且不再重试，等待中的分片将被取消。",
    cancelled: "运行已取消。", terms: "触发时的设定", range: "划分的范围", item: "分片", attempt: "尝试", host: "主机",
    started: "开始时间", message: "消息", actions: "操作", retry: "重试", kill: "终止",
    kill_question: "请求结束分片 {item} 的任务？结束后不会重试。",
    kill_question_daemon: "请求结束分片 {item} 的任务？之后会再次尝试。",
    killed: "已请求结束该任务。", log: "日志", all: "全部 {n} 个", none: "没有处于此状态的分片。",
    first: "第一页", following: "下一页", page_of: "显示 {total} 个分片中的 {n} 个。",
    config: "此临时运行的配置", waits_until: "下次尝试", failed_first: "失败优先",
    folded: "已折叠的分片", open: "显示", show: "显示分片：{state}", show_all: "显示全部 {n} 个分片",
    before: "前置监听器", after: "后置监听器", shown_states: "按状态统计分片",
    workflow: "工作流运行", node_of: "节点 {node}，属于",
  },
});

/** The number of rows of the Gantt chart and of the table. */
const ROWS = 100;
const VERB = "control-runs";
// In the address: the shards of all states in their order, also of a large run.
const ALL = "all";

/** The run with one page of its shards: those of one state, or all. A large run has at first those that failed. */
async function load(id, {cursor, state}, signal) {
  const ask = states => get(path`runs/${id}`, {limit: ROWS, cursor, state: states}, {signal});
  if (state) return ask(state === ALL ? [] : [state]);
  const run = await ask([]);
  return run.shardCount > MOST_UNFOLDED ? {...await ask(BAD), folded: true} : run;
}

export function RunPage({id, query}) {
  const state = query.get("state") ?? "", cursor = query.get("after") ?? "";
  const run = useLoaded(JSON.stringify([id, state, cursor]), signal => load(id, {state, cursor}, signal),
    changes => changes.more || changes.runs.includes(id), {prompt: true});
  const last = useRef(null);
  if (run.data) last.current = run.data;
  // While another page of shards is loaded, the present one stays.
  const data = run.data ?? last.current;
  const above = html`<a href="/runs">${t("runs")}</a>`;
  if (!data && run.problem?.status === 404) return html`<${PastRun} id=${id} query=${query} above=${above} />`;
  if (!data) {
    return html`<${Page} title=${id} above=${above}>
      ${run.problem ? html`<${ErrorBox} problem=${run.problem} again=${run.reload} />` : html`<${Loading} />`}<//>`;
  }
  return html`<${Page} title=${id} above=${html`${above} / <a href=${link`/jobs/${data.jobName}`}>${data.jobName}</a>`}
      actions=${html`<${RunActions} run=${data} again=${run.reload} />`}>
    <${ErrorBox} problem=${run.problem} again=${run.reload} />
    <${Head} run=${data} />
    <${Gantt} run=${data} query=${query} />
    ${query.has("shard") && html`<${ShardSection} key=${query.get("shard")} run=${data} query=${query}
      reload=${run.reload} />`}
    <${Shards} run=${data} state=${state} cursor=${cursor} reload=${run.reload} />
    <${Notes} run=${data} />
    ${data.config && html`<details><summary>${t("config")}</summary>
      <pre class="log">${JSON.stringify(data.config, null, 2)}</pre></details>`}<//>`;
}

function RunActions({run, again}) {
  return html`
    ${badOf(run.shardStates) > 0 && can(VERB, run.team) && html`<${Action} label=${t("retry_all")} question=${t("retry_question")}
      told=${t("retried")} make=${() => change("POST", path`runs/${run.id}/retry`)} after=${again} />`}
    ${isCancellable(run) && html`<${Action} label=${t("cancel")} danger question=${t("cancel_question")}
      told=${t("cancelled")} make=${() => change("POST", path`runs/${run.id}/cancel`)} after=${again} />`}`;
}

function Head({run}) {
  const terms = run.terms;
  const items = Object.entries(terms?.shardingItemParameters ?? {});
  return html`
    <${Facts} of=${[
      [t("state"), html`<${State} of=${run.state} />`],
      [t("job"), html`<a href=${link`/jobs/${run.jobName}`}>${run.jobName}</a>`],
      [t("team"), run.team],
      [t("workflow"), run.workflowNodes?.length > 0 && html`<ul class="plain">${run.workflowNodes.map(one => html`
        <li key=${`${one.run} ${one.node}`}>${t("node_of", {node: one.node})} <a
          href=${link`/workflows/runs/${one.run}`}>${one.run}</a></li>`)}</ul>`],
      [t("cause"), word(run.cause)],
      [t("fired"), html`<${Instant} at=${run.firedAt} /> <span class="quiet">(<${Ago} at=${run.firedAt} />)</span>`],
      [t("ended"), run.endedAt && html`<${Instant} at=${run.endedAt} />`],
      [t("took"), html`<${Took} from=${run.firedAt} until=${run.endedAt} />`],
      [t("next"), run.nextAttempt && html`<${Instant} at=${run.nextAttempt} /> <span
        class="quiet">(<${Ago} at=${run.nextAttempt} />)</span>`],
      [t("range"), run.itemRange && html`<code>${run.itemRange}</code>`],
      [t("id"), html`<${Copyable} text=${run.id} />`],
    ].filter(([, value]) => value !== false)} />
    ${terms && html`<h2 class="small">${t("terms")}</h2><${Facts} of=${[
      [t("parameter"), terms.jobParameter !== null ? html`<code>${terms.jobParameter}</code>` : null],
      [t("parameters"), items.length ? html`<code>${items.map(([item, text]) => `${item}=${text}`).join(", ")}</code>`
        : null],
      [t("chosen"), terms.shards.join(", ")],
      [t("priority"), terms.priority],
      [t("key"), terms.key && html`<code>${terms.key}</code>`],
    ]} />`}`;
}

/** The beginning of a message: its first line with content. */
const firstLine = text => text.split("\n").find(line => line.trim())?.slice(0, 200) ?? "";

function Shards({run, state, cursor, reload}) {
  const mayControl = can(VERB, run.team), mayRead = can("read-logs", run.team);
  const daemon = run.cause === "daemon";
  const columns = [
    {key: "item", title: t("item"), number: true, cell: shard => html`
      <a href=${withQuery({shard: shard.item, attempt: "", log: ""})}>${shard.item}</a>
      ${shard.step && html` <span class="quiet">${t(shard.step)}</span>`}`},
    {key: "state", title: t("state"), cell: shard => html`<${State} of=${shard.state} />
      ${shard.notBefore && html` <span class="quiet">${t("waits_until")} <${Ago} at=${shard.notBefore} /></span>`}`},
    {key: "attempt", title: t("attempt"), number: true, cell: shard => shard.attempt || ""},
    {key: "host", title: t("host"), cell: shard => html`<span class="nowrap">${shard.hostname}</span>`},
    {key: "started", title: t("started"), cell: shard => html`<span class="nowrap"><${Instant} at=${shard.startedAt} /></span>`},
    {key: "took", title: t("took"), number: true, cell: shard => html`
      <${Took} from=${shard.startedAt} until=${shard.state === "ACTIVE" ? null : shard.endedAt ?? shard.startedAt} />`},
    {key: "message", title: t("message"), wide: true, cell: shard => firstLine(shard.message)},
    {key: "actions", title: t("actions"), sticky: true, cell: shard => html`<span class="row-actions">
      ${mayRead && shard.attempt > 0 && html`
        <a href=${withQuery({shard: shard.item, attempt: "", log: "both"})}
          aria-label=${`${t("log")} ${shard.item}`}>${t("log")}</a>`}
      ${mayControl && isRetryable({...shard, team: run.team}) && html`<${Action} label=${t("retry")} told=${t("retried")}
        make=${() => change("POST", path`runs/${run.id}/retry`, {query: {item: shard.item}})} after=${reload} />`}
      ${mayControl && (shard.state === "ACTIVE" || shard.state === "WAITING" && shard.attempt > 0 && !daemon) && html`
        <${Action} label=${t("kill")} danger told=${t("killed")}
          question=${t(daemon ? "kill_question_daemon" : "kill_question", {item: String(shard.item)})}
          make=${() => change("POST", path`tasks/${shard.taskId}/kill`)} after=${reload} />`}</span>`},
  ];
  const large = run.shardCount > MOST_UNFOLDED;
  const states = WORST_FIRST.filter(name => run.shardStates[name] > 0);
  const counted = name => html`<${State} of=${name} text=${`${number(run.shardStates[name])} ${word(name)}`} />`;
  const chip = (value, text) => html`<a class="chip" aria-current=${value === state ? "true" : undefined}
    href=${withQuery({state: value, after: ""})}>${text}</a>`;
  const folded = run.folded ? states.filter(name => !BAD.includes(name)) : [];
  return html`<${Section} title=${t("shards")}>
    <nav class="chips" aria-label=${t("shown_states")}>${large && chip("", t("failed_first"))}
      ${chip(large ? ALL : "", t("all", {n: run.shardCount}))}${states.map(name => chip(name, counted(name)))}</nav>
    ${(run.shards.length > 0 || !run.folded) && html`<${Table} label=${t("shards")} columns=${columns} rows=${run.shards}
      rowKey=${shard => shard.item} empty=${t("none")} />`}
    ${(cursor || run.nextCursor) && html`<p class="quiet">
      ${t("page_of", {n: run.shards.length, total: run.shardCount})}
      ${cursor && html` <a class="button" href=${withQuery({after: ""})}>${t("first")}</a>`}
      ${run.nextCursor && html` <a class="button" href=${withQuery({after: run.nextCursor})}>${t("following")}</a>`}</p>`}
    ${folded.length > 0 && html`<ul class="folds" aria-label=${t("folded")}>${folded.map(name => html`
      <li key=${name}>${counted(name)} <a href=${withQuery({state: name, after: ""})}
        aria-label=${t("show", {state: word(name)})}>${t("open")}</a></li>`)}</ul>
      <p><a class="button" href=${withQuery({state: ALL, after: ""})}>${t("show_all", {n: run.shardCount})}</a></p>`}<//>`;
}
