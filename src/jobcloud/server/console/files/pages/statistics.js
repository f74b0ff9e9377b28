// Figures over time: successes and failures, durations, resources, by time and by job, app or team.
import {html} from "../core/html.js";
import {texts} from "../core/i18n.js";
import {Choice, Page} from "../core/parts.js";
import {setQuery} from "../core/router.js";
import {useSeries} from "../core/series.js";
import {Busiest} from "./statistics/busiest.js";
import {Filter} from "./statistics/filter.js";
import {Present} from "./statistics/present.js";
import {Recent} from "./statistics/recent.js";
import {Sampled} from "./statistics/sampled.js";
import {OverTime} from "./statistics/time.js";

const t = texts({
  en: {
    title: "Statistics", range: "Range", hour: "last hour", day: "last 24 hours", week: "last 7 days, by hour",
    month: "today and 29 days before", quarter: "today and 89 days before",
  },
  zh: {
    title: "统计", range: "时间范围", hour: "最近 1 小时", day: "最近 24 小时", week: "最近 7 天（按小时）",
    month: "今天及前 29 天", quarter: "今天及前 89 天",
  },
});

// Name → the step and the number of steps.
const RANGES = {
  hour: ["minute", 60], day: ["hour", 24], week: ["hour", 168], month: ["day", 30], quarter: ["day", 90],
};

export default function Statistics({query}) {
  const range = query.get("range") in RANGES ? query.get("range") : "day";
  // The API takes one of these filters at most.
  const kind = ["job", "app", "team"].find(name => query.get(name));
  const filter = kind ? {[kind]: query.get(kind)} : {};
  const [unit, count] = RANGES[range], byDay = unit === "day";
  const steps = useSeries(filter, unit, count);
  return html`<${Page} title=${t("title")}>
    <div class="filters"><${Choice} label=${t("range")} value=${range} options=${Object.keys(RANGES).map(
        name => [name, t(name)])} set=${value => setQuery({range: value === "day" ? "" : value})} />
      <${Filter} kind=${kind} value=${kind ? query.get(kind) : ""} /></div>
    <${OverTime} of=${steps} byDay=${byDay} />
    <${Sampled} of=${steps} filter=${filter} byDay=${byDay} />
    <${Busiest} filter=${filter} unit=${unit} count=${count} query=${query} />
    <div class="columns two"><${Recent} filter=${filter} /><${Present} /></div><//>`;
}
