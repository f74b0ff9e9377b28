// The teams: quotas, members, service accounts; and the roles.
import {can} from "../core/access.js";
import {all, change, get, getTagged, path} from "../core/api.js";
import {html, useState} from "../core/html.js";
import {number, texts} from "../core/i18n.js";
import {useGet, useLoaded, usePages} from "../core/live.js";
import {
  Action, Check, Choice, Dialog, ErrorBox, Field, Form, Listing, Loaded, Loading, Meter, Page, Section, Table,
} from "../core/parts.js";
import {link, navigate, setQuery} from "../core/router.js";

const t = texts({
  en: {
    title: "Teams", team: "Team", roles: "Roles", role: "Role", weight: "Weight", members: "Members", subject: "Subject",
    quota: "Quota", none: "no limit", exists: "There is {name} already.", used: "Used", limit: "Limit", waiting: "{n} runs wait for room in the quota.", waiting_one: "One run waits for room in the quota.", cpus: "CPUs", mem: "Memory (MB)", gpus: "GPUs", jobs: "Jobs",
    shards: "Shards at once", queue: "Waiting shards", edit: "Change quota and weight", add: "New team", name: "Name",
    weight_hint: "Teams that wait for the cluster share it in proportion to their weights.", empty_hint: "Empty: no limit.",
    add_member: "Add a member", subject_hint: "user:NAME, group:NAME or service:TEAM/NAME", take: "Remove",
    take_question: "Take the role {role} from {subject}.", services: "Service accounts", tokens: "Valid tokens",
    remove_service_question: "Remove {subject} with its roles and tokens.", remove: "Remove the team",
    remove_question: "Remove the team {name} with its members and service accounts. It must have no app.",
    verbs: "May do", built_in: "built in", own: "of this installation", new_role: "New role", remove_role: "Remove",
    remove_role_question: "Remove the role {name}.", actions: "Actions", whole: "the whole installation", save: "Save", edit_role: "Change",
    empty: "There is no team with members, a quota or a weight. Teams without any need no entry.", not_number: "{name} is not a number.",
  },
  zh: {
    title: "团队", team: "团队", roles: "角色", role: "角色", weight: "权重", members: "成员", subject: "主体",
    quota: "配额", none: "不限", exists: "{name} 已存在。", used: "已用", limit: "上限", waiting: "{n} 次运行在等待配额。", waiting_one: "1 次运行在等待配额。", cpus: "CPU", mem: "内存（MB）", gpus: "GPU", jobs: "作业数",
    shards: "同时运行的分片", queue: "等待的分片", edit: "修改配额和权重", add: "新建团队", name: "名称",
    weight_hint: "等待集群资源的团队按权重分配。", empty_hint: "留空：不限。",
    add_member: "添加成员", subject_hint: "user:名称、group:名称 或 service:团队/名称", take: "移除",
    take_question: "收回 {subject} 的角色 {role}。", services: "服务账号", tokens: "有效令牌",
    remove_service_question: "删除 {subject} 及其角色和令牌。", remove: "删除团队",
    remove_question: "删除团队 {name} 及其成员和服务账号。该团队不能有应用。",
    verbs: "权限", built_in: "内置", own: "自定义", new_role: "新建角色", remove_role: "删除",
    remove_role_question: "删除角色 {name}。", actions: "操作", whole: "整个系统", save: "保存", edit_role: "修改",
    empty: "尚无设置了成员、配额或权重的团队，其余团队无需登记。", not_number: "{name} 不是数字。",
  },
});

// A limit of a quota → its name in the API.
const LIMITS = {cpus: "cpuCount", mem: "memoryMB", gpus: "gpuCount", jobs: "jobs", shards: "shards", queue: "queue"};
const concerned = changes => changes.more || changes.topics.includes("config");

function Limits({quota}) {
  const set = Object.entries(LIMITS).filter(([, field]) => quota[field] !== null && quota[field] !== undefined);
  return set.length ? set.map(([name, field]) => `${t(name)} ${number(quota[field])}`).join(", ") : t("none");
}

function TeamForm({close, after, ...given}) {
  // The team as it was when the form was opened: a later change by somebody else must not be overwritten.
  const [{known, tag}] = useState(given);
  const [name, setName] = useState(known?.name ?? "");
  const [weight, setWeight] = useState(String(known?.weight ?? 1));
  const [quota, setQuota] = useState(Object.fromEntries(Object.values(LIMITS).map(field => [field, String(known?.quota[field] ?? "")])));
  const numberOf = (label, text) => {
    if (text.trim() === "" || Number.isNaN(Number(text))) throw new Error(t("not_number", {name: label}));
    return Number(text);
  };
  const make = async () => {
    if (!known) await checkNew(path`teams/${name}`, name);
    const limits = Object.entries(LIMITS).map(([label, field]) => [field, quota[field].trim() === "" ? null : numberOf(t(label), quota[field])]);
    await change("PUT", path`teams/${name}`, {body: {weight: numberOf(t("weight"), weight), quota: Object.fromEntries(limits)}, tag});
    after(name);
  };
  return html`<${Dialog} title=${known ? t("edit") : t("add")} close=${close}>
    <${Form} make=${make} label=${t("save")} close=${close}>
      ${!known && html`<${Field} label=${t("name")} value=${name} set=${setName} required max="100" />`}
      <${Field} label=${t("weight")} value=${weight} set=${setWeight} hint=${t("weight_hint")} type="number" />
      <p class="quiet">${t("empty_hint")}</p>
      ${Object.entries(LIMITS).map(([label, field]) => html`<${Field} label=${t(label)} value=${quota[field]}
        set=${text => setQuota({...quota, [field]: text})} />`)}<//><//>`;
}

