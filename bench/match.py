"""Times the matcher on a workload from CSV files.

    python bench/match.py --hosts HOSTS.csv --tasks TASKS.csv [--fitness F] [--engine E] [--repeat N] [--json]
    python bench/match.py --hosts HOSTS.csv --fill FILL.csv --churn CHURN.csv …

The columns are those of `jobcloud plan` (docs/planning.md): id, cpus, mem_mb, and any of disk_mb, net_mbps, gpus,
ports (hosts: or port_beg and port_end), count, attr_NAME (hosts), constraint (tasks). A dimension counts if any task
requests it. Tasks cannot have times (arrive_s, leave_s). Between two jobs, the constraint anti:JOB<=N works only with
N = 0, because the matcher has no rule for other limits; `jobcloud plan` supports all. F is a name, or weights in
1024ths: align=512,pack=512.

native_seconds: one match() on a loaded matcher. api_seconds: from the rows as Python objects to a list of (task id,
host id or None), with all objects made anew. Both are medians of --repeat.

FILL: running tasks, with a column host. CHURN: iter, op (add or del), id, cpus, mem_mb. Then api_seconds is the
median of the rounds, from the names of tasks that end and start to their hosts. native_seconds: release() and match()
alone, in another run of the same rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jobcloud.errors import ConfigError
from jobcloud.match import ENGINES, MatchError, at_most, vector_path
from jobcloud.match.constraints import ConstraintError
from jobcloud.match.placer import PORTS, Placer, Shape
from jobcloud.planning.rules import MAX_PER_HOST
from jobcloud.planning.tables import BadTable, HostTable, TaskRow, TaskTable, parse_amount, read_hosts, read_table
from jobcloud.planning.tables import read_tasks as read_task_table


class HostRow(NamedTuple):
    """The arguments of `Placer.add_host`."""

    name: str
    amounts: dict[str, Any]
    attributes: dict[str, str]
    ports: list[tuple[int, int]]


class Round(NamedTuple):
    ended: list[str]
    started: list[tuple[str, Any]]  # names and kinds


@dataclass(frozen=True, slots=True)
class Demand:
    """Tasks as (name, kind), and the arguments of `Placer.shape` for each kind."""

    dimensions: tuple[str, ...]
    tasks: list[tuple[str, Any]]
    kinds: dict[Any, dict[str, Any]]
    exclusions: dict[Any, tuple[str, list[str]]]  # kind → its group, and the groups with which it shares no host

    def shapes(self, placer: Placer) -> dict[Any, Shape]:
        made = {}
        for kind, asked in self.kinds.items():
            group, foes = self.exclusions.get(kind, ("", []))
            rules = [at_most(1, placer.group(foe)) for foe in foes]
            made[kind] = placer.shape(group=group, rules=rules, **asked)
        return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--hosts", type=Path, required=True)
    parser.add_argument("--tasks", type=Path)
    parser.add_argument("--fill", type=Path)
    parser.add_argument("--churn", type=Path)
    parser.add_argument("--fitness", type=_fitness, default="even")
    parser.add_argument("--engine", choices=ENGINES, default="index")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if (arguments.tasks is None) != (arguments.fill is not None and arguments.churn is not None):
        parser.error("give --tasks, or --fill and --churn")
    options = {"engine": arguments.engine, "fitness": arguments.fitness}
    try:
        table = read_hosts(arguments.hosts)
        show_notes(table.notes)
        if arguments.tasks:
            result = cold(table, read_tasks(arguments.tasks), max(1, arguments.repeat), options)
        else:
            result = churn(table, arguments.fill, arguments.churn, options)
    except (ConfigError, MatchError, ConstraintError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if arguments.json:
        print(json.dumps(result))
    else:
        print(*(f"{name}: {value}" for name, value in result.items()), sep="\n")
    return 0


def show_notes(notes: Iterable[str]) -> None:
    """What was read differently from what a file says, on standard error."""
    for note in notes:
        print(note, file=sys.stderr)


def cold(table: HostTable, demand: Demand, repeat: int, options: dict[str, Any]) -> dict[str, Any]:
    """All tasks at once on empty hosts."""
    hosts = host_rows(table, demand.dimensions)
    native, api, answers = [], [], list[tuple[str, str | None]]()
    for _ in range(repeat):
        placer = Placer(demand.dimensions, **options)
        placer.add_hosts(hosts)
        shapes = demand.shapes(placer)
        classes = np.array([shapes[kind].number for _, kind in demand.tasks], dtype=np.int32)
        native.append(timed(lambda: placer.matcher.match(classes))[1])  # noqa: B023 - called immediately
        answers, seconds = timed(lambda: place_all(hosts, demand, options))
        api.append(seconds)
    return summary(table, demand, answers) | times(native, api)


def place_all(hosts: list[HostRow], demand: Demand, options: dict[str, Any]) -> list[tuple[str, str | None]]:
    placer = Placer(demand.dimensions, **options)
    placer.add_hosts(hosts)
    shapes = demand.shapes(placer)
    return placer.place([(name, shapes[kind]) for name, kind in demand.tasks])


def churn(table: HostTable, fill: Path, changes: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Rounds in which some tasks end and others start, next to many running tasks."""
    running, rounds = read_fill(fill), read_churn(changes)
    dimensions = ("cpus", "mem_mb")
    kinds = {kind for _, kind in running} | {kind for each in rounds for _, kind in each.started}
    asked = {kind: {"amounts": dict(zip(dimensions, map(_number, kind), strict=True))} for kind in kinds}
    demand = Demand(dimensions, [], asked, {})
    hosts = host_rows(table, dimensions)

    def loaded() -> tuple[Placer, dict[Any, Shape]]:
        placer = Placer(dimensions, **options)
        placer.add_hosts(hosts)
        shapes = demand.shapes(placer)
        for (name, host), kind in running:
            placer.assign(name, shapes[kind], host)
        return placer, shapes

    placer, shapes = loaded()
    api, answers = [], list[tuple[str, str | None]]()
    for each in rounds:
        placed, seconds = timed(lambda: churned(placer, shapes, each))  # noqa: B023 - called immediately
        api.append(seconds)
        answers += placed
    native = native_rounds(*loaded(), rounds)
    return counts(answers) | times(native, api)


