// Requests to the public API. The console uses nothing else.

const PREFIX = "/api/v1";
const TIMEOUT_MS = 30_000;

/** A refusal of the API (RFC 9457), or an answer that did not come. `slug` is its code. */
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || `status ${status}`);
    this.status = status;
    this.slug = String(body.type ?? "").split(":").pop();
    this.title = body.title ?? "";
    this.errors = Array.isArray(body.errors) ? body.errors : [];
    this.code = body.code ?? "";
    this.parameters = body.parameters ?? {};
  }
}

/**
 * Tells by the event `ended` that the person has to sign in: a request was refused for want of an identity, or the
 * person has ended the session here. Several events may tell of the same end.
 */
export const session = new EventTarget();

/** Tell that the session has ended. */
export const endSession = () => session.dispatchEvent(new Event("ended"));

export function urlOf(path, query = {}) {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== "" && one !== null && one !== undefined && one !== false) found.append(name, one);
    }
  }
  const text = found.toString();
  return `${PREFIX}/${path}${text ? `?${text}` : ""}`;
}

/** A path of the API. Values between the parts are encoded: path`jobs/${key}/trigger`. */
export function path(parts, ...values) {
  return parts.reduce((text, part, index) => text + encodeURIComponent(values[index - 1]) + part);
}

async function answerTo(method, where, {query, body, headers = {}, signal} = {}) {
  const given = {Accept: "application/json", ...headers};
  if (method !== "GET") given["Jobcloud-Request"] = "1";
  if (body !== undefined) given["Content-Type"] = "application/json";
  const limit = AbortSignal.timeout(TIMEOUT_MS);
  let answer;
  try {
    answer = await fetch(urlOf(where, query), {
      method,
      headers: given,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
      credentials: "same-origin",
      cache: "no-store",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem(0, {type: "unreachable", detail: String(error.message)});
  }
  if (answer.ok) return answer;
  let problem = {};
  try {
    problem = await answer.json();
  } catch {
    // The answer of a proxy need not be JSON.
  }
  if (answer.status === 401) endSession();
  throw new Problem(answer.status, problem && typeof problem === "object" ? problem : {});
}

async function content(answer) {
  return answer.status === 204 ? null : answer.json();
}

export const get = async (where, query, options = {}) => content(await answerTo("GET", where, {query, ...options}));

/** As `get`, with the ETag of the answer: `[body, tag]`. A change sends the tag back as If-Match. */
export async function getTagged(where, query) {
  const answer = await answerTo("GET", where, {query});
  const body = await answer.json();
  // A proxy that compresses answers makes the ETag a weak one, which If-Match cannot have. The revision is its content.
  return [body, body.revision ? `"${body.revision}"` : answer.headers.get("ETag") ?? ""];
}

/** The text of an answer that is not JSON. */
export const getText = async (where, query) => (await answerTo("GET", where, {query})).text();

/** Change something. `tag` is the ETag of the state that the change is meant for. */
export async function change(method, where, {query, body, tag} = {}) {
  return content(await answerTo(method, where, {query, body, headers: tag ? {"If-Match": tag} : {}}));
}

/** Send a file. */
export async function upload(where, file, query) {
  const answer = await fetch(urlOf(where, query), {
    method: "POST", body: file, headers: {"Jobcloud-Request": "1", "Content-Type": "application/octet-stream"},
  });
  if (answer.status === 401) endSession();
  if (!answer.ok) throw new Problem(answer.status, await answer.json().catch(() => ({})));
  return answer.json();
}

/** All items of a list, at most `limit`, over several pages. */
export async function all(where, query = {}, limit = 10_000) {
  const items = [];
  let cursor = "";
  do {
    const page = await get(where, {limit: 1_000, ...query, cursor});
    items.push(...page.items);
    cursor = page.nextCursor;
  } while (cursor && items.length < limit);
  return items.slice(0, limit);
}
