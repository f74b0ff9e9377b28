// The output of an attempt: followed, searched, downloaded.
import {path} from "../../core/api.js";
import {html, useEffect, useLayoutEffect, useMemo, useRef, useState} from "../../core/html.js";
import {durationText, instantText, texts} from "../../core/i18n.js";
import {useNow} from "../../core/live.js";
import {Check, Choice, Empty, ErrorBox, Field, problemText, toast, useChange} from "../../core/parts.js";
import {setQuery} from "../../core/router.js";
import {word} from "../../core/words.js";
import {download, Follower, merged, STREAMS} from "./output.js";

const t = texts({
  en: {
    title: "Output", stream: "Stream", both: "both, by time", follow: "Follow", times: "Times", find: "Find",
    previous: "Previous match", next: "Next match", count: "{at} of {n}", no_match: "no match", download: "Download {stream}",
    downloading: "{done} of {n} KiB …", cut: "The file has only the first 256 MiB.", close: "Close the output",
    earlier: "Load earlier output", newest: "Show the newest output", begin: "This is the beginning of the output.",
    full: "The page keeps no more output. Download it to see all.", gap: "{n} bytes no longer exist",
    longer: "… and {n} more characters", loading: "loading …", live: "live", hidden: "halted, because the tab was hidden",
    stale: "No connection for {time}. What you see may be old.", ended: "ended", failed: "not available",
    nothing: "The task has written nothing yet.", none: "There is no output.", archive: "from the archive",
    no_times: "The times of the lines are not known: first comes stdout, then stderr.", out: "out", err: "err",
  },
  zh: {
    title: "输出", stream: "输出流", both: "两者，按时间", follow: "跟随", times: "时间", find: "查找",
    previous: "上一个匹配", next: "下一个匹配", count: "{at} / {n}", no_match: "无匹配", download: "下载 {stream}",
    downloading: "{done} / {n} KiB…", cut: "文件只包含前 256 MiB。", close: "关闭输出",
    earlier: "加载更早的输出", newest: "显示最新输出", begin: "这是输出的开头。",
    full: "页面无法保留更多输出，请下载查看全部内容。", gap: "{n} 字节已不存在",
    longer: "…另有 {n} 个字符", loading: "加载中…", live: "实时", hidden: "标签页隐藏，已暂停",
    stale: "连接已断开 {time}，当前内容可能已过时。", ended: "已结束", failed: "不可用",
    nothing: "任务尚未输出任何内容。", none: "没有输出。", archive: "来自归档",
    no_times: "各行的时间未知：先显示 stdout，后显示 stderr。", out: "out", err: "err",
  },
});

const MOST_LINES = 5_000, STEP = 1_000, LONGEST_LINE = 10_000, MOST_MATCHES = 10_000;
const NEAR_END = 40;

function useFollower(where, shown, attempt) {
  const [, draw] = useState(0);
  const follower = useRef(null);
  useEffect(() => {
    const names = shown === "both" ? STREAMS : [shown];
    follower.current = new Follower(where, names, attempt.active, () => draw(count => count + 1));
    draw(count => count + 1);
    return () => follower.current.stop();
  }, [where, shown]);
  useEffect(() => {
    if (!attempt.active) follower.current.end(attempt.state);
  }, [attempt.active, where, shown]);
  return follower.current;
}

