// The users who were added to this installation.
import {can, me} from "../core/access.js";
import {change, path} from "../core/api.js";
import {html, useState} from "../core/html.js";
import {texts} from "../core/i18n.js";
import {usePages} from "../core/live.js";
import {Action, Ago, Copyable, Dialog, Field, Form, Listing, Page, State} from "../core/parts.js";

const t = texts({
  en: {
    title: "Users", name: "Name", created: "Added", password: "Password", has_password: "set", no_password: "none",
    state: "State", actions: "Actions", add: "Add user", add_hint: "NAME, or oidc:NAME for a person of the identity provider",
    password_hint: "Empty: the person signs in by single sign-on or a link.", set_password: "Set password",
    new_password: "New password", own_password: "Your present password", disable: "Disable", enable: "Enable",
    disable_question: "{name} is signed out, and the tokens of {name} stop working.", sign_out: "Sign out everywhere",
    sign_out_question: "End all sessions of {name}.", link: "Sign-in link", link_hint: "This link signs {name} in once, within 15 minutes. It is shown only now.",
    remove: "Remove", remove_question: "Remove {name} with all roles, tokens and sessions.", others: "People of an identity provider are listed only if they were added here.",
    empty: "There is no user. Add one, then give the person a role in a team.", added: "{name} was added.",
  },
  zh: {
    title: "用户", name: "名称", created: "添加时间", password: "密码", has_password: "已设置", no_password: "无",
    state: "状态", actions: "操作", add: "添加用户", add_hint: "名称；身份提供方的人员用 oidc:名称",
    password_hint: "留空：此人通过单点登录或链接登录。", set_password: "设置密码",
    new_password: "新密码", own_password: "您的当前密码", disable: "禁用", enable: "启用",
    disable_question: "{name} 将被登出，其令牌也会失效。", sign_out: "在所有设备上登出",
    sign_out_question: "结束 {name} 的所有会话。", link: "登录链接", link_hint: "此链接可让 {name} 在 15 分钟内登录一次，仅在此处显示。",
    remove: "删除", remove_question: "删除 {name} 及其全部角色、令牌和会话。", others: "身份提供方的人员只有在此处添加后才会列出。",
    empty: "还没有用户。请先添加用户，再在团队中为其分配角色。", added: "已添加 {name}。",
  },
});

function AddUser({close, after}) {
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const make = () => change("POST", "users", {body: password ? {name, password} : {name}});
  return html`<${Dialog} title=${t("add")} close=${close}><${Form} make=${make} label=${t("add")} close=${close} done=${after}>
    <${Field} label=${t("name")} value=${name} set=${setName} hint=${t("add_hint")} required max="100" />
    <${Field} label=${t("password")} type="password" value=${password} set=${setPassword} hint=${t("password_hint")} max="1000" />
  <//><//>`;
}

function SetPassword({name, close, after}) {
  const [password, setPassword] = useState("");
  const [present, setPresent] = useState("");
  const own = me.subject === `user:${name}`;
  const make = () => change("PUT", path`users/${name}/password`, {
    body: own ? {password, currentPassword: present} : {password},
  });
  return html`<${Dialog} title=${`${t("set_password")}: ${name}`} close=${close}>
    <${Form} make=${make} label=${t("set_password")} close=${close} done=${after}>
      ${own && html`<${Field} label=${t("own_password")} type="password" value=${present} set=${setPresent} required />`}
      <${Field} label=${t("new_password")} type="password" value=${password} set=${setPassword} required max="1000" />
    <//><//>`;
}

function LinkOf({name, link, close}) {
  return html`<${Dialog} title=${t("link")} close=${close}><p>${t("link_hint", {name})}</p>
    <${Copyable} text=${location.origin + link.path} /><//>`;
}

export default function Users() {
  const users = usePages("users", {}, changes => changes.more || changes.topics.includes("config"));
  const [open, setOpen] = useState(null);
  const close = () => setOpen(null);
  const after = () => {
    close();
    users.reload();
  };
  const columns = [
    {key: "name", title: t("name"), cell: user => user.name, wide: true},
    {key: "state", title: t("state"), cell: user => html`<${State} of=${user.disabled ? "disabled" : "enabled"} />`},
    {key: "password", title: t("password"), cell: user => t(user.hasPassword ? "has_password" : "no_password")},
    {key: "created", title: t("created"), cell: user => html`<${Ago} at=${user.createdAt} />`},
    {key: "actions", title: t("actions"), sticky: true, cell: user => html`<div class="row">
      <${Action} label=${t(user.disabled ? "enable" : "disable")} after=${users.reload}
        question=${user.disabled ? undefined : t("disable_question", user)}
        make=${() => change("PATCH", path`users/${user.name}`, {body: {disabled: !user.disabled}})} />
      <button type="button" onClick=${() => setOpen({kind: "password", user})}>${t("set_password")}</button>
      <${Action} label=${t("sign_out")} question=${t("sign_out_question", user)}
        make=${() => change("DELETE", "sessions", {query: {subject: `user:${user.name}`}})} />
      <button type="button" disabled=${user.disabled} onClick=${async () => {
        const link = await change("POST", "login-links", {query: {user: user.name}}).catch(problem => ({problem}));
        setOpen({kind: link.problem ? "refused" : "link", user, link});
      }}>${t("link")}</button>
      <${Action} label=${t("remove")} danger question=${t("remove_question", user)} typed=${user.name}
        make=${() => change("DELETE", path`users/${user.name}`)} after=${users.reload} /></div>`},
  ];
  const actions = can("manage-access") && html`<button type="button" class="primary"
    onClick=${() => setOpen({kind: "add"})}>${t("add")}</button>`;
  return html`<${Page} title=${t("title")} actions=${actions}>
    <p class="quiet">${t("others")}</p>
    <${Listing} of=${users} label=${t("title")} columns=${columns} rowKey=${user => user.name} empty=${t("empty")} />
    ${open?.kind === "add" && html`<${AddUser} close=${close} after=${after} />`}
    ${open?.kind === "password" && html`<${SetPassword} name=${open.user.name} close=${close} after=${after} />`}
    ${open?.kind === "link" && html`<${LinkOf} name=${open.user.name} link=${open.link} close=${close} />`}
    ${open?.kind === "refused" && html`<${Refused} problem=${open.link.problem} close=${close} />`}<//>`;
}

function Refused({problem, close}) {
  return html`<${Dialog} title=${t("link")} close=${close}><p role="alert">${problem.message}</p><//>`;
}
