// The conditions of nodes in words, and why a node did not run.
import {html} from "../../core/html.js";
import {texts} from "../../core/i18n.js";
import {told} from "../../core/refusals.js";
import {word} from "../../core/words.js";

const t = texts({
  en: {
    success: "{node} succeeds", failure: "{node} fails", either: "{node} ends",
    result: "{node} succeeds with the result {result}",
    any: "any of:", shards: "shard by shard:", join_any: "any", join_shards: "by shard",
    short_failure: "fails", short_either: "ends", approval: "approval", callback: "callback", event: "event {event}",
    wait_approval: "waits for approval", wait_callback: "waits for a callback", wait_event: "waits for event {event}",
  },
  zh: {
    success: "{node} 成功", failure: "{node} 失败", either: "{node} 结束", result: "{node} 成功且结果为 {result}",
    any: "任一：", shards: "逐分片：", join_any: "任一", join_shards: "逐分片",
    short_failure: "失败", short_either: "结束", approval: "审批", callback: "回调", event: "事件 {event}",
    wait_approval: "等待审批", wait_callback: "等待回调", wait_event: "等待事件 {event}",
  },
});

const textOf = after => after.result ? t("result", after) : t.has(after.on) ? t(after.on, after) : `${after.node}: ${after.on}`;
const isJoined = node => node.join === "shards" || node.join === "any" && node.after.length > 1;

/** The conditions of a node as one text. */
export const conditionText = node => [isJoined(node) && t(node.join), node.after.map(textOf).join(", ")]
  .filter(Boolean).join(" ");

export function Conditions({of}) {
  if (!of.after.length) return null;
  return html`${isJoined(of) && html`<span class="quiet">${t(of.join)}</span>`}
    <ul class="plain">${of.after.map(after => html`<li key=${`${after.on} ${after.node}`}>${textOf(after)}</li>`)}</ul>`;
}

/** What an edge is marked with: nothing if the node must succeed, whatever its result is. */
export const edgeText = after => after.result ? `= ${after.result}` : after.on === "success" ? ""
  : t.has(`short_${after.on}`) ? t(`short_${after.on}`) : after.on;

/** What a node is marked with: how its conditions are joined, unless all of them must hold. */
export const joinText = node => isJoined(node) ? t(`join_${node.join}`) : "";

/** What a node is, which has no job: what it waits for. */
export const waitText = node => t.has(node.waitFor) ? t(node.waitFor, {event: node.event ?? ""}) : node.waitFor ?? "";

/** The state of a node in words. */
export const stateText = node => node.state === "RUNNING" && t.has(`wait_${node.waitFor}`)
  ? t(`wait_${node.waitFor}`, {event: node.event ?? ""}) : word(node.state);

/** Why a node was skipped, failed without a run, or cannot start. */
export function reasonText(reason) {
  if (!reason) return "";
  const given = {...reason.parameters};
  if (given.on) given.on = t.has(`short_${given.on}`) ? t(`short_${given.on}`) : word("SUCCEEDED");
  if (given.state) given.state = word(given.state);
  return told(reason.text, reason.code, given);
}