def churned(placer: Placer, shapes: dict[Any, Shape], each: Round) -> list[tuple[str, str | None]]:
    placer.release(each.ended)
    return placer.place([(name, shapes[kind]) for name, kind in each.started])


def native_rounds(placer: Placer, shapes: dict[Any, Shape], rounds: list[Round]) -> list[float]:
    """The same rounds with the matcher alone, given ids and classes."""
    ids, seconds = placer.claims(), []
    for each in rounds:
        ended = np.array([ids.pop(name, -1) for name in each.ended], dtype=np.int64)
        classes = np.array([shapes[kind].number for _, kind in each.started], dtype=np.int32)

        def work() -> Any:
            placer.matcher.release(ended)  # noqa: B023 - called immediately
            return placer.matcher.match(classes)  # noqa: B023

        (_, started), spent = timed(work)
        seconds.append(spent)
        names = (name for name, _ in each.started)
        ids |= {name: claim for name, claim in zip(names, started.tolist(), strict=True) if claim >= 0}
    return seconds


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    answer = work()
    return answer, time.perf_counter() - start


def times(native: list[float], api: list[float]) -> dict[str, Any]:
    return {
        "native_seconds": statistics.median(native),
        "api_seconds": statistics.median(api),
        "vector_path": vector_path(),
    }


def counts(answers: Iterable[tuple[str, str | None]]) -> dict[str, Any]:
    hosts = [host for _, host in answers]
    used = Counter(hosts)
    refused = used.pop(None, 0)
    return {"placed": len(hosts) - refused, "refused": refused, "hosts_used": len(used)}


def summary(table: HostTable, demand: Demand, answers: list[tuple[str, str | None]]) -> dict[str, Any]:
    axis = table.dimensions.index("cpus")
    cpus_of = {name: row.amounts[axis] for row in table.rows for name in row.each()}
    used = {host for _, host in answers if host}
    asked = sum(
        demand.kinds[kind]["amounts"].get("cpus", 0)
        for (_, kind), (_, host) in zip(demand.tasks, answers, strict=True)
        if host
    )
    return counts(answers) | {
        "cpus_used": float(asked),
        "cpus_of_used_hosts": sum(cpus_of[host] for host in used) / 1_000,
    }


