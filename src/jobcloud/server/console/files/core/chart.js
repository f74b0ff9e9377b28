// A line chart by uPlot. It is loaded only by pages that have one.
import uPlot from "../vendor/uplot.js";
import {html, useEffect, useRef, useState} from "./html.js";
import {instantText, number, texts} from "./i18n.js";

const t = texts({
  en: {time: "Time"},
  zh: {time: "时间"},
});

/** A place on the axis of time: the time of day, or the date at midnight. */
function tickText(seconds) {
  const text = instantText(1_000 * seconds);
  return text.endsWith("00:00:00") ? text.slice(5, 10) : text.slice(11, 16);
}

const dark = matchMedia("(prefers-color-scheme: dark)");

/** A number that changes with the colours of the page: a canvas keeps those with which it was drawn. */
function useColours() {
  const [count, draw] = useState(0);
  useEffect(() => {
    const changed = () => draw(before => before + 1);
    const watch = new MutationObserver(changed);
    watch.observe(document.documentElement, {attributeFilter: ["data-theme"]});
    dark.addEventListener("change", changed);
    return () => {
      watch.disconnect();
      dark.removeEventListener("change", changed);
    };
  }, []);
  return count;
}

const momentText = seconds => seconds ? instantText(1_000 * seconds).slice(0, 16) : "–";

/**
 * A chart over time. `times`: seconds since 1970, sorted. `series`: `{title, values, kind}`, values of the same length,
 * null for a gap (uPlot joins undefined and NaN). `kind` is a class of colours as of states. `format(value)` gives the
 * texts of the axis. `label` says what the chart shows, because its lines are not read aloud; offer a table as well.
 */
export function Chart({label, times, series, height = 180, format = number}) {
  const place = useRef(), plot = useRef(), colours = useColours();
  const shape = JSON.stringify([series.map(one => [one.title, one.kind]), height, colours]);
  useEffect(() => {
    const styles = getComputedStyle(document.documentElement);
    const colour = name => styles.getPropertyValue(`--${name}`).trim();
    const axis = {stroke: colour("quiet"), grid: {stroke: colour("line")}, ticks: {stroke: colour("line")}};
    const own = place.current;  // the page may be left before the effect or the observer runs
    if (!own) return undefined;
    const size = () => ({width: Math.max(200, own.clientWidth), height});
    plot.current = new uPlot({
      ...size(),
      scales: {y: {range: (_, low, high) => [Math.min(0, low ?? 0), high > 0 ? high * 1.05 : 1]}},
      axes: [
        {...axis, values: (_, ticks) => ticks.map(tickText)},
        {...axis, size: 60, values: (_, ticks) => ticks.map(format)},
      ],
      series: [{label: t("time"), value: (_, at) => momentText(at)}, ...series.map(one => ({
        label: one.title, stroke: colour(one.kind), width: 2, points: {size: 5},
        value: (_, value) => value === null || value === undefined ? "–" : format(value),
      }))],
    }, [times, ...series.map(one => one.values)], own);
    const watch = new ResizeObserver(() => plot.current.setSize(size()));
    watch.observe(own);
    return () => {
      watch.disconnect();
      plot.current.destroy();
    };
  }, [shape]);
  useEffect(() => plot.current?.setData([times, ...series.map(one => one.values)]), [times, series]);
  return html`<div class="chart" role="img" aria-label=${label} ref=${place}></div>`;
}
