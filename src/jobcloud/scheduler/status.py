"""A task's life as a table: (state, update) → the next state, or how the task ended. Every pair is listed.

Mesos delivers updates at least once, late and in any order across a fail-over; so a live update never takes a task
back, and an ended task has no record here at all: whatever still comes for it is a stray.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

from jobcloud.errors import InvalidTransition
from jobcloud.messages import Status
from jobcloud.model import TaskState


class End(StrEnum):
    """How a task ended, as far as it matters for what comes next."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"  # by the job's own doing
    KILLED = "KILLED"
    LOST = "LOST"  # by the infrastructure, after it may have run
    NOT_STARTED = "NOT_STARTED"  # by the infrastructure, before it was seen to run
    INVALID = "INVALID"  # Mesos refused the launch
    REPLACED = "REPLACED"  # by the job's partition policy; it may still run


Step: TypeAlias = TaskState | End

# Any state that a later Mesos may bring: it changes nothing.
OTHER = "OTHER"

_SR, _SG, _ST, _RU, _KI, _UN = TaskState
_OK, _FAIL, _KILLED, _LOST, _NEVER, _BAD, _ = End

_COLUMNS = (_SR, _SG, _ST, _RU, _KI, _UN)
# fmt: off
_ROWS: dict[str, tuple[Step, ...]] = {
    # update                  STORED   STAGING  STARTING RUNNING  KILLING  UNREACHABLE
    "TASK_STAGING":          (_SG,     _SG,     _ST,     _RU,     _KI,     _SG),
    "TASK_STARTING":         (_ST,     _ST,     _ST,     _RU,     _KI,     _ST),
    "TASK_RUNNING":          (_RU,     _RU,     _RU,     _RU,     _KI,     _RU),
    "TASK_KILLING":          (_KI,     _KI,     _KI,     _KI,     _KI,     _KI),
    "TASK_UNREACHABLE":      (_UN,     _UN,     _UN,     _UN,     _UN,     _UN),
    "TASK_FINISHED":         (_OK,     _OK,     _OK,     _OK,     _OK,     _OK),
    "TASK_FAILED":           (_FAIL,   _FAIL,   _FAIL,   _FAIL,   _FAIL,   _FAIL),
    "TASK_KILLED":           (_KILLED, _KILLED, _KILLED, _KILLED, _KILLED, _KILLED),
    "TASK_ERROR":            (_BAD,    _BAD,    _LOST,   _LOST,   _LOST,   _LOST),
    "TASK_LOST":             (_NEVER,  _NEVER,  _LOST,   _LOST,   _LOST,   _LOST),
    "TASK_DROPPED":          (_NEVER,  _NEVER,  _LOST,   _LOST,   _LOST,   _LOST),
    "TASK_GONE":             (_NEVER,  _NEVER,  _LOST,   _LOST,   _LOST,   _LOST),
    "TASK_GONE_BY_OPERATOR": (_NEVER,  _NEVER,  _LOST,   _LOST,   _LOST,   _LOST),
    # The master has forgotten the agent: by the guide for highly available frameworks, treat it as lost.
    "TASK_UNKNOWN":          (_NEVER,  _NEVER,  _LOST,   _LOST,   _LOST,   _LOST),
    OTHER:                   (_SR,     _SG,     _ST,     _RU,     _KI,     _UN),
}
# fmt: on
TABLE: dict[tuple[TaskState, str], Step] = {
    (state, update): step for update, steps in _ROWS.items() for state, step in zip(_COLUMNS, steps, strict=True)
}
#: after these there is nothing to end; a state of a later Mesos may be of a task that lives
OVER_OR_AWAY = frozenset(_ROWS) - {"TASK_STAGING", "TASK_STARTING", "TASK_RUNNING", "TASK_KILLING", OTHER}

# TASK_FAILED that the job is not to blame for. Source: Mesos 1.11, include/mesos/v1/mesos.proto, TaskStatus.Reason.
_INFRASTRUCTURE = frozenset(
    {
        "REASON_AGENT_DISCONNECTED",
        "REASON_AGENT_REMOVED",
        "REASON_AGENT_RESTARTED",
        "REASON_CONTAINER_LAUNCH_FAILED",
        "REASON_CONTAINER_PREEMPTED",
        "REASON_CONTAINER_UPDATE_FAILED",
        "REASON_EXECUTOR_REGISTRATION_TIMEOUT",
        "REASON_EXECUTOR_REREGISTRATION_TIMEOUT",
        "REASON_EXECUTOR_TERMINATED",
        "REASON_EXECUTOR_UNREGISTERED",
        "REASON_GC_ERROR",
        "REASON_IO_SWITCHBOARD_EXITED",
    }
)
# A kill by the agent itself, as an operator of Mesos drains it.
_DRAINED = "REASON_AGENT_DRAINING"
# What the master itself says of an update under way has its state, and not its reason: whose fault a failure is cannot
# be told. The update itself is sent until it is acknowledged, so it still comes, or the agent's loss.
_NO_REASON = frozenset({"REASON_AGENT_REREGISTERED", "REASON_RECONCILIATION"})
# The same, as our own executor says it in the update's data.
WORKER_LOST = "worker_lost"
_INFRASTRUCTURE_CAUSES = frozenset({WORKER_LOST, "executor_shutdown"})


def step(state: TaskState, status: Status, cause: str) -> Step:
    """What `status` does to a task in `state`. `cause` is the executor's own word from the update's data, or "".

    Raises InvalidTransition where the table lacks the pair.
    """
    update = status.state if status.state in _ROWS else OTHER
    try:
        found = TABLE[state, update]
    except KeyError:
        raise InvalidTransition(f"no step from {state} by {update} (task {status.task_id})") from None
    if found is _FAIL and status.reason in _NO_REASON:
        return state
    lost = found is _FAIL and (status.reason in _INFRASTRUCTURE or cause in _INFRASTRUCTURE_CAUSES)
    if lost or (found is _KILLED and status.reason == _DRAINED):
        return End.NOT_STARTED if state in (TaskState.STORED, TaskState.STAGING) else End.LOST
    return found
