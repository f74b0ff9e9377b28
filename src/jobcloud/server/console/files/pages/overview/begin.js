// How to begin, while there is no job.
import {html} from "../../core/html.js";
import {texts} from "../../core/i18n.js";
import {Copyable, Section} from "../../core/parts.js";

const t = texts({
  en: {
    title: "There is no job yet", intro: "Three commands run the first one:",
    init: "writes an app with a job", add: "packs, uploads and registers the app and its jobs",
    run: "runs the job now", more: "The files docs/cli.md and docs/job-configuration.md describe the rest.",
  },
  zh: {
    title: "还没有作业", intro: "三条命令即可运行第一个作业：",
    init: "生成一个带作业的应用", add: "打包、上传并注册应用及其作业",
    run: "立即运行该作业", more: "其余内容见 docs/cli.md 和 docs/job-configuration.md。",
  },
});

const COMMANDS = [
  ["init", "jobcloud app init hello"], ["add", "jobcloud app add hello"], ["run", "jobcloud job trigger hello"],
];

export function Begin() {
  return html`<${Section} title=${t("title")}><p>${t("intro")}</p>
    <ol class="steps">${COMMANDS.map(([name, command]) => html`<li key=${name}><${Copyable} text=${command} />
      <span class="quiet">${t(name)}</span></li>`)}</ol>
    <p class="quiet">${t("more")}</p><//>`;
}
