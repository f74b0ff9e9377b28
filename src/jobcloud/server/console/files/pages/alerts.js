// Alerts: what is wrong now, who is told, and what is silenced.
import {can, canSomewhere} from "../core/access.js";
import {change, path} from "../core/api.js";
import {TextFilter} from "../core/filters.js";
import {html, useRef, useState} from "../core/html.js";
import {durationText, number, texts} from "../core/i18n.js";
import {usePages} from "../core/live.js";
import {Action, Ago, Choice, Dialog, Field, Form, Instant, Listing, Page, Section, State, Table} from "../core/parts.js";
import {link, setQuery} from "../core/router.js";
import {sentence} from "../core/sentences.js";
import {word} from "../core/words.js";

const t = texts({
  en: {
    title: "Alerts", condition: "Condition", subject: "About", team: "Team", owner: "Owner", since: "Since", count: "Times",
    text: "What happened", told: "Told", untold: "not yet: {names}", silenced: "silenced", open: "open",
    any: "all", empty: "Nothing is wrong.", channels: "Channels", name: "Name", kind: "Kind", gets: "Gets", everything: "all alerts",
    problem: "Problem", test: "Send a test", tested: "The channel took the test.", refused: "The channel did not take it: {problem}",
    no_channel: "No channel is configured, so no alert opens. Name a file of channels in the setting alerts.channels_file.",
    silences: "Silences", silence: "Silence alerts", until: "Until", comment: "Reason", end: "End now", length: "For",
    subject_hint: "A job or an agent, with * for any part. Empty: all.", owner_hint: "The label owner, with * for any part. Empty: all.",
    team_hint: "Empty: all teams; this needs the right in the whole installation.", no_silence: "Nothing is silenced.",
    rules: "Rules", field: "Set by", rule_run_dead: "a shard has used up its attempts", rule_run_failed: "a run has failed",
    rule_late: "a run has not ended within its time", rule_missed: "a firing was missed", rule_skipped: "firings were skipped",
    rule_no_success: "the job has not succeeded for this long",
    rule_expected: "no run of the day has succeeded by this time", rule_rollout_stopped: "a roll-out has stopped",
    rule_agent_lost: "an agent is lost", rule_clock: "the clock of the scheduler is wrong", rule_store: "the store refuses writes",
    rule_workflow_failed: "a run of a workflow has failed",
    rule_workflow_late: "a run of a workflow, or a node, has not ended within its deadline",
    always: "always on", of_job: "the job's field {field}",
  },
  zh: {
    title: "告警", condition: "条件", subject: "对象", team: "团队", owner: "负责人", since: "开始", count: "次数",
    text: "内容", told: "已通知", untold: "尚未通知：{names}", silenced: "已静默", open: "未解决",
    any: "全部", empty: "一切正常。", channels: "通知渠道", name: "名称", kind: "类型", gets: "接收", everything: "全部告警",
    problem: "问题", test: "发送测试", tested: "渠道已接收测试消息。", refused: "渠道未接收：{problem}",
    no_channel: "没有配置通知渠道，因此不会产生告警。请在设置 alerts.channels_file 中指定渠道文件。",
    silences: "静默", silence: "静默告警", until: "直到", comment: "原因", end: "立即结束", length: "时长",
    subject_hint: "作业或节点，可用 * 通配。留空：全部。", owner_hint: "标签 owner，可用 * 通配。留空：全部。",
    team_hint: "留空：所有团队，需要整个系统的权限。", no_silence: "没有静默。",
    rules: "规则", field: "由何设置", rule_run_dead: "分片用完了全部尝试次数", rule_run_failed: "运行失败",
    rule_late: "运行未在规定时间内结束", rule_missed: "错过了一次触发", rule_skipped: "跳过了触发",
    rule_no_success: "作业在此时长内没有成功", rule_expected: "当天到此时间仍没有成功的运行", rule_rollout_stopped: "发布已停止",
    rule_agent_lost: "节点丢失", rule_clock: "调度器的时钟不准", rule_store: "存储拒绝写入",
    rule_workflow_failed: "工作流的运行失败", rule_workflow_late: "工作流的运行或节点未在期限内结束",
    always: "始终开启", of_job: "作业字段 {field}",
  },
});

