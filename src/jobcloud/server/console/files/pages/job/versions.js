// The configurations that a job has had: their differences, and the way back to one of them.
import {can} from "../../core/access.js";
import {change, getTagged, path} from "../../core/api.js";
import {html, useState} from "../../core/html.js";
import {texts} from "../../core/i18n.js";
import {useLoaded, usePages} from "../../core/live.js";
import {
  Ago, Choice, Dialog, Empty, ErrorBox, Instant, Listing, Loaded, Section, toast, useChange,
} from "../../core/parts.js";
import {setQuery} from "../../core/router.js";
import {keepsNoHistory} from "../../core/series.js";
import {Diff} from "../config/diff.js";
import {differences, loadFields} from "../config/fields.js";
import {JOB} from "./kind.js";

const t = texts({
  en: {
    title: "History of configurations", at: "Changed", by: "By", changes: "Changed fields",
    first: "the first one that is kept",
    removed: "removed", large: "too large to be kept", same: "none", revert: "Revert to this one", present: "present",
    none: "No configuration is kept yet.",
    no_history: "This scheduler keeps no history: its setting history.url is empty.",
    compare: "Compare", action: "Action", older: "Earlier", newer: "Later",
    revert_title: "Revert {job} to its configuration of {time}",
    question: "The job gets this configuration. Its history shows that as a further change.", cancel: "Cancel",
    reverted: "{job} has its earlier configuration again.", equal: "The job has this configuration now.",
    overtaken: "Somebody else has just changed the job. Close this and look at the differences again.",
    before: "Now", after: "After the revert",
  },
  zh: {
    title: "配置历史", at: "更改时间", by: "更改者", changes: "更改的字段", first: "保留的最早配置",
    removed: "已删除", large: "过大，未保留", same: "无", revert: "恢复到此配置", present: "当前",
    none: "尚未保留任何配置。", no_history: "此调度器不保留历史：设置 history.url 为空。",
    compare: "比较", action: "操作", older: "较早", newer: "较晚", revert_title: "将 {job} 恢复到 {time} 的配置",
    question: "作业将采用此配置，历史中会显示为一次新的更改。", cancel: "取消",
    reverted: "{job} 已恢复到较早的配置。", equal: "作业目前就是此配置。",
    overtaken: "其他人刚刚修改了此作业。请关闭后重新查看差异。",
    before: "当前", after: "恢复后",
  },
});

function Revert({fields, job, version, close, after}) {
  const present = useLoaded(`present ${job.jobName}`, () => getTagged(path`jobs/${job.jobName}`), () => false);
  const {busy, problem, run} = useChange(async () => {
    const [, tag] = present.data;
    await change("PUT", path`jobs/${job.jobName}`, {body: version.config, tag});
    toast(t("reverted", {job: job.jobName}));
    close();
    after();
  });
  return html`<${Dialog} title=${t("revert_title", {job: job.jobName, time: version.at})} close=${close} wide>
    <${Loaded} of=${present}>${([now]) => {
      const changes = differences(fields, now.config, version.config);
      return html`${changes.length ? html`<${Diff} of=${changes} before=${t("before")} after=${t("after")} />
          <p>${t("question")}</p>` : html`<p>${t("equal")}</p>`}
        ${problem?.status === 412 ? html`<p class="error" role="alert">${t("overtaken")}</p>`
          : html`<${ErrorBox} problem=${problem} />`}
        <footer><button type="button" onClick=${close}>${t("cancel")}</button>
          <button type="button" class="primary" disabled=${busy || !changes.length} onClick=${run}>
            ${t("revert")}</button></footer>`;
    }}<//><//>`;
}

function Compare({fields, versions, query}) {
  const kept = versions.filter(one => one.config);
  if (kept.length < 2) return null;
  const find = (name, fallback) => kept.find(one => one.at === query.get(name)) ?? fallback;
  const later = find("later", kept[0]), earlier = find("earlier", kept[1]);
  const options = kept.map(one => [one.at, `${one.at.slice(0, 19).replace("T", " ")} UTC · ${one.by}`]);
  return html`<${Section} title=${t("compare")}>
    <div class="filters">
      <${Choice} label=${t("older")} value=${earlier.at} options=${options} set=${at => setQuery({earlier: at})} />
      <${Choice} label=${t("newer")} value=${later.at} options=${options} set=${at => setQuery({later: at})} /></div>
    <${Diff} of=${differences(fields, earlier.config, later.config)} /><//>`;
}

export function Versions({job, query, concerns, reload}) {
  const fields = useLoaded("fields", () => loadFields(JOB), () => false);
  const versions = usePages("history/configurations", {job: job.jobName}, concerns, 50);
  const [chosen, setChosen] = useState(null);
  if (keepsNoHistory(versions.problem) && !versions.items.length) return html`<${Empty}>${t("no_history")}<//>`;
  const after = () => {
    versions.reload();
    reload();
  };
  return html`<${Loaded} of=${fields}>${known => {
    const before = new Map(versions.items.map((one, index) => [one, versions.items[index + 1]]));
    const changed = version => {
      if (version.removed) return t("removed");
      if (!version.config) return t("large");
      const last = before.get(version);
      if (!last?.config) return last || versions.more ? "" : t("first");
      return differences(known, last.config, version.config).map(one => one.field?.name ?? one.path).join(", ") || t("same");
    };
    const columns = [
      {
        key: "at", title: t("at"),
        cell: one => html`<${Instant} at=${one.at} /> <span class="quiet">(<${Ago} at=${one.at} />)</span>`,
      },
      {key: "by", title: t("by"), cell: one => one.by},
      {key: "changes", title: t("changes"), wide: true, cell: changed},
      {key: "act", title: t("action"), sticky: true, cell: one => one.revision === job.revision && !one.removed
        ? html`<span class="quiet">${t("present")}</span>` : one.config && can("configure", job.team)
          && html`<button type="button" onClick=${() => setChosen(one)}>${t("revert")}</button>`},
    ];
    return html`<${Section} title=${t("title")}>
        <${Listing} of=${versions} label=${t("title")} columns=${columns}
          rowKey=${one => `${one.at} ${one.revision} ${one.removed}`}
          empty=${t("none")} /><//>
      <${Compare} fields=${known} versions=${versions.items} query=${query} />
      ${chosen && html`<${Revert} fields=${known} job=${job} version=${chosen} close=${() => setChosen(null)}
        after=${after} />`}`;
  }}<//>`;
}
