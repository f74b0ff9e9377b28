// Parts that are loaded when they are needed, because they take a large module such as that of charts.
import {html, useEffect, useState} from "../../core/html.js";
import {ErrorBox, Loading} from "../../core/parts.js";

/** The default export of `load()`, drawn with the other properties. `load` must stay the same function. */
export function Later({load, ...properties}) {
  const [found, setFound] = useState(null);
  useEffect(() => {
    load().then(module => setFound({Part: module.default}), failure => setFound({failure}));
  }, [load]);
  if (!found) return html`<${Loading} />`;
  return found.failure ? html`<${ErrorBox} problem=${found.failure} again=${() => location.reload()} />` : html`<${found.Part} ...${properties} />`;
}
