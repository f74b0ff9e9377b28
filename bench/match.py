"""Times the matcher on any workload given as CSV files.

    python bench/match.py --hosts HOSTS.csv --tasks TASKS.csv [--fitness F] [--engine E] [--repeat N] [--json]

Columns: id, cpus, mem_mb, and any of disk_mb, net_mbps, gpus, ports (hosts: ports, or port_beg and port_end), count
(so many alike), attr_NAME (hosts), constraint (tasks; several separated by ";": those of docs/matcher.md, and
max_per_host=N). A dimension counts if any task asks for it. F is a name, or weights in 1024ths: align=512,pack=512.

native_seconds: one match() on a loaded matcher. api_seconds: from the rows as Python objects to a list of (task id,
host id or None), with everything made anew. Both are medians of --repeat.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jobcloud.constraints import HOST, ConstraintError, mask, parse
from jobcloud.match import ENGINES, CompiledMatcher, MatchError, vector_path

AMOUNTS = ("cpus", "mem_mb", "disk_mb", "net_mbps", "gpus", "ports")


class BadFile(Exception):
    """A file is not what it should be; the text names file, line and column."""


class HostRow(NamedTuple):
    id: str
    amounts: tuple[int, ...]  # thousandths, in the order of AMOUNTS
    attributes: dict[str, str]


class TaskRow(NamedTuple):
    id: str
    shape: tuple[tuple[int, ...], str]  # thousandths, and the text of the constraints


@dataclass(frozen=True, slots=True)
class Answer:
    placed: int
    refused: int
    hosts_used: int
    cpus_used: float
    cpus_of_used_hosts: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--hosts", type=Path, required=True)
    parser.add_argument("--tasks", type=Path, required=True)
    parser.add_argument("--fitness", type=_fitness, default="pack")
    parser.add_argument("--engine", choices=ENGINES, default="index")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    try:
        hosts, tasks = read_hosts(arguments.hosts), read_tasks(arguments.tasks)
        result = run(hosts, tasks, max(1, arguments.repeat), engine=arguments.engine, fitness=arguments.fitness)
    except (BadFile, MatchError, ConstraintError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if arguments.json:
        print(json.dumps(result))
    else:
        print(*(f"{name}: {value}" for name, value in result.items()), sep="\n")
    return 0


def run(hosts: list[HostRow], tasks: list[TaskRow], repeat: int, **options: Any) -> dict[str, Any]:
    dimensions = [d for d in range(len(AMOUNTS)) if any(t.shape[0][d] for t in tasks)] or [0]
    native, api, slots = [], [], None
    for _ in range(repeat):
        matcher, classes = load(hosts, tasks, dimensions, options)
        slots, seconds = timed(lambda: matcher.match(classes)[0])  # noqa: B023 - called at once
        native.append(seconds)
        _, seconds = timed(lambda: place_objects(hosts, tasks, dimensions, options))
        api.append(seconds)
    assert slots is not None
    answer = summary(hosts, tasks, slots)
    return {
        **{name: getattr(answer, name) for name in Answer.__slots__},
        "native_seconds": statistics.median(native),
        "api_seconds": statistics.median(api),
        "vector_path": vector_path(),
    }


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    answer = work()
    return answer, time.perf_counter() - start


def load(hosts: list[HostRow], tasks: list[TaskRow], dimensions: list[int], options: dict[str, Any]) -> Any:
    """A matcher with the hosts and a class for each shape, and the tasks as class numbers."""
    matcher = CompiledMatcher(len(dimensions), **options)
    for row in np.array([host.amounts for host in hosts], dtype=np.int64)[:, dimensions].copy():
        matcher.add_host(row)
    attributes = [host.attributes for host in hosts]
    numbers: dict[Any, int] = {}
    classes = np.empty(len(tasks), dtype=np.int64)
    for i, task in enumerate(tasks):
        number = numbers.get(task.shape)
        if number is None:
            number = numbers[task.shape] = add_class(matcher, task.shape, dimensions, attributes, len(numbers))
        classes[i] = number
    return matcher, classes


def add_class(matcher: Any, shape: Any, dimensions: list[int], attributes: list[Any], group: int) -> int:
    amounts, text = shape
    texts = [part.strip() for part in text.split(";") if part.strip()]
    limits = [part.removeprefix("max_per_host=") for part in texts if part.startswith("max_per_host=")]
    wanted = [parse(part) for part in texts if not part.startswith("max_per_host=")]
    if limits and not limits[-1].isdecimal():
        raise ConstraintError(f"max_per_host needs a whole number, not {limits[-1]!r:.60}")
    return int(
        matcher.add_class(
            np.array([amounts[d] for d in dimensions], dtype=np.int64),
            allowed=mask(wanted, attributes) if wanted else None,
            group=group if limits else -1,
            most_per_host=int(limits[-1]) if limits else 0,
        )
    )


def place_objects(hosts: list[HostRow], tasks: list[TaskRow], dimensions: list[int], options: dict[str, Any]) -> Any:
    matcher, classes = load(hosts, tasks, dimensions, options)
    slots, _ = matcher.match(classes)
    ids = [host.id for host in hosts]
    return [(task.id, ids[slot] if slot >= 0 else None) for task, slot in zip(tasks, slots.tolist(), strict=True)]


def summary(hosts: list[HostRow], tasks: list[TaskRow], slots: Any) -> Answer:
    placed = slots >= 0
    used = np.unique(slots[placed])
    cpus = np.array([task.shape[0][0] for task in tasks])
    return Answer(
        placed=int(placed.sum()),
        refused=int((~placed).sum()),
        hosts_used=len(used),
        cpus_used=int(cpus[placed].sum()) / 1_000,
        cpus_of_used_hosts=sum(hosts[slot].amounts[0] for slot in used) / 1_000,
    )


def read_hosts(path: Path) -> list[HostRow]:
    rows = []
    for where, row in read(path):
        if row.get("port_beg") and row.get("port_end"):
            row["ports"] = str(_whole(where, row, "port_end") - _whole(where, row, "port_beg") + 1)
        attributes = {
            name.removeprefix("attr_"): text for name, text in row.items() if name.startswith("attr_") and text
        }
        amounts, idents = _amounts(where, row), _each(row["id"], _count(where, row))
        rows += [HostRow(ident, amounts, {**attributes, HOST: ident}) for ident in idents]
    return _unique(path, rows)


def read_tasks(path: Path) -> list[TaskRow]:
    rows = []
    for where, row in read(path):
        shape = _amounts(where, row), row.get("constraint") or ""
        rows += [TaskRow(ident, shape) for ident in _each(row["id"], _count(where, row))]
    return _unique(path, rows)


def read(path: Path) -> Any:
    """Where it stands, and the row, for each."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = {"id", "cpus", "mem_mb"} - set(reader.fieldnames or ())
        if missing:
            raise BadFile(f"{path}, line 1: the columns {', '.join(sorted(missing))} are missing")
        for row in reader:
            if None in row or None in row.values():
                raise BadFile(f"{path}, line {reader.line_num}: it has more or fewer fields than the first line")
            yield f"{path}, line {reader.line_num}", row


