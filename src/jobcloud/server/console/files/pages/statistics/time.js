// Figures in steps of time, as charts and as a table.
import {Chart} from "../../core/chart.js";
import {html} from "../../core/html.js";
import {durationText, instantText, number, texts} from "../../core/i18n.js";
import {Facts, Section, Table} from "../../core/parts.js";
import {FromHistory, lineOf} from "../../core/series.js";
import {cpuHoursText, Failures, rateText, secondsText} from "./figures.js";

const t = texts({
  en: {
    list: "{name}: list",
    results: "Attempts over time", since: "Since", durations: "Duration of attempts", cpus: "CPUs asked for, mean", attempts: "Attempts",
    succeeded: "Succeeded", failed: "Failed or lost", killed: "Killed", rate: "Success rate", p50: "Median", p95: "95 %",
    time: "From", table: "As a table", cpu_hours: "CPU hours", queued: "Queued, 95 %", duration: "Duration, 95 %",
    results_chart: "Attempts that succeeded, failed and were killed, by time", median: "Duration, median",
    durations_chart: "Median and 95th percentile of the duration of attempts, by time",
    cpus_chart: "Mean number of CPUs that attempts asked for, by time", runs: "Runs by their fire time",
    runs_chart: "Ended runs that finished and that failed, by their fire time", finished: "Finished",
    not_finished: "Failed, killed, cancelled or dead",
    cpus_hint: "The requested CPUs times the duration of the attempts that ended in a step, by the length of the step. The use is not measured.",
  },
  zh: {
    list: "{name}：列表",
    results: "各时段的尝试", since: "起始时间", durations: "尝试时长", cpus: "申请的 CPU 均值", attempts: "尝试",
    succeeded: "成功", failed: "失败或丢失", killed: "被终止", rate: "成功率", p50: "中位数", p95: "95%",
    time: "起始", table: "以表格显示", cpu_hours: "CPU 小时", queued: "排队 95%", duration: "时长 95%",
    results_chart: "各时段成功、失败和被终止的尝试次数", median: "时长中位数",
    durations_chart: "各时段尝试时长的中位数和 95 百分位",
    cpus_chart: "各时段尝试申请的 CPU 均值", runs: "运行（按触发时间）",
    runs_chart: "按触发时间统计的成功和失败的运行", finished: "成功",
    not_finished: "失败、终止、取消或已放弃",
    cpus_hint: "各时段内结束的尝试所申请的 CPU 乘以时长，再除以时段长度。并非实测用量。",
  },
});

const RESULTS = [["succeeded", "good"], ["failed", "bad"], ["killed", "off"]];
const sum = (rows, name) => rows.reduce((total, row) => total + row[name], 0);

function Sums({of: rows}) {
  const total = Object.fromEntries(["attempts", "succeeded", "failed", "killed", "cpuSeconds"].map(
    name => [name, sum(rows, name)]));
  return html`<${Facts} of=${[
    [t("since"), instantText(rows[0].from).slice(0, 16)],
    [t("attempts"), number(total.attempts)], [t("succeeded"), number(total.succeeded)],
    [t("failed"), html`<${Failures} n=${total.failed} />`], [t("killed"), number(total.killed)],
    [t("rate"), rateText(total)], [t("cpu_hours"), cpuHoursText(total)],
  ]} />`;
}

function Steps({of: rows, byDay}) {
  const figure = (key, value) => (
    {key, title: t(key), number: true, cell: row => row.known ? value(row) : "–"});
  return html`<details><summary>${t("table")}</summary><${Table} label=${t("list", {name: t("results")})} rows=${[...rows].reverse()}
    rowKey=${row => row.from} columns=${[
      {key: "time", title: t("time"), cell: row => instantText(row.from).slice(0, byDay ? 10 : 16)},
      figure("succeeded", row => number(row.succeeded)),
      figure("failed", row => html`<${Failures} n=${row.failed} />`),
      figure("killed", row => number(row.killed)), figure("rate", rateText),
      figure("median", row => secondsText(row.duration.p50)),
      figure("duration", row => secondsText(row.duration.p95)),
      figure("queued", row => secondsText(row.queued.p95)), figure("cpu_hours", cpuHoursText),
    ]} /></details>`;
}

const runsThat = (row, wanted) => Object.entries(row.runs ?? {}).reduce(
  (sum, [state, n]) => wanted === (state === "FINISHED") ? sum + n : sum, 0);

/** Mean number of CPUs in a step. The present step has lasted only until now. */
const meanCpus = row => row.cpuSeconds / Math.max(1, (Math.min(row.until, Date.now()) - row.from) / 1_000);

function Charts({of: rows}) {
  const times = rows.map(row => row.from / 1_000);
  return html`<${Chart} label=${t("results_chart")} times=${times} series=${RESULTS.map(([name, kind]) => (
      {title: t(name), kind, values: lineOf(rows, row => row[name])}))} />
    <h3>${t("runs")}</h3><${Chart} label=${t("runs_chart")} height=${140} times=${times} series=${
      [["finished", "good", true], ["not_finished", "bad", false]].map(([name, kind, wanted]) => (
        {title: t(name), kind, values: rows.map(row => row.runs ? runsThat(row, wanted) : null)}))} />
    <div class="columns two">
      <div><h3>${t("durations")}</h3><${Chart} label=${t("durations_chart")} height=${140} times=${times}
        format=${seconds => durationText(1_000 * seconds)} series=${[["p50", "run"], ["p95", "warn"]].map(([name, kind]) => (
          {title: t(name), kind, values: rows.map(row => row.duration[name])}))} /></div>
      <div><h3>${t("cpus")}</h3><${Chart} label=${t("cpus_chart")} height=${140} times=${times} series=${[
        {title: t("cpus"), kind: "run", values: lineOf(rows, meanCpus)}]} />
        <p class="quiet">${t("cpus_hint")}</p></div></div>`;
}

/** `of`: the steps of `useSeries`. */
export function OverTime({of, byDay}) {
  return html`<${Section} title=${t("results")}><${FromHistory} of=${of}>${rows => rows.length > 0 && html`
    <${Sums} of=${rows} /><${Charts} of=${rows} /><${Steps} of=${rows} byDay=${byDay} />`}<//><//>`;
}