/** Throws an Error if something exists already: a PUT would replace it. */
async function checkNew(where, name) {
  const found = await get(where).catch(problem => {
    if (problem.status === 404) return null;
    throw problem;
  });
  if (found) throw new Error(t("exists", {name}));
}

function AddMember({team, close, after}) {
  const roles = useLoaded("roles", () => all("roles"));
  const [subject, setSubject] = useState("");
  const [role, setRole] = useState("viewer");
  const make = async () => {
    await change("POST", path`teams/${team}/members`, {body: {subject, role}});
    after();
  };
  return html`<${Dialog} title=${t("add_member")} close=${close}><${Form} make=${make} label=${t("add_member")} close=${close}>
    <${Field} label=${t("subject")} value=${subject} set=${setSubject} hint=${t("subject_hint")} required max="300" />
    <${Choice} label=${t("role")} value=${role} set=${setRole} options=${(roles.data ?? [{name: role}]).map(one => one.name)} />
  <//><//>`;
}

function Team({name}) {
  const team = useLoaded(name, async () => {
    const [found, tag] = await getTagged(path`teams/${name}`);
    return {...found, tag};
  }, concerned);
  const manages = can("manage-team", name);
  const services = useLoaded(`services ${name} ${manages}`, async () => manages ? all("services", {team: name}) : [], concerned);
  const [open, setOpen] = useState("");
  const close = () => setOpen("");
  const after = () => {
    close();
    team.reload();
  };
  const members = [
    {key: "subject", title: t("subject"), cell: one => one.subject, wide: true},
    {key: "role", title: t("role"), cell: one => one.role},
    ...(manages ? [{key: "actions", title: t("actions"), sticky: true, cell: one => html`<${Action} label=${t("take")} after=${team.reload}
      question=${t("take_question", one)} make=${() => change("DELETE", path`teams/${name}/members`, {query: one})} />`}] : []),
  ];
  const accounts = [
    {key: "subject", title: t("subject"), cell: one => one.subject, wide: true},
    {key: "roles", title: t("roles"), cell: one => one.roles.map(grant => `${grant.team} ${grant.role}`).join(", ")},
    {key: "tokens", title: t("tokens"), number: true, cell: one => number(one.tokens)},
    {key: "actions", title: t("actions"), sticky: true, cell: one => html`<${Action} label=${t("take")} danger after=${services.reload}
      question=${t("remove_service_question", one)} make=${() => change("DELETE", path`services/${one.team}/${one.name}`)} />`},
  ];
  const title = name === "*" ? `* (${t("whole")})` : name;
  return html`<${Page} title=${title} above=${html`<a href="/teams">${t("title")}</a>`}
    actions=${can("manage-access") && name !== "*" && html`
      <button type="button" onClick=${() => setOpen("edit")}>${t("edit")}</button>
      <${Action} label=${t("remove")} danger question=${t("remove_question", {name})} typed=${name}
        make=${() => change("DELETE", path`teams/${name}`)} after=${() => navigate("/teams")} />`}>
    <${Loaded} of=${team}>${found => html`
      ${name !== "*" && html`<${Section} title=${t("quota")}><p>${t("weight")} ${number(found.weight)}</p>
        <${Quota} team=${name} quota=${found.quota} /><p><a href=${`/jobs?team=${encodeURIComponent(name)}`}>${t("jobs")}</a></p><//>`}
      <${Section} title=${t("members")} actions=${manages && html`<button type="button"
          onClick=${() => setOpen("member")}>${t("add_member")}</button>`}>
        <${Table} label=${t("members")} columns=${members} rows=${found.members} rowKey=${one => `${one.subject} ${one.role}`} /><//>
      ${open === "edit" && html`<${TeamForm} known=${found} tag=${found.tag} close=${close} after=${after} />`}`}<//>
    ${manages && name !== "*" && html`<${Section} title=${t("services")}>
      <${Listing} of=${{...services, items: services.data ?? []}} label=${t("services")} columns=${accounts} rowKey=${one => one.subject} /><//>`}
    ${open === "member" && html`<${AddMember} team=${name} close=${close} after=${after} />`}<//>`;
}

