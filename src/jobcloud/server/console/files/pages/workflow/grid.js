// The newest runs of a workflow: a column for each run, a row for each node.
import {get, path} from "../../core/api.js";
import {useCells} from "../../core/cells.js";
import {html, useRef} from "../../core/html.js";
import {instantText, texts} from "../../core/i18n.js";
import {useLoaded} from "../../core/live.js";
import {Empty, Loaded, Mark} from "../../core/parts.js";
import {link} from "../../core/router.js";
import {word} from "../../core/words.js";
import {reasonText, stateText} from "./conditions.js";

const t = texts({
  en: {
    label: "Runs and nodes", hint: "Newest run first. Arrow keys move between the cells, Enter opens one.",
    node: "Node", none: "The workflow has not run yet.", run_title: "{run}: {state}, {time}",
    cell: "{run}, node {node}: {state}", cell_reason: "{run}, node {node}: {state}: {reason}",
    absent: "not in this run", legend: "Symbols",
  },
  zh: {
    label: "运行与节点", hint: "最新的运行在前。方向键在单元格间移动，回车打开。", node: "节点",
    none: "该工作流尚未运行。", run_title: "{run}：{state}，{time}", cell: "{run}，节点 {node}：{state}",
    cell_reason: "{run}，节点 {node}：{state}：{reason}", absent: "不在此运行中", legend: "符号",
  },
});

const RUNS = 20, WHOLE_MS = 10_000;
const NODE_STATES = ["FAILED", "CANCELLED", "RUNNING", "READY", "WAITING", "SKIPPED", "SUCCEEDED"];
const STARTABLE = ["WAITING", "READY"];

/** Whether changes may concern a run. Answers to nodes that wait for one are named as changes of the start's job. */
function isNamed(run, changes) {
  const answered = run.nodes.some(node => node.waitFor && node.state === "RUNNING");
  return run.nodes.some(node => changes.runs.includes(node.runId)
    || ((STARTABLE.includes(node.state) || (answered && node.name === run.start)) && changes.jobs.includes(node.jobName)));
}

/** A run with its nodes; null if it is gone meanwhile. */
async function withNodes(id, signal) {
  try {
    return await get(path`workflow-runs/${id}`, {}, {signal});
  } catch (problem) {
    if (problem.status === 404) return null;
    throw problem;
  }
}

/**
 * The newest runs of a workflow with their nodes, newest first. Runs that have ended do not change by themselves. Of the
 * others, those that a change names are read again, and all of them once in ten seconds.
 */
export function useRuns(workflow, concerns) {
  const known = useRef({runs: new Map(), readAt: 0, named: new Set()}).current;
  return useLoaded(`workflow runs ${workflow}`, async signal => {
    const now = Date.now(), whole = now - known.readAt >= WHOLE_MS, named = known.named;
    known.named = new Set();
    const readAt = whole ? now : known.readAt;
    known.readAt = 0;  // if a load fails or is given up, the next one is a whole one
    const {items} = await get(path`workflows/${workflow}/runs`, {limit: RUNS}, {signal});
    const runs = await Promise.all(items.map(one => {
      const before = known.runs.get(one.id);
      const same = before && ["endedAt", "cancelled", "paused"].every(name => before[name] === one[name]);
      return same && (one.endedAt || !(whole || named.has(one.id))) ? before : withNodes(one.id, signal);
    }));
    const found = runs.filter(Boolean);
    Object.assign(known, {runs: new Map(found.map(run => [run.id, run])), readAt});
    return found;
  }, changes => {
    if (!concerns(changes)) return false;
    for (const run of known.runs.values()) if (changes.more || isNamed(run, changes)) known.named.add(run.id);
    return true;
  }, {prompt: true});
}

/** The nodes of the runs, in the order of the workflow, then those that it no longer has. */
function namesOf(workflow, runs) {
  return [...new Set([...workflow.nodes, ...runs.flatMap(run => run.nodes)].map(node => node.name))];
}

export function Grid({of, workflow}) {
  return html`<${Loaded} of=${of}>${runs => runs.length ? html`<${Cells} runs=${runs} workflow=${workflow} />`
    : html`<${Empty}>${t("none")}<//>`}<//>`;
}

function Cells({runs, workflow}) {
  const names = namesOf(workflow, runs);
  const {table, move, at} = useCells(names.length + 1, runs.length);
  const cell = (run, name, down, right) => {
    const node = run.nodes.find(one => one.name === name);
    if (!node) return html`<td key=${run.id}><span class="hidden">${t("absent")}</span></td>`;
    const reason = reasonText(node.reason);
    const title = t(reason ? "cell_reason" : "cell", {run: run.id, node: name, state: stateText(node), reason});
    const target = node.runId ? link`/runs/${node.runId}` : link`/workflows/runs/${run.id}`;
    return html`<td key=${run.id}><a href=${target} title=${title} aria-label=${title} ...${at(down, right)}>
      <${Mark} state=${node.state} /></a></td>`;
  };
  const used = new Set(runs.flatMap(run => [run.state, ...run.nodes.map(node => node.state)]));
  // The time stands above the first of the runs that have it.
  const minute = right => right >= 0 ? instantText(runs[right].firedAt).slice(11, 16) : "";
  return html`<p class="quiet">${t("hint")}</p>
    <div class="scroll tall"><table class="grid" role="grid" aria-label=${t("label")} ref=${table} onKeyDown=${move}>
      <thead><tr><th scope="col">${t("node")}</th>${runs.map((run, right) => {
        const time = instantText(run.firedAt);
        const title = t("run_title", {run: run.id, state: word(run.paused ? "paused" : run.state), time});
        return html`<th key=${run.id} scope="col"><a href=${link`/workflows/runs/${run.id}`} title=${title}
          aria-label=${title} ...${at(0, right)}><${Mark} state=${run.paused ? "paused" : run.state} />
          <span aria-hidden="true">${minute(right) === minute(right - 1) ? "" : minute(right)}</span></a></th>`;
      })}</tr></thead>
      <tbody>${names.map((name, index) => html`<tr key=${name}><th scope="row" class="long" title=${name}>${name}</th>
        ${runs.map((run, right) => cell(run, name, index + 1, right))}</tr>`)}</tbody>
    </table></div>
    <p class="legend quiet" aria-label=${t("legend")}>${NODE_STATES.filter(state => used.has(state)).map(state => html`
      <span key=${state}><${Mark} state=${state} /> ${word(state)}</span>`)}</p>`;
}
