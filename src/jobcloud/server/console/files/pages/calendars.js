// The calendars: sets of days on which jobs do not fire, or the only days on which they fire.
import {can, canSomewhere} from "../core/access.js";
import {change, get, getTagged, path} from "../core/api.js";
import {html, useId, useState} from "../core/html.js";
import {number, texts} from "../core/i18n.js";
import {useLoaded, usePages} from "../core/live.js";
import {Action, Check, Dialog, Facts, Field, Form, Listing, Loaded, Page, Section, Table} from "../core/parts.js";
import {link, navigate} from "../core/router.js";

const t = texts({
  en: {
    title: "Calendars", hint: "Jobs name calendars of their team in skipOn and onlyOn.", none: "There is no calendar.",
    calendar: "Calendar", count: "Days", known: "Known until", jobs: "Jobs", description: "Description",
    add: "New calendar", edit: "Replace", remove: "Remove", save: "Save",
    question: "The calendar {calendar} is removed. This is refused while a job names it.",
    name: "Name", name_hint: "NAME or TEAM:NAME", exists: "There is {name} already.", days: "Days of its own", days_hint: "A day or a range a line: 2026-12-24, 2026-12-28/2027-01-01",
    without: "Without", without_hint: "Days that it does not have in any case, one a line", country: "Country", country_hint: "Its holidays: two letters, such as DE",
    subdivision: "Part of the country", weekends: "Weekends too", file: "iCalendar file (.ics)", until: "Last year", until_hint: "Empty: five years from now",
    no_file: "Without its iCalendar file", file_again: "The text of the file is not kept. Choose the file again, or replace the calendar without it.",
    not_number: "{name} is not a number.",
    next: "The next year", from: "From", to: "To", no_days: "It has no day in the next year.",
    ends: "Later days count as days that it does not have. Replace it to learn of further years.",
    made: "Made from", libraries: "Libraries", categories: "Kinds of holidays", changed: "with an iCalendar file", no_jobs: "No job names it.", more: "and {n} more",
  },
  zh: {
    title: "日历", hint: "作业在 skipOn 和 onlyOn 中引用所属团队的日历。", none: "没有日历。",
    calendar: "日历", count: "天数", known: "已知至", jobs: "作业", description: "说明",
    add: "新建日历", edit: "替换", remove: "删除", save: "保存",
    question: "将删除日历 {calendar}。仍有作业引用它时会被拒绝。",
    name: "名称", name_hint: "名称或 团队:名称", exists: "{name} 已存在。", days: "自定日期", days_hint: "每行一个日期或区间：2026-12-24、2026-12-28/2027-01-01",
    without: "排除", without_hint: "日历始终不含的日期，每行一个", country: "国家或地区", country_hint: "其节假日：两个字母，如 DE",
    subdivision: "行政区", weekends: "包含周末", file: "iCalendar 文件（.ics）", until: "最后一年", until_hint: "留空：从今年起五年",
    no_file: "不再使用 iCalendar 文件", file_again: "文件内容不会保留。请重新选择文件，或不使用文件替换日历。",
    not_number: "{name} 不是数字。",
    next: "未来一年", from: "从", to: "到", no_days: "未来一年没有日期。",
    ends: "之后的日期按日历不包含处理。替换日历即可获知后续年份。",
    made: "来源", libraries: "所用库", categories: "节假日类别", changed: "包含 iCalendar 文件", no_jobs: "没有作业引用它。", more: "另有 {n} 个",
  },
});

const concerned = changes => changes.more || changes.topics.includes("config");
const lines = text => text.split(/[\s,]+/).filter(Boolean);
const YEAR_MS = 365 * 86_400_000;

/** The ranges of a calendar in the next year, as pairs of days. */
function ofNextYear(days, now) {
  const [first, last] = [now, now + YEAR_MS].map(at => new Date(at).toISOString().slice(0, 10));
  return days.map(entry => entry.split("/")).map(ends => [ends[0], ends.at(-1)])
    .filter(([from, to]) => to >= first && from <= last);
}

function CalendarForm({known, tag, close, after}) {
  const own = useId(), source = known?.source;
  const [name, setName] = useState(known?.calendar ?? "");
  const [days, setDays] = useState((source?.days ?? []).join("\n"));
  const [without, setWithout] = useState((source?.without ?? []).join("\n"));
  const [country, setCountry] = useState(source?.country ?? "");
  const [subdivision, setSubdivision] = useState(source?.subdivision ?? "");
  const [weekends, setWeekends] = useState(source?.weekends ?? false);
  const [until, setUntil] = useState(String(source?.untilYear ?? ""));
  const [description, setDescription] = useState(known?.description ?? "");
  const [file, setFile] = useState(null);
  const [noFile, setNoFile] = useState(false);
  const make = async () => {
    if (!known) await checkNew(name);
    if (source?.icalSha256 && !file && !noFile) throw new Error(t("file_again"));
    if (until && !/^\d+$/.test(until)) throw new Error(t("not_number", {name: t("until")}));
    await change("PUT", path`calendars/${name}`, {tag, body: {
      days: lines(days), without: lines(without), country: country.trim(), subdivision: subdivision.trim(), weekends,
      categories: source?.categories ?? [], untilYear: until ? Number(until) : null, description,
      ical: file ? await file.text() : "",
    }});
    after(name);
  };
  return html`<${Dialog} title=${known ? `${t("edit")}: ${known.calendar}` : t("add")} close=${close}>
    <${Form} make=${make} label=${t("save")} close=${close}>
      ${!known && html`<${Field} label=${t("name")} value=${name} set=${setName} hint=${t("name_hint")} required max="201" />`}
      <${Field} label=${t("days")} value=${days} set=${setDays} hint=${t("days_hint")} lines="3" />
      <${Field} label=${t("country")} value=${country} set=${setCountry} hint=${t("country_hint")} max="2" />
      <${Field} label=${t("subdivision")} value=${subdivision} set=${setSubdivision} max="60" />
      <${Check} label=${t("weekends")} value=${weekends} set=${setWeekends} />
      <div class="field"><label for=${own}>${t("file")}</label>
        <input id=${own} type="file" accept=".ics,text/calendar" onChange=${event => setFile(event.target.files[0] ?? null)} />
        ${source?.icalSha256 && html`<div class="quiet">${t("file_again")}</div>`}</div>
      ${source?.icalSha256 && html`<${Check} label=${t("no_file")} value=${noFile} set=${setNoFile} />`}
      <${Field} label=${t("without")} value=${without} set=${setWithout} hint=${t("without_hint")} lines="2" />
      <${Field} label=${t("until")} value=${until} set=${setUntil} hint=${t("until_hint")} max="4" />
      <${Field} label=${t("description")} value=${description} set=${setDescription} max="300" /><//><//>`;
}

