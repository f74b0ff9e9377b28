"""Deliberate bugs, each a patch of the source, that the simulator must catch: `make simulate-mutations`.

A patch is applied to a copy of the source tree; the simulator then runs on that copy until a promise is broken.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


# The deterministic tests of the scheduler, its loop, stores and adapters: one scenario each, no real servers. Those
# that play random histories beside checkers (scheduler_props, leader_faults) are small simulators, and left out.
UNIT_TESTS = tuple(
    f"tests/test_{name}.py"
    for name in ("scheduler", "scheduler_weaknesses", "scheduler_policies", "operator_calls", "keepers", "rollouts",
                 "partitions", "overdue", "drains", "breakers", "firing_listener", "ready", "release", "status",
                 "offers", "launch", "records", "outcomes", "mass_loss", "loop", "loop_leadership", "store_contract",
                 "sqlite", "zookeeper_journal", "mesos_wire", "model")
)  # fmt: skip
# Asked about the driver alone, against a scripted master: they take a minute more.
DRIVER_TESTS = ("tests/test_mesos_driver.py", "tests/test_mesos_pipelining.py")
_DRIVER = "adapters/mesos"


@dataclass(frozen=True, slots=True)
class Mutation:
    """In `file`, `old` becomes `new`; it must be there exactly once. `also` are further places of the same bug."""

    name: str
    file: str
    old: str
    new: str
    also: tuple[tuple[str, str, str], ...] = ()

    @property
    def place(self) -> tuple[str, str, str]:
        return self.file, self.old, self.new


@dataclass(frozen=True, slots=True)
class Caught:
    """`broken` is the promise that was broken, or "" """

    broken: str
    histories: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Who noticed a bug; `test` is the first unit test that did, "" where none does, None where none was run."""

    mutation: Mutation
    found: Caught
    test: str | None

    def __str__(self) -> str:
        found = f"caught after {self.found.histories}: {self.found.broken[:110]}" if self.found.broken else "SURVIVED"
        test = "" if self.test is None else f" | unit tests: {self.test or 'not noticed'}"
        return f"{self.mutation.file:24} {self.mutation.name:44} {found}{test}"

    def row(self) -> str:
        found = self.found.histories if self.found.broken else "never"
        promise = re.sub(r"^seed [0-9]+: ", "", self.found.broken).partition(":")[0]
        test = "not asked" if self.test is None else self.test.partition("::")[2] or "no"
        return f"| {self.mutation.file} | {self.mutation.name} | {found} | {promise} | {test} |"


