"""The output of commands: JSON for scripts; tables, ages and local times for people.

Text from the server is printed as plain text: markup and control characters in it have no effect. Libraries are
imported when they are used, as every command imports this module, `--help` too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from time import sleep as pause
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

    from jobcloud.client.http import Json

T = TypeVar("T")

# Width of output that is not a terminal's: wide enough that no table is cut.
# The columns of a line with a field of a configuration.
_FIELD = 76
_WIDE = 10_000
_WATCH_S = 2.0
# The widths below which columns of a table are not cut.
_LEAST_LAST, _LEAST_NAME, _LEAST_INNER = 10, 24, 6
_TIME = len(".20260101T000000Z")
_COLOURS = {
    "FINISHED": "green",
    "SUCCEEDED": "green",
    "RUNNING": "cyan",
    "ACTIVE": "cyan",
    "WAITING": "yellow",
    "STAGING": "yellow",
    "STARTING": "yellow",
    "STORED": "yellow",
    "KILLING": "magenta",
    "KILLED": "magenta",
    "CANCELLED": "magenta",
    "FAILED": "red",
    "DEAD": "bold red",
    "UNREACHABLE": "red",
    "disabled": "red",
    "enabled": "green",
    "paused": "yellow",
}


def console(*, error: bool = False) -> Console:
    """A console on standard output or standard error. Only a terminal limits the width of lines."""
    from rich.console import Console

    stream = sys.stderr if error else sys.stdout
    return Console(
        file=stream, highlight=False, soft_wrap=not stream.isatty(), width=None if stream.isatty() else _WIDE
    )


def show(value: T, table: Callable[[T], None], *, as_json: bool) -> None:
    """Print an answer of the server as JSON or with `table`."""
    if as_json:
        show_json(value)
    else:
        table(value)


def answer(value: Json, text: str, *, as_json: bool) -> None:
    """Print an answer of the server as JSON or in one sentence."""
    if as_json:
        show_json(value)
    else:
        say(text)


def show_json(value: object) -> None:
    import json

    import msgspec

    # json itself indents in Python, which takes seconds for a large answer.
    sys.stdout.write(msgspec.json.format(json.dumps(value, ensure_ascii=False), indent=2) + "\n")


def show_line(value: object) -> None:
    """Print a value as JSON in one line."""
    import json

    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


def show_table(titles: Sequence[str], rows: Iterable[Sequence[object]], nothing: str, *, cut: bool = False) -> None:
    """Print a table, or `nothing` if it has no rows. Titles that end in "#" belong to columns of numbers.

    `cut`: on a terminal, the last column is cut, so that each row takes one line.
    """
    from rich.table import Table
    from rich.text import Text

    lines = [[clean(cell) for cell in row] for row in rows]
    if not lines:
        console().print(Text(nothing, "dim"))
        return
    if cut:
        lines = fitted([title.rstrip("#") for title in titles], lines, console().width)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title in titles:
        table.add_column(title.rstrip("#"), justify="right" if title.endswith("#") else "left", overflow="fold")
    for line in lines:
        table.add_row(*(Text(cell, _COLOURS.get(cell, "")) for cell in line))
    console().print(table)


def fitted(titles: Sequence[str], lines: Iterable[Sequence[str]], width: int) -> list[list[str]]:
    """The rows in `width` characters: the last cells are cut, then the middle of the first ones, then other cells.

    Commands take a first cell without its middle as a name. Line feeds become spaces.
    """
    flat = [[_in_line(cell) for cell in line] for line in lines]
    widths = [max(len(row[column]) for row in [titles, *flat]) for column in range(len(titles))]
    while (over := sum(widths) + 2 * len(widths) - 2 - width) > 0:
        limits = [(-1, _LEAST_LAST), (0, _LEAST_NAME)]
        if inner := range(1, len(widths) - 1):
            limits.append((max(inner, key=widths.__getitem__), _LEAST_INNER))
        column, least = next(((i, least) for i, least in limits if widths[i] > least), (0, 0))
        if not least:
            break
        widths[column] = max(least, widths[column] - over)
    return [
        [_abbreviated(line[0], widths[0]), *(_cut(cell, most) for cell, most in zip(line[1:], widths[1:], strict=True))]
        for line in flat
    ]


def _in_line(text: str) -> str:
    return text.replace("\n", " ")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _abbreviated(name: str, most: int) -> str:
    """A name or an id without its cluster or its middle. Most of its end is kept, which has the time of a run."""
    if len(name) > most:
        name = name.rpartition("@")[0] or name
    if len(name) <= most:
        return name
    end = max((most - 1) * 2 // 3, min(_TIME, most - 2))
    return f"{name[: most - 1 - end]}…{name[-end:]}"


def nothing(what: str, filters: Mapping[str, str], otherwise: str) -> str:
    """The text of an empty list: the filters that nothing matches, or `otherwise` if there are none."""
    given = " ".join(f"{option} {value}".strip() for option, value in filters.items() if value)
    return f"no {what} matches {given}" if given else otherwise


def watched(read: Callable[[], T], table: Callable[[T], None], *, watch: bool, as_json: bool) -> None:
    """Show an answer of the server once, or with `watch` again and again until Ctrl-C.

    Each table is on a cleared screen, and each JSON document in a line of its own.
    """
    while True:
        value = read()
        if watch and as_json:
            show_line(value)
        else:
            if watch and sys.stdout.isatty():
                sys.stdout.write("\x1b[H\x1b[2J")
            show(value, table, as_json=as_json)
        if not watch:
            return
        sys.stdout.flush()
        try:
            pause(_WATCH_S)
        except KeyboardInterrupt:
            return


def show_fields(fields: Iterable[tuple[str, object]]) -> None:
    """Print one line per field. Empty fields are left out."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in fields:
        if value not in ("", None, []):
            table.add_row(name, Text(clean(value), _COLOURS.get(clean(value), "")))
    console().print(table)


