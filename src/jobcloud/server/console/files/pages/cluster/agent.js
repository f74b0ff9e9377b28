// One agent: a box among others, and its own page.
import {can} from "../../core/access.js";
import {AmountBar, AmountBars, DIMENSIONS} from "../../core/amounts.js";
import {change, path} from "../../core/api.js";
import {html, useState} from "../../core/html.js";
import {number, texts} from "../../core/i18n.js";
import {
  Action, Ago, Dialog, Empty, Facts, Field, Form, Instant, Loaded, Page, Section, State, Table, toast,
} from "../../core/parts.js";
import {link} from "../../core/router.js";
import {executorColumns} from "./executors.js";

const t = texts({
  en: {
    list: "{name}: list",
    cluster: "Cluster", lost: "lost", drained: "drained", maintenance: "maintenance", closed: "closed", open: "takes tasks",
    until: "by", because: "because", tasks: "{n} running", tasks_one: "{n} running", offers: "{n} offers held", roles: "Roles of the offers",
    offers_one: "{n} offer held", idle: "no executor", more: "and {n} more", unknown: "No agent has this id or host name, or it has not been offered since the leader took over.",
    id: "Id", address: "Address", state: "State", attributes: "Attributes", executors: "Executors", none: "No executor runs here.",
    drain: "Drain …", drain_title: "Drain {host}", drain_do: "Drain", undrain: "End the drain",
    undrain_ask: "The agent gets tasks again. A drain or maintenance by Mesos itself continues.",
    drain_text: "The agent gets no new tasks. Resident shards move to other agents. At the deadline, scheduled shards that still run are killed, and start again elsewhere if their job has failover.",
    deadline: "Deadline in seconds", deadline_hint: "From 1 s to 30 days. Empty: 600 s.", reason: "Reason",
    drain_told: "The agent is being drained.", undrain_told: "The agent takes tasks again.", window: "Maintenance by Mesos",
    drain_of: "Drain", since: "since", running: "Running shards", held: "Offers held", resources: "Resources",
  },
  zh: {
    list: "{name}：列表",
    cluster: "集群", lost: "丢失", drained: "排空中", maintenance: "维护", closed: "已停止接收", open: "接收任务",
    until: "截止", because: "原因", tasks: "{n} 个运行中", tasks_one: "{n} 个运行中", roles: "报价的角色", offers: "持有 {n} 个报价",
    offers_one: "持有 {n} 个报价", idle: "无执行器", more: "另有 {n} 个", unknown: "没有此 ID 或主机名的节点，或当前主调度器上任后尚未收到其报价。",
    id: "ID", address: "地址", state: "状态", attributes: "属性", executors: "执行器", none: "此节点没有执行器。",
    drain: "排空…", drain_title: "排空 {host}", drain_do: "排空", undrain: "结束排空",
    undrain_ask: "节点将重新接收任务。Mesos 自身的排空或维护不受影响。",
    drain_text: "节点不再接收新任务。常驻分片迁移到其他节点。到期时，仍在运行的定时分片会被终止；若作业启用了故障转移，则在别处重新启动。",
    deadline: "期限（秒）", deadline_hint: "1 秒到 30 天。留空为 600 秒。", reason: "原因",
    drain_told: "节点正在排空。", undrain_told: "节点重新接收任务。", window: "Mesos 维护窗口",
    drain_of: "排空", since: "自", running: "运行中的分片", held: "持有的报价", resources: "资源",
  },
});

const MOST_APPS = 4;

/** Why an agent takes no tasks, as [state, text]. */
function stateOf(agent) {
  if (agent.lost) return ["LOST", t("lost")];
  if (agent.drain) return ["paused", t("drained")];
  if (agent.closed) return ["paused", t(agent.maintenance ? "maintenance" : "closed")];
  return ["ok", t("open")];
}

/** App → number of running shards, of the executors of one agent. */
function appsOf(executors) {
  const found = new Map();
  for (const one of executors) found.set(one.appName, (found.get(one.appName) ?? 0) + one.tasks);
  return [...found].sort(([, one], [, other]) => other - one);
}

/** The dimension of which least is free. */
function scarcest(agent) {
  const known = DIMENSIONS.filter(name => agent.whole[name] > 0);
  return known.sort((one, other) => agent.claimed[other] / agent.whole[other] - agent.claimed[one] / agent.whole[one])[0];
}

function Bars({agent}) {
  return html`<${AmountBars} used=${agent.claimed} offered=${agent.offered} total=${agent.whole} short=${true} />`;
}

