// Refusals of the API in words.
import {language} from "./i18n.js";
import {isTold, told} from "./refusals.js";

// The server describes refusals in English, with codes for many of them. These are the titles of their kinds in other
// languages.
const TITLES = {zh: {
  "malformed-json": "请求体不是有效的 JSON",
  "bad-request": "请求格式不正确",
  unauthenticated: "需要有效的令牌",
  forbidden: "无权执行此操作",
  "forbidden-origin": "不允许从此来源写入",
  "not-found": "资源不存在",
  "method-not-allowed": "资源不支持此方法",
  timeout: "请求体未按时到达",
  conflict: "请求与当前状态冲突",
  "precondition-failed": "资源已被更改",
  "too-large": "请求体过大",
  "unsupported-media-type": "不支持此内容类型",
  misdirected: "此服务器没有该主机名",
  invalid: "请求中有无效字段",
  "too-many": "同类请求过多",
  "head-too-large": "请求头过大",
  internal: "服务器出错",
  unavailable: "目前无法执行请求",
  "storage-full": "存储空间已满",
}};

/** What is wrong with a field, and the fix, both in the language of the reader if they are known there. */
export function faultText({problem, code, parameters, fix, fixCode, fixParameters}) {
  const text = told(problem, code, parameters);
  return fix ? `${text}${language === "zh" ? "：" : ": "}${told(fix, fixCode, fixParameters)}` : text;
}

/**
 * The kind of a refusal in the language of the reader, and what the server says: in English, if it has no code. Faults
 * of fields that are told below it are not repeated.
 */
export function refusalText({slug, message, title, code, parameters, errors = []}) {
  const titles = TITLES[language] ?? {};
  if (!Object.hasOwn(titles, slug)) return message || title;
  if (isTold(code)) return `${titles[slug]}：${told(message, code, parameters)}`;
  if (errors.length > 0 && errors.every(one => isTold(one.code))) return titles[slug];
  return message && message !== title ? `${titles[slug]}：${message}` : titles[slug];
}
