// The frame around all pages: navigation, search, the state of the stream, keys, language and colours.
import {can, canSomewhere, me} from "./access.js";
import {html, useEffect, useErrorBoundary, useRef, useState} from "./html.js";
import {durationText, language, LANGUAGES, setLanguage, texts} from "./i18n.js";
import {useNow, useStream} from "./live.js";
import {PAGES} from "./pages.js";
import {Dialog, ErrorBox, Loading, Page, Toasts} from "./parts.js";
import {navigate, useRoute} from "./router.js";

const t = texts({
  en: {
    overview: "Overview", jobs: "Jobs", workflows: "Workflows", runs: "Runs", queue: "Queue", calendars: "Calendars", apps: "Apps", packages: "Packages",
    cluster: "Cluster", executors: "Executors", events: "Events", statistics: "Statistics", alerts: "Alerts",
    teams: "Teams", users: "Users", tokens: "Tokens", secrets: "Secrets", audit: "Audit", account: "Account",
    work: "Work", machines: "Machines", insight: "Insight", access: "Access", search: "Search jobs (press /)",
    skip: "Skip to the content", menu: "Menu", language: "Language", colours: "Colours", auto: "as the system",
    light: "light", dark: "dark", stale: "No connection to the scheduler for {time}. What you see may be old.",
    connecting: "Connecting …", not_found: "There is no such page", keys: "Keys", key_search: "search jobs",
    key_help: "show the keys", key_go: "then a letter: o overview, j jobs, r runs, q queue, c cluster, a alerts",
    broken: "This page cannot be shown", updated: "A part of the console cannot be loaded: the server is away, or the console was updated. Load the page again.", reload: "Load again",
  },
  zh: {
    overview: "概览", jobs: "作业", workflows: "工作流", runs: "运行", queue: "队列", calendars: "日历", apps: "应用", packages: "程序包",
    cluster: "集群", executors: "执行器", events: "事件", statistics: "统计", alerts: "告警",
    teams: "团队", users: "用户", tokens: "令牌", secrets: "密钥", audit: "审计", account: "账户",
    work: "作业管理", machines: "机器", insight: "分析", access: "访问控制", search: "搜索作业（按 /）",
    skip: "跳到正文", menu: "菜单", language: "语言", colours: "配色", auto: "跟随系统",
    light: "浅色", dark: "深色", stale: "与调度器断开连接已 {time}，当前内容可能已过时。",
    connecting: "连接中…", not_found: "没有这个页面", keys: "快捷键", key_search: "搜索作业",
    key_help: "显示快捷键", key_go: "再按一个字母：o 概览，j 作业，r 运行，q 队列，c 集群，a 告警",
    broken: "无法显示此页面", updated: "无法加载控制台的一部分：服务器不可用，或控制台已更新。请重新加载页面。", reload: "重新加载",
  },
});

// Group → pages. `needs` tells whether the person may see anything there.
const MENU = [
  ["work", [["overview"], ["jobs"], ["workflows"], ["runs"], ["queue"], ["calendars"], ["apps"], ["packages"]]],
  ["machines", [["cluster", () => can("view-cluster")], ["executors", () => can("view-cluster")]]],
  ["insight", [["events"], ["statistics"], ["alerts"]]],
  ["access", [["teams"], ["users", () => can("manage-access")], ["tokens"],
    ["secrets", () => canSomewhere("configure")], ["audit", () => can("read-audit")]]],
];
const KEYS = {o: "/", j: "/jobs", r: "/runs", q: "/queue", c: "/cluster", a: "/alerts"};
const THEME = "jobcloud.theme";
const MODULES = new Map();

export function applyTheme() {
  const theme = localStorage.getItem(THEME);
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
}

function Menu({now}) {
  return html`<nav id="menu" aria-label=${t("menu")}>${MENU.map(([group, pages]) => {
    const shown = pages.filter(([, needs]) => !needs || needs());
    return shown.length > 0 && html`<p class="group">${t(group)}</p><ul>${shown.map(([name]) => html`
      <li><a href=${name === "overview" ? "/" : `/${name}`} aria-current=${name === now ? "page" : undefined}>
        ${t(name)}</a></li>`)}</ul>`;
  })}</nav>`;
}

function Stale() {
  const stream = useStream(), now = useNow();
  // A short interruption, such as a change of the leader, needs no warning.
  const away = stream.status === "live" ? 0 : now - stream.since;
  return html`<div class="stale" role="status">${away > 2_000
    && (stream.wasLive ? t("stale", {time: durationText(away)}) : t("connecting"))}</div>`;
}

