"""The table of task states, pair by pair, against expectations written in another form."""

from __future__ import annotations

import pytest

from jobcloud.errors import InvalidTransition
from jobcloud.messages import Status
from jobcloud.model import TaskState
from jobcloud.scheduler.status import OTHER, TABLE, End, step

UPDATES = [
    "TASK_STAGING", "TASK_STARTING", "TASK_RUNNING", "TASK_KILLING", "TASK_UNREACHABLE", "TASK_FINISHED", "TASK_FAILED",
    "TASK_KILLED", "TASK_ERROR", "TASK_LOST", "TASK_DROPPED", "TASK_GONE", "TASK_GONE_BY_OPERATOR", "TASK_UNKNOWN",
]  # fmt: skip
# The progress of a task. A late update of an earlier state changes nothing.
PROGRESS = [TaskState.STORED, TaskState.STAGING, TaskState.STARTING, TaskState.RUNNING, TaskState.KILLING]
BEFORE_IT_RAN = (TaskState.STORED, TaskState.STAGING)


def expected(state: TaskState, update: str) -> TaskState | End:
    """The expected step, from rules instead of table entries."""
    match update:
        case "TASK_FINISHED":
            return End.SUCCEEDED
        case "TASK_FAILED":
            return End.FAILED
        case "TASK_KILLED":
            return End.KILLED
        case "TASK_ERROR":
            return End.INVALID if state in BEFORE_IT_RAN else End.LOST
        case "TASK_LOST" | "TASK_DROPPED" | "TASK_GONE" | "TASK_GONE_BY_OPERATOR" | "TASK_UNKNOWN":
            return End.NOT_STARTED if state in BEFORE_IT_RAN else End.LOST
        case "TASK_UNREACHABLE":
            return TaskState.UNREACHABLE
        case "TASK_STAGING" | "TASK_STARTING" | "TASK_RUNNING" | "TASK_KILLING":
            told = TaskState(update.removeprefix("TASK_"))
            if state is TaskState.UNREACHABLE:
                return told
            return max(state, told, key=PROGRESS.index)
    return state


@pytest.mark.parametrize("update", [*UPDATES, "TASK_OF_A_LATER_MESOS", "", "task_running", "TASK_RUNNING "])
@pytest.mark.parametrize("state", TaskState)
def test_status_table_gives_the_expected_step_for_every_pair(state: TaskState, update: str) -> None:
    assert step(state, Status("t", "a", update), "") is expected(state, update)


def test_status_table_lists_every_pair_and_no_other() -> None:
    assert TABLE.keys() == {(state, update) for state in TaskState for update in (*UPDATES, OTHER)}


@pytest.mark.parametrize("state", TaskState)
@pytest.mark.parametrize(
    ("reason", "cause", "ours"),
    [
        ("REASON_COMMAND_EXECUTOR_FAILED", "", False),
        ("REASON_CONTAINER_LIMITATION_MEMORY", "", False),
        ("", "exit_code", False),
        ("REASON_EXECUTOR_TERMINATED", "", True),
        ("REASON_AGENT_REMOVED", "", True),
        ("REASON_CONTAINER_LAUNCH_FAILED", "", True),
        ("", "worker_lost", True),
        ("", "executor_shutdown", True),
    ],
)
def test_failure_of_the_infrastructure_is_no_failure_of_the_job(
    state: TaskState, reason: str, cause: str, ours: bool
) -> None:
    lost = End.NOT_STARTED if state in BEFORE_IT_RAN else End.LOST
    assert step(state, Status("t", "a", "TASK_FAILED", reason=reason), cause) is (lost if ours else End.FAILED)
    assert step(state, Status("t", "a", "TASK_FINISHED", reason=reason), cause) is End.SUCCEEDED


@pytest.mark.parametrize("state", TaskState)
@pytest.mark.parametrize("reason", ["REASON_RECONCILIATION", "REASON_AGENT_REREGISTERED"])
@pytest.mark.parametrize("update", ["TASK_FAILED", "TASK_KILLED"])
def test_reconciliation_without_the_updates_reason_ends_no_task(state: TaskState, reason: str, update: str) -> None:
    assert step(state, Status("t", "a", update, reason=reason), "") is state


def test_missing_pair_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(TABLE, (TaskState.RUNNING, "TASK_FINISHED"))
    with pytest.raises(InvalidTransition, match="RUNNING by TASK_FINISHED"):
        step(TaskState.RUNNING, Status("t", "a", "TASK_FINISHED"), "")
