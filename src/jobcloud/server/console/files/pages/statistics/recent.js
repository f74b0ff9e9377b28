// Successes and failures of the last minute, hour, day and week.
import {get} from "../../core/api.js";
import {html} from "../../core/html.js";
import {number, texts} from "../../core/i18n.js";
import {useLoaded} from "../../core/live.js";
import {Section, Table} from "../../core/parts.js";
import {FromHistory, HOUR_MS, NOTHING} from "../../core/series.js";
import {Failures, rateText} from "./figures.js";

const t = texts({
  en: {
    list: "{name}: list",
    title: "Recently", minute: "last minute", hour: "last hour", day: "last 24 hours", week: "last 7 days",
    range: "Range", succeeded: "Succeeded", failed: "Failed or lost", rate: "Success rate",
  },
  zh: {
    list: "{name}：列表",
    title: "近期", minute: "最近 1 分钟", hour: "最近 1 小时", day: "最近 24 小时", week: "最近 7 天",
    range: "时间范围", succeeded: "成功", failed: "失败或丢失", rate: "成功率",
  },
});

const LENGTHS = {minute: 60_000, hour: HOUR_MS, day: 24 * HOUR_MS, week: 168 * HOUR_MS};

export function Recent({filter}) {
  const found = useLoaded(JSON.stringify(["recent", filter]), signal => {
    const now = Date.now();
    return Promise.all(Object.entries(LENGTHS).map(async ([name, length]) => {
      const since = new Date(now - length).toISOString();
      const {items} = await get("statistics", {...filter, by: "total", since}, {signal});
      return {...NOTHING, ...items[0], name};
    }));
  }, () => false);
  return html`<${Section} title=${t("title")}><${FromHistory} of=${found}>${rows => html`<${Table} label=${t("list", {name: t("title")})}
    rows=${rows} rowKey=${row => row.name} columns=${[
      {key: "range", title: t("range"), cell: row => t(row.name)},
      {key: "succeeded", title: t("succeeded"), number: true, cell: row => number(row.succeeded)},
      {key: "failed", title: t("failed"), number: true, cell: row => html`<${Failures} n=${row.failed} />`},
      {key: "rate", title: t("rate"), number: true, cell: rateText},
    ]} />`}<//><//>`;
}
