"""A Mesos master as a state machine: calls and time in, replies and events out. It touches nothing.

`handle` takes one input and gives effects in the order in which they happen; `next_at` says when the next Tick is due.
What it does not know it refuses clearly: operations other than LAUNCH, dynamic reservations, quota, weights,
authentication. Source of every behaviour: src/master/{master,http}.cpp of Mesos 1.11.0, judged by the contract suite.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ..wire import decode_data
from .allocator import Allocator, refuse_ms
from .operators import Operators
from .protocol import (
    TERMINAL,
    AcknowledgeUpdate,
    AgentTimedOut,
    Call,
    Close,
    DropTasks,
    Effect,
    ExecutorExited,
    FrameworkUpdated,
    FromAgent,
    Json,
    KillTask,
    LinkLost,
    MessageToExecutor,
    MessageToFramework,
    Operate,
    RegisterAgent,
    Registered,
    Reply,
    RescindOffer,
    RunTask,
    Send,
    ShutdownAgent,
    ShutdownExecutor,
    ShutdownFramework,
    StreamLost,
    Subscribed,
    TaskReport,
    Tick,
    ToAgent,
    ToAgentMessage,
    UpdateStatus,
)
from .registry import Agent, Executor, Framework, Offer, Task, dropped_state, status
from .resources import ResourceError, Resources, from_wire
from .schema import SCHEDULER_CALL, SCHEDULER_CALLS, CallError, is_uuid
from .validation import (
    bad_failover_timeout,
    bad_framework,
    bad_launch,
    bad_offers,
    bad_role,
    changed_for_good,
    read_resources,
)
from .views import MasterView

_TAKEN = Reply(202)
_NO_ID: Json = {"value": None}
_PARTS = {kind: kind.lower() for kind in SCHEDULER_CALLS}
_COMPLETED_FRAMEWORKS = 50  # --max_completed_frameworks: of these Mesos knows that they were removed
MasterInput = Call | Operate | StreamLost | LinkLost | FromAgent | AgentTimedOut | RescindOffer | Tick


@dataclass(frozen=True, slots=True)
class MasterSettings:
    """Times in milliseconds; the defaults are those of a Mesos master's flags."""

    master_id: str = "dev"
    hostname: str = "127.0.0.1"
    port: int = 5050
    heartbeat_ms: int = 15_000
    allocation_interval_ms: int = 1_000
    offer_timeout_ms: int | None = None
    agent_reregister_timeout_ms: int = 600_000


