"""Checks of frameworks, offer lists and tasks. Their order and their errors are those of Mesos' master.

The `bad_…` functions return the error, or "" if there is none. Source: src/master/validation.cpp and
src/common/validation.cpp of Mesos 1.11.0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..framework_info import has_capability, roles_of
from ..protocol import Json
from ..resources import NOTHING, ResourceError, Resources, allocated_to, bad_gpus, from_wire
from .records import AgentRecord, FrameworkRecord, OfferRecord

_MAX_ID = 255  # NAME_MAX: ids become names of directories
_NOT_IN_ID = re.compile(r"[\x00-\x1f/\\\x7f]")


def bad_id(value: str) -> str:
    if not value:
        return "ID must not be empty"
    if len(value.encode()) > _MAX_ID:
        return f"ID must not be greater than {_MAX_ID} characters"
    if value in (".", ".."):
        return f"'{value}' is disallowed"
    if _NOT_IN_ID.search(value):
        return f"'{value}' contains invalid characters"
    return ""


def bad_role(role: str) -> str:
    if role == "*":
        return ""
    if not role:
        return "Empty role name is invalid"
    if role.startswith("/") or role.endswith("/") or "//" in role:
        return f"Role '{role}' cannot start or end with a slash, or contain two in a row"
    for part in role.split("/"):
        if part in (".", "..", "*") or part.startswith("-"):
            return f"Role '{role}' contains an invalid component '{part}'"
        if any(c.isspace() or c == "\x7f" or c == "\b" for c in part):
            return f"Role component '{part}' is invalid because it contains backspace or whitespace"
    return ""


def bad_framework(info: Json, suppressed: list[str]) -> str:
    multi_role = has_capability(info, "MULTI_ROLE")
    if multi_role and info.get("role") is not None:
        return "'FrameworkInfo.role' must not be set when the framework is MULTI_ROLE capable"
    if not multi_role and info.get("roles"):
        return "'FrameworkInfo.roles' must not be set when the framework is not MULTI_ROLE capable"
    roles = roles_of(info)
    if len(set(roles)) < len(roles):
        twice = ", ".join(sorted({role for role in roles if roles.count(role) > 1}))
        return f"'FrameworkInfo.roles' contains duplicate items: {{ {twice} }}"
    for role in roles:
        if error := bad_role(role):
            prefix = (
                "'FrameworkInfo.roles' contains invalid role"
                if multi_role
                else "'FrameworkInfo.role' is not a valid role"
            )
            return f"{prefix}: {error}"
    given = info.get("id", {}).get("value", "")
    if given and (error := bad_id(given)):
        return error
    for role in suppressed:
        if role not in roles:
            return f"Suppressed role '{role}' is not contained in the list of roles"
    return ""


def changed_immutable_field(old: Json, new: Json) -> str:
    """The error if `old` and `new` differ in a field that a framework cannot change; otherwise ""."""
    for name in ("user", "checkpoint"):
        if old.get(name) != new.get(name):
            kept, wanted = (
                str(info.get(name)) if name == "user" else str(info.get(name)).lower() for info in (old, new)
            )
            return f"Updating 'FrameworkInfo.{name}' is unsupported; attempted to update from '{kept}' to '{wanted}'"
    return ""


def bad_failover_timeout(info: Json) -> str:
    seconds = info.get("failover_timeout", 0.0)
    if not -9.2e9 < seconds < 9.2e9:
        return f"The framework failover_timeout ({seconds}) is invalid"
    return ""


def bad_offers(offer_ids: list[str], offers: Mapping[str, OfferRecord], framework: FrameworkRecord) -> str:
    if not offer_ids:
        return "No offers specified"
    seen: set[str] = set()
    for one in offer_ids:
        if one in seen:
            return f"Duplicate offer {one} in offer list"
        seen.add(one)
    for one in offer_ids:
        if one not in offers:
            return f"Offer {one} is no longer valid"
    first = offers[offer_ids[0]]
    for one in offer_ids:
        if offers[one].framework_id != framework.id:
            return (
                f"Offer {one} has invalid framework {offers[one].framework_id}"
                f" while framework {framework.id} is expected"
            )
    for one in offer_ids:
        if offers[one].role != first.role:
            return (
                "Aggregated offers must be allocated to the same role."
                f" Offer {one} uses role '{offers[one].role} but another is using role '{first.role}"
            )
    for one in offer_ids:
        if offers[one].agent_id != first.agent_id:
            return (
                "Aggregated offers must belong to one single agent."
                f" Offer {one} uses agent {offers[one].agent_id} and agent {first.agent_id}"
            )
    return ""


def bad_command(command: Json) -> str:
    for variable in command.get("environment", {}).get("variables", ()):
        if variable.get("type", "VALUE") == "VALUE" and variable.get("value") is None:
            return f"Environment variable '{variable['name']}' of type 'VALUE' must have a value set"
    return ""


def read_resources(tasks: list[Json]) -> list[tuple[Resources, Resources]]:
    """The resources of each task: (its own, its executor's). Raises ResourceError if any are invalid.

    Consecutive tasks with equal ExecutorInfos get the same object, which makes later comparisons quick.
    """
    found: list[tuple[Resources, Resources]] = []
    last: Json = {}
    of_executor = NOTHING
    for task in tasks:
        own = from_wire(task.get("resources") or [])
        executor = task.get("executor") or {}
        if executor == last:
            if executor:
                task["executor"] = last
        else:
            last, of_executor = executor, from_wire(executor.get("resources") or [])
        found.append((own, of_executor))
    return found


def _negative(holder: Json | None, name: str) -> bool:
    return bool(((holder or {}).get(name) or {}).get("nanoseconds", 0) < 0)


def _bad_task(task: Json, framework: FrameworkRecord, agent: AgentRecord) -> str:
    task_id = task["task_id"]["value"]
    if error := bad_id(task_id):
        return error
    if task_id in framework.tasks:
        return f"Task has duplicate ID: {task_id}"
    if task_id in framework.unreachable:
        return f"Task reuses the ID of an unreachable task: {task_id}"
    wanted = task["agent_id"]["value"]
    if wanted != agent.agent_id:
        return f"Task uses invalid agent {wanted} while agent {agent.agent_id} is expected"
    if "kill_policy" in task and _negative(task["kill_policy"], "grace_period"):
        return "Task's 'kill_policy.grace_period' must be non-negative"
    if "max_completion_time" in task and _negative(task, "max_completion_time"):
        return "Task's `max_completion_time` must be non-negative"
    if not task.get("resources"):
        return "Task uses no resources"
    if error := bad_command(task.get("command") or {}):
        return f"Task's `CommandInfo` is invalid: {error}"
    return ""


def _bad_executor(executor: Json, role: str, framework: FrameworkRecord, agent: AgentRecord) -> str:
    if executor.get("type") == "UNKNOWN":
        return "Unknown executor type"
    executor_id = executor["executor_id"]["value"]
    if error := bad_id(executor_id):
        return error
    if _negative(executor, "shutdown_grace_period"):
        return "ExecutorInfo's 'shutdown_grace_period' must be non-negative"
    if error := bad_command(executor.get("command") or {}):
        return f"Executor's `CommandInfo` is invalid: {error}"
    owner = (executor.get("framework_id") or {}).get("value")
    if owner != framework.id:
        return f"ExecutorInfo has an invalid FrameworkID (Actual: {owner} vs Expected: {framework.id})"
    known = agent.executors.get((framework.id, executor_id))
    if known is not None and not same_executor(known.info, executor, role):
        return (
            "ExecutorInfo is not compatible with existing ExecutorInfo with same ExecutorID.\n"
            f"------------------------------------------------------------\nExisting ExecutorInfo:\n{known.info}\n"
            f"------------------------------------------------------------\nExecutorInfo:\n{executor}\n"
            "------------------------------------------------------------\n"
        )
    if executor.get("type", "CUSTOM") != "CUSTOM":
        return "'ExecutorInfo.type' must be 'CUSTOM'"
    if executor.get("command") is None:
        return "'ExecutorInfo.command' must be set"
    return ""


def same_executor(known: Json, requested: Json, role: str) -> bool:
    """Whether Mesos takes two ExecutorInfos as equal. `role`: the role of the accepted offers."""
    return _comparable(known, role) == _comparable(requested, role)


def _comparable(executor: Json, role: str) -> Json:
    """The parts of an ExecutorInfo that Mesos compares. Labels, the grace period and others are left out."""
    command = executor.get("command") or {}
    wire = executor.get("resources") or []
    return {
        **{key: executor.get(key) for key in ("type", "executor_id", "framework_id", "container")},
        **{key: executor.get(key) or "" for key in ("data", "name", "source")},
        "discovery": {"visibility": "FRAMEWORK", **(executor.get("discovery") or {})},
        "resources": (from_wire(wire), allocated_to(wire, role) if wire else ""),
        "shell": command.get("shell", True),
        **{f"command {key}": command.get(key) or "" for key in ("value", "arguments", "user")},
        "uris": sorted(_uri(one) for one in command.get("uris") or ()),
        "environment": sorted(
            (one["name"], str(one)) for one in (command.get("environment") or {}).get("variables") or ()
        ),
    }


def _uri(uri: Json) -> tuple[str, bool, bool, str]:
    return uri["value"], uri.get("extract", True), uri.get("executable", False), uri.get("output_file", "")


def bad_launch(
    task: Json,
    role: str,
    framework: FrameworkRecord,
    agent: AgentRecord,
    own: Resources,
    of_executor: Resources,
    identical: bool,
) -> str:
    """The error of a task that asks for `own` resources and, for its executor, for those `of_executor`.

    `identical`: the executor already runs with an identical ExecutorInfo. The ExecutorInfo is not checked again.
    """
    if error := _bad_task(task, framework, agent):
        return error
    try:
        allocated_to(task["resources"], role)
    except ResourceError as refused:
        return f"Invalid task resources: {refused}"
    if error := bad_gpus(own):
        return f"Task uses invalid resources: {error}"
    executor = task.get("executor")
    if (executor is None) == (task.get("command") is None):
        return "Task should have at least one (but not both) of CommandInfo or ExecutorInfo present"
    if executor is None:
        return "The dev cluster has no mesos-executor for tasks with a command; use an ExecutorInfo instead"
    if not identical:
        try:
            allocated_to(executor.get("resources") or [], role)
        except ResourceError as refused:
            return f"Invalid executor resources: {refused}"
        if error := bad_gpus(of_executor):
            return f"Executor uses invalid resources: {error}"
        if error := _bad_executor(executor, role, framework, agent):
            return error
    if own.overlaps(of_executor):
        return f"There are overlapping resources in the task resources {own} and executor resources {of_executor}"
    return ""
