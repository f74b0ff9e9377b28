// The registered jobs by type, and what runs now.
import {get} from "../../core/api.js";
import {html} from "../../core/html.js";
import {number, texts} from "../../core/i18n.js";
import {useGet, useLoaded, useStream} from "../../core/live.js";
import {Facts, Loaded, Meter, Section} from "../../core/parts.js";
import {word} from "../../core/words.js";

const t = texts({
  en: {
    title: "Jobs now", registered: "Registered", enabled: "Enabled", running: "Running shards", runs: "Unfinished runs",
    types: "By type", executions: "By execution", one: "{n} of {total}", partial: "Of the first {n} jobs.",
  },
  zh: {
    title: "当前作业", registered: "已注册", enabled: "已启用", running: "运行中的分片", runs: "未结束的运行",
    types: "按类型", executions: "按执行方式", one: "{n} / {total}", partial: "仅统计前 {n} 个作业。",
  },
});

// A configuration is some kilobytes long, so not all of 10,000 jobs are read for two numbers.
const LIMIT = 1_000;

async function kinds(signal) {
  const {items, nextCursor} = await get("jobs", {limit: LIMIT}, {signal});
  const types = new Map(), executions = new Map();
  const count = (found, name) => found.set(name, (found.get(name) ?? 0) + 1);
  for (const {config} of items) {
    count(types, config.jobType);
    count(executions, config.jobExecutionType);
  }
  return {types, executions, total: items.length, partial: Boolean(nextCursor)};
}

function Kinds({title, of, total}) {
  return html`<h3>${title}</h3><${Facts} of=${[...of].sort(([, one], [, other]) => other - one).map(([name, n]) => [
    word(name), html`<${Meter} value=${n} max=${total} text=${t("one", {n, total})} />`])} />`;
}

export function Present() {
  const stream = useStream();
  const loaded = useGet("overview", {}, changes => changes.more || changes.topics.includes("config"));
  const found = useLoaded("kinds of jobs", kinds, changes => changes.more || changes.topics.includes("config"));
  return html`<${Section} title=${t("title")}><${Loaded} of=${loaded}>${first => {
    const {jobs, shards, runs} = (stream.status === "live" && stream.numbers) || first;
    return html`<${Facts} of=${[
      [t("registered"), html`<a href="/jobs">${number(jobs.registered)}</a>`],
      [t("enabled"), html`<a href="/jobs?state=enabled">${number(jobs.enabled)}</a>`],
      [t("running"), html`<a href="/runs?state=ACTIVE">${number(shards.running)}</a>`],
      [t("runs"), number(runs.unfinished)],
    ]} />`;
  }}<//>
  <${Loaded} of=${found}>${({types, executions, total, partial}) => total > 0 && html`
    <${Kinds} title=${t("types")} of=${types} total=${total} />
    <${Kinds} title=${t("executions")} of=${executions} total=${total} />
    ${partial && html`<p class="quiet">${t("partial", {n: total})}</p>`}`}<//><//>`;
}