class Master:
    def __init__(self, settings: MasterSettings, at_ms: int = 0) -> None:
        self.settings = settings
        self.started_at = at_ms
        self.frameworks: dict[str, Framework] = {}
        self.removed_frameworks: dict[str, Framework] = {}
        self.agents: dict[str, Agent] = {}
        self.unreachable: dict[str, int] = {}  # agent id → since when
        self.gone: dict[str, int] = {}
        self.recovering: set[str] = set()  # agents of before a restart that have not come back yet
        self.offers: dict[str, Offer] = {}
        self.allocator = Allocator(settings.allocation_interval_ms)
        self.operators = Operators(self)
        self._streams: dict[str, str] = {}  # stream id → framework id
        self._links: dict[str, str] = {}  # link → agent id
        self._counts = {"framework": 0, "offer": 0, "agent": 0, "stream": 0}
        self._timers: list[tuple[int, int, str, str]] = []  # (due, sequence, kind, key)
        self._sequence = 0
        self._allocation_due = False
        self._allocate_now = False
        self._effects: list[Effect] = []
        self.at = at_ms

    def expect_agents(self, agent_ids: Iterable[str], at_ms: int) -> None:
        """After a restart: these agents were registered; until each is back, unknown tasks may be theirs."""
        for agent_id in agent_ids:
            self.recovering.add(agent_id)
            number = agent_id.rpartition("-S")[2]
            if number.isdigit():
                self._counts["agent"] = max(self._counts["agent"], int(number) + 1)
            self.timer(at_ms + self.settings.agent_reregister_timeout_ms, "recovering", agent_id)

    # ---- in and out ------------------------------------------------------------------------------------------

    def handle(self, event: MasterInput, at_ms: int) -> list[Effect]:
        """Take one input; the effects are in the order in which they are to be performed."""
        self.at = at_ms
        _HANDLERS[type(event)](self, event)
        if self.operators.drains:
            self.operators.finish_drains()
        if self._allocate_now:
            self._allocate_now = False
            self._allocate()
        if not self._allocation_due and self.allocator.waiting:
            self._allocation_due = True
            self.timer(at_ms + self.settings.allocation_interval_ms, "allocate", "")
        effects, self._effects = self._effects, []
        return effects

    def next_at(self) -> int | None:
        """When the next Tick is due, if anything waits for time."""
        return self._timers[0][0] if self._timers else None

    def view(self) -> MasterView:
        return MasterView(self)

    def effect(self, effect: Effect) -> None:
        self._effects.append(effect)

    def allocate_soon(self) -> None:
        """Once the input at hand has been handled."""
        self._allocate_now = True

    def timer(self, due: int, kind: str, key: str) -> None:
        self._sequence += 1
        heapq.heappush(self._timers, (due, self._sequence, kind, key))

    def _number(self, what: str) -> int:
        number = self._counts[what]
        self._counts[what] += 1
        return number

    def send(self, framework: Framework, event: Json) -> None:
        if framework.stream_id:
            self._effects.append(Send(framework.stream_id, event))

    def tell(self, agent: Agent, message: ToAgentMessage) -> None:
        if agent.connected:
            self._effects.append(ToAgent(agent.link, message))

    def _on_tick(self, _: Tick) -> None:
        while self._timers and self._timers[0][0] <= self.at:
            *_due, kind, key = heapq.heappop(self._timers)
            _TIMERS[str(kind)](self, str(key))

    # ---- calls of schedulers ---------------------------------------------------------------------------------

    def _on_call(self, event: Call) -> None:
        try:
            kind, owner, part = _checked(event.body)
        except CallError as refused:
            self._effects.append(Reply(400, str(refused)))
            return
        if kind == "SUBSCRIBE":
            if event.stream_id is not None:
                self._effects.append(Reply(400, "Subscribe calls should not include the 'Mesos-Stream-Id' header"))
            else:
                self._subscribe(part)
            return
        framework = self.frameworks.get(owner)
        if framework is None or event.stream_id is None or event.stream_id != framework.stream_id:
            self._effects.append(self._refusal(framework, event.stream_id))
        elif kind == "UPDATE_FRAMEWORK":  # the one call whose answer says what came of it
            self._update_framework(framework, part)
        else:
            self._effects.append(_TAKEN)
            _CALLS[kind](self, framework, part)

    @staticmethod
    def _refusal(framework: Framework | None, stream_id: str | None) -> Reply:
        """The answer to a call that does not come over its framework's own stream."""
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

    def _subscribe(self, subscribe: Json) -> None:
        stream_id = f"{self.settings.master_id}-{self.started_at:x}-{self._number('stream')}"
        self._effects.append(Subscribed(stream_id))
        info: Json = {"failover_timeout": 0.0, "checkpoint": False}
        info.update({key: value for key, value in subscribe["framework_info"].items() if value is not None})
        suppressed = subscribe.get("suppressed_roles") or []
        given = (info.get("id") or {}).get("value", "")
        error = bad_framework(info, suppressed)
        if not error and given in self.removed_frameworks:
            error = "Framework has been removed"
        framework = self.frameworks.get(given)
        error = error or bad_failover_timeout(info) or self._changed_principal(framework, info)
        if error:
            self._effects += [Send(stream_id, _error(error)), Close(stream_id)]
            return
        if framework is None:
            framework = self._new_framework(info, given)
        else:
            # The two fields that a framework cannot change; Mesos keeps the old values and says nothing (MESOS-703).
            info["user"] = framework.info["user"]
            info["checkpoint"] = framework.info.get("checkpoint", False)
        self._connect(framework, info, stream_id, suppressed)

    def _changed_principal(self, framework: Framework | None, info: Json) -> str:
        if framework is not None and framework.info.get("principal") != info.get("principal"):
            return "Changing framework's principal is not allowed."
        return ""

    def _new_framework(self, info: Json, given: str) -> Framework:
        framework_id = given or f"{self.settings.master_id}-{self._number('framework'):04d}"
        info["id"] = {"value": framework_id}
        framework = self.frameworks[framework_id] = Framework(info, self.at)
        return framework

    def _connect(self, framework: Framework, info: Json, stream_id: str, suppressed: list[str]) -> None:
        known = framework.reregistered_at or framework.recovered
        if framework.connected:
            self._effects += [
                Send(framework.stream_id, _error("Framework failed over")),
                Close(framework.stream_id),
            ]
            del self._streams[framework.stream_id]
        self._take_back(framework)
        framework.info, framework.stream_id, framework.recovered = info, stream_id, False
        framework.reregistered_at, framework.fails_over_at = self.at, None
        self._streams[stream_id] = framework.id
        self.allocator.add_client(framework.id, framework.roles, suppressed, framework.can("GPU_RESOURCES"))
        self._allocate_now = True
        self.send(framework, self._subscribed(framework))
        self._beat(stream_id)
        if known:
            for agent in self.agents.values():
                self.tell(agent, FrameworkUpdated(info))

    def _subscribed(self, framework: Framework) -> Json:
        return {
            "type": "SUBSCRIBED",
            "subscribed": {
                "framework_id": framework.info["id"],
                "heartbeat_interval_seconds": self.settings.heartbeat_ms / 1000,
                "master_info": self.view().master_info(),
            },
        }

    def _beat(self, stream_id: str) -> None:
        if stream_id in self._streams:
            self._effects.append(Send(stream_id, {"type": "HEARTBEAT"}))
            self.timer(self.at + self.settings.heartbeat_ms, "beat", stream_id)

    def _on_stream_lost(self, event: StreamLost) -> None:
        framework_id = self._streams.pop(event.stream_id, "")
        if not framework_id:
            return
        framework = self.frameworks[framework_id]
        framework.stream_id = ""
        self._take_back(framework)
        self.allocator.deactivate_client(framework_id)
        framework.fails_over_at = self.at + int(framework.info.get("failover_timeout", 0) * 1000)
        self.timer(framework.fails_over_at, "failover", framework_id)

    def _take_back(self, framework: Framework) -> None:
        """Without a word: whoever held these offers is not there, or knows."""
        for offer in list(framework.offers.values()):
            self._remove_offer(offer)
        self.operators.withdraw(framework=framework)

    def _failover_timeout(self, framework_id: str) -> None:
        framework = self.frameworks.get(framework_id)
        if framework is not None and framework.fails_over_at is not None and framework.fails_over_at <= self.at:
            self.remove_framework(framework)

    def remove_framework(self, framework: Framework) -> None:
        """Its tasks end without a word, its executors are shut down, its id is refused from now on."""
        self._take_back(framework)
        for agent in self.agents.values():
            self.tell(agent, ShutdownFramework(framework.id))
        text = f"Framework {framework.id} removed"
        for task in [*framework.tasks.values(), *framework.unreachable.values()]:
            self._settle(task, self._status(task, "TASK_KILLED", text, "REASON_FRAMEWORK_REMOVED"))
            self._forget(framework, task)
        for agent in self.agents.values():
            for key in [key for key in agent.executors if key[0] == framework.id]:
                self._remove_executor(agent, key)
        if framework.connected:
            self._effects.append(Close(framework.stream_id))
            del self._streams[framework.stream_id]
            framework.stream_id = ""
        del self.frameworks[framework.id]
        if framework.id in self.allocator.clients:
            self.allocator.remove_client(framework.id)
        self.removed_frameworks[framework.id] = framework
        if len(self.removed_frameworks) > _COMPLETED_FRAMEWORKS:
            del self.removed_frameworks[next(iter(self.removed_frameworks))]

    def _teardown(self, framework: Framework, _: Json) -> None:
        self.remove_framework(framework)

    def _accept(self, framework: Framework, accept: Json) -> None:
        offer_ids = [one["value"] for one in accept.get("offer_ids") or []]
        operations = accept.get("operations") or []
        if error := bad_offers(offer_ids, self.offers, framework):
            for offer_id in offer_ids:
                if offer_id in self.offers:
                    self._remove_offer(self.offers[offer_id])
            state = dropped_state(framework.info)
            text = f"Task launched with invalid offers: {error}"
            for task in _tasks_of(operations):
                self._refuse_task(framework, task, state, text, "REASON_INVALID_OFFERS")
            return
        offers = [self.offers[offer_id] for offer_id in offer_ids]
        agent, role = self.agents[offers[0].agent_id], offers[0].role
        left = offers[0].resources
        for offer in offers[1:]:
            left = left + offer.resources
        for offer in offers:
            self._withdraw(offer)
        for operation in operations:
            left = self._perform(framework, agent, role, operation, left)
        self.allocator.recover(agent.agent_id, framework.id, role, left, refuse_ms(accept.get("filters")), self.at)

    def _perform(self, framework: Framework, agent: Agent, role: str, operation: Json, left: Resources) -> Resources:
        """One operation of an ACCEPT; what is left of the offers after it."""
        if operation.get("type") == "LAUNCH":
            tasks = (operation.get("launch") or {}).get("task_infos") or []
            try:
                asked = read_resources(tasks)
            except ResourceError as refused:  # spoils the whole operation
                for task in tasks:
                    self._refuse_task(framework, task, "TASK_ERROR", str(refused), "REASON_TASK_INVALID")
                return left
            for task, (own, of_executor) in zip(tasks, asked, strict=True):
                left = self._launch(framework, agent, role, task, own, of_executor, left)
            return left
        text = f"The dev cluster performs LAUNCH alone, not {operation.get('type')}"
        for task in _tasks_of([operation]):
            self._refuse_task(framework, task, "TASK_ERROR", text, "REASON_TASK_INVALID")
        if operation.get("id") is not None:
            self.send(framework, _operation_error(operation, text, agent))
        return left

    def _launch(
        self, framework: Framework, agent: Agent, role: str, task: Json, own: Resources, of_executor: Resources,
        left: Resources,
    ) -> Resources:  # fmt: skip
        """One task, which asks for its `own` resources and those of its executor; what is `left` of the offers then."""
        asked = task.get("executor")
        known, is_known = None, False
        if asked is not None:
            if asked.get("framework_id") is None:
                task = {**task, "executor": (asked := {**asked, "framework_id": framework.info["id"]})}
            known = agent.executors.get((framework.id, asked["executor_id"]["value"]))
            is_known = known is not None and known.is_named(asked, role)
        error = bad_launch(task, role, framework, agent, own, of_executor, is_known)
        if error or asked is None:
            self._refuse_task(framework, task, "TASK_ERROR", error, "REASON_TASK_INVALID")
            return left
        executor_id = asked["executor_id"]["value"]
        needed = own if known is not None else own + of_executor
        if not left.contains(needed):
            error = f"Total resources {needed} required by task and its executor is more than available {left}"
            self._refuse_task(framework, task, "TASK_ERROR", error, "REASON_TASK_INVALID")
            return left
        told = known.info if known is not None and is_known else _as_told(asked, role)
        task = {**task, "resources": _allocated(task["resources"], role), "executor": told}
        if known is None:
            agent.executors[framework.id, executor_id] = Executor(told, role, of_executor, asked)
        self._add_task(
            framework, Task(framework.id, task["task_id"]["value"], agent.agent_id, executor_id, role, own, task)
        )
        self.tell(agent, RunTask(framework.info, task))
        return left - needed

    def _add_task(self, framework: Framework, task: Task) -> None:
        framework.tasks[task.task_id] = task
        self.agents[task.agent_id].tasks[(framework.id, task.task_id)] = task

    def _refuse_task(self, framework: Framework, task: Json, state: str, text: str, reason: str) -> None:
        made = status(task["task_id"]["value"], task["agent_id"]["value"], state, text, reason, self.at)
        self.send(framework, _update(made))

    def _decline(self, framework: Framework, decline: Json) -> None:
        hidden = refuse_ms(decline.get("filters"))
        for one in decline.get("offer_ids") or []:
            offer = framework.offers.get(one["value"])
            if offer is not None:
                self._remove_offer(offer, refuse=hidden)

    def _suppress(self, framework: Framework, suppress: Json) -> None:
        roles = suppress.get("roles") or []
        if not self._foreign(framework, roles):
            self.allocator.suppress(framework.id, roles)

    def _revive(self, framework: Framework, revive: Json) -> None:
        roles = revive.get("roles") or []
        if not self._foreign(framework, roles):
            self.allocator.revive(framework.id, roles)
            self._allocate_now = True

    def _foreign(self, framework: Framework, roles: list[str]) -> bool:
        return any(bad_role(role) or role not in framework.roles for role in roles)

    def _kill(self, framework: Framework, kill: Json) -> None:
        task_id, agent_id = kill["task_id"]["value"], (kill.get("agent_id") or {}).get("value", "")
        task = framework.tasks.get(task_id)
        if task is None:
            self._reconcile_one(framework, task_id, agent_id)
        elif agent_id in ("", task.agent_id):
            agent = self.agents[task.agent_id]
            agent.killed.add((framework.id, task_id))
            self.tell(agent, KillTask(framework.id, task_id, kill.get("kill_policy")))

    def _shutdown(self, framework: Framework, shutdown: Json) -> None:
        agent = self.agents.get(shutdown["agent_id"]["value"])
        if agent is not None:
            self.tell(agent, ShutdownExecutor(framework.id, shutdown["executor_id"]["value"]))

    def _acknowledge(self, framework: Framework, acknowledge: Json) -> None:
        agent = self.agents.get(acknowledge["agent_id"]["value"])
        if agent is None or not agent.connected:
            return
        task_id, uuid = acknowledge["task_id"]["value"], acknowledge["uuid"]
        task = agent.tasks.get((framework.id, task_id))
        if task is not None:
            if not task.update_state:
                return
            if task.update_state in TERMINAL and task.update_uuid == uuid:
                self._forget(framework, task)
        self.tell(agent, AcknowledgeUpdate(framework.id, task_id, uuid))

    def _reconcile(self, framework: Framework, reconcile: Json) -> None:
        asked = reconcile.get("tasks") or []
        for one in asked:
            self._reconcile_one(framework, one["task_id"]["value"], (one.get("agent_id") or {}).get("value", ""))
        if not asked:
            for task in framework.tasks.values():
                self._send_latest(framework, task)

    def _reconcile_one(self, framework: Framework, task_id: str, agent_id: str) -> None:
        task = framework.tasks.get(task_id)
        if task is not None:
            self._send_latest(framework, task)
            return
        if agent_id in self.recovering or (not agent_id and self.recovering):
            return  # it may be there: no answer before that agent is back or given up
        more: Json = {}
        if agent_id in self.agents:
            state, text = "TASK_GONE", "Task is unknown to the agent"
        elif agent_id in self.unreachable:
            state, text = "TASK_UNREACHABLE", "Task is unreachable"
            more["unreachable_time"] = {"nanoseconds": self.unreachable[agent_id] * 1_000_000}
        elif agent_id in self.gone:
            state, text = "TASK_GONE_BY_OPERATOR", "Task is gone"
        else:
            state, text = "TASK_UNKNOWN", "Task is unknown"
        if not framework.partition_aware:
            state = "TASK_LOST"
        text = f"Reconciliation: {text}"
        self.send(framework, _update(status(task_id, agent_id, state, text, "REASON_RECONCILIATION", self.at, **more)))

    def _send_latest(self, framework: Framework, task: Task) -> None:
        state = task.update_state or task.state
        made = self._status(task, state, "Reconciliation: Latest task state", "REASON_RECONCILIATION")
        if task.statuses:
            made.update({k: task.statuses[-1][k] for k in ("container_status", "healthy") if k in task.statuses[-1]})
        self.send(framework, _update(made))

    def _message(self, framework: Framework, message: Json) -> None:
        agent = self.agents.get(message["agent_id"]["value"])
        if agent is not None:
            self.tell(agent, MessageToExecutor(framework.id, message["executor_id"]["value"], message["data"]))

    def _update_framework(self, framework: Framework, update: Json) -> None:
        info: Json = {"failover_timeout": 0.0, "checkpoint": False}
        info.update({key: value for key, value in update["framework_info"].items() if value is not None})
        suppressed = update.get("suppressed_roles") or []
        error = bad_framework(info, suppressed) or bad_failover_timeout(info)
        error = error or self._changed_principal(framework, info) or changed_for_good(framework.info, info)
        if error:
            self._effects.append(Reply(400, f"'FrameworkInfo' is not valid: {error}"))
            return
        self._effects.append(Reply(200))
        framework.info = info
        self.allocator.add_client(framework.id, framework.roles, suppressed, framework.can("GPU_RESOURCES"))
        for offer in list(framework.offers.values()):
            if offer.role not in framework.roles:
                self.rescind(offer)
        self._allocate_now = True
        for agent in self.agents.values():
            self.tell(agent, FrameworkUpdated(info))

    def _accept_inverse(self, framework: Framework, call: Json) -> None:
        self.operators.answered(framework, call, "ACCEPT")

    def _decline_inverse(self, framework: Framework, call: Json) -> None:
        self.operators.answered(framework, call, "DECLINE")

    def _ignore(self, framework: Framework, call: Json) -> None:
        """Taken and without effect here: REQUEST, as Mesos' own allocator does, and what no operation led to."""

    # ---- offers ----------------------------------------------------------------------------------------------

    def _allocate_in_turn(self, _: str) -> None:
        self._allocation_due = False
        self._allocate()

    def _allocate(self) -> None:
        made: dict[str, list[Offer]] = {}
        for agent_id, framework_id, role, resources in self.allocator.allocate(self.at):
            made.setdefault(framework_id, []).append(self._new_offer(agent_id, framework_id, role, resources))
        for framework_id, offers in made.items():
            framework = self.frameworks[framework_id]
            self.send(framework, {"type": "OFFERS", "offers": {"offers": self.view().offers(offers, framework)}})
        self.operators.ask_for_agents()

    def new_offer_id(self) -> str:
        """Inverse offers are numbered with the others."""
        return f"{self.settings.master_id}-O{self._number('offer')}"

    def _new_offer(self, agent_id: str, framework_id: str, role: str, resources: Resources) -> Offer:
        offer_id = self.new_offer_id()
        expires_at = None
        if self.settings.offer_timeout_ms is not None:
            expires_at = self.at + self.settings.offer_timeout_ms
            self.timer(expires_at, "offer", offer_id)
        offer = Offer(offer_id, framework_id, agent_id, role, resources, expires_at)
        self.offers[offer_id] = self.frameworks[framework_id].offers[offer_id] = offer
        self.agents[agent_id].offers[offer_id] = offer
        return offer

    def _withdraw(self, offer: Offer) -> None:
        """Forget an offer; its resources stay taken."""
        del self.offers[offer.offer_id]
        del self.frameworks[offer.framework_id].offers[offer.offer_id]
        del self.agents[offer.agent_id].offers[offer.offer_id]

    def _remove_offer(self, offer: Offer, refuse: int = 0) -> None:
        self._withdraw(offer)
        self.allocator.recover(offer.agent_id, offer.framework_id, offer.role, offer.resources, refuse, self.at)

    def rescind(self, offer: Offer) -> None:
        self._remove_offer(offer)
        event = {"type": "RESCIND", "rescind": {"offer_id": {"value": offer.offer_id}}}
        self.send(self.frameworks[offer.framework_id], event)

    def _offer_timeout(self, offer_id: str) -> None:
        if offer_id in self.offers:
            self.rescind(self.offers[offer_id])

    def _on_rescind(self, event: RescindOffer) -> None:
        self._offer_timeout(event.offer_id)

    # ---- agents ----------------------------------------------------------------------------------------------

    def _on_agent(self, event: FromAgent) -> None:
        message = event.message
        if isinstance(message, RegisterAgent):
            self._register(event.link, message)
            return
        agent = self.agents.get(self._links.get(event.link, ""))
        if agent is None:
            return
        if isinstance(message, UpdateStatus):
            self._take_update(agent, message)
        elif isinstance(message, ExecutorExited):
            self._executor_exited(agent, message)
        else:
            self._message_up(agent, message)

    def _register(self, link: str, message: RegisterAgent) -> None:
        agent_id = message.agent_id
        if agent_id in self.gone:
            self._effects.append(ToAgent(link, ShutdownAgent("Agent has been marked gone")))
            return
        if self.operators.is_down((message.hostname.lower(), "127.0.0.1")):
            self._effects.append(ToAgent(link, ShutdownAgent("Machine is `DOWN`")))
            return
        if not agent_id:
            agent_id = f"{self.settings.master_id}-S{self._number('agent')}"
        told = "" if agent_id in self.recovering else "Unknown agent reregistered"
        self.recovering.discard(agent_id)
        if self.unreachable.pop(agent_id, None) is not None:
            told = "Unreachable agent re-reregistered"  # sic
        agent = self.agents.get(agent_id)
        if agent is None:
            agent = self.agents[agent_id] = Agent(
                agent_id, link, message.hostname, message.port, message.resources, message.attributes, self.at
            )
            self._links[link] = agent_id
            self._effects.append(ToAgent(link, Registered(agent_id)))
            self._recover(agent, message, told)
            self.allocator.add_host(agent_id, agent.total, agent.total - agent.used())
        else:
            self._links.pop(agent.link, None)
            self._links[link] = agent_id
            agent.link, agent.connected, agent.times_out_at = link, True, None
            self._effects.append(ToAgent(link, Registered(agent_id)))
            self._compare(agent, message)
        self.operators.remind(agent)
        self.allocator.activate_host(agent_id, agent_id not in self.operators.deactivated)
        self._allocate_now = True

    def _recover(self, agent: Agent, message: RegisterAgent, told: str) -> None:
        """Take over what runs on an agent that this master did not have (any more).

        Frameworks are `told` of each task, unless the master was restarted and they have to ask.
        """
        infos = {info["id"]["value"]: info for info in message.frameworks}
        torn_down = {one for one in infos if one in self.removed_frameworks}
        for framework_id in torn_down:
            self.tell(agent, ShutdownFramework(framework_id))
        for report in message.executors:
            if report.framework_id not in torn_down:
                self._recovered_framework(infos[report.framework_id])
                self._recover_executor(agent, report.framework_id, report.executor)
        for task in message.tasks:
            if task.framework_id not in torn_down:
                framework = self._recovered_framework(infos[task.framework_id])
                recovered = self._recover_task(agent, framework, task)
                if told:
                    made = self._status(recovered, recovered.state, told, "REASON_AGENT_REREGISTERED")
                    self.send(framework, _update(made))
        for framework_id in infos:
            if framework_id in self.frameworks and self.frameworks[framework_id].connected:
                self.tell(agent, FrameworkUpdated(self.frameworks[framework_id].info))

    def _recovered_framework(self, info: Json) -> Framework:
        framework = self.frameworks.get(info["id"]["value"])
        if framework is None:
            framework = self.frameworks[info["id"]["value"]] = Framework(info, self.at, recovered=True)
            self.allocator.add_client(framework.id, framework.roles, (), framework.can("GPU_RESOURCES"))
            self.allocator.deactivate_client(framework.id)
        return framework

    def _recover_executor(self, agent: Agent, framework_id: str, info: Json) -> None:
        resources = info.get("resources") or []
        role = next((one["allocation_info"]["role"] for one in resources if "allocation_info" in one), "*")
        agent.executors[(framework_id, info["executor_id"]["value"])] = executor = Executor(
            info, role, from_wire(resources)
        )
        self.allocator.charge(framework_id, role, executor.resources)

    def _recover_task(self, agent: Agent, framework: Framework, report: TaskReport) -> Task:
        task_id = report.task["task_id"]["value"]
        framework.unreachable.pop(task_id, None)
        role = next((r["allocation_info"]["role"] for r in report.task["resources"] if "allocation_info" in r), "*")
        resources = from_wire(report.task["resources"])
        task = Task(
            framework.id, task_id, agent.agent_id, report.executor_id, role, resources, report.task, report.state
        )
        task.statuses = list(report.statuses)
        task.update_state, task.update_uuid = report.update_state, report.update_uuid
        self._add_task(framework, task)
        if not task.terminal:
            self.allocator.charge(framework.id, role, resources)
        return task

    def _compare(self, agent: Agent, message: RegisterAgent) -> None:
        """A known agent is back: tasks and executors that it has not got any more are accounted for."""
        reported = {(task.framework_id, task.task["task_id"]["value"]) for task in message.tasks}
        dropped: dict[str, list[str]] = {}
        for key in agent.tasks:
            if key not in reported:
                dropped.setdefault(key[0], []).append(key[1])
        for framework_id, task_ids in dropped.items():
            state = dropped_state(self.frameworks[framework_id].info)
            self.tell(agent, DropTasks(framework_id, tuple(task_ids), state))
        executors = {(one.framework_id, one.executor["executor_id"]["value"]) for one in message.executors}
        for gone in [key for key in agent.executors if key not in executors]:
            self._remove_executor(agent, gone)
        for framework_id, task_id in sorted(agent.killed & reported):
            self.tell(agent, KillTask(framework_id, task_id))
        for info in message.frameworks:
            framework = self.frameworks.get(info["id"]["value"])
            if framework is None:
                self.tell(agent, ShutdownFramework(info["id"]["value"]))
            elif framework.connected:
                self.tell(agent, FrameworkUpdated(framework.info))

    def _on_link_lost(self, event: LinkLost) -> None:
        agent = self.agents.get(self._links.get(event.link, ""))
        if agent is None or not agent.connected:
            return
        for offer in list(agent.offers.values()):
            self.rescind(offer)
        agent.connected = False
        self.allocator.activate_host(agent.agent_id, False)
        for framework_id in {key[0] for key in (*agent.tasks, *agent.executors)}:
            framework = self.frameworks[framework_id]
            if not framework.info.get("checkpoint", False):
                self._drop_framework(agent, framework)
        agent.times_out_at = self.at + self.settings.agent_reregister_timeout_ms
        self.timer(agent.times_out_at, "agent", agent.agent_id)

    def _drop_framework(self, agent: Agent, framework: Framework) -> None:
        """An agent that broke off ends what frameworks without checkpointing have there."""
        for task in [task for key, task in agent.tasks.items() if key[0] == framework.id]:
            text = f"Agent {agent.hostname} disconnected"
            self._end_task(framework, task, self._status(task, "TASK_LOST", text, "REASON_AGENT_DISCONNECTED"))
        for key in [key for key in agent.executors if key[0] == framework.id]:
            self._remove_executor(agent, key)

    def _agent_timeout(self, agent_id: str) -> None:
        agent = self.agents.get(agent_id)
        if agent is not None and agent.times_out_at is not None and agent.times_out_at <= self.at:
            seconds = self.settings.agent_reregister_timeout_ms // 1000
            self._mark_unreachable(agent, f"agent did not reregister within {seconds}secs after disconnecting")

    def _on_agent_timed_out(self, event: AgentTimedOut) -> None:
        if event.agent_id in self.agents:
            self._mark_unreachable(self.agents[event.agent_id], "health check timed out")

    def _recovery_timeout(self, agent_id: str) -> None:
        if agent_id in self.recovering:
            self.recovering.discard(agent_id)
            self.unreachable[agent_id] = self.at
            self._tell_of_lost_agent(agent_id)

    def _mark_unreachable(self, agent: Agent, cause: str) -> None:
        self.unreachable[agent.agent_id] = self.at
        self.remove_agent(agent, cause, "TASK_UNREACHABLE")

    def mark_gone(self, agent_id: str) -> None:
        text = "Agent has been marked gone"
        self.gone[agent_id] = self.at
        self.operators.forget(agent_id)
        self.recovering.discard(agent_id)
        agent = self.agents.get(agent_id)
        if agent is not None:
            self.tell(agent, ShutdownAgent(text))
            self.remove_agent(agent, text, "TASK_GONE_BY_OPERATOR")
            return
        self.unreachable.pop(agent_id, None)
        for framework in self.frameworks.values():
            for task in [task for task in framework.unreachable.values() if task.agent_id == agent_id]:
                self._end_task(framework, task, self._removal(framework, task, text, "TASK_GONE_BY_OPERATOR"))

    def remove_agent(self, agent: Agent, text: str, state: str) -> None:
        """Updates for its tasks, rescinded offers, then FAILURE to everyone: Mesos' own order.

        `state` is what becomes of the tasks of partition-aware frameworks; the others hear TASK_LOST.
        """
        self.allocator.remove_host(agent.agent_id)
        for task in list(agent.tasks.values()):
            framework = self.frameworks[task.framework_id]
            made = self._removal(framework, task, text, state)
            if made["state"] == "TASK_GONE_BY_OPERATOR" or state == "TASK_LOST":
                self._end_task(framework, task, made)
            else:
                self._lose_task(framework, task, made)
        for key in list(agent.executors):
            self._remove_executor(agent, key)
        for offer in list(agent.offers.values()):
            self.rescind(offer)
        self.operators.withdraw(agent=agent)
        del self.agents[agent.agent_id]
        self._links.pop(agent.link, None)
        self._tell_of_lost_agent(agent.agent_id)

    def _tell_of_lost_agent(self, agent_id: str) -> None:
        for framework in self.frameworks.values():
            self.send(framework, {"type": "FAILURE", "failure": {"agent_id": {"value": agent_id}}})

    def _removal(self, framework: Framework, task: Task, text: str, state: str) -> Json:
        reason = "REASON_AGENT_REMOVED"
        if framework.partition_aware and state == "TASK_GONE_BY_OPERATOR":
            reason = "REASON_AGENT_REMOVED_BY_OPERATOR"
        made = self._status(task, state if framework.partition_aware else "TASK_LOST", text, reason)
        if state == "TASK_UNREACHABLE":
            made["unreachable_time"] = {"nanoseconds": self.at * 1_000_000}
        return made

    def _end_task(self, framework: Framework, task: Task, made: Json) -> None:
        self._settle(task, made)
        self._forget(framework, task)
        self.send(framework, _update(made))

    def _lose_task(self, framework: Framework, task: Task, made: Json) -> None:
        """Like its end, but it may come back with its agent."""
        self._settle(task, made)
        self._forget(framework, task, completed=False)
        framework.unreachable[task.task_id] = task
        self.send(framework, _update(made))

    def _settle(self, task: Task, made: Json, latest: str = "") -> None:
        """Give a task its new state; what it used is free once, when it first ends or becomes unreachable."""
        state, terminal = latest or made["state"], task.terminal
        ended = terminal or task.state == "TASK_UNREACHABLE"
        if not terminal:
            task.state = state
        if not ended and (state in TERMINAL or state == "TASK_UNREACHABLE"):
            self.allocator.recover(task.agent_id, task.framework_id, task.role, task.resources)
        if task.statuses and task.statuses[-1]["state"] == made["state"]:
            task.statuses.pop()
        if "data" in made:
            made = {key: value for key, value in made.items() if key != "data"}
        task.statuses.append(made)

    def _forget(self, framework: Framework, task: Task, completed: bool = True) -> None:
        framework.tasks.pop(task.task_id, None)
        framework.unreachable.pop(task.task_id, None)
        key = (framework.id, task.task_id)
        agent = self.agents.get(task.agent_id)
        if agent is not None:
            agent.tasks.pop(key, None)
            agent.killed.discard(key)
        if completed:
            framework.completed.append(task)

    def _take_update(self, agent: Agent, update: UpdateStatus) -> None:
        framework = self.frameworks.get(update.framework_id)
        made = update.status
        task = agent.tasks.get((update.framework_id, made["task_id"]["value"]))
        if framework is not None and framework.connected:
            if task is not None:
                task.update_state, task.update_uuid = made["state"], made["uuid"]
            self.send(framework, _update(made))
        if task is not None:
            self._settle(task, made, update.latest_state)

    def _executor_exited(self, agent: Agent, exited: ExecutorExited) -> None:
        key = (exited.framework_id, exited.executor_id)
        if key not in agent.executors:
            return
        self._remove_executor(agent, key)
        framework = self.frameworks.get(exited.framework_id)
        if framework is not None:
            failure = {
                "agent_id": {"value": agent.agent_id},
                "executor_id": {"value": exited.executor_id},
                "status": exited.status,
            }
            self.send(framework, {"type": "FAILURE", "failure": failure})

    def _remove_executor(self, agent: Agent, key: tuple[str, str]) -> None:
        executor = agent.executors.pop(key)
        self.allocator.recover(agent.agent_id, key[0], executor.role, executor.resources)

    def _message_up(self, agent: Agent, message: MessageToFramework) -> None:
        framework = self.frameworks.get(message.framework_id)
        if framework is not None:
            body = {
                "agent_id": {"value": agent.agent_id},
                "executor_id": {"value": message.executor_id},
                "data": message.data,
            }
            self.send(framework, {"type": "MESSAGE", "message": body})

    def _status(self, task: Task, state: str, text: str, reason: str) -> Json:
        more = {"executor_id": {"value": task.executor_id}} if task.executor_id else {}
        return status(task.task_id, task.agent_id, state, text, reason, self.at, **more)


