// All runs that failed since a time, from the history or, without one, from the scheduler.
import {get} from "../../core/api.js";
import {TextFilter} from "../../core/filters.js";
import {html, useRef, useState} from "../../core/html.js";
import {instantText, texts} from "../../core/i18n.js";
import {useLoaded} from "../../core/live.js";
import {Check, Choice, Field} from "../../core/parts.js";
import {setQuery} from "../../core/router.js";
import {keepsNoHistory} from "../../core/series.js";
import {RunTable} from "./table.js";

const t = texts({
  en: {
    failed: "Failed runs", since: "Failed since", hour: "the last hour", day: "the last 24 hours",
    week: "the last 7 days", month: "the last 30 days", date: "a date", day_of: "Date", job: "Job", team: "Team",
    killed: "killed ones too", none: "No run has failed since {at}.", again: "running again",
    from_history: "From the history: runs that the scheduler no longer keeps are here too, but cannot be retried.",
    from_scheduler: "This scheduler keeps no history. Here are the runs that the scheduler still keeps.",
    wrong: "{text} is not a time. Use for example 24h, 7d or 2026-12-01.",
    one_filter: "The history takes a job or a team. The job is used.",
  },
  zh: {
    failed: "失败的运行", since: "失败时间范围", hour: "最近 1 小时", day: "最近 24 小时",
    week: "最近 7 天", month: "最近 30 天", date: "指定日期", day_of: "日期", job: "作业", team: "团队",
    killed: "包括被终止的", none: "自 {at} 以来没有失败的运行。", again: "已重新运行",
    from_history: "数据来自历史库：也包括调度器已不再保留的运行，但它们无法重试。",
    from_scheduler: "此调度器没有历史库，仅显示调度器仍保留的运行。",
    wrong: "{text} 不是有效时间，请使用例如 24h、7d 或 2026-12-01。",
    one_filter: "历史库只支持按作业或团队之一筛选，此处按作业筛选。",
  },
});

const RANGES = [["1h", t("hour")], ["24h", t("day")], ["7d", t("week")], ["30d", t("month")], ["date", t("date")]];
const MS = {h: 3_600_000, d: 86_400_000};
const PAGE = 100;

/** The instant since which runs are wanted: of "24h", "7d", or a day such as "2026-12-01", which begins here. */
function sinceOf(text, now) {
  const [, n, unit] = /^(\d{1,4})([hd])$/.exec(text) ?? [];
  if (n) return new Date(now - n * MS[unit]);
  const [, year, month, day] = /^(\d{4})-(\d\d)-(\d\d)$/.exec(text) ?? [];
  const found = year ? new Date(year, month - 1, day) : null;
  return found && found.getMonth() === month - 1 && found.getFullYear() >= 1970 ? found : null;
}

/** The runs of one or two states that the scheduler has, the newest first. Their shards are left out. */
async function kept(states, filters, limit, signal) {
  const lists = await Promise.all(states.map(state => get("runs", {...filters, state, limit}, {signal})));
  return lists.flatMap(list => list.items.map(run => ({...run, shards: []})));
}

async function load({since, states, job, team, pages}, signal) {
  const filters = job ? {job} : {team};
  const wanted = {...filters, state: states, since: since.toISOString(), limit: PAGE};
  const items = [];
  let cursor = "", history = true;
  try {
    for (let page = 0; page < pages; page += 1) {
      const found = await get("history/runs", {...wanted, cursor}, {signal});
      items.push(...found.items);
      cursor = found.nextCursor;
      if (!cursor) break;
    }
  } catch (problem) {
    if (!keepsNoHistory(problem)) throw problem;
    history = false;
    const found = await kept(states, filters, 1_000, signal);
    items.push(...found.filter(run => Date.parse(run.endedAt ?? run.firedAt) >= since)
      .sort((one, other) => Date.parse(other.firedAt) - Date.parse(one.firedAt)).slice(0, pages * PAGE));
  }
  if (!history) return {items, history, more: items.length === pages * PAGE};
  // The history knows a run that was retried as failed until it ends again.
  const unfinished = new Map((await kept(["ACTIVE", "WAITING"], filters, 200, signal)).map(run => [run.id, run]));
  const now = run => unfinished.has(run.id) ? {...run, ...unfinished.get(run.id), note: t("again")} : run;
  return {items: items.map(now), history, more: Boolean(cursor)};
}

export function FailedRuns({query}) {
  const text = query.get("failed") || "24h";
  const job = query.get("job") ?? "", team = query.get("team") ?? "", killed = query.has("killed");
  const since = sinceOf(text, Date.now());
  const [shown, setShown] = useState({key: "", pages: 1});
  const key = JSON.stringify([text, job, team, killed]);
  const pages = shown.key === key ? shown.pages : 1;
  const states = killed ? ["FAILED", "DEAD", "KILLED"] : ["FAILED", "DEAD"];
  const runs = useLoaded(`${key} ${pages}`,
    async signal => {
      // "The last 24 hours" move on while the page is open.
      const from = sinceOf(text, Date.now());
      return from ? load({since: from, states, job, team, pages}, signal) : {items: [], history: true, more: false};
    },
    changes => changes.more || (job ? changes.jobs.includes(job) : changes.runs.length > 0));
  const range = RANGES.some(([name]) => name === text) ? text : "date";
  const today = new Date(Date.now() - new Date().getTimezoneOffset() * 60_000).toISOString().slice(0, 10);
  const last = useRef({});
  if (runs.data) last.current = {key, data: runs.data};
  // While a further page is loaded, the present ones stay.
  const data = runs.data ?? (last.current.key === key ? last.current.data : null);
  const of = {
    ...runs, items: data?.items ?? [], more: data?.more ?? false, loading: runs.loading && !data,
    loadMore: () => setShown({key, pages: pages + 1}),
  };
  return html`
    <div class="filters">
      <${Choice} label=${t("since")} value=${range} options=${RANGES}
        set=${value => setQuery({failed: value === "date" ? today : value})} />
      ${range === "date" && html`<${Field} label=${t("day_of")} type="date" value=${text}
        set=${value => value && setQuery({failed: value}, {replace: true})} />`}
      <${TextFilter} name="job" label=${t("job")} value=${query.get("job") ?? ""} /><${TextFilter} name="team" label=${t("team")} value=${query.get("team") ?? ""} />
      <${Check} label=${t("killed")} value=${killed} set=${value => setQuery({killed: value ? "1" : ""})} /></div>
    ${job && team && html`<p class="quiet">${t("one_filter")}</p>`}
    ${!since && html`<div class="error" role="alert"><p>${t("wrong", {text})}</p></div>`}
    ${data && since && html`<p class="quiet">${t(data.history ? "from_history" : "from_scheduler")}</p>`}
    ${since && html`<${RunTable} of=${of} label=${t("failed")}
      empty=${t("none", {at: instantText(since.toISOString())})} />`}`;
}
