// The message of an attempt. The frames of a traceback that are not of the job's own code are folded.
import {html, useMemo, useState} from "../../core/html.js";
import {texts} from "../../core/i18n.js";

const t = texts({
  en: {
    message: "Message", unfold: "Show all frames", fold: "Fold the frames of Python and jobcloud",
    folded: "… {n} frames of Python and jobcloud …", folded_one: "… {n} frame of Python and jobcloud …",
  },
  zh: {
    message: "消息", unfold: "显示全部栈帧", fold: "折叠 Python 与 jobcloud 的栈帧",
    folded: "… {n} 个 Python 与 jobcloud 的栈帧 …", folded_one: "… {n} 个 Python 与 jobcloud 的栈帧 …",
  },
});

// A line such as `  File "/app/hello.py", line 3, in execute`. In the traceback of a group, "|" stands before it.
const FRAME = /^([ |]*) File "([^"]+)", line \d+/;
// The worker of jobcloud, modules of Python without a file, and the standard library; not what pip has installed there.
const FRAMEWORK = [
  /(^|\/)jobcloud\/executor\//, /^<frozen /, /\/lib(64)?\/python3\.\d+t?\/(?!(site|dist)-packages\/)/,
];

const isFramework = file => FRAMEWORK.some(one => one.test(file));

/** The parts of a message: `{lines, frames}`. `frames` is the number of frames of the framework in a part, or 0. */
export function partsOf(text) {
  const parts = [];
  let frame = null;  // the prefix of the present frame, and whether it is of the framework
  let own = 0;
  const add = (line, begins) => {
    const folds = frame?.framework ?? false, last = parts.at(-1);
    if (last && last.frames > 0 === folds) {
      last.lines.push(line);
      if (begins && folds) last.frames += 1;
    } else parts.push({lines: [line], frames: folds ? 1 : 0});
  };
  for (const line of text.split("\n")) {
    const found = FRAME.exec(line);
    if (found) {
      frame = {prefix: `${found[1]}   `, framework: isFramework(found[2])};
      if (!frame.framework) own += 1;
      add(line, true);
      continue;
    }
    // The lines of a frame are its source, marks below it, and how often it is repeated.
    if (frame && !line.startsWith(frame.prefix) && !/^\s*\[Previous line repeated/.test(line)) frame = null;
    add(line, false);
  }
  // A traceback without a frame of the job is shown whole.
  return own ? parts : [{lines: text.split("\n"), frames: 0}];
}

export function Message({text}) {
  const [whole, setWhole] = useState(false);
  const parts = useMemo(() => partsOf(text), [text]);
  const folds = parts.some(part => part.frames > 0);
  return html`<header class="head"><h3>${t("message")}</h3>${folds && html`<div class="actions"><button type="button"
      aria-pressed=${whole} onClick=${() => setWhole(!whole)}>${t(whole ? "fold" : "unfold")}</button></div>`}</header>
    <pre class="log" tabindex="0">${whole || !folds ? text : parts.map((part, index) => html`<span key=${index}
      class=${part.frames ? "quiet" : ""}>${part.frames ? `  ${t("folded", {n: part.frames})}` : part.lines.join("\n")}${
        index < parts.length - 1 ? "\n" : ""}</span>`)}</pre>`;
}