def _checked(body: Any) -> tuple[str, str, Json]:
    """The kind of a scheduler call, its framework's id ("" for a new one) and its part of that kind, if it is one."""
    try:
        SCHEDULER_CALL(body)
    except CallError as refused:
        raise CallError(f"Failed to convert JSON into Call protobuf: {refused}") from None
    invalid = "Failed to validate scheduler::Call: "
    kind = body.get("type")
    if kind not in _PARTS:
        raise CallError(f"{invalid}Expecting 'type' to be present")
    owner = (body.get("framework_id") or _NO_ID)["value"]
    part = body.get(_PARTS[kind])
    if part is None and kind not in ("TEARDOWN", "REVIVE", "SUPPRESS"):
        if kind != "SUBSCRIBE" and owner is None:
            raise CallError(f"{invalid}Expecting 'framework_id' to be present")
        raise CallError(f"{invalid}Expecting '{_PARTS[kind]}' to be present")
    if kind == "SUBSCRIBE":
        if ((part["framework_info"].get("id") or {}).get("value", "")) != (owner or ""):
            raise CallError(f"{invalid}'framework_id' differs from 'subscribe.framework_info.id'")
    elif owner is None:
        raise CallError(f"{invalid}Expecting 'framework_id' to be present")
    if kind == "ACKNOWLEDGE" and not is_uuid(decode_data(part["uuid"])):
        raise CallError(f"{invalid}Not a valid UUID")
    if kind == "UPDATE_FRAMEWORK" and ((part["framework_info"].get("id") or {}).get("value", "")) != owner:
        raise CallError(f"{invalid}'framework_id' differs from 'update_framework.framework_info.id'")
    return kind, owner or "", part or {}


