"""Draws ns per placement over the number of hosts, log-log, with both scans, and writes the table of the figures.

    python bench/plots.py --out FOLDER [--max-hosts N]

Workloads, checks and timing are those of bench/gate.py. Objects: `Placer.place`, from (task, shape) to (task, host),
only for tasks that find a host, by processor time, the fastest of several runs.
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import compress
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import workloads
from bench.gate import CASES, Case, Row, measure
from bench.machine import described
from matplotlib.figure import Figure

from jobcloud.match.placer import Placer

AXES: Final = ("cpus", "mem_mb", "disk_mb", "gpus")
CLASSES: Final = (8, 151)
KINDS: Final = (
    ("numpy_ns", "numpy scan", "#8a7a3d"),
    ("scan_ns", "compiled scan", "#d98032"),
    ("index_ns", "index", "#2f6f9f"),
)
OBJECT_RUNS: Final = 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--max-hosts", type=int, default=100_000)
    arguments = parser.parse_args()
    cases = [case for case in CASES if case.classes in CLASSES and case.hosts <= arguments.max_hosts]
    head = ("hosts", "classes", "tasks", "placed", "index ns", "ns per refusal", "x scan", "x numpy", "objects per s")
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    rows = []
    for case in cases:
        rows.append(row := measure(case))
        cells = (row.hosts, row.classes, row.tasks, row.placed, f"{row.index_ns:.0f}",
                 "" if row.refusal_ns is None else f"{row.refusal_ns:.0f}", f"{row.times_scan:.1f}",
                 f"{row.times_numpy:.0f}", f"{objects(case):,.0f}")  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
        print(lines[-1], flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    draw(rows, arguments.out / "placements.svg")
    note = " ".join((__doc__ or "").split("\n\n")[2].split())
    text = f"# The index compared with two scans\n\n{described()}. {note}\n\n![](placements.svg)\n\n"
    (arguments.out / "placements.md").write_text(text + "\n".join(lines) + "\n")
    return 0


def objects(case: Case) -> float:
    """Placements per second through `Placer.place`."""
    workload = workloads.mixed(case.hosts, case.classes)
    hosts: list[tuple[str, dict[str, int], dict[str, str], tuple[()]]] = [
        (f"h{i:06d}", {name: amount // 1_000 for name, amount in zip(AXES, row, strict=True)}, {}, ())
        for i, row in enumerate(workload.hosts.tolist())
    ]
    asked = [
        {name: f"{amount / 1_000:g}" for name, amount in zip(AXES, row, strict=True)}
        for row in workload.requests.tolist()
    ]
    asked_for = list(enumerate(workload.tasks.tolist()))
    placed: list[tuple[str, str | None]] = []
    best = float("inf")
    for turn in range(1 + OBJECT_RUNS):
        placer = Placer(AXES)
        placer.add_hosts(hosts)
        shapes = [placer.shape(amounts) for amounts in asked]
        tasks = [(f"t{i:07d}", shapes[cls]) for i, cls in asked_for]
        start = time.process_time()
        answer = placer.place(tasks)
        taken = time.process_time() - start
        if turn:
            assert answer == placed
            best = min(best, taken)
        else:
            placed = [pair for pair in answer if pair[1]]
            asked_for = list(compress(asked_for, (host for _, host in answer)))
    return len(placed) / best


def draw(rows: list[Row], path: Path) -> None:
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    axes = figure.subplots(1, len(CLASSES), sharey=True)
    for ax, classes in zip(axes, CLASSES, strict=True):
        shown = [row for row in rows if row.classes == classes]
        for field, label, colour in KINDS:
            points = [getattr(row, field) for row in shown]
            ax.loglog([row.hosts for row in shown], points, "o-", color=colour, label=label)
        ax.set_title(f"{classes} classes of tasks", loc="left")
        ax.set_xlabel("hosts")
        ax.grid(True, which="major", alpha=0.3)
    axes[0].set_ylabel("ns per placement")
    axes[0].legend(frameon=False)
    figure.suptitle(described(), fontsize=8)
    figure.savefig(path)


if __name__ == "__main__":
    sys.exit(main())