function Settings() {
  const theme = localStorage.getItem(THEME) ?? "auto";
  const setTheme = event => {
    localStorage.setItem(THEME, event.target.value);
    applyTheme();
  };
  return html`<div class="settings">
    <label><span>${t("language")}</span> <select onChange=${event => setLanguage(event.target.value)}>
      ${Object.entries(LANGUAGES).map(([name, text]) => html`
        <option value=${name} selected=${name === language} lang=${name}>${text}</option>`)}</select></label>
    <label><span>${t("colours")}</span> <select onChange=${setTheme}>${["auto", "light", "dark"].map(name => html`
      <option value=${name} selected=${name === theme}>${t(name)}</option>`)}</select></label>
    <a href="/account">${t("account")}: ${me.subject}</a></div>`;
}

function Search({field}) {
  const [text, setText] = useState("");
  const go = event => {
    event.preventDefault();
    const wanted = text.trim();
    if (wanted) navigate(`/jobs?q=${encodeURIComponent(wanted)}`);
    setText("");
  };
  return html`<form role="search" onSubmit=${go}><input ref=${field} type="search" aria-label=${t("search")}
    placeholder=${t("search")} value=${text} maxlength="100" onInput=${event => setText(event.target.value)} /></form>`;
}

function useKeys(field, help) {
  useEffect(() => {
    let went = 0;
    const pressed = event => {
      const typing = event.target.closest?.("input, textarea, select, dialog");
      if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.timeStamp - went < 1_500 && KEYS[event.key]) navigate(KEYS[event.key]);
      else if (event.key === "/") field.current?.focus();
      else if (event.key === "?") help();
      else if (event.key === "g") {
        went = event.timeStamp;
        return;
      } else return;
      went = 0;
      event.preventDefault();
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, []);
}

function Content({parts, query}) {
  const name = parts[0] ?? "overview";
  const [, draw] = useState(0);
  const [failed, setFailed] = useState("");
  const [error, reset] = useErrorBoundary();
  const load = PAGES[name];
  const found = MODULES.get(name);
  useEffect(() => {
    if (error) reset();
  }, [`${parts.join("/")}?${query}`]);
  useEffect(() => {
    setFailed("");
    if (!load || MODULES.has(name)) return;
    load().then(module => {
      MODULES.set(name, module.default);
      draw(count => count + 1);
    }, () => setFailed(name));
  }, [name]);
  if (error) {
    console.error(error);
    return html`<${Page} title=${t("broken")}><${ErrorBox} problem=${error} /><//>`;
  }
  if (!load) return html`<${Page} title=${t("not_found")}><p><a href="/">${t("overview")}</a></p><//>`;
  if (failed === name) {
    return html`<${Page} title=${t("broken")}><p>${t("updated")}</p>
      <button type="button" onClick=${() => location.reload()}>${t("reload")}</button><//>`;
  }
  if (!found) return html`<${Loading} />`;
  return html`<${found} key=${parts.join("/")} parts=${parts.slice(1)} query=${query} />`;
}

export function Shell() {
  const {parts, query} = useRoute();
  const field = useRef();
  const [help, setHelp] = useState(false);
  const [open, setOpen] = useState(false);
  useKeys(field, () => setHelp(true));
  useEffect(() => setOpen(false), [parts.join("/")]);
  return html`
    <a class="skip" href="#main">${t("skip")}</a>
    <header class="top"><button type="button" class="menu" aria-expanded=${open} aria-controls="menu"
        onClick=${() => setOpen(!open)}>☰ <span class="hidden">${t("menu")}</span></button>
      <a class="brand" href="/">jobcloud</a><${Search} field=${field} /><${Settings} /></header>
    <${Stale} />
    <div class=${open ? "frame open" : "frame"}><${Menu} now=${parts[0] ?? "overview"} />
      <main id="main" tabindex="-1"><${Content} parts=${parts} query=${query} /></main></div>
    <${Toasts} />
    ${help && html`<${Dialog} title=${t("keys")} close=${() => setHelp(false)}><dl class="facts">
      <div><dt><kbd>/</kbd></dt><dd>${t("key_search")}</dd></div>
      <div><dt><kbd>g</kbd></dt><dd>${t("key_go")}</dd></div>
      <div><dt><kbd>?</kbd></dt><dd>${t("key_help")}</dd></div></dl><//>`}`;
}
