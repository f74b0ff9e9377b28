// Which jobs refer to which secrets. Values are never shown: the API has none.
import {all} from "../core/api.js";
import {html} from "../core/html.js";
import {texts} from "../core/i18n.js";
import {useLoaded} from "../core/live.js";
import {Listing, Page} from "../core/parts.js";
import {link} from "../core/router.js";

const t = texts({
  en: {
    title: "Secrets", team: "Team", name: "Secret", jobs: "Jobs", as: "As",
    about: "Jobs refer to secrets by name. The scheduler's own sources (files, environment, Vault) have the values, and no page shows them. The job's configuration names its secrets; register a value at the source.",
    empty: "No job refers to a secret.",
  },
  zh: {
    title: "密钥", team: "团队", name: "密钥", jobs: "作业", as: "用作",
    about: "作业按名称引用密钥。值只保存在调度器的来源（文件、环境变量、Vault）中，任何页面都不会显示。作业的配置列出其密钥；请在来源中登记值。",
    empty: "没有作业引用密钥。",
  },
});

/** Secret → the jobs that get it. An entry of a job is `NAME=secret:SECRET` or `FILE=secret-file:SECRET`. */
function used(jobs) {
  const found = new Map();
  for (const job of jobs) {
    for (const entry of job.config.secrets ?? []) {
      const [, as, name] = /^(.*?)=secret(?:-file)?:(.*)$/.exec(entry) ?? [null, entry, entry];
      const key = `${job.team}/${name}`;
      if (!found.has(key)) found.set(key, {key, team: job.team, name, jobs: []});
      found.get(key).jobs.push({key: job.jobName, as});
    }
  }
  return [...found.values()].sort((one, other) => one.key < other.key ? -1 : 1);
}

const COLUMNS = [
  {key: "team", title: t("team"), cell: one => one.team},
  {key: "name", title: t("name"), cell: one => html`<code>${one.name}</code>`, wide: true},
  {key: "jobs", title: t("jobs"), wide: true, cell: one => html`<ul class="plain">${one.jobs.map(job => html`
    <li><a href=${link`/jobs/${job.key}`}>${job.key}</a> <span class="quiet">${t("as")} <code>${job.as}</code></span></li>`)}</ul>`},
];

export default function Secrets() {
  const jobs = useLoaded("secrets", async () => used(await all("jobs")), () => false);
  return html`<${Page} title=${t("title")}><p class="quiet">${t("about")}</p>
    <${Listing} of=${{...jobs, items: jobs.data ?? []}} label=${t("title")} columns=${COLUMNS} rowKey=${one => one.key}
      empty=${t("empty")} /><//>`;
}
