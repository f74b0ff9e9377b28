"""The dev agent as a pure state machine: acknowledged updates, and executors from their start to their end."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobcloud.dev.agent import Agent, AgentSettings
from jobcloud.dev.protocol import (
    AcknowledgeUpdate,
    Call,
    Close,
    DropTasks,
    EndAgent,
    ExecutorEnded,
    ExecutorExited,
    FromMaster,
    KillExecutor,
    KillTask,
    LinkLost,
    LinkMade,
    MessageToExecutor,
    MessageToFramework,
    RegisterAgent,
    Registered,
    Reply,
    RunTask,
    Send,
    ShutdownAgent,
    ShutdownExecutor,
    ShutdownFramework,
    StartExecutor,
    StreamLost,
    Subscribed,
    Tick,
    ToMaster,
    UpdateStatus,
)
from jobcloud.dev.resources import parse
from jobcloud.dev.schema import uuid_of
from jobcloud.wire import encode_data

FRAMEWORK: dict[str, Any] = {
    "id": {"value": "f"},
    "user": "u",
    "name": "n",
    "capabilities": [{"type": "PARTITION_AWARE"}],
}
RESOURCES = [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 1.0}, "allocation_info": {"role": "*"}}]


class AgentHarness:
    """An agent. The test takes the part of its master and of its executors."""

    def __init__(self, **more: Any) -> None:
        self.at = 1_000_000
        self.agent = Agent(AgentSettings(resources=parse("cpus:4;mem:4096"), salt=7, **more))
        self.ids = itertools.count()
        self.messages: list[Any] = []
        self.events: list[tuple[str, Any]] = []
        self.effects: list[Any] = []
        self.stream = ""
        self.link()

    def handle(self, event: Any) -> list[Any]:
        effects = self.agent.handle(event, self.at)
        for effect in effects:
            if isinstance(effect, ToMaster):
                self.messages.append(effect.message)
            elif isinstance(effect, Send):
                self.events.append((effect.event["type"], effect.event.get(effect.event["type"].lower())))
            else:
                self.effects.append(effect)
        return effects

    def wait(self, ms: int) -> None:
        end = self.at + ms
        while (due := self.agent.next_at()) is not None and due <= end:
            self.at = max(self.at, due)
            self.handle(Tick())
        self.at = end

    def link(self) -> RegisterAgent:
        self.handle(LinkMade())
        registration = self.messages[-1]
        self.handle(FromMaster(Registered("S0")))
        assert isinstance(registration, RegisterAgent)
        return registration

    def run(self, name: str = "t", executor: str = "e", framework: dict[str, Any] = FRAMEWORK, **more: Any) -> None:
        info = {"executor_id": {"value": executor}, "command": {"value": "x"}, "framework_id": framework["id"], **more}
        task = {"task_id": {"value": name}, "name": name, "resources": RESOURCES, "executor": info}
        self.handle(FromMaster(RunTask(framework, task)))

    @property
    def container(self) -> str:
        return [one.container_id for one in self.effects if isinstance(one, StartExecutor)][-1]

    def call(self, kind: str, body: Any = None, executor: str = "e") -> list[Any]:
        call = {"type": kind, "framework_id": {"value": "f"}, "executor_id": {"value": executor}}
        if body is not None:
            call[kind.lower()] = body
        return self.handle(Call(call))

    def subscribe(self, executor: str = "e", **body: Any) -> None:
        first = self.call("SUBSCRIBE", body, executor)[0]
        assert isinstance(first, Subscribed)
        self.stream = first.stream_id

    def status(self, state: str, name: str = "t", **more: Any) -> dict[str, Any]:
        uuid = encode_data(uuid_of(9, next(self.ids)))
        return {"task_id": {"value": name}, "state": state, "source": "SOURCE_EXECUTOR", "uuid": uuid, **more}

    def update(self, state: str, name: str = "t") -> str:
        status = self.status(state, name)
        assert self.call("UPDATE", {"status": status})[0] == Reply(202)
        return str(status["uuid"])

    def acknowledge(self, uuid: str, name: str = "t") -> None:
        self.handle(FromMaster(AcknowledgeUpdate("f", name, uuid)))

    def updates(self) -> list[UpdateStatus]:
        """Take the updates that were sent to the master."""
        found = [one for one in self.messages if isinstance(one, UpdateStatus)]
        self.messages = [one for one in self.messages if not isinstance(one, UpdateStatus)]
        return found

    def states(self) -> list[tuple[str, str]]:
        return [(one.status["state"], one.latest_state) for one in self.updates()]

    def kinds(self) -> list[str]:
        found = [kind for kind, _ in self.events]
        self.events = []
        return found


@pytest.fixture
def world() -> AgentHarness:
    return AgentHarness()


@pytest.fixture
def running(world: AgentHarness) -> AgentHarness:
    """An executor with one task in it."""
    world.run()
    world.subscribe()
    world.events.clear()
    return world


# ---- updates ---------------------------------------------------------------------------------------------------


def test_unacknowledged_update_is_retried_with_doubling_interval(running: AgentHarness) -> None:
    running.update("TASK_RUNNING")
    times = []
    for _ in range(1_400):
        running.wait(1_000)
        times += [running.at // 1_000 - 1_000 for _ in running.updates()]
    assert times[1:] == [10, 30, 70, 150, 310, 630, 1230]  # intervals double up to ten minutes


def test_next_update_waits_for_acknowledgement_of_previous_one(running: AgentHarness) -> None:
    first = running.update("TASK_STARTING")
    second = running.update("TASK_RUNNING")
    assert running.states() == [("TASK_STARTING", "TASK_STARTING")]
    running.acknowledge(second)  # not the first pending one
    assert running.states() == []
    running.acknowledge(first)
    assert running.states() == [("TASK_RUNNING", "TASK_RUNNING")]
    running.acknowledge(first)  # repeated
    assert running.states() == []


def test_retried_update_carries_latest_state(running: AgentHarness) -> None:
    running.update("TASK_RUNNING")
    running.update("TASK_FINISHED")
    running.updates()
    running.wait(10_000)
    assert running.states() == [("TASK_RUNNING", "TASK_FINISHED")]


def test_repeated_update_is_forwarded_once(running: AgentHarness) -> None:
    status = running.status("TASK_RUNNING")
    for _ in range(2):
        running.call("UPDATE", {"status": status})
    assert len(running.updates()) == 1
    assert running.kinds() == ["ACKNOWLEDGED", "ACKNOWLEDGED"]
    running.acknowledge(status["uuid"])
    assert running.updates() == []


def test_updates_are_kept_while_master_is_away(running: AgentHarness) -> None:
    running.handle(LinkLost("a"))
    running.update("TASK_RUNNING")
    running.wait(60_000)
    assert running.updates() == []
    registration = running.link()
    assert [(one.state, one.update_state) for one in registration.tasks] == [("TASK_RUNNING", "TASK_RUNNING")]
    assert running.states() == [("TASK_RUNNING", "TASK_RUNNING")]
    running.wait(10_000)
    assert len(running.updates()) == 1  # one retry, not two


def test_task_is_forgotten_after_terminal_acknowledgement(running: AgentHarness) -> None:
    uuid = running.update("TASK_FINISHED")
    assert len(running.agent.registration().tasks) == 1
    running.acknowledge(uuid)
    assert running.agent.registration().tasks == ()
    running.handle(FromMaster(KillTask("f", "t")))
    assert running.states()[-1][0] == "TASK_DROPPED"


# ---- executors -------------------------------------------------------------------------------------------------


def test_tasks_wait_until_their_executor_subscribes(world: AgentHarness) -> None:
    world.run("a")
    world.run("b")
    assert len([one for one in world.effects if isinstance(one, StartExecutor)]) == 1
    world.subscribe()
    assert world.kinds() == ["SUBSCRIBED", "LAUNCH", "LAUNCH"]
    world.run("c")
    assert world.kinds() == ["LAUNCH"]


def test_executor_that_never_subscribes_is_killed(world: AgentHarness) -> None:
    world.run()
    world.wait(60_000)
    assert world.effects[-1] == KillExecutor(world.container)
    world.handle(ExecutorEnded(world.container, 9))
    (update,) = world.updates()
    assert update.status["reason"] == "REASON_EXECUTOR_REGISTRATION_TIMEOUT"
    assert update.status["message"] == "Executor did not register within 1mins"


def test_task_of_executor_that_cannot_start_fails_with_reason(world: AgentHarness) -> None:
    world.run()
    world.handle(ExecutorEnded(world.container, 9, "Failed to launch container: no"))
    (update,) = world.updates()
    assert (update.status["state"], update.status["reason"]) == ("TASK_FAILED", "REASON_CONTAINER_LAUNCH_FAILED")
    assert update.status["message"] == "Failed to launch container: no"


def test_executor_exit_is_reported_before_failures_of_its_tasks(running: AgentHarness) -> None:
    running.run("t2")
    finished = running.update("TASK_FINISHED")
    running.updates()
    running.handle(ExecutorEnded(running.container, 256))
    kinds = [type(one) for one in running.messages]
    assert kinds[-2:] == [ExecutorExited, UpdateStatus]
    (update,) = running.updates()
    assert update.status["task_id"] == {"value": "t2"}
    assert isinstance(running.effects[-1], Close)
    running.acknowledge(finished)
    running.acknowledge(update.status["uuid"], "t2")
    assert running.agent.state.executors == {}
    assert running.agent.state.frameworks == {}


def test_task_for_terminating_executor_is_dropped(running: AgentHarness) -> None:
    running.handle(FromMaster(ShutdownExecutor("f", "e")))
    running.run("late")
    (update,) = running.updates()
    assert (update.status["state"], update.status["message"]) == ("TASK_DROPPED", "Executor terminating")


def test_executor_is_killed_after_shutdown_grace_period(running: AgentHarness) -> None:
    running.handle(FromMaster(ShutdownExecutor("f", "e")))
    assert running.kinds() == ["SHUTDOWN"]
    running.wait(4_900)
    assert KillExecutor(running.container) not in running.effects
    running.wait(200)
    assert KillExecutor(running.container) in running.effects


def test_executor_can_set_its_own_grace_period(world: AgentHarness) -> None:
    world.run(shutdown_grace_period={"nanoseconds": 60_000_000_000})
    world.subscribe()
    world.handle(FromMaster(ShutdownExecutor("f", "e")))
    world.wait(59_000)
    assert KillExecutor(world.container) not in world.effects
    world.wait(1_100)
    assert KillExecutor(world.container) in world.effects


def test_task_killed_before_executor_subscribes_is_not_launched(world: AgentHarness) -> None:
    world.run()
    world.handle(FromMaster(KillTask("f", "t")))
    assert world.states() == [("TASK_KILLED", "TASK_KILLED")]
    world.subscribe()
    assert world.kinds() == ["SHUTDOWN"]  # it has no task


def test_task_missing_from_resubscription_is_dropped(running: AgentHarness) -> None:
    running.handle(StreamLost(running.stream))
    running.run("lost")
    running.subscribe(unacknowledged_tasks=[{"task_id": {"value": "t"}, "name": "t", "agent_id": {"value": "S0"}}])
    assert [
        (one.status["task_id"]["value"], one.status["state"], one.status["reason"]) for one in running.updates()
    ] == [("lost", "TASK_DROPPED", "REASON_AGENT_RESTARTED")]


def test_resubscribed_executor_repeats_unacknowledged_updates(running: AgentHarness) -> None:
    running.handle(StreamLost(running.stream))
    status = running.status("TASK_RUNNING")
    task = {"name": "t", "task_id": {"value": "t"}, "agent_id": {"value": "S0"}}
    running.subscribe(unacknowledged_updates=[{"status": status}], unacknowledged_tasks=[task])
    assert running.states() == [("TASK_RUNNING", "TASK_RUNNING")]
    assert running.kinds() == ["ACKNOWLEDGED", "SUBSCRIBED"]


def test_second_stream_of_executor_replaces_first(running: AgentHarness) -> None:
    first = running.stream
    running.subscribe(unacknowledged_tasks=[{"task_id": {"value": "t"}, "name": "t", "agent_id": {"value": "S0"}}])
    assert Close(first) in running.effects
    running.handle(StreamLost(first))  # the old stream
    running.run("t2")
    assert running.kinds() == ["SUBSCRIBED", "LAUNCH"]


def test_executor_that_subscribes_too_late_gets_shutdown(running: AgentHarness) -> None:
    running.handle(FromMaster(ShutdownExecutor("f", "e")))
    running.subscribe()
    assert running.kinds()[-1] == "SHUTDOWN"
    assert isinstance(running.effects[-1], Close)


def test_messages_pass_in_both_directions(running: AgentHarness) -> None:
    running.handle(FromMaster(MessageToExecutor("f", "e", "ZG93bg==")))
    assert running.events == [("MESSAGE", {"data": "ZG93bg=="})]
    running.call("MESSAGE", {"data": "dXA="})
    assert running.messages[-1] == MessageToFramework("f", "e", "dXA=")


def test_executor_gets_heartbeats(running: AgentHarness) -> None:
    running.wait(30 * 60_000)
    assert running.kinds() == ["HEARTBEAT"]


# ---- frameworks and the agent itself ---------------------------------------------------------------------------


def test_framework_that_is_shut_down_sends_no_updates(running: AgentHarness) -> None:
    running.update("TASK_RUNNING")
    running.updates()
    running.handle(FromMaster(ShutdownFramework("f")))
    assert running.kinds()[-1] == "SHUTDOWN"
    running.update("TASK_KILLED")
    running.handle(ExecutorEnded(running.container, 0))
    running.wait(60_000)
    assert running.updates() == []
    assert running.agent.state.frameworks == {}
    assert running.agent.state.executors == {}
    running.run("again")  # a framework with this id may return
    assert isinstance(running.effects[-1], StartExecutor)


def test_agent_ends_after_last_executor_when_shut_down(running: AgentHarness) -> None:
    running.handle(FromMaster(ShutdownAgent("gone")))
    assert not any(isinstance(one, EndAgent) for one in running.effects)
    running.handle(ExecutorEnded(running.container, 0))
    assert any(isinstance(one, EndAgent) for one in running.effects)


def test_idle_agent_ends_at_once_when_shut_down(world: AgentHarness) -> None:
    world.handle(FromMaster(ShutdownAgent("gone")))
    assert world.effects == [EndAgent("gone")]


def test_agent_sends_update_for_undelivered_task(world: AgentHarness) -> None:
    world.handle(
        FromMaster(RunTask(FRAMEWORK, {"task_id": {"value": "x"}, "executor": {"executor_id": {"value": "e"}}}))
    )
    world.handle(FromMaster(DropTasks("f", ("never",), "TASK_DROPPED")))
    assert world.states() == [("TASK_DROPPED", "TASK_DROPPED")]


def test_agent_retries_update_for_undelivered_task_of_unknown_framework(world: AgentHarness) -> None:
    """The state is that of the master. The update is retried until it is acknowledged."""
    world.handle(FromMaster(DropTasks("f", ("never",), "TASK_LOST")))
    world.wait(60_000)
    told = world.updates()
    assert len(told) > 1
    assert {one.status["state"] for one in told} == {"TASK_LOST"}
    world.acknowledge(told[0].status["uuid"], "never")
    world.wait(600_000)
    assert world.updates() == []


def test_agents_create_different_ids() -> None:
    one, other = AgentHarness(), AgentHarness()
    other.agent = Agent(AgentSettings(salt=8, agent_id="S1"))
    other.link()
    for world in (one, other):
        world.run()
    assert one.container != other.container


# ---- invalid calls ---------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "framework_id",
                    "executor_id",
                    "value",
                    "status",
                    "update",
                    "task_id",
                    "state",
                    "uuid",
                    "subscribe",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(JSON, st.sampled_from(["SUBSCRIBE", "UPDATE", "MESSAGE", "HEARTBEAT"]))
def test_arbitrary_call_body_does_not_break_agent(body: Any, kind: str) -> None:
    world = AgentHarness()
    world.run()
    world.subscribe()
    named = {"framework_id": {"value": "f"}, "executor_id": {"value": "e"}}
    for call in (body, {**named, "type": kind, kind.lower(): body}, {"type": kind, kind.lower(): body}):
        assert isinstance(world.handle(Call(call))[0], (Reply, Subscribed))
