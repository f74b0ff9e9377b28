// The form of a configuration: a new one, or a change. The server checks the fields; then the changes are shown; then
// they are saved. The fields come from the schema that the server publishes.
import {change} from "../../core/api.js";
import {html, useEffect, useMemo, useRef, useState} from "../../core/html.js";
import {texts} from "../../core/i18n.js";
import {Choice, Dialog, ErrorBox, Field, toast, useChange} from "../../core/parts.js";
import {faultText} from "../../core/problems.js";
import {Diff} from "./diff.js";
import {
  assembled, differences, FieldName, grouped, hasDefault, isDefault, Meaning, textOf, unitOf, Value, valueIn, valueWord,
} from "./fields.js";

const t = texts({
  en: {
    more: "More fields ({n})", review: "Check and show the changes", save: "Save",
    back: "Back to the form", cancel: "Cancel", changes: "Changes of {name}", nothing: "Nothing is changed.",
    saved: "{name} is saved.", created: "{name} is created.", by_default: "Default:",
    overtaken: "Somebody else has changed it since you opened the form. Your changes are kept: take the present configuration as their base, and look at the differences again.",
    rebase: "Take the present configuration", faults: "{n} fields need a correction.",
    faults_one: "One field needs a correction.",
    checking: "Checking …", fixed: "The name and the team cannot change.",
  },
  zh: {
    more: "更多字段（{n}）", review: "检查并查看变更", save: "保存",
    back: "返回表单", cancel: "取消", changes: "{name} 的变更", nothing: "没有任何变更。",
    saved: "{name} 已保存。", created: "{name} 已创建。", by_default: "默认：",
    overtaken: "您打开表单后，其他人作了修改。您的修改已保留：请以当前配置为基础，再次查看差异。",
    rebase: "采用当前配置", faults: "{n} 个字段需要更正。", faults_one: "1 个字段需要更正。",
    checking: "检查中…", fixed: "名称和团队不能更改。",
  },
});

const COLUMNS = 44, MOST_ROWS = 8;

/** The height of an input for a text that may be long. */
function rowsOf(text) {
  const rows = text.split("\n").map(line => Math.max(1, Math.ceil(line.length / COLUMNS)));
  return Math.min(MOST_ROWS, rows.reduce((sum, one) => sum + one, 0));
}

/** One field of the form. */
function Entry({kind, field, value, set, fault, list}) {
  const unit = unitOf(field.path);
  const label = html`<${FieldName} field=${field} />${unit && html` <span class="quiet">(${unit})</span>`}`;
  const hint = html`<${Meaning} field=${field} />${hasDefault(field)
    && html` · ${t("by_default")} <${Value} path=${field.path} value=${field.fallback} />`}`;
  const shown = fault && html`${fault}<br /><span class="quiet"><${Meaning} field=${field} /></span>`;
  const common = {label, value, set, hint, fault: shown};
  if (field.type === "flag") {
    return html`<${Choice} ...${common} options=${[["false", valueWord("is_off")], ["true", valueWord("is_on")]]} />`;
  }
  if (field.type === "choice") {
    const options = field.options.map(code => [code, kind.choiceText?.(field, code) ?? code]);
    return html`<${Choice} ...${common} options=${options} />`;
  }
  const lines = field.type === "list" ? 2 : kind.long.has(field.path) ? rowsOf(value) : 0;
  return html`<${Field} ...${common} lines=${lines} list=${list} max=${field.maxLength} />`;
}

/** The faults of a refusal by field, and the refusal without them. */
function faultsOf(kind, problem, fields) {
  const known = new Set(fields.map(field => field.path));
  const faults = {}, rest = [];
  for (const one of problem.errors) {
    const name = one.field.startsWith(kind.place) ? one.field.slice(kind.place.length) : one.field;
    if (known.has(name)) faults[name] = faultText(one);
    else rest.push({...one, field: name});
  }
  return [faults, rest];
}

function Review({name, fields, before, config, label, save, close, rebase}) {
  const {busy, problem, run} = useChange(save);
  const changes = differences(fields, before, config);
  const overtaken = problem?.status === 412;
  return html`<${Dialog} title=${t("changes", {name})} close=${close} wide>
    ${changes.length ? html`<${Diff} of=${changes} />` : html`<p>${t("nothing")}</p>`}
    ${overtaken ? html`<div class="error" role="alert"><p>${t("overtaken")}</p>
      <button type="button" onClick=${rebase}>${t("rebase")}</button></div>` : html`<${ErrorBox} problem=${problem} />`}
    <footer><button type="button" onClick=${close}>${t("back")}</button>
      <button type="button" class="primary" disabled=${busy || overtaken || !changes.length} onClick=${run}>
        ${label}</button></footer><//>`;
}

