"""Compares the jobs' records with the due shards. It evaluates cron itself and imports no code of jobcloud.

`python tests/soak/checker.py FOLDER` checks the folder of a soak: `plan.json` (jobs and the span to check),
`faults.json` (the injected faults and their times) and `log/*.jsonl` (the jobs' records).
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MINUTE_S = 60
EVERY_SECOND, WIDE = "every-second", "wide"
PARTITIONED = "leader partitioned"
# The scheduler is busy with the failures of a wide run for some seconds after the last shard has ended.
BUSY_S = 5


@dataclass
class Attempt:
    job: str
    item: int
    fire_s: float
    attempt: int
    task: str
    started: float
    ended: float = 0.0
    cancelled: bool = False

    @property
    def agent(self) -> str:
        return self.task.split("@-@")[3]

    @property
    def epoch(self) -> int:
        return epoch(self.task)


@dataclass
class Verdict:
    due: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    early: list[str] = field(default_factory=list)
    explained: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    cut_off: list[str] = field(default_factory=list)
    attempts: int = 0
    repeated: int = 0
    lateness: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    @property
    def holds(self) -> bool:
        return not (self.lost or self.doubled or self.early or self.unexplained or self.silent or self.cut_off)


def epoch(task: str) -> int:
    """The epoch of the leader that created a task, which is part of the task's id."""
    return int(task.split("@-@")[4].split("-")[0])


def seconds_due(cron: str, first: float, until: float) -> list[int]:
    """Every second in [first, until] at which `cron` fires; its fields after the first must all be `*` or `?`."""
    seconds, *rest = cron.split()
    if any(part not in ("*", "?") for part in rest):
        raise ValueError(f"{cron!r} is not supported by this checker")
    wanted = set(range(60)) if seconds == "*" else {int(one) for one in seconds.split(",")}
    return [at for at in range(int(first), int(until) + 1) if at >= first and at % MINUTE_S in wanted]


def read(folder: Path) -> list[dict[str, Any]]:
    """All records, in order of time. A last line that was cut off by a kill is ignored."""
    lines = []
    for path in sorted(folder.glob("*.jsonl")):
        for text in path.read_text().splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:
                if text != path.read_text().splitlines()[-1]:
                    raise
    return sorted(lines, key=lambda line: line["at"])


def attempts_of(lines: list[dict[str, Any]], verdict: Verdict) -> list[Attempt]:
    """The attempts of TRANSIENT jobs. A second start of a task is a doubled attempt."""
    found: dict[str, Attempt] = {}
    numbers: dict[tuple[str, int, int], str] = {}
    for line in lines:
        task = line["task"]
        if line["event"] == "start":
            if task in found:
                verdict.doubled.append(f"{task} started twice: {found[task].started:.1f} and {line['at']:.1f}")
                continue
            number = (line["run"], line["item"], line["attempt"])
            if numbers.setdefault(number, task) != task:
                verdict.doubled.append(f"attempt {number} is both {numbers[number]} and {task}")
            fire_s = (line["fire_ms"] or 0) / 1000
            found[task] = Attempt(line["job"], line["item"], fire_s, line["attempt"], task, line["at"])
            if line["at"] < fire_s - 0.01:
                verdict.early.append(f"{task} started {fire_s - line['at']:.3f} s before it was due")
        elif task in found:
            found[task].ended = line["at"]
            found[task].cancelled = line["event"] == "cancelled"
    return list(found.values())


def check_due(jobs: list[dict[str, Any]], span: tuple[float, float], attempts: list[Attempt], verdict: Verdict) -> None:
    """Each due (job, fire time, shard) has an attempt that has ended."""
    by_place: dict[tuple[str, int, int], list[Attempt]] = defaultdict(list)
    for one in attempts:
        by_place[one.job, round(one.fire_s), one.item].append(one)
    for job in jobs:
        kind = job["name"].rstrip("0123456789")
        for due in seconds_due(job["cron"], *span):
            for item in range(job["shards"]):
                verdict.due[kind] += 1
                tried = by_place.get((job["name"], due, item), [])
                if not any(run.ended and not run.cancelled for run in tried):
                    verdict.lost.append(f"{job['name']}/{item} due {due}: {len(tried)} attempts, none ended")
                elif tried:
                    verdict.lateness[kind].append(min(run.started for run in tried) - due)


def check_accounts(
    accounts: list[dict[str, int]], faults: list[dict[str, Any]], attempts: list[Attempt], verdict: Verdict
) -> None:
    """Each fire time of the job of every second between two accounts has an attempt that has ended, or was skipped."""
    if not accounts:
        return
    first, last = accounts
    due = range(first["fire_s"] + 1, last["fire_s"] + 1)
    tried = [one for one in attempts if one.job == EVERY_SECOND and round(one.fire_s) in due]
    ended = {round(one.fire_s) for one in tried if one.ended and not one.cancelled}
    skipped = last["skipped"] - first["skipped"]
    if len(ended) + skipped != len(due):
        numbers = f"{len(due)} firings were due, {len(ended)} ended, {skipped} were skipped"
        verdict.lost.append(f"{EVERY_SECOND}: {numbers}")
    kinds = beside(faults, attempts)
    for fire_s in due:
        verdict.due[kinds(fire_s)] += 1
    for one in tried:
        verdict.lateness[kinds(one.fire_s)].append(one.started - one.fire_s)


