"""Events of the core as rows of the tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import NamedTuple, TypeAlias

import msgspec

from jobcloud.config import NOTHING, App, Job, team_of
from jobcloud.history.samples import Sampled, rows_of
from jobcloud.history.tables import Row, prefix, row_id
from jobcloud.messages import AttemptTraced, ConfigTraced, RunTraced
from jobcloud.model import Cause, Execution, Firing, Shard, ShardState, Task, cut


class AuditLine(NamedTuple):
    """An entry of the audit log, as its line in a file."""

    line: bytes


class Describe(NamedTuple):
    """How the history writes an app or a job: `revision` as the API's ETag, `config` as the API's JSON."""

    revision: Callable[[App | Job], str]
    config: Callable[[App | Job], str]


Event: TypeAlias = AttemptTraced | RunTraced | ConfigTraced | AuditLine | Sampled

SUCCEEDED = "SUCCEEDED"
#: the outcomes of attempts that count as failures; KILLED is neither a success nor a failure
FAILURES = ("FAILED", "LOST", "NOT_STARTED", "INVALID", "REPLACED")
# The states of attempts → the end of the id of the row, the state in Elastic-Job's status traces, and its source.
_TRACED = {
    name: (f"{number:02x}", traced, "CLOUD_EXECUTOR" if number else "CLOUD_SCHEDULER")
    for number, (name, traced) in enumerate(
        {
            "STORED": "TASK_STAGING",
            "STAGING": "TASK_STAGING",
            "STARTING": "TASK_STARTING",
            "RUNNING": "TASK_RUNNING",
            "KILLING": "TASK_KILLING",
            "UNREACHABLE": "TASK_UNREACHABLE",
            "SUCCEEDED": "TASK_FINISHED",
            "FAILED": "TASK_FAILED",
            "KILLED": "TASK_KILLED",
            "LOST": "TASK_LOST",
            "NOT_STARTED": "TASK_DROPPED",
            "INVALID": "TASK_ERROR",
            "REPLACED": "TASK_LOST",
        }.items()
    )
}
_MAX_MESSAGE = 4_000
#: the bytes of a configuration's JSON; a larger one is left out. A record of the state has at most a quarter of this.
MAX_CONFIG_BYTES = 1 << 20
#: a way to write configurations that leaves their content out
WITHOUT_CONTENT = Describe(lambda record: "", lambda record: "")


class Batch(msgspec.Struct, frozen=True):
    """Rows by table. The values of a row are in the order of the table's columns; times are instants."""

    runs: list[Row] = []
    attempts: list[Row] = []
    executions: list[Row] = []
    traces: list[Row] = []
    audit: list[Row] = []
    configurations: list[Row] = []
    samples: list[Row] = []

    def __len__(self) -> int:
        return sum(len(getattr(self, name)) for name in self.__struct_fields__)

    def singles(self) -> Iterable[Batch]:
        """A batch for each row."""
        for name in self.__struct_fields__:
            for row in getattr(self, name):
                yield Batch(**{name: [row]})


def of_events(events: Iterable[Event], describe: Describe = WITHOUT_CONTENT) -> Batch:
    batch = Batch()
    for event in events:
        if isinstance(event, RunTraced):
            batch.runs.append(_run(event.firing, event.app))
        elif isinstance(event, AuditLine):
            batch.audit.append(_audit(event.line))
        elif isinstance(event, Sampled):
            batch.samples.extend(rows_of(event))
        elif isinstance(event, ConfigTraced):
            batch.configurations.append(_configuration(event, describe))
        else:
            batch.traces.append(_trace(event))
            if event.ended:
                id_ = row_id(event.at, event.task.id)
                batch.attempts.append(_attempt(id_, event))
                batch.executions.append(_execution(id_, event))
    return batch


def of_state(firings: Iterable[Firing], apps: dict[str, str], since_ms: int) -> Batch:
    """The rows of ended runs and of the last attempts of their shards, from the records of the state.

    `apps` has the app of each job. Only runs and attempts that have ended since `since_ms` count. The rows have the ids
    of the rows from events, but less content.
    """
    batch = Batch()
    for firing in firings:
        if firing.ended_ms < since_ms:
            continue
        app = apps.get(firing.job, "")
        batch.runs.append(_run(firing, app))
        for item, shard in enumerate(firing.shards):
            if shard.task_id and shard.state is not ShardState.CANCELLED and shard.ended_ms >= since_ms:
                event = _last_attempt(firing, app, item, shard)
                id_ = row_id(event.at, shard.task_id)
                batch.attempts.append(_attempt(id_, event))
                batch.executions.append(_execution(id_, event))
    return batch


