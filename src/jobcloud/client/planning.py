"""`jobcloud plan`: from what the options name to a problem, and from a plan to tables."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from jobcloud.client import render
from jobcloud.client.http import Client, Json
from jobcloud.client.pack import read_manifest
from jobcloud.errors import ConfigError
from jobcloud.match.constraints import HOST
from jobcloud.model import KEEPER, RESOURCE_FIELDS
from jobcloud.planning import jobs as registered
from jobcloud.planning.demand import DAY_MS, Load, Span, load, row_spans, spans
from jobcloud.planning.packing import Progress
from jobcloud.planning.plan import Need, Plan, host_names, task_jobs
from jobcloud.planning.problem import HostKind, Problem, Source, TaskKind, join
from jobcloud.planning.tables import MAX_COUNT, HostTable, TaskTable, parse_amount, read_hosts, read_tasks

_MOST_RUNS: Final = 1_000
_MOST_ROWS: Final = 30
_NOT_OF_A_TYPE: Final = {
    "count": "any number of a type can be had; for hosts that are there, --hosts",
    "id": "a type has a name",
    "port_beg": "ports=N",
    "port_end": "ports=N",
    "attr_host": "hosts of a type have no names yet",
}


@dataclass(frozen=True, slots=True)
class Hosts:
    """Hosts from a table, a type, or the running cluster; amounts in the order of `dimensions`."""

    source: str
    dimensions: tuple[str, ...]
    kinds: tuple[HostKind, ...]
    how_many: bool = False


@dataclass(frozen=True, slots=True)
class Demand:
    """Tasks at the peak, and the load over the time looked at; `peak_ms` None: all run always."""

    source: str
    dimensions: tuple[str, ...]
    kinds: tuple[TaskKind, ...]
    shared: dict[str, tuple[int, ...]] = field(default_factory=dict)
    load: Load | None = None
    peak_ms: int | None = None
    of_table: bool = False


@dataclass(frozen=True, slots=True)
class When:
    """The time to look at: from the start of `day` in `zone`, so many days. `all_at_once`: no peak, everything runs."""

    day: datetime
    days: int
    run_s: float
    all_at_once: bool = False


# ---------------------------------------------------------------------------------------------------------------- hosts


def hosts_of_table(path: Path, *, how_many: bool = False) -> Hosts:
    table: HostTable = read_hosts(path)
    kinds = (HostKind(row.id, row.amounts, row.attributes, row.copies, row.price) for row in table.rows)
    return Hosts(table.source, table.dimensions, tuple(kinds), how_many)


def hosts_of_type(texts: Sequence[str]) -> Hosts:
    """Types like `cpus=64,mem_mb=131072`, with `name=…`, `price=…`, `attr_…=…` where wanted. Raises ConfigError."""
    found = [_host_type(text) for text in texts]
    names = [name for one in found for name in one if name not in ("name", "price") and not name.startswith("attr_")]
    dimensions = tuple(dict.fromkeys(names))
    kinds: list[HostKind] = []
    for one, text in zip(found, texts, strict=True):
        amounts = tuple(parse_amount(one.get(name, "0"), f"--host, {name}") for name in dimensions)
        name = one.get("name", text if len(text) < 60 else f"type {len(kinds) + 1}")
        attributes = {key.removeprefix("attr_"): value for key, value in one.items() if key.startswith("attr_")}
        price = parse_amount(one.get("price", "0"), "--host, price") / 1_000
        kinds.append(HostKind(name, amounts, {**attributes, HOST: name}, MAX_COUNT, price))
    return Hosts("--host", dimensions, tuple(kinds), how_many=True)


def _host_type(text: str) -> dict[str, str]:
    pairs = [[part.strip() for part in item.partition("=")] for item in text.split(",") if item.strip()]
    if not pairs or not all(sign and name not in ("", "attr_") for name, sign, _ in pairs) or not text.isprintable():
        raise ConfigError(f"{text!r:.80} is no host type", field="--host", fix="such as cpus=64,mem_mb=131072")
    found: dict[str, str] = {}
    for name, _, value in pairs:
        if name in found:
            raise ConfigError("is there twice", field=f"--host, {name}", fix="drop one")
        if name in _NOT_OF_A_TYPE:
            raise ConfigError("says nothing of a type", field=f"--host, {name}", fix=_NOT_OF_A_TYPE[name])
        if not value:
            raise ConfigError("is empty", field=f"--host, {name}", fix="write a value or drop it")
        found[name] = value
    return found


def hosts_of_cluster(client: Client) -> Hosts:
    """The agents as the scheduler sees them: what they offered and its own tasks took when they last offered anything.

    Without those that are lost, or that an operator wants empty.
    """
    kinds = []
    for agent in client.cluster()["agents"]:
        if agent["lost"] or agent["drain"]:
            continue
        amounts = tuple(round(agent["whole"].get(name, 0) * 1_000) for name in RESOURCE_FIELDS)
        attributes = {str(key): str(value) for key, value in agent["attributes"].items()}
        kinds.append(HostKind(agent["hostname"], amounts, {**attributes, HOST: agent["hostname"]}, 1))
    if not kinds:
        raise ConfigError("the cluster has no agents", field="--cluster", fix="wait for offers, or give --hosts")
    return Hosts("the cluster", registered.DIMENSIONS, tuple(kinds))


# --------------------------------------------------------------------------------------------------------------- demand


def demand_of_table(path: Path, capacity: Callable[[tuple[str, ...]], Sequence[int]]) -> Demand:
    """Raises BadTable. `capacity` gives what all hosts hold, in dimensions asked for: the peak is a share of that."""
    table: TaskTable = read_tasks(path)
    kinds = [TaskKind(row.job, row.amounts, row.copies, row.rules) for row in table.rows]
    if not any(row.arrive_s or row.leave_s is not None for row in table.rows):
        return Demand(table.source, table.dimensions, tuple(kinds))
    timeline = load(row_spans(table.rows, kinds), len(table.dimensions))
    peak = timeline.peak(capacity(table.dimensions))
    return Demand(table.source, table.dimensions, tuple(timeline.at(peak)), load=timeline, peak_ms=peak, of_table=True)


def demand_of_jobs(
    source: str,
    jobs: Sequence[Json],
    apps: dict[str, Json],
    run_times: dict[str, float],
    when: When,
    capacity: Callable[[tuple[str, ...]], Sequence[int]],
    progress: Progress | None,
) -> Demand:
    """What jobs ask at the peak of the days looked at. Raises ConfigError."""
    if not jobs:
        raise ConfigError("there are no jobs", field=source, fix="register some, or give --tasks")
    names = {str(config.get("jobName")) for config in jobs}
    unknown = sorted(set(run_times) - names)
    if unknown and source != "the registered jobs":
        raise ConfigError(f"{unknown[0]!r:.80} is no job of {source}", field="--run-times", fix="drop its row")
    parsed = [
        registered.scheduled_job(config, run_times.get(str(config.get("jobName")), when.run_s)) for config in jobs
    ]
    shared = {name: registered.executor(config) for name, config in apps.items()}
    kinds = [job.kind for job in parsed]
    warm = [kind for name, config in apps.items() if (kind := registered.warm_executors(name, config))]
    missing = {kind.shared for kind in kinds} - set(shared) - {""}
    shared |= dict.fromkeys(missing, registered.executor({}))
    if when.all_at_once:
        return Demand(source, registered.DIMENSIONS, (*kinds, *warm), shared)
    start = round(when.day.timestamp() * 1_000)
    end = start + when.days * DAY_MS
    found = [Span(start, end, kind) for kind in warm]
    for n, job in enumerate(parsed):
        found += spans([job], start, end)
        if progress:
            progress(f"the day of {job.kind.job}", (n + 1) / len(parsed))
    timeline = load(found, len(registered.DIMENSIONS))
    if not len(timeline.times):
        raise ConfigError("no job runs in the time looked at", field="--day", fix="choose another, or --days more")
    peak = timeline.peak(capacity(registered.DIMENSIONS))
    return Demand(source, registered.DIMENSIONS, tuple(timeline.at(peak)), shared, timeline, peak)


def with_kept_executors(hosts: Hosts, demand: Demand, apps: dict[str, Json]) -> tuple[Hosts, Demand]:
    """Apps of which every host keeps an executor, as long as it has room: it is taken from the hosts beforehand.

    Their tasks then pay for none.
    """
    everywhere = [name for name, config in apps.items() if registered.one_on_each_host(config)]
    if not everywhere:
        return hosts, demand
    kinds = hosts.kinds
    for name in everywhere:
        taken = dict(zip(registered.DIMENSIONS, map(sum, zip(demand.shared[name], KEEPER, strict=True)), strict=True))
        kinds = tuple(_less(kind, [taken.get(dimension, 0) for dimension in hosts.dimensions]) for kind in kinds)
    asked = tuple(replace(kind, shared="") if kind.shared in everywhere else kind for kind in demand.kinds)
    return replace(hosts, kinds=kinds), replace(demand, kinds=asked)


def _less(kind: HostKind, taken: Sequence[int]) -> HostKind:
    left = tuple(has - takes for has, takes in zip(kind.capacity, taken, strict=True))
    return replace(kind, capacity=left) if min(left, default=0) >= 0 else kind


def run_times(path: Path) -> dict[str, float]:
    """Seconds by job. Raises BadTable."""
    return registered.read_run_times(path)


def manifest_jobs(paths: Sequence[Path]) -> tuple[list[Json], dict[str, Json], dict[str, float]]:
    """The jobs and apps of manifests, which know no run times. Raises ConfigError."""
    jobs: list[Json] = []
    apps: dict[str, Json] = {}
    for path in paths:
        if not path.exists():
            raise ConfigError(f"there is no {path}", field="--manifest", fix="name an app's directory or archive")
        manifest = read_manifest(path)
        if not manifest.jobs:
            raise ConfigError("has no jobs", field=f"{path}/jobcloud.toml", fix="write [[jobs]]")
        app = str(manifest.app.get("appName") or path.resolve().name)
        apps[app] = manifest.app
        jobs += [{**config, "appName": app} for config in manifest.jobs]
    double = [
        name for name in {str(job.get("jobName")) for job in jobs} if sum(j.get("jobName") == name for j in jobs) > 1
    ]
    if double:
        raise ConfigError(f"{double[0]!r:.80} is there twice", field="jobName", fix="names are unique over all apps")
    return jobs, apps, {}


def registered_jobs(client: Client) -> tuple[list[Json], dict[str, Json], dict[str, float]]:
    """The server's enabled jobs, its apps, and how long each job's longest run of late was."""
    apps = {app["appName"]: app["config"] for app in client.apps() if app["enabled"]}
    jobs = [job["config"] for job in client.jobs() if job["enabled"] and job["config"]["appName"] in apps]
    return jobs, apps, registered.run_times_of(client.runs(_MOST_RUNS))


# ------------------------------------------------------------------------------------------------------------- together


def capacity_of(hosts: Hosts) -> Callable[[tuple[str, ...]], list[int]]:
    """What all hosts hold together (of types: one of the first), in dimensions asked for."""

    def capacity(dimensions: tuple[str, ...]) -> list[int]:
        amounts = []
        for name in dimensions:
            at = hosts.dimensions.index(name) if name in hosts.dimensions else -1
            kinds = hosts.kinds[:1] if hosts.how_many else hosts.kinds
            amounts.append(sum(k.capacity[at] * (1 if hosts.how_many else k.copies) for k in kinds) if at >= 0 else 0)
        return amounts

    return capacity


def problem_of(hosts: Hosts, demand: Demand) -> Problem:
    """Raises ConfigError where tasks ask for what the hosts say nothing of."""
    there, asked = Source(hosts.source, hosts.dimensions), Source(demand.source, demand.dimensions)
    return join(there, hosts.kinds, asked, demand.kinds, demand.shared)


def cut_load(found: Load | None, demand: Demand, problem: Problem) -> Load | None:
    """The load in the problem's dimensions."""
    if found is None:
        return None
    at = [demand.dimensions.index(name) for name in problem.dimensions]
    return Load(found.times, found.amounts[:, at], found.spans)


