// The fields in which two objects of the API differ, as a table.
import {html} from "../../core/html.js";
import {texts} from "../../core/i18n.js";
import {Table} from "../../core/parts.js";

const t = texts({
  en: {field: "Field", before: "Before", after: "After"},
  zh: {field: "字段", before: "之前", after: "之后"},
});

const COLUMNS = [
  {key: "field", title: t("field"), cell: one => html`<code>${one.name}</code>`},
  {key: "before", title: t("before"), cell: one => html`<del>${one.before}</del>`, wide: true},
  {key: "after", title: t("after"), cell: one => html`<ins>${one.after}</ins>`, wide: true},
];

function differences(before, after) {
  const names = [...new Set([...Object.keys(before ?? {}), ...Object.keys(after ?? {})])].sort();
  const text = value => value === undefined ? "" : JSON.stringify(value);
  return names.map(name => ({name, before: text(before?.[name]), after: text(after?.[name])}))
    .filter(one => one.before !== one.after);
}

/** `before` or `after` may be missing: the object is new, or was removed. `empty`: the text if nothing differs. */
export function ChangedFields({label, before, after, empty}) {
  return html`<${Table} label=${label} columns=${COLUMNS} rows=${differences(before, after)} rowKey=${one => one.name}
    empty=${empty} />`;
}
