// How many further shards of a job the cluster could take now.
import {path} from "../../core/api.js";
import {html} from "../../core/html.js";
import {texts} from "../../core/i18n.js";
import {useGet, useSettled} from "../../core/live.js";
import {Field, Loaded, Table} from "../../core/parts.js";
import {link, setQuery} from "../../core/router.js";
import {ReasonList} from "./reasons.js";

const t = texts({
  en: {
    shards: "Further shards", shards_hint: "Empty: those of one run.",
    all: "All {n} shards fit on the resources that are offered now.",
    all_one: "The shard fits on the resources that are offered now.",
    some: "{fits} of {n} shards fit on the resources that are offered now.",
    elsewhere: "{n} more would fit on agents that offer nothing now, by their last offers.",
    held: "The job starts nothing now:", waiting: "The others may fit later without a change.",
    change: "Waiting alone does not help: the job, its quota or the cluster has to change.",
    executors: "{n} executors of its app would be started.", executors_one: "One executor of its app would be started.",
    incomplete: "The cluster has more agents than one answer looks at.", agents: "Agents that would take shards",
    agent: "Agent", count: "Shards", executor: "Executor", new_executor: "new", running: "running",
    more: "{n} agents would take shards. The table has those with most.",
  },
  zh: {
    shards: "新增分片数", shards_hint: "留空：一次运行的分片数。",
    all: "当前可用资源能容纳全部 {n} 个分片。", all_one: "当前可用资源能容纳该分片。",
    some: "当前可用资源能容纳 {n} 个分片中的 {fits} 个。",
    elsewhere: "按最近一次报价，另有 {n} 个可放在目前没有报价的节点上。",
    held: "作业目前不会启动：", waiting: "其余分片等待后可能容纳。",
    change: "仅等待无济于事：需要更改作业、配额或集群。",
    executors: "将启动 {n} 个其应用的执行器。", executors_one: "将启动 1 个其应用的执行器。",
    incomplete: "集群的节点数超过一次查询的上限。", agents: "可接收分片的节点",
    agent: "节点", count: "分片", executor: "执行器", new_executor: "新启动", running: "运行中",
    more: "{n} 个节点可接收分片，表中为接收最多的节点。",
  },
});

const LARGEST = 10_000, ROWS = 100, TYPING_MS = 200;

export function Fit({job, query}) {
  const text = query.get("shards") ?? "";
  const shards = /^\d{1,5}$/.test(text) ? Math.min(LARGEST, Number(text)) : 0;
  const settled = useSettled(shards, TYPING_MS);
  const fit = useGet(path`jobs/${job.jobName}/fit`, {shards: settled || ""}, changes => changes.more
    || changes.topics.length > 0);
  return html`<div class="filters"><${Field} label=${t("shards")} value=${text} hint=${t("shards_hint")} max=${5}
      set=${value => setQuery({shards: value}, {replace: true})} /></div>
    <${Loaded} of=${fit}>${found => html`<div aria-live="polite">
      <p class="verdict">${found.fits >= found.shards ? t("all", {n: found.shards})
        : t("some", {fits: found.fits, n: found.shards})}</p>
      ${found.held.length > 0 && html`<div class="error"><p>${t("held")}</p><${ReasonList} of=${found.held} job=${job.jobName} /></div>`}
      ${found.fits < found.shards && html`
        ${found.elsewhere > 0 && html`<p>${t("elsewhere", {n: found.elsewhere})}</p>`}
        <${ReasonList} of=${found.reasons} job=${job.jobName} /><p>${t(found.waitingHelps ? "waiting" : "change")}</p>`}
      ${found.newExecutors > 0 && html`<p>${t("executors", {n: found.newExecutors})}</p>`}
      ${!found.complete && html`<p>${t("incomplete")}</p>`}
      ${found.agents.some(one => one.agentId) && html`
        <${Table} label=${t("agents")} rows=${found.agents.slice(0, ROWS)} rowKey=${one => one.agentId} columns=${[
          {
            key: "agent", title: t("agent"), wide: true,
            cell: one => html`<a href=${link`/cluster/${one.agentId}`}>${one.hostname || one.agentId}</a>`,
          },
          {key: "shards", title: t("count"), number: true, cell: one => one.shards},
          {key: "executor", title: t("executor"), cell: one => t(one.newExecutor ? "new_executor" : "running")},
        ]} />
        ${found.agentCount > ROWS && html`<p class="quiet">${t("more", {n: found.agentCount})}</p>`}`}
    </div>`}<//>`;
}
