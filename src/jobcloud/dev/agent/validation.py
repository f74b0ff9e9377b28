"""Checks of executor calls. The errors are in the words of Mesos' agent."""

from __future__ import annotations

from typing import Any

from ...wire import decode_data
from ..protocol import Json
from ..schema import EXECUTOR_CALL, CallError, is_uuid


def checked_call(body: Any) -> tuple[str, Json]:
    """The kind of an executor call, and the call. Raises CallError if it is not a valid call."""
    try:
        EXECUTOR_CALL(body)
    except CallError as refused:
        raise CallError(f"Failed to convert JSON into Call protobuf: {refused}") from None
    invalid = "Failed to validate Executor::Call: "
    kind = body.get("type")
    if kind not in ("SUBSCRIBE", "UPDATE", "MESSAGE", "HEARTBEAT"):
        raise CallError(f"{invalid}Expecting 'type' to be present")
    if kind == "HEARTBEAT":
        return kind, body
    if body.get(kind.lower()) is None:
        raise CallError(f"{invalid}Expecting '{kind.lower()}' to be present")
    if kind == "UPDATE" and (error := _bad_update(body)):
        raise CallError(invalid + error)
    return kind, body


def _bad_update(call: Json) -> str:
    """The error of an UPDATE call, or "" if there is none."""
    status, executor_id = call["update"]["status"], call["executor_id"]["value"]
    origin = f"from executor {executor_id} of framework {call['framework_id']['value']}"
    if status.get("uuid") is None:
        return "Expecting 'uuid' to be present"
    if not is_uuid(decode_data(status["uuid"])):
        return "Not a valid UUID"
    named = (status.get("executor_id") or {}).get("value", executor_id)
    if named != executor_id:
        return f"ExecutorID in Call: {executor_id} does not match ExecutorID in TaskStatus: {named}"
    if status.get("source") != "SOURCE_EXECUTOR":
        return f"Received Call {origin} with invalid source, expecting 'SOURCE_EXECUTOR'"
    if status["state"] == "TASK_STAGING":
        return f"Received TASK_STAGING {origin} which is not allowed"
    return ""
