// The parts of pages.
import {Problem} from "./api.js";
import {html, useEffect, useId, useLayoutEffect, useRef, useState} from "./html.js";
import {agoText, browserZone, durationText, instantText, texts} from "./i18n.js";
import {useNow} from "./live.js";
import {faultText, refusalText} from "./problems.js";
import {look, word} from "./words.js";

const t = texts({
  en: {
    trail: "breadcrumb", loading: "Loading …", nothing: "Nothing here.", more: "Show more", of_total: "{shown} of {n}", again: "Try again",
    unreachable: "The server cannot be reached.", forbidden: "You may not see this.",
    cancel: "Cancel", close: "Close", done: "Done.",
    working: "Working …", copied: "Copied.", not_copied: "The browser does not allow it here. The text is selected: copy it by the keyboard.", copy: "Copy", required: "required",
    changed: "It has changed meanwhile. Load it again, then repeat.",
    lags: "Much is changing, so this part is read once in ten seconds. It is of {time}.",
  },
  zh: {
    trail: "上级页面", loading: "加载中…", nothing: "暂无内容。", more: "显示更多", of_total: "{shown} / {n}", again: "重试",
    unreachable: "无法连接服务器。", forbidden: "您无权查看此内容。",
    cancel: "取消", close: "关闭", done: "完成。",
    working: "处理中…", copied: "已复制。", not_copied: "浏览器在此处不允许复制。文本已选中，请用键盘复制。", copy: "复制", required: "必填",
    changed: "内容已被他人修改。请重新加载后再试。",
    lags: "变化频繁，此部分每十秒读取一次。当前内容读取于 {time}。",
  },
});

const cls = (...names) => names.filter(Boolean).join(" ");

/** A page: its title is that of the tab too. `actions` stand beside the title, `above` is a trail of links. */
export function Page({title, actions, above, children}) {
  const heading = useRef();
  useEffect(() => {
    document.title = `${title} · jobcloud`;
  }, [title]);
  // After a move to another page, readers of screens begin at its heading.
  useEffect(() => heading.current.focus({preventScroll: true}), []);
  return html`
    ${above && html`<nav class="trail" aria-label=${t("trail")}>${above}</nav>`}
    <header class="head"><h1 ref=${heading} tabindex="-1">${title}</h1><div class="actions">${actions}</div></header>
    ${children}`;
}

export function Section({title, actions, children, id}) {
  const own = useId();
  return html`<section aria-labelledby=${own} id=${id}>
    <header class="head"><h2 id=${own}>${title}</h2><div class="actions">${actions}</div></header>${children}
  </section>`;
}

/** A state: symbol, colour, word. */
export function State({of, text}) {
  const [symbol, kind] = look(of);
  return html`<span class=${cls("state", kind)}><span aria-hidden="true">${symbol}</span> ${text ?? word(of)}</span>`;
}

/** The symbol of a state in its colour. Its word must stand beside it, or in the label of what it is a part of. */
export function Mark({state}) {
  const [symbol, kind] = look(state);
  return html`<span class=${cls("mark", kind)} aria-hidden="true">${symbol}</span>`;
}

/** An instant, relative to now, with the exact one in its title. */
export function Ago({at}) {
  const now = useNow();
  return at ? html`<time datetime=${at} title=${`${instantText(at)} ${browserZone}`}>${agoText(at, now)}</time>` : null;
}

/** An instant in the time zone of the browser, or in `zone`. */
export function Instant({at, zone}) {
  return at ? html`<time datetime=${at} title=${`${at} (UTC)`}>${instantText(at, zone)}</time>` : null;
}

/** The time between two instants. Without an end, it grows. */
export function Took({from, until}) {
  return from ? html`<span class="number">${until ? durationText(Date.parse(until) - Date.parse(from))
    : html`<${Since} at=${from} />`}</span>` : null;
}

function Since({at}) {
  const now = useNow();
  return durationText(now - Date.parse(at));
}

