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
UNIT_TESTS = (
    *(
        f"tests/scheduler/test_{name}.py"
        for name in ("scheduler", "rollouts", "operator_calls", "warm_executors", "partitions", "timeouts", "drains",
                     "firing_listener", "queue", "status", "cluster", "launch", "outcomes", "scheduler_policies",
                     "mass_loss", "retry", "circuit_breakers", "scheduler_weaknesses")
    ),
    *(f"tests/server/test_{name}.py" for name in ("loop", "loop_leadership", "records")),
    "tests/test_config.py",
    "tests/test_model.py",
    "tests/adapters/mesos/test_mesos_wire.py",
    "tests/adapters/zookeeper/test_zookeeper_journal.py",
    "tests/adapters/test_store_contract.py",
    "tests/adapters/test_sqlite.py",
)  # fmt: skip
# Asked about the driver alone, against a scripted master: they take a minute more.
DRIVER_TESTS = ("tests/adapters/mesos/test_mesos_driver.py", "tests/adapters/mesos/test_mesos_pipelining.py")
_DRIVER = "adapters/mesos/"


@dataclass(frozen=True, slots=True)
class Mutation:
    """In `file`, `old` becomes `new`; it must be there exactly once. `also` are further places of the same bug.

    `quiet`: the unit tests are expected not to notice it.
    """

    name: str
    file: str
    old: str
    new: str
    also: tuple[tuple[str, str, str], ...] = ()
    quiet: bool = False

    @property
    def places(self) -> tuple[tuple[str, str, str], ...]:
        return (self.file, self.old, self.new), *self.also


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
        "acknowledge before the write", "server/batch.py",
        "        try:\n            self._save(batch, ranks[0])\n",
        "        for effect in batch.effects:\n            if type(effect).__name__ == 'Acknowledge':\n"
        "                self._send(effect)\n        try:\n            self._save(batch, ranks[0])\n",
    ),
    Mutation(
        "a large batch is written in parts", "server/batch.py",
        "            self._store.write(self.epoch, [_encoded(write) for write in writes])\n",
        "            for start in range(0, max(1, len(writes)), 8):\n"
        "                self._store.write(self.epoch, [_encoded(write) for write in writes[start : start + 8]])\n",
        quiet=True,
    ),
    Mutation(
        "what reconciliation says of an unconfirmed launch is not believed", "scheduler/tasks.py",
        "        if isinstance(step, End):\n            self._finish",
        '        told = task.state is TaskState.STORED and update.reason == "REASON_RECONCILIATION"\n'
        "        if told and isinstance(step, End):\n            return\n"
        "        if isinstance(step, End):\n            self._finish",
        quiet=True,
    ),
    Mutation("no fencing", "adapters/memory.py", "if epoch != self._server.epoch:", "if epoch > self._server.epoch:"),
    Mutation(
        "a limit is forgotten by the next leader", "scheduler/timeouts.py",
        "    def restore(self, at: int) -> None:\n        for task in self._state.tasks.values():\n",
        "    def restore(self, at: int) -> None:\n        for task in ():\n",
    ),
    Mutation(
        "no end is believed that is told without its update", "scheduler/status.py",
        "    if found is _FAIL and status.reason in _NO_REASON:",
        "    if isinstance(found, End) and status.reason in _NO_REASON:",
        quiet=True,
    ),
    Mutation("forget the retry", "scheduler/retry.py", "if not never_ran and not failover and", "if not never_ran and"),
    Mutation(
        "adopt nothing", "scheduler/state.py",
        "        self.tasks = whole.tasks\n", "        self.tasks = {}\n",
    ),
    Mutation(
        "the clock is part of fence tokens", "scheduler/cycle.py",
        "        data = sharding.payload(job, firing, task, self._state.fence())\n",
        "        data = sharding.payload(job, firing, task, at * 1_000_000_000 + self._state.fence())\n",
        (("scheduler/cycle.py", "        data = sharding.placeholder_payload(task, self._state.fence())\n",
          "        data = sharding.placeholder_payload(task, at * 1_000_000_000 + self._state.fence())\n"),),
        quiet=True,
    ),
    Mutation(
        "a removed app stays disabled", "scheduler/commands.py",
        "        self._state.set_app_disabled(event.name, disabled=False)\n",
        "",
    ),
    Mutation(
        "no proof of the epoch with a new session", "server/batch.py",
        "self.connected = batch.prove_epoch = True", "self.connected = True",
    ),
    Mutation(
        "the epoch is proven with a new framework id alone", "server/batch.py",
        "                self.connected = batch.prove_epoch = True\n",
        "                self.connected = True\n"
        "                batch.prove_epoch = event.framework_id != self._framework_id\n",
        quiet=True,
    ),
    Mutation(
        "an operator's kill is not stored", "scheduler/commands.py",
        "        self._tasks.kill(task, event.at)\n",
        "        self._tasks._reconciliation.send_kill(task, event.at)\n",
    ),
    Mutation(
        "what replaces a lost attempt waits its turn", "scheduler/queue.py",
        "for is_first, row in ((False, again), (True, first)) if row)",
        "for is_first, row in ((True, again), (True, first)) if row)",
    ),
    Mutation(
        "a claim is not released", "scheduler/tasks.py",
        "        self._state.cluster.release(task.id)\n", "",
    ),
    Mutation(
        "an app without placeholders is kept in mind", "scheduler/warm_executors.py",
        "        if not placeholders:\n            del self.of_app[task.app]\n",
        "",
        quiet=True,
    ),
    Mutation(
        "a removed job leaves its refusal", "scheduler/cycle.py",
        "        self.refusals.pop(name, None)\n", "        pass\n",
        quiet=True,
    ),
    Mutation(
        # Either of the two alone does no harm: the other is there for it.
        "numbers start again in the same epoch", "scheduler/recovery.py",
        "for text in ids if (found", "for text in ids[:0] if (found",
        (("server/batch.py", "        if self._led:\n", "        if False:\n"),),
    ),
    Mutation(
        "a roll-out ends all shards at once", "scheduler/rollouts.py",
        "        return len(down | {task.item}) <= job.max_unavailable\n", "        return True\n",
    ),
    Mutation(
        "the version of a mark is not followed", "adapters/zookeeper/store.py",
        "            unfold.version += 1\n",
        "",
        quiet=True,
    ),
    Mutation(
        "half of a large batch stays where it is", "adapters/zookeeper/store.py",
        "            image = image or self._read()[0]\n            self._unfold(epoch, image)\n",
        "            image = image or self._read()[0]\n",
        quiet=True,
    ),
    Mutation(
        "a lost answer counts as done", "adapters/zookeeper/store.py",
        "if witness is not None and self._took_effect(witness, deadline):", "if witness is not None:",
        quiet=True,
    ),
    Mutation(
        "an updated job is considered by the clock alone", "scheduler/commands.py",
        "        considered = max(event.at, self._state.job_states[job.name].considered_ms)\n",
        "        considered = event.at\n",
        quiet=True,
    ),
    Mutation(
        "an enabled job is considered by the clock alone", "scheduler/commands.py",
        "            considered = max(at, self._state.job_states[job.name].considered_ms)\n",
        "            considered = at\n",
        quiet=True,
    ),
)  # fmt: skip


