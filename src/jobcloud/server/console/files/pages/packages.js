// The packages of apps: what is stored, which apps use it, and the upload.
import {canSomewhere} from "../core/access.js";
import {upload} from "../core/api.js";
import {html, useId, useState} from "../core/html.js";
import {number, texts} from "../core/i18n.js";
import {usePages} from "../core/live.js";
import {Copyable, Dialog, Form, Listing, Page} from "../core/parts.js";
import {link} from "../core/router.js";

const t = texts({
  en: {
    title: "Packages", hash: "SHA-256", size: "Size", apps: "Apps", none: "unused", add: "Upload a package",
    file: "Archive (zip or tar)", limit: "at most {size}", stored: "The package is stored.", use: "Use this value as appURL:",
    kib: "{n} KiB", mib: "{n} MiB", bytes: "{n} bytes", empty: "No package is stored.", files: "Files: {n}",
  },
  zh: {
    title: "程序包", hash: "SHA-256", size: "大小", apps: "应用", none: "未使用", add: "上传程序包",
    file: "归档文件（zip 或 tar）", limit: "最大 {size}", stored: "程序包已保存。", use: "将此值用作 appURL：",
    kib: "{n} KiB", mib: "{n} MiB", bytes: "{n} 字节", empty: "没有程序包。", files: "文件数：{n}",
  },
});

function sizeText(bytes) {
  if (bytes < 1_024) return t("bytes", {n: bytes});
  return bytes < 1_048_576 ? t("kib", {n: Math.round(bytes / 102.4) / 10}) : t("mib", {n: Math.round(bytes / 104_857.6) / 10});
}

function Upload({limit, close, after}) {
  const own = useId();
  const [file, setFile] = useState(null);
  const [stored, setStored] = useState(null);
  const make = async () => {
    setStored(await upload("packages", file));
    after();
  };
  return html`<${Dialog} title=${t("add")} close=${close}>${stored
    ? html`<p>${t("stored")} ${t("files", {n: stored.files})}</p><p>${t("use")}</p><${Copyable} text=${stored.appURL} />`
    : html`<${Form} make=${make} label=${t("add")} close=${close} disabled=${!file}>
      <div class="field"><label for=${own}>${t("file")}</label>
        <input id=${own} type="file" onChange=${event => setFile(event.target.files[0] ?? null)} />
        ${limit && html`<div class="quiet">${t("limit", {size: sizeText(limit)})}</div>`}</div><//>`}<//>`;
}

const COLUMNS = [
  {key: "hash", title: t("hash"), cell: one => html`<code title=${one.sha256}>${one.sha256.slice(0, 16)}…</code>`},
  {key: "size", title: t("size"), number: true, cell: one => html`<span title=${number(one.size)}>${sizeText(one.size)}</span>`},
  {key: "apps", title: t("apps"), wide: true, cell: one => one.apps.length
    ? one.apps.map(key => html`<a href=${link`/apps/${key}`}>${key}</a> `) : html`<span class="quiet">${t("none")}</span>`},
];

export default function Packages() {
  const packages = usePages("packages", {}, changes => changes.more || changes.apps.length > 0);
  const [open, setOpen] = useState(false);
  const actions = canSomewhere("configure") && html`<button type="button" class="primary"
    onClick=${() => setOpen(true)}>${t("add")}</button>`;
  return html`<${Page} title=${t("title")} actions=${actions}>
    <${Listing} of=${packages} label=${t("title")} columns=${COLUMNS} rowKey=${one => one.sha256} empty=${t("empty")} />
    ${open && html`<${Upload} limit=${packages.data?.maxBytes} close=${() => setOpen(false)} after=${packages.reload} />`}<//>`;
}
