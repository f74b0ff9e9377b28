// The tokens of programs, and the sessions of browsers.
import {all, change, endSession, path} from "../core/api.js";
import {html, useState} from "../core/html.js";
import {durationText, texts} from "../core/i18n.js";
import {useLoaded, usePages} from "../core/live.js";
import {Action, Ago, Choice, Copyable, Dialog, Field, Form, Listing, Page, Section, State} from "../core/parts.js";

const t = texts({
  en: {
    title: "Tokens", name: "Name", subject: "Works for", scope: "Roles", every_role: "all of its holder", state: "State",
    created: "Made", by: "by {by}", expires: "Ends", never: "never", actions: "Actions", revoke: "Revoke",
    revoke_question: "Programs with the token {name} of {subject} are refused at once. Tokens that were made with it end too.",
    make: "New token", subject_hint: "Empty: you. Or service:TEAM/NAME.", scope_hint: "One TEAM ROLE a line, such as: default operator. Empty: all roles of its holder.",
    life: "Lifetime", secret: "The new token", secret_hint: "Copy it now. It is shown only once, and the server keeps only its hash.",
    sessions: "Sessions", session: "Session", present: "this one", seen: "Used", how: "By", groups: "Groups", end: "End",
    end_all: "Sign out everywhere", end_all_question: "End all your sessions, this one too.", valid: "valid", expired: "expired", revoked: "revoked",
    how_link: "link of {who}", how_password: "password", how_oidc: "oidc",
    empty: "There is no token.", line: "The line {line} is not TEAM ROLE.",
  },
  zh: {
    title: "令牌", name: "名称", subject: "代表", scope: "角色", every_role: "持有者的全部角色", state: "状态",
    created: "创建", by: "由 {by} 创建", expires: "到期", never: "永不", actions: "操作", revoke: "吊销",
    revoke_question: "使用 {subject} 的令牌 {name} 的程序会立即被拒绝，用它创建的令牌也会失效。",
    make: "新建令牌", subject_hint: "留空：您自己；或 service:团队/名称。", scope_hint: "每行一个“团队 角色”，例如：default operator。留空：持有者的全部角色。",
    life: "有效期", secret: "新令牌", secret_hint: "请立即复制。令牌只显示一次，服务器只保存其哈希值。",
    sessions: "会话", session: "会话", present: "当前会话", seen: "最近使用", how: "登录方式", groups: "组", end: "结束",
    end_all: "在所有设备上登出", end_all_question: "结束您的所有会话，包括当前会话。", valid: "有效", expired: "已过期", revoked: "已吊销",
    how_link: "{who} 生成的链接", how_password: "密码", how_oidc: "OpenID Connect",
    empty: "没有令牌。", line: "“{line}” 不是“团队 角色”的形式。",
  },
});

const DAY = 86_400;
const LIVES = [3_600, DAY, 7 * DAY, 30 * DAY, 90 * DAY, 365 * DAY].map(s => [String(s), durationText(s * 1_000)]);

/** The roles in a text with one `TEAM ROLE` a line. Throws an Error that names a wrong line. */
function scopeOf(text) {
  return text.split("\n").map(line => line.trim()).filter(Boolean).map(line => {
    const words = line.split(/\s+/);
    if (words.length !== 2) throw new Error(t("line", {line}));
    return {team: words[0], role: words[1]};
  });
}

function NewToken({close, made}) {
  const [name, setName] = useState("");
  const [subject, setSubject] = useState("");
  const [scope, setScope] = useState("");
  const [life, setLife] = useState(String(90 * DAY));
  const make = async () => made(await change("POST", "tokens", {
    body: {name, subject, scope: scopeOf(scope), expiresSeconds: Number(life)},
  }));
  return html`<${Dialog} title=${t("make")} close=${close}><${Form} make=${make} label=${t("make")} close=${close}>
    <${Field} label=${t("name")} value=${name} set=${setName} required max="100" />
    <${Field} label=${t("subject")} value=${subject} set=${setSubject} hint=${t("subject_hint")} max="300" />
    <${Field} label=${t("scope")} value=${scope} set=${setScope} hint=${t("scope_hint")} lines="3" />
    <${Choice} label=${t("life")} value=${life} set=${setLife} options=${LIVES} /><//><//>`;
}

