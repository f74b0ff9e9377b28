"""Series over time: what ended in each step, and the means of the samples.

Attempts count in the step in which they ended, runs and their shards in the step in which the run fired. Nothing is
said about steps before the oldest row, and a step without a sample has no means.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import groupby
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, case, func, select

from jobcloud.config import DIMENSIONS, Resources
from jobcloud.history.answers import Means, Statistics, Step, Wanted
from jobcloud.history.condensing import SUMS
from jobcloud.history.queries import Reader, add_row, conditions, quantiles, sums
from jobcloud.history.samples import CLUSTER
from jobcloud.history.steps import HOUR_MS, MINUTE_MS, Steps
from jobcloud.history.tables import attempts, prefix, runs, samples

_SHARDS = ("finished", "failed", "killed", "cancelled", "dead")


def series(reader: Reader, steps: Steps, wanted: Wanted) -> list[Step]:
    """The steps, oldest first. `wanted.since_ms` and `until_ms` are not read. Raises Unavailable.

    Samples are of teams, so a filter by a job or an app gives no means.
    """
    found = {at: Step(at, until) for at, until in steps.ranges}
    if not found:
        return []
    wanted = replace(wanted, since_ms=steps.bounds[0], until_ms=steps.bounds[-1])
    with reader.connect() as connection:
        _add_attempts(connection, steps, wanted, found)
        _add_runs(connection, steps, wanted, found)
        if not wanted.job and not wanted.app:
            _add_means(connection, steps, wanted, found)
    return list(found.values())


def _where(table: Table, wanted: Wanted) -> list[ColumnElement[bool]]:
    found = conditions(table, wanted)
    if wanted.teams is not None:
        found.append(table.c.team.in_(sorted(wanted.teams)))
    return found


def _beginning(connection: Connection, table: Table, wanted: Wanted) -> int | None:
    """The instant of the oldest row that the filter selects; None if there is no row."""
    where = conditions(table, replace(wanted, since_ms=0, until_ms=0))
    oldest = connection.execute(select(func.min(table.c.id)).where(*where)).scalar()
    return int(oldest[:12], 16) if oldest else None


def _known(steps: dict[int, Step], beginning: int | None) -> list[Step]:
    """The steps that do not end before the beginning of the history."""
    return [step for step in steps.values() if beginning is not None and step.until > beginning]


def _add_attempts(connection: Connection, steps: Steps, wanted: Wanted, found: dict[int, Step]) -> None:
    known = _known(found, _beginning(connection, attempts, wanted))
    for step in known:
        step.attempts = Statistics("")
    if not known:
        return
    where, first = _where(attempts, wanted), first_of(steps, attempts.c.ended_ms)
    rows: list[Any] = list(connection.execute(sums(first, where)))
    for row in rows:
        step = found[int(row.name)]
        if step.attempts is not None:
            add_row(step.attempts, row)
            step.outcomes[row.outcome] += row.count
    durations = quantiles(connection, attempts.c.duration_ms, first, where)
    queued = quantiles(connection, attempts.c.queued_ms, first, where)
    for step in known:
        if step.attempts is not None:
            step.attempts.duration, step.attempts.queued = durations.get(step.at), queued.get(step.at)


def _add_runs(connection: Connection, steps: Steps, wanted: Wanted, found: dict[int, Step]) -> None:
    for step in _known(found, _beginning(connection, runs, wanted)):
        step.runs, step.shards = Counter(), Counter()
    first = first_of(steps, runs.c.fired_ms).label("first")
    counts = (func.count().label("count"), *(func.sum(runs.c[name]).label(name) for name in _SHARDS))
    statement = select(first, runs.c.state, *counts).where(*_where(runs, wanted)).group_by("first", runs.c.state)
    rows: list[Any] = list(connection.execute(statement))
    for row in rows:
        step = found[int(row.first)]
        if step.runs is not None and step.shards is not None:
            step.runs[row.state] += row.count
            step.shards.update({name.upper(): int(getattr(row, name)) for name in _SHARDS if getattr(row, name)})


def _add_means(connection: Connection, steps: Steps, wanted: Wanted, found: dict[int, Step]) -> None:
    table = samples
    # A sample of an hour says nothing about a minute.
    lengths = (MINUTE_MS,) if steps.by == "minute" else (MINUTE_MS, HOUR_MS)
    within = [
        table.c.step_ms.in_(lengths),
        table.c.id >= prefix(steps.bounds[0]),
        table.c.id < prefix(steps.bounds[-1]),
    ]
    own: ColumnElement[bool] = table.c.team != CLUSTER
    if wanted.team or wanted.teams is not None:
        own = table.c.team.in_([wanted.team] if wanted.team else sorted(wanted.teams or ()))
    of_cluster = _sums(connection, steps, [*within, table.c.team == CLUSTER])
    of_teams = _sums(connection, steps, [*within, own])
    for at, cluster in of_cluster.items():
        found[at].means = _means(cluster, of_teams.get(at, {}))


def _sums(connection: Connection, steps: Steps, where: list[ColumnElement[bool]]) -> dict[int, dict[str, int]]:
    """The sums of the samples of each step."""
    first = first_of(steps, samples.c.at_ms).label("first")
    statement = select(first, *(func.sum(samples.c[name]).label(name) for name in SUMS)).where(*where)
    rows: list[Any] = list(connection.execute(statement.group_by("first")))
    return {int(row.first): {name: int(getattr(row, name)) for name in SUMS} for row in rows}


def _means(cluster: dict[str, int], teams: dict[str, int]) -> Means:
    """The cluster has a row in each sample, a team only if it has something."""
    count = cluster["samples"]

    def mean(name: str) -> float:
        return teams.get(name, 0) / count

    return Means(
        samples=count,
        jobs=mean("jobs"),
        disabled=mean("disabled"),
        running_jobs=mean("running_jobs"),
        running=mean("running"),
        waiting=mean("waiting"),
        runs=mean("runs"),
        agents=cluster["agents"] / count,
        used=Resources(*(round(mean(f"used_{name}")) for name in DIMENSIONS)),
        total=Resources(*(round(cluster[f"total_{name}"] / count) for name in DIMENSIONS)),
    )


def first_of(steps: Steps, column: ColumnElement[Any]) -> ColumnElement[Any]:
    """SQL for the first instant of the step of an instant. The instant must be within the range.

    Days are not equally long. So each sequence of equal steps has a formula of its own.
    """
    pieces: list[tuple[int, ColumnElement[Any]]] = []
    for length, group in groupby(steps.ranges, lambda one: one[1] - one[0]):
        found = list(group)
        pieces.append((found[-1][1], column - (column - found[0][0]) % length))
    *others, (_, last) = pieces
    return case(*((column < end, formula) for end, formula in others), else_=last) if others else last
