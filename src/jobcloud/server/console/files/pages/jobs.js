// The jobs: their list at /jobs, one of them at /jobs/KEY, a new one at /jobs?new=1.
import {html} from "../core/html.js";
import {Later} from "./job/later.js";
import JobList from "./job/list.js";

const PAGE = () => import("./job/page.js");
const FORM = () => import("./job/new.js");

export default function Jobs({parts, query}) {
  if (parts.length) return html`<${Later} key="page" load=${PAGE} name=${parts[0]} query=${query} />`;
  if (query.has("new")) return html`<${Later} key="new" load=${FORM} query=${query} />`;
  return html`<${JobList} key="list" query=${query} />`;
}