def day_of(text: str, zone: str) -> datetime:
    """The start of a day, today's by default. Raises ConfigError."""
    try:
        clock = ZoneInfo(zone)
    except (LookupError, ValueError, OSError):
        raise ConfigError(f"{zone!r:.60} is unknown", field="--zone", fix="a name of the tz database") from None
    try:
        day = datetime.fromisoformat(text) if text else datetime.now(clock)
    except ValueError:
        raise ConfigError(f"{text!r:.60} is no day", field="--day", fix="such as 2026-03-31") from None
    if not 1971 <= day.year <= 2098:
        raise ConfigError(f"{text!r:.60} is out of range", field="--day", fix="1971 to 2098")
    return day.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=clock)


def peak_document(demand: Demand) -> Json:
    """What `document` does not know: when the peak is. Instants as in the API, of tables in seconds of theirs."""
    if demand.peak_ms is None:
        return {"peak": None}
    if demand.of_table:
        return {"peak": {"second": demand.peak_ms / 1_000}}
    return {"peak": {"at": f"{datetime.fromtimestamp(demand.peak_ms / 1000, UTC):%Y-%m-%dT%H:%M:%S.000Z}"}}


@contextmanager
def progress_bar() -> Iterator[Progress | None]:
    """On standard error, and only on a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Bar(*columns, console=render.console(error=True), transient=True) as bar:
        task = bar.add_task("planning", total=1.0)
        yield lambda what, part: bar.update(task, description=render.clean(what), completed=part)


@contextmanager
def solver_silenced() -> Iterator[None]:
    """The solver's library now and then writes a line of its own to standard output, which is for the answer alone."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def write_placement(plan: Plan, path: Path) -> None:
    """Which task runs where, as CSV: job, host; empty where it has none. Raises ConfigError."""
    names = host_names(plan.problem, plan.packing)
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("job", "host"))
            pairs = zip(task_jobs(plan.problem), plan.packing.host_of.tolist(), strict=True)
            writer.writerows((job, names[host] if host >= 0 else "") for job, host in pairs)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}", field="--placement") from error


