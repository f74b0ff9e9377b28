// One app: configuration, versions, roll-out, actions.
import {can} from "../../core/access.js";
import {change, getTagged, path} from "../../core/api.js";
import {html, useState} from "../../core/html.js";
import {number, texts} from "../../core/i18n.js";
import {useGet, useLoaded, usePages} from "../../core/live.js";
import {Action, Ago, Dialog, Facts, Form, Listing, Loaded, Page, Section, State, Table} from "../../core/parts.js";
import {reasonText} from "../../core/reasons.js";
import {link, navigate} from "../../core/router.js";
import {word} from "../../core/words.js";
import {Diff} from "../config/diff.js";
import {differences, loadFields} from "../config/fields.js";
import {Configuration} from "../config/table.js";
import {APP} from "./kind.js";
import {stateOf} from "./list.js";

const t = texts({
  en: {
    title: "Apps", state: "State", jobs: "Jobs", warm: "Warm executors", package: "Package", team: "Team",
    actions: "Actions", config: "Configuration", edit: "Edit",
    pause: "Pause", resume: "Resume", enable: "Enable", disable: "Disable", pause_question: "Nothing of {name} starts while it is paused. What runs continues.",
    disable_question: "The jobs of {name} do not fire while it is disabled.", remove: "Remove", remove_question: "Remove {name} with its {n} jobs. What runs is ended.",
    remove_question_one: "Remove {name} with its job. What runs is ended.",
    rollout: "Roll-out", done: "done", rolling: "rolling", stopped: "stopped", running: "Current", outdated: "Outdated", why: "Why",
    versions: "Versions", version: "Version", registered: "Registered", by: "by {by}", current: "in use", executors: "Executors",
    roll_back: "Roll back to it", roll_back_question: "Update {name} to version {version}: its package and its configuration.",
    no_difference: "This version is equal to the present one.",
  },
  zh: {
    title: "应用", state: "状态", jobs: "作业", warm: "预热执行器", package: "程序包", team: "团队",
    actions: "操作", config: "配置", edit: "编辑",
    pause: "暂停", resume: "恢复", enable: "启用", disable: "禁用", pause_question: "暂停期间 {name} 不会启动任何新任务，运行中的任务继续。",
    disable_question: "禁用期间 {name} 的作业不会触发。", remove: "删除", remove_question: "删除 {name} 及其 {n} 个作业。运行中的任务会被终止。",
    remove_question_one: "删除 {name} 及其作业。运行中的任务会被终止。",
    rollout: "发布", done: "已完成", rolling: "进行中", stopped: "已停止", running: "当前版本", outdated: "旧版本", why: "原因",
    versions: "版本", version: "版本", registered: "登记时间", by: "由 {by} 登记", current: "使用中", executors: "执行器",
    roll_back: "回滚到此版本", roll_back_question: "将 {name} 更新为版本 {version}：程序包和配置。",
    no_difference: "此版本与当前版本相同。",
  },
});

const ofApp = key => changes => changes.more || changes.apps.includes(key) || changes.topics.includes("config");

/** The fields that a configuration would change. */
function Differences({before, after}) {
  const fields = useLoaded("fields", () => loadFields(APP), () => false);
  return html`<${Loaded} of=${fields}>${known => {
    const changes = differences(known, before, after);
    return changes.length ? html`<${Diff} of=${changes} />` : html`<p class="quiet">${t("no_difference")}</p>`;
  }}<//>`;
}

function Versions({name, config, tag, mayChange, reload}) {
  const versions = usePages(path`apps/${name}/versions`, {}, ofApp(name));
  const [chosen, setChosen] = useState(null);
  const columns = [
    {key: "number", title: t("version"), number: true, cell: one => one.number},
    {key: "registered", title: t("registered"), cell: one => html`<${Ago} at=${one.registeredAt} />
      ${one.registeredBy && html` <span class="quiet">${t("by", {by: one.registeredBy})}</span>`}`},
    {key: "package", title: t("package"), cell: one => html`<code>${one.packageSha256.slice(0, 16)}</code>`, wide: true},
    {key: "executors", title: t("executors"), number: true, cell: one => number(one.executors)},
    {key: "actions", title: t("actions"), sticky: true, cell: one => one.current ? html`<${State} of="current" text=${t("current")} />`
      : mayChange && html`<button type="button" onClick=${() => setChosen({...one, now: config, tag})}>${t("roll_back")}</button>`},
  ];
  const after = () => {
    setChosen(null);
    reload();
    versions.reload();
  };
  return html`<${Section} title=${t("versions")}>
    <${Listing} of=${versions} label=${t("versions")} columns=${columns} rowKey=${one => one.number} />
    ${chosen && html`<${Dialog} title=${t("roll_back")} close=${() => setChosen(null)} wide>
      <${Form} label=${t("roll_back")} close=${() => setChosen(null)} done=${after}
        make=${() => change("POST", path`apps/${name}/rollback`, {query: {version: chosen.number}, tag: chosen.tag})}>
        <p>${t("roll_back_question", {name, version: String(chosen.number)})}</p>
        <${Differences} before=${chosen.now} after=${chosen.config} /><//><//>`}<//>`;
}