const CONDITIONS = ["run_dead", "run_failed", "late", "missed", "skipped", "no_success", "expected", "rollout_stopped", "workflow_failed",
  "workflow_late", "agent_lost", "clock", "store"];
const FIELDS = {late: "lateAfterSeconds", no_success: "noSuccessSeconds", expected: "expectedBy"};
const OF_AGENTS = new Set(["agent_lost", "clock", "store"]);
const OF_WORKFLOWS = new Set(["workflow_failed", "workflow_late"]);
const LENGTHS = [900, 3_600, 14_400, 86_400, 604_800].map(s => [String(s), durationText(s * 1_000)]);

function subjectOf(alert) {
  if (OF_WORKFLOWS.has(alert.condition) && alert.subject) {
    return html`<a href=${alert.runId ? link`/workflow-runs/${alert.runId}` : link`/workflows/${alert.subject}`}>${alert.subject}</a>`;
  }
  if (alert.runId) return html`<a href=${link`/runs/${alert.runId}`}>${alert.subject || alert.runId}</a>`;
  if (!alert.subject) return null;
  return OF_AGENTS.has(alert.condition) ? html`<a href="/cluster">${alert.subject}</a>`
    : html`<a href=${link`/jobs/${alert.subject}`}>${alert.subject}</a>`;
}

const COLUMNS = [
  {key: "condition", title: t("condition"), cell: one => html`<${State} of=${one.state === "open" ? "FAILED" : "disabled"}
    text=${word(one.condition)} />${one.silenced && html` <span class="quiet">${t("silenced")}</span>`}`},
  {key: "subject", title: t("subject"), cell: subjectOf},
  {key: "owner", title: t("owner"), cell: one => one.owner},
  {key: "since", title: t("since"), cell: one => html`<${Ago} at=${one.openedAt} />`},
  {key: "count", title: t("count"), number: true, cell: one => number(one.count)},
  {key: "text", title: t("text"), cell: one => sentence(one.text, one.code, one.parameters), wide: true},
  {key: "told", title: t("told"), cell: one => html`${one.channels.filter(name => !one.untold.includes(name)).join(", ")}
    ${one.untold.length > 0 && html` <span class="quiet">${t("untold", {names: one.untold.join(", ")})}</span>`}`},
];

function TestChannel({name}) {
  const [answer, setAnswer] = useState("");
  const make = async () => {
    const found = await change("POST", path`alerts/channels/${name}/test`);
    setAnswer(found.problem ? t("refused", found) : t("tested"));
  };
  return html`<${Action} label=${t("test")} make=${make} /> ${answer && html`<span role="status">${answer}</span>`}`;
}

function Channels({of}) {
  const columns = [
    {key: "name", title: t("name"), cell: one => one.name},
    {key: "kind", title: t("kind"), cell: one => one.kind},
    {key: "gets", title: t("gets"), wide: true, cell: one => [
      one.conditions.map(word).join(", "), one.teams.join(", "), one.owners.join(", "),
    ].filter(Boolean).join("; ") || t("everything")},
    {key: "problem", title: t("problem"), cell: one => one.problem && html`${one.problem} <${Ago} at=${one.nextAttempt} />`},
    ...(can("operate-cluster") ? [{key: "test", title: t("test"), sticky: true, cell: one => html`<${TestChannel} name=${one.name} />`}] : []),
  ];
  return html`<${Section} title=${t("channels")}><${Table} label=${t("channels")} columns=${columns} rows=${of}
    rowKey=${one => one.name} empty=${t("no_channel")} /><//>`;
}

