"""Names of objects in the archive. They are made of hashes and numbers, because ids and keys come from users.

A name is `XX/RUN-ITEM-ATTEMPT-TASK-JOB.zip`: RUN, TASK and JOB are hashes of the run's id, the task's id and the job's
key, and XX is the beginning of RUN. All names of a cluster are below `jobcloud-logs-1/CLUSTER`, and 1 is the number of
the format of names and objects.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, NamedTuple

from jobcloud.messages import AttemptTraced
from jobcloud.model import Attempt, End, Firing

FORMAT: Final = 1
#: the instant up to which all ended attempts are in the archive, or will never be
MARK: Final = "mark.json"
_NAME = re.compile(r"[0-9a-f]{2}/([0-9a-f]{24}-\d{1,9}-\d{1,9})-([0-9a-f]{16})-([0-9a-f]{12})\.zip", re.ASCII)


class Ended(NamedTuple):
    """An ended attempt of a shard. `job` is the job's key."""

    run_id: str
    item: int
    attempt: int
    job: str
    task_id: str
    agent_id: str
    hostname: str
    executor_id: str
    end: End
    ended_ms: int

    @property
    def place(self) -> str:
        return place_of(self.run_id, self.item, self.attempt)

    @property
    def name(self) -> str:
        """The name of its object."""
        return f"{self.place[:2]}/{self.place}-{_hash(self.task_id, 16)}-{_hash(self.job, 12)}.zip"


class Parts(NamedTuple):
    """The parts of a name."""

    place: str
    task: str
    job: str


def root_of(cluster: str) -> str:
    return f"jobcloud-logs-{FORMAT}/{cluster}"


def place_of(run_id: str, item: int, attempt: int) -> str:
    """The part of a name that stands for one attempt."""
    return f"{_hash(run_id, 24)}-{item}-{attempt}"


def task_part(task_id: str) -> str:
    return _hash(task_id, 16)


def parts_of(name: str) -> Parts | None:
    """The parts of the name of a log. None for any other name: jobcloud never deletes such an object."""
    found = _NAME.fullmatch(name)
    return Parts(*found.groups()) if found is not None and name[:2] == name[3:5] else None


def of_trace(trace: AttemptTraced) -> Ended:
    """The attempt whose end was traced."""
    task = trace.task
    return Ended(
        task.firing_id, task.item, task.attempt, task.job, task.id, task.agent_id, task.hostname, task.executor_id,
        End(trace.state), trace.at,
    )  # fmt: skip


def of_record(firing: Firing, item: int, attempt: Attempt) -> Ended:
    """An attempt from the records of the state."""
    return Ended(
        firing.id, item, attempt.number, firing.job, attempt.task_id, attempt.agent_id, attempt.hostname,
        attempt.executor_id, attempt.end, attempt.ended_ms,
    )  # fmt: skip


def _hash(text: str, digits: int) -> str:
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=digits // 2).hexdigest()
