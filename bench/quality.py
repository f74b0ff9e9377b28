"""Measures how well each fitness packs: tasks in order of arrival, greedy, several seeds of each workload.

    python bench/quality.py [--seeds N] [--out FILE] [RULE …]

P100, P500, L10k, S and M come from bench/fenzo_mix.py, the others from bench/quality.py. The table shows the worst of
the seeds, and the mean if they differ. L10k: the hosts used, and their cpus over the cpus requested. S and M: the cpus
used over the total. All others: the percentage of the demand not placed, in the scarcest dimension.

The second table shows the default fitness on hosts as agents offer them. *ports, disk*: each host has also 1,000 ports
and 400 GB of disk, which no task requests. *hardly requested*: each task also requests 64 MB of disk, and one in twenty
a port. *apps*: as *ports, disk*, and the tasks belong to this many apps at random; each app's executor takes 0.1 cpus
and 64 MB once per host. *Cluster*: the same through the scheduler's `Cluster`, with one offer per agent. *at least*:
no placement leaves less unplaced (bench/bound.py), without executors and with one on each host with tasks; for L10k, no
placement uses fewer hosts or cpus, and for S and M, none places more.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import bound, fenzo_mix

from jobcloud.config import Resources
from jobcloud.match import FITNESS, CompiledMatcher
from jobcloud.model import Offer, Share
from jobcloud.scheduler.cluster import Cluster, Request

Ints = NDArray[np.int64]
Task = tuple[int, ...]
Mix = tuple[Ints, Ints]  # hosts and tasks, [n, D], in thousandths

RULES: dict[str, str | dict[str, int]] = {name: name for name in (*FITNESS, "first")}
RULES |= {"align+pack": {"align": 512, "pack": 512}, "strand+pack": {"strand": 900, "pack": 124}}


def _cpus(chance: random.Random) -> int:
    return chance.choices(fenzo_mix.CPUS, fenzo_mix.CPU_WEIGHTS)[0]


def _memory(chance: random.Random, *times: int) -> int:
    return 1_000 * chance.choices(fenzo_mix.MEMORY, fenzo_mix.MEMORY_WEIGHTS)[0] * chance.choice(times or (1,))


def _until(hosts: Sequence[Task], percent: int, tasks: Iterator[Task]) -> Mix:
    """The hosts, and tasks until the first dimension is demanded to ``percent``."""
    left = [sum(amounts) * percent // 100 for amounts in zip(*hosts, strict=True)]
    taken = []
    for task in tasks:
        left = [have - asked for have, asked in zip(left, task, strict=True)]
        if min(left) < 0:
            break
        taken.append(task)
    return np.array(hosts, dtype=np.int64), np.array(taken, dtype=np.int64)


def _host(chance: random.Random, *gb_per_cpu: float) -> Task:
    cpus = chance.choice((16, 32, 64))
    return 1_000 * cpus, int(1_024_000 * cpus * chance.choice(gb_per_cpu))


def _gpu_tasks(chance: random.Random, share: float) -> Iterator[Task]:
    while True:
        if chance.random() < share:
            gpus = chance.choices((1, 2, 4), (70, 20, 10))[0]
            yield 1_000 * gpus * chance.choice((4, 8, 12)), 8_192_000 * gpus * chance.choice((1, 2, 4)), 1_000 * gpus
        else:
            yield _cpus(chance), _memory(chance, 1, 2, 4, 8), 0


def gpus(chance: random.Random) -> Mix:
    """Three hosts in ten have gpus; one task in twelve requests some. Gpus are scarce: other tasks must spare them."""
    hosts: list[Task] = []
    for _ in range(200):
        if chance.random() < 0.3:
            number = chance.choice((4, 8))
            hosts.append((1_000 * number * chance.choice((8, 12, 16)), 32_768_000 * number, 1_000 * number))
        else:
            hosts.append((*_host(chance, 2, 4), 0))
    return _until(hosts, 95, _gpu_tasks(chance, 0.08))


def all_gpus(chance: random.Random) -> Mix:
    """Each host has 2 to 8 gpus; one task in three requests some."""
    hosts = [
        (
            1_000 * chance.choice((48, 64, 96, 128)),
            262_144_000 * chance.choice((1, 2)),
            1_000 * chance.choice((2, 4, 8)),
        )
        for _ in range(150)
    ]
    return _until(hosts, 95, _gpu_tasks(chance, 0.35))


def disks(chance: random.Random) -> Mix:
    """Four tasks in ten request disk."""
    hosts = [(*_host(chance, 1, 2), 1_000 * chance.choice((200, 500, 2_000))) for _ in range(200)]
    sizes = (0, 0, 0, 0, 0, 0, 10_000, 20_000, 50_000, 100_000)
    return _until(hosts, 95, iter(lambda: (_cpus(chance), _memory(chance), chance.choice(sizes)), None))


def three(chance: random.Random) -> Mix:
    """Cpus, memory and disk are scarce."""
    hosts = []
    for _ in range(200):
        cpus, memory = _host(chance, 0.5, 1, 2)
        hosts.append((cpus, memory, cpus * chance.choice((5, 10, 20))))
    sizes, weights = (1_000, 2_000, 5_000, 10_000, 20_000, 50_000), (20, 25, 25, 15, 10, 5)
    tasks = iter(lambda: (_cpus(chance), _memory(chance), chance.choices(sizes, weights)[0]), None)
    return _until(hosts, 95, tasks)


def large(chance: random.Random) -> Mix:
    """Twelve large hosts."""
    hosts = []
    for _ in range(12):
        cpus = chance.choice((96, 128, 192))
        hosts.append((1_000 * cpus, 512_000 * cpus * chance.choice((1, 2, 4))))
    return _until(hosts, 97, iter(lambda: (_cpus(chance), _memory(chance)), None))


def equal(chance: random.Random) -> Mix:
    """Equal hosts with two scarce dimensions."""
    return _until([(32_000, 34_432_000)] * 100, 97, iter(lambda: (_cpus(chance), _memory(chance)), None))


def lumps(chance: random.Random) -> Mix:
    """Cpus only, and tasks that fill much of the smaller hosts."""
    hosts = [(1_000 * chance.choice((8, 16, 32)),) for _ in range(100)]
    return _until(hosts, 97, iter(lambda: (chance.choice((500, 1_000, 2_000, 8_000, 12_000)),), None))


def lumps_and_memory(chance: random.Random) -> Mix:
    """The same with sufficient memory."""
    hosts = []
    for _ in range(100):
        cpus = chance.choice((8, 16, 32))
        hosts.append((1_000 * cpus, 1_024_000 * cpus * chance.choice((2, 4, 8))))
    cpus_asked = (500, 1_000, 2_000, 8_000, 12_000)
    return _until(hosts, 95, iter(lambda: (chance.choice(cpus_asked), _memory(chance, 1, 2, 4)), None))


def _unequal(chance: random.Random, cpus: list[int], asked: dict[int, int]) -> Mix:
    """Hosts with 4 GB per cpu; tasks with 1 to 3 GB per cpu. ``asked``: thousandths of cpus, with weights."""
    hosts = [(1_000 * n, 4_096_000 * n) for n in cpus]
    chance.shuffle(hosts)

    def task() -> Task:
        (size,) = chance.choices(list(asked), list(asked.values()))
        return size, 1_024 * size * chance.choice((1, 2, 3))

    return _until(hosts, 95, iter(task, None))


def giants(chance: random.Random) -> Mix:
    """Six large hosts and ninety small ones, and some tasks that fit only the large ones."""
    cpus = [8] * 90 + [64, 96, 96, 128, 128, 128]
    return _unequal(chance, cpus, {500: 30, 1_000: 30, 2_000: 20, 4_000: 10, 16_000: 3})


def kinds(chance: random.Random) -> Mix:
    """Three kinds of hosts; each is eight or four times as large as the previous one."""
    cpus = [4] * 150 + [32] * 20 + [128] * 5
    return _unequal(chance, cpus, {250: 30, 500: 30, 1_000: 20, 2_000: 10, 8_000: 3, 24_000: 1})


def leftovers(chance: random.Random) -> Mix:
    """Small hosts, too small for the larger tasks, and a similar number of large ones."""
    return _unequal(chance, [64] * 40 + [4] * 30, {500: 30, 1_000: 30, 2_000: 20, 4_000: 10, 16_000: 5, 32_000: 3})


_TO_THOUSANDTHS: Ints = np.array([1, 1_000], dtype=np.int64)  # cpus are in thousandths already


def _fenzo(name: str) -> Callable[[random.Random], Mix]:
    def mix(chance: random.Random) -> Mix:
        hosts, tasks = fenzo_mix.workload(name, chance.randrange(1 << 30))
        return np.array(hosts, dtype=np.int64) * _TO_THOUSANDTHS, np.array(tasks, dtype=np.int64) * _TO_THOUSANDTHS

    return mix


MIXES: dict[str, Callable[[random.Random], Mix]] = {
    **{name: _fenzo(name) for name in ("P100", "P500", "L10k", "S", "M")},
    **{
        mix.__name__: mix
        for mix in (gpus, all_gpus, disks, three, large, equal, lumps, lumps_and_memory, giants, kinds, leftovers)
    },
}


#: The amounts of an app's executor, in thousandths.
EXECUTOR = (100, 64_000)
PORTS, DISK = 1_000_000, 400_000_000


@dataclass(frozen=True, slots=True)
class Sharing:
    """Tasks that belong to ``apps`` at random. The tasks of an app share an executor on each host."""

    apps: int
    chance: random.Random

    def of(self, tasks: Ints) -> list[int]:
        """The app of each task."""
        return [self.chance.randrange(self.apps) for _ in tasks]


def with_ports_and_disk(mix: Mix) -> Mix:
    """The mix on hosts that also have equal ports and disk. No task requests them."""
    return tuple(  # type: ignore[return-value]
        np.column_stack((rows, np.full(len(rows), ports), np.full(len(rows), disk)))
        for rows, ports, disk in zip(mix, (PORTS, 0), (DISK, 0), strict=True)
    )


def with_hardly_requested(mix: Mix) -> Mix:
    """The same, and each task requests a little disk, and one in twenty a port."""
    hosts, tasks = with_ports_and_disk(mix)
    tasks[:, -1] = 64_000
    tasks[::20, -2] = 1_000
    return hosts, tasks


def placed(mix: Mix, fitness: str | dict[str, int], sharing: Sharing | None = None) -> NDArray[np.int32]:
    """The slot of each task; -1 if it is not placed."""
    hosts, tasks = mix
    matcher = CompiledMatcher(hosts.shape[1], fitness=fitness)
    matcher.add_hosts(hosts)
    apps = sharing.of(tasks) if sharing else [-1] * len(tasks)
    executor = np.array([*EXECUTOR, *[0] * hosts.shape[1]])[: hosts.shape[1]]
    known: dict[tuple[int, Task], int] = {}
    classes = []
    for key in zip(apps, map(tuple, tasks.tolist()), strict=True):
        if key not in known:
            shared = executor if key[0] >= 0 else None
            known[key] = matcher.add_class(np.array(key[1]), shared_key=key[0], shared=shared)
        classes.append(known[key])
    return matcher.match(np.array(classes))[0]


def placed_by_cluster(name: str, mix: Mix, sharing: Sharing) -> NDArray[np.int32]:
    """The same through the scheduler's ``Cluster``. ``name``: of the mix; its third dimension is gpus or disk."""
    hosts, tasks = mix
    names = ("cpus", "mem", "gpus" if "gpus" in name else "disk")[: hosts.shape[1]]
    cluster = Cluster(CompiledMatcher(len(Resources._fields)))
    for at, capacity in enumerate(hosts.tolist()):
        there = {"ports": PORTS, "disk": DISK, **dict(zip(names, capacity, strict=True))}
        shares = tuple(Share(name, amount) for name, amount in there.items() if amount)
        cluster.add_offer(Offer(f"o{at}", f"a{at}", f"h{at}", f"h{at}:5051", shares), at=0)
    executor = Resources(*EXECUTOR[: len(names)])
    known: dict[tuple[int, Task], Request] = {}
    requests = []
    for app, task in zip(sharing.of(tasks), map(tuple, tasks.tolist()), strict=True):
        if (app, task) not in known:
            resources = Resources(**dict(zip(names, task, strict=True)))
            known[app, task] = Request(resources, f"app-{app}", executor)
        requests.append(known[app, task])
    placements = cluster.place(requests, -1)
    return np.array([int(at.agent_id[1:]) if at else -1 for at in placements], dtype=np.int32)


