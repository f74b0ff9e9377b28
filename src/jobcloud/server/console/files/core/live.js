// Data that follows the server: loaded at once, and again when the stream tells of a change that concerns it.
import {get, Problem, session} from "./api.js";
import {useCallback, useEffect, useRef, useState} from "./html.js";

// A list that changes all the time is not loaded all the time: a page may load at once after a change, but over a longer
// time only once in ten seconds, and then says how old it is. The numbers of the stream stay exact meanwhile.
const BURST = 8, REFILL_MS = 10_000, SHORTEST_MS = 250;
// What is shown of one thing is cheap, and changes seldom. So it is loaded after each change that names the thing, but
// not more often than this. The stream takes 500 ms at most, so a change is shown within a second.
const PROMPT_MS = 800;
// How long after a load the page still counts as one that changes all the time.
const CALM_MS = 3_000;
// Changes can be missed, for example while the stream is away.
const REFRESH_MS = 60_000;

const events = new EventTarget();
export const stream = {status: "connecting", since: Date.now(), wasLive: false, numbers: null};

function received({data}) {
  if (data.kind === "status") {
    if (data.status !== stream.status) {
      stream.status = data.status;
      stream.wasLive ||= data.status === "live";
      stream.since = Date.now();
    }
  } else if (data.kind === "numbers") stream.numbers = data.numbers;
  else if (data.kind === "refused") get("whoami").catch(() => {});  // a refusal for want of a session is noticed there
  events.dispatchEvent(Object.assign(new Event(data.kind), {changes: data.changes}));
}

async function portOf(url) {
  if (typeof SharedWorker !== "undefined") return new SharedWorker(url, {type: "module", name: "jobcloud"}).port;
  const {attach} = await import("./worker.js");
  const {port1, port2} = new MessageChannel();
  attach(port2);
  return port1;
}

/** Listen to the stream that all tabs share. `url` is that of the worker. */
export async function listen(url) {
  const port = await portOf(url);
  const say = kind => port.postMessage({kind, visible: !document.hidden});
  port.onmessage = received;
  say("hello");
  document.addEventListener("visibilitychange", () => say("visible"));
  addEventListener("pagehide", () => port.postMessage({kind: "gone"}));
  addEventListener("pageshow", event => event.persisted && say("hello"));
}

function useEvents(kinds, listener) {
  const latest = useRef(listener);
  latest.current = listener;
  useEffect(() => {
    const call = event => latest.current(event);
    for (const kind of kinds) events.addEventListener(kind, call);
    return () => {
      for (const kind of kinds) events.removeEventListener(kind, call);
    };
  }, []);
}

/** The state of the stream: `{status, since, wasLive, numbers}`. `numbers` are those of GET /overview. */
export function useStream() {
  const [, draw] = useState(0);
  useEvents(["status", "numbers"], () => draw(count => count + 1));
  return stream;
}

/** The present time in milliseconds, changing every `step` ms while the tab is visible. */
export function useNow(step = 1_000) {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => document.hidden || setNow(Date.now()), step);
    return () => clearInterval(timer);
  }, [step]);
  return now;
}

/**
 * The result of `load(signal)`, which is called again when `key` changes, when a change of the stream concerns it, after
 * the stream was away, and once a minute. `concerns(changes)` tells whether a message of GET /changes does; without it,
 * every message does. `prompt`: the data are of one thing, so a change that names it is never put off for long.
 *
 * Returns `{data, problem, loading, reload, lags, at}`. Data of the same key stay while they are loaded anew. `at` is the
 * time in milliseconds at which they were asked for. `lags`: changes come faster than loads, so the data may be old.
 */
