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
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Mutation:
    """In `file`, `old` becomes `new`; it must be there exactly once."""

    name: str
    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Caught:
    """`broken` is the promise that was broken, or "" """

    broken: str
    histories: int


MUTATIONS: tuple[Mutation, ...] = (
    Mutation(
        "acknowledge before the write", "server/leader.py",
        "        try:\n            self._save(batch)\n",
        "        for effect in batch.effects:\n            if type(effect).__name__ == 'Acknowledge':\n"
        "                self._send(effect)\n        try:\n            self._save(batch)\n",
    ),
    Mutation(
        "send before the write", "server/leader.py",
        "        try:\n            self._save(batch)\n",
        "        for effect in batch.effects:\n            if type(effect).__name__ == 'Accept':\n"
        "                self._send(effect)\n        try:\n            self._save(batch)\n",
    ),
    Mutation(
        "answer as done what was not written", "server/leader.py",
        "            batch.answer(\n                Unavailable(",
        "            batch.answer()\n            str(\n                Unavailable(",
    ),
    Mutation(
        "a failed write is passed over", "server/leader.py",
        "        except StoreError:\n            raise\n        except Exception as",
        "        except StoreError:\n            return\n        except Exception as",
    ),
    Mutation(
        "no proof of the epoch with a new session", "server/leader.py",
        "self.connected = batch.prove_epoch = True", "self.connected = True",
    ),
    Mutation("no fencing", "adapters/memory.py", "if epoch != self._server.epoch:", "if epoch > self._server.epoch:"),
    Mutation(
        "what is deleted stays", "adapters/memory.py",
        "self._server.entries.pop((write.kind, write.key), None)", "pass",
    ),
    Mutation(
        "a claim is not released", "tasks.py",
        "        self._book.cluster.release(task.id)\n", "",
    ),
    Mutation(
        "adopt nothing", "book.py",
        "        self.tasks = whole.tasks\n", "        self.tasks = {}\n",
    ),
    Mutation(
        "a stray lives on", "tasks.py",
        "            self._book.out.append(Kill(update.task_id, update.agent_id))\n", "",
    ),
    Mutation(
        "a kill is not stored", "tasks.py",
        "            self._book.put_task(replace(task, kill_ms=at))",
        "            self._book.tasks[task.id] = replace(task, kill_ms=at)",
    ),
    Mutation(
        "the framework id is not stored", "scheduler.py",
        "            self._book.dirty[Kind.FRAMEWORK, \"id\"] = event.framework_id\n", "",
    ),
    Mutation(
        "missed firings are passed over in silence", "timetable.py",
        "            self._missed(job, due, considered, at)\n", "",
    ),
    Mutation("forget the retry", "release.py", "if not never_ran and not failover:", "if not never_ran:"),
    Mutation("residents stay away", "release.py", "    if daemon:\n", "    if daemon and end is not End.FAILED:\n"),
    Mutation(
        "what is out of reach is replaced at once", "status.py",
        '"TASK_UNREACHABLE":      (_UN,     _UN,     _UN,     _UN,     _UN,     _UN),',
        '"TASK_UNREACHABLE":      (_LOST,   _LOST,   _LOST,   _LOST,   _LOST,   _LOST),',
    ),
    Mutation(
        "what is being killed counts as killed", "status.py",
        '"TASK_KILLING":          (_KI,     _KI,     _KI,     _KI,     _KI,     _KI),',
        '"TASK_KILLING":          (_KILLED, _KILLED, _KILLED, _KILLED, _KILLED, _KILLED),',
    ),
    Mutation(
        "blame the job for what reconciliation tells", "status.py",
        "status.reason in _NO_REASON:", "not _NO_REASON:",
    ),
    Mutation(
        "firings of a job overlap", "ready.py",
        "        self.reconsider(firing.job)\n\n    def change",
        "        self._startable.update({firing.id: None} if waiting else {})\n\n    def change",
    ),
    Mutation(
        "shards do not wait for their listener", "ready.py",
        "            return self._only(after - 1)\n", "            pass\n",
    ),
    Mutation(
        "the listener after does not wait for the shards", "ready.py",
        "for item, shard in self.waiting.items() if item != after]", "for item, shard in self.waiting.items()]",
    ),
    Mutation("an ended firing stays in the way", "ready.py", "        ids.remove(firing.id)\n", ""),
    Mutation(
        "an executor's claim is kept", "offers.py",
        "        self._release(agent_id, held[1])\n        return True", "        return True",
    ),
    Mutation("the executor's share is forgotten", "launch.py", "pool.cut(plan.resources), plan.spec", "(), plan.spec"),
    Mutation("every attempt is the first", "sharding.py", '"attempt": task.attempt,', '"attempt": 1,'),
    Mutation("fence tokens stand still", "sharding.py", '"fence": fence,', '"fence": 1,'),
    Mutation("numbers start again", "repair.py", "for text in ids if (found", "for text in ids[:0] if (found"),
    Mutation(
        "disabled marks are forgotten", "server/records.py",
        "if disabled},", "if not disabled},",
    ),
    Mutation(
        "updates lose their uuid", "adapters/mesos_wire.py", 'uuid=status.get("uuid", ""),', 'uuid="",',
    ),
    Mutation(
        "offers are not given back", "adapters/mesos.py",
        'driver.declineOffer(ids(offer_ids), filters={"refuse_seconds": refuse_ms / 1000})', "pass",
    ),
)  # fmt: skip


def patched(mutation: Mutation, folder: Path) -> Path:
    """A copy of the source tree in `folder` with the bug in it. Raises ValueError where the place is not found."""
    source = folder / "src"
    shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "*.c"))
    path = source / "jobcloud" / mutation.file
    text = path.read_text()
    if text.count(mutation.old) != 1:
        raise ValueError(f"{mutation.name}: its place is in {mutation.file} {text.count(mutation.old)} times")
    path.write_text(text.replace(mutation.old, mutation.new))
    return source


def caught(mutation: Mutation, folder: Path, most: int = 2_000, processes: int = 2) -> Caught:
    """Play up to `most` histories on the patched source, until one breaks a promise."""
    source = patched(mutation, folder)
    command = [sys.executable, "-m", "tests.simulation", "--seeds", str(most), "--stop", "--processes", str(processes)]
    environment = {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    histories = re.search(r"^([0-9]+) histories", done.stdout, re.MULTILINE)
    if histories is None:
        raise RuntimeError(f"{mutation.name}: the simulator failed: {done.stderr[-2_000:]}")
    return Caught(done.stdout.splitlines()[-1] if done.returncode else "", int(histories[1]))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutations", description=__doc__)
    parser.add_argument("--only", default="", help="those whose name holds this text")
    parser.add_argument("--most", type=int, default=2_000)
    asked = parser.parse_args()
    survivors = 0
    for mutation in MUTATIONS:
        if asked.only in mutation.name:
            with tempfile.TemporaryDirectory(prefix="jobcloud.") as folder:
                found = caught(mutation, Path(folder), asked.most)
            survivors += not found.broken
            verdict = f"caught after {found.histories}: {found.broken[:110]}" if found.broken else "SURVIVED"
            print(f"{mutation.file:24} {mutation.name:44} {verdict}", flush=True)
    print(f"{survivors} of {len(MUTATIONS)} survived")
    return 1 if survivors else 0


if __name__ == "__main__":
    raise SystemExit(main())