def say(text: str, style: str = "") -> None:
    from rich.text import Text

    console().print(Text(clean(text), style))


def complain(text: str) -> None:
    """Print an error to standard error."""
    from rich.text import Text

    console(error=True).print(Text.assemble(("error: ", "bold red"), clean(text)))


def clean(value: object) -> str:
    """The value as text without control characters: the message of a job must not control the terminal."""
    text = {None: "-", True: "yes", False: "no"}.get(value) if isinstance(value, bool | None) else str(value)
    return "".join(char if char.isprintable() or char == "\n" else "�" for char in text or "")


def moment(instant: str | None, now: datetime | None = None) -> str:
    """An instant of the API in local time with its age: "08:00:00 (2m ago)"."""
    if not instant:
        return "-"
    then = datetime.fromisoformat(instant)
    now = now or datetime.now(UTC)
    local, today = then.astimezone(), now.astimezone()
    form = "%H:%M:%S" if local.date() == today.date() else "%Y-%m-%d %H:%M:%S"
    return f"{local:{form}} ({age((now - then).total_seconds())})"


def firing(instant: str | None, zone: str) -> str:
    """A fire time as `moment`, and on the clock of the job's time zone if that shows something else."""
    if not instant:
        return "-"
    from jobcloud import zones

    then = datetime.fromisoformat(instant)
    try:
        there = then.astimezone(zones.zone(zone))
    except LookupError:  # the server may know newer zones
        return f"{moment(instant)}, time zone {zone}"
    if there.utcoffset() == then.astimezone().utcoffset():
        return moment(instant)
    return f"{moment(instant)}, {there:%Y-%m-%d %H:%M:%S} in {zone}"


def short_moment(instant: str | None) -> str:
    """An instant of the API in local time, in 8 or 11 characters: "08:00:00", or "01-31 08:00" if it is not today."""
    if not instant:
        return "-"
    local = datetime.fromisoformat(instant).astimezone()
    today = local.date() == datetime.now(UTC).astimezone().date()
    return f"{local:%H:%M:%S}" if today else f"{local:%m-%d %H:%M}"


def took(start: str | None, end: str | None) -> str:
    """The time from one instant of the API to another, or to now: "1m30s"."""
    if not start:
        return "-"
    until = datetime.fromisoformat(end) if end else datetime.now(UTC)
    return duration((until - datetime.fromisoformat(start)).total_seconds())


def age(seconds: float) -> str:
    """12 → "12s ago"; -90 → "in 1m30s"."""
    return f"{duration(seconds)} ago" if seconds >= 0 else f"in {duration(seconds)}"


