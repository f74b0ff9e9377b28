// The notices of the scheduler, as they come.
import {TextFilter} from "../core/filters.js";
import {html, useEffect, useMemo, useRef, useState} from "../core/html.js";
import {durationText, instantText, texts} from "../core/i18n.js";
import {urlOf} from "../core/api.js";
import {useNow} from "../core/live.js";
import {Choice, Page, State, Table} from "../core/parts.js";
import {link, setQuery} from "../core/router.js";
import {word} from "../core/words.js";

const t = texts({
  en: {
    title: "Events", topic: "Topic", any: "any", job: "Job", text: "Text", pause: "Pause", go_on: "Continue",
    at: "Time", what: "What", run: "Run", shard: "Shard", host: "Host", live: "live", connecting: "connecting …",
    stale: "No connection for {time}. Events may be missing.", refused: "The server refuses the stream.",
    paused: "Paused. {n} new events wait.", paused_one: "Paused. {n} new event waits.", none: "No event fits.",
    shown: "{shown} of the {n} newest events.",
    again: "starts again", due: "{n} shards are due", due_one: "{n} shard is due",
    hint: "The server remembers the newest 2,000 events. The history has what happened before.",
  },
  zh: {
    title: "事件", topic: "主题", any: "不限", job: "作业", text: "文本", pause: "暂停", go_on: "继续",
    at: "时间", what: "内容", run: "运行", shard: "分片", host: "主机", live: "实时", connecting: "连接中…",
    stale: "连接已断开 {time}，可能缺少部分事件。", refused: "服务器拒绝了事件流。",
    paused: "已暂停，有 {n} 条新事件。", paused_one: "已暂停，有 {n} 条新事件。", none: "没有符合条件的事件。",
    shown: "显示最近 {n} 条事件中的 {shown} 条。",
    again: "将再次启动", due: "{n} 个分片到期", due_one: "{n} 个分片到期",
    hint: "服务器保留最近 2,000 条事件，更早的内容见历史库。",
  },
});

const TOPICS = ["fired", "skipped", "launched", "running", "ended", "done", "refused", "fault", "cluster", "config"];
const REMEMBERED = 2_000, SHOWN = 500, RECENT = 200, DRAW_MS = 250, LONGEST_WAIT_MS = 15_000;

/** Reads events while the tab is visible: `{rows, status, since, problem}`, the newest row first. */
class Feed {
  constructor(draw) {
    Object.assign(this, {draw, rows: [], ids: new Set(), status: "connecting", since: Date.now(), problem: ""});
    Object.assign(this, {source: null, timer: 0, drawTimer: 0, wait: 1_000});
    this.seen = () => document.hidden ? this.close() : this.open();
    document.addEventListener("visibilitychange", this.seen);
    this.seen();
  }

  stop() {
    document.removeEventListener("visibilitychange", this.seen);
    clearTimeout(this.drawTimer);
    this.close();
  }

  set(status, problem = "") {
    if (status !== this.status) this.since = Date.now();
    Object.assign(this, {status, problem});
    this.changed();
  }

  changed() {
    this.drawTimer ||= setTimeout(() => {
      this.drawTimer = 0;
      this.draw();
    }, DRAW_MS);
  }

  close() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }

  open() {
    this.close();
    const source = this.source = new EventSource(urlOf("events", {recent: RECENT}));
    source.onopen = () => {
      this.wait = 1_000;
      this.set("live");
    };
    for (const topic of TOPICS) source.addEventListener(topic, event => this.take(topic, event));
    source.addEventListener("problem", event => this.set("stale", JSON.parse(event.data).detail));
    source.addEventListener("error", event => {
      this.set("stale", event.data ? JSON.parse(event.data).detail : this.problem);
      // After a refusal with a status the browser gives up.
      if (source.readyState !== EventSource.CLOSED || source !== this.source) return;
      this.timer = setTimeout(() => this.open(), this.wait);
      this.wait = Math.min(LONGEST_WAIT_MS, 2 * this.wait);
    });
  }

  take(topic, event) {
    const id = event.lastEventId, content = JSON.parse(event.data);
    // A new stream begins with events that are known.
    if (this.ids.has(id)) return;
    this.ids.add(id);
    this.rows.unshift({...content, topic, id});
    if (this.rows.length > REMEMBERED) this.ids.delete(this.rows.pop().id);
    this.changed();
  }
}

function useFeed() {
  const [, draw] = useState(0);
  const feed = useRef(null);
  useEffect(() => {
    feed.current = new Feed(() => draw(count => count + 1));
    draw(count => count + 1);
    return () => feed.current.stop();
  }, []);
  return feed.current;
}