export const Loading = () => html`<p class="quiet loading" role="status">${t("loading")}</p>`;
export const Empty = ({children}) => html`<p class="quiet">${children ?? t("nothing")}</p>`;

/** A refusal in words, with the field and the fix of each fault. */
export function problemText(problem) {
  if (problem.status === 0) return t("unreachable");
  if (problem.status === 403 && problem.slug === "forbidden") return refusalText(problem) || t("forbidden");
  if (problem.status === 412) return t("changed");
  return refusalText(problem);
}

export function ErrorBox({problem, again}) {
  if (!problem) return null;
  return html`<div class="error" role="alert">
    <p>${problemText(problem)}</p>
    ${problem.errors?.length > 0 && html`<ul>${problem.errors.map(one => html`
      <li><code>${one.field}</code> ${faultText(one)}</li>`)}</ul>`}
    ${again && html`<button type="button" onClick=${again}>${t("again")}</button>`}
  </div>`;
}

/** The problem of data that are shown. While the server is away, the frame says that they may be old. */
function newsOf({problem, data}) {
  return data && problem?.status === 0 ? null : problem;
}

/** How old data are that change faster than they are loaded. */
const Lag = ({of}) => of.lags && of.at ? html`<p class="quiet">${t("lags", {time: instantText(of.at)})}</p>` : null;

/** The content once it is loaded; before, that it is being loaded or why it cannot be. `of`: result of useLoaded. */
export function Loaded({of, children}) {
  if (of.data === null || of.data === undefined) {
    return of.problem ? html`<${ErrorBox} problem=${of.problem} again=${of.reload} />` : html`<${Loading} />`;
  }
  return html`<${ErrorBox} problem=${newsOf(of)} again=${of.reload} />${children(of.data)}<${Lag} of=${of} />`;
}

/**
 * A table. `columns`: `{key, title, cell(row), sort, number, wide, sticky}`; `sort` is the name by which the list is
 * sorted. A sticky column, such as that of the actions, stays in sight while the table is scrolled sideways.
 * `order` is the present one, with "-" in front for descending. `choose(order)` is called for another one.
 */
export function Table({label, columns, rows, rowKey, order = "", choose, empty, rowClass}) {
  if (!rows.length) return html`<${Empty}>${empty}<//>`;
  const kind = column => cls(column.number && "number", column.sticky && "sticky");
  const head = column => {
    if (!column.sort) return html`<th scope="col" class=${kind(column)}>${column.title}</th>`;
    const now = order === column.sort ? "ascending" : order === `-${column.sort}` ? "descending" : "none";
    const next = now === "ascending" ? `-${column.sort}` : column.sort;
    return html`<th scope="col" aria-sort=${now} class=${kind(column)}>
      <button type="button" class="plain" onClick=${() => choose(next)}>${column.title}
      <span aria-hidden="true">${{ascending: " ▲", descending: " ▼", none: ""}[now]}</span></button></th>`;
  };
  return html`<div class="scroll" role="group" aria-label=${label} tabindex="0"><table>
    <thead><tr>${columns.map(head)}</tr></thead>
    <tbody>${rows.map(row => html`<tr key=${rowKey(row)} class=${rowClass?.(row) ?? ""}>
      ${columns.map(column => html`<td class=${cls(kind(column), column.wide && "wide")}
        data-title=${column.title}>${column.cell(row)}</td>`)}</tr>`)}</tbody>
  </table></div>`;
}

/** A table over a list that `usePages` loads. */
export function Listing({of, label, columns, rowKey, order, choose, empty, rowClass}) {
  if (of.loading) return html`<${Loading} />`;
  return html`<${ErrorBox} problem=${newsOf(of)} again=${of.reload} />
    ${(of.data || of.items.length > 0) && html`<${Table} label=${label} columns=${columns} rows=${of.items}
      rowKey=${rowKey} order=${order} choose=${choose} empty=${empty} rowClass=${rowClass} />`}
    ${(of.more || of.total !== undefined) && html`<p class="quiet">
      ${of.total !== undefined && html`<span>${t("of_total", {shown: of.items.length, n: of.total})}</span> `}
      ${of.more && html`<button type="button" onClick=${of.loadMore}>${t("more")}</button>`}</p>`}
    <${Lag} of=${of} />`;
}

