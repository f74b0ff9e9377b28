"""The input of `jobcloud plan`: one problem from hosts and demand in tables, manifests or the server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

from jobcloud import zones
from jobcloud.client.apps import workflow_entry
from jobcloud.client.http import ApiError, Client, Json
from jobcloud.client.pack import check_manifest, read_manifest
from jobcloud.config import DEFAULT_TEAM, PLACEHOLDER, RESOURCE_FIELDS, key_of, qualified, split_key
from jobcloud.errors import ConfigError
from jobcloud.match.constraints import HOST
from jobcloud.planning import jobs as registered
from jobcloud.planning import pools
from jobcloud.planning import workflows as flows
from jobcloud.planning.amounts import HOST_COLUMNS, column_of
from jobcloud.planning.demand import DAY_MS, Load, ScheduledJob, Span, load, row_spans, spans
from jobcloud.planning.packing import Progress
from jobcloud.planning.problem import HostKind, Problem, Source, TaskKind, join
from jobcloud.planning.tables import MAX_COUNT, HostTable, TaskTable, parse_amount, read_hosts, read_tasks
from jobcloud.triggers import Days, parse_days

_MAX_RUNS: Final = 1_000
_MAX_DIGITS: Final = 9
#: The columns of a host table that a type of host cannot have, each with the fix in the error text.
_NOT_OF_A_TYPE: Final = {
    "count": "the number of hosts is the answer; give existing hosts with --hosts",
    "id": "write name=…",
    "port_beg": "write ports=N",
    "port_end": "write ports=N",
    "attr_host": "hosts of a type have no names yet",
}


@dataclass(frozen=True, slots=True)
class Hosts:
    """Hosts from a table, from types, or of the running cluster.

    The amounts are in thousandths, in the order of `dimensions`. `how_many`: the kinds are types of hosts, and the plan
    calculates how many hosts of each type are needed. `notes`: sentences about what was read differently, or left out.
    """

    source: str
    dimensions: tuple[str, ...]
    kinds: tuple[HostKind, ...]
    how_many: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Demand:
    """The tasks at the peak, and the load over the whole time.

    If `peak_ms` is None, all tasks run at the same time. If `of_table`, instants are relative to second 0 of a table of
    tasks, and not to 1970. `notes`: sentences about what the demand ignores.
    `workflows`: the nodes of workflows that count.
    """

    source: str
    dimensions: tuple[str, ...]
    kinds: tuple[TaskKind, ...]
    shared: dict[str, tuple[int, ...]] = field(default_factory=dict)
    load: Load | None = None
    peak_ms: int | None = None
    of_table: bool = False
    notes: tuple[str, ...] = ()
    workflows: tuple[flows.Counted, ...] = ()


@dataclass(frozen=True, slots=True)
class When:
    """The period of the plan: `days` days from `day` on. `run_s` is the default duration of a run.

    `all_at_once`: all jobs run at the same time, so there is no search for a peak.
    """

    day: datetime
    days: int
    run_s: float
    all_at_once: bool = False


@dataclass(frozen=True, slots=True)
class JobSet:
    """Configurations of jobs; configurations of their apps, by key; known durations of runs in seconds, by job.

    In the configurations of jobs, `jobName` and `appName` are keys, so that equal names of two teams stay apart.
    `complete`: these are all jobs, so a run time for another job is an error. `calendars` and `pools`: the days of
    calendars and the slots of pools, by key, as far as they are known.
    """

    source: str
    jobs: tuple[Json, ...]
    apps: Mapping[str, Json]
    run_times: Mapping[str, float] = field(default_factory=dict)
    complete: bool = True
    calendars: Mapping[str, Days] = field(default_factory=dict)
    pools: Mapping[str, int] = field(default_factory=dict)
    workflows: tuple[flows.Flow, ...] = ()

    def with_run_times(self, path: Path) -> JobSet:
        """Add the durations in a table. Raises BadTable.

        Raises ConfigError if the table has an unknown job and the set is complete.
        """
        found = registered.read_run_times(path)
        unknown = sorted(set(found) - {str(config.get("jobName")) for config in self.jobs})
        if unknown and self.complete:
            problem = f"{unknown[0]!r:.80} is not a job of {self.source}"
            raise ConfigError(problem, field="--run-times", fix="remove its row")
        return replace(self, run_times={**self.run_times, **found})

    def with_limits(self, calendars: Mapping[str, Days], pools: Mapping[str, int]) -> JobSet:
        """Add the days of calendars and the slots of pools, in place of those that are known."""
        return replace(self, calendars={**self.calendars, **calendars}, pools={**self.pools, **pools})


# ---------------------------------------------------------------------------------------------------------------- hosts


def hosts_of_table(path: Path, *, how_many: bool = False) -> Hosts:
    table: HostTable = read_hosts(path)
    kinds = (HostKind(row.id, row.amounts, row.attributes, row.copies, row.price) for row in table.rows)
    return Hosts(table.source, table.dimensions, tuple(kinds), how_many, table.notes)


def hosts_of_types(texts: Sequence[str]) -> Hosts:
    """Types such as `cpus=64,mem_mb=131072`; `name=…`, `price=…` and `attr_…=…` are optional. Raises ConfigError."""
    found = [_host_type(text) for text in texts]
    names = [name for one in found for name in one if name not in ("name", "price") and not name.startswith("attr_")]
    dimensions = tuple(dict.fromkeys(names))
    kinds: list[HostKind] = []
    for one, text in zip(found, texts, strict=True):
        amounts = tuple(parse_amount(one.get(name, "0"), f"--host, {name}", name) for name in dimensions)
        name = one.get("name", text if len(text) < 60 else f"type {len(kinds) + 1}")
        attributes = {key.removeprefix("attr_"): value for key, value in one.items() if key.startswith("attr_")}
        price = parse_amount(one.get("price", "0"), "--host, price") / 1_000
        kinds.append(HostKind(name, amounts, {**attributes, HOST: name}, MAX_COUNT, price))
    return Hosts("--host", dimensions, tuple(kinds), how_many=True)


def _host_type(text: str) -> dict[str, str]:
    pairs = [[part.strip() for part in item.partition("=")] for item in text.split(",") if item.strip()]
    if not pairs or not all(sign and name not in ("", "attr_") for name, sign, _ in pairs) or not text.isprintable():
        raise ConfigError(f"{text!r:.80} is not a host type", field="--host", fix="such as cpus=64,mem_mb=131072")
    found: dict[str, str] = {}
    for given, _, value in pairs:
        column, factor = column_of(given, HOST_COLUMNS)
        name = column if given != "name" and factor == 1 else given
        if name in found:
            raise ConfigError("is given twice", field=f"--host, {name}", fix="give it once")
        if name in _NOT_OF_A_TYPE:
            raise ConfigError("does not describe a type of host", field=f"--host, {name}", fix=_NOT_OF_A_TYPE[name])
        if not value:
            raise ConfigError("is empty", field=f"--host, {name}", fix="give a value, or leave it out")
        found[name] = value
    return found


def hosts_of_cluster(client: Client) -> Hosts:
    """The agents, without those that are not reachable or being drained. Raises ConfigError if no agent is left.

    The resources of an agent are those that it offered, or that our tasks used, at the time of its last offer.
    """
    kinds = []
    for agent in client.cluster()["agents"]:
        if agent["lost"] or agent["drain"]:
            continue
        amounts = tuple(round(agent["whole"].get(name, 0) * 1_000) for name in RESOURCE_FIELDS)
        attributes = {str(key): str(value) for key, value in agent["attributes"].items()}
        kinds.append(HostKind(agent["hostname"], amounts, {**attributes, HOST: agent["hostname"]}, 1))
    if not kinds:
        raise ConfigError(
            "the cluster has no agents", field="--cluster", fix="wait for the first offers, or give --hosts"
        )
    return Hosts("the cluster", registered.DIMENSIONS, tuple(kinds))


# --------------------------------------------------------------------------------------------------------------- demand


def demand_of_table(path: Path, capacity: Callable[[tuple[str, ...]], Sequence[int]]) -> Demand:
    """The demand in a table of tasks. Raises BadTable.

    `capacity` returns the total of all hosts in given dimensions. The peak is the instant with the largest share of
    this total, in any of the dimensions.
    """
    table: TaskTable = read_tasks(path)
    kinds = [TaskKind(row.job, row.amounts, row.copies, row.rules, name=row.id) for row in table.rows]
    if not any(row.arrive_s or row.leave_s is not None for row in table.rows):
        return Demand(table.source, table.dimensions, tuple(kinds), notes=table.notes)
    timeline = load(row_spans(table.rows, kinds), len(table.dimensions))
    peak = timeline.peak(capacity(table.dimensions))
    asked = tuple(timeline.at(peak))
    return Demand(table.source, table.dimensions, asked, load=timeline, peak_ms=peak, of_table=True, notes=table.notes)


def demand_of_jobs(
    jobs: JobSet, when: When, capacity: Callable[[tuple[str, ...]], Sequence[int]], progress: Progress | None
) -> Demand:
    """The demand of jobs at the peak of the given days. Raises ConfigError."""
    if not jobs.jobs:
        raise ConfigError("there are no jobs", field=jobs.source, fix="register jobs, or give --tasks")
    parsed = [
        registered.scheduled_job(
            config,
            jobs.run_times.get(str(config.get("jobName")), when.run_s),
            jobs.apps.get(str(config.get("appName")), {}),
            jobs.calendars,
        )
        for config in jobs.jobs
    ]
    parsed = registered.with_exclusive(parsed, jobs.jobs)
    shared = {name: registered.executor(config) for name, config in jobs.apps.items()}
    kinds = [job.kind for job in parsed]
    warm = [kind for name, config in jobs.apps.items() if (kind := registered.warm_executors(name, config))]
    missing = {kind.shared for kind in kinds} - set(shared) - {""}
    shared |= dict.fromkeys(missing, registered.executor({}))
    start = round(when.day.timestamp() * 1_000)
    end = start + when.days * DAY_MS
    amounts = capacity(registered.DIMENSIONS)
    by_key = {job.kind.job: job for job in parsed}
    begun = [flow for flow in jobs.workflows if flow.steps[0].job in by_key]
    families = flows.families(begun, by_key, {} if when.all_at_once else jobs.pools, set(jobs.run_times))
    # The job of a start counts as a node.
    alone = [job for job in parsed if job.kind.job not in {flow.steps[0].job for flow in begun}]
    notes = list(_workflow_notes(jobs.workflows, by_key))
    if when.all_at_once:
        nodes = {step.job for flow in begun for step in flow.steps}
        once = [job.kind for job in alone if job.kind.job not in nodes or _fires(job, start)]
        leave_out = {kind.job for kind in once}
        choices = [partial(family.at_once, start, leave_out) for family in families]
        timeline, counted = flows.heaviest_load([Span(start, start + 1, kind) for kind in once], amounts, choices)
        asked = (*(span.kind for span in timeline.spans), *warm)
        return Demand(jobs.source, registered.DIMENSIONS, asked, shared, notes=tuple(notes), workflows=counted)
    found = [Span(start, end, kind) for kind in warm]
    notes += [*_unknown_calendars(jobs), *_pool_notes(parsed, jobs.pools)]
    limited = [pools.known_slots(job, jobs.pools) for job in alone]
    limited = [job for job in limited if not pools.never_starts(job, jobs.pools)]
    done = 0
    for group in pools.groups(limited):
        single = not group[0].slots
        found += spans(group, start, end) if single else pools.pooled_spans(group, jobs.pools, start, end)
        done += len(group)
        if progress:
            progress(f"the day of {group[0].kind.job}", done / len(limited))
    choices = [partial(family.spans, start, end) for family in families]
    timeline, counted = flows.heaviest_load(found, amounts, choices)
    if not len(timeline.times):
        raise ConfigError("no job runs on these days", field="--day", fix="choose another day, or more --days")
    peak = timeline.peak(amounts)
    asked = tuple(timeline.at(peak))
    return Demand(
        jobs.source, registered.DIMENSIONS, asked, shared, timeline, peak, notes=tuple(notes), workflows=counted
    )


def _fires(job: ScheduledJob, start_ms: int) -> bool:
    """Whether a job runs at some time by itself."""
    return job.times is None or job.times.next_after(start_ms - 1) is not None


def _workflow_notes(known: Sequence[flows.Flow], jobs: Mapping[str, ScheduledJob]) -> Iterator[str]:
    for flow in known:
        missing = [step.job for step in flow.steps if step.job and step.job not in jobs]
        if flow.steps[0].job not in jobs:
            yield f"workflow {flow.key} never begins: {flow.steps[0].job or flow.steps[0].name} is not among the jobs"
        elif missing:
            more = f", nor are {len(missing) - 1} others" if len(missing) > 1 else ""
            yield f"workflow {flow.key}: its job {missing[0]} is not among the jobs{more}; such nodes need nothing"


def _unknown_calendars(jobs: JobSet) -> Iterator[str]:
    users = Counter(
        key
        for config in jobs.jobs
        for key in dict.fromkeys(registered.calendars_of(config).values())
        if key not in jobs.calendars
    )
    for key, number in sorted(users.items()):
        yield f"the days of calendar {key} are not known (--calendar): it limits no job that names it ({number})"


def _pool_notes(jobs: Iterable[ScheduledJob], limits: Mapping[str, int]) -> Iterator[str]:
    users = Counter(pool for job in jobs for pool, _ in job.slots if pool not in limits)
    for pool, number in sorted(users.items()):
        yield f"the slots of pool {pool} are not known (--pool): it limits no job that names it ({number})"
    for job in jobs:
        for pool, needed in job.slots:
            if needed > limits.get(pool, needed):
                yield f"job {job.kind.job} does not count: a shard needs {needed} slots, pool {pool} has {limits[pool]}"


def with_warm_executors(hosts: Hosts, demand: Demand, apps: Mapping[str, Json]) -> tuple[Hosts, Demand]:
    """Subtract the resources of executors that an app keeps on each host (`executors = "each"`).

    They are subtracted from each host that has room for the executor. The tasks of such an app then need no room for an
    executor.
    """
    everywhere = [name for name, config in apps.items() if registered.one_on_each_host(config)]
    if not everywhere:
        return hosts, demand
    kinds = hosts.kinds
    for name in everywhere:
        taken = dict(
            zip(registered.DIMENSIONS, map(sum, zip(demand.shared[name], PLACEHOLDER, strict=True)), strict=True)
        )
        kinds = tuple(_less(kind, [taken.get(dimension, 0) for dimension in hosts.dimensions]) for kind in kinds)
    asked = tuple(replace(kind, shared="") if kind.shared in everywhere else kind for kind in demand.kinds)
    return replace(hosts, kinds=kinds), replace(demand, kinds=asked)


def _less(kind: HostKind, taken: Sequence[int]) -> HostKind:
    left = tuple(has - takes for has, takes in zip(kind.capacity, taken, strict=True))
    return replace(kind, capacity=left) if min(left, default=0) >= 0 else kind


def manifest_jobs(paths: Sequence[Path], default_team: str = "") -> JobSet:
    """The jobs and apps of manifests. `default_team`: the team if a manifest names no team. Raises ConfigError."""
    jobs: list[Json] = []
    limits: dict[str, int] = {}
    apps: dict[str, Json] = {}
    found: list[flows.Flow] = []
    for path in paths:
        if not path.exists():
            raise ConfigError(f"{path} does not exist", field="--manifest", fix="give an app's directory or archive")
        manifest = read_manifest(path)
        if not manifest.jobs:
            raise ConfigError("has no jobs", field=f"{path}/jobcloud.toml", fix="write [[jobs]]")
        team = str(manifest.app.get("team") or default_team or DEFAULT_TEAM)
        app = key_of(team, str(manifest.app.get("appName") or path.resolve().name))
        apps[app] = manifest.app
        jobs += [_by_key(config, key_of(team, str(config.get("jobName", ""))), app) for config in manifest.jobs]
        for pool in manifest.pools:
            limits[key_of(str(pool.get("team") or team), str(pool.get("poolName")))] = _slots_of(pool, path)
        for number, table in enumerate(manifest.workflows):
            document = check_manifest(manifest, path)
            entry = workflow_entry(document, ("workflows", number), {"team": team, **table})
            found.append(flows.flow_of(entry.key, entry.config, split_key(entry.key)[0], entry.where()))
    counts = Counter(str(job.get("jobName")) for job in jobs)
    double = next((name for name, count in counts.items() if count > 1), None)
    if double is not None:
        raise ConfigError(f"{double!r:.80} is given twice", field="jobName", fix="names are unique in a team")
    return JobSet("the manifest", tuple(jobs), apps, pools=limits, workflows=tuple(found))


def _slots_of(pool: Json, path: Path) -> int:
    slots = pool.get("slots")
    if isinstance(slots, bool) or not isinstance(slots, int) or slots < 0:
        raise ConfigError(f"{slots!r:.60} is no number of slots", field=f"{path}, pools, slots", fix="such as 5")
    return slots


def _by_key(config: Json, job: str, app: str) -> Json:
    return {**config, "jobName": job, "appName": app}


def registered_jobs(client: Client) -> JobSet:
    """The server's enabled jobs and apps. The longest recent run of a job gives the duration of its runs."""
    apps = {app["appName"]: app["config"] for app in client.apps() if app["enabled"]}
    enabled = [job for job in client.jobs() if job["enabled"] and job["appName"] in apps]
    jobs = [_by_key(job["config"], job["jobName"], job["appName"]) for job in enabled]
    lengths = registered.run_times_of(client.runs(_MAX_RUNS))
    calendars = {key: days for key in _calendars_in(jobs) if (days := _days_of(client, key)) is not None}
    limits = {pool["name"]: pool["slots"] for pool in client.pools()} if any(job.get("pools") for job in jobs) else {}
    found = tuple(
        flows.flow_of(one["workflow"], one, one["team"], f"workflow {one['workflow']}") for one in client.workflows()
    )
    return JobSet(
        "the registered jobs",
        tuple(jobs),
        apps,
        lengths,
        complete=False,
        calendars=calendars,
        pools=limits,
        workflows=found,
    )


