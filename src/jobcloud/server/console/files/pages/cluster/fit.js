// Would a job fit? The choice of the job; its own page answers in the same way.
import {get} from "../../core/api.js";
import {html, useEffect, useState} from "../../core/html.js";
import {texts} from "../../core/i18n.js";
import {Field, Section} from "../../core/parts.js";
import {setQuery} from "../../core/router.js";
import {Fit as Answer} from "../job/fit.js";

const t = texts({
  en: {title: "Would a job fit?", job: "Job", ask: "Compute"},
  zh: {title: "作业放得下吗？", job: "作业", ask: "计算"},
});

const SUGGESTED = 500;

export function Fit({query}) {
  const asked = query.get("fit") ?? "";
  const [job, setJob] = useState(asked), [known, setKnown] = useState([]);
  useEffect(() => setJob(asked), [asked]);
  const suggest = async () => {
    if (known.length) return;
    // The names only help to type, so a refusal needs no message.
    const found = await get("jobs", {limit: SUGGESTED, brief: true}).catch(() => ({items: []}));
    setKnown(found.items.map(one => one.jobName));
  };
  const submit = event => {
    event.preventDefault();
    setQuery({fit: job.trim(), shards: ""});
  };
  return html`<${Section} title=${t("title")}>
    <form class="filters" onSubmit=${submit} onFocusIn=${suggest}>
      <${Field} label=${t("job")} value=${job} set=${setJob} list=${known} max=${130} required=${true} />
      <button type="submit" class="primary">${t("ask")}</button></form>
    ${asked && html`<${Answer} key=${asked} job=${{jobName: asked}} query=${query} />`}<//>`;
}