def _last_attempt(firing: Firing, app: str, item: int, shard: Shard) -> AttemptTraced:
    task = Task(
        id=shard.task_id, firing_id=firing.id, job=firing.job, item=item, attempt=shard.attempt,
        execution=shard.execution, agent_id=shard.agent_id, hostname=shard.hostname, app=app,
        executor_id=shard.executor_id, resources=NOTHING, created_ms=0, started_ms=shard.started_ms,
    )  # fmt: skip
    state = {ShardState.FINISHED: SUCCEEDED, ShardState.KILLED: "KILLED"}.get(shard.state, "FAILED")
    return AttemptTraced(
        shard.ended_ms, task, state, firing.cause, firing.fire_ms, firing.step(item) or "", ended=True,
        message=shard.message, outcome=shard.outcome,
    )  # fmt: skip


def _run(firing: Firing, app: str) -> Row:
    states = Counter(shard.state for shard in firing.work)
    return (
        row_id(firing.fire_ms, firing.id),
        cut(firing.id, 255),
        team_of(firing.job),
        app,
        firing.job,
        str(firing.cause),
        str(firing.worst),
        firing.fire_ms,
        firing.ended_ms,
        len(firing.work),
        states[ShardState.FINISHED],
        states[ShardState.FAILED],
        states[ShardState.KILLED],
        states[ShardState.CANCELLED],
        states[ShardState.DEAD],
    )


def _audit(line: bytes) -> Row:
    entry = json.loads(line)
    instant = int(datetime.fromisoformat(entry["at"]).timestamp() * 1_000 + 0.5)
    texts = {"kind": 20, "request": 16, "subject": 300, "client": 60, "team": 100, "target": 500, "outcome": 20}
    return (
        prefix(instant) + f"{entry['seq']:012x}{entry['chain'][:8]}",
        entry["chain"],
        entry["seq"],
        instant,
        *(cut(entry.get(name, ""), length) for name, length in texts.items()),
        line.decode(),
    )


def _configuration(event: ConfigTraced, describe: Describe) -> Row:
    kind, name = kind_of(event.record), event.record.key
    return configuration_row(
        event.at,
        event.number,
        kind,
        name,
        describe.revision(event.record),
        describe.config(event.record),
        author=event.author,
        removed=event.removed,
    )


def kind_of(record: App | Job) -> str:
    return "app" if isinstance(record, App) else "job"


def configuration_row(
    at: int, number: int, kind: str, name: str, revision: str, config: str, *, author: str = "", removed: bool = False
) -> Row:
    """The row of a configuration. Rows of one instant have the order of their numbers."""
    size = len(config.encode())
    if size > MAX_CONFIG_BYTES:
        size, config = 0, ""
    what = row_id(0, f"{kind} {name} {revision} {removed}")[12:24]
    id_ = prefix(at) + f"{number & 0xFFFFFFFF:08x}" + what
    return id_, kind, name, team_of(name), revision, cut(author, 300), at, int(removed), size, config


def _attempt(id_: str, event: AttemptTraced) -> Row:
    task, outcome = event.task, event.outcome
    return (
        id_,
        task.id,
        cut(task.firing_id, 255),
        team_of(task.job),
        task.app,
        task.job,
        task.item,
        str(event.step),
        task.attempt,
        str(task.execution),
        str(event.run_cause),
        cut(task.agent_id, 255),
        cut(task.hostname, 255),
        cut(task.executor_id, 255),
        str(event.state),
        outcome.cause,
        cut(event.message, _MAX_MESSAGE),
        event.fire_ms,
        task.created_ms,
        task.started_ms,
        event.at,
        event.queued_ms if event.queued_ms >= 0 else None,
        max(0, event.at - task.started_ms) if task.started_ms else None,
        task.resources.cpus,
        task.resources.mem,
        len(outcome.result.encode()) if outcome.result else 0,
    )


def _execution(id_: str, event: AttemptTraced) -> Row:
    task = event.task
    source = "NORMAL_TRIGGER"
    if task.execution is Execution.FAILOVER:
        source = "FAILOVER"
    elif event.run_cause == Cause.CATCH_UP:
        source = "MISFIRE"
    success = event.state == SUCCEEDED
    why = None if success else cut(event.message or event.state, _MAX_MESSAGE)
    return (
        id_,
        task.job[:100],
        task.id,
        cut(task.hostname, 255),
        cut(task.hostname, 50),
        task.item,
        source,
        why,
        int(success),
        task.started_ms or task.created_ms or event.at,
        event.at,
    )


def _trace(event: AttemptTraced) -> Row:
    task, state = event.task, event.state
    code, name, source = _TRACED[state]
    return (
        row_id(event.at, task.id) + code,
        task.job[:100],
        event.previous,
        task.id,
        task.agent_id[:50],
        source,
        str(task.execution),
        f"[{task.item}]",
        name,
        cut(event.message, _MAX_MESSAGE),
        event.at,
    )
