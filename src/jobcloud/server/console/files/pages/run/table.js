// A table of runs with a choice of some of them, and what is done to all that are chosen.
import {can} from "../../core/access.js";
import {change, path} from "../../core/api.js";
import {html, useEffect, useRef, useState} from "../../core/html.js";
import {texts} from "../../core/i18n.js";
import {Ago, Dialog, Listing, Meter, problemText, Section, State, Table, Took} from "../../core/parts.js";
import {link} from "../../core/router.js";
import {word} from "../../core/words.js";

const t = texts({
  en: {
    run: "Run", job: "Job", state: "State", cause: "Cause", fired: "Fired", took: "Duration", shards: "Shards",
    choose: "Choose {id}", choose_all: "Choose all that are shown", chosen: "{n} chosen", chosen_one: "{n} chosen",
    retry: "Retry the chosen ones", cancel: "Cancel the chosen ones", stop: "Stop", close: "Close the results",
    retry_question: "Retry {n} runs? Their dead, failed and killed shards start again.",
    retry_question_one: "Retry {n} run? Its dead, failed and killed shards start again.",
    cancel_question: "Cancel {n} runs? Their running shards are killed, and nothing of them is repeated.",
    cancel_question_one: "Cancel {n} run? Its running shards are killed, and nothing of it is repeated.",
    back: "Back", results: "Results", result: "Result", progress: "{done} of {n}", retried: "retried",
    cancelled: "cancelled", waits: "waits", working: "working …", stopped: "left out",
    gone: "The scheduler no longer keeps this run. Only the history knows it.",
    sums: "{good} done, {bad} refused", more: "{n} more",
  },
  zh: {
    run: "运行", job: "作业", state: "状态", cause: "起因", fired: "触发时间", took: "时长", shards: "分片",
    choose: "选择 {id}", choose_all: "全选当前显示的运行", chosen: "已选 {n} 个", chosen_one: "已选 {n} 个",
    retry: "重试所选运行", cancel: "取消所选运行", stop: "停止", close: "关闭结果",
    retry_question: "重试 {n} 个运行？其中已放弃、失败和被终止的分片将重新启动。",
    retry_question_one: "重试 {n} 个运行？其中已放弃、失败和被终止的分片将重新启动。",
    cancel_question: "取消 {n} 个运行？正在运行的分片将被终止，且不再重试。",
    cancel_question_one: "取消 {n} 个运行？正在运行的分片将被终止，且不再重试。",
    back: "返回", results: "结果", result: "结果", progress: "{done} / {n}", retried: "已重试",
    cancelled: "已取消", waits: "等待中", working: "处理中…", stopped: "未执行",
    gone: "调度器已不再保留此运行，仅历史库中有记录。",
    sums: "完成 {good} 个，被拒绝 {bad} 个", more: "另有 {n} 个",
  },
});

const AT_ONCE = 4;
const ENDED_BADLY = new Set(["FAILED", "DEAD", "KILLED"]);
const VERB = "control-runs";
const SHOWN_RESULTS = 300;

/** Whether the shards of a run in this state can start again, or whether it can be cancelled. */
export const isRetryable = run => ENDED_BADLY.has(run.state) && can(VERB, run.team);
export const isCancellable = run => !run.endedAt && run.cause !== "daemon" && can(VERB, run.team);

/** The numbers of shards by state: symbols with numbers, and words for those who cannot see the symbols. */
export function ShardStates({of}) {
  return html`<span class="counts">${Object.entries(of).map(([state, n]) => html`
    <${State} key=${state} of=${state} text=${`${n} ${word(state)}`} />`)}</span>`;
}

const COLUMNS = [
  {key: "run", title: t("run"), cell: run => html`<a href=${link`/runs/${run.id}`}>${run.id}</a>`, wide: true},
  {key: "job", title: t("job"), cell: run => html`<a href=${link`/jobs/${run.jobName}`}>${run.jobName}</a>`},
  {key: "state", title: t("state"), cell: run => html`<${State} of=${run.state} />
    ${run.note && html` <span class="quiet">${run.note}</span>`}`},
  {key: "cause", title: t("cause"), cell: run => word(run.cause)},
  {key: "fired", title: t("fired"), cell: run => html`<${Ago} at=${run.firedAt} />`},
  {key: "took", title: t("took"), number: true, cell: run => html`<${Took} from=${run.firedAt} until=${run.endedAt} />`},
  {key: "shards", title: t("shards"), cell: run => html`<${ShardStates} of=${run.shardStates} />`},
];

