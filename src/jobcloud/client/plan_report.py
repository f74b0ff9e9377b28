"""The output of `jobcloud plan`: sentences and tables, JSON, the placement as CSV, a progress bar."""

from __future__ import annotations

import csv
import ctypes
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from jobcloud import zones
from jobcloud.client import render
from jobcloud.client.http import Json
from jobcloud.client.planning import Demand
from jobcloud.errors import ConfigError
from jobcloud.planning import plan as plans
from jobcloud.planning.packing import UNTRIED, Progress
from jobcloud.planning.plan import Mix, Need, Plan, host_names
from jobcloud.planning.problem import Problem
from jobcloud.planning.tables import each_name
from jobcloud.planning.workflows import Counted

_MAX_ROWS: Final = 30
_MAX_NAMES: Final = 5


def document(plan: Plan, demand: Demand) -> Json:
    """The plan as JSON, with the peak: `{"at": instant}`, or `{"second": seconds}` if it is from a table of tasks.

    `workflows` has the nodes that count. `ignored` has sentences about calendars, pools and jobs that are not known.
    """
    workflows = [
        {
            "workflows": list(one.workflows),
            "nodes": list(one.nodes),
            "tasks": sum(kind.copies for kind in one.kinds),
            "runsAtOnce": one.runs,
            "unknownRunTimes": list(one.unknown),
            "exact": one.exact,
        }
        for one in demand.workflows
    ]
    return plans.document(plan) | {"peak": _peak(demand), "workflows": workflows, "ignored": list(demand.notes)}


def _peak(demand: Demand) -> Json | None:
    if demand.peak_ms is None:
        return None
    if demand.of_table:
        return {"second": demand.peak_ms / 1_000}
    return {"at": f"{datetime.fromtimestamp(demand.peak_ms / 1000, UTC):%Y-%m-%dT%H:%M:%S.000Z}"}


@contextmanager
def progress_bar() -> Iterator[Progress | None]:
    """A progress bar on standard error. If standard error is not a terminal, None."""
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
    """Discard the text that the solver's library writes to standard output, which must hold only the answer.

    The C library keeps such text in a buffer of its own, and would write it at the end of the process.
    """
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        if os.name == "posix":
            ctypes.CDLL(None).fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def write_placement(plan: Plan, demand: Demand, path: Path) -> None:
    """Write the host of each task as CSV (job, task, host). The host of an unplaced task is empty.

    Raises ConfigError if the file cannot be written.
    """
    names = host_names(plan.problem, plan.packing)
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("job", "task", "host"))
            tasks = zip(_task_names(plan.problem, demand), plan.packing.host_of.tolist(), strict=True)
            writer.writerows((job, task, names[host] if host >= 0 else "") for (job, task), host in tasks)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}",
            field="--placement",
            fix="name a file in a writable directory",
        ) from error


def _task_names(problem: Problem, demand: Demand) -> Iterator[tuple[str, str]]:
    """The job and the name of each task, in the order of `Packing.host_of`. Equal tasks of a job may change names."""
    at = [demand.dimensions.index(name) for name in problem.dimensions]
    names = defaultdict[Any, list[str]](list)
    numbers = Counter[str]()
    for kind in demand.kinds:
        key = kind.job, tuple(kind.request[d] for d in at), kind.rules.attributes, kind.shared
        if kind.name:
            names[key] += each_name(kind.name, kind.copies)
        else:
            names[key] += [f"{kind.job}#{numbers[kind.job] + n}" for n in range(kind.copies)]
            numbers[kind.job] += kind.copies
    for kind in problem.task_kinds:
        for job, _ in kind.parts or ((kind.job, kind.copies),):
            yield from ((job, name) for name in names[job, kind.request, kind.rules.attributes, kind.shared])


def show(plan: Plan, demand: Demand, zone: str) -> None:
    """Print the answers as sentences and tables. The time of the peak is in the time zone `zone`."""
    if demand.peak_ms is not None and not demand.of_table:
        peak = datetime.fromtimestamp(demand.peak_ms / 1000, UTC).astimezone(zones.zone(zone))
        render.say(f"peak at {peak:%a %Y-%m-%d %H:%M:%S %Z}, {plan.problem.tasks:,} tasks at once")
    elif demand.peak_ms is not None:
        render.say(f"peak after {timedelta(milliseconds=demand.peak_ms)}, {plan.problem.tasks:,} tasks at once")
    for counted in demand.workflows:
        render.say(_workflow_text(counted, demand.dimensions))
    if not plan.question.how_many:
        hosts = f"{len(plan.packing.hosts):,} host{'s' if len(plan.packing.hosts) != 1 else ''}"
        if plan.fits:
            render.say(f"fits: all {plan.problem.tasks:,} tasks on {hosts}", "bold green")
        elif plan.refused:
            refused = plan.packing.unplaced - plan.packing.untried
            render.say(f"does not fit: {refused:,} of {plan.problem.tasks:,} tasks refused", "bold red")
        render.say(f"{plan.packing.used:,} of {hosts} used")
        if plan.bound_broken:
            render.say(plan.bound_broken)
    if plan.untried:
        render.say(_untried_text(plan), "bold red")
    for need in plan.needs:
        render.say(_need_text(plan.problem, need) + _too_few(plan, need.kind, need.hosts))
    if plan.mix and len(plan.mix.hosts) > 1:
        hosts = " + ".join(f"{count:,} × {name}" for name, count in plan.mix.hosts)
        untried = f"; tasks not tried in time: {plan.mix.untried:,}" if plan.mix.untried else ""
        render.say(f"mixed: {hosts}{untried}{_price(plan.mix.price)}{_cheaper(plan.mix)}")
        if any(_too_few(plan, kind, count) for kind, (_, count) in zip(plan.mix.kinds, plan.mix.hosts, strict=True)):
            render.say("the mix is for any number of hosts of each type; some types do not have so many hosts")
    for note in (*plan.notes, *demand.notes):
        render.say(note)
    _show_refused(plan)
    _show_resources(plan)
    _show_failures(plan)
    _show_more(plan)