# --------------------------------------------------------------------------------------------------------- what is said


def show(plan: Plan, demand: Demand, zone: str) -> None:
    """The answers as sentences and tables."""
    if demand.peak_ms is not None and not demand.of_table:
        peak = datetime.fromtimestamp(demand.peak_ms / 1000, UTC).astimezone(ZoneInfo(zone))
        render.say(f"peak at {peak:%a %Y-%m-%d %H:%M:%S %Z}, {plan.problem.tasks:,} tasks at once")
    elif demand.peak_ms is not None:
        render.say(f"peak after {timedelta(milliseconds=demand.peak_ms)}, {plan.problem.tasks:,} tasks at once")
    if not plan.question.how_many:
        hosts = f"{len(plan.packing.hosts):,} host{'s' if len(plan.packing.hosts) != 1 else ''}"
        if plan.fits:
            render.say(f"fits: all {plan.problem.tasks:,} tasks on {hosts}", "bold green")
        elif plan.refused:
            refused = plan.packing.unplaced - plan.packing.untried
            render.say(f"does not fit: {refused:,} of {plan.problem.tasks:,} tasks refused", "bold red")
        if plan.bound_broken:
            render.say(plan.bound_broken)
    if plan.untried:
        render.say(_untried_said(plan), "bold red")
    for need in plan.needs:
        render.say(_need_said(plan.problem, need))
    if plan.mix and len(plan.mix.hosts) > 1:
        hosts = " + ".join(f"{count:,} × {name}" for name, count in plan.mix.hosts)
        untried = f"; tasks not tried in time: {plan.mix.untried:,}" if plan.mix.untried else ""
        render.say(f"mixed, each task on the type that is cheapest for it: {hosts}{untried}{_price(plan.mix.price)}")
    for note in plan.notes:
        render.say(note)
    _show_refused(plan)
    _show_resources(plan)
    _show_failures(plan)
    _show_more(plan)