def _tasks_of(operations: list[Json]) -> list[Json]:
    found: list[Json] = []
    for operation in operations:
        found += (operation.get("launch") or {}).get("task_infos") or []
        found += ((operation.get("launch_group") or {}).get("task_group") or {}).get("tasks") or []
    return found


def _as_told(asked: Json, role: str) -> Json:
    """The executor as agents see it: its resources with the role they go to, Mesos' defaults filled in."""
    command = {"shell": True, **asked["command"]}
    if command.get("uris"):
        command["uris"] = [{"extract": True, **uri} for uri in command["uris"]]
    resources = _allocated(asked.get("resources") or [], role)
    return {"type": "CUSTOM", **asked, "command": command, "resources": resources}


def _allocated(resources: list[Json], role: str) -> list[Json]:
    allocation = {"role": role}
    return [
        one if one.get("allocation_info") == allocation else {**one, "allocation_info": allocation} for one in resources
    ]


def _update(made: Json) -> Json:
    return {"type": "UPDATE", "update": {"status": made}}


def _error(text: str) -> Json:
    return {"type": "ERROR", "error": {"message": text}}


def _operation_error(operation: Json, text: str, agent: Agent) -> Json:
    made = {
        "operation_id": operation["id"],
        "state": "OPERATION_ERROR",
        "message": text,
        "agent_id": {"value": agent.agent_id},
    }
    return {"type": "UPDATE_OPERATION_STATUS", "update_operation_status": {"status": made}}