def patched(folder: Path, *mutations: Mutation) -> Path:
    """A copy of the source tree in `folder` with the bugs in it. Raises ValueError where a place is not found."""
    source = folder / "src"
    shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "*.c"))
    for mutation in mutations:
        for file, old, new in mutation.places:
            path = source / "jobcloud" / file
            text = path.read_text()
            if text.count(old) != 1:
                raise ValueError(f"{mutation.name}: its place is in {file} {text.count(old)} times")
            path.write_text(text.replace(old, new))
    return source


def caught(mutation: Mutation, folder: Path, most: int = 2_000, processes: int = 2) -> Caught:
    """Play up to `most` histories on the patched source, until one breaks a promise."""
    environment = _environment(patched(folder, mutation))
    command = [sys.executable, "-m", "tests.simulation", "--seeds", str(most), "--stop", "--processes", str(processes)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    histories = re.search(r"^([0-9]+) histories", done.stdout, re.MULTILINE)
    if histories is None:
        raise RuntimeError(f"{mutation.name}: the simulator failed: {done.stderr[-2_000:]}")
    return Caught(done.stdout.splitlines()[-1] if done.returncode else "", int(histories[1]))


def noticed_by_unit_tests(folder: Path, *mutations: Mutation) -> str:
    """The first of the unit tests that fails with all these bugs in the source; "" where none does."""
    environment = _environment(patched(folder, *mutations))
    driver = any(mutation.file.startswith(_DRIVER) for mutation in mutations)
    tests = (*UNIT_TESTS, *(DRIVER_TESTS if driver else ()))
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
        raise RuntimeError(f"{mutations[0].name}: the unit tests cannot be run: {done.stdout[-2_000:]}")
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return failed[1] if failed and done.returncode else ""


def who_notices(mutations: Sequence[Mutation]) -> dict[str, str]:
    """Name of each bug → the first unit test that notices it, or "".

    Where no test fails with many quiet ones in the source at once, none notices any of them: that saves a run of all
    tests for each. Where one fails, or their places overlap, they are asked half by half.
    """
    if not mutations:
        return {}
    with tempfile.TemporaryDirectory(prefix="jobcloud.") as folder:
        try:
            test = noticed_by_unit_tests(Path(folder), *mutations)
        except ValueError:
            if len(mutations) == 1:
                raise
            test = "their places overlap"
    if len(mutations) == 1 or not test:
        return {mutation.name: test for mutation in mutations}
    half = len(mutations) // 2
    return who_notices(mutations[:half]) | who_notices(mutations[half:])


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
    chosen = [mutation for mutation in MUTATIONS if asked.only in mutation.name]
    tests: dict[str, str] = {}
    verdicts: list[Verdict] = []
    if asked.unit_tests:
        tests |= who_notices([mutation for mutation in chosen if mutation.quiet])
        print("noticed of the quiet ones:", {name: test for name, test in tests.items() if test} or "none", flush=True)
    for mutation in chosen:
        with tempfile.TemporaryDirectory(prefix="jobcloud.") as folder:
            found = caught(mutation, Path(folder), asked.most, asked.processes)
        if asked.unit_tests and mutation.name not in tests:
            tests |= who_notices([mutation])
        verdicts.append(Verdict(mutation, found, tests.get(mutation.name)))
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
last column means that none of them notices; those that were expected to be quiet were in the source all at once.
Histories are those of the seeds from 0 on; the numbers of the promises are
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