def _calendars_in(jobs: Iterable[Json]) -> dict[str, None]:
    return dict.fromkeys(key for config in jobs for key in registered.calendars_of(config).values())


def _days_of(client: Client, key: str) -> Days | None:
    """The days of a calendar; None if the server has lost it."""
    try:
        return parse_days(client.calendar(key)["days"])
    except ApiError as error:
        if error.status != 404:
            raise
        return None


def pools_of(given: Sequence[str] | None, team: str = "") -> dict[str, int]:
    """The slots of the values NAME=SLOTS of `--pool`, by key. `team`: that of names without one. Raises ConfigError."""
    found: dict[str, int] = {}
    for text in given or ():
        name, sign, number = text.partition("=")
        if not (name and sign and number.isascii() and number.isdigit() and len(number) <= _MAX_DIGITS):
            raise ConfigError(f"{text[:120]!r} names no pool and slots", field="--pool", fix="such as orders-db=5")
        key = qualified(name, team)
        if key in found:
            raise ConfigError(f"{name[:120]!r} is given twice", field="--pool", fix="give it once")
        found[key] = int(number)
    return found


# ------------------------------------------------------------------------------------------------------------- together


def capacity_of(hosts: Hosts) -> Callable[[tuple[str, ...]], list[int]]:
    """A function that returns the total of all hosts in given dimensions.

    If the hosts are types, the function returns the amounts of one host of the first type.
    """

    def capacity(dimensions: tuple[str, ...]) -> list[int]:
        amounts = []
        for name in dimensions:
            at = hosts.dimensions.index(name) if name in hosts.dimensions else -1
            kinds = hosts.kinds[:1] if hosts.how_many else hosts.kinds
            amounts.append(sum(k.capacity[at] * (1 if hosts.how_many else k.copies) for k in kinds) if at >= 0 else 0)
        return amounts

    return capacity