export function useLoaded(key, load, concerns = () => true, {prompt = false} = {}) {
  const [state, setState] = useState({key, data: null, problem: null, loading: true});
  const [lags, setLags] = useState(false);
  const run = useRef({
    busy: false, again: false, tokens: BURST, at: Date.now(), timer: 0, due: 0, started: 0, calm: 0, abort: null,
    stale: false,
  }).current;
  const current = useRef({});
  current.current = {key, load, concerns};

  const reloadAt = due => {
    clearTimeout(run.timer);
    run.due = due;
    run.timer = setTimeout(reload, due - Date.now());
  };

  const reload = useCallback(async () => {
    clearTimeout(run.timer);
    run.timer = 0;
    if (run.busy) {
      run.again = true;
      return;
    }
    run.busy = true;
    run.again = false;
    const started = run.started = Date.now();
    const {key: asked, load: ask} = current.current;
    const abort = run.abort = new AbortController();
    let next;
    try {
      next = {data: await ask(abort.signal), problem: null, at: started};
    } catch (error) {
      next = {problem: error instanceof Problem ? error : new Problem(0, {detail: String(error)})};
    }
    if (abort.signal.aborted) return;
    run.busy = false;
    if (asked === current.current.key) {
      setState(before => ({
        key: asked, loading: false, data: before.key === asked ? before.data : null,
        at: before.key === asked ? before.at : undefined, ...next,
      }));
    }
    clearTimeout(run.calm);
    run.calm = setTimeout(() => run.timer || setLags(false), CALM_MS);
    if (run.again) reloadAt(prompt ? started + PROMPT_MS : 0);
  }, []);

  useEffect(() => {
    run.abort?.abort();
    run.busy = false;
    setState(before => before.key === key ? before : {key, data: null, problem: null, loading: true});
    reload();
  }, [key]);

  useEffect(() => {
    const timer = setInterval(() => document.hidden || reload(), REFRESH_MS);
    const shown = () => {
      if (document.hidden || !run.stale) return;
      run.stale = false;
      reload();
    };
    document.addEventListener("visibilitychange", shown);
    return () => {
      clearInterval(timer);
      document.removeEventListener("visibilitychange", shown);
      clearTimeout(run.timer);
      clearTimeout(run.calm);
      run.abort?.abort();
    };
  }, []);

  const soon = named => {
    if (document.hidden) {
      run.stale = true;
      return;
    }
    const now = Date.now();
    if (prompt && named) {
      const due = Math.max(now, run.started + PROMPT_MS);
      if (!run.timer || due < run.due) reloadAt(due);
      return;
    }
    if (run.timer) return;
    run.tokens = Math.min(BURST, run.tokens + (now - run.at) / REFILL_MS);
    run.at = now;
    run.tokens -= 1;
    const wait = run.tokens >= 0 ? SHORTEST_MS : -run.tokens * REFILL_MS;
    setLags(wait > SHORTEST_MS);
    reloadAt(now + wait);
  };
  useEvents(["changes", "status"], ({type, changes}) => {
    if (type === "status") {
      if (stream.status === "live") soon(true);
    } else if (current.current.concerns(changes)) soon(current.current.concerns({...changes, more: false}));
  });
  const own = state.key === key ? state : {data: null, problem: null, loading: true};
  return {...own, reload, lags: lags && !own.loading};
}

/** As `useLoaded`, for one path of the API. */
export function useGet(where, query, concerns, options) {
  return useLoaded(JSON.stringify([where, query]), signal => get(where, query, {signal}), concerns, options);
}

/**
 * A list of the API, page by page: `{items, total, more, loadMore, data, problem, loading, reload}`. `data` has the other
 * fields of the answer too. Reloading loads as many pages as are shown.
 */
export function usePages(where, query, concerns, size = 100, options = {}) {
  const key = JSON.stringify([where, query]);
  const [shown, setShown] = useState({key, pages: 1});
  const pages = shown.key === key ? shown.pages : 1;
  const loaded = useLoaded(`${key} ${pages}`, async signal => {
    const items = [];
    let last = {nextCursor: ""};
    for (let page = 0; page < pages; page += 1) {
      last = await get(where, {...query, limit: size, cursor: last.nextCursor}, {signal});
      items.push(...last.items);
      if (!last.nextCursor) break;
    }
    return {...last, items, more: Boolean(last.nextCursor)};
  }, concerns, options);
  const last = useRef({});
  if (loaded.data) last.current = {key, data: loaded.data};
  // While a further page is loaded, the present ones stay.
  const data = loaded.data ?? (last.current.key === key ? last.current.data : null);
  return {
    ...loaded, items: data?.items ?? [], total: data?.total, more: data?.more ?? false,
    loading: loaded.loading && !data, loadMore: () => setShown({key, pages: pages + 1}),
  };
}

/** Tells of the end of the session: once, and again only after the browser has brought the page back. */
export function onSessionEnd(listener) {
  let told = false;
  session.addEventListener("ended", () => {
    if (!told) listener();
    told = true;
  });
  addEventListener("pageshow", event => {
    if (event.persisted) told = false;
  });
}

/** A value, once it has not changed for `ms` milliseconds. */
export function useSettled(value, ms) {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), ms);
    return () => clearTimeout(timer);
  }, [value, ms]);
  return settled;
}
