"""The two checks of a call: the quick compiled one, and the full one that locates errors."""

from __future__ import annotations

import copy
import pickle
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from jobcloud.dev.schema import EXECUTOR_CALL, SCHEDULER_CALL, CallError, Quick

INVALID: list[Any] = [
    None, True, False, 0, -1, 1, 2**63 - 1, 2**63, 2**64, -(2**63), -(2**63) - 1, 10**400, 0.5, -0.0, float("nan"),
    float("inf"), 1e300, 1.1e300, "", "a", "QUJD", "QUJ", "QQ==", "QR==", "Q===", "QQ==QQ==", "Q Q=", "é", "\0",
    "SCALAR", "CUSTOM", "TASK_RUNNING", "LAUNCH", [], [None], [[]], ["a"], [1], {}, {"value": "a"}, {"value": None},
    {"value": 1.0}, {"nanoseconds": 1}, {"seconds": 1},
]  # fmt: skip
ID = {"value": "one"}
SHARES = [
    {"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}, "allocation_info": {"role": "*"}},
    {"name": "ports", "type": "RANGES", "ranges": {"range": [{"begin": 31000, "end": 31001}]},
     "reservations": [{"type": "STATIC", "role": "a"}]},
]  # fmt: skip
INFO = {
    "type": "CUSTOM", "executor_id": ID, "framework_id": ID, "name": "jobcloud app", "source": "app",
    "resources": SHARES, "data": "e30=", "labels": {"labels": [{"key": "a", "value": "b"}]},
    "shutdown_grace_period": {"nanoseconds": 10**9},
    "command": {
        "shell": True, "value": "exec python3 executor.zip", "user": "nobody", "arguments": ["a"],
        "uris": [{"value": "http://a/b", "output_file": "b", "extract": False, "executable": False, "cache": True}],
        "environment": {"variables": [{"name": "A", "value": "b", "type": "VALUE"}]},
    },
}  # fmt: skip
TASK = {
    "name": "job", "task_id": ID, "agent_id": ID, "resources": SHARES, "executor": INFO, "data": "e30=",
    "kill_policy": {"grace_period": {"nanoseconds": 5}}, "max_completion_time": {"nanoseconds": 5},
}  # fmt: skip
FRAMEWORK = {
    "user": "nobody", "name": "jobcloud", "id": ID, "failover_timeout": 604800, "checkpoint": True, "roles": ["*"],
    "capabilities": [{"type": "MULTI_ROLE"}], "hostname": "a", "webui_url": "http://a", "principal": "p",
}  # fmt: skip
ACCEPT = {
    "offer_ids": [ID, ID], "operations": [{"type": "LAUNCH", "launch": {"task_infos": [TASK]}}],
    "filters": {"refuse_seconds": 0},
}  # fmt: skip
STATUS = {
    "task_id": ID, "state": "TASK_RUNNING", "source": "SOURCE_EXECUTOR", "uuid": "QUJD", "data": "e30=",
    "timestamp": 1.5, "message": "m", "healthy": True, "executor_id": ID,
}  # fmt: skip
SCHEDULER_CALLS: list[dict[str, Any]] = [
    {"type": "SUBSCRIBE", "framework_id": ID, "subscribe": {"framework_info": FRAMEWORK, "suppressed_roles": []}},
    {"type": "ACCEPT", "framework_id": ID, "accept": ACCEPT},
    {"type": "DECLINE", "framework_id": ID, "decline": {"offer_ids": [ID], "filters": {"refuse_seconds": 5.0}}},
    {"type": "ACKNOWLEDGE", "framework_id": ID, "acknowledge": {"agent_id": ID, "task_id": ID, "uuid": "QUJD"}},
    {"type": "KILL", "framework_id": ID, "kill": {"task_id": ID, "agent_id": ID}},
    {"type": "RECONCILE", "framework_id": ID, "reconcile": {"tasks": [{"task_id": ID, "agent_id": ID}]}},
    {"type": "REVIVE", "framework_id": ID},
]
EXECUTOR_CALLS: list[dict[str, Any]] = [
    {"type": "UPDATE", "framework_id": ID, "executor_id": ID, "update": {"status": STATUS}},
    {"type": "SUBSCRIBE", "framework_id": ID, "executor_id": ID,
     "subscribe": {"unacknowledged_tasks": [TASK], "unacknowledged_updates": [{"status": STATUS}]}},
    {"type": "MESSAGE", "framework_id": ID, "executor_id": ID, "message": {"data": "QUJD"}},
]  # fmt: skip


def places(value: Any) -> list[tuple[Any, Any]]:
    """The (container, key) pairs of all parts of a value."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in ((value, key), *places(value[key]))]


def test_usual_calls_pass_quick_check() -> None:
    assert all(SCHEDULER_CALL.passes_quickly(call) for call in SCHEDULER_CALLS)
    assert all(EXECUTOR_CALL.passes_quickly(call) for call in EXECUTOR_CALLS)


def test_call_that_passes_quick_check_passes_full_check_unchanged() -> None:
    for check, calls in ((SCHEDULER_CALL, SCHEDULER_CALLS), (EXECUTOR_CALL, EXECUTOR_CALLS)):
        for call in calls:
            written = pickle.dumps(call)
            for number in range(len(places(call))):
                for value in INVALID:
                    changed = pickle.loads(written)
                    holder, key = places(changed)[number]
                    holder[key] = copy.copy(value)
                    compare(check, changed)


@given(st.data())
def test_quick_and_full_check_agree_on_several_errors(data: st.DataObject) -> None:
    check, calls = data.draw(st.sampled_from([(SCHEDULER_CALL, SCHEDULER_CALLS), (EXECUTOR_CALL, EXECUTOR_CALLS)]))
    call = copy.deepcopy(data.draw(st.sampled_from(calls)))
    for _ in range(data.draw(st.integers(1, 3))):
        if not places(call):
            break
        holder, key = data.draw(st.sampled_from(places(call)))
        how = data.draw(st.sampled_from(["replace", "remove", "add"]))
        if how == "replace":
            holder[key] = copy.deepcopy(data.draw(st.sampled_from(INVALID)))
        elif how == "remove":
            del holder[key]
        elif isinstance(holder, dict):
            holder[data.draw(st.sampled_from(["unknown", "role", "value"]))] = None
    compare(check, call)


def compare(check: Quick, call: Any) -> None:
    fits, before = check.passes_quickly(call), repr(call)
    try:
        check.message(call)
    except CallError:
        assert not fits, before
    else:
        assert not fits or repr(call) == before
