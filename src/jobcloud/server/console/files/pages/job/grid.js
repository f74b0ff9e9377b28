// The newest runs of a job: a column for each run, a row for each shard. Many shards are folded into one row.
import {get, path} from "../../core/api.js";
import {useCells} from "../../core/cells.js";
import {html, useRef} from "../../core/html.js";
import {instantText, texts} from "../../core/i18n.js";
import {useLoaded} from "../../core/live.js";
import {Empty, Loaded, Mark} from "../../core/parts.js";
import {link, withQuery} from "../../core/router.js";
import {word} from "../../core/words.js";
import {BAD, badOf, MOST_UNFOLDED, WORST_FIRST} from "../run/folds.js";

const t = texts({
  en: {
    label: "Runs and shards", hint: "Newest run first. Arrow keys move between the cells, Enter opens one.",
    shard: "Shard",
    before: "listener before", after: "listener after", more: "{n} more", none: "The job has not run yet.",
    run_title: "{run}: {state}, {cause}, {time}", cell: "{run}, shard {shard}: {state}, attempt {attempt}",
    cell_message: "{run}, shard {shard}: {state}, attempt {attempt}: {message}", absent: "not in this run",
    counted: "{n} {state}", legend: "Symbols", show_all: "Show the rows of all shards", fold: "Fold the shards",
    folded: "Shards that did not fail in one of these runs are folded into the last row.",
  },
  zh: {
    label: "运行与分片", hint: "最新的运行在前。方向键在单元格间移动，回车打开。", shard: "分片",
    before: "运行前监听器", after: "运行后监听器", more: "另外 {n} 个", none: "该作业尚未运行。",
    run_title: "{run}：{state}，{cause}，{time}", cell: "{run}，分片 {shard}：{state}，第 {attempt} 次尝试",
    cell_message: "{run}，分片 {shard}：{state}，第 {attempt} 次尝试：{message}", absent: "不在此运行中",
    counted: "{n} 个{state}", legend: "符号", show_all: "逐行显示全部分片", fold: "折叠分片",
    folded: "在这些运行中都未失败的分片已折叠到最后一行。",
  },
});

const RUNS = 30, ROWS = 100, MESSAGE = 120;
// How many runs may be new when some are read again, and how often all are.
const NEW = 3, WHOLE_MS = 10_000;
const STEPS = {before: -1, after: Infinity};

/** The run with those of its shards that did not succeed, also behind the first ones, which a list has. */
async function withBad(run, signal) {
  const known = run.shards.filter(shard => BAD.includes(shard.state)).length;
  if (!run.nextCursor || badOf(run.shardStates) <= known) return run;
  const query = {state: BAD, limit: MOST_UNFOLDED, cursor: run.nextCursor};
  const {shards} = await get(path`runs/${run.id}`, query, {signal});
  return {...run, shards: [...run.shards, ...shards]};
}

/** Some of the newest runs of a job with their shards, newest first. */
async function newest(job, count, signal) {
  const items = [];
  let cursor = "";
  do {  // a page is shorter if its shards are large
    const page = await get("runs", {job, limit: count - items.length, cursor}, {signal});
    items.push(...page.items);
    cursor = page.nextCursor;
  } while (cursor && items.length < count);
  return Promise.all(items.map(run => withBad(run, signal)));
}

/** How many of the newest runs may differ from the known ones: with those that run or that a change names, new ones. */
function differing(known, named) {
  const last = known.findLastIndex(run => !run.endedAt || named.has(run.id));
  return Math.min(RUNS, last + 1 + NEW);
}

/**
 * The newest runs of a job with their shards, newest first. Runs that have ended do not change by themselves, and most of
 * the work of the server would be for them: so all are read once in ten seconds only.
 */
export function useRuns(job, concerns) {
  const known = useRef({runs: [], readAt: 0, named: new Set()}).current;
  return useLoaded(`runs ${job}`, async signal => {
    const now = Date.now(), whole = now - known.readAt >= WHOLE_MS;
    const count = whole ? RUNS : differing(known.runs, known.named);
    known.named = new Set();
    let {readAt} = known;
    known.readAt = 0;  // if a load fails or is given up, the next one is a whole one
    let runs = await newest(job, count, signal);
    const place = known.runs.findIndex(run => run.id === runs.at(-1)?.id);
    if (count < RUNS && runs.length === count && place >= 0) {
      runs = [...runs, ...known.runs.slice(place + 1)].slice(0, RUNS);
    } else {
      // Runs between the newest and the known ones would be missing.
      if (count < RUNS && runs.length === count) runs = await newest(job, RUNS, signal);
      readAt = now;
    }
    Object.assign(known, {runs, readAt});
    return runs;
  }, changes => {
    if (!concerns(changes)) return false;
    for (const run of known.runs) if (changes.runs.includes(run.id)) known.named.add(run.id);
    return true;
  }, {prompt: true});
}