// ---- messages ----------------------------------------------------------------------------------------------------

const bus = new EventTarget();

/** Tell the person something that needs no answer. `kind`: "good" or "bad". */
export function toast(text, kind = "good") {
  bus.dispatchEvent(Object.assign(new Event("toast"), {text, kind}));
}

export function Toasts() {
  const [shown, setShown] = useState([]);
  useEffect(() => {
    let number = 0;
    const add = ({text, kind}) => {
      const one = {text, kind, number: number += 1};
      setShown(before => [...before.slice(-3), one]);
      if (kind === "good") setTimeout(() => setShown(before => before.filter(other => other !== one)), 6_000);
    };
    bus.addEventListener("toast", add);
    return () => bus.removeEventListener("toast", add);
  }, []);
  return html`<div class="toasts" aria-live="polite">${shown.map(one => html`
    <div key=${one.number} class=${cls("toast", one.kind)}>${one.text}
      <button type="button" class="plain" aria-label=${t("close")}
        onClick=${() => setShown(before => before.filter(other => other !== one))}>×</button></div>`)}</div>`;
}

// ---- actions -----------------------------------------------------------------------------------------------------

/** A dialog over the page. `close` is called when it is left, also by Escape. */
export function Dialog({title, close, children, wide}) {
  const dialog = useRef(), own = useId();
  useLayoutEffect(() => {
    const before = document.activeElement;
    dialog.current.showModal();
    return () => before?.isConnected && before.focus();
  }, []);
  return html`<dialog ref=${dialog} aria-labelledby=${own} class=${cls(wide && "wide")} onClose=${close}>
    <header class="head"><h2 id=${own}>${title}</h2>
      <button type="button" class="plain" aria-label=${t("close")} onClick=${close}>×</button></header>
    ${children}</dialog>`;
}

/** Run a change once: `{busy, problem, run}`. `run()` gives true if the change was made. `make` may throw an Error. */
export function useChange(make) {
  const [state, setState] = useState({busy: false, problem: null});
  const run = async (...given) => {
    setState({busy: true, problem: null});
    try {
      await make(...given);
      setState({busy: false, problem: null});
      return true;
    } catch (error) {
      // Another error is from a check of the page itself.
      setState({busy: false, problem: error instanceof Problem ? error : new Problem(400, {detail: error.message})});
      return false;
    }
  };
  return {...state, run, clear: () => setState({busy: false, problem: null})};
}

/**
 * A button that makes a change. `question`: text of a dialog that asks first. `typed`: a name that must be typed there.
 * `told`: what is said after it. `after()` is called then.
 */
export function Action({label, make, question, typed, told, after, danger, disabled}) {
  const [asking, setAsking] = useState(false);
  const [text, setText] = useState("");
  const {busy, problem, run, clear} = useChange(make);
  const go = async () => {
    if (await run()) {
      setAsking(false);
      toast(told ?? t("done"));
      after?.();
    } else if (!question) setAsking(true);
  };
  const close = () => {
    setAsking(false);
    clear();
  };
  const start = () => {
    setText("");
    if (question) setAsking(true);
    else go();
  };
  return html`<button type="button" class=${cls(danger && "danger")} disabled=${disabled || busy} onClick=${start}>
      ${label}</button>
    ${asking && html`<${Dialog} title=${label} close=${close}>
      ${question && html`<p>${question}</p>`}
      ${typed && html`<${Field} label=${typed} value=${text} set=${setText} />`}
      <${ErrorBox} problem=${problem} />
      <footer><button type="button" onClick=${close}>${t("cancel")}</button>
        <button type="button" class=${danger ? "danger" : "primary"} disabled=${busy || (typed && text !== typed)}
          onClick=${go}>${busy ? t("working") : label}</button></footer><//>`}`;
}

