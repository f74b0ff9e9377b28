"""The life of a task as a table: (state, update) → the next state, or how the task ended. Every pair is listed.

Mesos delivers updates at least once, late, and after a change of leader in any order. So an update never moves a live
task back to an earlier state, except from UNREACHABLE. An ended task has no record, so a later update of it counts as
one of an orphan task.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from jobcloud.errors import InvalidTransition
from jobcloud.messages import Status
from jobcloud.model import NO_OUTCOME, Outcome, TaskState
from jobcloud.model import End as End


class Ending(NamedTuple):
    """The end of a task.

    `message`: the text for users. `outcome`: the executor's report. `reason`: the reason that Mesos gave. `dropped`:
    the launch did not reach the agent. `charged`: the end counts as a failure. `agent_at_fault`: the agent may be the
    cause of a loss, so the next attempt avoids it.
    """

    end: End
    message: str
    outcome: Outcome = NO_OUTCOME
    reason: str = ""
    dropped: bool = False
    charged: bool = True
    agent_at_fault: bool = True


Step: TypeAlias = TaskState | End

# Stands for each update that the table does not list, such as one of a later version of Mesos. Such an update changes
# nothing.
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
    # The master no longer knows the agent. Mesos' guide for highly available frameworks treats the task as lost.
    "TASK_UNKNOWN":          (_NEVER,  _NEVER,  _LOST,   _LOST,   _LOST,   _LOST),
    OTHER:                   (_SR,     _SG,     _ST,     _RU,     _KI,     _UN),
}
# fmt: on
TABLE: dict[tuple[TaskState, str], Step] = {
    (state, update): step for update, steps in _ROWS.items() for state, step in zip(_COLUMNS, steps, strict=True)
}
#: updates after which an orphan task need not be killed; after an update that is not listed, the task may still live
OVER_OR_AWAY = frozenset(_ROWS) - {"TASK_STAGING", "TASK_STARTING", "TASK_RUNNING", "TASK_KILLING", OTHER}

#: the states before the first report of the executor
NOT_BEGUN = frozenset({_SR, _SG})

#: updates after which a task certainly does not run, even if a later update reports it as running; after a loss, a task
#: may still run
CERTAIN_ENDS = frozenset({"TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_ERROR"})

#: reason of a launch that the master dropped, because an offer was rescinded; the agent never heard of the launch
INVALID_OFFERS = "REASON_INVALID_OFFERS"

# Reasons of a TASK_FAILED that the job did not cause.
# Source: Mesos 1.11, include/mesos/v1/mesos.proto, TaskStatus.Reason.
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
# The agent killed the task because an operator drains the agent through Mesos.
_DRAINED = "REASON_AGENT_DRAINING"
# With these reasons, the master reports the state of an update that is still on its way, but not the update's own
# reason. So it is unknown why a task failed, and whether a drain killed it. Such a report changes nothing: the agent
# repeats the update until the update is acknowledged. So either the update itself follows, or a report that the agent
# is lost.
_NO_REASON = frozenset({"REASON_AGENT_REREGISTERED", "REASON_RECONCILIATION"})
# Causes in the update's data by which our executor reports a failure of the cluster.
WORKER_LOST = "worker_lost"
_INFRASTRUCTURE_CAUSES = frozenset({WORKER_LOST, "executor_shutdown"})


def step(state: TaskState, status: Status, cause: str) -> Step:
    """The next state of a task in `state` after `status`, or its end.

    `cause` is the executor's report from the update's data, or "". Raises InvalidTransition if the table lacks the
    pair.
    """
    update = status.state if status.state in _ROWS else OTHER
    try:
        found = TABLE[state, update]
    except KeyError:
        raise InvalidTransition(f"no step from {state} by {update} (task {status.task_id})") from None
    if (found is _FAIL or found is _KILLED) and status.reason in _NO_REASON:
        return state
    lost = found is _FAIL and (status.reason in _INFRASTRUCTURE or cause in _INFRASTRUCTURE_CAUSES)
    if lost or (found is _KILLED and status.reason == _DRAINED):
        return End.NOT_STARTED if state in (TaskState.STORED, TaskState.STAGING) else End.LOST
    return found
