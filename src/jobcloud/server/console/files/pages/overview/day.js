// The last 24 hours: what ran and waited, and the use of the cluster.
import {can} from "../../core/access.js";
import {Chart} from "../../core/chart.js";
import {html} from "../../core/html.js";
import {instantText, number, texts} from "../../core/i18n.js";
import {Empty, Section, Table} from "../../core/parts.js";
import {FromHistory, sampledLine, useSeries} from "../../core/series.js";

const t = texts({
  en: {
    title: "The last 24 hours", statistics: "statistics", list: "{name}: list", running: "Running shards",
    waiting: "Waiting shards", runs: "Unfinished runs", cpus: "CPUs in use", memory: "Memory in use", hour: "Hour",
    table: "As a table", none: "There is no sample yet. The leader takes one each minute.",
    work: "Mean number of running shards, waiting shards and unfinished runs, by hour",
    use: "Part of the CPUs and of the memory that is used, by hour",
  },
  zh: {
    title: "最近 24 小时", statistics: "统计", list: "{name}：列表", running: "运行中的分片",
    waiting: "等待中的分片", runs: "未结束的运行", cpus: "CPU 使用率", memory: "内存使用率", hour: "小时",
    table: "以表格显示", none: "尚无采样。主调度器每分钟采样一次。",
    work: "每小时运行中的分片、等待中的分片和未结束的运行的均值",
    use: "每小时 CPU 和内存的使用比例",
  },
});

const HOURS = 24;
const WORK = [["running", "run", "runningShards"], ["waiting", "warn", "waitingShards"], ["runs", "good", "unfinishedRuns"]];
const USE = [["cpus", "run", "cpuCount"], ["memory", "warn", "memoryMB"]];
const percentText = share => share === null || share === undefined ? "–" : `${number(Math.round(1_000 * share) / 10)} %`;

function Content({rows}) {
  if (!rows.some(row => row.sampled)) return html`<${Empty}>${t("none")}<//>`;
  const times = rows.map(row => row.from / 1_000), use = can("view-cluster") ? USE : [];
  return html`<${Chart} label=${t("work")} height=${150} times=${times} series=${WORK.map(([name, kind, field]) => (
      {title: t(name), kind, values: sampledLine(rows, sampled => sampled[field])}))} />
    ${use.length > 0 && html`<${Chart} label=${t("use")} height=${120} times=${times} format=${percentText}
      series=${use.map(([name, kind, field]) => ({
        title: t(name), kind, values: sampledLine(rows, ({cluster}) => cluster && cluster.usedShare[field])}))} />`}
    <details><summary>${t("table")}</summary><${Table} label=${t("list", {name: t("title")})} rows=${[...rows].reverse()}
      rowKey=${row => row.from} columns=${[
        {key: "hour", title: t("hour"), cell: row => instantText(row.from).slice(0, 16)},
        ...WORK.map(([name,, field]) => ({
          key: name, title: t(name), number: true, cell: ({sampled}) => sampled ? number(sampled[field]) : "–"})),
        ...use.map(([name,, field]) => ({
          key: name, title: t(name), number: true, cell: ({sampled}) => percentText(sampled?.cluster?.usedShare[field])})),
      ]} /></details>`;
}

export function Day() {
  const hours = useSeries({}, "hour", HOURS);
  return html`<${Section} title=${t("title")} actions=${html`<a href="/statistics">${t("statistics")}</a>`}>
    <${FromHistory} of=${hours}>${rows => html`<${Content} rows=${rows} />`}<//><//>`;
}
