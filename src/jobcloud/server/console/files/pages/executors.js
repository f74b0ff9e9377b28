// The executors of all apps.
import {all} from "../core/api.js";
import {html, useState} from "../core/html.js";
import {texts} from "../core/i18n.js";
import {useLoaded} from "../core/live.js";
import {Choice, Field, Loaded, Page, Table} from "../core/parts.js";
import {setQuery} from "../core/router.js";
import {word} from "../core/words.js";
import {EXECUTOR_ORDERS, executorColumns} from "./cluster/executors.js";

const t = texts({
  en: {
    title: "Executors", team: "Team", app: "App", agent: "Agent", state: "State", every: "all", kept: "Kept warm",
    yes: "yes", no: "no", none: "No executor matches the filters.", nothing: "No executor runs.", more: "Show {n} more",
    of_total: "{shown} of {n}",
  },
  zh: {
    title: "执行器", team: "团队", app: "应用", agent: "节点", state: "状态", every: "全部", kept: "预热保留",
    yes: "是", no: "否", none: "没有符合条件的执行器。", nothing: "没有运行中的执行器。", more: "再显示 {n} 个",
    of_total: "{shown} / {n}",
  },
});

const STATES = ["current", "outdated", "gone"], FILTERS = ["team", "app", "agent", "state", "kept"];
const SHOWN = 200;

/** Whether an executor is one of those that the filters ask for. */
function matches(one, wanted) {
  return (!wanted.team || one.team === wanted.team) && (!wanted.app || one.appName.includes(wanted.app))
    && (!wanted.agent || one.hostname.includes(wanted.agent) || one.agentId === wanted.agent)
    && (!wanted.state || one.state === wanted.state) && (!wanted.kept || one.kept === (wanted.kept === "yes"));
}

function sorted(rows, order) {
  const key = EXECUTOR_ORDERS[order.replace(/^-/, "")];
  if (!key) return rows;
  const sign = order.startsWith("-") ? -1 : 1;
  const compare = (one, other) => typeof one === "number" ? one - other
    : one.localeCompare(other, undefined, {numeric: true});
  return [...rows].sort((one, other) => sign * compare(key(one), key(other)));
}

export default function Executors({query}) {
  const [shown, setShown] = useState(SHOWN);
  const wanted = Object.fromEntries(FILTERS.map(name => [name, query.get(name) ?? ""]));
  const order = query.get("sort") ?? "app";
  const executors = useLoaded("executors", () => all("executors"), changes => changes.more
    || changes.agents.length > 0 || changes.apps.length > 0);
  const names = key => [...new Set((executors.data ?? []).map(one => one[key]))].sort();
  const text = (name, list) => html`<${Field} label=${t(name)} value=${wanted[name]} list=${list} max=${200}
    set=${value => setQuery({[name]: value}, {replace: true})} />`;
  const choice = (name, options) => html`<${Choice} label=${t(name)} value=${wanted[name]}
    options=${[["", t("every")], ...options]} set=${value => setQuery({[name]: value})} />`;
  return html`<${Page} title=${t("title")}>
    <div class="filters">${choice("team", names("team"))}${text("app", names("appName"))}
      ${text("agent", names("hostname").slice(0, SHOWN))}${choice("state", STATES.map(one => [one, word(one)]))}
      ${choice("kept", ["yes", "no"].map(one => [one, t(one)]))}</div>
    <${Loaded} of=${executors}>${found => {
      const rows = sorted(found.filter(one => matches(one, wanted)), order);
      return html`<${Table} label=${t("title")} columns=${executorColumns()} rows=${rows.slice(0, shown)}
          rowKey=${one => `${one.agentId} ${one.id}`} order=${order} choose=${sort => setQuery({sort})}
          empty=${t(found.length ? "none" : "nothing")} />
        ${rows.length > 0 && html`<p class="quiet">${t("of_total", {shown: Math.min(shown, rows.length), n: rows.length})}
          ${rows.length > shown && html` <button type="button" onClick=${() => setShown(shown + SHOWN)}>
            ${t("more", {n: Math.min(SHOWN, rows.length - shown)})}</button>`}</p>`}`;
    }}<//><//>`;
}
