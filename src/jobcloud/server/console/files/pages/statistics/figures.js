// Figures of statistics in words.
import {html} from "../../core/html.js";
import {durationText, number} from "../../core/i18n.js";

/** The part of attempts that succeeded, of those that succeeded or failed, in percent; "" without any. */
export function rateText({succeeded, failed}) {
  const ended = succeeded + failed;
  if (!ended) return "–";
  const percent = 100 * succeeded / ended;
  // 99.96 % is not all.
  return `${number(failed && percent > 99.9 ? 99.9 : Math.round(10 * percent) / 10)} %`;
}

export const secondsText = seconds => seconds === null ? "–" : durationText(1_000 * seconds);

/** The resources that were asked for, in hours of a CPU. */
export const cpuHoursText = row => number(Math.round(100 * row.cpuSeconds / 3_600) / 100);

/** A number that stands out only if it is not zero. */
export const Failures = ({n}) => n > 0 ? html`<strong class="failures">${number(n)}</strong>` : html`${number(n)}`;
