// What may be done with a job.
import {can} from "../../core/access.js";
import {change, get, path} from "../../core/api.js";
import {html, useState} from "../../core/html.js";
import {browserZone, texts} from "../../core/i18n.js";
import {Action, Choice, Dialog, Field, Form, Instant, toast} from "../../core/parts.js";
import {link, navigate} from "../../core/router.js";
import {itemsOf} from "../config/fields.js";
import {firstTexts, objectOf, Parameters, parametersOf} from "./parameters.js";

const t = texts({
  en: {
    trigger: "Trigger", pause: "Pause", resume: "Resume", enable: "Enable", disable: "Disable", backfill: "Backfill",
    edit: "Edit", remove: "Delete", copy: "Copy", start: "Start a run", close: "Close",
    cancel_backfill: "Cancel the backfill",
    pause_question: "While {job} is paused, nothing of it starts. Its running shards continue. After the pause, its rule for missed firings decides about the firings of the pause.",
    disable_question: "While {job} is disabled, it neither fires nor can be triggered. Its waiting shards are cancelled now, and its {n} running shards are killed.",
    remove_question: "{job} is removed, and its {n} running shards are ended. Its history stays. Type its name to confirm.",
    cancel_question: "The {n} fire times that wait are forgotten. Runs that have begun continue.",
    paused: "{job} is paused.", resumed: "{job} is resumed.", enabled: "{job} is enabled.",
    disabled: "{job} is disabled.",
    removed: "{job} is deleted.", cancelled: "The backfill is cancelled.",
    parameter: "Parameter of all shards", parameter_hint: "Unchanged: that of the job.", shards: "Shards",
    shards_hint: "Such as 0, 3, 5-7. Empty: all {n}.", items: "Parameters of single shards",
    items_hint: "Such as 0=Berlin,1=Paris, or an object in JSON. Other shards keep their own.", priority: "Priority",
    priority_hint: "Empty: {n}, that of the job.", key: "Idempotency key",
    key_hint: "A second trigger with the same key starts nothing, and answers with the first run.",
    begun: "It has begun these runs of workflows:", started: "The run has been started:", existed: "A run with this key exists; nothing was started:",
    no_shards: "are not numbers or ranges",
    from: "From", until: "Until", until_hint: "Empty: now.", in_zone: "In {zone}.", limit: "At most",
    order: "Order", oldest: "oldest first", newest: "newest first", at_once: "Runs at once",
    at_once_hint: "More than one only if the job's overlap allows it.", dry_run: "Show the fire times",
    times: "{n} fire times have no run:", times_one: "One fire time has no run:",
    no_times: "Every fire time of this range has a run or waits for one.",
    times_more: "More than {n} fire times have no run. The limit leaves out the others.", run_all: "Start {n} runs",
    run_all_one: "Start one run",
    backfilled: "{n} fire times wait for their runs.", backfilled_one: "One fire time waits for its run.",
  },
  zh: {
    trigger: "触发", pause: "暂停", resume: "恢复", enable: "启用", disable: "禁用", backfill: "回填",
    edit: "编辑", remove: "删除", copy: "复制", start: "启动运行", close: "关闭", cancel_backfill: "取消回填",
    pause_question: "{job} 暂停期间不会启动任何分片，运行中的分片继续。恢复后由错过触发的规则决定如何处理暂停期间的触发。",
    disable_question: "{job} 禁用期间不会触发，也不能手动触发。等待中的分片立即取消，{n} 个运行中的分片将被终止。",
    remove_question: "将删除 {job} 并结束其 {n} 个运行中的分片，历史记录保留。请输入名称以确认。",
    cancel_question: "将放弃等待中的 {n} 个触发时间，已开始的运行继续。",
    paused: "{job} 已暂停。", resumed: "{job} 已恢复。", enabled: "{job} 已启用。", disabled: "{job} 已禁用。",
    removed: "{job} 已删除。", cancelled: "回填已取消。",
    parameter: "所有分片的参数", parameter_hint: "不修改则使用作业的参数。", shards: "分片",
    shards_hint: "例如 0, 3, 5-7。留空：全部 {n} 个。", items: "个别分片的参数",
    items_hint: "例如 0=Berlin,1=Paris，或 JSON 对象。其他分片保持不变。", priority: "优先级",
    priority_hint: "留空：作业的优先级 {n}。", key: "幂等键",
    key_hint: "使用相同键再次触发不会启动运行，而是返回第一次的运行。",
    begun: "它开始了以下工作流运行：", started: "运行已启动：", existed: "已有使用此键的运行，未启动新的运行：",
    no_shards: "不是编号或范围",
    from: "从", until: "到", until_hint: "留空：现在。", in_zone: "时区 {zone}。", limit: "最多",
    order: "顺序", oldest: "最早的优先", newest: "最新的优先", at_once: "同时运行数",
    at_once_hint: "仅当作业允许重叠运行时才可大于 1。", dry_run: "显示触发时间",
    times: "{n} 个触发时间没有运行：", times_one: "1 个触发时间没有运行：", no_times: "此范围内的每个触发时间都已有运行或正在等待。",
    times_more: "超过 {n} 个触发时间没有运行，其余因上限被略去。", run_all: "启动 {n} 次运行", run_all_one: "启动 1 次运行",
    backfilled: "{n} 个触发时间等待运行。", backfilled_one: "1 个触发时间等待运行。",
  },
});

