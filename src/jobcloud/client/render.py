"""The output of commands: JSON for scripts; tables, ages and local times for people.

Text from the server is printed as plain text: markup and control characters in it have no effect. Libraries are
imported when they are used, as every command imports this module, `--help` too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

    from jobcloud.client.http import Json

T = TypeVar("T")

# Width of output that is not a terminal's: wide enough that no table is cut.
_WIDE = 10_000
_COLOURS = {
    "FINISHED": "green",
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

    json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


def show_table(titles: Sequence[str], rows: Iterable[Sequence[object]], nothing: str) -> None:
    """Print a table, or `nothing` if it has no rows. Titles that end in "#" belong to columns of numbers."""
    from rich.table import Table
    from rich.text import Text

    lines = [[clean(cell) for cell in row] for row in rows]
    if not lines:
        console().print(Text(nothing, "dim"))
        return
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title in titles:
        table.add_column(title.rstrip("#"), justify="right" if title.endswith("#") else "left", overflow="fold")
    for line in lines:
        table.add_row(*(Text(cell, _COLOURS.get(cell, "")) for cell in line))
    console().print(table)


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


def age(seconds: float) -> str:
    """12 → "12s ago"; -90 → "in 1m30s"."""
    size = abs(round(seconds))
    for unit, length, next_unit, next_length in (("d", 86_400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if size >= length:
            rest = size % length // next_length
            text = f"{size // length}{unit}" + (f"{rest}{next_unit}" if rest else "")
            break
    else:
        text = f"{size}s"
    return f"{text} ago" if seconds >= 0 else f"in {text}"


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


def jobs(items: Iterable[Json]) -> None:
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
    show_table(titles, rows, "no jobs yet; register one: jobcloud job add FILE.json")


def job(item: Json) -> None:
    run = item["lastRun"]
    show_fields(
        [
            ("job", item["jobName"]),
            ("app", item["appName"]),
            ("state", _enabled(item)),
            ("paused", ", ".join(item.get("pausedBy", ()))),
            ("next run", moment(item["nextFiring"])),
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


def tasks(items: Iterable[Json]) -> None:
    rows = (
        (
            f"{t['jobName']}/{t['step'] or t['item']}",
            t["state"],
            t["attempt"],
            _host(t),
            moment(t["startedAt"] or t["createdAt"]),
            moment(t["endedAt"]),
            (t["message"] or _result(t["result"]))[:200],
            t["id"],
        )
        for t in items
    )
    titles = ("JOB/SHARD", "STATE", "ATTEMPT#", "HOST", "STARTED", "ENDED", "MESSAGE", "TASK")
    show_table(titles, rows, "no tasks: no task has been launched yet")


def _host(task: Json) -> str:
    """The host with the first ports of the task."""
    ports = task.get("ports", ())
    shown = ",".join(map(str, ports[:3])) + ("…" if len(ports) > 3 else "")
    return f"{task['hostname']}:{shown}" if ports else str(task["hostname"])


def _result(value: object) -> str:
    import json

    return "" if value is None else "result: " + json.dumps(value, ensure_ascii=False)


def runs(items: Iterable[Json]) -> None:
    rows = (
        (r["id"], r["cause"], r["state"], _counts(r["shardStates"]), moment(r["firedAt"]), moment(r["endedAt"]))
        for r in items
    )
    show_table(("RUN", "CAUSE", "STATE", "SHARDS", "FIRED", "ENDED"), rows, "no runs: no job has fired yet")


def explanation(item: Json) -> None:
    if not item["waiting"] and not item["active"]:
        say(f"{item['jobName']}: no shard is running or waiting; next run {moment(item['nextFiring'])}")
    else:
        behind = f"; further runs waiting: {item['behind']}" if item["behind"] else ""
        say(f"{item['jobName']}: {item['active']} active, {item['waiting']} waiting{behind}")
    for reason in item["reasons"]:
        say(f"  • {reason['text']}")
        if item["waiting"] and not reason["waitingHelps"]:
            say("    waiting will not help", "yellow")


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
            _amounts(a["offered"]),
            _amounts(a["claimed"]),
            a["offers"],
            len(a["executors"]),
            a["tasks"],
            _condition(a),
        )
        for a in item["agents"]
    )
    show_table(
        ("HOST", "AGENT", "OFFERED", "CLAIMED", "OFFERS#", "EXECUTORS#", "TASKS#", ""),
        rows,
        "no agent has sent an offer yet",
    )


def _condition(agent: Json) -> str:
    """Loss, drain and maintenance of an agent; "" for none."""
    said = ["lost"] if agent["lost"] else []
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


def _action(item: Json, report: Json) -> str:
    action = item["action"] + (", disabled" if item["disabled"] else "")
    return f"({action})" if report["dryRun"] else action


def _enabled(item: Json) -> str:
    return "disabled" if not item["enabled"] else "paused" if item.get("pausedBy") else "enabled"


def _counts(counts: Json) -> str:
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def _amounts(amounts: Json) -> str:
    return f"{amounts['cpuCount']:.12g} cpus, {amounts['memoryMB']:.12g} MB"