MUTATIONS: tuple[Mutation, ...] = (
    Mutation(
        "acknowledge before the write", "server/leader.py",
        "        try:\n            self._save(batch)\n",
        "        for effect in batch.effects:\n            if type(effect).__name__ == 'Acknowledge':\n"
        "                self._send(effect)\n        try:\n            self._save(batch)\n",
    ),
    Mutation(
        "a large batch is written in parts", "server/leader.py",
        "            self._store.write(self.epoch, [_encoded(write) for write in writes])\n",
        "            for start in range(0, max(1, len(writes)), 8):\n"
        "                self._store.write(self.epoch, [_encoded(write) for write in writes[start : start + 8]])\n",
    ),
    Mutation(
        "what reconciliation says of an unheard launch is not believed", "tasks.py",
        "        if isinstance(next_step, End):\n            message",
        '        told = task.state is TaskState.STORED and update.reason == "REASON_RECONCILIATION"\n'
        "        if told and isinstance(next_step, End):\n            return\n"
        "        if isinstance(next_step, End):\n            message",
    ),
    Mutation("no fencing", "adapters/memory.py", "if epoch != self._server.epoch:", "if epoch > self._server.epoch:"),
    Mutation(
        "a limit is forgotten by the next leader", "tasks.py",
        "            self._overdue.watch(task)\n            self._note_reach",
        "            self._note_reach",
    ),
    Mutation(
        "no end is believed that is told without its update", "status.py",
        "    if found is End.FAILED and status.reason in _NO_REASON:",
        "    if isinstance(found, End) and status.reason in _NO_REASON:",
    ),
    Mutation("forget the retry", "release.py", "if not never_ran and not failover and", "if not never_ran and"),
    Mutation(
        "blame the job for what reconciliation tells", "status.py",
        "status.reason in _NO_REASON:", "not _NO_REASON:",
    ),
    Mutation(
        "ended firings of a removed job are kept", "commands.py",
        "        self._firings.prune_history(job.name)\n",
        "",
    ),
    Mutation(
        "adopt nothing", "book.py",
        "        self.tasks = whole.tasks\n", "        self.tasks = {}\n",
    ),
    Mutation(
        "the clock is part of fence tokens", "rounds.py",
        "        data = sharding.payload(job, firing, task, self._book.fence())\n",
        "        data = sharding.payload(job, firing, task, at * 1_000_000_000 + self._book.fence())\n",
        (("rounds.py", "        data = sharding.keeper_payload(task, self._book.fence())\n",
          "        data = sharding.keeper_payload(task, at * 1_000_000_000 + self._book.fence())\n"),),
    ),
    Mutation(
        "a removed app stays disabled", "commands.py",
        "        self._book.set_app_mark(event.name, disabled=False)\n",
        "",
    ),
    Mutation(
        "no proof of the epoch with a new session", "server/leader.py",
        "self.connected = batch.prove_epoch = True", "self.connected = True",
    ),
    Mutation(
        "the epoch is proven with a new framework id alone", "server/leader.py",
        "                self.connected = batch.prove_epoch = True\n",
        "                self.connected = True\n"
        "                batch.prove_epoch = event.framework_id != self._framework_id\n",
    ),
    Mutation(
        "a removed app stays stored", "commands.py",
        "        self._book.dirty[Kind.APP, event.name] = None\n",
        "",
    ),
    Mutation(
        "a claim is not released", "tasks.py",
        "        self._book.cluster.release(task.id)\n", "",
    ),
    Mutation(
        "an app without keepers is kept in mind", "keepers.py",
        "        if not keepers:\n            del self.of_app[task.app]\n",
        "",
    ),
    Mutation(
        "the framework id is not stored", "scheduler.py",
        "            self._book.dirty[Kind.FRAMEWORK, \"id\"] = event.framework_id\n", "",
    ),
    Mutation(
        "a removed job leaves its refusal", "commands.py",
        "(self._timetable.due, self._book.faults, self._rounds.refusals)", "(self._timetable.due, self._book.faults)",
    ),
    Mutation(
        "a back-off outlives the clock that began it", "firings.py",
        "                self._book.queue.add(firing)\n        self.shorten_back_offs(at)\n",
        "                self._book.queue.add(firing)\n",
    ),
    Mutation(
        "firings of a job overlap", "ready.py",
        "        self.reconsider(firing.job)\n\n    def change",
        "        self._startable.update({firing.id: None} if waiting else {})\n\n    def change",
    ),
    Mutation(
        "a large batch is not read from its segment", "adapters/zookeeper.py",
        "                for (kind, key), value in placed.items():\n"
        "                    _put(stored, kind, key, value)\n",
        "",
    ),
    Mutation(
        "an executor's claim is kept", "offers.py",
        "        self._release(agent_id, claim)\n", "",
    ),
    Mutation(
        "a lost answer counts as done", "adapters/zookeeper.py",
        "if witness is not None and self._came_through(witness, deadline):", "if witness is not None:",
    ),
    Mutation(
        # Either of the two alone does no harm: the other is there for it.
        "numbers start again in the same epoch", "repair.py",
        "for text in ids if (found", "for text in ids[:0] if (found",
        (("server/leader.py", "        if self._led:\n", "        if False:\n"),),
    ),
    Mutation(
        "an enabled job is considered by the clock alone", "commands.py",
        "considered = max(at, self._book.states[job.name].considered_ms)", "considered = at",
    ),
    Mutation(
        "a roll-out ends all shards at once", "rollouts.py",
        "        return len(down | {task.item}) <= job.max_unavailable\n", "        return True\n",
    ),
    Mutation(
        "the version of a mark is not followed", "adapters/zookeeper.py",
        "            unfold.version += 1\n",
        "",
    ),
    Mutation(
        "a launch in doubt is taken for lost", "rounds.py",
        "if task is not None and event.certain:", "if task is not None:",
    ),
    Mutation(
        "half of a large batch stays where it is", "adapters/zookeeper.py",
        "            image = image or self._read()[0]\n            self._unfold(epoch, image)\n",
        "            image = image or self._read()[0]\n",
    ),
    Mutation("every attempt is the first", "sharding.py", '"attempt": task.attempt,', '"attempt": 1,'),
    Mutation(
        "an updated job is considered by the clock alone", "commands.py",
        "considered_ms=max(event.at, self._book.states[job.name].considered_ms))",
        "considered_ms=event.at)",
    ),
)  # fmt: skip


def patched(mutation: Mutation, folder: Path) -> Path:
    """A copy of the source tree in `folder` with the bug in it. Raises ValueError where the place is not found."""
    source = folder / "src"
    shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "*.c"))
    for file, old, new in (mutation.place, *mutation.also):
        path = source / "jobcloud" / file
        text = path.read_text()
        if text.count(old) != 1:
            raise ValueError(f"{mutation.name}: its place is in {file} {text.count(old)} times")
        path.write_text(text.replace(old, new))
    return source


