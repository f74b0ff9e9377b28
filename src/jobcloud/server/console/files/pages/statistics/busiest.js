// Figures by job, app or team.
import {all} from "../../core/api.js";
import {html} from "../../core/html.js";
import {number, texts} from "../../core/i18n.js";
import {useLoaded} from "../../core/live.js";
import {Choice, Section, Table} from "../../core/parts.js";
import {link, setQuery} from "../../core/router.js";
import {FromHistory, sinceOf} from "../../core/series.js";
import {cpuHoursText, Failures, rateText, secondsText} from "./figures.js";

const t = texts({
  en: {
    list: "{name}: list",
    title: "Busiest", by: "By", job: "Job", app: "App", team: "Team", attempts: "Attempts", failed: "Failed or lost",
    killed: "Killed", rate: "Success rate", median: "Duration, median", p95: "95 %", p99: "99 %", queued: "Queued, 95 %",
    cpu: "CPU hours", none: "No attempt ended in this time.", shown: "The first {n} of {total}.",
    limit: "Only {n} names were looked at.",
  },
  zh: {
    list: "{name}：列表",
    title: "最繁忙", by: "分组", job: "作业", app: "应用", team: "团队", attempts: "尝试", failed: "失败或丢失",
    killed: "被终止", rate: "成功率", median: "时长中位数", p95: "95%", p99: "99%", queued: "排队 95%",
    cpu: "CPU 小时", none: "此时段内没有结束的尝试。", shown: "显示 {total} 个中的前 {n} 个。",
    limit: "仅查看了 {n} 个名称。",
  },
});

// The API lists names in the order of the alphabet, so all are read before they are sorted.
const LIMIT = 10_000, ROWS = 50;
const PAGES = {job: name => link`/jobs/${name}`, app: name => link`/apps/${name}`, team: name => link`/teams/${name}`};
const rate = row => row.succeeded + row.failed ? row.succeeded / (row.succeeded + row.failed) : 2;
const ORDERS = {
  name: null, attempts: row => row.attempts, failed: row => row.failed, killed: row => row.killed, rate,
  median: row => row.duration.p50 ?? -1, p95: row => row.duration.p95 ?? -1, p99: row => row.duration.p99 ?? -1,
  queued: row => row.queued.p95 ?? -1, cpu: row => row.cpuSeconds,
};

function sorted(rows, order) {
  const name = order.replace(/^-/, ""), sign = order.startsWith("-") ? -1 : 1, key = ORDERS[name];
  return [...rows].sort((one, other) => sign * (key ? key(one) - key(other) : one.name.localeCompare(other.name)));
}

export function Busiest({filter, unit, count, query}) {
  const by = query.get("by") in PAGES ? query.get("by") : "job";
  const order = query.get("sort")?.replace(/^-/, "") in ORDERS ? query.get("sort") : "-attempts";
  const found = useLoaded(JSON.stringify(["busiest", by, filter, unit, count]), () => (
    all("statistics", {...filter, by, since: sinceOf(unit, count)}, LIMIT)), () => false);
  const figure = (key, cell) => ({key, title: t(key), sort: key, number: true, cell});
  return html`<${Section} title=${t("title")} actions=${html`<${Choice} label=${t("by")} hidden=${true} value=${by}
      options=${Object.keys(PAGES).map(name => [name, t(name)])} set=${value => setQuery({by: value})} />`}>
    <${FromHistory} of=${found}>${rows => html`<${Table} label=${t("list", {name: t("title")})} rows=${sorted(rows, order).slice(0, ROWS)}
        rowKey=${row => row.name} order=${order} choose=${sort => setQuery({sort})} empty=${t("none")} columns=${[
          {key: "name", title: t(by), sort: "name", wide: true,
            cell: row => html`<a href=${PAGES[by](row.name)}>${row.name}</a>`},
          figure("attempts", row => number(row.attempts)), figure("rate", rateText),
          figure("failed", row => html`<${Failures} n=${row.failed} />`), figure("killed", row => number(row.killed)),
          figure("median", row => secondsText(row.duration.p50)), figure("p95", row => secondsText(row.duration.p95)),
          figure("p99", row => secondsText(row.duration.p99)), figure("queued", row => secondsText(row.queued.p95)),
          figure("cpu", cpuHoursText),
        ]} />
      ${rows.length > ROWS && html`<p class="quiet">${t("shown", {n: ROWS, total: rows.length})}
        ${rows.length >= LIMIT && t("limit", {n: LIMIT})}</p>`}`}<//><//>`;
}
