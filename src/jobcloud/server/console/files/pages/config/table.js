// All fields of a configuration. Defaults are grey.
import {html} from "../../core/html.js";
import {texts} from "../../core/i18n.js";
import {useLoaded} from "../../core/live.js";
import {Check, Loaded} from "../../core/parts.js";
import {setQuery} from "../../core/router.js";
import {FieldName, grouped, hasDefault, isDefault, loadFields, Meaning, Value, valueIn} from "./fields.js";

const t = texts({
  en: {
    own: "Only fields that differ from their defaults", field: "Field", value: "Value", meaning: "Meaning",
    by_default: "default", was: "default: ",
  },
  zh: {
    own: "仅显示与默认值不同的字段", field: "字段", value: "值", meaning: "含义",
    by_default: "默认", was: "默认：",
  },
});

function Row({field, value}) {
  const unset = isDefault(field, value);
  const told = unset ? html`<span class="quiet">(${t("by_default")})</span>` : hasDefault(field)
    && html`<span class="quiet">(${t("was")}<${Value} path=${field.path} value=${field.fallback} />)</span>`;
  return html`<tr class=${unset ? "unset" : ""}><th scope="row"><${FieldName} field=${field} /></th>
    <td><${Value} path=${field.path} value=${value} />${" "}
      ${told}</td>
    <td class="meaning"><${Meaning} field=${field} /></td></tr>`;
}

export function Configuration({kind, config, query}) {
  const fields = useLoaded(kind.schema, () => loadFields(kind), () => false);
  const own = query.get("own") === "1";
  return html`<${Loaded} of=${fields}>${known => {
    const wanted = (field, value) => !isDefault(field, value)
      || (!own && kind.hasMeaning(field, config));
    const shown = known.map(field => [field, valueIn(config, field)]).filter(one => wanted(...one));
    const values = new Map(shown);
    return html`<${Check} label=${t("own")} value=${own}
        set=${value => setQuery({own: value && "1"}, {replace: true})} />
      <div class="scroll"><table class="configuration">
        <thead><tr><th scope="col">${t("field")}</th><th scope="col">${t("value")}</th>
          <th scope="col" class="meaning">${t("meaning")}</th></tr></thead>
        ${grouped(kind, shown.map(([field]) => field)).map(([name, members]) => html`<tbody key=${name}>
          <tr class="group"><th scope="rowgroup" colspan="3">${kind.groupName(name)}</th></tr>
          ${members.map(field => html`
            <${Row} key=${field.path} field=${field} value=${values.get(field)} />`)}</tbody>`)}
      </table></div>`;
  }}<//>`;
}
