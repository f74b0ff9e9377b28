// Figures of the history in steps of time, such as the last seven days.
import {get} from "./api.js";
import {html} from "./html.js";
import {browserZone, texts} from "./i18n.js";
import {useLoaded} from "./live.js";
import {Empty, Loaded} from "./parts.js";

const t = texts({
  en: {no_history: "This scheduler keeps no history. Set history.url to get one (docs/history.md)."},
  zh: {no_history: "此调度器未保存历史。设置 history.url 即可启用（见 docs/history.md）。"},
});

export const HOUR_MS = 3_600_000;
const LENGTHS = {minute: 60_000, hour: HOUR_MS};

export const NOTHING = {
  attempts: 0, succeeded: 0, failed: 0, killed: 0, duration: {p50: null, p95: null, p99: null},
  queued: {p50: null, p95: null, p99: null}, cpuSeconds: 0, memoryMBSeconds: 0,
};

/** The beginning of the last `count` steps, the present one included, as text. Days begin at midnight of the browser. */
export function sinceOf(by, count, now = Date.now()) {
  const day = new Date(now);
  return (by === "day" ? new Date(day.getFullYear(), day.getMonth(), day.getDate() - count + 1)
    : new Date((Math.floor(now / LENGTHS[by]) - count + 1) * LENGTHS[by])).toISOString();
}

/**
 * The last `count` steps: figures as of GET /statistics by=total, with `from` and `until` in milliseconds, `runs`, and
 * `sampled`. `known`: whether the history reaches back so far. `query`: team, app or job.
 */
export function useSeries(query, by, count) {
  return useLoaded(JSON.stringify(["series", query, by, count]), async signal => {
    const zone = by === "day" ? browserZone : "";
    const {steps} = await get("statistics/series", {...query, by, zone, since: sinceOf(by, count)}, {signal});
    return steps.map(step => ({
      ...NOTHING, ...step.attempts, known: step.attempts !== null, runs: step.runs, sampled: step.sampled,
      from: Date.parse(step.at), until: Date.parse(step.until),
    }));
  }, () => false);
}

/** The values of a line over rows of `useSeries`. `value(row)` is called for rows of which something is known. */
export const lineOf = (rows, value) => rows.map(row => row.known ? value(row) : null);

/** As `lineOf`, from the samples of each row. A row without a sample is a gap. */
export const sampledLine = (rows, value) => rows.map(({sampled}) => sampled ? value(sampled) : null);

/** Whether the scheduler keeps no history. Other answers 503 pass, such as those during a change of the leader. */
export const keepsNoHistory = problem => problem?.status === 503 && problem.message.includes("keeps no history");

/** As `Loaded`. Without a history, it says how to get one. */
export function FromHistory({of, children}) {
  return keepsNoHistory(of.problem) ? html`<${Empty}>${t("no_history")}<//>` : html`<${Loaded} of=${of}>${children}<//>`;
}
