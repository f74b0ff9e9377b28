// The filter by a job, an app or a team. The API takes one of them at a time.
import {html, useEffect, useState} from "../../core/html.js";
import {texts} from "../../core/i18n.js";
import {Choice, Field} from "../../core/parts.js";
import {setQuery} from "../../core/router.js";

const t = texts({
  en: {of: "Of", everything: "everything", job: "a job", app: "an app", team: "a team", name: "Name", show: "Show"},
  zh: {of: "对象", everything: "全部", job: "作业", app: "应用", team: "团队", name: "名称", show: "显示"},
});

const KINDS = ["job", "app", "team"];
const only = (kind, value) => Object.fromEntries(KINDS.map(name => [name, name === kind ? value : ""]));

export function Filter({kind, value}) {
  const [now, setNow] = useState(kind ?? ""), [name, setName] = useState(value);
  useEffect(() => {
    setNow(kind ?? "");
    setName(value);
  }, [kind, value]);
  const choose = next => {
    setNow(next);
    setName("");
    if (!next) setQuery(only("", ""));
  };
  const submit = event => {
    event.preventDefault();
    setQuery(only(now, name.trim()));
  };
  return html`<form class="filters" onSubmit=${submit}>
    <${Choice} label=${t("of")} value=${now} set=${choose}
      options=${[["", t("everything")], ...KINDS.map(one => [one, t(one)])]} />
    ${now && html`<${Field} label=${t("name")} value=${name} set=${setName} max=${130} required=${true} />
      <button type="submit">${t("show")}</button>`}</form>`;
}
