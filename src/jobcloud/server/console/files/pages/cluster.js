// The agents, what they hold, and what is done to all of them.
import {can} from "../core/access.js";
import {AmountBars, DIMENSIONS} from "../core/amounts.js";
import {all, change} from "../core/api.js";
import {html, useState} from "../core/html.js";
import {number, texts} from "../core/i18n.js";
import {useGet, useLoaded} from "../core/live.js";
import {Action, Choice, Copyable, Empty, Facts, Field, Loaded, Page, Section, State, Table} from "../core/parts.js";
import {setQuery} from "../core/router.js";
import {AgentBox, AgentPage} from "./cluster/agent.js";
import {Fit} from "./cluster/fit.js";

const t = texts({
  en: {
    list: "{name}: list",
    title: "Cluster", agents: "Agents", agents_n: "{n} agents", agents_n_one: "{n} agent", offers: "Offers held",
    mesos: "Mesos", connected: "connected", apart: "no connection", framework: "Framework", tasks: "Running shards",
    waiting: "Waiting shards", matcher: "Matcher", zones: "Time zones", version: "Version", pause: "Pause everything",
    pause_ask: "Nothing of any job starts until everything is resumed. Running shards continue.",
    resume: "Resume everything", paused: "Everything is paused: no shard of any job starts.", teardown: "Tear down …",
    teardown_ask: "Removes the framework from Mesos. This kills all its tasks at once. To confirm, type the id of the framework:",
    group: "Group by", no_group: "no attribute", sort: "Order", host: "host name", free: "largest free share first",
    busy: "smallest free share first", show: "Show", every: "all", closed: "closed", lost: "lost", search: "Host name",
    none: "No agent has offered anything yet.", no_match: "No agent matches the filters.", without: "without {name}",
    more: "Show {n} more", size: "Size", auto: "automatic", compact: "compact", full: "with all dimensions",
    faults: "Stored records that cannot be read or written", path: "Path", problem: "Problem", total: "All agents",
    used: "used", offered: "offered and free", roles: "Mesos roles of teams",
  },
  zh: {
    list: "{name}：列表",
    title: "集群", agents: "节点", agents_n: "{n} 个节点", agents_n_one: "{n} 个节点", offers: "持有的报价",
    mesos: "Mesos", connected: "已连接", apart: "未连接", framework: "框架", tasks: "运行中的分片",
    waiting: "等待中的分片", matcher: "匹配器", zones: "时区库", version: "版本", pause: "全部暂停",
    pause_ask: "恢复之前，任何作业都不会启动；正在运行的分片继续运行。",
    resume: "全部恢复", paused: "已全部暂停：任何作业的分片都不会启动。", teardown: "注销框架…",
    teardown_ask: "将框架从 Mesos 中移除，其全部任务会立即被终止。请输入框架 ID 以确认：",
    group: "分组", no_group: "不分组", sort: "排序", host: "主机名", free: "空闲比例从大到小",
    busy: "空闲比例从小到大", show: "显示", every: "全部", closed: "已停止接收", lost: "丢失", search: "主机名",
    none: "尚无节点提供资源。", no_match: "没有符合条件的节点。", without: "无 {name}",
    more: "再显示 {n} 个", size: "大小", auto: "自动", compact: "紧凑", full: "显示所有维度",
    faults: "无法读写的存储记录", path: "路径", problem: "问题", total: "全部节点",
    used: "已用", offered: "可用报价", roles: "团队的 Mesos 角色",
  },
});

// Above so many agents, their boxes are compact. So many are shown at once.
const COMPACT_FROM = 40, SHOWN = 200;

/** The smallest free part of any dimension of an agent. */
export function freeShare(agent) {
  const parts = DIMENSIONS.filter(name => agent.whole[name] > 0)
    .map(name => 1 - agent.claimed[name] / agent.whole[name]);
  return parts.length ? Math.min(...parts) : 0;
}

const ORDERS = {
  host: (one, other) => one.hostname.localeCompare(other.hostname, undefined, {numeric: true}),
  free: (one, other) => freeShare(other) - freeShare(one),
  busy: (one, other) => freeShare(one) - freeShare(other),
};

/** The agents of a choice, in its order. */
function chosen(agents, {q, show, sort}) {
  const kept = agents.filter(agent => agent.hostname.toLowerCase().includes(q.toLowerCase())
    && (show === "lost" ? agent.lost : show === "closed" ? agent.closed || agent.drain : true));
  return kept.sort(ORDERS[sort] ?? ORDERS.host);
}

/** Value of an attribute → agents, in the order of the values. "" is for agents without it. */
function groupsOf(agents, name) {
  const found = new Map();
  for (const agent of agents) {
    const value = name ? agent.attributes[name] ?? "" : "";
    if (!found.has(value)) found.set(value, []);
    found.get(value).push(agent);
  }
  return [...found].sort(([one], [other]) => one.localeCompare(other, undefined, {numeric: true}));
}

function sums(agents, part) {
  return Object.fromEntries(DIMENSIONS.map(name => [name, agents.reduce((sum, agent) => sum + agent[part][name], 0)]));
}

function Actions({of: cluster, after}) {
  const operate = can("operate-cluster");
  return html`${operate && (cluster.paused
    ? html`<${Action} label=${t("resume")} make=${() => change("POST", "cluster/resume")} after=${after} />`
    : html`<${Action} label=${t("pause")} question=${t("pause_ask")} after=${after}
        make=${() => change("POST", "cluster/pause")} />`)}
    ${can("teardown") && cluster.frameworkId && html`<${Action} danger=${true} label=${t("teardown")}
      question=${t("teardown_ask")} typed=${cluster.frameworkId} after=${after}
      make=${() => change("POST", "framework/teardown", {body: {confirm: cluster.frameworkId}})} />`}`;
}

