// The output of an attempt as a page reads it: pieces of one or both streams, and what follows.
import {get, Problem, urlOf} from "../../core/api.js";

export const STREAMS = ["stdout", "stderr"];
// The API gives at most 1 MiB at a time.
const FIRST_LINES = 1_000, EARLIER_BYTES = 65_536, PIECE_BYTES = 1 << 20;
const MOST_CHARACTERS = 8 << 20, MOST_DOWNLOADED = 256 << 20;
const POLL_MS = 1_500, FIRST_WAIT_MS = 1_000, LONGEST_WAIT_MS = 15_000, DRAW_MS = 150;
// Colours and other controls of terminals.
const CONTROLS = /\u001b\[[0-9;?]*[ -/]*[@-~]|\r+$|[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/g;
const plain = text => text.replace(CONTROLS, "").replaceAll("\r", " ");

/** The kept pieces of one stream, and its lines: `{key, stream, text, at}`, or with `gap`, a number of missing bytes. */
export class Pieces {
  constructor(stream) {
    Object.assign(this, {stream, pieces: [], lines: [], start: 0, open: false, missing: "", source: "", size: 0});
  }

  get first() {
    return this.pieces[0]?.offset ?? 0;
  }

  get next() {
    return this.pieces.at(-1)?.next ?? 0;
  }

  /** Whether there is something before the first piece, and room for it. */
  get earlier() {
    return this.pieces.length > 0 && this.first > this.start && this.characters < MOST_CHARACTERS;
  }

  get characters() {
    return this.pieces.reduce((sum, piece) => sum + piece.text.length, 0);
  }

  /** A piece: `{offset, next, text, times, missed}`. */
  append(piece) {
    if (this.pieces.length && piece.next <= this.next) return;
    this.pieces.push(piece);
    if (this.characters > MOST_CHARACTERS && this.pieces.length > 1) {
      while (this.characters > MOST_CHARACTERS / 2 && this.pieces.length > 1) this.pieces.shift();
      this.#join();
    } else this.#add(piece);
  }

  prepend(piece) {
    // A piece may begin within a character. Each of its bytes became a replacement character.
    const broken = piece.offset > this.start ? /^\ufffd{0,3}/.exec(piece.text)[0].length : 0;
    this.pieces.unshift({...piece, offset: piece.offset + broken, text: piece.text.slice(broken)});
    const before = this.lines.length;
    this.#join();
    return this.lines.length - before;
  }

  #join() {
    this.lines = [];
    this.open = false;
    for (const piece of this.pieces) this.#add(piece);
  }

  #add({offset, text, times = [], missed = 0}) {
    const stream = this.stream;
    if (missed > 0) {
      this.lines.push({key: `${stream} ${offset} gap`, stream, text: "", gap: missed, at: this.lines.at(-1)?.at ?? 0});
      this.open = false;
    }
    const parts = text.split("\n");
    let mark = 0, at = this.lines.at(-1)?.at ?? 0;
    parts.forEach((part, index) => {
      while (mark < times.length && times[mark].line <= index) {
        at = Date.parse(times[mark].at);
        mark += 1;
      }
      const last = index === parts.length - 1;
      if (index === 0 && this.open) {
        const line = this.lines.pop();
        this.lines.push({...line, text: line.text + plain(part)});
      } else if (!last || part) {
        this.lines.push({key: `${stream} ${offset} ${index}`, stream, text: plain(part), at});
      }
      if (last && (index > 0 || part)) this.open = part !== "";
    });
  }
}

/** Lines of several streams by their times. Lines without a time come first. */
export function merged(streams) {
  if (streams.length === 1) return streams[0].lines;
  const [one, other] = streams.map(stream => stream.lines);
  const found = [];
  let index = 0;
  for (const line of one) {
    while (index < other.length && other[index].at < line.at) found.push(other[index++]);
    found.push(line);
  }
  for (; index < other.length; index += 1) found.push(other[index]);
  return found;
}

/**
 * Reads the output of an attempt: its last lines, then what follows until its end. `where` is the path of the attempt,
 * `names` the streams, `draw` is called after changes. One stream is followed by events. Both are polled, because each
 * event stream takes one of the few connections of a browser. Nothing is read while the tab is hidden.
 */
export class Follower {
  constructor(where, names, active, draw) {
    Object.assign(this, {where, active, draw, streams: names.map(name => new Pieces(name)), problem: null, state: ""});
    Object.assign(this, {source: null, timer: 0, drawTimer: 0, wait: FIRST_WAIT_MS, stopped: false, begun: false});
    this.set("loading");
    this.abort = new AbortController();
    this.seen = () => this.resume();
    document.addEventListener("visibilitychange", this.seen);
    this.resume();
  }

  stop() {
    this.stopped = true;
    document.removeEventListener("visibilitychange", this.seen);
    clearTimeout(this.drawTimer);
    this.pause();
  }

  /** The attempt has ended: what is left is read. */
  end(state) {
    this.active = false;
    this.state ||= state;
  }