Place = Callable[[str, Mix, int], NDArray[np.int32]]  # name of the mix, mix, seed → the slots of its tasks


def _alone(fitness: str | dict[str, int]) -> Place:
    return lambda name, mix, seed: placed(mix, fitness)


def _shared_by(apps: int) -> Place:
    return lambda name, mix, seed: placed(with_ports_and_disk(mix), "even", Sharing(apps, random.Random(seed)))


#: The default fitness in different circumstances.
AGENTS: dict[str, Place] = {
    "hosts alone": _alone("even"),
    "ports, disk": lambda name, mix, seed: placed(with_ports_and_disk(mix), "even"),
    "hardly requested": lambda name, mix, seed: placed(with_hardly_requested(mix), "even"),
    **{f"{apps} app{'s' * (apps > 1)}": _shared_by(apps) for apps in (1, 20, 200)},
    "20 apps, Cluster": lambda name, mix, seed: placed_by_cluster(name, mix, Sharing(20, random.Random(seed))),
}


def figures(name: str, mix: Mix, slots: NDArray[np.int32]) -> tuple[float, ...]:
    hosts, tasks = mix
    there = slots >= 0
    if name == "L10k":
        used = np.unique(slots[there])
        missed = [1.0] if not there.all() else []
        return (float(len(used)), float(hosts[used, 0].sum() / tasks[:, 0].sum()), *missed)
    if name in ("S", "M"):
        return (float(tasks[there, 0].sum() / hosts[:, 0].sum()),)
    return (float((tasks[~there].sum(axis=0) / tasks.sum(axis=0)).max() * 100),)


