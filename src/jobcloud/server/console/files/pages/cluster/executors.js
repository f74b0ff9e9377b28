// The columns of tables of executors.
import {html} from "../../core/html.js";
import {number, texts} from "../../core/i18n.js";
import {Ago, State} from "../../core/parts.js";
import {link} from "../../core/router.js";

const t = texts({
  en: {
    agent: "Agent", app: "App", team: "Team", state: "State", tasks: "Running shards", kept: "Kept warm", age: "Started",
    package: "Package", yes: "yes", no: "no", unknown: "unknown",
  },
  zh: {
    agent: "节点", app: "应用", team: "团队", state: "状态", tasks: "运行中的分片", kept: "预热保留", age: "启动",
    package: "程序包", yes: "是", no: "否", unknown: "未知",
  },
});

export const executorColumns = () => [
  {key: "agent", title: t("agent"), sort: "agent", wide: true, cell: one => html`<a
    href=${link`/cluster/${one.agentId}`}>${one.hostname || one.agentId}</a>`},
  {key: "app", title: t("app"), sort: "app", cell: one => html`<a href=${link`/apps/${one.appName}`}>${one.appName}</a>`},
  {key: "team", title: t("team"), sort: "team", cell: one => one.team},
  {key: "state", title: t("state"), sort: "state", cell: one => html`<${State} of=${one.state} />`},
  {key: "tasks", title: t("tasks"), sort: "tasks", number: true, cell: one => number(one.tasks)},
  {key: "kept", title: t("kept"), sort: "kept", cell: one => t(one.kept ? "yes" : "no")},
  {key: "age", title: t("age"), sort: "age", cell: one => html`<${Ago} at=${one.launchedAt} />`},
  {key: "package", title: t("package"), cell: one => one.packageSha256 ? html`<a title=${one.packageSha256}
    href=${link`/packages/${one.packageSha256}`}><code>${one.packageSha256.slice(0, 12)}</code></a>` : t("unknown")},
];

/** What the columns are sorted by. */
export const EXECUTOR_ORDERS = {
  agent: one => one.hostname, app: one => one.appName, team: one => one.team, state: one => one.state,
  tasks: one => one.tasks, kept: one => Number(one.kept), age: one => one.launchedAt ?? "",
};
