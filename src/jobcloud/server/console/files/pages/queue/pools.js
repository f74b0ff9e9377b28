// The pools: limits across jobs, and what has taken their slots.
import {can, canSomewhere} from "../../core/access.js";
import {change, path} from "../../core/api.js";
import {html, useState} from "../../core/html.js";
import {number, texts} from "../../core/i18n.js";
import {usePages} from "../../core/live.js";
import {Action, Dialog, Field, Form, Listing, Section} from "../../core/parts.js";

const t = texts({
  en: {
    title: "Pools", hint: "Each running shard of a job takes slots of the pools that the job names.", name: "Name",
    used: "Slots used", slots: "Slots", waiting: "Waiting", jobs: "Jobs", description: "Description", none: "There is no pool.",
    actions: "Actions", edit: "Set slots", add: "New pool", save: "Save", remove: "Remove",
    name_hint: "NAME, TEAM:NAME, or *:NAME for all teams", slots_hint: "0: no shard that names the pool starts",
    question: "The pool {name} is removed. This is refused while a job names it.",
  },
  zh: {
    title: "资源池", hint: "作业的每个运行中分片占用该作业所列资源池的槽位。", name: "名称",
    used: "已用槽位", slots: "槽位", waiting: "等待", jobs: "作业", description: "说明", none: "没有资源池。",
    actions: "操作", edit: "设置槽位", add: "新建资源池", save: "保存", remove: "删除",
    name_hint: "名称、团队:名称，或 *:名称（所有团队）", slots_hint: "0：使用该资源池的分片不再启动",
    question: "将删除资源池 {name}。仍有作业使用它时会被拒绝。",
  },
});

function PoolForm({known, close, after}) {
  const [name, setName] = useState(known?.name ?? "");
  const [slots, setSlots] = useState(String(known?.slots ?? 1));
  const [description, setDescription] = useState(known?.description ?? "");
  const make = async () => {
    await change("PUT", path`pools/${name}`, {body: {slots: Number(slots), description}});
    after();
  };
  return html`<${Dialog} title=${known ? `${t("edit")}: ${known.name}` : t("add")} close=${close}>
    <${Form} make=${make} label=${t("save")} close=${close}>
      ${!known && html`<${Field} label=${t("name")} value=${name} set=${setName} hint=${t("name_hint")} required max="201" />`}
      <${Field} label=${t("slots")} value=${slots} set=${setSlots} hint=${t("slots_hint")} type="number" required />
      <${Field} label=${t("description")} value=${description} set=${setDescription} max="300" /><//><//>`;
}

export function Pools() {
  const pools = usePages("pools", {});
  const [open, setOpen] = useState(null);
  const close = () => setOpen(null);
  const after = () => {
    close();
    pools.reload();
  };
  const columns = [
    {key: "name", title: t("name"), cell: one => one.name},
    {key: "used", title: t("used"), number: true, cell: one => number(one.used)},
    {key: "slots", title: t("slots"), number: true, cell: one => number(one.slots)},
    {key: "waiting", title: t("waiting"), number: true, cell: one => number(one.waiting)},
    {key: "jobs", title: t("jobs"), number: true, cell: one => number(one.jobs)},
    {key: "description", title: t("description"), cell: one => one.description, wide: true},
    {key: "actions", title: t("actions"), sticky: true, cell: one => can("configure", one.team) && html`
      <button type="button" onClick=${() => setOpen(one)}>${t("edit")}</button>
      <${Action} label=${t("remove")} danger question=${t("question", one)} after=${pools.reload}
        make=${() => change("DELETE", path`pools/${one.name}`)} />`},
  ];
  return html`<${Section} title=${t("title")} actions=${canSomewhere("configure") && html`<button type="button"
      onClick=${() => setOpen({})}>${t("add")}</button>`}>
    <p class="quiet">${t("hint")}</p>
    <${Listing} of=${pools} label=${t("title")} columns=${columns} rowKey=${one => one.name} empty=${t("none")} />
    ${open && html`<${PoolForm} known=${open.name ? open : null} close=${close} after=${after} />`}<//>`;
}