const LARGEST = 10_000;

/** Items such as "0, 3, 5-7" as numbers; null if the text is none. */
export function itemsIn(text) {
  const found = [];
  for (const part of text.split(/[\s,，]+/).filter(Boolean)) {
    const [, first, last = first] = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(part) ?? [];
    if (first === undefined || Number(last) < Number(first) || found.length + last - first >= LARGEST) return null;
    for (let item = Number(first); item <= Number(last); item += 1) found.push(item);
  }
  return found;
}

/** The form of a trigger. `workflow`: the job starts a workflow, whose runs begin with whole runs of it only. */
export function TriggerDialog({job, workflow, close}) {
  const own = job.config.jobParameter;
  const [parameter, setParameter] = useState(own);
  const parameters = parametersOf(job.config);
  const [texts, setTexts] = useState(() => firstTexts(job.config));
  const [shards, setShards] = useState("");
  const [items, setItems] = useState("");
  const [priority, setPriority] = useState("");
  const [key, setKey] = useState("");
  const [started, setStarted] = useState(null);
  const chosen = itemsIn(shards);
  const start = async () => {
    const body = {};
    if (parameters) body.jobParameter = objectOf(job.config, texts);
    else if (parameter !== own) body.jobParameter = parameter;
    if (chosen.length) body.shards = chosen;
    if (items.trim()) body.shardingItemParameters = itemsOf(items);
    if (priority.trim()) body.priority = Number.isFinite(Number(priority)) ? Number(priority) : priority;
    if (key) body.key = key;
    const run = await change("POST", path`jobs/${job.jobName}/trigger`, {body});
    setStarted(workflow ? await get(path`runs/${run.id}`).then(one => ({...run, nodes: one.workflowNodes}), () => run) : run);
  };
  if (started) {
    return html`<${Dialog} title=${`${t("trigger")}: ${job.jobName}`} close=${close}>
      <p role="status">${t(started.existed ? "existed" : "started")}
        ${" "}<a href=${link`/runs/${started.id}`}>${started.id}</a></p>
      ${started.nodes?.length > 0 && html`<p>${t("begun")}</p><ul>${started.nodes.map(one => html`<li key=${one.run}>
        <a href=${link`/workflows/runs/${one.run}`}>${one.run}</a></li>`)}</ul>`}
      <footer><button type="button" class="primary" onClick=${close}>${t("close")}</button></footer><//>`;
  }
  return html`<${Dialog} title=${`${t("trigger")}: ${job.jobName}`} close=${close}>
    <${Form} make=${start} label=${t("start")} close=${close} disabled=${chosen === null}>
      ${parameters ? html`<${Parameters} of=${parameters} texts=${texts} set=${setTexts} />`
        : html`<${Field} label=${t("parameter")} value=${parameter} set=${setParameter} hint=${t("parameter_hint")}
            lines=${Math.min(6, Math.max(1, own.split("\n").length))} />`}
      ${!workflow && html`<${Field} label=${t("shards")} value=${shards} set=${setShards}
        fault=${chosen === null && t("no_shards")} hint=${t("shards_hint", {n: job.config.shardingTotalCount})} />`}
      <${Field} label=${t("items")} value=${items} set=${setItems} hint=${t("items_hint")} lines=${1} />
      <${Field} label=${t("priority")} value=${priority} set=${setPriority}
        hint=${t("priority_hint", {n: job.config.priority})} />
      <${Field} label=${t("key")} value=${key} set=${setKey} max=${100} hint=${t("key_hint")} /><//><//>`;
}

