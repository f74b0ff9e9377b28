// One workflow: its graph, its runs, and its nodes with their conditions.
import {can} from "../../core/access.js";
import {change, get, path} from "../../core/api.js";
import {html, useState} from "../../core/html.js";
import {durationText, number, texts} from "../../core/i18n.js";
import {useGet} from "../../core/live.js";
import {
  Action, Ago, Facts, Instant, Loaded, Page, problemText, Section, State, Table, toast,
} from "../../core/parts.js";
import {link, navigate} from "../../core/router.js";
import {TriggerDialog} from "../job/actions.js";
import {Conditions, waitText} from "./conditions.js";
import {Graph} from "./graph.js";
import {Grid, useRuns} from "./grid.js";
import {jobOf, jobsOf} from "./keys.js";

const t = texts({
  en: {
    workflows: "Workflows", graph: "Graph", runs: "Runs and nodes", configuration: "Configuration", trigger: "Trigger",
    remove: "Delete", removed: "{workflow} is deleted.",
    remove_question: "{workflow} is removed. Its runs that have begun go on, and are forgotten when they end. Type its name to confirm.",
    team: "Team", start: "Starts with", last: "Last run", skipped: "Skipped runs",
    skipped_text: "{n} runs of the start began no run of the workflow: too many had not ended", changed: "Changed",
    description: "Description", deadline: "Deadline", node: "Node", job: "Job", after: "Starts after", none: "none",
    job_of: "job {job}", start_of: "start",
  },
  zh: {
    workflows: "工作流", graph: "图", runs: "运行与节点", configuration: "配置", trigger: "触发", remove: "删除",
    removed: "{workflow} 已删除。",
    remove_question: "将删除 {workflow}。已开始的运行会继续，结束后不再保留。请输入名称以确认。",
    team: "团队", start: "起始节点", last: "上次运行", skipped: "跳过的运行",
    skipped_text: "起始作业有 {n} 次运行未开始工作流运行：未结束的运行过多", changed: "更改时间", description: "描述",
    deadline: "期限", node: "节点", job: "作业", after: "先决条件", none: "无", job_of: "作业 {job}", start_of: "起始",
  },
});

/** A button that triggers the job of the start, with the form of the job. */
function TriggerButton({job}) {
  const [found, setFound] = useState(null);
  const open = async () => {
    try {
      setFound(await get(path`jobs/${job}`));
    } catch (problem) {
      toast(problemText(problem), "bad");
    }
  };
  return html`<button type="button" class="primary" onClick=${open}>${t("trigger")}</button>
    ${found && html`<${TriggerDialog} job=${found} workflow close=${() => setFound(null)} />`}`;
}

function Actions({workflow}) {
  const {workflow: name, team, nodes, start} = workflow;
  const job = nodes.find(node => node.name === start)?.job;
  return html`${job && can("trigger", team) && html`<${TriggerButton} job=${jobOf(workflow, job)} />`}
    ${can("configure", team) && html`<${Action} label=${t("remove")} danger typed=${name}
      question=${t("remove_question", {workflow: name})} told=${t("removed", {workflow: name})}
      make=${() => change("DELETE", path`workflows/${name}`)} after=${() => navigate("/workflows")} />`}`;
}

function Head({of}) {
  const job = of.nodes.find(node => node.name === of.start)?.job;
  return html`<${Facts} of=${[
    [t("team"), of.team],
    [t("start"), html`${job !== of.start && html`${of.start} `}${job && html`<a
      href=${link`/jobs/${jobOf(of, job)}`}>${t("job_of", {job})}</a>`}`],
    [t("last"), of.lastRun ? html`<a href=${link`/workflows/runs/${of.lastRun.id}`}><${State}
      of=${of.lastRun.state} /></a> <${Ago} at=${of.lastRun.beganAt} />` : t("none")],
    [t("skipped"), of.skipped > 0 && html`${number(of.skipped)} <span class="quiet">
      ${t("skipped_text", {n: of.skipped})}</span>`],
    [t("deadline"), of.deadlineSeconds && durationText(of.deadlineSeconds * 1_000)],
    [t("changed"), html`<${Instant} at=${of.changedAt} />`],
    [t("description"), of.description],
  ].filter(([, value]) => value !== false && value !== 0)} />`;
}

/** The configuration as a table, which also says in words what the graph shows. */
function Nodes({of}) {
  const columns = [
    {
      key: "node", title: t("node"), wide: true,
      cell: node => html`<span id=${`node-${of.nodes.indexOf(node)}`}>${node.name}</span>${node.name === of.start
        && html` <span class="quiet">(${t("start_of")})</span>`}`,
    },
    {
      key: "job", title: t("job"),
      cell: node => node.job ? html`<a class="nowrap" href=${link`/jobs/${jobOf(of, node.job)}`}>${node.job}</a>` : waitText(node),
    },
    {key: "after", title: t("after"), wide: true, cell: node => html`<${Conditions} of=${node} />`},
    of.nodes.some(node => node.deadlineSeconds) && {
      key: "deadline", title: t("deadline"),
      cell: node => node.deadlineSeconds > 0 && durationText(node.deadlineSeconds * 1_000),
    },
  ].filter(Boolean);
  return html`<${Table} label=${t("configuration")} columns=${columns} rows=${of.nodes} rowKey=${node => node.name} />`;
}

const cellOf = workflow => node => ({
  href: node.job ? link`/jobs/${jobOf(workflow, node.job)}` : `#node-${workflow.nodes.findIndex(one => one.name === node.name)}`,
  what: node.job ? t("job_of", {job: node.job}) : waitText(node),
  detail: node.job ? node.job !== node.name && node.job : waitText(node),
});

function Content({workflow, concerns}) {
  const runs = useRuns(workflow.workflow, concerns);
  return html`<${Head} of=${workflow} />
    <${Section} title=${t("graph")}><${Graph} nodes=${workflow.nodes} cell=${cellOf(workflow)}
      first=${workflow.start} /><//>
    <${Section} title=${t("runs")}><${Grid} of=${runs} workflow=${workflow} /><//>
    <${Section} title=${t("configuration")}><${Nodes} of=${workflow} /><//>`;
}

export default function WorkflowPage({name}) {
  const found = useGet(path`workflows/${name}`, {}, changes => changes.more || concerns(changes), {prompt: true});
  const concerns = changes => {
    const jobs = found.data ? jobsOf(found.data) : new Set();
    return changes.more || changes.jobs.some(job => jobs.has(job));
  };
  return html`<${Page} title=${name} above=${html`<a href="/workflows">${t("workflows")}</a>`}
    actions=${found.data && html`<${Actions} workflow=${found.data} />`}>
    <${Loaded} of=${found}>${workflow => html`<${Content} workflow=${workflow} concerns=${concerns} />`}<//><//>`;
}
