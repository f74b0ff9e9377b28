// The parameters of a job with a schema, as the fields of a form. The server checks their values.
import {html} from "../../core/html.js";
import {Choice, Field} from "../../core/parts.js";

function objectIn(text) {
  try {
    const found = JSON.parse(text || "{}");
    return found && typeof found === "object" && !Array.isArray(found) ? found : {};
  } catch {
    return {};
  }
}

/** The parameters of a job: pairs of a name and its schema; null if the job has no schema. */
export function parametersOf(config) {
  const found = config.parameterSchema && Object.entries(objectIn(config.parameterSchema).properties ?? {});
  return found && found.length ? found : null;
}

const asText = value => value === undefined ? "" : String(value);

/** The texts that a form begins with: the values of the job's own parameter, or the defaults of the schema. */
export function firstTexts(config) {
  const own = objectIn(config.jobParameter);
  return Object.fromEntries((parametersOf(config) ?? []).map(([name, one]) =>
    [name, asText(Object.hasOwn(own, name) ? own[name] : one.default)]));
}

function valueOf({type}, text) {
  if (type === "boolean") return text === "true";
  return (type === "integer" || type === "number") && text.trim() && Number.isFinite(Number(text)) ? Number(text) : text;
}

/** The object of a trigger: the job's own values that have no field, and those of the fields. Empty texts are left out. */
export function objectOf(config, texts) {
  const rest = objectIn(config.jobParameter);
  for (const [name, one] of parametersOf(config)) {
    delete rest[name];
    if (texts[name] !== "" || (one.type === "string" && one.minLength === 0)) rest[name] = valueOf(one, texts[name]);
  }
  return rest;
}

export function Parameters({of, texts, set}) {
  return of.map(([name, one]) => {
    const options = one.enum?.map(String) ?? (one.type === "boolean" ? ["true", "false"] : null);
    const common = {
      label: one.title ? `${one.title} (${name})` : name, value: texts[name], hint: one.description,
      set: text => set({...texts, [name]: text}),
    };
    return options ? html`<${Choice} key=${name} ...${common} options=${["", ...options]} />`
      : html`<${Field} key=${name} ...${common} max=${one.maxLength} />`;
  });
}
