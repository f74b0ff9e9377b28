"""Checks and dispatches the calls of schedulers. Handles all except SUBSCRIBE, UPDATE_FRAMEWORK and ACCEPT."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...wire import decode_data
from ..protocol import (
    TERMINAL,
    AcknowledgeUpdate,
    Call,
    Json,
    KillTask,
    MessageToExecutor,
    Reply,
    ShutdownExecutor,
)
from ..schema import SCHEDULER_CALL, SCHEDULER_CALLS, CallError, is_uuid
from . import events
from .allocator import refuse_ms
from .frameworks import Frameworks
from .inverse_offers import InverseOffers
from .launches import Launches
from .records import FrameworkRecord, TaskRecord
from .state import State
from .validation import bad_role

_ACCEPTED = Reply(202)
_NO_ID: Json = {"value": None}
_PARTS = {kind: kind.lower() for kind in SCHEDULER_CALLS}


class SchedulerCalls:
    def __init__(self, state: State, frameworks: Frameworks, inverse_offers: InverseOffers) -> None:
        self._state = state
        self._frameworks = frameworks
        self._inverse_offers = inverse_offers
        self._handlers: dict[str, Callable[[FrameworkRecord, Json], None]] = {
            "TEARDOWN": self._teardown,
            "ACCEPT": Launches(state).accept,
            "DECLINE": self._decline,
            "REVIVE": self._revive,
            "SUPPRESS": self._suppress,
            "KILL": self._kill,
            "SHUTDOWN": self._shutdown,
            "ACKNOWLEDGE": self._acknowledge,
            "RECONCILE": self._reconcile,
            "MESSAGE": self._message,
            "REQUEST": self._ignore,
            "ACCEPT_INVERSE_OFFERS": self._accept_inverse_offers,
            "DECLINE_INVERSE_OFFERS": self._decline_inverse_offers,
            "RECONCILE_OPERATIONS": self._ignore,
            "ACKNOWLEDGE_OPERATION_STATUS": self._ignore,
        }

    def on_call(self, event: Call) -> None:
        state = self._state
        try:
            kind, framework_id, part = _checked(event.body)
        except CallError as refused:
            state.effects.append(Reply(400, str(refused)))
            return
        if kind == "SUBSCRIBE":
            if event.stream_id is not None:
                text = "Subscribe calls should not include the 'Mesos-Stream-Id' header"
                state.effects.append(Reply(400, text))
            else:
                self._frameworks.subscribe(part)
            return
        framework = state.frameworks.get(framework_id)
        if framework is None or event.stream_id is None or event.stream_id != framework.stream_id:
            state.effects.append(_refusal(framework, event.stream_id))
        elif kind == "UPDATE_FRAMEWORK":
            self._frameworks.update(framework, part)
        else:
            state.effects.append(_ACCEPTED)
            self._handlers[kind](framework, part)

    def _teardown(self, framework: FrameworkRecord, _: Json) -> None:
        self._frameworks.remove(framework)

    def _ignore(self, framework: FrameworkRecord, call: Json) -> None:
        """Ignore a call. Mesos' own allocator ignores REQUEST, and this master keeps no operations."""

    # ---- offers ----------------------------------------------------------------------------------------------

    def _decline(self, framework: FrameworkRecord, decline: Json) -> None:
        refused_ms = refuse_ms(decline.get("filters"))
        for one in decline.get("offer_ids") or []:
            offer = framework.offers.get(one["value"])
            if offer is not None:
                self._state.remove_offer(offer, refused_ms)

    def _suppress(self, framework: FrameworkRecord, suppress: Json) -> None:
        roles = suppress.get("roles") or []
        if _are_own(framework, roles):
            self._state.allocator.suppress(framework.id, roles)

    def _revive(self, framework: FrameworkRecord, revive: Json) -> None:
        roles = revive.get("roles") or []
        if _are_own(framework, roles):
            self._state.allocator.revive(framework.id, roles)
            self._state.allocation_wanted = True

    def _accept_inverse_offers(self, framework: FrameworkRecord, call: Json) -> None:
        self._inverse_offers.answer(framework, call, "ACCEPT")

    def _decline_inverse_offers(self, framework: FrameworkRecord, call: Json) -> None:
        self._inverse_offers.answer(framework, call, "DECLINE")

    # ---- tasks and executors ---------------------------------------------------------------------------------

    def _kill(self, framework: FrameworkRecord, kill: Json) -> None:
        state = self._state
        task_id, agent_id = kill["task_id"]["value"], (kill.get("agent_id") or {}).get("value", "")
        task = framework.tasks.get(task_id)
        if task is None:
            self._reconcile_one(framework, task_id, agent_id)
        elif agent_id in ("", task.agent_id):
            agent = state.agents[task.agent_id]
            agent.kills.add((framework.id, task_id))
            state.send_to_agent(agent, KillTask(framework.id, task_id, kill.get("kill_policy")))

    def _shutdown(self, framework: FrameworkRecord, shutdown: Json) -> None:
        agent = self._state.agents.get(shutdown["agent_id"]["value"])
        if agent is not None:
            executor_id = shutdown["executor_id"]["value"]
            self._state.send_to_agent(agent, ShutdownExecutor(framework.id, executor_id))

    def _message(self, framework: FrameworkRecord, message: Json) -> None:
        agent = self._state.agents.get(message["agent_id"]["value"])
        if agent is not None:
            executor_id = message["executor_id"]["value"]
            self._state.send_to_agent(agent, MessageToExecutor(framework.id, executor_id, message["data"]))

    def _acknowledge(self, framework: FrameworkRecord, acknowledge: Json) -> None:
        state = self._state
        agent = state.agents.get(acknowledge["agent_id"]["value"])
        if agent is None or not agent.connected:
            return
        task_id, uuid = acknowledge["task_id"]["value"], acknowledge["uuid"]
        task = agent.tasks.get((framework.id, task_id))
        if task is not None:
            if not task.update_state:
                return
            if task.update_state in TERMINAL and task.update_uuid == uuid:
                state.remove_task(framework, task)
        state.send_to_agent(agent, AcknowledgeUpdate(framework.id, task_id, uuid))

    # ---- reconciliation --------------------------------------------------------------------------------------

    def _reconcile(self, framework: FrameworkRecord, reconcile: Json) -> None:
        tasks = reconcile.get("tasks") or []
        for one in tasks:
            self._reconcile_one(framework, one["task_id"]["value"], (one.get("agent_id") or {}).get("value", ""))
        if not tasks:
            for task in framework.tasks.values():
                self._send_latest(framework, task)

    def _reconcile_one(self, framework: FrameworkRecord, task_id: str, agent_id: str) -> None:
        state = self._state
        task = framework.tasks.get(task_id)
        if task is not None:
            self._send_latest(framework, task)
            return
        if agent_id in state.recovering or (not agent_id and state.recovering):
            return  # an agent that is not back may run the task: no answer until it is back or has timed out
        more: Json = {}
        if agent_id in state.agents:
            task_state, text = "TASK_GONE", "Task is unknown to the agent"
        elif agent_id in state.unreachable:
            task_state, text = "TASK_UNREACHABLE", "Task is unreachable"
            more["unreachable_time"] = {"nanoseconds": state.unreachable[agent_id] * 1_000_000}
        elif agent_id in state.gone:
            task_state, text = "TASK_GONE_BY_OPERATOR", "Task is gone"
        else:
            task_state, text = "TASK_UNKNOWN", "Task is unknown"
        if not framework.partition_aware:
            task_state = "TASK_LOST"
        text, reason = f"Reconciliation: {text}", "REASON_RECONCILIATION"
        status = events.master_status(task_id, agent_id, task_state, text, reason, state.now, **more)
        state.send_event(framework, events.update(status))

    def _send_latest(self, framework: FrameworkRecord, task: TaskRecord) -> None:
        """Send the state in the update that was sent last, even if the task has a newer state. Mesos does the same."""
        text, reason = "Reconciliation: Latest task state", "REASON_RECONCILIATION"
        status = events.task_status(task, task.update_state or task.state, text, reason, self._state.now)
        if task.statuses:
            latest = task.statuses[-1]
            status.update({key: latest[key] for key in ("container_status", "healthy") if key in latest})
        self._state.send_event(framework, events.update(status))