def _workflow_text(counted: Counted, dimensions: Sequence[str]) -> str:
    """The nodes that count, of workflows with one start."""
    several = len(counted.workflows) > 1
    names = f"workflow{'s' if several else ''} {_several(counted.workflows)}"
    if not counted.nodes:
        return f"{names}: no run in this time"
    tasks = sum(kind.copies for kind in counted.kinds)
    amount = _amount(sum(kind.copies * kind.request[counted.dimension] for kind in counted.kinds))
    text = (
        f"{names}: at most {_several(counted.nodes)} at once: {tasks:,} task{'s' if tasks != 1 else ''}, "
        f"{amount} {dimensions[counted.dimension]}"
    )
    text += f"; {counted.runs:,} runs at once" if counted.runs > 1 else ""
    if counted.unknown:
        text += f"; for the whole run, because the times of {_several(counted.unknown)} are not known"
    return text if counted.exact else f"{text}; this is a bound, because the graph is too large"


def _several(names: Sequence[str]) -> str:
    """The first names, such as "a, b and c"."""
    shown = [*names[:_MAX_NAMES], *([f"{len(names) - _MAX_NAMES} more"] if len(names) > _MAX_NAMES else [])]
    return f"{', '.join(shown[:-1])} and {shown[-1]}" if len(shown) > 1 else shown[0]


def _untried_text(plan: Plan) -> str:
    untried = int((plan.packing.host_of == UNTRIED).sum())
    all_, within = f"{plan.problem.tasks:,} tasks", f"within {plan.question.seconds:g} seconds"
    parts = [f"{untried:,} of {all_} were not tried {within}"] if untried else []
    if unfinished := plan.packing.untried - untried:
        parts.append(f"the search for {unfinished:,} of {all_} did not end {within}")
    return f"{'; '.join(parts)}, so it is unknown if they fit; give more --seconds"


def _need_text(problem: Problem, need: Need) -> str:
    bound = need.found.bound
    kind = problem.host_kinds[need.kind]
    pairs = zip(problem.dimensions, kind.capacity, strict=True)
    holds = "" if "=" in need.name else f" ({', '.join(f'{_amount(amount)} {name}' for name, amount in pairs)})"
    text = f"{need.name}{holds}: {need.hosts:,} host{'s suffice' if need.hosts != 1 else ' suffices'}"
    if need.untried:
        tried = problem.tasks - need.unsuitable - need.untried
        text += f" for the {tried:,} tasks tried in time; {bound.hosts - 1:,} cannot take all ({bound.how})"
    elif need.found.proven:
        text += f", {need.hosts - 1:,} cannot ({bound.how})" if need.hosts > 1 else ""
    else:
        text += f", {bound.hosts - 1:,} cannot ({bound.how}); the numbers between are unproven"
    text += _price(need.price)
    return text + (f"; tasks that cannot run on this type: {need.unsuitable:,}" if need.unsuitable else "")


def _too_few(plan: Plan, kind: int, hosts: int) -> str:
    """Whether fewer hosts of a type exist than are needed."""
    existing = plan.existing.get(kind, hosts)
    if hosts <= existing:
        return ""
    return f"; there {'is' if existing == 1 else 'are'} only {existing:,} of them"


def _cheaper(mix: Mix) -> str:
    """Whether the mix may be cheaper, for types with prices."""
    if not mix.price:
        return ""
    return f"; no mix is cheaper ({mix.because})" if mix.proven else f"; no mix is cheaper than {mix.at_least:,.2f}"


def _price(price: float) -> str:
    return f", price {price:,.2f}" if price else ""


def _show_refused(plan: Plan) -> None:
    if not plan.refused:
        return
    render.say("")
    rows = [(r.job, f"{r.tasks:,}", r.reason) for r in plan.refused[:_MAX_ROWS]]
    render.show_table(("REFUSED", "TASKS#", "WHY"), rows, "")
    if len(plan.refused) > _MAX_ROWS:
        render.say(f"and {len(plan.refused) - _MAX_ROWS:,} more; --json lists all", "dim")


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
    titles = ("RESOURCE", "DEMAND#", "CAPACITY#", "IN USE#", "#", "STRANDED#", " #")
    render.show_table(titles, rows, "the tasks need no resources")


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
        render.say(f"{more.at_least:,} more tasks of {more.job} fit in addition, {more.at_most + 1:,} do not")


def _share(amount: int, total: int) -> str:
    return f"{amount / total:.1%}" if total else "-"


def _amount(thousandths: int) -> str:
    return f"{int(thousandths) / 1_000:,.3f}".rstrip("0").rstrip(".")