// Texts that say what other columns say.
const REPEATED = [event => `is ${event.state}`, event => `placed on ${event.hostname}`];

/** The first line of a notice. The number of shards by state is told in words. */
function textOf(event) {
  const text = event.text.split("\n", 1)[0].slice(0, 500);
  if (REPEATED.some(one => one(event) === text)) return "";
  const due = /^(\d+) shards are due$/.exec(text);
  if (due) return t("due", {n: Number(due[1])});
  return /^\d+ [A-Z]+(, \d+ [A-Z]+)*$/.test(text) ? text.replace(/[A-Z]+/g, word) : text;
}

const shardOf = event => event.item >= 0
  ? html`<a href=${link`/runs/${event.runId}?shard=${String(event.item)}`}>${event.item}</a>
    ${event.attempt > 1 && html` <span class="quiet">(${event.attempt})</span>`}` : null;

const COLUMNS = [
  {key: "at", title: t("at"), cell: event => html`<time datetime=${event.at} title=${event.at} class="nowrap">
    ${instantText(event.at).slice(5)}</time>`},
  {key: "topic", title: t("topic"), cell: event => html`<span class="nowrap">${word(`topic_${event.topic}`)}</span>`},
  {key: "job", title: t("job"), cell: event => event.jobName
    ? html`<a class="nowrap" href=${link`/jobs/${event.jobName}`}>${event.jobName}</a>`
    : event.appName && html`<a href=${link`/apps/${event.appName}`}>${event.appName}</a>`},
  {key: "what", title: t("what"), wide: true, cell: event => {
    const [state, again] = event.state.split(", ");
    return html`${state && html`<${State} of=${state} /> `}${again && html`<span class="quiet">${t("again")}</span> `}
      ${textOf(event)}`;
  }},
  {key: "run", title: t("run"), wide: true,
    cell: event => event.runId && html`<a class="id" title=${event.runId} href=${link`/runs/${event.runId}`}>
      ${event.runId}</a>`},
  {key: "shard", title: t("shard"), number: true, cell: shardOf},
  {key: "host", title: t("host"), cell: event => html`<span class="nowrap">${event.hostname}</span>`},
];

export default function Events({query}) {
  const feed = useFeed();
  const [halted, setHalted] = useState(null);  // the rows at the time of the pause
  const [topic, job, text] = ["topic", "job", "text"].map(name => query.get(name) ?? "");
  const all = halted ?? feed?.rows ?? [];
  const newest = all[0]?.id;
  const fitting = useMemo(() => {
    const sought = text.toLowerCase(), soughtJob = job.toLowerCase();
    return all.filter(event => (!topic || event.topic === topic) && event.jobName.toLowerCase().includes(soughtJob)
      && (!sought || `${event.text} ${event.runId} ${event.hostname}`.toLowerCase().includes(sought)));
  }, [all, all.length, newest, topic, job, text]);
  const shown = fitting.slice(0, SHOWN);
  const place = halted ? feed.rows.findIndex(row => row.id === newest) : 0;
  const fresh = place < 0 ? feed.rows.length : place;  // more than are kept
  const actions = html`<button type="button" aria-pressed=${Boolean(halted)}
    onClick=${() => setHalted(halted ? null : [...feed.rows])}>${t(halted ? "go_on" : "pause")}</button>`;
  return html`<${Page} title=${t("title")} actions=${actions}>
    <div class="filters">
      <${Choice} label=${t("topic")} value=${topic} set=${value => setQuery({topic: value})}
        options=${[["", t("any")], ...TOPICS.map(name => [name, word(`topic_${name}`)])]} />
      <${TextFilter} name="job" label=${t("job")} value=${query.get("job") ?? ""} /><${TextFilter} name="text" label=${t("text")} value=${query.get("text") ?? ""} /></div>
    ${feed && html`<${Status} feed=${feed} halted=${halted} fresh=${fresh} />`}
    <${Table} label=${t("title")} columns=${COLUMNS} rows=${shown} rowKey=${event => event.id} empty=${t("none")} />
    <p class="quiet">${t("shown", {shown: shown.length, n: all.length})} ${t("hint")}</p><//>`;
}

function Status({feed, halted, fresh}) {
  const now = useNow();
  const time = durationText(now - feed.since);
  return html`<p class=${`following is-${halted ? "halted" : feed.status}`} role="status">
    <span aria-hidden="true">${halted ? "❚❚" : {live: "●", connecting: "◌", stale: "⚠"}[feed.status]}</span>
    ${" "}${halted ? t("paused", {n: fresh}) : t(feed.status, {time})} ${feed.problem}</p>`;
}
