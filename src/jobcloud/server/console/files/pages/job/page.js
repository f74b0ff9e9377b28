// One job.
import {path} from "../../core/api.js";
import {html} from "../../core/html.js";
import {durationText, number, texts} from "../../core/i18n.js";
import {useGet} from "../../core/live.js";
import {Ago, Facts, Instant, Loaded, Page, Section, State} from "../../core/parts.js";
import {link} from "../../core/router.js";
import {sentence} from "../../core/sentences.js";
import {word} from "../../core/words.js";
import {Configuration} from "../config/table.js";
import {Actions, CancelBackfill} from "./actions.js";
import {Firings, firesAfterRuns, scheduleOf, useFirings, Words} from "./cron.js";
import {Fit} from "./fit.js";
import {EditJob} from "./form.js";
import {Grid, useRuns} from "./grid.js";
import {JOB} from "./kind.js";
import {Later} from "./later.js";
import {Reasons} from "./reasons.js";
import {Versions} from "./versions.js";

const t = texts({
  en: {
    jobs: "Jobs", tabs: "Parts of this page", runs: "Runs", configuration: "Configuration", versions: "History",
    fit: "Would it fit?", edit: "Edit", app: "App", kind: "Kind", schedule: "Schedule",
    next: "Next firing", last: "Last run",
    shards: "Shards", shards_now: "({active} running, {waiting} waiting)", dead: "Dead runs",
    skipped: "Skipped firings",
    outdated: "Outdated shards", backfill: "Backfill", backfill_waiting: "{n} fire times wait ",
    backfill_waiting_one: "One fire time waits ", behind: "Waiting runs",
    behind_text: "{n} firings wait for the end of this one",
    behind_text_one: "One firing waits for the end of this one", owner: "Labels", all_runs: "All runs",
    took: "took {time}",
    paused_by_job: "paused", paused_by_app: "paused with its app", paused_by_cluster: "everything is paused",
    app_disabled: "its app is disabled", firings: "Next firings", none: "none",
    after_run: "known when its run has ended", grid: "Runs and shards",
    trend: "Durations",
    not_firing: "It does not fire now. These are the fire times of its schedule.", description: "Description",
    workflows: "Part of workflows", nodes: "(node {nodes})", all_workflows: "all {n}",
    webhook: "Webhook", signed: "signed by {scheme}",
  },
  zh: {
    jobs: "作业", tabs: "页面的各部分", runs: "运行", configuration: "配置", versions: "历史",
    fit: "能否容纳？", edit: "编辑", app: "应用", kind: "种类", schedule: "调度", next: "下次触发", last: "上次运行",
    shards: "分片", shards_now: "（{active} 个运行中，{waiting} 个等待中）", dead: "已放弃的运行", skipped: "跳过的触发",
    outdated: "旧版本分片", backfill: "回填", backfill_waiting: "{n} 个触发时间等待中 ",
    backfill_waiting_one: "1 个触发时间等待中 ", behind: "等待的运行", behind_text: "{n} 个触发等待本次运行结束",
    behind_text_one: "1 个触发等待本次运行结束", owner: "标签", all_runs: "全部运行", took: "耗时 {time}",
    paused_by_job: "已暂停", paused_by_app: "随应用暂停", paused_by_cluster: "全部已暂停",
    app_disabled: "应用已禁用", firings: "接下来的触发", none: "无", grid: "运行与分片", trend: "耗时",
    after_run: "运行结束后确定",
    not_firing: "目前不会触发。以下是其调度的触发时间。", description: "描述",
    workflows: "所属工作流", nodes: "（节点 {nodes}）", all_workflows: "全部 {n} 个",
    webhook: "Webhook", signed: "签名方式 {scheme}",
  },
});

const TABS = ["runs", "configuration", "versions", "fit"];
const TREND = () => import("./trend.js");

