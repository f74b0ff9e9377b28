// The form of a job's configuration: a new job, or a change of one.
import {can, me} from "../../core/access.js";
import {all, change, get, getTagged, path} from "../../core/api.js";
import {html, useRef, useState} from "../../core/html.js";
import {texts} from "../../core/i18n.js";
import {useLoaded} from "../../core/live.js";
import {Check, Loaded, Page} from "../../core/parts.js";
import {link, navigate} from "../../core/router.js";
import {loadFields} from "../config/fields.js";
import {Editor} from "../config/form.js";
import {Firings, scheduleOf, useFirings, Words} from "./cron.js";
import {JOB} from "./kind.js";

const t = texts({
  en: {
    new_job: "New job", create: "Create the job", jobs: "Jobs", enabled: "It fires as soon as it is created",
  },
  zh: {
    new_job: "新建作业", create: "创建作业", jobs: "作业", enabled: "创建后立即开始触发",
  },
});

const zones = () => Intl.supportedValuesOf?.("timeZone") ?? [];

/** The apps that the person may give jobs to, their teams, and the time zones. */
function useLists(config) {
  const found = useLoaded("apps", () => all("apps", {}, 1_000), () => false).data ?? [];
  const apps = found.filter(app => can("configure", app.team));
  return {
    team: [...new Set([...apps.map(app => app.team), ...me.teams.map(one => one.team)])]
      .filter(team => team !== "*" && can("configure", team)),
    appName: apps.filter(app => app.team === (config.team ?? "default")).map(app => app.appName.split(":").pop()),
    timeZone: zones(),
  };
}

/** The fields of the schedule, with its next firings. */
function Schedule({config, members, entry}) {
  const firings = useFirings(scheduleOf(config));
  const wrong = firings.problem?.status === 422 ? firings.problem.errors[0]?.problem ?? firings.problem.message : "";
  return html`<div class="columns schedule"><div>${members.map(one => entry(one, one.path === "cron" ? wrong : ""))}</div>
    <div aria-live="polite"><p><strong><${Words} of=${firings} /></strong></p>
      ${!wrong && html`<${Firings} of=${firings} />`}</div></div>`;
}

const KIND = {...JOB, Group: {times: Schedule}};

async function present(key) {
  const [job, tag] = await getTagged(path`jobs/${key}`);
  return {key: job.jobName, base: job.config, tag};
}

/** Change a job. The form keeps what it began with, so that a change by somebody else is noticed. */
export function EditJob({name}) {
  const start = useLoaded(name, async () => [await loadFields(KIND), await present(name)], () => false);
  const first = useRef(null);
  first.current ??= start.data;
  const back = () => navigate(`${link`/jobs/${name}`}?tab=configuration`);
  return html`<${Loaded} of=${{...start, data: first.current}}>${([fields, found]) => html`<${Editor} kind=${KIND}
    fields=${fields} start=${found} reload=${() => present(name)} useLists=${useLists} done=${back} close=${back}
    save=${(body, tag) => change("PUT", path`jobs/${found.key}`, {body, tag})} />`}<//>`;
}

const FIRST = {
  jobType: "SIMPLE", jobExecutionType: "TRANSIENT", cron: "0 0 * * * ?", shardingTotalCount: 1, cpuCount: 0.5,
  memoryMB: 128,
};

/** A new job, also as a copy of another one. */
export function NewJob({query}) {
  const copied = query.get("copy") ?? "", app = query.get("app") ?? "";
  const [enabled, setEnabled] = useState(true);
  const start = useLoaded(`${copied} ${app}`, async () => {
    const fields = await loadFields(KIND);
    if (copied) {
      const {config} = await get(path`jobs/${copied}`);
      return [fields, {base: {...config, jobName: ""}}];
    }
    const [name, team = me.teams.find(one => one.team !== "*" && can("configure", one.team))?.team ?? "default"]
      = app.split(":").reverse();
    return [fields, {base: {...FIRST, jobName: "", team, appName: name}}];
  }, () => false);
  return html`<${Page} title=${t("new_job")} above=${html`<a href="/jobs">${t("jobs")}</a>`}>
    <${Loaded} of=${start}>${([fields, found]) => html`<${Editor} key=${`${copied} ${app}`} kind=${KIND} fields=${fields}
      start=${found} useLists=${useLists} label=${t("create")} close=${() => navigate("/jobs")}
      save=${body => change("POST", "jobs", {query: {enabled: String(enabled)}, body})}
      done=${name => navigate(link`/jobs/${name}`)}>
        <${Check} label=${t("enabled")} value=${enabled} set=${setEnabled} /><//>`}<//><//>`;
}
