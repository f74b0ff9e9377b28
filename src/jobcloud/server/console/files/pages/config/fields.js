// The fields of a configuration, from the schema that the server publishes. A field of a nested object has the path
// OBJECT.FIELD. A kind of configurations says what the schema does not: names, groups, and which fields belong together.
import {get} from "../../core/api.js";
import {html} from "../../core/html.js";
import {language, number, texts} from "../../core/i18n.js";
import {External} from "../../core/router.js";

const t = texts({
  en: {is_on: "yes", is_off: "no", empty: "empty", none: "none"},
  zh: {is_on: "是", is_off: "否", empty: "空", none: "无"},
});

/** The words for values without a text of their own. */
export const valueWord = t;

let asked = null;

/** The fields of a kind of configurations. The server's description is loaded once. */
export async function loadFields(kind) {
  asked ??= get("openapi.json");
  try {
    return fieldsOf(kind, (await asked).components.schemas);
  } catch (problem) {
    asked = null;
    throw problem;
  }
}

function fieldsOf(kind, schemas) {
  const found = [];
  const add = (schema, prefix, required) => {
    for (const [name, property] of Object.entries(schema.properties)) {
      const variants = property.anyOf ?? [property];
      const reference = variants.find(one => one.$ref)?.$ref ?? property.$ref ?? property.allOf?.[0]?.$ref;
      const target = reference ? schemas[reference.split("/").pop()] : null;
      if (target?.properties) add(target, `${prefix}${name}.`, []);
      else found.push(fieldOf(kind, prefix + name, {...target, ...property}, variants, required.includes(name)));
    }
  };
  add(schemas[kind.schema], "", schemas[kind.schema].required);
  return found;
}

function fieldOf(kind, path, property, variants, required) {
  const types = {integer: "number", number: "number", boolean: "flag", array: "list"};
  const has = type => variants.some(one => one.type === type);
  const type = property.enum ? "choice"
    : types[property.type] ?? (has("object") ? "items" : has("integer") ? "number_or_word" : "text");
  const nullable = has("null");
  const fallback = required ? "" : property.default ?? {list: [], text: nullable ? null : ""}[type];
  // A required field has no default; it is empty while it is not given.
  const {description = "", minimum, maximum, maxLength} = property;
  const key = path.replace(".", "_");
  return {
    path, type, nullable, required, fallback, minimum, maximum, maxLength, options: property.enum,
    // A field that this console does not know keeps its name, and the description of the server.
    name: kind.names.has(key) ? kind.names(key) : path, meaning: kind.meanings[language]?.[key] ?? description,
  };
}

/** The fields in groups: pairs of the group's name and its fields. */
export function grouped(kind, fields) {
  const left = new Map(fields.map(field => [field.path, field]));
  const found = Object.entries(kind.groups).map(([name, paths]) => [name, paths.flatMap(path => {
    const field = left.get(path);
    left.delete(path);
    return field ? [field] : [];
  })]);
  return [...found, ["other", [...left.values()]]].filter(([, members]) => members.length);
}

/** The value of a field in a configuration, or its default. */
export function valueIn(config, field) {
  const value = field.path.split(".").reduce((part, name) => part?.[name], config);
  return value === undefined || (value === null && !field.nullable) ? field.fallback : value;
}

/** Whether a field has a default that is worth a mention. */
export const hasDefault = ({required, fallback}) => !required && fallback !== null && fallback !== ""
  && fallback.length !== 0 && JSON.stringify(fallback) !== "{}";

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

export const isDefault = (field, value) => !field.required && same(value, field.fallback);

/** The fields in which two configurations differ: `{path, field, before, after}`. */
export function differences(fields, before, after) {
  const known = fields.map(field => ({
    path: field.path, field, before: valueIn(before, field), after: valueIn(after, field),
  }));
  // A field of an earlier version that the server no longer knows.
  const names = new Set(fields.map(field => field.path.split(".")[0]));
  const old = [...new Set([...Object.keys(before), ...Object.keys(after)])].filter(name => !names.has(name))
    .map(name => ({path: name, field: null, before: before[name] ?? "", after: after[name] ?? ""}));
  return [...known, ...old].filter(one => !same(one.before, one.after));
}

// ---- texts of the form ---------------------------------------------------------------------------------------------

/** A value as the text of an input. */
export function textOf(field, value) {
  if (value === null || value === undefined) return "";
  if (field.type === "list") return value.join("\n");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** The value of an input's text. A text that is no value of its type stays a text: the server says what it expects. */
export function valueOf(field, text) {
  if (field.type === "flag") return text === "true";
  if (field.type === "list") return text.split("\n").map(line => line.trim()).filter(Boolean);
  if (text === "" && field.nullable) return null;
  if (text === "" && field.type === "number") return field.required ? undefined : field.fallback;
  if (field.type === "number") return numberOf(text);
  if (field.type === "number_or_word") return text === "" ? field.fallback : numberOf(text);
  if (field.type === "items") return text.trim() ? itemsOf(text) : field.fallback;
  return text;
}

const numberOf = text => Number.isFinite(Number(text)) ? Number(text) : text;

/** Parameters of shards: an object in JSON, or pairs such as 0=a,1=b. */
export function itemsOf(text) {
  if (!text.trimStart().startsWith("{")) return text;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** A configuration with the texts of a form in place of its values, without the fields that its kind does not take. */
export function assembled(kind, fields, base, edits) {
  const config = structuredClone(base);
  for (const field of fields) {
    const [name, member] = field.path.split(".");
    if (edits.has(field.path)) {
      const value = valueOf(field, edits.get(field.path));
      if (member) config[name] = {...config[name], [member]: value};
      else config[name] = value;
    }
  }
  kind.complete?.(config, fields);
  return Object.fromEntries(Object.entries(config).filter(([, value]) => value !== undefined));
}

// ---- values for people ---------------------------------------------------------------------------------------------

export function unitOf(path) {
  if (path.endsWith("Milliseconds")) return "ms";
  if (path.endsWith("Seconds")) return "s";
  return path.endsWith("MB") ? "MB" : "";
}

export function Value({path, value}) {
  if (value === null || value === undefined) return html`<span class="quiet">${valueWord("none")}</span>`;
  if (value === "" || value.length === 0 || JSON.stringify(value) === "{}") return html`<span class="quiet">${valueWord("empty")}</span>`;
  if (typeof value === "boolean") return valueWord(value ? "is_on" : "is_off");
  if (typeof value === "number") return `${number(value)} ${unitOf(path)}`.trim();
  if (Array.isArray(value)) return html`<code class="value">${value.join("\n")}</code>`;
  if (/^https?:/.test(value)) return html`<code class="value"><${External} href=${value} /></code>`;
  return html`<code class="value">${typeof value === "object" ? JSON.stringify(value) : value}</code>`;
}

/** What a field means, with its code as code. */
export function Meaning({field}) {
  const parts = field.meaning.split("`");
  return html`<span>${parts.map((part, index) => index % 2 ? html`<code>${part}</code>` : part)}</span>`;
}

/** The name of a field in words and in JSON. */
export const FieldName = ({field}) => html`${field.name} <code class="quiet">${field.path}</code>`;
