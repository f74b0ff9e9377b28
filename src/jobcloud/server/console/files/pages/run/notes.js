// Notes that people write on a run.
import {can} from "../../core/access.js";
import {change, path} from "../../core/api.js";
import {html, useState} from "../../core/html.js";
import {texts} from "../../core/i18n.js";
import {useGet} from "../../core/live.js";
import {Empty, Field, Form, Instant, Loaded, problemText, Section} from "../../core/parts.js";

const t = texts({
  en: {
    title: "Notes", none: "Nobody has written a note on this run.", text: "New note", add: "Add the note",
    nobody: "somebody",
  },
  zh: {
    title: "备注", none: "此运行还没有备注。", text: "新备注", add: "添加备注",
    nobody: "未知用户",
  },
});
const LONGEST = 2_000;

export function Notes({run}) {
  const notes = useGet(path`runs/${run.id}/notes`, {limit: 100}, () => false);
  const [text, setText] = useState("");
  if (notes.problem?.status === 503 && !notes.data) {
    return html`<${Section} title=${t("title")}><${Empty}>${problemText(notes.problem)}<//><//>`;
  }
  const add = () => change("POST", path`runs/${run.id}/notes`, {body: {text}});
  const added = () => {
    setText("");
    notes.reload();
  };
  return html`<${Section} title=${t("title")}>
    <${Loaded} of=${notes}>${found => found.items.length ? html`<ul class="notes">${found.items.map(note => html`
      <li key=${note.number}><p class="quiet">${note.by || t("nobody")} · <${Instant} at=${note.at} /></p>
        <p class="text">${note.text}</p></li>`)}</ul>` : html`<${Empty}>${t("none")}<//>`}<//>
    ${can("control-runs", run.team) && html`<${Form} make=${add} label=${t("add")} done=${added}
      disabled=${!text.trim()}><${Field} label=${t("text")} value=${text} set=${setText} lines=${3}
      max=${LONGEST} /><//>`}<//>`;
}