function Last({run}) {
  if (!run) return t("none");
  const took = run.endedAt && durationText(Date.parse(run.endedAt) - Date.parse(run.firedAt));
  return html`<a href=${link`/runs/${run.id}`}><${State} of=${run.state} /></a> <${Ago} at=${run.firedAt} />
    ${took && html` <span class="quiet">${t("took", {time: took})}</span>`}`;
}

function States({job}) {
  const appDisabled = !job.enabled && !job.disabled;
  return html`<p class="states"><${State} of=${job.disabled || appDisabled ? "disabled" : "enabled"}
      text=${appDisabled ? t("app_disabled") : undefined} />
    ${job.pausedBy.map(by => html` <${State} key=${by} of="paused" text=${t(`paused_by_${by}`)} />`)}
    ${job.activeShards > 0 && html` <${State} of="ACTIVE" text=${`${job.activeShards} ${word("ACTIVE")}`} />`}
    ${job.waitingShards > 0 && html` <${State} of="WAITING" text=${`${job.waitingShards} ${word("WAITING")}`} />`}</p>`;
}

// A job is a node of a few workflows; the list of workflows has all of them.
const WORKFLOWS = 5;

function PartOf({job, of}) {
  const name = job.split(":").pop();
  return html`<ul class="plain">${of.items.map(one => html`<li key=${one.workflow}>
      <a href=${link`/workflows/${one.workflow}`}>${one.workflow}</a> <span class="quiet">
      ${t("nodes", {nodes: one.nodes.filter(node => node.job === name).map(node => node.name).join(", ")})}</span></li>`)}
    ${of.nextCursor && html`<li><a href=${`/workflows?job=${encodeURIComponent(job)}`}>
      ${t("all_workflows", {n: of.total})}</a></li>`}</ul>`;
}

const webhookUrl = name => `${location.origin}/api/v1/${path`hooks/${name}`}`;
const whySkipped = ({skippedReason, skippedWords}) => sentence(skippedReason, skippedWords?.code, skippedWords?.parameters);

function Head({job, explanation, firings, reload}) {
  const {config} = job, behind = explanation.data?.behind ?? 0;
  const workflows = useGet("workflows", {job: job.jobName, limit: WORKFLOWS}, changes => changes.more).data;
  const now = {active: job.activeShards, waiting: job.waitingShards};
  const runs = state => `/runs?job=${encodeURIComponent(job.jobName)}${state ? `&state=${state}` : ""}`;
  return html`<${States} job=${job} />
    <${Loaded} of=${explanation}>${found => html`<div aria-live="polite">
      <${Reasons} of=${found.reasons} job=${job.jobName} /></div>`}<//>
    <${Facts} of=${[
      [t("app"), html`<a href=${link`/apps/${job.appName}`}>${job.appName}</a>`],
      [t("kind"), `${word(config.jobExecutionType)}, ${config.jobType}`],
      [t("schedule"), html`<${Words} of=${firings} /> <code class="quiet nowrap">${config.cron}</code>`],
      [t("next"), job.nextFiring ? html`<${Ago} at=${job.nextFiring} />
        ${" "}<span class="quiet"><${Instant} at=${job.nextFiring} zone=${config.timeZone} /> ${config.timeZone}</span>`
        : t(job.enabled && firesAfterRuns(config) ? "after_run" : "none")],
      [t("last"), html`<${Last} run=${job.lastRun} />`],
      [t("shards"), html`${number(config.shardingTotalCount)} <span class="quiet">${t("shards_now", now)}</span>`],
      [t("behind"), behind > 0 && html`<a href=${runs("WAITING")}>${t("behind_text", {n: behind})}</a>`],
      [t("dead"), job.deadRuns > 0 && html`<a href=${runs("DEAD")}>${job.deadRuns}</a>`],
      [t("outdated"), job.outdatedShards || ""],
      [t("skipped"), job.skippedFirings > 0
        && html`${number(job.skippedFirings)} <span class="quiet">${whySkipped(job)}</span>`],
      [t("backfill"), job.backfillWaiting > 0 && html`${t("backfill_waiting", {n: job.backfillWaiting})}
        <${CancelBackfill} job=${job} reload=${reload} />`],
      [t("workflows"), workflows?.items.length > 0 && html`<${PartOf} job=${job.jobName} of=${workflows} />`],
      [t("webhook"), config.webhookSecrets?.length > 0 && html`<code>${webhookUrl(job.jobName)}</code>
        ${" "}<span class="quiet">${t("signed", {scheme: config.webhookScheme})}</span>`],
      [t("owner"), config.labels], [t("description"), config.description],
    ].filter(([, value]) => value !== false)} />`;
}

