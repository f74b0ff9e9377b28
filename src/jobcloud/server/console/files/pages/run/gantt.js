// The attempts of shards over time: a row for each shard, a bar for each attempt.
import {get, path} from "../../core/api.js";
import {html, useRef} from "../../core/html.js";
import {durationText, instantText, texts} from "../../core/i18n.js";
import {useLoaded, useNow} from "../../core/live.js";
import {Instant, Section, State, Table, Took} from "../../core/parts.js";
import {setQuery, withQuery} from "../../core/router.js";
import {causeWord, look, word} from "../../core/words.js";

const t = texts({
  en: {
    title: "Attempts over time", as_table: "As a table", as_chart: "As a chart", rows: "Shards",
    row: "Shard {item}: {attempts}", one: "attempt {number} {state}{place}{time}", on: " on {host}", after: " after {time}",
    since: " for {time}", none: "no attempt yet", waits: "waits", item: "Shard", attempt: "Attempt", state: "State",
    host: "Host", started: "Started", ended: "Ended", took: "Duration", cause: "Cause", earlier: "fired {time} before",
    nothing: "No shard has an attempt yet.", folded: "No shard failed. The others are folded.",
  },
  zh: {
    title: "各次尝试的时间线", as_table: "显示为表格", as_chart: "显示为图表", rows: "分片",
    row: "分片 {item}：{attempts}", one: "第 {number} 次尝试{state}{place}{time}", on: "，主机 {host}", after: "，耗时 {time}",
    since: "，已持续 {time}", none: "尚无尝试", waits: "等待中", item: "分片", attempt: "尝试", state: "状态",
    host: "主机", started: "开始时间", ended: "结束时间", took: "时长", cause: "起因", earlier: "触发时间比图表起点早 {time}",
    nothing: "尚无分片开始尝试。", folded: "没有失败的分片，其余分片已折叠。",
  },
});

const AT_ONCE = 4;
const STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 28_800, 43_200, 86_400];
const TICKS = 6;
const ms = at => at ? Date.parse(at) : 0;

/** Whether the run itself does not tell all attempts of a shard. */
const hasEarlier = shard => shard.attempt > 1 || (shard.attempt === 1 && shard.state === "WAITING");

/** The last attempt of a shard, as the run tells it. */
const lastOf = shard => ({
  number: shard.attempt, state: shard.state, active: shard.state === "ACTIVE", hostname: shard.hostname,
  startedAt: shard.startedAt, endedAt: shard.endedAt, cause: shard.cause,
});

/** The attempts of each shard of a page, oldest first. Those before the last one are asked for, and kept. */
function useAttempts(run) {
  const known = useRef(new Map()).current;
  const nameOf = shard => `${shard.item} ${shard.attempt} ${shard.state}`;
  const wanted = run.shards.filter(hasEarlier);
  useLoaded(JSON.stringify([run.id, wanted.map(nameOf)]), async signal => {
    const left = wanted.filter(shard => !known.has(nameOf(shard)));
    const worker = async () => {
      for (let shard = left.shift(); shard; shard = left.shift()) {
        const found = await get(path`runs/${run.id}/shards/${shard.item}/attempts`, {}, {signal});
        known.set(nameOf(shard), found.items.reverse());
      }
    };
    await Promise.all(Array.from({length: AT_ONCE}, worker));
    return true;
  }, () => false);
  return new Map(run.shards.map(shard => {
    const found = hasEarlier(shard) ? known.get(nameOf(shard)) : null;
    return [shard.item, found ?? (shard.attempt ? [lastOf(shard)] : [])];
  }));
}

function timesOf(attempts, run, now) {
  const started = [...attempts.values()].flat().map(one => ms(one.startedAt)).filter(Boolean);
  const ended = [...attempts.values()].flat().map(one => ms(one.endedAt)).filter(Boolean);
  const until = Math.max(run.endedAt ? ms(run.endedAt) : now, ...ended);
  const first = started.length ? Math.min(...started) : until;
  // A run for a time long past, such as one of a backfill, begins at its first attempt.
  const from = Math.max(ms(run.firedAt), first - Math.max(1_000, (until - first) / 2));
  return {from, until: Math.max(until, from + 1_000)};
}

function ticksOf({from, until}) {
  const span = (until - from) / 1_000;
  const step = 1_000 * (STEPS_S.find(one => span / one <= TICKS) ?? 86_400 * Math.ceil(span / 86_400 / TICKS));
  const offset = new Date(from).getTimezoneOffset() * 60_000;  // midnight is that of the browser
  const found = [];
  for (let at = Math.ceil((from - offset) / step) * step + offset; at <= until; at += step) found.push(at);
  return found.map(at => ({at, text: tickText(at, step)}));
}

function tickText(at, step) {
  const [day, time] = instantText(new Date(at).toISOString()).split(" ");
  if (step >= 86_400_000) return day.slice(5);
  return step >= 60_000 ? (time.startsWith("00:00") ? day.slice(5) : time.slice(0, 5)) : time;
}

const tookOf = (attempt, now) => durationText((ms(attempt.endedAt) || now) - ms(attempt.startedAt));

function wordsOf(attempt, now) {
  const place = attempt.hostname ? t("on", {host: attempt.hostname}) : "";
  const time = attempt.startedAt ? t(attempt.active ? "since" : "after", {time: tookOf(attempt, now)}) : "";
  return t("one", {number: String(attempt.number), state: word(attempt.state), place, time});
}