def _untried_said(plan: Plan) -> str:
    count, seconds = plan.packing.untried, plan.question.seconds
    return (
        f"{count:,} of {plan.problem.tasks:,} tasks were not tried within {seconds:g} seconds, so nothing is known of "
        f"them; give more --seconds"
    )


def _need_said(problem: Problem, need: Need) -> str:
    bound = need.found.bound
    kind = problem.host_kinds[need.kind]
    pairs = zip(problem.dimensions, kind.capacity, strict=True)
    holds = "" if "=" in need.name else f" ({', '.join(f'{_amount(amount)} {name}' for name, amount in pairs)})"
    text = f"{need.name}{holds}: {need.hosts:,} host{'s suffice' if need.hosts != 1 else ' suffices'}"
    if need.untried:
        tried = problem.tasks - need.unsuitable - need.untried
        text += f" for the {tried:,} tasks tried in time; {bound.hosts - 1:,} cannot take all ({bound.how})"
    elif need.found.proven:
        text += f", {need.hosts - 1:,} cannot ({bound.how})" if need.hosts else ""
    else:
        text += f", {bound.hosts - 1:,} cannot ({bound.how}); between is open"
    text += _price(need.price)
    return text + (f"; tasks that cannot run on this type: {need.unsuitable:,}" if need.unsuitable else "")