/** Throws an Error if there is such a calendar already: a PUT would replace it. */
async function checkNew(name) {
  const found = await get(path`calendars/${name}`).catch(problem => {
    if (problem.status === 404) return null;
    throw problem;
  });
  if (found) throw new Error(t("exists", {name}));
}

function Made({source}) {
  const parts = [
    source.country && `${source.country}${source.subdivision && ` ${source.subdivision}`}`, source.weekends && t("weekends"),
    source.icalSha256 && t("changed"), source.days.join(" "), source.without.length > 0 && `${t("without")}: ${source.without.join(" ")}`,
  ];
  return parts.filter(Boolean).join(", ");
}

const DAYS = [
  {key: "from", title: t("from"), cell: ([from]) => from},
  {key: "to", title: t("to"), cell: ([, to]) => to},
];

function Calendar({name}) {
  const calendar = useLoaded(name, async () => {
    const [found, tag] = await getTagged(path`calendars/${name}`);
    return {...found, tag};
  }, concerned);
  const [open, setOpen] = useState(null);
  const after = () => {
    setOpen(null);
    calendar.reload();
  };
  const found = calendar.data;
  const actions = found && can("configure", found.team) && html`
    <button type="button" onClick=${() => setOpen(found)}>${t("edit")}</button>
    <${Action} label=${t("remove")} danger question=${t("question", found)} after=${() => navigate("/calendars")}
      make=${() => change("DELETE", path`calendars/${name}`)} />`;
  return html`<${Page} title=${name} above=${html`<a href="/calendars">${t("title")}</a>`} actions=${actions}>
    <${Loaded} of=${calendar}>${one => html`
      <${Facts} of=${[
        [t("description"), one.description], [t("count"), number(one.dayCount)], [t("known"), one.knownUntil],
        [t("made"), html`<${Made} source=${one.source} />`], [t("categories"), one.source.categories.join(", ")],
        [t("libraries"), one.libraries],
      ]} />
      <p class="quiet">${t("ends")}</p>
      <${Section} title=${t("next")}><${Table} label=${t("next")} columns=${DAYS} rows=${ofNextYear(one.days, Date.now())}
        rowKey=${([from]) => from} empty=${t("no_days")} /><//>
      <${Section} title=${t("jobs")}>${one.jobs.length
        ? html`<ul class="plain">${one.jobs.map(key => html`<li key=${key}><a href=${link`/jobs/${key}`}>${key}</a></li>`)}</ul>
          ${one.jobCount > one.jobs.length && html`<p class="quiet">${t("more", {n: number(one.jobCount - one.jobs.length)})}</p>`}`
        : html`<p class="quiet">${t("no_jobs")}</p>`}<//>`}<//>
    ${open && html`<${CalendarForm} known=${open} tag=${open.tag} close=${() => setOpen(null)} after=${after} />`}<//>`;
}

const COLUMNS = [
  {key: "calendar", title: t("calendar"), cell: one => html`<a href=${link`/calendars/${one.calendar}`}>${one.calendar}</a>`},
  {key: "days", title: t("count"), number: true, cell: one => number(one.dayCount)},
  {key: "known", title: t("known"), cell: one => one.knownUntil},
  {key: "jobs", title: t("jobs"), number: true, cell: one => number(one.jobCount)},
  {key: "description", title: t("description"), cell: one => one.description, wide: true},
];

function Calendars() {
  const calendars = usePages("calendars", {}, concerned);
  const [open, setOpen] = useState(false);
  return html`<${Page} title=${t("title")} actions=${canSomewhere("configure") && html`<button type="button" class="primary"
      onClick=${() => setOpen(true)}>${t("add")}</button>`}>
    <p class="quiet">${t("hint")}</p>
    <${Listing} of=${calendars} label=${t("title")} columns=${COLUMNS} rowKey=${one => one.calendar} empty=${t("none")} />
    ${open && html`<${CalendarForm} close=${() => setOpen(false)} after=${name => navigate(link`/calendars/${name}`)} />`}<//>`;
}

export default function CalendarsPage({parts}) {
  return parts.length ? html`<${Calendar} key=${parts[0]} name=${parts[0]} />` : html`<${Calendars} />`;
}