_HANDLERS: dict[type, Callable[[Master, Any], None]] = {
    Call: Master._on_call,
    Operate: lambda master, event: master.operators.handle(event),
    StreamLost: Master._on_stream_lost,
    LinkLost: Master._on_link_lost,
    FromAgent: Master._on_agent,
    AgentTimedOut: Master._on_agent_timed_out,
    RescindOffer: Master._on_rescind,
    Tick: Master._on_tick,
}
_TIMERS: dict[str, Callable[[Master, str], None]] = {
    "beat": Master._beat,
    "allocate": Master._allocate_in_turn,
    "offer": Master._offer_timeout,
    "failover": Master._failover_timeout,
    "agent": Master._agent_timeout,
    "recovering": Master._recovery_timeout,
    "inverse": lambda master, _: master.operators.ask_for_agents(),
}
_CALLS: dict[str, Callable[[Master, Framework, Json], None]] = {
    "TEARDOWN": Master._teardown,
    "ACCEPT": Master._accept,
    "DECLINE": Master._decline,
    "REVIVE": Master._revive,
    "SUPPRESS": Master._suppress,
    "KILL": Master._kill,
    "SHUTDOWN": Master._shutdown,
    "ACKNOWLEDGE": Master._acknowledge,
    "RECONCILE": Master._reconcile,
    "MESSAGE": Master._message,
    "REQUEST": Master._ignore,
    "ACCEPT_INVERSE_OFFERS": Master._accept_inverse,
    "DECLINE_INVERSE_OFFERS": Master._decline_inverse,
    "RECONCILE_OPERATIONS": Master._ignore,
    "ACKNOWLEDGE_OPERATION_STATUS": Master._ignore,
}
