// The apps, one app, or the form of one.
import {html} from "../core/html.js";
import {EditApp, NewApp} from "./app/form.js";
import AppList from "./app/list.js";
import AppPage from "./app/page.js";

export default function Apps({parts, query}) {
  if (parts.length) {
    return query.get("tab") === "edit" ? html`<${EditApp} key="edit" name=${parts[0]} />`
      : html`<${AppPage} key="show" name=${parts[0]} query=${query} />`;
  }
  return query.get("new") === "1" ? html`<${NewApp} />` : html`<${AppList} query=${query} />`;
}