  set(status, problem = null) {
    if (status !== this.status) this.since = Date.now();
    this.status = status;
    this.problem = problem;
    this.changed();
  }

  changed() {
    if (!this.drawTimer && !this.stopped) {
      this.drawTimer = setTimeout(() => {
        this.drawTimer = 0;
        this.draw();
      }, DRAW_MS);
    }
  }

  pause() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
    this.abort.abort();
  }

  async resume() {
    if (this.status === "ended" || this.status === "failed") return;
    this.pause();
    if (this.stopped) return;
    if (document.hidden) {
      this.set("hidden");
      return;
    }
    const {signal} = this.abort = new AbortController();
    try {
      await this.catchUp(signal);
    } catch (error) {
      if (signal.aborted) return;
      const problem = error instanceof Problem ? error : new Problem(0, {detail: String(error)});
      if ([400, 403, 404, 422].includes(problem.status)) this.set("failed", problem);
      else {
        this.set("stale", problem);
        this.again();
      }
      return;
    }
    if (signal.aborted) return;
    this.wait = FIRST_WAIT_MS;
    if (this.complete) this.set("ended");
    else if (this.streams.length === 1) this.open();
    else {
      this.set("live");
      this.timer = setTimeout(this.seen, POLL_MS);
    }
  }

  again() {
    this.timer = setTimeout(this.seen, this.wait);
    this.wait = Math.min(LONGEST_WAIT_MS, 2 * this.wait);
  }

  /** Reads up to the present end of each stream. */
  async catchUp(signal) {
    const active = this.active;
    await Promise.all(this.streams.map(async pieces => {
      for (;;) {
        const known = pieces.pieces.length > 0;
        const query = known ? {offset: pieces.next, limit: PIECE_BYTES} : {tail: FIRST_LINES};
        const found = await this.read(pieces, query, signal);
        if (known && found.offset > pieces.next) found.missed = found.offset - pieces.next;
        if (found.next > found.offset || found.missed) pieces.append(found);
        if (!known || found.next <= found.offset || found.next >= pieces.size) break;
      }
    }));
    // What was written before the end was noticed has been read only if the end came before this.
    this.complete = !active;
    this.changed();
  }

  async read(pieces, query, signal) {
    const found = await get(`${this.where}/logs`, {stream: pieces.stream, times: true, ...query}, {signal});
    Object.assign(pieces, {missing: found.missing, source: found.source, size: found.size});
    return {offset: found.offset, next: found.nextOffset, text: found.text, times: found.times};
  }

  open() {
    const [pieces] = this.streams;
    const query = {stream: pieces.stream, offset: pieces.next, times: true};
    const source = this.source = new EventSource(urlOf(`${this.where}/logs/stream`, query));
    source.onopen = () => this.set("live");
    source.addEventListener("output", event => {
      const {offset, text, times, missed} = JSON.parse(event.data);
      pieces.append({offset, text, times, missed, next: Number(event.lastEventId)});
      this.set("live");
    });
    source.addEventListener("end", event => {
      this.state = JSON.parse(event.data).state || this.state;
      this.pause();
      this.set("ended");
    });
    const refused = event => this.set("stale", new Problem(503, JSON.parse(event.data)));
    source.addEventListener("problem", refused);
    source.addEventListener("error", event => {
      if (event.data) refused(event);  // an event of the server, not of the browser
      else if (source === this.source) {
        this.set("stale", this.problem);
        // After a refusal with a status the browser gives up. A plain request tells why it was refused.
        if (source.readyState === EventSource.CLOSED) this.again();
      }
    });
  }

  get hasEarlier() {
    return this.streams.some(pieces => pieces.earlier);
  }

  /** Loads a piece before the first one, of the stream that reaches back the least. Returns the number of lines. */
  async earlier() {
    const [pieces] = this.streams.filter(one => one.earlier)
      .sort((one, other) => (other.lines[0]?.at ?? 0) - (one.lines[0]?.at ?? 0));
    if (!pieces) return 0;
    const first = pieces.first;
    const offset = Math.max(pieces.start, first - EARLIER_BYTES);
    const found = await this.read(pieces, {offset, limit: first - offset});
    if (pieces.first !== first) return 0;
    if (found.offset > offset || found.next <= found.offset) pieces.start = Math.min(first, found.offset);
    return found.offset < first ? pieces.prepend(found) : 0;
  }
}

/** The whole output of a stream as a file. `tell(done, whole)` is called with numbers of bytes. */
export async function download(where, stream, name, tell) {
  const parts = [];
  let offset = 0, more = true;
  while (more && offset < MOST_DOWNLOADED) {
    const found = await get(`${where}/logs`, {stream, offset, limit: PIECE_BYTES});
    parts.push(found.text);
    more = found.nextOffset > offset && found.nextOffset < found.size;
    offset = found.nextOffset;
    tell(offset, found.size);
  }
  const url = URL.createObjectURL(new Blob(parts, {type: "text/plain"}));
  const anchor = Object.assign(document.createElement("a"), {href: url, download: name.replace(/[^\w.~-]+/g, "_")});
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
  return !more;
}