/** `attempt` is one of a shard: `{number, active, state}`. */
export function Log({run, item, attempt, query}) {
  const asked = query.get("log");
  const shown = STREAMS.includes(asked) ? asked : "both";
  const where = path`runs/${run}/shards/${item}/attempts/${attempt.number}`;
  const follower = useFollower(where, shown, attempt);
  const [follow, setFollow] = useState(true);
  const find = query.get("find") ?? "", times = query.has("times");
  const box = useRef();
  const lines = follower ? merged(follower.streams) : [];
  const view = useWindow(lines, follow);
  const search = useSearch(view.shown, find, box, setFollow);
  useScroll(box, view, follow);
  const scrolled = ({target}) => {
    const atEnd = target.scrollHeight - target.scrollTop - target.clientHeight < NEAR_END;
    if (atEnd !== follow && (!atEnd || !view.after)) setFollow(atEnd);
  };
  const newest = () => {
    view.showEnd();
    setFollow(true);
  };
  const loader = useChange(async () => {
    setFollow(false);
    await view.earlier(follower);
  });
  const untimed = shown === "both" && lines.length > 0 && lines.every(line => !line.at);
  return html`<section class="output" aria-label=${t("title")}>
    <div class="filters">
      <${Choice} label=${t("stream")} value=${shown} set=${value => setQuery({log: value})}
        options=${[["both", t("both")], ...STREAMS]} />
      <${Find} find=${find} search=${search} />
      <${Check} label=${t("follow")} value=${follow} set=${value => value ? newest() : setFollow(false)} />
      <${Check} label=${t("times")} value=${times} set=${value => setQuery({times: value ? "1" : ""})} />
      <div class="actions">${(shown === "both" ? STREAMS : [shown]).map(stream => html`<${Download} key=${stream}
        where=${where} stream=${stream} name=${`${run}-${item}-${attempt.number}-${stream}.log`} />`)}
        <button type="button" onClick=${() => setQuery({log: "", find: ""})}>${t("close")}</button></div></div>
    ${follower && html`<${Status} follower=${follower} />`}
    ${untimed && html`<p class="quiet">${t("no_times")}</p>`}
    <${ErrorBox} problem=${loader.problem} />
    <div class="log lines" role="log" aria-live="off" aria-label=${t("title")} tabindex="0" ref=${box}
      onScroll=${scrolled}>
      ${lines.length > 0 && html`<${Before} follower=${follower} view=${view} load=${loader.run} busy=${loader.busy} />`}
      ${view.shown.map((line, index) => lineOf(line, shown === "both", times, search.at(index)))}
      ${view.after > 0 && html`<p><button type="button" onClick=${newest}>${t("newest")}</button></p>`}
      ${!lines.length && follower && follower.status !== "loading" && html`<${Nothing} follower=${follower} />`}</div>
  </section>`;
}

/** At most 5,000 lines: the newest ones while they are followed, otherwise those from a line on that stays. */
function useWindow(lines, follow) {
  const [top, setTop] = useState(null);  // the key of the first line that is shown; null: the newest ones are
  const grown = useRef(0);
  const end = Math.max(0, lines.length - MOST_LINES);
  const index = useMemo(() => {
    if (top === null) return end;
    const found = lines.findIndex(line => line.key === top);
    return found < 0 ? 0 : found;
  }, [lines, lines.length, top]);
  const start = Math.min(index, end);
  useEffect(() => {
    // A person who reads older lines is not moved by new ones.
    if (!follow && top === null && lines.length) setTop(lines[start].key);
    if (follow && top !== null) setTop(null);
  }, [follow, lines.length > 0]);
  const shown = useMemo(() => lines.slice(start, start + MOST_LINES), [lines, lines.length, lines.at(-1), start]);
  const earlier = async follower => {
    const added = start > 0 ? 0 : await follower.earlier();
    const now = added ? merged(follower.streams) : lines;
    const place = Math.max(0, (start > 0 ? start : added) - STEP);
    grown.current += 1;
    setTop(now[start > 0 || added > STEP ? place : 0]?.key ?? null);
  };
  return {shown, before: start, after: lines.length - start - shown.length, earlier, showEnd: () => setTop(null), grown};
}

/** Keeps the end in view while lines are followed, and the place when earlier lines were added. */
function useScroll(box, view, follow) {
  const last = useRef({grown: 0, height: 0});
  useLayoutEffect(() => {
    const element = box.current;
    if (follow) element.scrollTop = element.scrollHeight;
    else if (view.grown.current !== last.current.grown && view.shown[0]?.key !== last.current.first) {
      element.scrollTop += element.scrollHeight - last.current.height;
      last.current.grown = view.grown.current;
    }
    last.current.height = element.scrollHeight;
    last.current.first = view.shown[0]?.key;
  });
}

/** The matches of a text in the lines that are shown: `{count, present, move, at}`. `at(index)` has those of a line. */
function useSearch(lines, find, box, setFollow) {
  const [present, setPresent] = useState(0);
  const found = useMemo(() => {
    if (!find) return {count: 0, byLine: new Map(), places: []};
    const pattern = new RegExp(find.replace(/[.*+?^${}()|[\]\\/-]/g, "\\$&"), "gi");
    const byLine = new Map(), places = [];
    lines.forEach((line, index) => {
      const marks = [...line.text.slice(0, LONGEST_LINE).matchAll(pattern)].slice(0, MOST_MATCHES - places.length);
      if (!marks.length) return;
      byLine.set(index, {marks: marks.map(mark => [mark.index, mark.index + mark[0].length]), first: places.length});
      for (const mark of marks) places.push([index, mark.index]);
    });
    return {count: places.length, byLine, places};
  }, [lines, find]);
  useEffect(() => setPresent(0), [find]);
  const number = Math.min(present, Math.max(0, found.count - 1));
  const move = step => {
    setFollow(false);
    setPresent((number + step + found.count) % found.count);
    requestAnimationFrame(() => requestAnimationFrame(() => {
      box.current?.querySelector("mark.present")?.scrollIntoView({block: "center"});
    }));
  };
  return {
    count: found.count, present: number, move,
    at: index => found.byLine.has(index) ? {...found.byLine.get(index), present: number} : null,
  };
}