function NewSilence({close, after}) {
  const [condition, setCondition] = useState("");
  const [subject, setSubject] = useState("");
  const [team, setTeam] = useState("");
  const [owner, setOwner] = useState("");
  const [comment, setComment] = useState("");
  const [length, setLength] = useState("3600");
  const make = async () => {
    const body = {forSeconds: Number(length), subject, team, owner, comment};
    await change("POST", "silences", {body: condition ? {...body, condition} : body});
    after();
  };
  return html`<${Dialog} title=${t("silence")} close=${close}><${Form} make=${make} label=${t("silence")} close=${close}>
    <${Choice} label=${t("condition")} value=${condition} set=${setCondition}
      options=${[["", t("any")], ...CONDITIONS.map(one => [one, word(one)])]} />
    <${Field} label=${t("subject")} value=${subject} set=${setSubject} hint=${t("subject_hint")} max="300" />
    <${Field} label=${t("team")} value=${team} set=${setTeam} hint=${t("team_hint")} max="100" />
    <${Field} label=${t("owner")} value=${owner} set=${setOwner} hint=${t("owner_hint")} max="100" />
    <${Choice} label=${t("length")} value=${length} set=${setLength} options=${LENGTHS} />
    <${Field} label=${t("comment")} value=${comment} set=${setComment} max="300" /><//><//>`;
}

function Silences() {
  const silences = usePages("silences", {});
  const [open, setOpen] = useState(false);
  const columns = [
    {key: "condition", title: t("condition"), cell: one => one.condition ? word(one.condition) : t("any")},
    {key: "subject", title: t("subject"), cell: one => one.subject || t("any")},
    {key: "team", title: t("team"), cell: one => one.team || t("any")},
    {key: "owner", title: t("owner"), cell: one => one.owner || t("any")},
    {key: "until", title: t("until"), cell: one => html`<${Instant} at=${one.until} />`},
    {key: "comment", title: t("comment"), cell: one => one.comment, wide: true},
    {key: "end", title: t("end"), sticky: true, cell: one => can("pause", one.team || "*") && html`<${Action} label=${t("end")}
      make=${() => change("DELETE", path`silences/${one.id}`)} after=${silences.reload} />`},
  ];
  const after = () => {
    setOpen(false);
    silences.reload();
  };
  return html`<${Section} title=${t("silences")} actions=${canSomewhere("pause") && html`<button type="button"
      onClick=${() => setOpen(true)}>${t("silence")}</button>`}>
    <${Listing} of=${silences} label=${t("silences")} columns=${columns} rowKey=${one => one.id} empty=${t("no_silence")} />
    ${open && html`<${NewSilence} close=${() => setOpen(false)} after=${after} />`}<//>`;
}

const RULES = [
  {key: "condition", title: t("condition"), cell: one => word(one)},
  {key: "text", title: t("text"), cell: one => t(`rule_${one}`), wide: true},
  {key: "field", title: t("field"), cell: one => FIELDS[one] ? t("of_job", {field: FIELDS[one]}) : t("always")},
];

export default function Alerts({query}) {
  const filters = {condition: query.get("condition") ?? "", team: query.get("team") ?? "", owner: query.get("owner") ?? ""};
  const alerts = usePages("alerts", filters);
  // While other alerts are loaded, the channels stay.
  const channels = useRef(null);
  channels.current = alerts.data?.channels ?? channels.current;
  const set = name => value => setQuery({[name]: value}, {replace: true});
  return html`<${Page} title=${t("title")}>
    <div class="filters">
      <${Choice} label=${t("condition")} value=${filters.condition} set=${set("condition")}
        options=${[["", t("any")], ...CONDITIONS.map(one => [one, word(one)])]} />
      <${TextFilter} label=${t("team")} name="team" value=${filters.team} />
      <${TextFilter} label=${t("owner")} name="owner" value=${filters.owner} /></div>
    <${Listing} of=${alerts} label=${t("title")} columns=${COLUMNS} empty=${t("empty")}
      rowKey=${one => `${one.condition} ${one.subject} ${one.openedAt}`} />
    ${channels.current && html`<${Channels} of=${channels.current} />`}
    <${Silences} />
    <${Section} title=${t("rules")}><${Table} label=${t("rules")} columns=${RULES} rows=${CONDITIONS} rowKey=${one => one} /><//><//>`;
}
