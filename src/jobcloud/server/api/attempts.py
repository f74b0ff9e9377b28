"""Shards of runs, and their attempts: the present one and the earlier ones that are kept."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query as Parameter
from pydantic import Field

from jobcloud.config import team_of
from jobcloud.errors import NotFound
from jobcloud.model import Attempt, End, Firing, ShardState, Task, changed
from jobcloud.scheduler.attempts import attempt_of
from jobcloud.scheduler.refusals import no_shard
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import between, choose
from jobcloud.server.api.paging import Listing, PageQuery, PageView
from jobcloud.server.api.runs import ShardView, find_run, result_of, shard_view
from jobcloud.server.api.schema import Instant, Number, RunId, View
from jobcloud.server.api.services import ServicesDep
from jobcloud.server.api.snapshot import Snapshot
from jobcloud.server.routes import Routes

router = Routes(tags=["runs"])

_ATTEMPTS = Listing("attempts", (int,))


class AttemptView(View):
    """One attempt of a shard. An ended one has no `createdAt`."""

    number: int
    task_id: str
    state: str = Field(
        description="the state of the task; after its end FINISHED, FAILED, KILLED, or LOST, NOT_STARTED, INVALID or "
        "REPLACED if the cluster failed"
    )
    active: bool
    execution: str
    agent_id: str
    hostname: str
    executor_id: str
    created_at: Instant
    started_at: Instant
    ended_at: Instant
    message: str
    cause: str = Field(description="the cause of a failure, such as exception or worker_lost; empty if unknown")
    result: Any = Field(description="the return value of the job, or null")


class AttemptList(PageView):
    items: list[AttemptView] = Field(description="newest first; of a shard's earlier attempts, the last 10 are kept")


class ShardDetail(ShardView):
    run_id: str
    job_name: str = Field(description="the key of the job")
    team: str
    waits_because: str = Field(description="why the shard waits for another attempt; empty if it does not")


@router.get("/runs/{run_id}/shards/{item}")
def show_shard(services: ServicesDep, run_id: RunId, item: Number) -> ShardDetail:
    """A shard of a run. `notBefore` is the time of its next attempt, if it waits for one."""
    snapshot = services.snapshot_of_run(run_id)
    run = _find_shard(snapshot, run_id, item)
    shard = run.shards[item]
    waits = shard.state is ShardState.WAITING
    earlier = snapshot.earlier(run, item) if waits else ()
    return ShardDetail(
        **dict(shard_view(item, shard, run.step(item))),
        run_id=run.id,
        job_name=run.job,
        team=team_of(run.job),
        waits_because=end_text(earlier[-1]) if earlier else shard.message if waits else "",
    )


@router.get("/runs/{run_id}/shards/{item}/attempts")
def list_attempts(
    services: ServicesDep, run_id: RunId, item: Number, query: Annotated[PageQuery, Parameter()]
) -> AttemptList:
    """The attempts of a shard, newest first: the present one, and the earlier ones that are kept."""
    snapshot = services.snapshot_of_run(run_id)
    found = attempts_of(snapshot, _find_shard(snapshot, run_id, item), item)
    items, cursor = _ATTEMPTS.page(found, lambda attempt: (-attempt.number,), query)
    return AttemptList(items=items, next_cursor=cursor)


def attempts_of(snapshot: Snapshot, run: Firing, item: int) -> list[AttemptView]:
    shard, earlier = run.shards[item], snapshot.earlier(run, item)
    found = [_ended_view(attempt) for attempt in reversed(earlier)]
    task = snapshot.tasks.get(shard.task_id)
    if task is not None and shard.state is ShardState.ACTIVE:
        return [_active_view(task), *found]
    last = attempt_of(shard)
    if last is not None and (not earlier or earlier[-1].number < last.number):
        return [_ended_view(changed(last, message=shard.message)), *found]
    return found


def find_attempt(snapshot: Snapshot, run_id: str, item: int, number: int) -> str:
    """The task id of an attempt. Raises NotFound."""
    run = _find_shard(snapshot, run_id, item)
    known = {attempt.number: attempt.task_id for attempt in attempts_of(snapshot, run, item)}
    if number not in known:
        numbers = ", ".join(map(str, sorted(known))) or "none"
        raise NotFound(
            Told(
                f"shard {item} of {run.id} has no attempt {number}", "no_attempt", item=item, run=run.id, attempt=number
            ),
            field="attempt",
            fix=choose(numbers, begin="the known ones are: "),
        )
    return known[number]


def end_state(end: End) -> str:
    """The word for an end. Success has the name of the state of tasks and shards."""
    return "FINISHED" if end is End.SUCCEEDED else end.value


def end_text(attempt: Attempt) -> str:
    """How an attempt ended, as one sentence."""
    why = ": ".join(part for part in (attempt.outcome.cause, attempt.message) if part)
    return f"attempt {attempt.number} is {end_state(attempt.end)}" + (f": {why}" if why else "")


def _find_shard(snapshot: Snapshot, run_id: str, item: int) -> Firing:
    """The run with this shard. Raises NotFound."""
    run = find_run(snapshot, run_id)
    if not 0 <= item < len(run.shards):
        raise NotFound(no_shard(run.id, item), field="item", fix=between("0", str(len(run.shards) - 1)))
    return run


def _active_view(task: Task) -> AttemptView:
    return AttemptView(
        number=task.attempt,
        task_id=task.id,
        state=task.state,
        active=True,
        execution=task.execution,
        agent_id=task.agent_id,
        hostname=task.hostname,
        executor_id=task.executor_id,
        created_at=task.created_ms,
        started_at=task.started_ms,
        ended_at=0,
        message=task.message,
        cause="",
        result=None,
    )


def _ended_view(attempt: Attempt) -> AttemptView:
    return AttemptView(
        number=attempt.number,
        task_id=attempt.task_id,
        state=end_state(attempt.end),
        active=False,
        execution=attempt.execution,
        agent_id=attempt.agent_id,
        hostname=attempt.hostname,
        executor_id=attempt.executor_id,
        created_at=0,
        started_at=attempt.started_ms,
        ended_at=attempt.ended_ms,
        message=attempt.message,
        cause=attempt.outcome.cause,
        result=result_of(attempt.outcome),
    )