function Bar({attempt, last, times, now}) {
  const at = instant => 100 * (instant - times.from) / (times.until - times.from);
  const end = attempt.active ? now : ms(attempt.endedAt) || ms(attempt.startedAt);
  const start = ms(attempt.startedAt) || end;
  const left = Math.min(100, Math.max(0, at(start))), width = Math.min(100, Math.max(0, at(end))) - left;
  const [symbol, kind] = look(attempt.state);
  const text = `${symbol} ${attempt.hostname}`;
  // The text stands in the bar, or beside it where there is more room.
  const side = width > 40 ? "in" : left + width < 60 ? "right" : "left";
  const place = side === "in" ? {left: `${left}%`, width: `${width}%`}
    : side === "right" ? {left: `${left + width}%`} : {right: `${100 - left}%`};
  return html`<span class=${`bar ${kind}${attempt.active ? " open" : ""}`} title=${wordsOf(attempt, now)}
      style=${{left: `${left}%`, width: `${width}%`}}></span>
    ${last && html`<span class=${`text ${side}`} style=${place}>${text}</span>`}`;
}

function Row({shard, attempts, run, times, now, here}) {
  const texts = attempts.map(one => wordsOf(one, now)).join("; ") || t("none");
  const fired = Math.max(0, 100 * (ms(run.firedAt) - times.from) / (times.until - times.from));
  const label = t("row", {item: String(shard.item), attempts: texts})
    + (shard.state === "WAITING" ? `; ${t("waits")}` : "");
  const begun = attempts.map(one => ms(one.startedAt)).find(Boolean);
  const waited = begun ? Math.max(0, 100 * (begun - times.from) / (times.until - times.from))
    : shard.state === "WAITING" ? 100 : fired;
  return html`<li><a href=${withQuery({shard: shard.item, attempt: "", log: ""})}
      aria-current=${here ? "true" : undefined}>
    <span class="hidden">${label}</span>
    <span class="name" aria-hidden="true">${shard.item}${shard.step && ` ${shard.step}`}</span>
    <span class="lane" aria-hidden="true">
      <span class="wait" style=${{left: `${fired}%`, width: `${Math.max(0, waited - fired)}%`}}></span>
      ${attempts.map((one, index) => html`<${Bar} key=${one.number} attempt=${one} last=${index === attempts.length - 1}
        times=${times} now=${now} />`)}
      ${!attempts.length && html`<span class="text right" style=${{left: `${Math.min(fired, 60)}%`}}>
        ${look(shard.state)[0]} ${word(shard.state)}</span>`}</span></a></li>`;
}

const COLUMNS = [
  {key: "item", title: t("item"), number: true, cell: row => row.item},
  {key: "attempt", title: t("attempt"), number: true, cell: row => row.number},
  {key: "state", title: t("state"), cell: row => html`<${State} of=${row.state} />`},
  {key: "host", title: t("host"), cell: row => html`<span class="nowrap">${row.hostname}</span>`},
  {key: "started", title: t("started"), cell: row => html`<${Instant} at=${row.startedAt} />`},
  {key: "ended", title: t("ended"), cell: row => html`<${Instant} at=${row.endedAt} />`},
  {key: "took", title: t("took"), number: true, cell: row => row.startedAt && (row.active || row.endedAt)
    && html`<${Took} from=${row.startedAt} until=${row.active ? null : row.endedAt} />`},
  {key: "cause", title: t("cause"), cell: row => causeWord(row.cause)},
];

/** At most a hundred shards: those that `run` has. */
export function Gantt({run, query}) {
  const attempts = useAttempts(run);
  const present = useNow(run.endedAt ? 60_000 : 1_000);
  const table = query.get("view") === "table", chosen = query.get("shard");
  const actions = html`<button type="button" onClick=${() => setQuery({view: table ? "" : "table"})}>
    ${t(table ? "as_chart" : "as_table")}</button>`;
  if (table) {
    const rows = [...attempts].flatMap(([item, found]) => found.map(one => ({...one, item})));
    return html`<${Section} title=${t("title")} actions=${actions}><${Table} label=${t("title")} columns=${COLUMNS}
      rows=${rows} rowKey=${row => `${row.item} ${row.number}`} empty=${t("nothing")} /><//>`;
  }
  // The clocks of server and browser may differ.
  const now = Math.max(present, ms(run.firedAt), ...run.shards.map(shard => ms(shard.startedAt)));
  if (!run.shards.length) {
    return html`<${Section} title=${t("title")} actions=${actions}><p class="quiet">${t(run.folded ? "folded" : "nothing")}</p><//>`;
  }
  const times = timesOf(attempts, run, now);
  const before = times.from - ms(run.firedAt);
  const place = at => ({left: `${100 * (at - times.from) / (times.until - times.from)}%`});
  return html`<${Section} title=${t("title")} actions=${actions}><div class="gantt">
    <div class="axis" aria-hidden="true"><span class="name">${t("item")}</span><span class="lane">
      ${ticksOf(times).filter(({at}) => at < times.until - (times.until - times.from) / 15).map(({at, text}) => html`<span key=${at} class="tick" style=${place(at)}>${text}</span>`)}</span></div>
    ${before > 1_000 && html`<p class="quiet">${t("earlier", {time: durationText(before)})}</p>`}
    <ol aria-label=${t("rows")}>${run.shards.map(shard => html`<${Row} key=${shard.item} shard=${shard} run=${run}
      attempts=${attempts.get(shard.item)} times=${times} now=${now} here=${String(shard.item) === chosen} />`)}</ol>
  </div><//>`;
}