/** How somebody has signed in: a code, or the person who made the link. */
function howText(by) {
  const who = /^link of (.*)$/.exec(by)?.[1];
  if (who) return t("how_link", {who});
  return t.has(`how_${by}`) ? t(`how_${by}`) : by;
}

function Sessions() {
  const sessions = useLoaded("sessions", () => all("sessions", {}, 1_000), changes => changes.topics.includes("config"));
  const columns = [
    {key: "subject", title: t("subject"), cell: one => html`${one.subject} ${one.current && html`<b>(${t("present")})</b>`}`},
    {key: "by", title: t("how"), cell: one => howText(one.by)},
    {key: "groups", title: t("groups"), cell: one => one.groups.join(", ")},
    {key: "created", title: t("created"), cell: one => html`<${Ago} at=${one.createdAt} />`},
    {key: "seen", title: t("seen"), cell: one => html`<${Ago} at=${one.seenAt} />`},
    {key: "expires", title: t("expires"), cell: one => html`<${Ago} at=${one.expiresAt} />`},
    {key: "actions", title: t("actions"), sticky: true, cell: one => html`<${Action} label=${t("end")} after=${sessions.reload}
      make=${() => change("DELETE", path`sessions/${one.id}`)} />`},
  ];
  const leave = async () => {
    await change("DELETE", "sessions");
    endSession();
  };
  return html`<${Section} title=${t("sessions")} actions=${html`<${Action} label=${t("end_all")} danger
      question=${t("end_all_question")} make=${leave} />`}>
    <${Listing} of=${{...sessions, items: sessions.data ?? []}} label=${t("sessions")} columns=${columns}
      rowKey=${one => one.id} /><//>`;
}

const LOOK = {valid: "ok", expired: "disabled", revoked: "disabled"};

export default function Tokens() {
  const tokens = usePages("tokens", {}, changes => changes.topics.includes("config"));
  const [open, setOpen] = useState(null);
  const made = token => {
    setOpen(token);
    tokens.reload();
  };
  const columns = [
    {key: "name", title: t("name"), cell: one => one.name, wide: true},
    {key: "subject", title: t("subject"), cell: one => one.subject},
    {key: "scope", title: t("scope"), cell: one => one.scope.map(grant => `${grant.team} ${grant.role}`).join(", ") || t("every_role")},
    {key: "state", title: t("state"), cell: one => html`<${State} of=${LOOK[one.state]} text=${t(one.state)} />`},
    {key: "created", title: t("created"), cell: one => html`<${Ago} at=${one.createdAt} />
      ${one.createdBy && html` <span class="quiet">${t("by", {by: one.createdBy})}</span>`}`},
    {key: "expires", title: t("expires"), cell: one => one.expiresAt ? html`<${Ago} at=${one.expiresAt} />` : t("never")},
    {key: "actions", title: t("actions"), sticky: true, cell: one => one.state === "valid" && html`<${Action} label=${t("revoke")} danger
      question=${t("revoke_question", one)} make=${() => change("DELETE", path`tokens/${one.id}`)} after=${tokens.reload} />`},
  ];
  const actions = html`<button type="button" class="primary" onClick=${() => setOpen("new")}>${t("make")}</button>`;
  return html`<${Page} title=${t("title")} actions=${actions}>
    <${Listing} of=${tokens} label=${t("title")} columns=${columns} rowKey=${one => one.id} empty=${t("empty")} />
    <${Sessions} />
    ${open === "new" && html`<${NewToken} close=${() => setOpen(null)} made=${made} />`}
    ${open?.token && html`<${Dialog} title=${t("secret")} close=${() => setOpen(null)}>
      <p>${t("secret_hint")}</p><${Copyable} text=${open.token} /><//>`}<//>`;
}
