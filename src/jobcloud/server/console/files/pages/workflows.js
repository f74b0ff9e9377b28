// The workflows: their list at /workflows, one of them at /workflows/KEY, one of their runs at /workflows/runs/RUN.
import {html} from "../core/html.js";
import {Later} from "./job/later.js";
import WorkflowList from "./workflow/list.js";

const PAGE = () => import("./workflow/page.js");
const RUN = () => import("./workflow/run.js");

export default function Workflows({parts, query}) {
  if (parts[0] === "runs" && parts.length > 1) return html`<${Later} key="run" load=${RUN} id=${parts[1]} />`;
  if (parts.length) return html`<${Later} key="page" load=${PAGE} name=${parts[0]} />`;
  return html`<${WorkflowList} key="list" query=${query} />`;
}
