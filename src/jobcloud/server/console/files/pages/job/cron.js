// The next firings of a cron expression, in its time zone and in that of the browser, and the expression in words.
import {get} from "../../core/api.js";
import {html, useEffect} from "../../core/html.js";
import {browserZone, instantText, language, texts} from "../../core/i18n.js";
import {useLoaded, useNow, useSettled} from "../../core/live.js";
import {Ago, Instant, Loading, problemText} from "../../core/parts.js";

const t = texts({
  en: {label: "Next firings", zone: "In {zone}", here: "Here ({zone})", wait: "When", never: "It never fires again.",
    after_run: "A fire time of @after is known when the run before it has ended."},
  zh: {label: "接下来的触发", zone: "{zone}", here: "本地（{zone}）", wait: "距现在", never: "不会再触发。",
    after_run: "@after 的触发时间要等上一次运行结束后才能确定。"},
});

const TYPING_MS = 200, SHORTEST_WAIT_MS = 5_000, LONGEST_WAIT_MS = 86_400_000;

/** The next firings of a schedule, which has the parameters of `GET /cron/next`. The result is that of useLoaded. */
export function useFirings(schedule, count = 10) {
  const key = useSettled(JSON.stringify({...schedule, count, language}), TYPING_MS);
  const found = useLoaded(key, signal => {
    const query = JSON.parse(key);
    return query.cron || query.trigger?.length ? get("cron/next", query, {signal}) : Promise.resolve(null);
  }, () => false);
  // When half of them have passed, the next ones are loaded.
  const middle = found.data?.times[Math.floor(count / 2)];
  useEffect(() => {
    const wait = Date.parse(middle) - Date.now();
    if (!(wait > 0 && wait < LONGEST_WAIT_MS)) return undefined;  // the clocks of server and browser may differ
    const timer = setTimeout(found.reload, Math.max(SHORTEST_WAIT_MS, wait));
    return () => clearTimeout(timer);
  }, [middle]);
  return found;
}

export const scheduleOf = config => ({
  cron: config.cron, zone: config.timeZone, dialect: config.cronDialect, gap: config.dstGap, fold: config.dstFold,
  trigger: config.triggers, start: config.startTime, end: config.endTime, blackout: config.blackouts,
  skipOn: config.skipOn, onlyOn: config.onlyOn, onExcludedDay: config.onExcludedDay,
  team: config.skipOn?.length || config.onlyOn?.length ? config.team : "",
});

/** `of`: the result of useFirings. */
export function Firings({of}) {
  const now = useNow();
  if (of.problem) {
    return html`<p class="fault" role="alert">${of.problem.errors[0]?.problem ?? problemText(of.problem)}</p>`;
  }
  if (!of.data) return of.loading ? html`<${Loading} />` : null;
  const zone = of.data.timeZone, left = of.data.times.filter(at => Date.parse(at) >= now);
  const times = left.length ? left : of.data.times;
  if (!times.length) return html`<p class="quiet">${t(of.data.afterRun ? "after_run" : "never")}</p>`;
  // Names such as UTC and Etc/UTC may give the same clock.
  const differs = times.some(at => instantText(at, zone) !== instantText(at));
  return html`<div class="scroll" role="group" aria-label=${t("label")} tabindex="0"><table class="firings">
    <thead><tr><th scope="col">${t("zone", {zone})}</th>
      ${differs && html`<th scope="col">${t("here", {zone: browserZone})}</th>`}
      <th scope="col">${t("wait")}</th></tr></thead>
    <tbody>${times.map(at => html`<tr key=${at}><td><${Instant} at=${at} zone=${zone} /></td>
      ${differs && html`<td><${Instant} at=${at} /></td>`}<td><${Ago} at=${at} /></td></tr>`)}</tbody></table></div>`;
}

/** Whether a job also fires after the ends of its runs. */
export const firesAfterRuns = config => !!config.triggers?.some(text => text.startsWith("@after "));

export const Words = ({of}) => of.data?.words ? html`<span>${of.data.words}</span>` : null;
