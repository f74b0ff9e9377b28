// The audit log: who did what, when, from where, with what outcome.
import {TextFilter} from "../core/filters.js";
import {html, useState} from "../core/html.js";
import {texts} from "../core/i18n.js";
import {usePages} from "../core/live.js";
import {Choice, Dialog, Facts, Instant, Listing, Page} from "../core/parts.js";
import {setQuery} from "../core/router.js";
import {ChangedFields} from "./audit/changed.js";

const t = texts({
  en: {
    title: "Audit", at: "When", kind: "Entry", subject: "Who", address: "From", action: "What", reason: "Reason", target: "Target", team: "Team",
    outcome: "Outcome", any: "all", request: "Request", since: "Since", until: "Until", details: "Details", show: "Show",
    allowed: "allowed", refused: "refused", failed: "failed",
    kind_start: "start", kind_intent: "intent", kind_outcome: "outcome", kind_request: "request",
    kind_counted: "counted", kind_removed: "removed", succeeded: "succeeded", empty: "No entry matches.", raw: "The whole entry", change: "Change",
  },
  zh: {
    title: "审计", at: "时间", kind: "条目", subject: "主体", address: "来源", action: "操作", reason: "原因", target: "对象", team: "团队",
    outcome: "结果", any: "全部", request: "请求", since: "从", until: "到", details: "详情", show: "查看",
    allowed: "允许", refused: "拒绝", failed: "失败",
    kind_start: "启动", kind_intent: "执行前", kind_outcome: "执行后", kind_request: "请求",
    kind_counted: "计数", kind_removed: "已清理", succeeded: "成功", empty: "没有匹配的条目。", raw: "完整条目", change: "变更",
  },
});

const OUTCOMES = ["allowed", "refused", "failed", "succeeded"];
const FILTERS = ["actor", "target", "team", "request", "since", "until"];
const LABELS = {actor: "subject"};

const actionOf = entry => [entry.method, entry.route].filter(Boolean).join(" ");

function Entry({entry, close}) {
  return html`<${Dialog} title=${t("details")} close=${close} wide>
    <${Facts} of=${[[t("at"), html`<${Instant} at=${entry.at} />`], [t("subject"), entry.subject], [t("address"), entry.client],
      [t("action"), actionOf(entry)], [t("reason"), entry.reason], [t("target"), entry.target], [t("team"), entry.team], [t("request"), entry.request]]} />
    ${(entry.changes ?? []).map(one => html`<h3>${t("change")}: ${one.command} ${one.key}</h3>
      <${ChangedFields} label=${t("change")} before=${one.before} after=${one.after} />`)}
    <h3>${t("raw")}</h3><pre class="log">${JSON.stringify(entry, null, 2)}</pre><//>`;
}

export default function Audit({query}) {
  const filters = Object.fromEntries([...FILTERS, "outcome"].map(name => [name, query.get(name) ?? ""]));
  const entries = usePages("audit", filters, changes => changes.more);
  const [open, setOpen] = useState(null);
  const set = name => value => setQuery({[name]: value}, {replace: true});
  const columns = [
    {key: "at", title: t("at"), cell: one => html`<${Instant} at=${one.at} />`},
    {key: "kind", title: t("kind"), cell: one => t.has(`kind_${one.kind}`) ? t(`kind_${one.kind}`) : one.kind},
    {key: "subject", title: t("subject"), cell: one => one.subject},
    {key: "action", title: t("action"), cell: one => html`<code>${actionOf(one)}</code>`, wide: true},
    {key: "target", title: t("target"), cell: one => one.target},
    {key: "outcome", title: t("outcome"), cell: one => OUTCOMES.includes(one.outcome) ? t(one.outcome) : one.outcome},
    {key: "address", title: t("address"), cell: one => one.client},
    {key: "show", title: t("details"), cell: one => html`<button type="button" onClick=${() => setOpen(one)}>${t("show")}</button>`},
  ];
  return html`<${Page} title=${t("title")}>
    <div class="filters">${FILTERS.map(name => html`<${TextFilter} label=${t(LABELS[name] ?? name)} name=${name}
      value=${filters[name]} max="500" placeholder=${name === "since" || name === "until" ? "2026-12-01T00:00:00Z" : ""} />`)}
      <${Choice} label=${t("outcome")} value=${filters.outcome} set=${set("outcome")}
        options=${[["", t("any")], ...OUTCOMES.map(one => [one, t(one)])]} /></div>
    <${Listing} of=${entries} label=${t("title")} columns=${columns} empty=${t("empty")}
      rowKey=${one => `${one.chain} ${one.seq}`} />
    ${open && html`<${Entry} entry=${open} close=${() => setOpen(null)} />`}<//>`;
}