/**
 * The form. `kind`: what is configured, see job/kind.js. `start`: `{base, tag}`, the configuration to begin with; without
 * a tag, it is new. `reload()` gives the present one. `save(config, tag)` gives the saved object, whose name is a member
 * of the kind. `useLists(config)`: proposals by field. `label`: the text of the button that creates a new one.
 */
export function Editor({kind, fields, start, reload, save, done, close, useLists, label, children}) {
  const [{base, tag}, setBase] = useState(start);
  const isNew = tag === undefined;
  const [edits, setEdits] = useState(new Map());
  const [faults, setFaults] = useState({});
  const [review, setReview] = useState(false);
  const [refusals, setRefusals] = useState(0);
  const [more, setMore] = useState(false);
  const form = useRef();
  const config = useMemo(() => assembled(kind, fields, base, edits), [fields, base, edits]);
  const lists = useLists(config);
  const values = field => edits.get(field.path) ?? textOf(field, valueIn(base, field));
  const set = field => text => {
    setEdits(before => new Map(before).set(field.path, text));
    setFaults(({[field.path]: _, ...others}) => others);
  };
  const wanted = field => !kind.hides?.(field, config) && (isNew || !kind.fixed.includes(field.path))
    && (kind.hasMeaning(field, config)
      // A field that is set without a meaning can be reset, unless the server would refuse it.
      || (field.path in config && !isDefault(field, valueIn(config, field))));
  const failed = problem => {
    const [found, rest] = faultsOf(kind, problem, fields.filter(wanted));
    setFaults(found);
    setRefusals(before => before + 1);
    if (Object.keys(found).some(name => !kind.frequent.has(name))) setMore(true);
    if (Object.keys(found).length) setReview(false);
    if (!Object.keys(found).length || rest.length) throw Object.assign(problem, {errors: rest});
  };
  const check = useChange(async () => {
    setFaults({});
    try {
      await change("POST", "apply", {query: {dryRun: "true", create: isNew && "true"}, body: kind.inBody(config)});
      setReview(true);
    } catch (problem) {
      if (!problem.errors?.length) throw problem;
      failed(problem);
    }
  });
  const store = async () => {
    try {
      const saved = (await save(config, tag))[kind.named];
      toast(t(isNew ? "created" : "saved", {name: saved}));
      done(saved);
    } catch (problem) {
      if (problem.status === 412 || !problem.errors?.length) throw problem;
      failed(problem);
    }
  };
  const rebase = async () => {
    setBase(await reload());
    setReview(false);
    check.clear();
  };
  // After a refusal, the first wrong field has the focus; not while somebody corrects another one.
  useEffect(() => {
    form.current.querySelector("[aria-invalid]")?.focus();
  }, [refusals]);

  const entry = (field, fault) => html`<${Entry} key=${field.path} kind=${kind} field=${field} value=${values(field)}
    set=${set(field)} fault=${faults[field.path] || fault} list=${lists[field.path]} />`;
  const content = (name, members) => kind.Group?.[name] && members.some(one => kind.frequent.has(one.path))
    ? html`<${kind.Group[name]} config=${config} members=${members} entry=${entry} />`
    : html`<div class="entries">${members.map(one => entry(one))}</div>`;
  const groups = chosen => grouped(kind, fields.filter(field => wanted(field) && chosen(field))).map(([name, members]) =>
    html`<fieldset key=${name}><legend>${kind.groupName(name)}</legend>${content(name, members)}</fieldset>`);
  const rare = fields.filter(field => wanted(field) && !kind.frequent.has(field.path));
  const count = Object.keys(faults).length;
  return html`<form ref=${form} class="config-form" onSubmit=${event => {
    event.preventDefault();
    check.run();
  }} noValidate>
    ${!isNew && html`<p class="quiet">${t("fixed")}</p>`}
    ${groups(field => kind.frequent.has(field.path))}
    ${rare.length > 0 && html`<details open=${more} onToggle=${event => setMore(event.currentTarget.open)}>
      <summary>${t("more", {n: rare.length})}</summary>
      ${groups(field => !kind.frequent.has(field.path))}</details>`}
    ${children}
    ${count > 0 && html`<p class="fault" role="alert">${t("faults", {n: count})}</p>`}
    <${ErrorBox} problem=${check.problem} />
    <footer><button type="button" onClick=${close}>${t("cancel")}</button>
      <button type="submit" class="primary" disabled=${check.busy}>
        ${t(check.busy ? "checking" : "review")}</button></footer>
    ${review && html`<${Review} name=${config[kind.named]} fields=${fields} before=${isNew ? {} : base} config=${config}
      label=${isNew ? label : t("save")} save=${store} close=${() => setReview(false)} rebase=${rebase} />`}
  </form>`;
}