function Find({find, search}) {
  const typed = event => {
    if (event.key !== "Enter" || !search.count) return;
    event.preventDefault();
    search.move(event.shiftKey ? -1 : 1);
  };
  return html`<div class="find" role="search" onKeyDown=${typed}>
    <${Field} label=${t("find")} value=${find} max=${200} set=${value => setQuery({find: value}, {replace: true})} />
    <span role="status" class="quiet">${find && (search.count
      ? t("count", {at: search.present + 1, n: search.count}) : t("no_match"))}</span>
    <button type="button" aria-label=${t("previous")} disabled=${!search.count} onClick=${() => search.move(-1)}>↑</button>
    <button type="button" aria-label=${t("next")} disabled=${!search.count} onClick=${() => search.move(1)}>↓</button>
  </div>`;
}

function Status({follower}) {
  const now = useNow();
  const {status, problem, state} = follower;
  const archived = follower.streams.some(pieces => pieces.source === "archive");
  const symbol = {live: "●", loading: "◌", hidden: "❚❚", stale: "⚠", ended: "■", failed: "✕"}[status];
  return html`<p class=${`following is-${status}`} role="status"><span aria-hidden="true">${symbol}</span>
    ${" "}${t(status, {time: durationText(now - follower.since)})}${status === "ended" && state && `: ${word(state)}`}
    ${archived && ` (${t("archive")})`}${problem && html` <span>${problemText(problem)}</span>`}</p>`;
}

function Before({follower, view, load, busy}) {
  if (view.before > 0 || follower.hasEarlier) {
    return html`<p><button type="button" disabled=${busy} onClick=${() => load()}>${t("earlier")}</button></p>`;
  }
  return html`<p class="quiet">${follower.streams.some(pieces => pieces.first > pieces.start) ? t("full") : t("begin")}</p>`;
}

function Nothing({follower}) {
  const missing = [...new Set(follower.streams.map(pieces => pieces.missing).filter(Boolean))];
  if (follower.status === "failed") return null;
  return html`<${Empty}>${missing.join("; ") || t(follower.status === "ended" ? "none" : "nothing")}<//>`;
}

// Preact leaves an element alone that it gets again, so a long log costs only its new lines.
const MADE = [new WeakMap(), new WeakMap(), new WeakMap(), new WeakMap()];

function lineOf(line, named, timed, matches) {
  if (matches) return makeLine(line, named, timed, matches);
  const made = MADE[2 * named + timed];
  if (!made.has(line)) made.set(line, makeLine(line, named, timed, null));
  return made.get(line);
}

function makeLine(line, named, timed, matches) {
  if (line.gap) return html`<div key=${line.key} class="line gap">${t("gap", {n: line.gap})}</div>`;
  const text = line.text.length > LONGEST_LINE ? line.text.slice(0, LONGEST_LINE) : line.text;
  const at = line.at ? new Date(line.at).toISOString() : "";
  return html`<div key=${line.key} class=${`line ${line.stream}`}>
    ${timed && html`<time datetime=${at} title=${instantText(at)}>${clockText(at, line.at)}</time> `}
    ${named && html`<span class="which">${t(line.stream === "stderr" ? "err" : "out")}</span> `}
    <span class="text">${matches ? marked(text, matches) : text}</span>
    ${line.text.length > LONGEST_LINE && html` <span class="quiet">
      ${t("longer", {n: line.text.length - LONGEST_LINE})}</span>`}</div>`;
}

const clockText = (at, ms) => at && `${instantText(at).slice(11)}.${Math.floor(ms % 1_000 / 100)}`;

function marked(text, {marks, first, present}) {
  const found = [];
  let behind = 0;
  marks.forEach(([from, until], index) => {
    found.push(text.slice(behind, from), html`<mark class=${first + index === present ? "present" : ""}>
      ${text.slice(from, until)}</mark>`);
    behind = until;
  });
  return [...found, text.slice(behind)];
}

function Download({where, stream, name}) {
  const [done, setDone] = useState(null);
  const {busy, problem, run} = useChange(async () => {
    const whole = await download(where, stream, name, (...numbers) => setDone(numbers));
    if (!whole) toast(t("cut"), "bad");
  });
  const kib = bytes => Math.ceil(bytes / 1_024);
  return html`<button type="button" disabled=${busy} onClick=${() => run()}>${busy && done
      ? t("downloading", {done: kib(done[0]), n: kib(done[1])}) : t("download", {stream})}</button>
    <${ErrorBox} problem=${problem} />`;
}
