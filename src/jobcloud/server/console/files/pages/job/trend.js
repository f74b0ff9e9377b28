// How long the last runs of a job took.
import {get} from "../../core/api.js";
import {Chart} from "../../core/chart.js";
import {html, useMemo} from "../../core/html.js";
import {durationText, texts} from "../../core/i18n.js";
import {useLoaded} from "../../core/live.js";
import {Empty, Instant, Loaded, State, Table} from "../../core/parts.js";
import {link} from "../../core/router.js";
import {keepsNoHistory} from "../../core/series.js";

const t = texts({
  en: {
    label: "Durations of the last {n} runs: median {median}, longest {longest}.",
    label_one: "The last run took {longest}.", ended: "ended", failed: "not successful",
    table: "As a table", none: "No run has ended yet.", run: "Run", fired: "Fired", took: "Took", state: "State",
    axis: "From the fire time to the end of the run.",
  },
  zh: {
    label: "最近 {n} 次运行的耗时：中位数 {median}，最长 {longest}。",
    label_one: "最近一次运行耗时 {longest}。", ended: "已结束", failed: "未成功",
    table: "以表格显示", none: "还没有已结束的运行。", run: "运行", fired: "触发时间", took: "耗时", state: "状态",
    axis: "从触发时间到运行结束。",
  },
});

const RUNS = 100;

/** The last ended runs: of the history, if there is one. */
async function lastRuns(job, signal) {
  try {
    return (await get("history/runs", {job, limit: RUNS}, {signal})).items;
  } catch (problem) {
    if (!keepsNoHistory(problem)) throw problem;
  }
  return (await get("runs", {job, limit: RUNS}, {signal})).items.filter(run => run.endedAt);
}

const tookMs = run => Date.parse(run.endedAt) - Date.parse(run.firedAt);

export default function Trend({job, zone, concerns}) {
  const runs = useLoaded(`trend ${job}`, signal => lastRuns(job, signal), concerns);
  return html`<${Loaded} of=${runs}>${found => found.length ? html`<${Lines} runs=${found} zone=${zone} />`
    : html`<${Empty}>${t("none")}<//>`}<//>`;
}

function Lines({runs, zone}) {
  const {times, series, label} = useMemo(() => {
    const sorted = [...runs].sort((one, other) => Date.parse(one.firedAt) - Date.parse(other.firedAt));
    const seconds = sorted.map(run => tookMs(run) / 1_000);
    const ordered = [...seconds].sort((one, other) => one - other);
    return {
      times: sorted.map(run => Date.parse(run.firedAt) / 1_000),
      series: [
        {title: t("ended"), kind: "run", values: seconds},
        {
          title: t("failed"), kind: "bad",
          values: sorted.map((run, index) => run.state === "FINISHED" ? null : seconds[index]),
        },
      ],
      label: t("label", {
        n: sorted.length, median: durationText(1_000 * ordered[Math.floor(ordered.length / 2)]),
        longest: durationText(1_000 * ordered.at(-1)),
      }),
    };
  }, [runs]);
  const columns = [
    {key: "run", title: t("run"), cell: run => html`<a href=${link`/runs/${run.id}`}>${run.id}</a>`, wide: true},
    {key: "state", title: t("state"), cell: run => html`<${State} of=${run.state} />`},
    {key: "fired", title: t("fired"), cell: run => html`<${Instant} at=${run.firedAt} zone=${zone} />`},
    {key: "took", title: t("took"), number: true, cell: run => durationText(tookMs(run))},
  ];
  return html`<p>${label} <span class="quiet">${t("axis")}</span></p>
    ${times.length > 1 && html`<${Chart} label=${label} times=${times} series=${series}
      format=${value => durationText(1_000 * value)} />`}
    <details><summary>${t("table")}</summary>
      <${Table} label=${label} columns=${columns} rows=${runs} rowKey=${run => run.id} /></details>`;
}