function Quota({team, quota}) {
  const usage = useGet(path`teams/${team}/usage`);
  const rows = Object.entries(LIMITS).map(([label, field]) => ({label, limit: quota[field], used: usage.data?.[field]}));
  const columns = [
    {key: "what", title: t("quota"), cell: one => t(one.label)},
    {key: "used", title: t("used"), number: true, cell: one => one.used === undefined ? "" : number(one.used)},
    {key: "limit", title: t("limit"), cell: one => one.limit === null || one.limit === undefined ? html`<span class="quiet">${t("none")}</span>`
      : html`<${Meter} value=${one.used ?? 0} max=${one.limit} text=${number(one.limit)} />`},
  ];
  return html`<${ErrorBox} problem=${usage.problem} again=${usage.reload} />
    <${Table} label=${t("quota")} columns=${columns} rows=${rows} rowKey=${one => one.label} />
    ${usage.data?.heldRuns > 0 && html`<p>${t("waiting", {n: usage.data.heldRuns})}</p>`}`;
}

function RoleForm({known, names, close, after}) {
  const document = useGet("openapi.json");
  const [name, setName] = useState(known?.name ?? "");
  const [verbs, setVerbs] = useState(known?.verbs ?? []);
  const tag = known ? `"${known.revision}"` : "";
  const make = async () => {
    if (!known && names.includes(name)) throw new Error(t("exists", {name}));
    await change("PUT", path`roles/${name}`, {body: {verbs}, tag});
    after();
  };
  const choose = (verb, on) => setVerbs(on ? [...verbs, verb] : verbs.filter(one => one !== verb));
  return html`<${Dialog} title=${known ? known.name : t("new_role")} close=${close}>
    <${Form} make=${make} label=${t("save")} close=${close}>
      ${!known && html`<${Field} label=${t("name")} value=${name} set=${setName} required max="100" />`}
      <fieldset><legend>${t("verbs")}</legend>${document.data ? document.data.components.schemas.Verb.enum.map(verb => html`
        <${Check} label=${verb} value=${verbs.includes(verb)} set=${on => choose(verb, on)} />`) : html`<${Loading} />`}
        <${ErrorBox} problem=${document.problem} /></fieldset><//><//>`;
}

function Roles() {
  const roles = usePages("roles", {}, concerned);
  const [open, setOpen] = useState(null);
  const after = () => {
    setOpen(null);
    roles.reload();
  };
  const columns = [
    {key: "name", title: t("role"), cell: one => html`<span class="nowrap">${one.name}
      ${" "}<span class="quiet">${t(one.builtIn ? "built_in" : "own")}</span></span>`},
    {key: "verbs", title: t("verbs"), cell: one => one.verbs.join(", "), wide: true},
    ...(can("manage-access") && roles.items.some(one => !one.builtIn) ? [{key: "actions", title: t("actions"), sticky: true, cell: one => !one.builtIn && html`<div class="row">
      <button type="button" onClick=${() => setOpen(one)}>${t("edit_role")}</button>
      <${Action} label=${t("remove_role")} danger question=${t("remove_role_question", one)} after=${roles.reload}
        make=${() => change("DELETE", path`roles/${one.name}`)} /></div>`}] : []),
  ];
  return html`<${Section} title=${t("roles")} actions=${can("manage-access") && html`<button type="button"
      onClick=${() => setOpen("new")}>${t("new_role")}</button>`}>
    <${Listing} of=${roles} label=${t("roles")} columns=${columns} rowKey=${one => one.name} />
    ${open && html`<${RoleForm} known=${open === "new" ? null : open} names=${roles.items.map(one => one.name)} close=${() => setOpen(null)} after=${after} />`}<//>`;
}

const COLUMNS = [
  {key: "name", title: t("team"), cell: one => html`<a href=${link`/teams/${one.name}`}>${one.name}</a>
    ${one.name === "*" && html` <span class="quiet">${t("whole")}</span>`}`},
  {key: "weight", title: t("weight"), number: true, cell: one => number(one.weight)},
  {key: "quota", title: t("quota"), cell: one => html`<${Limits} quota=${one.quota} />`, wide: true},
  {key: "members", title: t("members"), number: true, cell: one => number(one.members.length)},
];

function Teams({query}) {
  const teams = usePages("teams", {}, concerned);
  const open = query.get("new") === "1";
  return html`<${Page} title=${t("title")} actions=${can("manage-access") && html`<button type="button" class="primary"
      onClick=${() => setQuery({new: "1"})}>${t("add")}</button>`}>
    <${Listing} of=${teams} label=${t("title")} columns=${COLUMNS} rowKey=${one => one.name} empty=${t("empty")} />
    <${Roles} />
    ${open && html`<${TeamForm} close=${() => setQuery({new: ""})} after=${name => navigate(link`/teams/${name}`)} />`}<//>`;
}

export default function TeamsPage({parts, query}) {
  return parts.length ? html`<${Team} name=${parts[0]} />` : html`<${Teams} query=${query} />`;
}