def duration(seconds: float) -> str:
    """90 → "1m30s"; the sign is left out."""
    size = abs(round(seconds))
    for unit, length, next_unit, next_length in (("d", 86_400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if size >= length:
            rest = size % length // next_length
            return f"{size // length}{unit}" + (f"{rest}{next_unit}" if rest else "")
    return f"{size}s"


# ------------------------------------------------------------------------------------------------------------- tables


def apps(items: Iterable[Json]) -> None:
    rows = (
        (
            a["appName"],
            _enabled(a),
            len(a["jobs"]),
            a["config"]["cpuCount"],
            a["config"]["memoryMB"],
            a["config"]["appURL"],
        )
        for a in items
    )
    show_table(
        ("APP", "STATE", "JOBS#", "CPUS#", "MEM MB#", "PACKAGE"),
        rows,
        "no apps yet; register one: jobcloud app add DIR",
    )


def jobs(items: Iterable[Json], *, wide: bool = True, empty: str = "") -> None:
    if not wide:
        short = (
            (
                j["jobName"],
                _enabled(j),
                f"{j['activeShards']}/{j['waitingShards']}",
                (j["lastRun"] or {}).get("state", "-"),
                short_moment(j["nextFiring"]),
                j["config"]["cron"],
            )
            for j in items
        )
        show_table(("JOB", "STATE", "ACT/WAIT", "LAST RUN", "NEXT", "CRON"), short, empty, cut=True)
        return
    rows = (
        (
            j["jobName"],
            j["appName"],
            j["config"]["jobExecutionType"],
            j["config"]["cron"],
            j["config"]["shardingTotalCount"],
            _enabled(j),
            f"{j['activeShards']}/{j['waitingShards']}",
            (j["lastRun"] or {}).get("state", "-"),
            moment(j["nextFiring"]),
        )
        for j in items
    )
    titles = ("JOB", "APP", "KIND", "CRON", "SHARDS#", "STATE", "ACTIVE/WAITING", "LAST RUN", "NEXT RUN")
    show_table(titles, rows, empty)


def queue(items: Iterable[Json], *, empty: str = "") -> None:
    rows = (
        (job["jobName"], job["waiting"], job["ready"], short_moment(job["oldestWait"]), job["reason"]) for job in items
    )
    show_table(("JOB", "WAIT#", "READY#", "SINCE", "REASON"), rows, empty, cut=True)


def webhook(item: Json) -> None:
    show_fields(
        [
            ("URL", item["url"]),
            ("signature", item["webhookScheme"]),
            ("keys", ", ".join(item["webhookSecrets"])),
            ("parameters", ", ".join(item["webhookParameters"])),
        ]
    )


def _next_run(item: Json) -> str:
    after_run = any(text.startswith("@after ") for text in item["config"].get("triggers", ()))
    if after_run and not item["nextFiring"] and item["enabled"]:
        return "known when its run has ended (@after)"
    return firing(item["nextFiring"], item["config"]["timeZone"])


def job(item: Json) -> None:
    run = item["lastRun"]
    show_fields(
        [
            ("job", item["jobName"]),
            ("app", item["appName"]),
            ("state", _enabled(item)),
            ("paused", ", ".join(item.get("pausedBy", ()))),
            ("next run", _next_run(item)),
            ("shards", f"{item['activeShards']} active, {item['waitingShards']} waiting"),
            ("last run", f"{run['id']} {run['state']} {moment(run['firedAt'])}" if run else "never"),
            ("outdated shards", item["outdatedShards"] or ""),
            ("dead runs", item["deadRuns"] or ""),
            ("backfill", f"{item['backfillWaiting']} fire times wait" if item.get("backfillWaiting") else ""),
            ("skipped runs", f"{item['skippedFirings']}: {item['skippedReason']}" if item["skippedFirings"] else ""),
            *((name, value) for name, value in item["config"].items() if name not in ("jobName", "appName")),
        ]
    )


def backfill(item: Json) -> None:
    for time in item["times"]:
        say(moment(time))
    count, job = len(item["times"]), item["jobName"]
    more = "; further ones are beyond the limit" if item["more"] else ""
    verb = "would get" if item["dryRun"] else "get"
    say(f"{count} fire times of job {job} {verb} a run{more}; fire times that wait now: {item['waiting']}")


def alerts(item: Json, *, wide: bool = False) -> None:
    """The alerts, and the channels that do not take messages. With `wide`, all columns and all channels."""
    found = item["items"]
    if wide:
        rows = (
            (
                a["condition"], a["subject"], a["team"], a["owner"], _alert_state(a), moment(a["openedAt"]),
                moment(a["closedAt"]), a["count"], ", ".join(a["untold"]), _in_line(a["text"]),
            )
            for a in found
        )  # fmt: skip
        titles = ("CONDITION", "SUBJECT", "TEAM", "OWNER", "STATE", "SINCE", "ENDED", "COUNT#", "UNTOLD", "TEXT")
        show_table(titles, rows, "no alert is open")
    else:
        short = ((a["condition"], a["subject"], _alert_state(a), short_moment(a["openedAt"]), a["text"]) for a in found)
        show_table(("CONDITION", "SUBJECT", "STATE", "SINCE", "TEXT"), short, "no alert is open", cut=True)
    if not item["channels"]:
        say("no channel is configured, so no alert opens: set alerts.channels_file")
    for channel in item["channels"]:
        if channel["problem"]:
            again = moment(channel["nextAttempt"])
            say(f"channel {channel['name']} does not take messages: {channel['problem']}; next attempt {again}")
        elif wide:
            say(f"channel {channel['name']}: {channel['kind']}")


def _alert_state(alert: Json) -> str:
    return f"{alert['state']}, silenced" if alert["silenced"] else str(alert["state"])


def silences(items: Iterable[Json]) -> None:
    rows = (
        (s["id"], moment(s["until"]), s["condition"] or "all", s["subject"] or "all", _of_whom(s), s["comment"])
        for s in items
    )
    show_table(("ID", "UNTIL", "CONDITION", "SUBJECT", "TEAM/OWNER", "COMMENT"), rows, "nothing is silenced", cut=True)


def pools(items: Iterable[Json]) -> None:
    rows = ((p["name"], p["used"], p["slots"], p["waiting"], p["jobs"], p["description"]) for p in items)
    titles = "POOL", "USED#", "SLOTS#", "WAITING#", "JOBS#", "DESCRIPTION"
    show_table(titles, rows, "there is no pool", cut=True)


def sessions(items: Iterable[Json]) -> None:
    rows = (
        (s["id"], s["subject"], s["by"], moment(s["createdAt"]), moment(s["seenAt"]), moment(s["expiresAt"]))
        for s in items
    )
    show_table(("ID", "WHO", "BY", "SINCE", "USED", "ENDS"), rows, "nobody has signed in")


def _of_whom(silence: Json) -> str:
    return f"{silence['team'] or '*'}/{silence['owner'] or '*'}" if silence["team"] or silence["owner"] else "all"


def app(item: Json) -> None:
    show_fields(
        [
            ("app", item["appName"]),
            ("state", _enabled(item)),
            ("jobs", ", ".join(item["jobs"])),
            ("warm executors", _warm(item)),
            *((name, value) for name, value in item["config"].items() if name != "appName"),
        ]
    )


_SIGNS = {"added": ("+", "green"), "changed": ("~", "yellow"), "removed": ("-", "red"), "left": ("!", "yellow")}


def applied(answer: Json) -> None:
    """The changes of `jobcloud apply`: one line per app and job that is not unchanged, and one per field."""
    items = answer["items"]
    for item in items:
        if item["action"] == "unchanged":
            continue
        sign, style = _SIGNS[item["action"]]
        note = ": registered, but not in the files (--prune removes it)" if item["action"] == "left" else ""
        say(f"{sign} {item['kind']} {item['key']}{note}", style)
        changed_fields(item["changes"])
    counts = {action: sum(item["action"] == action for item in items) for action in (*_SIGNS, "unchanged")}
    told = ", ".join(f"{count} {action}" for action, count in counts.items() if count)
    if not any(counts[action] for action in ("added", "changed", "removed")):
        say(f"nothing to change ({told or 'no apps and no jobs'})")
    else:
        say(f"{told}; this was a dry run, nothing is changed" if answer["dryRun"] else told)


def changed_fields(changes: Iterable[Json]) -> None:
    """One line per field: its value before and after."""
    for change in changes:
        before, after = (_in_json(change[side]) for side in ("before", "after"))
        say(f"    {change['field']}: {before} → {after}")


def configurations(items: Iterable[tuple[Json, str]]) -> None:
    """The configurations of a job, each with what it has changed."""
    rows = ((one["revision"], short_moment(one["at"]), one["by"] or "-", changes) for one, changes in items)
    show_table(("REVISION", "CHANGED", "BY", "CHANGES"), rows, "the history does not know this job")


def compared_fields(changes: Iterable[tuple[str, object, object]]) -> None:
    """Each field with its value before and after: in one line, or in two if the line would be too long."""
    for name, *values in changes:
        before, after = (_in_json(value, _FIELD - 2) for value in values)
        if len(name) + len(before) + len(after) + 5 <= _FIELD:
            say(f"{name}: {before} → {after}")
        else:
            say(f"{name}:\n  - {before}\n  + {after}")


def notes(items: Sequence[Json] | None, problem: str = "") -> None:
    """The notes of a run. None: they cannot be read, because of a problem."""
    if items is None:
        say(f"the notes cannot be read: {problem}")
    for one in items or ():
        say(f"note {one['number']}, {moment(one['at'])}, {one['by'] or 'unknown'}: {one['text']}")


def _in_json(value: object, most: int = 200) -> str:
    import json

    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= most else f"{text[:most]}…"


def sent(name: str, done: int, size: int) -> None:
    """Show the progress of an upload, in one line of a terminal."""
    if sys.stderr.isatty():
        percent = 100 * done // max(size, 1)
        end = "\n" if done >= size else ""
        sys.stderr.write(f"\ruploading {size / 1e6:,.1f} MB: {percent} %{end}")
        sys.stderr.flush()


def versions(items: Iterable[Json]) -> None:
    rows = (
        (
            v["number"],
            "current" if v["current"] else "",
            short_moment(v["registeredAt"]),
            v["registeredBy"],
            v["packageSha256"][:12],
            _size(v["packageSize"]),
            v["executors"],
            v["config"]["description"],
        )
        for v in items
    )
    titles = ("VERSION#", "", "REGISTERED", "BY", "PACKAGE", "SIZE#", "EXECUTORS#", "DESCRIPTION")
    show_table(titles, rows, "no versions", cut=True)


def _size(count: int | None) -> str:
    """1_500_000 → "1.5 MB"; None: the package is no longer kept."""
    return "gone" if count is None else f"{count / 1e6:,.1f} MB"


def executors(items: Iterable[Json], *, wide: bool = True, empty: str = "") -> None:
    rows = (
        (
            e["appName"],
            e["hostname"].partition(".")[0] or e["agentId"],
            e["packageSha256"][:12],
            e["tasks"],
            took(e["launchedAt"], None),
            f"{e['state']}, warm" if e["kept"] else e["state"],
            *((e["id"], e["agentId"]) if wide else ()),
        )
        for e in items
    )
    titles = ("APP", "HOST", "PACKAGE", "TASKS#", "AGE#", "STATE", *(("EXECUTOR", "AGENT") if wide else ()))
    show_table(titles, rows, empty, cut=not wide)


def event(item: Json) -> None:
    """One notice in one line."""
    shard = f"/{item['item']}" if item["item"] >= 0 else ""
    about = (item["runId"] or item["jobName"] or item["appName"]) + shard
    head = " ".join(filter(None, (short_moment(item["at"]), item["topic"], about, item["state"])))
    text = _in_line(item["text"])
    say(f"{head}: {text}" if text else head)


def rollout(item: Json) -> None:
    """The progress of a roll-out: one line per job, and its result if it has ended."""
    for job in item["jobs"]:
        reason = job["stopped"] or job["waiting"]
        progress = f"job {job['jobName']}: {job['running']} of {job['shards']} shards run the new version"
        say(f"{progress}; {reason}" if reason else progress)
    if item["executorsLacking"]:
        say(item["executorsLacking"])
    if item["state"] == "stopped":
        stopped = f"the roll-out of app {item['appName']} has stopped; shards not yet replaced keep the old version"
        say(stopped, "bold red")
        say("to continue, fix the app and run `jobcloud app update` again; to go back, run it with the old version")
    elif item["state"] == "done":
        say(f"app {item['appName']} is up to date", "bold green")


def _warm(app: Json) -> str:
    if not app["config"]["executors"]:
        return ""
    return app["executorsLacking"] or f"{app['warmExecutors']}"


def tasks(items: Iterable[Json], *, wide: bool = True, empty: str = "") -> None:
    if not wide:
        short = (
            (
                f"{t['jobName']}/{t['step'] or t['item']}",
                t["state"],
                t["attempt"],
                t["hostname"].partition(".")[0],
                short_moment(t["startedAt"] or t["createdAt"]),
                took(t["startedAt"], t["endedAt"]),
                _message(t),
            )
            for t in items
        )
        show_table(("TASK", "STATE", "TRY#", "HOST", "STARTED", "TOOK#", "REASON"), short, empty, cut=True)
        return
    rows = (
        (
            f"{t['jobName']}/{t['step'] or t['item']}",
            t["state"],
            t["attempt"],
            _host(t),
            moment(t["startedAt"] or t["createdAt"]),
            moment(t["endedAt"]),
            _in_line(_message(t))[:200],
            t["id"],
        )
        for t in items
    )
    titles = ("JOB/SHARD", "STATE", "ATTEMPT#", "HOST", "STARTED", "ENDED", "MESSAGE", "TASK")
    show_table(titles, rows, empty)


def _host(task: Json) -> str:
    """The host with the first ports of the task."""
    ports = task.get("ports", ())
    shown = ",".join(map(str, ports[:3])) + ("…" if len(ports) > 3 else "")
    return f"{task['hostname']}:{shown}" if ports else str(task["hostname"])


def _result(value: object) -> str:
    import json

    return "" if value is None else "result: " + json.dumps(value, ensure_ascii=False)


def runs(items: Iterable[Json], *, wide: bool = True, empty: str = "") -> None:
    if not wide:
        short = (
            (
                r["id"],
                r["cause"],
                r["state"],
                short_moment(r["firedAt"]),
                took(r["firedAt"], r["endedAt"]),
                _counts(r["shardStates"]),
            )
            for r in items
        )
        show_table(("RUN", "CAUSE", "STATE", "FIRED", "TOOK#", "SHARDS"), short, empty, cut=True)
        return
    rows = (
        (r["id"], r["cause"], r["state"], _counts(r["shardStates"]), moment(r["firedAt"]), moment(r["endedAt"]))
        for r in items
    )
    show_table(("RUN", "CAUSE", "STATE", "SHARDS", "FIRED", "ENDED"), rows, empty)


def past_attempts(items: Iterable[Json]) -> None:
    rows = (
        (
            f"{a['jobName']}/{a['step'] or a['item']}",
            a["outcome"],
            a["attempt"],
            a["hostname"],
            _length(a["queuedSeconds"]),
            _length(a["durationSeconds"]),
            moment(a["endedAt"]),
            _in_line(a["message"] or a["cause"])[:200],
            a["runId"],
        )
        for a in items
    )
    titles = ("JOB/SHARD", "OUTCOME", "ATTEMPT#", "HOST", "WAITED#", "TOOK#", "ENDED", "MESSAGE", "RUN")
    show_table(titles, rows, "no attempts: none has ended in this range of time")


def audit(items: Iterable[Json]) -> None:
    rows = (
        (
            moment(e["at"]),
            e.get("subject", ""),
            e.get("client", ""),
            f"{e.get('method', '')} {e.get('route', '') or e['kind']}".strip(),
            e.get("target", ""),
            e.get("outcome", ""),
            _in_line(e.get("reason", ""))[:200],
        )
        for e in items
    )
    show_table(("TIME", "WHO", "FROM", "WHAT", "TARGET", "OUTCOME", "REASON"), rows, "no entries in this range of time")


def audit_line(entry: Json) -> None:
    """One entry of the audit log in one line."""
    what = f"{entry.get('method', '')} {entry.get('route', '') or entry['kind']}".strip()
    parts = (entry.get("subject", ""), entry.get("client", ""), what, entry.get("target", ""), entry.get("outcome", ""))
    head = " ".join(filter(None, (short_moment(entry["at"]), *parts)))
    say(f"{head}: {_in_line(entry['reason'])}" if entry.get("reason") else head)


def past_events(items: Iterable[Json]) -> None:
    rows = ((moment(e["at"]), e["state"], e["source"], e["execution"], _in_line(e["message"])[:200]) for e in items)
    show_table(("TIME", "STATE", "SOURCE", "EXECUTION", "MESSAGE"), rows, "the history does not know this task")


def statistics(items: Iterable[Json]) -> None:
    rows = (
        (
            s["name"] or "total",
            s["attempts"],
            s["succeeded"],
            s["failed"],
            s["killed"],
            *(_length(s["duration"][name]) for name in ("p50", "p95", "p99")),
            _length(s["queued"]["p95"]),
            f"{s['cpuSeconds']:,.0f}",
            f"{s['memoryMBSeconds'] / 1024:,.0f}",
        )
        for s in items
    )
    titles = ("NAME", "ATTEMPTS#", "OK#", "FAILED#", "KILLED#", "P50#", "P95#", "P99#", "WAIT P95#", "CPU s#", "GB s#")
    show_table(titles, rows, "no attempts: none has ended in this range of time")


def series(found: Json) -> None:
    """Steps of time, oldest first. A number that is not known is "-", which is not 0."""
    from jobcloud import zones

    zone = zones.zone(found["zone"])
    rows = []
    for step in found["steps"]:
        ended, sampled = step["attempts"] or {}, step["sampled"] or {}
        share = ((sampled.get("cluster") or {}).get("usedShare") or {}).get("cpuCount")
        at = datetime.fromisoformat(step["at"]).astimezone(zone if found["by"] == "day" else None)
        rows.append(
            (
                f"{at:%Y-%m-%d}" if found["by"] == "day" else f"{at:%m-%d %H:%M}",
                *(ended.get(name, "-") for name in ("succeeded", "failed", "killed")),
                _length(ended["duration"]["p95"]) if ended else "-",
                *(_mean(sampled.get(name)) for name in _SAMPLED),
                "-" if share is None else f"{share:.0%}",
            )
        )
    titles = ("FROM", "OK#", "FAILED#", "KILLED#", "P95#", "RUNNING#", "WAITING#", "RUNS#", "JOBS#", "OFF#", "CPU#")
    show_table(titles, rows, "no steps in this range of time")


_SAMPLED = ("runningShards", "waitingShards", "unfinishedRuns", "registeredJobs", "disabledJobs")


def _mean(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4g}" if value < 1_000 else f"{value:,.0f}"


def _length(seconds: float | None) -> str:
    """1.25 → "1.25s", 90 → "1m30s"."""
    if seconds is None:
        return "-"
    return f"{seconds:.3g}s" if seconds < 60 else duration(seconds)


def run(item: Json, limit: int) -> None:
    """A run and its first `limit` shards."""
    show_fields(
        [
            ("run", item["id"]),
            ("job", item["jobName"]),
            ("cause", item["cause"]),
            ("state", item["state"]),
            ("shards", _counts(item["shardStates"])),
            ("range", item["itemRange"]),
            ("fired", moment(item["firedAt"])),
            ("ended", moment(item["endedAt"]) if item["endedAt"] else ""),
            ("next attempt", moment(item["nextAttempt"]) if item["nextAttempt"] else ""),
        ]
    )
    shards = item["shards"]
    rows = (
        (s["step"] or s["item"], s["state"], s["attempt"], *_times(s), s["hostname"], _message(s)[:300])
        for s in shards[:limit]
    )
    show_table(("SHARD#", "STATE", "ATTEMPT#", "STARTED", "LASTED", "HOST", "MESSAGE"), rows, "no shards")
    if len(shards) > limit:
        say(f"{len(shards) - limit} more shards; --limit shows them")


def shard(item: Json) -> None:
    """A shard with its attempts."""
    show_fields(
        [
            ("run", item["runId"]),
            ("shard", item["step"] or item["item"]),
            ("state", item["state"]),
            ("next attempt", moment(item["notBefore"]) if item["notBefore"] else ""),
            ("because", item["waitsBecause"][:300]),
        ]
    )
    rows = ((a["number"], a["state"], *_times(a), a["hostname"], _message(a)[:300]) for a in item["attempts"])
    titles = ("ATTEMPT#", "STATE", "STARTED", "LASTED", "HOST", "MESSAGE")
    show_table(titles, rows, "no attempts: the shard has not been launched yet")


def _times(attempt: Json) -> tuple[str, str]:
    """When an attempt started, in local time, and how long it ran."""
    start = attempt["startedAt"]
    if not start:
        return "-", "-"
    return short_moment(start), took(start, attempt["endedAt"])


def task(item: Json) -> None:
    """A task: its job, agent, times and end."""
    show_fields(
        [
            ("task", item["id"]),
            ("run", item["runId"]),
            ("shard", item["step"] or item["item"]),
            ("attempt", item["attempt"]),
            ("state", item["state"]),
            ("next attempt", moment(item["nextAttempt"]) if item["nextAttempt"] else ""),
            ("host", _host(item)),
            ("agent", item["agentId"]),
            ("executor", item["executorId"]),
            ("launched", moment(item["createdAt"]) if item["createdAt"] else ""),
            ("started", moment(item["startedAt"]) if item["startedAt"] else ""),
            ("ended", moment(item["endedAt"]) if item["endedAt"] else ""),
            ("kill asked", moment(item["killAskedAt"]) if item["killAskedAt"] else ""),
            ("cause", item["cause"]),
            ("message", item["message"]),
            ("result", _result(item["result"]).removeprefix("result: ")),
            ("resources", _amounts(item["resources"]) if item["resources"] else ""),
        ]
    )
    for line in item["story"]:
        say(f"  {moment(line['at'])} {line['topic']}: {line['text']}")


def _amounts(amounts: Json) -> str:
    return f"{amounts['cpuCount']:.12g} cpus, {amounts['memoryMB']:.12g} MB"


def _message(item: Json) -> str:
    """The message of a shard, a task or an attempt, its cause or its result, and the time of the next attempt."""
    text = item["message"] or item["cause"] or _result(item["result"])
    later = (item.get("nextAttempt") or item.get("notBefore")) if item["state"] == "WAITING" else None
    if not later:
        return text
    seconds = (datetime.now(UTC) - datetime.fromisoformat(later)).total_seconds()
    return f"next attempt {age(seconds) if seconds < 0 else 'now'}: {text}"


def explanation(item: Json) -> None:
    if not item["waiting"] and not item["active"]:
        say(f"{item['jobName']}: no shard is running or waiting; next run {moment(item['nextFiring'])}")
    else:
        behind = f"; further runs waiting: {item['behind']}" if item["behind"] else ""
        say(f"{item['jobName']}: {item['active']} active, {item['waiting']} waiting{behind}")
    for reason in item["reasons"]:
        later = f"; next attempt {moment(reason['until'])}" if reason["code"] == "back_off" else ""
        say(f"  • {reason['text']}{later}")
        if item["waiting"] and not reason["waitingHelps"]:
            say("    waiting will not help", "yellow")


def fit(item: Json) -> None:
    fits, asked = item["fits"], item["shards"]
    executors = f", with {item['newExecutors']} new executors" if item["newExecutors"] else ""
    say(f"{item['jobName']}: {fits} of {asked} further shards fit now on {item['agentCount']} agents{executors}")
    if item["elsewhere"]:
        say(f"  {item['elsewhere']} more would fit on agents whose resources are not offered now")
    for reason in (*item["held"], *item["reasons"]):
        say(f"  • {reason['text']}")
    if not item["waitingHelps"]:
        say("    waiting will not help", "yellow")
    if not item["complete"]:
        say("  the cluster has more agents than one answer looks at", "yellow")
    rows = [
        (agent["hostname"], agent["shards"], "new" if agent["newExecutor"] else "running", agent["agentId"])
        for agent in item["agents"]
        if agent["agentId"]
    ]
    if rows:
        show_table(("HOST", "SHARDS", "EXECUTOR", "AGENT"), rows, "")


def cluster(item: Json) -> None:
    show_fields(
        [
            ("framework", item["frameworkId"] or "not registered yet"),
            ("connected", item["connected"]),
            ("paused", "everything is paused: no shard of any job starts" if item.get("paused") else ""),
            ("matcher", item["matcher"]),
            ("apps", item["apps"]),
            ("jobs", item["jobs"]),
            ("active tasks", item["activeTasks"]),
            ("waiting shards", item["waitingShards"]),
        ]
    )
    rows = (
        (
            a["hostname"],
            a["agentId"],
            _of_each(a["whole"], a["claimed"], a["offered"], "cpuCount"),
            _of_each(a["whole"], a["claimed"], a["offered"], "memoryMB"),
            len(a["executors"]),
            a["tasks"],
            _condition(a),
        )
        for a in item["agents"]
    )
    show_table(
        ("HOST", "AGENT", "CPUS: ALL/USED/FREE", "MB: ALL/USED/FREE", "EXECUTORS#", "TASKS#", ""),
        rows,
        "no agent has sent an offer yet",
    )


def _condition(agent: Json) -> str:
    """Whether an agent is unreachable, its drain and its maintenance; "" for none."""
    said = ["unreachable or gone"] if agent["lost"] else []
    if agent["drain"]:
        reason = f" ({agent['drain']['reason']})" if agent["drain"]["reason"] else ""
        said.append(f"drains until {moment(agent['drain']['deadline'])}{reason}")
    if agent["maintenance"]:
        said.append(f"maintenance from {moment(agent['maintenance']['start'])}")
    return ", ".join(said)


def imported(report: Json) -> None:
    """The report of an import: one line per node of the other system."""
    rows = (
        (
            item["kind"],
            item["name"],
            _action(item, report),
            "\n".join([*filter(None, [item["reason"]]), *item["changes"]]),
        )
        for item in report["items"]
    )
    show_table(("KIND", "NAME", "ACTION", "REASON, CHANGES"), rows, "the namespace holds no apps and no jobs")
    for note in report["notes"]:
        say(f"• {note}")
    say(", ".join(f"{count} {action}" for action, count in report["summary"].items()))


def imported_cron(report: Json) -> None:
    """The report of an import of schedules: one line for each line, unit and trigger, without comments."""
    rows = (
        (
            f"{item['source']}:{item['line']}" if item["line"] else item["source"],
            item["action"],
            item["jobName"] or item["kind"],
            "\n".join([*filter(None, [item["words"] or item["text"], item["reason"]]), *item["changes"]]),
        )
        for item in report["items"]
        if item["kind"] != "comment" or "looks like" in item["reason"]
    )
    show_table(("PLACE", "ACTION", "JOB", "FIRES, REASON, CHANGES"), rows, "the files hold no schedules")
    for note in report["notes"]:
        say(f"• {note}")
    say(", ".join(f"{count} {action}" for action, count in report["summary"].items()))


def _action(item: Json, report: Json) -> str:
    action = item["action"] + (", disabled" if item["disabled"] else "")
    return f"({action})" if report["dryRun"] else action


def _enabled(item: Json) -> str:
    return "disabled" if not item["enabled"] else "paused" if item.get("pausedBy") else "enabled"


def _counts(counts: Json) -> str:
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def _of_each(whole: Json, claimed: Json, offered: Json, name: str) -> str:
    """An amount of an agent: its capacity as far as it was offered, the part that we use, the part that is offered."""
    return " / ".join(f"{amounts[name]:.12g}" for amounts in (whole, claimed, offered))
