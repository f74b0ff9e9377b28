// The address bar: which page is shown, and its filters.
import {html, useEffect, useState} from "./html.js";

const changes = new EventTarget();
const told = () => changes.dispatchEvent(new Event("change"));
addEventListener("popstate", told);

/** Show another page of the console. `replace`: the present entry of the history is replaced. */
export function navigate(url, {replace = false} = {}) {
  if (url === location.pathname + location.search) return;
  const before = location.pathname;
  history[replace ? "replaceState" : "pushState"](null, "", url);
  if (location.pathname !== before) scrollTo(0, 0);
  told();
}

/** The parts of the path, decoded, and the parameters of the address. */
export function useRoute() {
  const [, draw] = useState(0);
  useEffect(() => {
    const listener = () => draw(count => count + 1);
    changes.addEventListener("change", listener);
    return () => changes.removeEventListener("change", listener);
  }, []);
  return {parts: partsOf(location.pathname), query: new URLSearchParams(location.search)};
}

function partsOf(where) {
  try {
    return where.split("/").slice(1).map(decodeURIComponent).filter(Boolean);
  } catch {
    return ["not-found"];  // a malformed escape
  }
}

/** The address of the present page with other parameters. An empty value removes a parameter. */
export function withQuery(values) {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(values)) {
    if (value === "" || value === null || value === undefined || value === false) query.delete(name);
    else query.set(name, value);
  }
  const text = query.toString();
  return location.pathname + (text ? `?${text}` : "");
}

/** Change parameters of the address. While somebody types, `replace` keeps the history short. */
export function setQuery(values, options) {
  navigate(withQuery(values), options);
}

/** A link in the console: link`/jobs/${key}`. */
export function link(parts, ...values) {
  return parts.reduce((text, part, index) => text + encodeURIComponent(values[index - 1]) + part);
}

/** A link to another site, for addresses that users wrote. Only http and https become links. */
export function External({href, children}) {
  const safe = /^https?:\/\//i.test(href ?? "");
  return safe ? html`<a href=${href} rel="noreferrer noopener" target="_blank">${children ?? href}</a>`
    : html`<span>${children ?? href}</span>`;
}

/** Follow links of the console without loading it anew. `known` tells whether a path is a page of the console. */
export function followLinks(known) {
  document.addEventListener("click", event => {
    const anchor = event.target.closest?.("a[href]");
    const plain = event.button === 0 && !(event.ctrlKey || event.metaKey || event.shiftKey || event.altKey);
    if (!anchor || anchor.getAttribute("href").startsWith("#")) return;
    if (!plain || event.defaultPrevented || anchor.target || anchor.hasAttribute("download")) return;
    const url = new URL(anchor.href);
    if (url.origin !== location.origin || !known(partsOf(url.pathname))) return;
    event.preventDefault();
    navigate(url.pathname + url.search);
  });
}
