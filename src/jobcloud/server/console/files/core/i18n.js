// Languages. Each module keeps its own texts, in all languages, beside its code.

export const LANGUAGES = {en: "English", zh: "中文"};
const KEY = "jobcloud.language";

function chosen() {
  const saved = localStorage.getItem(KEY);
  if (saved in LANGUAGES) return saved;
  const preferred = navigator.languages.map(name => name.slice(0, 2).toLowerCase());
  return preferred.find(name => name in LANGUAGES) ?? "en";
}

export const language = chosen();
document.documentElement.lang = language;

/** Change the language. The page is loaded anew, because texts are looked up once. */
export function setLanguage(name) {
  localStorage.setItem(KEY, name);
  location.reload();
}

/** A text with values in place of the names in braces. */
export const filled = (text, values) => text.replace(/\{(\w+)\}/g, (all, name) => {
  const value = values[name] ?? all;
  return typeof value === "number" ? number(value) : value;
});

/**
 * The texts of one module: `{en: {key: "text with {name}"}, zh: {…}}`. Returns a function that gives the text of a key,
 * with values in place of the names. If `n` is 1 and the key `KEY_one` exists, its text is used. Throws an error if a
 * language lacks a key, so that every page load checks the texts.
 */
export function texts(catalogues) {
  for (const name of Object.keys(LANGUAGES)) {
    for (const key of Object.keys(catalogues.en)) {
      if (!(key in catalogues[name])) throw new Error(`the language ${name} has no text ${key}`);
    }
    for (const key of Object.keys(catalogues[name])) {
      if (!(key in catalogues.en)) throw new Error(`the text ${key} of the language ${name} is in no other language`);
    }
  }
  const own = catalogues[language];
  const t = (key, values = {}) => {
    const text = values.n === 1 && `${key}_one` in own ? own[`${key}_one`] : own[key];
    if (text === undefined) throw new Error(`there is no text ${key}`);
    return filled(text, values);
  };
  t.has = key => key in own;
  return t;
}

const whole = new Intl.NumberFormat(language, {maximumFractionDigits: 3});
export const number = value => whole.format(value);

const instants = new Map(), unknownZones = new Set();

/**
 * An instant of the API (RFC 3339) as text in a time zone; without `zone`, in that of the browser. In a zone that the
 * browser does not know, the text is in UTC and says so.
 */
export function instantText(at, zone) {
  if (!at) return "";
  const key = zone ?? "";
  if (!instants.has(key)) {
    const options = {
      year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit",
      hourCycle: "h23", timeZone: zone || undefined,
    };
    try {
      instants.set(key, new Intl.DateTimeFormat("en-CA", options));
    } catch {
      // The server knows more time zones than an older browser.
      instants.set(key, new Intl.DateTimeFormat("en-CA", {...options, timeZone: "UTC"}));
      unknownZones.add(key);
    }
  }
  const part = {};
  for (const {type, value} of instants.get(key).formatToParts(new Date(at))) part[type] = value;
  const text = `${part.year}-${part.month}-${part.day} ${part.hour}:${part.minute}:${part.second}`;
  return unknownZones.has(key) ? `${text} UTC` : text;
}

export const browserZone = Intl.DateTimeFormat().resolvedOptions().timeZone;

const UNITS = [["d", 86_400], ["h", 3_600], ["min", 60], ["s", 1]];

/** A length of time in milliseconds: its two largest units, such as "2 h 5 min". */
export function durationText(ms) {
  if (ms === null || ms === undefined || Number.isNaN(ms)) return "";
  if (ms < 1_000) return `${Math.max(0, Math.round(ms))} ms`;
  if (ms < 10_000) return `${(ms / 1_000).toFixed(1)} s`;
  let rest = Math.round(ms / 1_000);
  const found = [];
  for (const [unit, seconds] of UNITS) {
    if (rest >= seconds && found.length < 2) {
      found.push(`${Math.floor(rest / seconds)} ${unit}`);
      rest %= seconds;
    } else if (found.length) break;
  }
  return found.join(" ");
}

const relative = new Intl.RelativeTimeFormat(language, {numeric: "always", style: "short"});

/** How long ago an instant was, or in what time it comes. `now` is in milliseconds. */
export function agoText(at, now) {
  const seconds = Math.round((Date.parse(at) - now) / 1_000);
  const size = Math.abs(seconds);
  if (size < 60) return relative.format(seconds, "second");
  if (size < 3_600) return relative.format(Math.trunc(seconds / 60), "minute");
  if (size < 172_800) return relative.format(Math.trunc(seconds / 3_600), "hour");
  return relative.format(Math.trunc(seconds / 86_400), "day");
}