const ROLLOUT = [
  {key: "job", title: t("jobs"), cell: one => html`<a href=${link`/jobs/${one.jobName}`}>${one.jobName}</a>`, wide: true},
  {key: "running", title: t("running"), number: true, cell: one => `${number(one.running)} / ${number(one.shards)}`},
  {key: "outdated", title: t("outdated"), number: true, cell: one => number(one.outdated)},
  {key: "why", title: t("why"), cell: one => one.because && reasonText(one.because), wide: true},
];

function Rollout({name}) {
  const rollout = useGet(path`apps/${name}/rollout`, {}, ofApp(name));
  return html`<${Section} title=${t("rollout")}><${Loaded} of=${rollout}>${found => html`
    <p><${State} of=${{done: "ok", rolling: "RUNNING", stopped: "FAILED"}[found.state]} text=${t(found.state)} />
      ${found.lacking && html` ${reasonText(found.lacking)}`}</p>
    ${found.jobs.length > 0 && html`<${Table} label=${t("rollout")} columns=${ROLLOUT} rows=${found.jobs} rowKey=${one => one.jobName} />`}`}<//><//>`;
}

export default function AppPage({name, query}) {
  const app = useLoaded(name, async () => {
    const [found, tag] = await getTagged(path`apps/${name}`);
    return {...found, tag};
  }, ofApp(name));
  const post = verb => () => change("POST", path`apps/${name}/${verb}`);
  const found = app.data;
  const team = found?.team ?? "";
  const actions = found && html`
    ${can("pause", team) && html`
      ${found.pausedBy.includes("app") ? html`<${Action} label=${t("resume")} make=${post("resume")} after=${app.reload} />`
        : html`<${Action} label=${t("pause")} make=${post("pause")} question=${t("pause_question", {name})} after=${app.reload} />`}
      ${found.enabled ? html`<${Action} label=${t("disable")} make=${post("disable")} question=${t("disable_question", {name})} after=${app.reload} />`
        : html`<${Action} label=${t("enable")} make=${post("enable")} after=${app.reload} />`}`}
    ${can("configure", team) && html`<a class="button" href=${`${link`/apps/${name}`}?tab=edit`}>${t("edit")}</a>
      <${Action} label=${t("remove")} danger typed=${name} question=${t("remove_question", {name, n: found.jobs.length})}
        make=${() => change("DELETE", path`apps/${name}`, {query: {jobs: "true"}, tag: found.tag})} after=${() => navigate("/apps")} />`}`;
  return html`<${Page} title=${name} above=${html`<a href="/apps">${t("title")}</a>`} actions=${actions}>
    <${Loaded} of=${app}>${shown => html`
      <${Facts} of=${[
        [t("state"), html`<${State} of=${stateOf(shown)} /> ${shown.pausedBy.map(word).join(", ")}`], [t("team"), shown.team],
        [t("jobs"), html`<a href=${`/jobs?app=${encodeURIComponent(name)}`}>${number(shown.jobs.length)}</a>`],
        [t("warm"), number(shown.warmExecutors) + (shown.config.executors ? ` / ${shown.config.executors}` : "")],
      ]} />
      <${Rollout} name=${name} />
      <${Section} title=${t("config")}><${Configuration} kind=${APP} config=${shown.config} query=${query} /><//>
      <${Versions} name=${name} config=${shown.config} tag=${shown.tag} mayChange=${can("configure", shown.team)} reload=${app.reload} />`}<//><//>`;
}