def caught(mutation: Mutation, folder: Path, most: int = 2_000, processes: int = 2) -> Caught:
    """Play up to `most` histories on the patched source, until one breaks a promise."""
    environment = _environment(patched(mutation, folder))
    command = [sys.executable, "-m", "tests.simulation", "--seeds", str(most), "--stop", "--processes", str(processes)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    histories = re.search(r"^([0-9]+) histories", done.stdout, re.MULTILINE)
    if histories is None:
        raise RuntimeError(f"{mutation.name}: the simulator failed: {done.stderr[-2_000:]}")
    return Caught(done.stdout.splitlines()[-1] if done.returncode else "", int(histories[1]))


def noticed_by_unit_tests(mutation: Mutation, folder: Path) -> str:
    """The first of the unit tests that fails on the patched source; "" where none does."""
    environment = _environment(patched(mutation, folder))
    tests = (*UNIT_TESTS, *(DRIVER_TESTS if mutation.file.startswith(_DRIVER) else ()))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "not zookeeper and not mesos",
    ]
    done = subprocess.run([*command, *tests], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{mutation.name}: the unit tests cannot be run: {done.stdout[-2_000:]}")
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return failed[1] if failed and done.returncode else ""


def _environment(source: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutations", description=__doc__)
    parser.add_argument("--only", default="", help="those whose name holds this text")
    parser.add_argument("--most", type=int, default=2_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--unit-tests", action="store_true", help="also tell which of them the unit tests notice")
    parser.add_argument("--table", type=Path, help="write what was found to this Markdown file")
    asked = parser.parse_args()
    verdicts = []
    for mutation in MUTATIONS:
        if asked.only in mutation.name:
            with tempfile.TemporaryDirectory(prefix="jobcloud.") as folder:
                found = caught(mutation, Path(folder), asked.most, asked.processes)
            with tempfile.TemporaryDirectory(prefix="jobcloud.") as folder:
                test = noticed_by_unit_tests(mutation, Path(folder)) if asked.unit_tests else None
            verdicts.append(Verdict(mutation, found, test))
            print(verdicts[-1], flush=True)
            if asked.table:  # after each, as the whole takes long
                asked.table.write_text(table(verdicts, asked.most))
    survivors = sum(not verdict.found.broken for verdict in verdicts)
    print(f"{survivors} of {len(verdicts)} survived")
    return 1 if survivors else 0


def table(verdicts: Sequence[Verdict], most: int) -> str:
    """What was found, as Markdown."""
    files = {verdict.mutation.file for verdict in verdicts}
    held = sum(bool(verdict.found.broken) for verdict in verdicts)
    summary = (
        f"{len(verdicts)} bugs in {len(files)} files, asked at {_commit()}. The simulator played up to {most:,} "
        f"histories with each and caught {held}."
    )
    asked = [verdict for verdict in verdicts if verdict.test is not None]
    if asked:
        survived = sum(verdict.test == "" for verdict in asked)
        summary += f" {survived} of {len(asked)} survive the unit tests.\n\n"
        summary += _UNIT.format(*(", ".join(map(_name, tests)) for tests in (UNIT_TESTS, DRIVER_TESTS)))
    head = ["# Deliberate bugs in the scheduler, and who notices", "", summary, "",
            "| file | bug | histories until caught | promise broken | noticed by a unit test |",
            "| --- | --- | --- | --- | --- |"]  # fmt: skip
    return "\n".join([*head, *(verdict.row() for verdict in verdicts)]) + "\n"


_UNIT = f"""\
Unit tests are the deterministic ones of the scheduler, its loop, stores and adapters, of one scenario each and without
real servers: {{0}}; for `{_DRIVER}…` also {{1}}. Those that play random histories beside checkers of their own
(scheduler_props, leader_faults) are small simulators and not among them, nor are those on a real ZooKeeper. "No" in the
last column means that none of them notices. Histories are those of the seeds from 0 on; the numbers of the promises are
those of `tests/simulation/promise.py`."""


def _name(test: str) -> str:
    return Path(test).stem.removeprefix("test_")


@cache
def _commit() -> str:
    """Where the source stands that the bugs were put into."""
    git = shutil.which("git") or "git"
    told = [
        subprocess.run([git, *asked], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
        for asked in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "src", "tests"])
    ]
    return f"{told[0]}{' with changes' if told[1] else ''}"


if __name__ == "__main__":
    raise SystemExit(main())
