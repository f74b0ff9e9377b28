// The differences between two configurations.
import {html} from "../../core/html.js";
import {texts} from "../../core/i18n.js";
import {FieldName, Value} from "./fields.js";

const t = texts({
  en: {title: "Changed fields", field: "Field", before: "Before", after: "After", same: "Both are equal."},
  zh: {title: "已更改的字段", field: "字段", before: "之前", after: "之后", same: "两者相同。"},
});

/** `of`: the result of `differences`. `before` and `after` may name the two sides. */
export function Diff({of, before, after}) {
  if (!of.length) return html`<p class="quiet">${t("same")}</p>`;
  return html`<div class="scroll" role="group" aria-label=${t("title")} tabindex="0"><table class="diff">
    <thead><tr><th scope="col">${t("field")}</th><th scope="col">${before ?? t("before")}</th>
      <th scope="col">${after ?? t("after")}</th></tr></thead>
    <tbody>${of.map(one => html`<tr key=${one.path}><th scope="row">${one.field ? html`<${FieldName} field=${one.field} />`
        : html`<code>${one.path}</code>`}</th>
      <td class="before"><${Value} path=${one.path} value=${one.before} /></td>
      <td class="after"><${Value} path=${one.path} value=${one.after} /></td></tr>`)}</tbody></table></div>`;
}
