// The last seven days: finished and failed attempts.
import {Chart} from "../../core/chart.js";
import {html} from "../../core/html.js";
import {instantText, number, texts} from "../../core/i18n.js";
import {Section, Table} from "../../core/parts.js";
import {FromHistory, lineOf, useSeries} from "../../core/series.js";

const t = texts({
  en: {
    list: "{name}: list",
    title: "The last seven days", statistics: "statistics", succeeded: "succeeded", failed: "failed", killed: "killed",
    day: "Day", table: "As a table", chart: "Attempts that succeeded and that failed, by day",
    sum: "{succeeded} attempts succeeded, {failed} failed or were lost.",
  },
  zh: {
    list: "{name}：列表",
    title: "最近七天", statistics: "统计", succeeded: "成功", failed: "失败", killed: "被终止",
    day: "日期", table: "以表格显示", chart: "每天成功和失败的尝试次数",
    sum: "{succeeded} 次尝试成功，{failed} 次失败或丢失。",
  },
});

const DAYS = 7;

export function Week() {
  const days = useSeries({}, "day", DAYS);
  return html`<${Section} title=${t("title")} actions=${html`<a href="/statistics?range=week">${t("statistics")}</a>`}>
    <${FromHistory} of=${days}>${rows => html`
      <p>${t("sum", Object.fromEntries(["succeeded", "failed"].map(
        name => [name, rows.reduce((sum, row) => sum + row[name], 0)])))}</p>
      <${Chart} label=${t("chart")} height=${150} times=${rows.map(row => row.from / 1_000)} series=${[
        {title: t("succeeded"), kind: "good", values: lineOf(rows, row => row.succeeded)},
        {title: t("failed"), kind: "bad", values: lineOf(rows, row => row.failed)},
      ]} />
      <details><summary>${t("table")}</summary><${Table} label=${t("list", {name: t("title")})} rows=${[...rows].reverse()}
        rowKey=${row => row.from} columns=${[
          {key: "day", title: t("day"), cell: row => instantText(row.from).slice(0, 10)},
          ...["succeeded", "failed", "killed"].map(
            name => ({key: name, title: t(name), number: true, cell: row => row.known ? number(row[name]) : "–"})),
        ]} /></details>`}<//><//>`;
}