const positionOf = shard => STEPS[shard.step] ?? shard.item;

/**
 * The rows: positions of shards and listeners, and how many further shards a last row sums up. `folded`: only shards
 * that did not succeed in one of the runs have a row.
 */
function rowsOf(runs, largest, folded) {
  const shards = runs.flatMap(run => run.shards);
  const wanted = folded ? shards.filter(shard => shard.step || BAD.includes(shard.state)) : shards;
  const positions = new Set(wanted.map(positionOf));
  const items = [...positions].filter(Number.isFinite).sort((one, other) => one - other);
  const shown = items.slice(0, folded ? MOST_UNFOLDED : ROWS);
  if (positions.has(Infinity)) shown.push(Infinity);
  return {shown, further: Math.max(0, largest - shown.filter(item => item >= 0 && Number.isFinite(item)).length)};
}

const nameOf = position => position === STEPS.before ? t("before") : position === STEPS.after ? t("after")
  : String(position);

/** The states of the shards that have no row of their own. */
function othersOf(run, shown) {
  const left = {...run.shardStates};
  for (const shard of run.shards) if (!shard.step && shown.has(shard.item)) left[shard.state] -= 1;
  return WORST_FIRST.filter(state => left[state] > 0).map(state => [state, left[state]]);
}

export function Grid({of, zone, query}) {
  return html`<${Loaded} of=${of}>${runs => runs.length ? html`<${Cells} runs=${runs} zone=${zone}
      open=${query.get("shards") === "all"} />`
    : html`<${Empty}>${t("none")}<//>`}<//>`;
}

function Cells({runs, zone, open}) {
  const largest = Math.max(0, ...runs.map(run => run.shardCount)), large = largest > MOST_UNFOLDED;
  const {shown, further} = rowsOf(runs, largest, large && !open);
  const own = new Set(shown);
  const height = shown.length + (further > 0 ? 2 : 1);
  const {table, move, at} = useCells(height, runs.length);
  const cell = (run, position, down, right) => {
    const shard = run.shards.find(one => positionOf(one) === position);
    if (!shard) return html`<td key=${run.id}><span class="hidden">${t("absent")}</span></td>`;
    const values = {
      run: run.id, shard: nameOf(position), state: word(shard.state), attempt: shard.attempt,
      message: shard.message.slice(0, MESSAGE),
    };
    const title = t(shard.message ? "cell_message" : "cell", values);
    const target = `${link`/runs/${run.id}`}?shard=${shard.item}`;
    return html`<td key=${run.id}><a href=${target} title=${title} aria-label=${title}
      ...${at(down, right)}><${Mark} state=${shard.state} /></a></td>`;
  };
  const sum = (run, right) => {
    const others = othersOf(run, own);
    if (!others.length) return html`<td key=${run.id}></td>`;
    const title = `${run.id}: ${others.map(([state, n]) => t("counted", {n, state: word(state)})).join(", ")}`;
    return html`<td key=${run.id}><a href=${link`/runs/${run.id}`} title=${title} aria-label=${title}
      ...${at(shown.length + 1, right)}><${Mark} state=${others[0][0]} /></a></td>`;
  };
  // The time stands above the first of the runs that have it.
  const before = right => right > 0 ? instantText(runs[right - 1].firedAt, zone).slice(11, 16) : "";
  const used = [...new Set(runs.flatMap(run => Object.keys(run.shardStates)))];
  return html`<p class="quiet">${t("hint")}${large && html` ${!open && t("folded")}
      <a href=${withQuery({shards: open ? "" : "all"})}>${t(open ? "fold" : "show_all")}</a>`}</p>
    <div class="scroll tall"><table class="grid" role="grid" aria-label=${t("label")} ref=${table} onKeyDown=${move}>
      <thead><tr><th scope="col">${t("shard")}</th>${runs.map((run, right) => {
        const time = instantText(run.firedAt, zone), minute = time.slice(11, 16);
        const title = t("run_title", {run: run.id, state: word(run.state), cause: word(run.cause), time});
        return html`<th key=${run.id} scope="col"><a href=${link`/runs/${run.id}`} title=${title} aria-label=${title}
          ...${at(0, right)}><${Mark} state=${run.state} />
          <span aria-hidden="true">${minute === before(right) ? "" : minute}</span></a></th>`;
      })}</tr></thead>
      <tbody>${shown.map((position, index) => html`<tr key=${position}><th scope="row">${nameOf(position)}</th>
          ${runs.map((run, right) => cell(run, position, index + 1, right))}</tr>`)}
        ${further > 0 && html`<tr><th scope="row">${t("more", {n: further})}</th>${runs.map(sum)}</tr>`}</tbody>
    </table></div>
    <p class="legend quiet" aria-label=${t("legend")}>${WORST_FIRST.filter(state => used.includes(state)).map(state => html`
      <span key=${state}><${Mark} state=${state} /> ${word(state)}</span>`)}</p>`;
}