/** A form in a dialog or on a page. `make` gets nothing and may throw a Problem, which is shown. */
export function Form({make, label, done, close, children, disabled}) {
  const {busy, problem, run} = useChange(make);
  const submit = async event => {
    event.preventDefault();
    if (await run()) done?.();
  };
  return html`<form onSubmit=${submit}>${children}<${ErrorBox} problem=${problem} />
    <footer>${close && html`<button type="button" onClick=${close}>${t("cancel")}</button>`}
      <button type="submit" class="primary" disabled=${busy || disabled}>${busy ? t("working") : label}</button></footer>
  </form>`;
}

// ---- fields ------------------------------------------------------------------------------------------------------

/** An input with a label. `set` gets its text. `hint` and `fault` stand below it. */
export function Field({label, value, set, hint, fault, type = "text", lines, required, max, list, placeholder, hidden}) {
  const own = useId(), hinted = `${own}h`;
  const more = {
    id: own, value, required, maxlength: max, placeholder, "aria-describedby": hint || fault ? hinted : undefined,
    "aria-invalid": fault ? "true" : undefined, onInput: event => set(event.target.value), spellcheck: false,
  };
  return html`<div class="field"><label for=${own} class=${cls(hidden && "hidden")}>${label}</label>
    ${lines ? html`<textarea ...${more} rows=${lines}></textarea>`
      : html`<input ...${more} type=${type} autocomplete=${type === "password" ? "new-password" : "off"}
          list=${list && `${own}l`} />`}
    ${list && html`<datalist id=${`${own}l`}>${list.map(one => html`<option value=${one} />`)}</datalist>`}
    ${(hint || fault) && html`<div id=${hinted} class=${fault ? "fault" : "quiet"}>${fault || hint}</div>`}</div>`;
}

/** A choice. `options`: values, or pairs of value and text. */
export function Choice({label, value, set, options, hidden, hint, fault}) {
  const own = useId(), hinted = `${own}h`;
  return html`<div class="field"><label for=${own} class=${cls(hidden && "hidden")}>${label}</label>
    <select id=${own} value=${value} onChange=${event => set(event.target.value)}
      aria-describedby=${hint || fault ? hinted : undefined} aria-invalid=${fault ? "true" : undefined}>
      ${options.map(one => Array.isArray(one) ? one : [one, one]).map(([key, text]) => html`
        <option value=${key} selected=${key === value}>${text}</option>`)}</select>
    ${(hint || fault) && html`<div id=${hinted} class=${fault ? "fault" : "quiet"}>${fault || hint}</div>`}</div>`;
}

export function Check({label, value, set}) {
  const own = useId();
  return html`<div class="check"><input type="checkbox" id=${own} checked=${value}
    onChange=${event => set(event.target.checked)} /><label for=${own}>${label}</label></div>`;
}

/** Pairs of name and value. Values that are undefined are left out. */
export function Facts({of}) {
  return html`<dl class="facts">${of.filter(([, value]) => value !== undefined && value !== null && value !== "").map(
    ([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
}

/** A text that can be copied. */
export function Copyable({text}) {
  const code = useRef();
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      toast(t("copied"));
    } catch {
      // Browsers let only pages with https, or of this machine, write to the clipboard.
      getSelection().selectAllChildren(code.current);
      toast(t("not_copied"), "bad");
    }
  };
  return html`<span class="copyable"><code ref=${code}>${text}</code>
    <button type="button" class="plain" onClick=${copy}>${t("copy")}</button></span>`;
}

/** A part of a whole as a bar, with a text that says the same. */
export function Meter({value, max, text}) {
  const part = max > 0 ? Math.min(1, value / max) : 0;
  return html`<span class="meter"><span class="bar" aria-hidden="true">
    <span style=${{width: `${100 * part}%`}}></span></span> <span>${text}</span></span>`;
}