function Summary({of: cluster}) {
  const {agents} = cluster;
  return html`${cluster.paused && html`<div class="warning"><p>${t("paused")}</p></div>`}
    <${Facts} of=${[
      [t("mesos"), html`<${State} of=${cluster.connected ? "ok" : "unavailable"}
        text=${t(cluster.connected ? "connected" : "apart")} />`],
      [t("tasks"), html`<a href="/runs?state=ACTIVE">${number(cluster.activeTasks)}</a>`],
      [t("waiting"), html`<a href="/queue">${number(cluster.waitingShards)}</a>`],
      [t("offers"), number(agents.reduce((sum, agent) => sum + agent.offers, 0))],
      [t("framework"), cluster.frameworkId && html`<${Copyable} text=${cluster.frameworkId} />`],
      [t("roles"), Object.entries(cluster.teamRoles ?? {}).map(([team, role]) => `${team}: ${role}`).join(", ")],
      [t("matcher"), cluster.matcher], [t("zones"), cluster.timeZones], [t("version"), cluster.version],
    ]} />
    ${agents.length > 0 && html`<${Section} title=${t("total")}><${AmountBars} used=${sums(agents, "claimed")}
      offered=${sums(agents, "offered")} total=${sums(agents, "whole")} />
      <p class="quiet legend"><span><span class="key used"></span>${t("used")}</span>
        <span><span class="key offered"></span>${t("offered")}</span></p><//>`}
    ${cluster.faults.length > 0 && html`<${Section} title=${t("faults")}><${Table} label=${t("list", {name: t("faults")})}
      rows=${cluster.faults} rowKey=${row => row.path} columns=${[
        {key: "path", title: t("path"), cell: row => html`<code>${row.path}</code>`},
        {key: "problem", title: t("problem"), wide: true, cell: row => row.problem},
      ]} /><//>`}`;
}

function Filters({of: agents, wanted}) {
  const attributes = [...new Set(agents.flatMap(agent => Object.keys(agent.attributes)))].sort();
  const choice = (name, options, fallback = "") => html`<${Choice} label=${t(name)} value=${wanted[name]}
    options=${options} set=${value => setQuery({[name]: value === fallback ? "" : value})} />`;
  return html`<div class="filters">
    <${Field} label=${t("search")} value=${wanted.q} max=${100} set=${q => setQuery({q}, {replace: true})} />
    ${choice("show", [["", t("every")], ["closed", t("closed")], ["lost", t("lost")]])}
    ${choice("group", [["", t("no_group")], ...attributes])}
    ${choice("sort", Object.keys(ORDERS).map(name => [name, t(name)]), "host")}
    ${choice("size", ["auto", "compact", "full"].map(name => [name, t(name)]), "auto")}</div>`;
}

function Agents({of: agents, executors, wanted}) {
  const [shown, setShown] = useState(SHOWN);
  const found = chosen(agents, wanted);
  const compact = wanted.size === "compact" || (wanted.size !== "full" && found.length > COMPACT_FROM);
  let left = shown;
  return html`${groupsOf(found, wanted.group).map(([value, all_]) => {
    const part = all_.slice(0, Math.max(0, left));
    left -= part.length;
    return part.length > 0 && html`<div key=${value} class="agent-group">
      ${wanted.group && html`<h3>${value ? `${wanted.group}: ${value}` : t("without", {name: wanted.group})}
        <span class="quiet"> ${t("agents_n", {n: all_.length})}</span></h3>`}
      <ul class=${compact ? "agents compact" : "agents"}>${part.map(agent => html`<${AgentBox} key=${agent.agentId}
        agent=${agent} executors=${executors.get(agent.agentId) ?? []} compact=${compact} />`)}</ul></div>`;
  })}
  ${found.length === 0 && html`<${Empty}>${t(agents.length ? "no_match" : "none")}<//>`}
  ${found.length > shown && html`<button type="button" onClick=${() => setShown(shown + SHOWN)}>
    ${t("more", {n: Math.min(SHOWN, found.length - shown)})}</button>`}`;
}

/** Agent → its executors. */
async function executorsByAgent() {
  const found = new Map();
  for (const one of await all("executors")) {
    if (!found.has(one.agentId)) found.set(one.agentId, []);
    found.get(one.agentId).push(one);
  }
  return found;
}

export default function Cluster({parts, query}) {
  const concerns = changes => changes.more || changes.agents.length > 0 || changes.topics.includes("cluster");
  const cluster = useGet("cluster", {}, concerns);
  const executors = useLoaded("executors by agent", executorsByAgent, concerns);
  const after = () => {
    cluster.reload();
    executors.reload();
  };
  const held = executors.data ?? new Map();
  if (parts.length > 0) return html`<${AgentPage} id=${parts[0]} of=${cluster} executors=${held} after=${after} />`;
  const wanted = {sort: "host", size: "auto"};
  for (const name of ["q", "show", "group", "sort", "size"]) wanted[name] = query.get(name) ?? wanted[name] ?? "";
  return html`<${Page} title=${t("title")}
      actions=${cluster.data && html`<${Actions} of=${cluster.data} after=${after} />`}>
    <${Loaded} of=${cluster}>${found => html`<${Summary} of=${found} /><${Fit} query=${query} />
      <${Section} title=${t("agents")}><${Filters} of=${found.agents} wanted=${wanted} />
        <${Agents} of=${found.agents} executors=${held} wanted=${wanted} /><//>`}<//><//>`;
}