/** The runs of a list by `usePages`. Some can be chosen, for actions on all of them. `again()` loads the list anew. */
export function RunTable({of, label, empty}) {
  const [chosen, setChosen] = useState(new Set());
  const [work, setWork] = useState(null);
  const eligible = of.items.filter(run => isRetryable(run) || isCancellable(run));
  const picked = eligible.filter(run => chosen.has(run.id));
  const pick = (ids, on) => setChosen(before => {
    const after = new Set(before);
    for (const id of ids) {
      if (on) after.add(id);
      else after.delete(id);
    }
    return after;
  });
  const box = {key: "choose", title: html`<input type="checkbox" aria-label=${t("choose_all")}
      checked=${picked.length > 0 && picked.length === eligible.length}
      indeterminate=${picked.length > 0 && picked.length < eligible.length}
      onChange=${event => pick(eligible.map(run => run.id), event.target.checked)} />`,
    cell: run => eligible.includes(run) && html`<input type="checkbox" aria-label=${t("choose", {id: run.id})}
      checked=${chosen.has(run.id)} onChange=${event => pick([run.id], event.target.checked)} />`};
  const start = (kind, runs) => setWork({kind, runs, key: Date.now()});
  const finished = () => {
    setChosen(new Set());
    of.reload();
  };
  return html`
    ${eligible.length > 0 && html`<${Choices} picked=${picked} start=${start} busy=${work && !work.done} />`}
    ${work && html`<${Work} key=${work.key} ...${work} after=${finished} close=${() => setWork(null)} />`}
    <${Listing} of=${of} label=${label} columns=${eligible.length ? [box, ...COLUMNS] : COLUMNS}
      rowKey=${run => run.id} empty=${empty} />`;
}

function Choices({picked, start}) {
  const [asking, setAsking] = useState("");
  const retryable = picked.filter(isRetryable), cancellable = picked.filter(isCancellable);
  const runs = asking === "retry" ? retryable : cancellable;
  const go = () => {
    setAsking("");
    start(asking, runs);
  };
  return html`<div class="choices"><span class="quiet" role="status">${t("chosen", {n: picked.length})}</span>
    <button type="button" disabled=${!retryable.length} onClick=${() => setAsking("retry")}>${t("retry")}</button>
    <button type="button" class="danger" disabled=${!cancellable.length} onClick=${() => setAsking("cancel")}>
      ${t("cancel")}</button>
    ${asking && html`<${Dialog} title=${t(asking)} close=${() => setAsking("")}>
      <p>${t(`${asking}_question`, {n: runs.length})}</p>
      <ul class="names">${runs.slice(0, 10).map(run => html`<li><code>${run.id}</code></li>`)}
        ${runs.length > 10 && html`<li>${t("more", {n: runs.length - 10})}</li>`}</ul>
      <footer><button type="button" onClick=${() => setAsking("")}>${t("back")}</button>
        <button type="button" class=${asking === "cancel" ? "danger" : "primary"} onClick=${go}>${t(asking)}</button>
      </footer><//>`}</div>`;
}

/** Does the same to many runs, a few at once, and tells the result of each. */
function Work({kind, runs, after, close}) {
  const [results, setResults] = useState(() => new Map());
  const stop = useRef(false);
  useEffect(() => {
    const left = [...runs];
    const tell = (run, result) => setResults(before => new Map(before).set(run.id, result));
    const worker = async () => {
      for (let run = left.shift(); run; run = left.shift()) {
        if (stop.current) {
          tell(run, ["off", t("stopped")]);
          continue;
        }
        tell(run, ["run", t("working")]);
        tell(run, await resultOf(kind, run));
      }
    };
    Promise.all(Array.from({length: AT_ONCE}, worker)).then(after);
    return () => {
      stop.current = true;
    };
  }, []);
  const ended = [...results.values()].filter(([look]) => look !== "run");
  const done = ended.length === runs.length;
  const good = ended.filter(([look]) => look === "good").length, bad = ended.filter(([look]) => look === "bad").length;
  const columns = [
    {key: "run", title: t("run"), cell: run => html`<a href=${link`/runs/${run.id}`}>${run.id}</a>`, wide: true},
    {key: "result", title: t("result"), cell: run => {
      const [look, text] = results.get(run.id) ?? ["wait", t("waits")];
      return html`<span class=${`result ${look}`}><span aria-hidden="true">
        ${{good: "✓", bad: "✕", run: "▶", wait: "◷", off: "⊘"}[look]}</span> ${text}</span>`;
    }, wide: true},
  ];
  const actions = done ? html`<button type="button" onClick=${close}>${t("close")}</button>`
    : html`<button type="button" onClick=${() => {
      stop.current = true;
    }}>${t("stop")}</button>`;
  return html`<${Section} title=${t("results")} actions=${actions}>
    <p role="status"><${Meter} value=${ended.length} max=${runs.length}
      text=${t("progress", {done: ended.length, n: runs.length})} /> ${done && t("sums", {good, bad})}</p>
    <${Table} label=${t("results")} columns=${columns} rows=${runs.slice(0, SHOWN_RESULTS)} rowKey=${run => run.id} />
    ${runs.length > SHOWN_RESULTS && html`<p class="quiet">${t("more", {n: runs.length - SHOWN_RESULTS})}</p>`}<//>`;
}

/** What became of a run, as its look and a text. */
async function resultOf(kind, run) {
  try {
    await change("POST", kind === "retry" ? path`runs/${run.id}/retry` : path`runs/${run.id}/cancel`);
    return ["good", t(kind === "retry" ? "retried" : "cancelled")];
  } catch (problem) {
    return ["bad", problem.status === 404 ? t("gone") : problemText(problem)];
  }
}
