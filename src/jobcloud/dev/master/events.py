"""Events for schedulers, and the task statuses that the master itself creates."""

from __future__ import annotations

from typing import Any

from ..protocol import Json
from .records import AgentRecord, TaskRecord


def update(status: Json) -> Json:
    return {"type": "UPDATE", "update": {"status": status}}


def error(text: str) -> Json:
    return {"type": "ERROR", "error": {"message": text}}


def rescind(offer_id: str) -> Json:
    return {"type": "RESCIND", "rescind": {"offer_id": {"value": offer_id}}}


def agent_failure(agent_id: str) -> Json:
    return {"type": "FAILURE", "failure": {"agent_id": {"value": agent_id}}}


def executor_failure(agent_id: str, executor_id: str, status: int) -> Json:
    failure = {"agent_id": {"value": agent_id}, "executor_id": {"value": executor_id}, "status": status}
    return {"type": "FAILURE", "failure": failure}


def operation_error(operation: Json, text: str, agent: AgentRecord) -> Json:
    status = {
        "operation_id": operation["id"],
        "state": "OPERATION_ERROR",
        "message": text,
        "agent_id": {"value": agent.agent_id},
    }
    return {"type": "UPDATE_OPERATION_STATUS", "update_operation_status": {"status": status}}


def master_status(task_id: str, agent_id: str, state: str, message: str, reason: str, at_ms: int, **more: Any) -> Json:
    """A TaskStatus from the master. It has no uuid and needs no acknowledgement."""
    status: Json = {
        "task_id": {"value": task_id},
        "state": state,
        "message": message,
        "source": "SOURCE_MASTER",
        "reason": reason,
        "timestamp": at_ms / 1000,
    }
    if agent_id:
        status["agent_id"] = {"value": agent_id}
    status.update(more)
    return status


def task_status(task: TaskRecord, state: str, message: str, reason: str, at_ms: int) -> Json:
    """A TaskStatus from the master about a task it knows."""
    more = {"executor_id": {"value": task.executor_id}} if task.executor_id else {}
    return master_status(task.task_id, task.agent_id, state, message, reason, at_ms, **more)