def _unique(path: Path, rows: list[Any]) -> list[Any]:
    seen: set[str] = set()
    for row in rows:
        if row.id in seen:
            raise BadFile(f"{path}, column id: {row.id!r:.60} is there twice")
        seen.add(row.id)
    if not rows:
        raise BadFile(f"{path}: there is no row in it")
    return rows


def _each(ident: str, count: int) -> list[str]:
    return [ident] if count == 1 else [f"{ident}#{i}" for i in range(count)]


def _count(where: str, row: dict[str, str]) -> int:
    return _whole(where, row, "count") if row.get("count") else 1


def _amounts(where: str, row: dict[str, str]) -> tuple[int, ...]:
    return tuple(int(_number(where, row, name) * 1_000) if row.get(name) else 0 for name in AMOUNTS)


def _whole(where: str, row: dict[str, str], name: str) -> int:
    number = _number(where, row, name)
    if number != int(number):
        raise BadFile(f"{where}, column {name}: {row[name]!r:.60} is no whole number")
    return int(number)


def _number(where: str, row: dict[str, str], name: str) -> Decimal:
    try:
        number = Decimal(row[name])
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or number < 0 or number > 2**42:
        raise BadFile(f"{where}, column {name}: {row[name]!r:.60} is no amount")
    return number


def _fitness(text: str) -> Any:
    if "=" not in text:
        return text
    try:
        return {name.strip(): int(weight) for name, weight in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise argparse.ArgumentTypeError("write a name, or weights like align=512,pack=512") from None


if __name__ == "__main__":
    sys.exit(main())
