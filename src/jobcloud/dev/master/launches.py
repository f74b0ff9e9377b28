"""The ACCEPT call: its offers, its operations, and the tasks that it launches."""

from __future__ import annotations

from ..framework_info import dropped_state
from ..protocol import Json, RunTask
from ..resources import ResourceError, Resources, allocated_to
from . import events
from .allocator import refuse_ms
from .records import AgentRecord, ExecutorRecord, FrameworkRecord, TaskRecord
from .state import State
from .validation import bad_launch, bad_offers, read_resources


class Launches:
    def __init__(self, state: State) -> None:
        self._state = state

    def accept(self, framework: FrameworkRecord, accept: Json) -> None:
        state = self._state
        offer_ids = [one["value"] for one in accept.get("offer_ids") or []]
        operations = accept.get("operations") or []
        if error := bad_offers(offer_ids, state.offers, framework):
            self._reject(framework, offer_ids, operations, error)
            return
        offers = [state.offers[offer_id] for offer_id in offer_ids]
        agent, role = state.agents[offers[0].agent_id], offers[0].role
        left = offers[0].resources
        for offer in offers[1:]:
            left = left + offer.resources
        for offer in offers:
            state.consume_offer(offer)
        for operation in operations:
            left = self._perform(framework, agent, role, operation, left)
        refused_ms = refuse_ms(accept.get("filters"))
        state.allocator.recover(agent.agent_id, framework.id, role, left, refused_ms, state.now)

    def _reject(self, framework: FrameworkRecord, offer_ids: list[str], operations: list[Json], error: str) -> None:
        """Free the valid offers among `offer_ids` and drop all tasks."""
        state = self._state
        for offer_id in offer_ids:
            if offer_id in state.offers:
                state.remove_offer(state.offers[offer_id])
        dropped = dropped_state(framework.info)
        text = f"Task launched with invalid offers: {error}"
        for task in _tasks_of(operations):
            self._refuse(framework, task, dropped, text, "REASON_INVALID_OFFERS")

    def _perform(
        self, framework: FrameworkRecord, agent: AgentRecord, role: str, operation: Json, left: Resources
    ) -> Resources:
        """Perform one operation with `left`, the unused resources of the accepted offers. Returns the rest."""
        if operation.get("type") == "LAUNCH":
            tasks = (operation.get("launch") or {}).get("task_infos") or []
            try:
                requested = read_resources(tasks)
            except ResourceError as refused:  # like Mesos, refuse every task of the operation
                for task in tasks:
                    self._refuse(framework, task, "TASK_ERROR", str(refused), "REASON_TASK_INVALID")
                return left
            for task, (own, of_executor) in zip(tasks, requested, strict=True):
                left = self._launch(framework, agent, role, task, own, of_executor, left)
            return left
        text = f"The dev cluster supports only LAUNCH, not {operation.get('type')}"
        for task in _tasks_of([operation]):
            self._refuse(framework, task, "TASK_ERROR", text, "REASON_TASK_INVALID")
        if operation.get("id") is not None:
            self._state.send_event(framework, events.operation_error(operation, text, agent))
        return left

    def _launch(
        self, framework: FrameworkRecord, agent: AgentRecord, role: str, task: Json, own: Resources,
        of_executor: Resources, left: Resources,
    ) -> Resources:  # fmt: skip
        """Launch one task that asks for `own` resources and, if its executor is new, for those `of_executor`."""
        requested = task.get("executor")
        running, identical = None, False
        if requested is not None:
            if requested.get("framework_id") is None:
                task = {**task, "executor": (requested := {**requested, "framework_id": framework.info["id"]})}
            running = agent.executors.get((framework.id, requested["executor_id"]["value"]))
            identical = running is not None and running.matches(requested, role)
        error = bad_launch(task, role, framework, agent, own, of_executor, identical)
        if error or requested is None:
            self._refuse(framework, task, "TASK_ERROR", error, "REASON_TASK_INVALID")
            return left
        needed = own if running is not None else own + of_executor
        wire = task["resources"] if running is not None else [*task["resources"], *(requested.get("resources") or [])]
        if not left.contains(needed) or any(allocated_to([one], role) != role for one in wire):
            error = f"Total resources {needed} required by task and its executor is more than available {left}"
            self._refuse(framework, task, "TASK_ERROR", error, "REASON_TASK_INVALID")
            return left
        state, executor_id = self._state, requested["executor_id"]["value"]
        info = running.info if running is not None and identical else _for_agent(requested, role)
        task = {**task, "resources": _allocated(task["resources"], role), "executor": info}
        if running is None:
            executor = ExecutorRecord(info, role, of_executor, requested)
            state.add_executor(agent, framework.id, executor_id, executor)
        task_id = task["task_id"]["value"]
        state.add_task(framework, TaskRecord(framework.id, task_id, agent.agent_id, executor_id, role, own, task))
        state.send_to_agent(agent, RunTask(framework.info, task))
        return left - needed

    def _refuse(self, framework: FrameworkRecord, task: Json, state: str, text: str, reason: str) -> None:
        task_id, agent_id = task["task_id"]["value"], task["agent_id"]["value"]
        self._state.ended_tasks[state] += 1
        status = events.master_status(task_id, agent_id, state, text, reason, self._state.now)
        self._state.send_event(framework, events.update(status))


def _tasks_of(operations: list[Json]) -> list[Json]:
    found: list[Json] = []
    for operation in operations:
        found += (operation.get("launch") or {}).get("task_infos") or []
        found += ((operation.get("launch_group") or {}).get("task_group") or {}).get("tasks") or []
    return found


def _for_agent(requested: Json, role: str) -> Json:
    """An ExecutorInfo as Mesos passes it to agents: its resources name a role, and its command has defaults."""
    command = {"shell": True, **requested["command"]}
    if command.get("uris"):
        command["uris"] = [{"extract": True, **uri} for uri in command["uris"]]
    resources = _allocated(requested.get("resources") or [], role)
    return {**requested, "command": command, "resources": resources}


def _allocated(resources: list[Json], role: str) -> list[Json]:
    """`Resource` messages allocated to a role."""
    return [one if one.get("allocation_info") else {**one, "allocation_info": {"role": role}} for one in resources]
