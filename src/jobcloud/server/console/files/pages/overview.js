// The first page: what runs, what waits and why, what failed, what is late, what is due next, how the cluster is.
import {can} from "../core/access.js";
import {html} from "../core/html.js";
import {number, texts} from "../core/i18n.js";
import {useGet, useStream} from "../core/live.js";
import {Loaded, Page} from "../core/parts.js";
import {Begin} from "./overview/begin.js";
import {Day} from "./overview/day.js";
import {Cluster, Health, Trouble} from "./overview/health.js";
import {Failed, Late, Next, Waiting} from "./overview/lists.js";
import {Week} from "./overview/week.js";

const t = texts({
  en: {
    title: "Overview", running: "shards run", running_one: "shard runs", waiting: "shards wait", waiting_one: "shard waits",
    unfinished: "{n} unfinished runs", unfinished_one: "{n} unfinished run",
    dead: "dead runs", dead_one: "dead run", dead_hint: "attempts used up", late: "late runs", late_one: "late run",
    late_hint: "longer than their limit", alerts: "open alerts", alerts_one: "open alert", jobs: "jobs", jobs_one: "job",
    disabled: "{n} disabled", paused: "{n} paused", none_waits: "nothing has to wait", ready: "{n} for room",
    ready_one: "{n} for room", all_told: "conditions that hold now",
  },
  zh: {
    title: "概览", running: "个分片运行中", running_one: "个分片运行中", waiting: "个分片等待中", waiting_one: "个分片等待中",
    unfinished: "{n} 个运行未结束", unfinished_one: "{n} 个运行未结束",
    dead: "个已放弃的运行", dead_one: "个已放弃的运行", dead_hint: "重试次数已用完", late: "个延迟的运行", late_one: "个延迟的运行",
    late_hint: "超过规定时长", alerts: "条未关闭告警", alerts_one: "条未关闭告警", jobs: "个作业", jobs_one: "个作业",
    disabled: "{n} 个已禁用", paused: "{n} 个已暂停", none_waits: "无需等待", ready: "{n} 个在等资源",
    ready_one: "{n} 个在等资源", all_told: "当前成立的条件",
  },
});

const TOPICS = new Set(["fired", "done", "config", "cluster"]);

function Card({href, name, n, kind, children}) {
  return html`<a class=${n > 0 && kind ? `card ${kind}` : "card"} href=${href}><strong>${number(n)}</strong>
    ${t(name, {n})}<span class="quiet hint">${children}</span></a>`;
}

function Cards({of: {jobs, shards, runs, alerts}}) {
  const open = Object.values(alerts).reduce((sum, n) => sum + n, 0);
  const stopped = ["disabled", "paused"].filter(name => jobs[name] > 0).map(name => t(name, {n: jobs[name]}));
  const room = shards.waitingFor.resources;
  return html`<div class="cards">
    <${Card} href="/runs?state=ACTIVE" name="running" n=${shards.running}>${t("unfinished", {n: runs.unfinished})}<//>
    <${Card} href="/queue" name="waiting" n=${shards.waiting}>
      ${shards.waiting ? t("ready", {n: room}) : t("none_waits")}<//>
    <${Card} href="/runs?state=DEAD" name="dead" n=${runs.dead} kind="bad">${t("dead_hint")}<//>
    <${Card} href="/alerts?condition=late" name="late" n=${runs.late} kind="warn">${t("late_hint")}<//>
    <${Card} href="/alerts" name="alerts" n=${open} kind="warn">${t("all_told")}<//>
    <${Card} href="/jobs" name="jobs" n=${jobs.registered}>${stopped.join(", ")}<//></div>`;
}

function Content({numbers, lists, firstRun}) {
  return html`<${Trouble} of=${numbers.health} />
    ${firstRun && html`<${Begin} />`}
    <${Cards} of=${numbers} />
    ${!firstRun && html`<div class="columns two">
      <${Waiting} of=${numbers.shards} /><${Failed} />
      <${Next} of=${lists.next} /><${Late} of=${lists.late} /></div>`}
    ${can("view-cluster") && numbers.cluster && html`<div class="columns two">
      <${Cluster} of=${numbers.cluster} /><${Health} numbers=${numbers} /></div>`}
    ${!firstRun && html`<div class="columns two"><${Day} /><${Week} /></div>`}`;
}

export default function Overview() {
  const stream = useStream();
  const loaded = useGet("overview", {}, changes => changes.more || changes.topics.some(topic => TOPICS.has(topic)));
  return html`<${Page} title=${t("title")}><${Loaded} of=${loaded}>${lists => {
    const numbers = (stream.status === "live" && stream.numbers) || lists;
    return html`<${Content} numbers=${numbers} lists=${lists} firstRun=${numbers.jobs.registered === 0} />`;
  }}<//><//>`;
}