def host_rows(table: HostTable, dimensions: tuple[str, ...]) -> list[HostRow]:
    """Raises BadTable if tasks request a dimension that the hosts do not specify."""
    if missing := set(dimensions) - set(table.dimensions):
        raise BadTable("is requested by tasks", field=f"{table.source}, column {min(missing)}", fix="add the column")
    rows = []
    for row in table.rows:
        have = dict(zip(table.dimensions, row.amounts, strict=True))
        amounts = {name: _number(have[name]) for name in dimensions if name != PORTS}
        ports = [(1, have[PORTS] // 1_000)] if PORTS in dimensions and have[PORTS] else []
        rows += [HostRow(name, amounts, dict(row.attributes), ports) for name in row.each()]
    return rows


def read_tasks(path: Path) -> Demand:
    """Raises BadTable."""
    table = read_task_table(path)
    show_notes(table.notes)
    if timed_row := next((row for row in table.rows if row.arrive_s or row.leave_s is not None), None):
        where = f"{table.source}, line {timed_row.line}, column arrive_s, leave_s"
        raise BadTable("is not empty, but all tasks run at once here", field=where, fix="use jobcloud plan")
    used = tuple(name for d, name in enumerate(table.dimensions) if any(row.amounts[d] for row in table.rows))
    dimensions = used or ("cpus",)
    foes = _foes(table)
    tasks, kinds, exclusions = list[tuple[str, Any]](), dict[Any, dict[str, Any]](), dict[Any, tuple[str, list[str]]]()
    for row in table.rows:
        grouped = row.job in foes or row.rules.max_per_host < MAX_PER_HOST
        kind = (row.amounts, id(row.rules), row.job if grouped else "")
        tasks += [(name, kind) for name in row.each()]
        if kind in kinds:
            continue
        asked = dict(zip(table.dimensions, map(_number, row.amounts), strict=True))
        kinds[kind] = {
            "amounts": {name: asked[name] for name in dimensions},
            "constraints": row.rules.attributes,
            "max_per_host": _max_per_host(row),
        }
        if grouped:
            exclusions[kind] = (row.job, sorted(foes[row.job]))
    return Demand(dimensions, tasks, kinds, exclusions)


def _foes(table: TaskTable) -> defaultdict[str, set[str]]:
    """job → the jobs with which it shares no host. Includes jobs that limit their own tasks."""
    foes: defaultdict[str, set[str]] = defaultdict(set)
    for row in table.rows:
        for other, limit in row.rules.neighbours.items():
            if other != row.job and limit:
                where = f"{table.source}, line {row.line}, column constraint"
                raise BadTable(f"anti:{other}<={limit} is not 0", field=where, fix="use jobcloud plan")
            foes[row.job].update({other} - {row.job})
            if other != row.job:
                foes[other].add(row.job)
    return foes


def _max_per_host(row: TaskRow) -> int:
    limit = min(row.rules.max_per_host, row.rules.neighbours.get(row.job, MAX_PER_HOST) + 1)
    return limit if limit < MAX_PER_HOST else 0


def read_fill(path: Path) -> list[tuple[tuple[str, str], tuple[int, int]]]:
    columns = ("id", "host", "cpus", "mem_mb")
    return [((row["id"], row["host"]), _kind(path, line, row)) for line, row in read_table(path, columns)]


def read_churn(path: Path) -> list[Round]:
    rounds: dict[str, Round] = {}
    for line, row in read_table(path, ("iter", "op", "id", "cpus", "mem_mb")):
        each = rounds.setdefault(row["iter"], Round([], []))
        if row["op"] == "del":
            each.ended.append(row["id"])
        elif row["op"] == "add":
            each.started.append((row["id"], _kind(path, line, row)))
        else:
            where = f"{path}, line {line}, column op"
            raise BadTable(f"{row['op']!r:.60} is not an operation", field=where, fix="write add or del")
    return list(rounds.values())


def _kind(path: Path, line: int, row: dict[str, str]) -> tuple[int, int]:
    where = f"{path}, line {line}, column"
    return parse_amount(row["cpus"], f"{where} cpus"), parse_amount(row["mem_mb"], f"{where} mem_mb")


def _number(thousandths: int) -> int | Decimal:
    return thousandths // 1_000 if thousandths % 1_000 == 0 else Decimal(thousandths) / 1_000


def _fitness(text: str) -> Any:
    if "=" not in text:
        return text
    try:
        return {name.strip(): int(weight) for name, weight in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise argparse.ArgumentTypeError("write a name, or weights like align=512,pack=512") from None


if __name__ == "__main__":
    sys.exit(main())