def beside(faults: list[dict[str, Any]], attempts: list[Attempt]) -> Callable[[float], str]:
    """A function that says what happened at a time beside the job of every second."""
    first_fault = min((fault["at"] for fault in faults), default=float("inf"))
    busy: dict[float, float] = {}
    for one in attempts:
        if one.job == WIDE:
            busy[one.fire_s] = max(busy.get(one.fire_s, 0.0), one.ended + BUSY_S)

    def kind(at: float) -> str:
        if at >= first_fault:
            return f"{EVERY_SECOND}, from the first fault on"
        fails = any(fire_s <= at <= until for fire_s, until in busy.items())
        return f"{EVERY_SECOND}, {'beside' if fails else 'without'} the failing wide job"

    return kind


def check_partitions(attempts: list[Attempt], faults: list[dict[str, Any]], verdict: Verdict) -> None:
    """A leader that was cut off decides nothing that takes effect: what is due later, later leaders start."""
    for at in (fault["at"] for fault in faults if fault["event"] == PARTITIONED):
        cut_off = max((one.epoch for one in attempts if one.started < at), default=0)
        verdict.cut_off += [
            f"{one.task} was due {one.fire_s - at:.1f} s after its leader was cut off"
            for one in attempts
            if one.fire_s > at and one.epoch <= cut_off
        ]


def check_overlaps(attempts: list[Attempt], faults: list[dict[str, Any]], verdict: Verdict) -> None:
    """Two attempts of a (job, shard) overlap only if the agent of the first was marked gone before."""
    gone = {fault["agent"]: fault["at"] for fault in faults if fault["event"] == "agent gone"}
    by_shard: dict[tuple[str, int], list[Attempt]] = defaultdict(list)
    for one in attempts:
        by_shard[one.job, one.item].append(one)
    for shard, of_shard in by_shard.items():
        before: Attempt | None = None
        for one in sorted(of_shard, key=lambda one: one.started):
            if before is not None and before.ended > one.started:
                text = f"{shard}: {before.task} until {before.ended:.1f}, {one.task} from {one.started:.1f}"
                explained = gone.get(before.agent, float("inf")) < one.started
                (verdict.explained if explained else verdict.unexplained).append(text)
            if before is None or one.ended > before.ended:
                before = one


def check_residents(
    jobs: list[dict[str, Any]], calm: tuple[float, float], lines: list[dict[str, Any]], verdict: Verdict
) -> None:
    """In the final calm every shard of a DAEMON job runs at each of its fire times, in one task only."""
    ran: dict[tuple[str, int], dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for line in lines:
        if line["event"] == "start" and calm[0] <= line["at"] <= calm[1] + MINUTE_S:
            ran[line["job"], line["item"]][round((line["fire_ms"] or 0) / 1000)].add(line["task"])
    for job in jobs:
        for due in seconds_due(job["cron"], *calm):
            for item in range(job["shards"]):
                verdict.due["resident"] += 1
                tasks = ran[job["name"], item].get(due, set())
                if not tasks:
                    verdict.silent.append(f"resident {job['name']}/{item} did not run at {due}")
                elif len(tasks) > 1:
                    verdict.doubled.append(f"resident {job['name']}/{item} ran {len(tasks)} times at {due}: {tasks}")


def unfinished(folder: Path) -> int:
    """The number of shards that were due in the span and have not ended."""
    plan = json.loads((folder / "plan.json").read_text())
    complete = {job["name"]: job for job in plan["jobs"] if job["complete"]}
    verdict = Verdict()
    attempts = attempts_of([line for line in read(folder / "log") if line["job"] in complete], verdict)
    check_due(list(complete.values()), tuple(plan["span"]), attempts, verdict)
    return len(verdict.lost)


def check(folder: Path) -> Verdict:
    plan = json.loads((folder / "plan.json").read_text())
    faults = json.loads((folder / "faults.json").read_text())
    lines = read(folder / "log")
    verdict = Verdict()
    kinds = {job["name"]: job["kind"] for job in plan["jobs"]}
    transient = [job for job in plan["jobs"] if job["kind"] == "TRANSIENT"]
    attempts = attempts_of([line for line in lines if kinds[line["job"]] != "DAEMON"], verdict)
    verdict.attempts = len(attempts)
    verdict.repeated = sum(one.attempt > 1 for one in attempts)
    check_due([job for job in transient if job["complete"]], tuple(plan["span"]), attempts, verdict)
    check_accounts(plan["accounts"], faults, attempts, verdict)
    check_partitions(attempts, faults, verdict)
    check_overlaps(attempts, faults, verdict)
    residents = [job for job in plan["jobs"] if job["kind"] == "DAEMON"]
    check_residents(residents, tuple(plan["calm"]), [line for line in lines if kinds[line["job"]] == "DAEMON"], verdict)
    return verdict


def report(verdict: Verdict) -> None:
    due = verdict.due.total()
    print(f"{due} shards were due, {verdict.attempts} attempts, {verdict.repeated} of them repeated")
    for kind, values in sorted(verdict.lateness.items()):
        late = sorted(values)
        p50, p99 = (late[int(len(late) * part)] for part in (0.5, 0.99))
        numbers = f"{len(late)} of {verdict.due[kind]} ran"
        print(f"{kind}: {numbers}, late by p50 {p50:.2f} s, p99 {p99:.2f} s, max {late[-1]:.2f} s")
    for name in ("lost", "doubled", "early", "unexplained", "silent", "cut_off", "explained"):
        found = getattr(verdict, name)
        print(f"{name}: {len(found)}")
        for text in found[:10]:
            print(f"  {text}")


def main() -> int:
    verdict = check(Path(sys.argv[1]))
    report(verdict)
    return 0 if verdict.holds else 1


if __name__ == "__main__":
    sys.exit(main())
