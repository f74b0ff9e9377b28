// What ran, waited and was registered over time, and the use of the cluster: means of samples, a gap without a sample.
import {can} from "../../core/access.js";
import {Chart} from "../../core/chart.js";
import {html} from "../../core/html.js";
import {instantText, number, texts} from "../../core/i18n.js";
import {Empty, Section, Table} from "../../core/parts.js";
import {FromHistory, sampledLine} from "../../core/series.js";

const t = texts({
  en: {
    title: "Running and waiting over time", list: "{name}: list", running: "Running shards", waiting: "Waiting shards",
    runs: "Unfinished runs", running_jobs: "Running jobs", registered: "Registered jobs", enabled: "Enabled",
    disabled: "Disabled", use: "Use of the cluster", cpus: "CPUs", memory: "Memory", disk: "Disk", gpus: "GPUs",
    agents: "Agents", time: "From", table: "As a table", by_team: "Samples are by team, so there are none for a job or an app.",
    none: "There is no sample of this time yet. The leader takes one each minute.",
    work_chart: "Mean number of running shards, waiting shards, unfinished runs and running jobs, by time",
    jobs_chart: "Registered jobs that are enabled and disabled, by time",
    use_chart: "Part of the cluster's resources that is used, by time",
    agents_chart: "Number of agents that are neither unreachable nor gone, by time",
  },
  zh: {
    title: "各时段的运行与等待", list: "{name}：列表", running: "运行中的分片", waiting: "等待中的分片",
    runs: "未结束的运行", running_jobs: "运行中的作业", registered: "已注册的作业", enabled: "已启用",
    disabled: "已禁用", use: "集群使用率", cpus: "CPU", memory: "内存", disk: "磁盘", gpus: "GPU",
    agents: "节点", time: "起始", table: "以表格显示", by_team: "采样按团队统计，因此没有单个作业或应用的数据。",
    none: "此时段尚无采样。主调度器每分钟采样一次。",
    work_chart: "各时段运行中的分片、等待中的分片、未结束的运行和运行中的作业的均值",
    jobs_chart: "各时段已启用和已禁用的注册作业数",
    use_chart: "各时段集群资源的使用比例",
    agents_chart: "各时段可用节点数",
  },
});

const WORK = [["running", "run", "runningShards"], ["waiting", "warn", "waitingShards"], ["runs", "good", "unfinishedRuns"],
  ["running_jobs", "off", "runningJobs"]];
const JOBS = [["enabled", "good", "enabledJobs"], ["disabled", "off", "disabledJobs"]];
const USE = [["cpus", "run", "cpuCount"], ["memory", "warn", "memoryMB"], ["disk", "off", "diskMB"],
  ["gpus", "good", "gpuCount"]];

const percentText = share => `${number(Math.round(1_000 * share) / 10)} %`;
const lines = (rows, of) => of.map(([name, kind, field]) => (
  {title: t(name), kind, values: sampledLine(rows, sampled => sampled[field])}));

/** The dimensions that the cluster has at some time. */
const dimensionsOf = rows => USE.filter(([,, field]) => rows.some(
  ({sampled}) => sampled?.cluster && sampled.cluster.usedShare[field] !== null));

function Cluster({rows, times}) {
  const use = dimensionsOf(rows).map(([name, kind, field]) => (
    {title: t(name), kind, values: sampledLine(rows, ({cluster}) => cluster ? cluster.usedShare[field] : null)}));
  const agents = [{title: t("agents"), kind: "run", values: sampledLine(rows, ({cluster}) => cluster && cluster.agents)}];
  return html`<div class="columns two">
    <div><h3>${t("use")}</h3><${Chart} label=${t("use_chart")} height=${140} times=${times} format=${percentText}
      series=${use} /></div>
    <div><h3>${t("agents")}</h3><${Chart} label=${t("agents_chart")} height=${140} times=${times} series=${agents} /></div>
  </div>`;
}

function Steps({rows, byDay, ofCluster}) {
  const figure = (key, value) => ({key, title: t(key), number: true, cell: ({sampled}) => sampled ? value(sampled) : "–"});
  const share = (sampled, field) => {
    const found = sampled.cluster?.usedShare[field];
    return found === null || found === undefined ? "–" : percentText(found);
  };
  return html`<details><summary>${t("table")}</summary><${Table} label=${t("list", {name: t("title")})}
    rows=${[...rows].reverse()} rowKey=${row => row.from} columns=${[
      {key: "time", title: t("time"), cell: row => instantText(row.from).slice(0, byDay ? 10 : 16)},
      ...[...WORK, ...JOBS].map(([name,, field]) => figure(name, sampled => number(sampled[field]))),
      ...ofCluster ? [figure("agents", ({cluster}) => cluster ? number(cluster.agents) : "–"),
        ...dimensionsOf(rows).map(([name,, field]) => figure(name, sampled => share(sampled, field)))] : [],
    ]} /></details>`;
}

function Content({rows, byDay}) {
  if (!rows.some(row => row.sampled)) return html`<${Empty}>${t("none")}<//>`;
  const times = rows.map(row => row.from / 1_000), ofCluster = can("view-cluster");
  return html`<${Chart} label=${t("work_chart")} times=${times} series=${lines(rows, WORK)} />
    ${ofCluster && html`<${Cluster} rows=${rows} times=${times} />`}
    <h3>${t("registered")}</h3><${Chart} label=${t("jobs_chart")} height=${140} times=${times} series=${lines(rows, JOBS)} />
    <${Steps} rows=${rows} byDay=${byDay} ofCluster=${ofCluster} />`;
}

/** `of`: the steps of `useSeries`. `filter`: its query. */
export function Sampled({of, filter, byDay}) {
  return html`<${Section} title=${t("title")}>${filter.job || filter.app ? html`<${Empty}>${t("by_team")}<//>`
    : html`<${FromHistory} of=${of}>${rows => html`<${Content} rows=${rows} byDay=${byDay} />`}<//>`}<//>`;
}
