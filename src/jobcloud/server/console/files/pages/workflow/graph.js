// The graph of a workflow. Its nodes are links over a picture of its edges; the table below says the same.
import {stepOf} from "../../core/cells.js";
import {html, useLayoutEffect, useMemo, useRef, useState} from "../../core/html.js";
import {texts} from "../../core/i18n.js";
import {Mark} from "../../core/parts.js";
import {look} from "../../core/words.js";
import {conditionText, edgeText, joinText} from "./conditions.js";
import {layout, NODE} from "./layout.js";

const t = texts({
  en: {
    label: "Graph", hint: "Arrow keys move between the nodes, Enter opens one. The table below says the same.",
    node: "{node}: {what}", after: "{node}: {what}, after: {conditions}",
  },
  zh: {
    label: "图", hint: "方向键在节点间移动，回车打开。下方表格内容相同。",
    node: "{node}：{what}", after: "{node}：{what}，先决条件：{conditions}",
  },
});

const GAP = 56, LABELLED_GAP = 110, MARGIN = 8;
const LONGEST_LABEL = 14;

const short = text => text.length > LONGEST_LABEL ? `${text.slice(0, LONGEST_LABEL - 1)}…` : text;

function pathOf(points) {
  return points.map(([[x, y], [toX, toY]], index) => {
    const middle = (x + toX) / 2;
    return `${index ? "L" : "M"}${x} ${y}C${middle} ${y} ${middle} ${toY} ${toX} ${toY}`;
  }).join("");
}

function Edge({of}) {
  const text = edgeText(of.after), [[x, y], [toX, toY]] = of.points[0], [endX, endY] = of.points.at(-1)[1];
  return html`<g class=${`edge ${of.after.result ? "result" : of.after.on}`}>
    <path class="line" d=${pathOf(of.points)} /><path class="tip" d=${`M${endX} ${endY}l-7 -4v8z`} />
    ${text && html`<text x=${(x + toX) / 2} y=${(y + toY) / 2 + 4}>${short(text)}</text>`}</g>`;
}

/** The node in the direction of an arrow key: the next one of the column, or the nearest one of the next column. */
function neighbour(nodes, from, [down, right]) {
  const inColumn = nodes.filter(one => one.column === from.column + right);
  const found = right ? inColumn : inColumn.filter(one => Math.sign(one.row - from.row) === down);
  return found.sort((one, other) => Math.abs(one.y - from.y) - Math.abs(other.y - from.y))[0];
}

/**
 * `cell(node)` tells of a node: `{href, what, state, detail}`. `what` is a text for its label. At first, the node `first`
 * is in sight, and the stop of the tab key.
 */
export function Graph({nodes, cell, first}) {
  // Only the names and conditions decide about the places.
  const shape = JSON.stringify(nodes.map(({name, after}) => ({name, after})));
  const drawn = useMemo(() => layout(JSON.parse(shape), nodes.some(node => node.after.some(edgeText))
    ? LABELLED_GAP : GAP), [shape]);
  const box = useRef();
  const [current, setCurrent] = useState(first);
  const known = new Map(nodes.map((node, index) => [node.name, {node, index}]));
  const here = known.has(current) ? current : nodes[0].name;
  useLayoutEffect(() => {
    const {x, y} = drawn.nodes.find(one => one.node.name === here);
    box.current.scrollTo(x - (box.current.clientWidth - NODE.width) / 2, y - (box.current.clientHeight - NODE.height) / 2);
  }, []);
  const move = event => {
    const step = stepOf(event), from = drawn.nodes.find(one => one.node.name === here);
    const to = step && from && neighbour(drawn.nodes, from, step);
    if (step) event.preventDefault();
    if (to) box.current.querySelector(`[data-node="${known.get(to.node.name).index}"]`).focus();
  };
  const size = {width: `${drawn.width + 2 * MARGIN}px`, height: `${drawn.height + 2 * MARGIN}px`};
  return html`<p class="quiet">${t("hint")}</p>
    <div class="graph" role="group" aria-label=${t("label")} ref=${box} onKeyDown=${move}><div style=${size}>
      <svg aria-hidden="true" style=${size} viewBox=${[-MARGIN, -MARGIN, drawn.width + 2 * MARGIN, drawn.height + 2 * MARGIN].join(" ")}>
        ${drawn.edges.map(edge => html`<${Edge} key=${`${edge.from} ${edge.to} ${edge.after.on} ${edge.after.result ?? ""}`}
          of=${edge} />`)}</svg>
      ${drawn.nodes.map(({node: {name}, x, y}) => {
        const {node, index} = known.get(name), {href, what, state, detail} = cell(node), join = joinText(node);
        const conditions = conditionText(node);
        const label = t(conditions ? "after" : "node", {node: name, what, conditions});
        return html`<a key=${name} class=${`node ${state ? look(state)[1] : ""}`} href=${href} title=${label}
          data-node=${index} tabindex=${name === here ? 0 : -1} onFocus=${() => setCurrent(name)}
          style=${{left: `${x + MARGIN}px`, top: `${y + MARGIN}px`, width: `${NODE.width}px`, height: `${NODE.height}px`}}>
          <span class="hidden">${label}</span><span class="name" aria-hidden="true">${state && html`<${Mark} state=${state} /> `}${name}</span>
          <span class="detail" aria-hidden="true">${join && html`<span class="join">${join}</span> `}${detail}</span></a>`;
      })}</div></div>`;
}
