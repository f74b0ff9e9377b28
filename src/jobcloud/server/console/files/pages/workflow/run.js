// One run of a workflow: the graph with the states of its nodes, why nodes did not run, and what may be done.
import {path} from "../../core/api.js";
import {html} from "../../core/html.js";
import {durationText, number, texts} from "../../core/i18n.js";
import {useGet} from "../../core/live.js";
import {
  Ago, Copyable, Facts, Instant, Loaded, Page, Section, State, Table, Took,
} from "../../core/parts.js";
import {link} from "../../core/router.js";
import {word} from "../../core/words.js";
import {Answer, RunActions} from "./actions.js";
import {Conditions, reasonText, stateText, waitText} from "./conditions.js";
import {Graph} from "./graph.js";

const t = texts({
  en: {
    workflows: "Workflows", state: "State", workflow: "Workflow", team: "Team", fired: "Fire time", began: "Began",
    ended: "Ended", took: "Duration", nodes: "Nodes", id: "Id", graph: "Graph", node: "Node", after: "Started after",
    reason: "Reason", started: "Started", run: "Run", actions: "Actions", cancelling: "being cancelled",
    deadline: "Deadline",
  },
  zh: {
    workflows: "工作流", state: "状态", workflow: "工作流", team: "团队", fired: "触发时间", began: "开始时间",
    ended: "结束时间", took: "时长", nodes: "节点", id: "标识", graph: "图", node: "节点", after: "先决条件",
    reason: "原因", started: "开始时间", run: "运行", actions: "操作", cancelling: "正在取消", deadline: "期限",
  },
});

const WORST_FIRST = ["FAILED", "CANCELLED", "RUNNING", "READY", "WAITING", "SKIPPED", "SUCCEEDED"];

function Head({run}) {
  const ending = run.cancelled && !run.endedAt;
  return html`<${Facts} of=${[
    [t("state"), html`<${State} of=${run.state} text=${ending ? t("cancelling") : undefined} />${run.paused && !run.endedAt
      && html` <${State} of="paused" />`}`],
    [t("workflow"), html`<a href=${link`/workflows/${run.workflow}`}>${run.workflow}</a>`],
    [t("team"), run.team],
    [t("nodes"), html`<span class="counts">${WORST_FIRST.filter(state => run.nodeStates[state] > 0).map(state => html`
      <${State} key=${state} of=${state} text=${`${number(run.nodeStates[state])} ${word(state)}`} /> `)}</span>`],
    [t("fired"), html`<${Instant} at=${run.firedAt} />`],
    [t("began"), html`<${Instant} at=${run.beganAt} /> <span class="quiet">(<${Ago} at=${run.beganAt} />)</span>`],
    [t("ended"), run.endedAt && html`<${Instant} at=${run.endedAt} />`],
    [t("took"), html`<${Took} from=${run.beganAt} until=${run.endedAt} />`],
    [t("deadline"), run.deadlineSeconds > 0 && durationText(run.deadlineSeconds * 1_000)],
    [t("id"), html`<${Copyable} text=${run.id} />`],
  ].filter(([, value]) => value !== false)} />`;
}

function Nodes({run, reload}) {
  const columns = [
    {
      key: "node", title: t("node"), wide: true,
      cell: node => html`<span id=${`node-${run.nodes.indexOf(node)}`}>${node.name}</span>`,
    },
    {key: "state", title: t("state"), cell: node => html`<${State} of=${node.state} text=${stateText(node)} />`},
    {key: "reason", title: t("reason"), wide: true, cell: node => reasonText(node.reason)},
    {key: "after", title: t("after"), wide: true, cell: node => html`<${Conditions} of=${node} />`},
    {key: "started", title: t("started"), cell: node => html`<span class="nowrap"><${Instant} at=${node.startedAt} /></span>`},
    {key: "took", title: t("took"), number: true, cell: node => html`<${Took} from=${node.startedAt} until=${node.endedAt} />`},
    {
      key: "run", title: t("run"),
      cell: node => node.runId ? html`<a class="id" title=${node.runId} href=${link`/runs/${node.runId}`}>${node.runId}</a>`
        : node.jobName ? html`<a href=${link`/jobs/${node.jobName}`}>${node.jobName}</a>` : waitText(node),
    },
    run.nodes.some(node => node.waitFor) && {
      key: "actions", title: t("actions"), sticky: true,
      cell: node => html`<${Answer} run=${run} node=${node} reload=${reload} />`,
    },
  ].filter(Boolean);
  return html`<${Table} label=${t("nodes")} columns=${columns} rows=${run.nodes} rowKey=${node => node.name} />`;
}

const cellOf = run => node => {
  const state = stateText(node), reason = reasonText(node.reason);
  return {
    href: node.runId ? link`/runs/${node.runId}` : node.jobName ? link`/jobs/${node.jobName}`
      : `#node-${run.nodes.findIndex(one => one.name === node.name)}`,
    what: reason ? `${state} (${reason})` : state,
    state: node.state,
    detail: html`${state}${node.startedAt && html` <${Took} from=${node.startedAt} until=${node.endedAt} />`}`,
  };
};

/** The node that people look for: the first one that failed, else the first one that runs, else the start. */
const firstOf = run => ["FAILED", "RUNNING"].map(state => run.nodes.find(node => node.state === state)).find(Boolean)?.name
  ?? run.start;

/** Whether changes may concern a run: its nodes that may start, those that have a run, or the run as a whole. */
function isNamed(run, changes) {
  return run.nodes.some(node => changes.runs.includes(node.runId)
    || ((node.name === run.start || !node.endedAt) && changes.jobs.includes(node.jobName)));
}

export default function WorkflowRunPage({id}) {
  const run = useGet(path`workflow-runs/${id}`, {}, changes => changes.more || (run.data && isNamed(run.data, changes)),
    {prompt: true});
  const {data} = run;
  const above = html`<a href="/workflows">${t("workflows")}</a>${data && html` / <a
    href=${link`/workflows/${data.workflow}`}>${data.workflow}</a>`}`;
  return html`<${Page} title=${id} above=${above}
      actions=${data && html`<${RunActions} run=${data} reload=${run.reload} />`}>
    <${Loaded} of=${run}>${found => html`<${Head} run=${found} />
      <${Section} title=${t("graph")}><${Graph} nodes=${found.nodes} cell=${cellOf(found)} first=${firstOf(found)} /><//>
      <${Section} title=${t("nodes")}><${Nodes} run=${found} reload=${run.reload} /><//>`}<//><//>`;
}