function RunsTab({job, firings, query, concerns}) {
  const runs = useRuns(job.jobName, concerns), zone = job.config.timeZone;
  const resident = job.config.jobExecutionType === "DAEMON";
  const all = html`<a href=${`/runs?job=${encodeURIComponent(job.jobName)}`}>${t("all_runs")}</a>`;
  return html`<${Section} title=${t("grid")} actions=${all}>
      <${Grid} of=${runs} zone=${zone} query=${query} /><//>
    <div class="columns">
      ${!resident && html`<${Section} title=${t("trend")}>
        <${Later} load=${TREND} job=${job.jobName} zone=${zone} concerns=${concerns} /><//>`}
      <${Section} title=${t("firings")}>${!job.nextFiring
        && !(job.enabled && firesAfterRuns(job.config)) && html`<p class="quiet">${t("not_firing")}</p>`}
        <${Firings} of=${firings} /><//></div>`;
}

function Tabs({name, now}) {
  return html`<nav class="tabs" aria-label=${t("tabs")}>${TABS.map(tab => html`
    <a key=${tab} href=${tab === TABS[0] ? link`/jobs/${name}` : `${link`/jobs/${name}`}?tab=${tab}`}
      aria-current=${tab === now ? "page" : undefined}>${t(tab)}</a>`)}</nav>`;
}

function Content({job, query, reload, concerns}) {
  const tab = TABS.includes(query.get("tab")) ? query.get("tab") : TABS[0];
  const explanation = useGet(path`jobs/${job.jobName}/explain`, {}, concerns, {prompt: true});
  const firings = useFirings(scheduleOf(job.config));
  const again = () => {
    reload();
    explanation.reload();
  };
  return html`<${Head} job=${job} explanation=${explanation} firings=${firings} reload=${again} />
    <${Tabs} name=${job.jobName} now=${tab} />
    ${tab === "runs" && html`<${RunsTab} job=${job} firings=${firings} query=${query} concerns=${concerns} />`}
    ${tab === "configuration" && html`<${Configuration} kind=${JOB} config=${job.config} query=${query} />`}
    ${tab === "versions" && html`<${Versions} job=${job} query=${query} concerns=${concerns} reload=${again} />`}
    ${tab === "fit" && html`<${Fit} job=${job} query=${query} />`}`;
}

export default function JobPage({name, query}) {
  const job = useGet(path`jobs/${name}`, {}, changes => changes.more || changes.jobs.includes(job.data?.jobName ?? name)
    || changes.apps.includes(job.data?.appName), {prompt: true});
  const concerns = changes => changes.more || changes.jobs.includes(job.data?.jobName ?? name);
  const trail = html`<a href="/jobs">${t("jobs")}</a>`;
  if (query.get("tab") === "edit") {
    const above = html`${trail} › <a href=${link`/jobs/${name}`}>${name}</a>`;
    return html`<${Page} key="edit" title=${`${t("edit")}: ${name}`} above=${above}>
      <${EditJob} name=${name} /><//>`;
  }
  return html`<${Page} key="show" title=${name} above=${trail}
    actions=${job.data && html`<${Actions} job=${job.data} reload=${job.reload} />`}>
    <${Loaded} of=${job}>${found => html`<${Content} job=${found} query=${query} reload=${job.reload}
      concerns=${concerns} />`}<//><//>`;
}
