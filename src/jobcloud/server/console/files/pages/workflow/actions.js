// What may be done with a run of a workflow.
import {can} from "../../core/access.js";
import {change, path} from "../../core/api.js";
import {html, useState} from "../../core/html.js";
import {texts} from "../../core/i18n.js";
import {Action, Dialog, Field, Form, toast} from "../../core/parts.js";

const t = texts({
  en: {
    cancel: "Cancel the run", retry: "Retry", pause: "Pause", resume: "Resume",
    cancel_question: "The runs of the nodes are cancelled, and no further node starts. A run that is a node of other workflows' runs too goes on.",
    retry_question: "The nodes that failed or were cancelled are repeated. Shards that have finished do not run again. The nodes behind them that were skipped wait again.",
    pause_question: "While the run is paused, no further node starts. Nodes that run continue.",
    cancelled: "The run is cancelled.", retried: "The run continues.", paused: "The run is paused.",
    resumed: "The run is resumed.", approve: "Approve", reject: "Reject", approve_of: "Approve {node}",
    reject_of: "Reject {node}", note: "Note", result: "Result",
    result_hint: "Nodes behind it ask for one of: {results}.", answered: "The answer is stored.",
  },
  zh: {
    cancel: "取消运行", retry: "重试", pause: "暂停", resume: "恢复",
    cancel_question: "将取消各节点的运行，不再启动其他节点。同时属于其他工作流运行的运行会继续。",
    retry_question: "将重复失败或已取消的节点。已成功的分片不会再次运行。其后被跳过的节点重新等待。",
    pause_question: "暂停期间不会启动其他节点，运行中的节点继续。",
    cancelled: "运行已取消。", retried: "运行继续。", paused: "运行已暂停。", resumed: "运行已恢复。",
    approve: "批准", reject: "拒绝", approve_of: "批准 {node}", reject_of: "拒绝 {node}", note: "备注", result: "结果",
    result_hint: "其后的节点需要以下结果之一：{results}。", answered: "已保存答复。",
  },
});

const VERB = "control-runs";
const LONGEST_NOTE = 1_000, LONGEST_RESULT = 100;

/** Whether a run has something to retry. A run that is being cancelled must end first. */
const isRetryable = run => run.endedAt && run.cancelled
  || !run.cancelled && ["FAILED", "CANCELLED"].some(state => run.nodeStates[state] > 0);

/** The buttons of a run. Runs of servers without a pause lack the field `paused`. */
export function RunActions({run, reload}) {
  if (!can(VERB, run.team)) return null;
  const post = what => () => change("POST", path`workflow-runs/${run.id}/${what}`);
  const act = (what, told, question, danger) => html`<${Action} key=${what} label=${t(what)} make=${post(what)}
    after=${reload} told=${t(told)} question=${question && t(question)} danger=${danger} />`;
  const open = !run.endedAt && !run.cancelled;
  return html`
    ${isRetryable(run) && act("retry", "retried", "retry_question")}
    ${open && run.paused === false && act("pause", "paused", "pause_question")}
    ${open && run.paused === true && act("resume", "resumed")}
    ${open && act("cancel", "cancelled", "cancel_question", true)}`;
}

/** The results of a node for which the conditions of others ask. */
const resultsOf = (run, name) => [...new Set(run.nodes.flatMap(node => node.after)
  .filter(after => after.node === name && after.result).map(after => after.result))];

function AnswerDialog({run, node, succeeded, close, reload}) {
  const [note, setNote] = useState("");
  const [result, setResult] = useState("");
  const results = succeeded ? resultsOf(run, node.name) : [];
  const send = () => change("POST", path`workflow-runs/${run.id}/nodes/${node.name}/answer`,
    {body: {succeeded, note, ...(result && {result})}});
  const done = () => {
    toast(t("answered"));
    reload();
    close();
  };
  const label = t(succeeded ? "approve" : "reject");
  return html`<${Dialog} title=${t(succeeded ? "approve_of" : "reject_of", {node: node.name})} close=${close}>
    <${Form} make=${send} label=${label} done=${done} close=${close}>
      ${results.length > 0 && html`<${Field} label=${t("result")} value=${result} set=${setResult} list=${results}
        max=${LONGEST_RESULT} hint=${t("result_hint", {results: results.join(", ")})} />`}
      <${Field} label=${t("note")} value=${note} set=${setNote} lines=${3} max=${LONGEST_NOTE} /><//><//>`;
}

/** The buttons of a node that waits for an approval. */
export function Answer({run, node, reload}) {
  const [open, setOpen] = useState("");
  if (node.waitFor !== "approval" || node.state !== "RUNNING" || !can(VERB, run.team)) return null;
  const button = (what, kind) => html`<button type="button" class=${kind} aria-label=${t(`${what}_of`, {node: node.name})}
    onClick=${() => setOpen(what)}>${t(what)}</button>`;
  return html`<span class="row-actions">${button("approve")}${button("reject", "danger")}</span>
    ${open && html`<${AnswerDialog} run=${run} node=${node} succeeded=${open === "approve"} reload=${reload}
      close=${() => setOpen("")} />`}`;
}
