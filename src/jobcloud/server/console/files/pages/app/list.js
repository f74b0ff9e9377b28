// The list of apps.
import {canSomewhere} from "../../core/access.js";
import {TextFilter} from "../../core/filters.js";
import {html} from "../../core/html.js";
import {number, texts} from "../../core/i18n.js";
import {usePages} from "../../core/live.js";
import {Listing, Page, State} from "../../core/parts.js";
import {reasonText} from "../../core/reasons.js";
import {link} from "../../core/router.js";

const t = texts({
  en: {
    title: "Apps", name: "Name", state: "State", jobs: "Jobs", warm: "Warm executors", package: "Package", team: "Team",
    add: "New app", empty: "There is no app. Upload a package, then register an app.",
  },
  zh: {
    title: "应用", name: "名称", state: "状态", jobs: "作业", warm: "预热执行器", package: "程序包", team: "团队",
    add: "新建应用", empty: "还没有应用。请先上传程序包，再登记应用。",
  },
});

export const stateOf = app => app.pausedBy.length ? "paused" : app.enabled ? "enabled" : "disabled";

const COLUMNS = [
  {key: "name", title: t("name"), cell: app => html`<a href=${link`/apps/${app.appName}`}>${app.appName}</a>`, wide: true},
  {key: "state", title: t("state"), cell: app => html`<${State} of=${stateOf(app)} />`},
  {key: "jobs", title: t("jobs"), number: true, cell: app => html`<a href=${`/jobs?app=${encodeURIComponent(app.appName)}`}>${number(app.jobs.length)}</a>`},
  {key: "warm", title: t("warm"), cell: app => html`${app.config.executors ? `${number(app.warmExecutors)} / ${app.config.executors}` : ""}
    <span class="quiet">${app.lacking && reasonText(app.lacking)}</span>`},
  {key: "package", title: t("package"), cell: app => html`<code>${app.config.appURL.slice(0, 48)}</code>`, wide: true},
];

export default function AppList({query}) {
  const team = query.get("team") ?? "";
  const apps = usePages("apps", {team}, changes => changes.more || changes.apps.length > 0 || changes.topics.includes("config"));
  return html`<${Page} title=${t("title")}
      actions=${canSomewhere("configure") && html`<a class="button primary" href="/apps?new=1">${t("add")}</a>`}>
    <div class="filters"><${TextFilter} label=${t("team")} name="team" value=${team} /></div>
    <${Listing} of=${apps} label=${t("title")} columns=${COLUMNS} rowKey=${app => app.appName} empty=${t("empty")} /><//>`;
}