def _price(price: float) -> str:
    return f", price {price:,.2f}" if price else ""


def _show_refused(plan: Plan) -> None:
    if not plan.refused:
        return
    render.say("")
    rows = [(r.job, f"{r.tasks:,}", r.reason) for r in plan.refused[:_MOST_ROWS]]
    render.show_table(("REFUSED", "TASKS#", "WHY"), rows, "")
    if len(plan.refused) > _MOST_ROWS:
        render.say(f"and {len(plan.refused) - _MOST_ROWS:,} more; --json lists all", "dim")


def _show_resources(plan: Plan) -> None:
    render.say("")
    rows = []
    for d, name in enumerate(plan.problem.dimensions):
        total, used, stranded = int(plan.capacity[d]), int(plan.used[d]), int(plan.stranded[d])
        rows.append(
            (
                name,
                _amount(plan.problem.demand[d]),
                _amount(total),
                _amount(used),
                _share(used, total),
                _amount(stranded),
                _share(stranded, total),
            )
        )
    titles = ("RESOURCE", "DEMAND#", "HOSTS HAVE#", "IN USE#", "#", "STRANDED#", " #")
    render.show_table(titles, rows, "nothing is asked for")


def _show_failures(plan: Plan) -> None:
    if not plan.failures:
        return
    render.say("")
    titles = ["IF THIS FAILS", "HOSTS#", "DISPLACED#", "WITHOUT ROOM#", "AFTER MOVING#"]
    rows: list[tuple[object, ...]] = [(f.what, f.hosts, f.displaced, f.homeless, f.after_moving) for f in plan.failures]
    if any(f.untried for f in plan.failures):
        titles.append("NOT TRIED#")
        rows = [(*row, f.untried) for row, f in zip(rows, plan.failures, strict=True)]
    render.show_table(titles, rows, "")


def _show_more(plan: Plan) -> None:
    for more in plan.more:
        render.say(f"{more.at_least:,} more tasks of {more.job} fit beside what runs, {more.at_most + 1:,} cannot")


def _share(amount: int, total: int) -> str:
    return f"{amount / total:.1%}" if total else "-"


def _amount(thousandths: int) -> str:
    return f"{int(thousandths) / 1_000:,.3f}".rstrip("0").rstrip(".")
