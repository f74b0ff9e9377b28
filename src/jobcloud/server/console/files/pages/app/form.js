// The form of an app's configuration: a new app, or a change of one.
import {can, me} from "../../core/access.js";
import {all, change, getTagged, path} from "../../core/api.js";
import {html, useRef} from "../../core/html.js";
import {texts} from "../../core/i18n.js";
import {useLoaded} from "../../core/live.js";
import {Loaded, Page} from "../../core/parts.js";
import {link, navigate} from "../../core/router.js";
import {loadFields} from "../config/fields.js";
import {Editor} from "../config/form.js";
import {APP} from "./kind.js";

const t = texts({
  en: {apps: "Apps", new_app: "New app", create: "Create the app", edit: "Edit"},
  zh: {apps: "应用", new_app: "新建应用", create: "创建应用", edit: "编辑"},
});

const MOST_PACKAGES = 100;

/** The teams of the person, and the packages that are stored. */
function useLists() {
  const packages = useLoaded("packages", () => all("packages", {}, MOST_PACKAGES), () => false).data ?? [];
  return {
    team: me.teams.map(one => one.team).filter(team => team !== "*" && can("configure", team)),
    appURL: packages.map(one => one.appURL),
  };
}

async function present(key) {
  const [app, tag] = await getTagged(path`apps/${key}`);
  return {key: app.appName, base: app.config, tag};
}

/** Change an app. The form keeps what it began with, so that a change by somebody else is noticed. */
export function EditApp({name}) {
  const start = useLoaded(name, async () => [await loadFields(APP), await present(name)], () => false);
  const first = useRef(null);
  first.current ??= start.data;
  const back = () => navigate(link`/apps/${name}`);
  const above = html`<a href="/apps">${t("apps")}</a> › <a href=${link`/apps/${name}`}>${name}</a>`;
  return html`<${Page} title=${`${t("edit")}: ${name}`} above=${above}>
    <${Loaded} of=${{...start, data: first.current}}>${([fields, found]) => html`<${Editor} kind=${APP} fields=${fields}
      start=${found} reload=${() => present(name)} useLists=${useLists} done=${back} close=${back}
      save=${(body, tag) => change("PUT", path`apps/${found.key}`, {body, tag})} />`}<//><//>`;
}

const FIRST = {appName: "", appURL: "", cpuCount: 0.1, memoryMB: 64};

export function NewApp() {
  const start = useLoaded("fields", () => loadFields(APP), () => false);
  const team = me.teams.find(one => one.team !== "*" && can("configure", one.team))?.team ?? "default";
  return html`<${Page} title=${t("new_app")} above=${html`<a href="/apps">${t("apps")}</a>`}>
    <${Loaded} of=${start}>${fields => html`<${Editor} kind=${APP} fields=${fields} start=${{base: {...FIRST, team}}}
      useLists=${useLists} label=${t("create")} save=${body => change("POST", "apps", {body})}
      done=${name => navigate(link`/apps/${name}`)} close=${() => navigate("/apps")} />`}<//><//>`;
}
