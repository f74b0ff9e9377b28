// Why a job runs or waits.
import {html} from "../../core/html.js";
import {texts} from "../../core/i18n.js";
import {Ago} from "../../core/parts.js";
import {reasonText} from "../../core/reasons.js";
import {link} from "../../core/router.js";

const t = texts({
  en: {title: "Reasons"},
  zh: {title: "原因"},
});

/** A text in which the ids of the job's runs are links. */
function Linked({text, job}) {
  return html`${text.split(/([^\s,;，；：]+@[^\s,;:，；：]+)/).map(part => part.startsWith(`${job}.`) && part.includes("@")
    ? html`<a href=${link`/runs/${part}`}>${part}</a>` : part)}`;
}

/** A reason in words, with the instant at which it ends. */
function Reason({of, job}) {
  // The head of the page has the next firing.
  const until = of.code !== "not_due" && of.until;
  return html`<${Linked} text=${reasonText(of)} job=${job} />${until && html` <span class="quiet">(<${Ago} at=${until} />)</span>`}`;
}

export const ReasonList = ({of, job}) => html`<ul class="reasons" aria-label=${t("title")}>${of.map(one => html`
  <li key=${`${one.code} ${one.resource} ${one.text}`}><${Reason} of=${one} job=${job} /></li>`)}</ul>`;

/** All reasons of an explanation, the most important one first. */
export function Reasons({of, job}) {
  if (!of.length) return html`<p class="verdict">${reasonText(null)}</p>`;
  return html`<p class="verdict"><${Reason} of=${of[0]} job=${job} /></p>
    ${of.length > 1 && html`<${ReasonList} of=${of.slice(1)} job=${job} />`}`;
}