def _refusal(framework: FrameworkRecord | None, stream_id: str | None) -> Reply:
    """The answer to a call that does not carry the stream id of its framework."""
    if framework is None:
        return Reply(400, "Framework cannot be found")
    if not framework.connected:
        return Reply(403, "Framework is not subscribed")
    if stream_id is None:
        return Reply(400, "All non-subscribe calls should include the 'Mesos-Stream-Id' header")
    return Reply(
        400,
        f"The stream ID '{stream_id}' included in this request didn't match the stream ID currently"
        f" associated with framework ID {framework.id}",
    )


def _are_own(framework: FrameworkRecord, roles: list[str]) -> bool:
    return not any(bad_role(role) or role not in framework.roles for role in roles)


def _checked(body: Any) -> tuple[str, str, Json]:
    """The kind of a scheduler call, its framework id ("" for a new framework) and the part for this kind.

    Raises CallError if `body` is not a valid call.
    """
    try:
        SCHEDULER_CALL(body)
    except CallError as refused:
        raise CallError(f"Failed to convert JSON into Call protobuf: {refused}") from None
    invalid = "Failed to validate scheduler::Call: "
    kind = body.get("type")
    if kind not in _PARTS:
        raise CallError(f"{invalid}Expecting 'type' to be present")
    framework_id = (body.get("framework_id") or _NO_ID)["value"]
    part = body.get(_PARTS[kind])
    if part is None and kind not in ("TEARDOWN", "REVIVE", "SUPPRESS"):
        if kind != "SUBSCRIBE" and framework_id is None:
            raise CallError(f"{invalid}Expecting 'framework_id' to be present")
        raise CallError(f"{invalid}Expecting '{_PARTS[kind]}' to be present")
    if kind == "SUBSCRIBE":
        if ((part["framework_info"].get("id") or {}).get("value", "")) != (framework_id or ""):
            raise CallError(f"{invalid}'framework_id' differs from 'subscribe.framework_info.id'")
    elif framework_id is None:
        raise CallError(f"{invalid}Expecting 'framework_id' to be present")
    if kind == "ACKNOWLEDGE" and not is_uuid(decode_data(part["uuid"])):
        raise CallError(f"{invalid}Not a valid UUID")
    if kind == "UPDATE_FRAMEWORK" and ((part["framework_info"].get("id") or {}).get("value", "")) != framework_id:
        raise CallError(f"{invalid}'framework_id' differs from 'update_framework.framework_info.id'")
    return kind, framework_id or "", part or {}
