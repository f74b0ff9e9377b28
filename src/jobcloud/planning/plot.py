"""Draws a plan with matplotlib (the extra [plan]): use of the hosts, load over the day, totals."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from jobcloud.errors import ConfigError
from jobcloud.planning.demand import Load
from jobcloud.planning.plan import Plan
from jobcloud.planning.problem import Floats, Int64s

FORMATS: Final = (".png", ".svg", ".html")

_UNITS: Final = {"cpus": "CPUs", "mem_mb": "memory", "disk_mb": "disk", "net_mbps": "network", "gpus": "GPUs"}
_COLOURS: Final = ("#2f6f9f", "#d98032", "#4f9a5a", "#9a5b9a", "#8a7a3d", "#5f6b7a")
_GREY: Final = "#5c6670"
#: The types of hosts that are drawn apart.
_MAX_GROUPS: Final = 6
_LETTERS_A_PERCENT: Final = 0.7
_FEWEST_LETTERS: Final = 6


def check_path(path: Path) -> None:
    """Raises ConfigError if the picture cannot be drawn. Call it before any computation."""
    from importlib.util import find_spec

    if path.suffix.lower() not in FORMATS:
        raise ConfigError(
            f"{path.name!r:.80} has an unknown ending", field="--plot", fix=f"one of {', '.join(FORMATS)}"
        )
    if find_spec("matplotlib") is None:
        raise ConfigError("matplotlib is not installed", field="--plot", fix="pip install 'jobcloud[plan]'")
    check_writable(path, "--plot")


def check_writable(path: Path, option: str) -> None:
    """Raises ConfigError if the file cannot be written. The check writes nothing, so it may miss some causes."""
    directory = path.resolve().parent
    if not directory.is_dir():
        raise ConfigError(f"there is no directory {directory}", field=option, fix="create it first")
    if path.is_dir() or not os.access(path if path.exists() else directory, os.W_OK):
        raise ConfigError(f"{path} cannot be written", field=option, fix="name a file in a writable directory")


def draw(plan: Plan, path: Path, load: Load | None = None, zone: str = "UTC") -> None:
    """Write the picture in the format of its file name. Raises ConfigError if it cannot be written."""
    check_path(path)
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": _GREY,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "svg.hashsalt": "jobcloud",
        "svg.fonttype": "none",
        "text.parse_math": False,
    }
    with mpl.rc_context(style):
        daily = load is not None and len(load.times) > 2
        figure = Figure(figsize=(11, 8.2 if daily else 5.4), layout="constrained")
        grid = figure.add_gridspec(2 if daily else 1, 2, width_ratios=(3, 2))
        _hosts(figure.add_subplot(grid[0, 0]), plan)
        _totals(figure.add_subplot(grid[0, 1]), plan)
        if daily and load is not None:
            _day(figure.add_subplot(grid[1, :]), plan, load, zone)
        figure.suptitle(_title(plan), x=0.01, ha="left", fontsize=13, fontweight="bold")
        try:
            _save(figure, path, plan)
        except OSError as error:
            raise ConfigError(
                f"{path} cannot be written: {error.strerror}",
                field="--plot",
                fix="name a file in a writable directory",
            ) from error


def _save(figure: Any, path: Path, plan: Plan) -> None:
    import html
    import io

    if path.suffix.lower() != ".html":
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
        return
    picture = io.StringIO()
    figure.savefig(picture, format="svg", metadata={"Date": None})
    svg = picture.getvalue()
    title = html.escape(_title(plan))
    page = (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title>\n'
        '<body style="font-family: sans-serif; margin: 2em auto; max-width: 1100px">\n'
        f"{svg[svg.index('<svg') :]}</body></html>\n"
    )
    path.write_text(page, encoding="utf-8")


def _title(plan: Plan) -> str:
    tasks, hosts = plan.problem.tasks, len(plan.packing.hosts)
    if plan.question.how_many and plan.needs:
        need = plan.needs[0]
        least = "fewer are not enough" if need.found.proven else f"fewer than {need.found.bound.hosts:,} are not enough"
        tasks -= need.unsuitable + need.untried
        return f"{tasks:,} tasks need {need.hosts:,} hosts of type {need.name[:40]} ({least})"
    if plan.fits:
        return f"{tasks:,} tasks fit on the {hosts:,} hosts"
    if plan.untried:
        return f"{plan.placed:,} of {tasks:,} tasks placed on the {hosts:,} hosts in time"
    return f"{plan.packing.unplaced:,} of {tasks:,} tasks find no room on the {hosts:,} hosts"


def _label(name: str) -> str:
    return _UNITS.get(name, name)


def _hosts(axes: Any, plan: Plan) -> None:
    """One line for each dimension: the used shares of the hosts by type, the largest first."""
    capacity = plan.problem.capacity[plan.packing.hosts]
    groups = _groups(plan)
    ends = np.cumsum([len(hosts) for _, hosts in groups]) / max(1, len(plan.packing.hosts)) * 100
    free = plan.packing.free(plan.problem)
    axes.set_title("How full the hosts are")
    for d, name in enumerate(plan.problem.dimensions):
        there = capacity[:, d] > 0
        if not there.any():
            continue
        mean = float((capacity[there, d] - free[there, d]).sum() / capacity[there, d].sum() * 100)
        label: str | None = f"{_label(name)}: {mean:.1f} % of all"
        for (_, hosts), start, end in zip(groups, (0.0, *ends[:-1]), ends, strict=True):
            some = hosts[there[hosts]]
            if len(some):
                shares = np.sort(1 - free[some, d] / capacity[some, d])[::-1] * 100
                edges = np.linspace(start, end, len(some) + 1)
                colour = _COLOURS[d % len(_COLOURS)]
                axes.stairs(shares, edges, color=colour, linewidth=2, baseline=None, label=label)
                label = None
    if len(groups) > 1:
        for (name, hosts), start, end in zip(groups, (0.0, *ends[:-1]), ends, strict=True):
            axes.axvline(start, color=_GREY, linewidth=0.8, linestyle=":")
            text = f"{len(hosts):,} × {name}"
            letters = int((end - start) * _LETTERS_A_PERCENT)
            if letters >= _FEWEST_LETTERS:
                short = text if len(text) <= letters else f"{text[: letters - 1]}…"
                axes.text((start + end) / 2, 106, short, ha="center", va="center", color=_GREY, fontsize=8)
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 110 if len(groups) > 1 else 103)
    axes.set_yticks(range(0, 101, 20))
    axes.set_xlabel(f"hosts{' by type' if len(groups) > 1 else ''}, the fullest first (%)")
    axes.set_ylabel("in use (%)")
    axes.grid(axis="y", alpha=0.25)
    axes.legend(frameon=False, ncols=2, loc="upper left", bbox_to_anchor=(0, -0.14))


def _groups(plan: Plan) -> list[tuple[str, Int64s]]:
    """The hosts of each type (name, indices), the most frequent types first. Rare types are one group."""
    of_type = defaultdict[tuple[tuple[int, ...], float], list[int]](list)
    for host, kind in enumerate(plan.packing.hosts.tolist()):
        found = plan.problem.host_kinds[kind]
        of_type[found.capacity, found.price].append(host)
    ranked = sorted(of_type.values(), key=lambda hosts: (-len(hosts), hosts[0]))
    named = ranked if len(ranked) <= _MAX_GROUPS else ranked[: _MAX_GROUPS - 1]
    groups = [(plan.problem.host_kinds[plan.packing.hosts[hosts[0]]].name, np.array(hosts)) for hosts in named]
    if rare := [host for hosts in ranked[len(named) :] for host in hosts]:
        groups.append(("others", np.array(rare)))
    return groups


def _totals(axes: Any, plan: Plan) -> None:
    """In use, free and stranded shares by dimension."""
    names = [d for d in range(len(plan.problem.dimensions)) if plan.capacity[d] > 0]
    total: Floats = plan.capacity[names].astype(np.float64)
    tight = _label(plan.problem.dimensions[names[int((plan.used[names] / total).argmax())]]) if names else ""
    axes.set_title(f"Total use, tightest: {tight[:14]}" if tight else "Total use")
    used, stranded = plan.used[names] / total * 100, plan.stranded[names] / total * 100
    free = np.maximum(0, 100 - used - stranded)
    places = np.arange(len(names))[::-1]
    start = np.zeros(len(names))
    for values, label, colour in (
        (used, "in use", _COLOURS[0]),
        (free, "free", "#cfd8dc"),
        (stranded, "stranded", _COLOURS[1]),
    ):
        axes.barh(places, values, left=start, color=colour, label=label, height=0.55)
        for place, value, left in zip(places, values, start, strict=True):
            if value >= 7:
                ink = "#333333" if label == "free" else "white"
                axes.text(left + value / 2, place, f"{value:.0f} %", ha="center", va="center", color=ink, fontsize=9)
        start += values
    axes.set_yticks(places, [_label(plan.problem.dimensions[d]) for d in names])
    axes.set_xlim(0, 100)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel("share of all hosts (%)")
    axes.tick_params(axis="y", length=0)
    axes.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.14))


def _day(axes: Any, plan: Plan, load: Load, zone: str) -> None:
    """The load over time as a share of the total capacity."""
    from datetime import datetime

    from matplotlib import dates

    from jobcloud import zones

    axes.set_title(f"Load over time ({zone})")
    clock = zones.zone(zone)
    times = [datetime.fromtimestamp(ms / 1000, clock) for ms in load.times.tolist()]
    for d, name in enumerate(plan.problem.dimensions):
        if plan.capacity[d] > 0:
            shares = load.amounts[:, d] / plan.capacity[d] * 100
            axes.step(times, shares, where="post", color=_COLOURS[d % len(_COLOURS)], linewidth=1.4, label=_label(name))
    axes.axhline(100, color=_GREY, linewidth=1, linestyle="--")
    axes.set_ylim(0, max(118.0, axes.get_ylim()[1] * 1.12))
    axes.set_xlim(times[0], times[-1])
    axes.set_ylabel("of all hosts (%)")
    known: Any = dates
    locator = known.AutoDateLocator(tz=clock)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(known.ConciseDateFormatter(locator, tz=clock, show_offset=False))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, ncols=6, loc="upper left", bbox_to_anchor=(0, -0.1))