function BackfillDialog({job, close, after}) {
  const [given, setGiven] = useState({from: "", to: "", limit: "100", order: "oldest", atOnce: "1"});
  const [found, setFound] = useState(null);
  const set = name => value => {
    setGiven(before => ({...before, [name]: value}));
    setFound(null);  // the fire times are those of other values
  };
  const body = dryRun => ({
    from: given.from && new Date(given.from).toISOString(),
    ...(given.to && {to: new Date(given.to).toISOString()}),
    limit: Number(given.limit), order: given.order, atOnce: Number(given.atOnce), dryRun,
  });
  const ask = dryRun => change("POST", path`jobs/${job.jobName}/backfill`, {body: body(dryRun)});
  const go = async () => {
    if (!found) {
      setFound(await ask(true));
      return;
    }
    const done = await ask(false);
    toast(t("backfilled", {n: done.waiting}));
    after();
    close();
  };
  const n = found?.times.length ?? 0;
  return html`<${Dialog} title=${`${t("backfill")}: ${job.jobName}`} close=${close} wide>
    <${Form} make=${go} close=${close} label=${found ? t("run_all", {n}) : t("dry_run")} disabled=${found && n === 0}>
      <div class="entries">
        <${Field} label=${t("from")} type="datetime-local" value=${given.from} set=${set("from")} required
          hint=${t("in_zone", {zone: browserZone})} />
        <${Field} label=${t("until")} type="datetime-local" value=${given.to} set=${set("to")}
          hint=${t("until_hint")} />
        <${Field} label=${t("limit")} type="number" value=${given.limit} set=${set("limit")} required />
        <${Choice} label=${t("order")} value=${given.order} set=${set("order")}
          options=${["oldest", "newest"].map(code => [code, t(code)])} />
        <${Field} label=${t("at_once")} type="number" value=${given.atOnce} set=${set("atOnce")} required
          hint=${t("at_once_hint")} /></div>
      <div role="status">${found && (n === 0 ? t("no_times") : t(found.more ? "times_more" : "times", {n}))}</div>
      ${n > 0 && html`<ol class="times" tabindex="0">${found.times.map(at => html`
        <li key=${at}><${Instant} at=${at} zone=${job.config.timeZone} /> ${job.config.timeZone}</li>`)}</ol>`}
    <//><//>`;
}

/** The buttons of a job. `reload()` is called after a change. */
export function Actions({job, reload}) {
  const [open, setOpen] = useState("");
  const name = job.jobName, resident = job.config.jobExecutionType === "DAEMON";
  const post = what => () => change("POST", path`jobs/${name}/${what}`);
  const values = {job: name, n: job.activeShards};
  const paused = job.pausedBy.includes("job");
  const close = () => setOpen("");
  const act = (what, told, question) => html`<${Action} key=${what} label=${t(what)} make=${post(what)} after=${reload}
    told=${t(told, values)} question=${question && t(question, values)} />`;
  return html`
    ${can("trigger", job.team) && !resident && html`
      <button type="button" class="primary" onClick=${() => setOpen("trigger")}>${t("trigger")}</button>
      <button type="button" onClick=${() => setOpen("backfill")}>${t("backfill")}</button>`}
    ${can("pause", job.team) && html`
      ${paused ? act("resume", "resumed") : act("pause", "paused", "pause_question")}
      ${job.disabled ? act("enable", "enabled") : act("disable", "disabled", "disable_question")}`}
    ${can("configure", job.team) && html`
      <a class="button" href=${`${link`/jobs/${name}`}?tab=edit`}>${t("edit")}</a>
      <a class="button" href=${`/jobs?new=1&copy=${encodeURIComponent(name)}`}>${t("copy")}</a>
      <${Action} label=${t("remove")} danger make=${() => change("DELETE", path`jobs/${name}`)} typed=${name}
        question=${t("remove_question", values)} told=${t("removed", values)} after=${() => navigate("/jobs")} />`}
    ${open === "trigger" && html`<${TriggerDialog} job=${job} close=${close} />`}
    ${open === "backfill" && html`<${BackfillDialog} job=${job} close=${close} after=${reload} />`}`;
}

/** Cancel the backfill that waits. */
export function CancelBackfill({job, reload}) {
  if (!can("trigger", job.team)) return null;
  return html`<${Action} label=${t("cancel_backfill")} question=${t("cancel_question", {n: job.backfillWaiting})}
    make=${() => change("DELETE", path`jobs/${job.jobName}/backfill`)} told=${t("cancelled")} after=${reload} />`;
}
