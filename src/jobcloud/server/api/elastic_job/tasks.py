"""Tasks in Elastic-Job-Cloud's API: those that run, and shards that wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from fastapi import Request, Response

from jobcloud.config import DEFAULT_TEAM
from jobcloud.model import Firing, Shard, ShardState, Task
from jobcloud.server.api.elastic_job.answers import shown
from jobcloud.server.api.services import ServicesDep
from jobcloud.server.api.snapshot import Snapshot, belongs
from jobcloud.server.routes import Routes

router = Routes()


@router.get("/job/tasks/running")
def list_running(request: Request, services: ServicesDep) -> Response:
    return shown(request, [_context(task) for task in running(services.snapshot())])


@router.get("/job/tasks/ready")
def list_ready(request: Request, services: ServicesDep) -> Response:
    """Jobs with runs that have shards without an attempt, and the number of these runs as text."""
    found = {(firing.job, firing.id) for firing, _, shard in _waiting(services.snapshot()) if not shard.attempt}
    times = Counter(job for job, _ in found)
    return shown(request, [{"jobName": job, "times": str(times[job])} for job in sorted(times)])


@router.get("/job/tasks/failover")
def list_failover(request: Request, services: ServicesDep) -> Response:
    """Shards that wait for another attempt, with the task of their last one."""
    return shown(
        request,
        [
            {"taskInfo": {"jobName": firing.job, "shardingItems": [item]}, "originalTaskId": shard.task_id}
            for firing, item, shard in _waiting(services.snapshot())
            if shard.attempt
        ],
    )


def running(snapshot: Snapshot) -> list[Task]:
    """The tasks of the team's shards, sorted by job and item. Placeholder tasks and calls of listeners are left out."""
    found = []
    for task in snapshot.tasks.values():
        firing = snapshot.firings.get(task.firing_id)
        if firing is not None and belongs(task.job, (DEFAULT_TEAM,)) and not firing.step(task.item):
            found.append(task)
    return sorted(found, key=lambda task: (task.job, task.item, task.id))


def _context(task: Task) -> dict[str, Any]:
    """A task as Elastic-Job-Cloud's TaskContext. `idle` is unknown here: a resident task always counts as busy."""
    return {
        "id": task.id,
        "metaInfo": {"jobName": task.job, "shardingItems": [task.item]},
        "type": task.execution.value,
        "slaveId": task.agent_id,
        "idle": False,
    }


def _waiting(snapshot: Snapshot) -> Iterator[tuple[Firing, int, Shard]]:
    """The waiting shards of the team's runs, sorted by job. The oldest run of a job comes first."""
    for firing in sorted(snapshot.firings.values(), key=lambda firing: (firing.job, firing.fire_ms, firing.id)):
        if not firing.ended_ms and belongs(firing.job, (DEFAULT_TEAM,)):
            for item, shard in enumerate(firing.work):
                if shard.state is ShardState.WAITING:
                    yield firing, item, shard
