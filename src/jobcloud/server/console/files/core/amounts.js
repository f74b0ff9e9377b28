// Amounts of resources in words and as bars.
import {html} from "./html.js";
import {number, texts} from "./i18n.js";

const t = texts({
  en: {
    cpuCount: "CPUs", memoryMB: "Memory", diskMB: "Disk", gpuCount: "GPUs", portCount: "Ports",
    used_of: "{used} of {total}", parts: "{used} used, {offered} offered, {total} in all",
  },
  zh: {
    cpuCount: "CPU", memoryMB: "内存", diskMB: "磁盘", gpuCount: "GPU", portCount: "端口",
    used_of: "{used} / {total}", parts: "已用 {used}，可用报价 {offered}，共 {total}",
  },
});

/** The dimensions of resources, as the API names them. */
export const DIMENSIONS = ["cpuCount", "memoryMB", "diskMB", "gpuCount", "portCount"];

export const dimensionName = name => t(name);

/** An amount with its unit. Mesos counts in units of 1,048,576 bytes and calls them MB. */
export function amountText(name, value) {
  if (name !== "memoryMB" && name !== "diskMB") return number(Math.round(value * 100) / 100);
  if (value < 1_024) return `${number(Math.round(value))} MB`;
  const [size, unit] = value < 1_048_576 ? [1_024, "GB"] : [1_048_576, "TB"];
  return `${number(Math.round(10 * value / size) / 10)} ${unit}`;
}

const share = (value, total) => `${total > 0 ? Math.max(0, Math.min(100, 100 * value / total)) : 0}%`;

/** One dimension as a bar: what is used, what is offered and free, and the whole, with the numbers. */
export function AmountBar({name, used, offered = 0, total, short}) {
  const values = {used: amountText(name, used), offered: amountText(name, offered), total: amountText(name, total)};
  return html`<div class="amount"><span class="quiet">${t(name)}</span>
    <span class="bar" aria-hidden="true"><span class="used" style=${{width: share(used, total)}}></span>
      <span class="offered" style=${{width: share(Math.min(offered, total - used), total)}}></span></span>
    <span class="number" title=${t("parts", values)}>${t("used_of", values)}${!short && total > 0
      && html` <span class="quiet">${Math.round(100 * used / total)} %</span>`}</span></div>`;
}

/** All dimensions that there are any of. `used`, `offered`, `total`: amounts of the API. */
export function AmountBars({used, offered = {}, total, short}) {
  return html`<div class="amounts">${DIMENSIONS.filter(name => total[name] > 0).map(name => html`
    <${AmountBar} key=${name} name=${name} used=${used[name] ?? 0} offered=${offered[name] ?? 0} total=${total[name]}
      short=${short} />`)}</div>`;
}
