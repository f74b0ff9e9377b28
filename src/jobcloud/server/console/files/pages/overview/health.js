// The cluster's use, who leads, and the health of Mesos, store and clock with the reasons in words.
import {AmountBars} from "../../core/amounts.js";
import {html} from "../../core/html.js";
import {number, texts} from "../../core/i18n.js";
import {Ago, Facts, Section, State} from "../../core/parts.js";
import {sentence} from "../../core/sentences.js";

const t = texts({
  en: {
    cluster: "Cluster", agents: "{n} agents", agents_one: "{n} agent", closed: "{n} closed", lost: "{n} lost",
    no_agents: "No agent has offered anything yet.", health: "Health", leader: "Leader", since: "since",
    mesos: "Mesos", connected: "connected", apart: "no connection", store: "Store", clock: "Clock", ok: "works",
    faults: "{n} records cannot be read or written", faults_one: "{n} record cannot be read or written",
    fails: "fails, see the alert", epoch: "Epoch", version: "Version", recoveries: "Recoveries",
    failing: "The scheduler does not work", warnings: "Warnings",
    code_disconnected: "It has no connection to a Mesos master.", code_starting: "It is starting.",
    code_standby: "It does not lead, and no other scheduler answers.", code_suspended: "It is suspended.",
    code_recovering: "It starts over from the stored state.", code_fenced: "Another scheduler has taken over.",
    code_failed: "It has failed.", code_stopped: "It has been stopped.", code_failing: "It fails:",
  },
  zh: {
    cluster: "集群", agents: "{n} 个节点", agents_one: "{n} 个节点", closed: "{n} 个已停止接收", lost: "{n} 个丢失",
    no_agents: "尚无节点提供资源。", health: "健康状况", leader: "主调度器", since: "始于",
    mesos: "Mesos", connected: "已连接", apart: "未连接", store: "存储", clock: "时钟", ok: "正常",
    faults: "{n} 条记录无法读写", faults_one: "{n} 条记录无法读写",
    fails: "异常，见告警", epoch: "任期", version: "版本", recoveries: "恢复次数",
    failing: "调度器工作异常", warnings: "警告",
    code_disconnected: "未连接到 Mesos master。", code_starting: "正在启动。",
    code_standby: "它不是主调度器，且没有其他调度器应答。", code_suspended: "已挂起。",
    code_recovering: "正在从已存储的状态重新开始。", code_fenced: "已被其他调度器接管。",
    code_failed: "已失败。", code_stopped: "已停止。", code_failing: "出错：",
  },
});

/** The problem by its kind. Its text is told too, unless it says no more. */
function Problem({of: {code, problem}}) {
  if (!t.has(`code_${code}`)) return problem;
  return html`${t(`code_${code}`)} ${code !== "disconnected" && problem !== code && problem}`;
}

/** What is wrong with the scheduler, above all else. */
export function Trouble({of: health}) {
  if (!health || (health.status === "ok" && !health.warnings.length)) return null;
  return html`${health.status !== "ok" && html`<div class="error" role="alert"><p><strong>${t("failing")}</strong>
      ${health.since && html` ${t("since")} <${Ago} at=${health.since} />`}</p><p><${Problem} of=${health} /></p></div>`}
    ${health.warnings.length > 0 && html`<div class="warning"><p><strong>${t("warnings")}</strong></p>
      <ul>${health.warningDetails.map(one => html`<li key=${one.text}>
        ${sentence(one.text, one.code, one.parameters)}</li>`)}</ul></div>`}`;
}

export function Cluster({of: cluster}) {
  const counts = [[cluster.closed, "closed"], [cluster.lost, "lost"]].filter(([n]) => n > 0);
  return html`<${Section} title=${t("cluster")}>
    <p><a href="/cluster">${t("agents", {n: cluster.agents})}</a>
      ${counts.map(([n, name]) => html`, <a key=${name} href=${`/cluster?show=${name}`}>${t(name, {n})}</a>`)}</p>
    ${cluster.agents > 0 ? html`<${AmountBars} used=${cluster.used} offered=${cluster.offered} total=${cluster.total} />`
      : html`<p class="quiet">${t("no_agents")}</p>`}<//>`;
}

/** The state of a part, with a link to what tells more. */
function Part({well, text, href}) {
  const state = html`<${State} of=${well ? "ok" : "unavailable"} text=${text} />`;
  return well ? state : html`<a href=${href}>${state}</a>`;
}

export function Health({numbers: {health, leader, alerts}}) {
  const store = health.faults > 0 ? html`<${Part} text=${t("faults", {n: health.faults})} href="/cluster" />`
    : html`<${Part} well=${!alerts.store} text=${t(alerts.store ? "fails" : "ok")} href="/alerts?condition=store" />`;
  return html`<${Section} title=${t("health")}><${Facts} of=${[
    [t("mesos"), html`<${Part} well=${health.connected} text=${t(health.connected ? "connected" : "apart")}
      href="/cluster" />`],
    [t("store"), store],
    [t("clock"), html`<${Part} well=${!alerts.clock} text=${t(alerts.clock ? "fails" : "ok")}
      href="/alerts?condition=clock" />`],
    [t("leader"), leader && html`${leader.host} ${t("since")} <${Ago} at=${leader.since} />`],
    [t("epoch"), leader && number(leader.epoch)],
    [t("recoveries"), health.recoveries ? number(health.recoveries) : ""],
    [t("version"), health.version],
  ]} /><//>`;
}