def best_figures(name: str, mix: Mix, executor: Task | None) -> tuple[float, ...]:
    """Bounds on ``figures``: no placement is better. ``executor``: its amounts on each host with tasks."""
    hosts, tasks = mix
    total, once = tasks.sum(axis=0), np.array(executor or (0,) * hosts.shape[1])
    if name == "L10k":
        held = np.cumsum(np.sort(np.maximum(hosts - once, 0), axis=0)[::-1], axis=0)
        fewest = max(int(np.argmax(column >= amount)) + 1 for column, amount in zip(held.T, total, strict=True))
        return (float(fewest), float((total[0] + fewest * once[0]) / total[0]))
    if name in ("S", "M"):
        room = int(np.maximum(hosts[:, 0] - once[0], 0).sum())
        return (float(min(room, int(total[0])) / hosts[:, 0].sum()),)
    one = None if executor is None else Sharing(1, random.Random(0))
    if (placed(mix, "even", one) >= 0).all():
        return (0.0,)
    return (100 * bound.unplaced(hosts, tasks, executor),)


def cell(name: str, seeds: list[tuple[float, ...]]) -> str:
    if name == "L10k":
        return f"{max(s[0] for s in seeds):.0f} / {max(s[1] for s in seeds):.3f}"
    values = [s[0] for s in seeds]
    if name in ("S", "M"):
        return f"{min(values):.4f}"
    return "0" if max(values) == 0 else f"{max(values):.2f} ({np.mean(values):.2f})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("rules", nargs="*", metavar="RULE", help=f"{', '.join(RULES)}; default: all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if unknown := set(arguments.rules) - set(RULES):
        parser.error(f"unknown rules {', '.join(sorted(unknown))}; known are {', '.join(RULES)}")
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    mixes = {name: [mix(random.Random(f"{name}/{seed}")) for seed in seeds] for name, mix in MIXES.items()}
    lines: list[str] = []

    def table(what: str, rows: dict[str, Place]) -> None:
        lines.extend([f"| {what} | {' | '.join(MIXES)} |", f"| --- |{' --- |' * len(MIXES)}"])
        print(*lines[-2:], sep="\n", flush=True)
        for row, place in rows.items():
            cells = [
                cell(name, [figures(name, m, place(name, m, seed)) for seed, m in zip(seeds, of_name, strict=True)])
                for name, of_name in mixes.items()
            ]
            lines.append(f"| {row} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)

    rules = {rule: RULES[rule] for rule in arguments.rules or RULES}
    table("rule", {f"`{name}`": _alone(fitness) for name, fitness in rules.items()})
    if "even" in rules:
        lines.append("")
        print(flush=True)
        table("`even`", AGENTS)
        for row, executor in (("at least", None), ("at least, executors", EXECUTOR)):
            cells = []
            for name, of_name in mixes.items():
                once = None if executor is None else tuple([*executor, 0, 0][: of_name[0][0].shape[1]])
                cells.append(cell(name, [best_figures(name, m, once) for m in of_name]))
            lines.append(f"| {row} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        notes = "\n\n".join(" ".join(note.split()) for note in (__doc__ or "").split("\n\n")[2:4])
        head = f"# Packing quality, seeds {seeds[0]} to {seeds[-1]}\n\n{notes}\n\n"
        arguments.out.write_text(head + "\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