export function AgentBox({agent, executors, compact}) {
  const [state, text] = stateOf(agent);
  const name = html`<a class="host" href=${link`/cluster/${agent.agentId}`}>${agent.hostname || agent.agentId}</a>`;
  const sign = state !== "ok" && html` <${State} of=${state} text=${text} />`;
  if (compact) {
    const most = scarcest(agent);
    return html`<li class="agent">${name}${sign}
      ${most && html`<${AmountBar} name=${most} used=${agent.claimed[most]} offered=${agent.offered[most]}
        total=${agent.whole[most]} short=${true} />`}</li>`;
  }
  const apps = appsOf(executors);
  return html`<li class="agent"><div class="agent-head">${name}${sign}
      <span class="quiet">${t("tasks", {n: agent.tasks})}${agent.offers > 0 && ` · ${t("offers", {n: agent.offers})}`}
      </span></div>
    <${Bars} agent=${agent} />
    <div class="apps">${apps.slice(0, MOST_APPS).map(([app, tasks]) => html`<a key=${app} class="chip"
        href=${`/executors?agent=${encodeURIComponent(agent.hostname)}&app=${encodeURIComponent(app)}`}>
        ${app} <strong>${number(tasks)}</strong></a>`)}
      ${apps.length > MOST_APPS && html`<span class="quiet">${t("more", {n: apps.length - MOST_APPS})}</span>`}
      ${apps.length === 0 && html`<span class="quiet">${t("idle")}</span>`}</div>
    ${Object.keys(agent.attributes).length > 0 && html`<div class="quiet attributes">${
      Object.entries(agent.attributes).map(([key, value]) => `${key}=${value}`).join(" ")}</div>`}
    ${agent.drain && html`<div class="quiet">${agent.drain.reason} ${t("until")} <${Ago} at=${agent.drain.deadline} />
    </div>`}</li>`;
}

function Drain({agent, after}) {
  const [open, setOpen] = useState(false), [deadline, setDeadline] = useState(""), [reason, setReason] = useState("");
  const close = () => setOpen(false);
  const make = () => change("POST", path`agents/${agent.agentId}/drain`, {query: {deadline: deadline.trim(), reason}});
  const done = () => {
    close();
    toast(t("drain_told"));
    after();
  };
  return html`<button type="button" onClick=${() => setOpen(true)}>${t("drain")}</button>
    ${open && html`<${Dialog} title=${t("drain_title", {host: agent.hostname})} close=${close}>
      <p>${t("drain_text")}</p>
      <${Form} label=${t("drain_do")} make=${make} done=${done} close=${close}>
        <${Field} label=${t("deadline")} value=${deadline} set=${setDeadline} hint=${t("deadline_hint")} max=${10} />
        <${Field} label=${t("reason")} value=${reason} set=${setReason} max=${1000} /><//><//>`}`;
}

function Actions({agent, after}) {
  if (!can("operate-cluster")) return null;
  return agent.drain ? html`<${Action} label=${t("undrain")} question=${t("undrain_ask")} told=${t("undrain_told")}
      after=${after} make=${() => change("POST", path`agents/${agent.agentId}/undrain`)} />`
    : html`<${Drain} agent=${agent} after=${after} />`;
}

function Detail({agent, executors}) {
  const [state, text] = stateOf(agent);
  return html`<${Facts} of=${[
      [t("state"), html`<${State} of=${state} text=${text} />`],
      [t("drain_of"), agent.drain && html`${t("since")} <${Ago} at=${agent.drain.since} />, ${t("until")} <${Ago}
        at=${agent.drain.deadline} />`],
      [t("reason"), agent.drain?.reason],
      [t("window"), agent.maintenance && html`<${Instant} at=${agent.maintenance.start} /> –
        <${Instant} at=${agent.maintenance.end} />`],
      [t("running"), number(agent.tasks)], [t("held"), number(agent.offers)], [t("roles"), agent.roles.join(", ")],
      [t("id"), html`<code>${agent.agentId}</code>`], [t("address"), html`<code>${agent.address}</code>`],
      [t("attributes"), Object.entries(agent.attributes).map(([key, value]) => `${key}=${value}`).join(", ")],
    ]} />
    <${Section} title=${t("resources")}><${AmountBars} used=${agent.claimed} offered=${agent.offered}
      total=${agent.whole} /><//>
    <${Section} title=${t("executors")}><${Table} label=${t("list", {name: t("executors")})} rows=${executors} rowKey=${one => one.id}
      columns=${executorColumns().filter(column => column.key !== "agent")} empty=${t("none")} /><//>`;
}

/** `of`: the cluster as it is loaded. `executors`: agent → executors. */
export function AgentPage({id, of, executors, after}) {
  const agent = of.data?.agents.find(one => one.agentId === id || one.hostname === id);
  const above = html`<a href="/cluster">${t("cluster")}</a>`;
  return html`<${Page} title=${agent?.hostname || id} above=${above}
      actions=${agent && html`<${Actions} agent=${agent} after=${after} />`}>
    <${Loaded} of=${of}>${() => agent ? html`<${Detail} agent=${agent} executors=${executors.get(agent.agentId) ?? []} />`
      : html`<${Empty}>${t("unknown")}<//>`}<//><//>`;
}
