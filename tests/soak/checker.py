"""What the jobs wrote, against what was due. Independent: it imports nothing of jobcloud and reads cron by itself.

`python tests/soak/checker.py FOLDER` checks a folder that a soak has left: `plan.json` (jobs and the span to check),
`faults.json` (what was done to the servers, when) and `log/*.jsonl` (what the jobs wrote).
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MINUTE_S = 60


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


@dataclass
class Verdict:
    due: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    early: list[str] = field(default_factory=list)
    explained: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    attempts: int = 0
    repeated: int = 0
    lateness: list[float] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not (self.lost or self.doubled or self.early or self.unexplained or self.silent)


def seconds_due(cron: str, first: float, until: float) -> list[int]:
    """Every second in [first, until] at which `cron` fires; its fields after the first must all be `*` or `?`."""
    seconds, *rest = cron.split()
    if any(part not in ("*", "?") for part in rest):
        raise ValueError(f"{cron!r} is more than this checker reads")
    wanted = set(range(60)) if seconds == "*" else {int(one) for one in seconds.split(",")}
    return [at for at in range(int(first), int(until) + 1) if at >= first and at % MINUTE_S in wanted]


def read(folder: Path) -> list[dict[str, Any]]:
    """All lines; a last one cut short by a kill is left out."""
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
    """The runs of TRANSIENT jobs, by task; a second start of a task is a doubled attempt."""
    found: dict[str, Attempt] = {}
    numbers: dict[tuple[str, int, int], str] = {}
    for line in lines:
        task = line["task"]
        if line["what"] == "start":
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
            found[task].cancelled = line["what"] == "cancelled"
    return list(found.values())


def check_due(jobs: list[dict[str, Any]], span: tuple[float, float], runs: list[Attempt], verdict: Verdict) -> None:
    """Each due (job, fire time, shard) has an attempt that came to its end."""
    by_place: dict[tuple[str, int, int], list[Attempt]] = defaultdict(list)
    for run in runs:
        by_place[run.job, round(run.fire_s), run.item].append(run)
    for job in jobs:
        for due in seconds_due(job["cron"], *span):
            for item in range(job["shards"]):
                verdict.due += 1
                tried = by_place.get((job["name"], due, item), [])
                if not any(run.ended and not run.cancelled for run in tried):
                    verdict.lost.append(f"{job['name']}/{item} due {due}: {len(tried)} attempts, none ended")
                elif tried:
                    verdict.lateness.append(min(run.started for run in tried) - due)


def check_overlaps(runs: list[Attempt], faults: list[dict[str, Any]], verdict: Verdict) -> None:
    """Two attempts of a (job, shard) at one instant only where the first one's agent was taken away before."""
    gone = {fault["agent"]: fault["at"] for fault in faults if fault["what"] == "agent gone"}
    by_shard: dict[tuple[str, int], list[Attempt]] = defaultdict(list)
    for run in runs:
        by_shard[run.job, run.item].append(run)
    for place, all_of_it in by_shard.items():
        before: Attempt | None = None
        for run in sorted(all_of_it, key=lambda run: run.started):
            if before is not None and before.ended > run.started:
                text = f"{place}: {before.task} until {before.ended:.1f}, {run.task} from {run.started:.1f}"
                explained = gone.get(before.agent, float("inf")) < run.started
                (verdict.explained if explained else verdict.unexplained).append(text)
            if before is None or run.ended > before.ended:
                before = run


def check_residents(
    jobs: list[dict[str, Any]], calm: tuple[float, float], lines: list[dict[str, Any]], verdict: Verdict
) -> None:
    """In the calm at the end every shard of a DAEMON job runs at each of its instants, in one task only."""
    ran: dict[tuple[str, int], dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for line in lines:
        if line["what"] == "start" and calm[0] <= line["at"] <= calm[1] + MINUTE_S:
            ran[line["job"], line["item"]][round((line["fire_ms"] or 0) / 1000)].add(line["task"])
    for job in jobs:
        for due in seconds_due(job["cron"], *calm):
            for item in range(job["shards"]):
                verdict.due += 1
                tasks = ran[job["name"], item].get(due, set())
                if not tasks:
                    verdict.silent.append(f"resident {job['name']}/{item} did not run at {due}")
                elif len(tasks) > 1:
                    verdict.doubled.append(f"resident {job['name']}/{item} ran {len(tasks)} times at {due}: {tasks}")


def unfinished(folder: Path) -> int:
    """How many of the shards that were due in the span have not come to their end yet."""
    plan = json.loads((folder / "plan.json").read_text())
    complete = {job["name"]: job for job in plan["jobs"] if job["complete"]}
    verdict = Verdict()
    runs = attempts_of([line for line in read(folder / "log") if line["job"] in complete], verdict)
    check_due(list(complete.values()), tuple(plan["span"]), runs, verdict)
    return len(verdict.lost)


def check(folder: Path) -> Verdict:
    plan = json.loads((folder / "plan.json").read_text())
    faults = json.loads((folder / "faults.json").read_text())
    lines = read(folder / "log")
    verdict = Verdict()
    kinds = {job["name"]: job["kind"] for job in plan["jobs"]}
    transient = [job for job in plan["jobs"] if job["kind"] == "TRANSIENT"]
    runs = attempts_of([line for line in lines if kinds[line["job"]] != "DAEMON"], verdict)
    verdict.attempts = len(runs)
    verdict.repeated = sum(run.attempt > 1 for run in runs)
    check_due([job for job in transient if job["complete"]], tuple(plan["span"]), runs, verdict)
    check_overlaps(runs, faults, verdict)
    residents = [job for job in plan["jobs"] if job["kind"] == "DAEMON"]
    check_residents(residents, tuple(plan["calm"]), [line for line in lines if kinds[line["job"]] == "DAEMON"], verdict)
    return verdict


def report(verdict: Verdict) -> None:
    print(f"{verdict.due} shards were due, {verdict.attempts} attempts, {verdict.repeated} of them repeated")
    late = sorted(verdict.lateness)
    if late:
        print(f"late: p50 {late[len(late) // 2]:.2f} s, p99 {late[int(len(late) * 0.99)]:.2f} s, most {late[-1]:.2f} s")
    for name in ("lost", "doubled", "early", "unexplained", "silent", "explained"):
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