def problem_of(hosts: Hosts, demand: Demand) -> Problem:
    """Join hosts and demand. Raises ConfigError if tasks need a resource that the hosts do not state."""
    supply, asked = Source(hosts.source, hosts.dimensions), Source(demand.source, demand.dimensions)
    return join(supply, hosts.kinds, asked, demand.kinds, demand.shared)


def load_of(demand: Demand, problem: Problem) -> Load | None:
    """The load over time in the problem's dimensions."""
    if demand.load is None:
        return None
    at = [demand.dimensions.index(name) for name in problem.dimensions]
    return Load(demand.load.times, demand.load.amounts[:, at], demand.load.spans)


def day_of(text: str, zone: str) -> datetime:
    """The start of a day in a time zone. The text "" means today. Raises ConfigError."""
    try:
        clock = zones.zone(zone)
    except LookupError:
        raise ConfigError(f"{zone!r:.60} is unknown", field="--zone", fix="such as Europe/Berlin") from None
    try:
        day = datetime.fromisoformat(text) if text else datetime.now(clock)
    except ValueError:
        raise ConfigError(f"{text!r:.60} is not a day", field="--day", fix="such as 2026-03-31") from None
    if not 1971 <= day.year <= 2098:
        raise ConfigError(f"{text!r:.60} is out of range", field="--day", fix="1971 to 2098")
    return day.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=clock)
