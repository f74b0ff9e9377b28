"""The dev master as a pure state machine: behaviour that a local Mesos cannot show, and invariants."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobcloud.dev.master import Master, MasterSettings
from jobcloud.dev.protocol import (
    AcknowledgeUpdate,
    AgentTimedOut,
    Call,
    Close,
    DropTasks,
    ExecutorExited,
    FrameworkUpdated,
    FromAgent,
    KillTask,
    LinkLost,
    Operate,
    RegisterAgent,
    Reply,
    RescindOffer,
    RunTask,
    Send,
    ShutdownAgent,
    ShutdownFramework,
    StreamLost,
    Subscribed,
    TaskReport,
    Tick,
    ToAgent,
    UpdateStatus,
)
from jobcloud.dev.resources import NOTHING, Resources, parse
from jobcloud.dev.schema import uuid_of
from jobcloud.wire import encode_data

AGENT = parse("cpus:4;mem:4096;ports:[31000-31009]")
UUIDS = (encode_data(uuid_of(1, number)) for number in itertools.count())


class MasterHarness:
    """A master, and the events and messages that it has sent."""

    def __init__(self, **more: Any) -> None:
        self.at = 1_000_000
        self.master = Master(MasterSettings(**more), self.at)
        self.events: list[dict[str, Any]] = []
        self.messages: list[Any] = []
        self.closed: list[str] = []

    def handle(self, event: Any) -> list[Any]:
        effects = self.master.handle(event, self.at)
        for effect in effects:
            if isinstance(effect, Send):
                self.events.append(effect.event)
            elif isinstance(effect, ToAgent):
                self.messages.append(effect.message)
            elif isinstance(effect, Close):
                self.closed.append(effect.stream_id)
        self.check()
        return effects

    def check(self) -> None:
        """Each amount of an agent's resources is free, offered or used, and counted once."""
        allocator = self.master.state.allocator
        for agent_id, agent in self.master.state.agents.items():
            total = allocator.agents[agent_id].free + agent.used()
            for offer in agent.offers.values():
                total = total + offer.resources
            assert total.scalars == agent.total.scalars
            assert total.ranges == agent.total.ranges
        for framework_id, client in allocator.clients.items():
            counted = sum((Counter(counts) for counts in client.allocated.values()), Counter())
            assert counted == self.charged(framework_id)

    def charged(self, framework_id: str) -> dict[str, int]:
        framework, total = self.master.state.frameworks[framework_id], NOTHING
        for offer in framework.offers.values():
            total = total + offer.resources
        for agent in self.master.state.agents.values():
            for (owner, _), executor in agent.executors.items():
                total = total + (executor.resources if owner == framework_id else NOTHING)
        for task in framework.tasks.values():
            total = total + (NOTHING if task.terminal else task.resources)
        return {name: amount for (name, _), amount in total.scalars.items() if amount}

    def wait(self, ms: int) -> None:
        """Let time pass, with a Tick for each timer."""
        end = self.at + ms
        while (due := self.master.next_at()) is not None and due <= end:
            self.at = max(self.at, due)
            self.handle(Tick())
        self.at = end

    def agent(self, link: str = "a", agent_id: str = "", resources: Resources = AGENT, **more: Any) -> str:
        self.handle(FromAgent(link, RegisterAgent(agent_id, f"{link}.host", 1, resources, **more)))
        return agent_id or next(one.agent_id for one in self.master.state.agents.values() if one.link == link)

    def framework(self, *capabilities: str, **info: Any) -> Framework:
        return Framework(self, capabilities or ("PARTITION_AWARE",), info)

    def take_events(self, kind: str) -> list[Any]:
        """Take the bodies of all events of a kind."""
        found = [event.get(kind.lower()) for event in self.events if event["type"] == kind]
        self.events = [event for event in self.events if event["type"] != kind]
        return found

    def statuses(self) -> list[tuple[str, str, str]]:
        return [
            (one["status"]["task_id"]["value"], one["status"]["state"], one["status"].get("reason", ""))
            for one in self.take_events("UPDATE")
        ]

    def offers(self) -> list[Any]:
        return [offer for body in self.take_events("OFFERS") for offer in body["offers"]]

    def update(self, framework_id: str, task_id: str, state: str, link: str = "a", latest: str = "") -> str:
        uuid = next(UUIDS)
        status = {"task_id": {"value": task_id}, "state": state, "uuid": uuid}
        self.handle(FromAgent(link, UpdateStatus(framework_id, status, latest or state)))
        return uuid


class Framework:
    def __init__(self, world: MasterHarness, capabilities: tuple[str, ...], info: dict[str, Any]) -> None:
        self.world = world
        kinds = [{"type": one} for one in ("MULTI_ROLE", *capabilities)]
        self.info = {"user": "u", "name": "n", "capabilities": kinds, "roles": ["*"], "failover_timeout": 60.0, **info}
        self.stream_id = ""
        self.subscribe()

    def subscribe(self) -> list[Any]:
        call: dict[str, Any] = {"type": "SUBSCRIBE", "subscribe": {"framework_info": self.info}}
        if "id" in self.info:
            call["framework_id"] = self.info["id"]
        effects = self.world.handle(Call(call))
        self.stream_id = effects[0].stream_id
        if effects[1].event["type"] == "SUBSCRIBED":
            self.info["id"] = effects[1].event["subscribed"]["framework_id"]
        return effects

    @property
    def id(self) -> str:
        return str(self.info["id"]["value"])

    def call(self, kind: str, body: Any = None) -> Any:
        call = {"type": kind, "framework_id": self.info["id"]}
        if body is not None:
            call[kind.lower()] = body
        return self.world.handle(Call(call, self.stream_id))[0]

    def task(self, name: str, agent_id: str, cpus: float = 1, executor: str = "e") -> dict[str, Any]:
        one = {"name": "cpus", "type": "SCALAR", "scalar": {"value": cpus}}
        own = {"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}}
        info = {"executor_id": {"value": executor}, "command": {"value": "x"}, "resources": [own]}
        return {
            "name": name,
            "task_id": {"value": name},
            "agent_id": {"value": agent_id},
            "resources": [one],
            "executor": info,
        }

    def launch(self, *names: str, offer: Any = None, cpus: float = 1) -> None:
        offer = offer or self.world.offers()[0]
        tasks = [self.task(name, offer["agent_id"]["value"], cpus) for name in names]
        operation = {"type": "LAUNCH", "launch": {"task_infos": tasks}}
        accept = {"offer_ids": [offer["id"]], "operations": [operation]}
        assert self.call("ACCEPT", accept) == Reply(202)

    def acknowledge(self, task_id: str, agent_id: str, uuid: str) -> None:
        self.call("ACKNOWLEDGE", {"task_id": {"value": task_id}, "agent_id": {"value": agent_id}, "uuid": uuid})

    def reconcile(self, *tasks: tuple[str, str]) -> list[tuple[str, str, str]]:
        asked = [{"task_id": {"value": t}, **({"agent_id": {"value": a}} if a else {})} for t, a in tasks]
        self.call("RECONCILE", {"tasks": asked})
        return self.world.statuses()


@pytest.fixture
def world() -> MasterHarness:
    return MasterHarness()


# ---- loss of agents --------------------------------------------------------------------------------------------


def test_lost_agent_makes_tasks_unreachable_and_rescinds_offers(world: MasterHarness) -> None:
    agent_id = world.agent()
    framework = world.framework()
    framework.launch("t")
    world.wait(10_000)
    assert len(world.offers()) == 1
    world.handle(AgentTimedOut(agent_id))
    assert world.statuses() == [("t", "TASK_UNREACHABLE", "REASON_AGENT_REMOVED")]
    assert len(world.take_events("RESCIND")) == 1
    assert world.take_events("FAILURE") == [{"agent_id": {"value": agent_id}}]
    assert framework.reconcile(("t", agent_id)) == [("t", "TASK_UNREACHABLE", "REASON_RECONCILIATION")]
    assert framework.reconcile(("t", "")) == [("t", "TASK_UNKNOWN", "REASON_RECONCILIATION")]


def test_framework_without_partition_awareness_loses_tasks(world: MasterHarness) -> None:
    agent_id = world.agent()
    framework = world.framework("GPU_RESOURCES")
    framework.launch("t")
    world.handle(AgentTimedOut(agent_id))
    assert world.statuses() == [("t", "TASK_LOST", "REASON_AGENT_REMOVED")]


def test_lost_agent_returns_with_its_tasks(world: MasterHarness) -> None:
    agent_id = world.agent()
    framework = world.framework(checkpoint=True)
    framework.launch("t")
    task = next(one.task for one in world.messages if isinstance(one, RunTask))
    world.handle(AgentTimedOut(agent_id))
    world.statuses()
    report = TaskReport(framework.id, task, "e", "TASK_RUNNING", ())
    world.agent("a", agent_id, tasks=(report,), frameworks=(framework.info,))
    assert world.statuses() == [("t", "TASK_RUNNING", "REASON_AGENT_REREGISTERED")]
    assert framework.reconcile(("t", agent_id)) == [("t", "TASK_RUNNING", "REASON_RECONCILIATION")]
    assert not any(isinstance(one, KillTask) for one in world.messages)


def test_broken_link_rescinds_offers_and_waits_for_agent(world: MasterHarness) -> None:
    agent_id = world.agent()
    framework = world.framework(checkpoint=True)
    framework.launch("t")
    task = next(one.task for one in world.messages if isinstance(one, RunTask))
    world.wait(10_000)
    world.handle(LinkLost("a"))
    assert len(world.take_events("RESCIND")) == 1
    assert world.statuses() == []
    framework.call("KILL", {"task_id": {"value": "t"}})
    report = TaskReport(framework.id, task, "e", "TASK_RUNNING", ())
    world.agent("b", agent_id, tasks=(report,), frameworks=(framework.info,))
    assert KillTask(framework.id, "t") in world.messages  # sent again over the new link
    world.update(framework.id, "t", "TASK_KILLED", "b")
    assert world.statuses() == [("t", "TASK_KILLED", "")]


def test_agent_that_does_not_return_in_time_is_unreachable(world: MasterHarness) -> None:
    world.agent()
    framework = world.framework(checkpoint=True)
    framework.launch("t")
    world.handle(LinkLost("a"))
    world.wait(599_000)
    assert world.statuses() == []
    world.wait(2_000)
    assert world.statuses() == [("t", "TASK_UNREACHABLE", "REASON_AGENT_REMOVED")]


def test_new_agent_at_the_same_address_replaces_a_disconnected_one(world: MasterHarness) -> None:
    """An agent whose first registration was answered in vain has no id when it comes back."""
    first = world.agent()
    framework = world.framework(checkpoint=True)
    framework.launch("t")
    world.handle(LinkLost("a"))
    second = world.agent()
    assert second != first
    assert list(world.master.state.agents) == [second]
    assert world.statuses() == [("t", "TASK_LOST", "REASON_AGENT_REMOVED")]
    world.wait(601_000)
    framework.launch("u")
    world.update(framework.id, "u", "TASK_RUNNING")
    assert world.statuses() == [("u", "TASK_RUNNING", "")], "the link belongs to the second agent"


def test_agent_that_asks_again_without_an_id_gets_the_same_one(world: MasterHarness) -> None:
    assert world.agent() == world.agent()
    assert len(world.master.state.agents) == 1


def test_broken_link_ends_tasks_without_checkpointing(world: MasterHarness) -> None:
    world.agent()
    framework = world.framework()
    framework.launch("t")
    world.handle(LinkLost("a"))
    assert world.statuses() == [("t", "TASK_LOST", "REASON_AGENT_DISCONNECTED")]


@pytest.mark.parametrize(
    ("capability", "state"), [("PARTITION_AWARE", "TASK_DROPPED"), ("TASK_KILLING_STATE", "TASK_LOST")]
)
def test_returning_agent_must_drop_undelivered_tasks(world: MasterHarness, capability: str, state: str) -> None:
    agent_id = world.agent()
    framework = world.framework(capability, checkpoint=True)
    framework.launch("t")
    world.handle(LinkLost("a"))
    world.agent("a", agent_id)
    assert DropTasks(framework.id, ("t",), state) in world.messages


def test_agent_marked_gone_is_shut_down_and_not_readmitted(world: MasterHarness) -> None:
    agent_id = world.agent()
    framework = world.framework()
    framework.launch("t")
    gone = Operate({"type": "MARK_AGENT_GONE", "mark_agent_gone": {"agent_id": {"value": agent_id}}})
    assert world.handle(gone)[0] == Reply(200)
    assert ShutdownAgent("Agent has been marked gone") in world.messages
    assert world.statuses() == [("t", "TASK_GONE_BY_OPERATOR", "REASON_AGENT_REMOVED_BY_OPERATOR")]
    world.messages.clear()
    world.handle(FromAgent("a", RegisterAgent(agent_id, "h", 1, AGENT)))
    assert world.messages == [ShutdownAgent("Agent has been marked gone")]


def test_unreachable_agent_can_be_marked_gone(world: MasterHarness) -> None:
    agent_id = world.agent()
    framework = world.framework()
    framework.launch("t")
    world.handle(AgentTimedOut(agent_id))
    world.statuses()
    world.handle(Operate({"type": "MARK_AGENT_GONE", "mark_agent_gone": {"agent_id": {"value": agent_id}}}))
    assert world.statuses() == [("t", "TASK_GONE_BY_OPERATOR", "REASON_AGENT_REMOVED_BY_OPERATOR")]
    assert framework.reconcile(("t", agent_id)) == [("t", "TASK_GONE_BY_OPERATOR", "REASON_RECONCILIATION")]


# ---- restart of the master -------------------------------------------------------------------------------------


def test_reconciliation_waits_for_recovering_agents(world: MasterHarness) -> None:
    world.master.expect_agents(["dev-S7"], world.at)
    framework = world.framework(id={"value": "old"})
    assert framework.reconcile(("t", "dev-S7"), ("u", "")) == []
    assert framework.reconcile(("v", "elsewhere")) == [("v", "TASK_UNKNOWN", "REASON_RECONCILIATION")]
    world.agent("a", "dev-S7")
    assert framework.reconcile(("t", "dev-S7"), ("u", "")) == [
        ("t", "TASK_GONE", "REASON_RECONCILIATION"),
        ("u", "TASK_UNKNOWN", "REASON_RECONCILIATION"),
    ]


def test_agent_missing_after_master_restart_becomes_unreachable(world: MasterHarness) -> None:
    world.master.expect_agents(["dev-S7"], world.at)
    framework = world.framework(id={"value": "old"})
    world.wait(600_001)
    assert world.take_events("FAILURE") == [{"agent_id": {"value": "dev-S7"}}]
    assert framework.reconcile(("t", "dev-S7")) == [("t", "TASK_UNREACHABLE", "REASON_RECONCILIATION")]


def test_new_agent_does_not_get_id_of_recovering_agent(world: MasterHarness) -> None:
    world.master.expect_agents(["dev-S7"], world.at)
    assert world.agent("b") == "dev-S8"


def test_framework_is_recovered_from_agents_before_it_subscribes(world: MasterHarness) -> None:
    old = MasterHarness()
    old.agent()
    owner = old.framework(checkpoint=True)
    owner.launch("t")
    task = next(one.task for one in old.messages if isinstance(one, RunTask))
    report = TaskReport(owner.id, task, "e", "TASK_RUNNING", ({"state": "TASK_RUNNING"},), "TASK_RUNNING", next(UUIDS))
    world.master.expect_agents(["dev-S0"], world.at)
    agent_id = world.agent("a", "dev-S0", tasks=(report,), frameworks=(owner.info,))
    assert world.master.state.frameworks[owner.id].recovered
    assert world.offers() == []
    back = world.framework(id=owner.info["id"], checkpoint=True)
    assert back.reconcile() == [("t", "TASK_RUNNING", "REASON_RECONCILIATION")]
    uuid = world.update(owner.id, "t", "TASK_FINISHED")
    assert world.statuses() == [("t", "TASK_FINISHED", "")]
    back.acknowledge("t", agent_id, uuid)
    assert AcknowledgeUpdate(owner.id, "t", uuid) in world.messages
    assert back.reconcile() == []


def test_returning_agent_must_shut_down_removed_framework(world: MasterHarness) -> None:
    agent_id = world.agent()
    framework = world.framework(checkpoint=True)
    framework.launch("t")
    world.handle(LinkLost("a"))
    framework.call("TEARDOWN")
    world.messages.clear()
    world.agent("a", agent_id, frameworks=(framework.info,))
    assert ShutdownFramework(framework.id) in world.messages


# ---- frameworks ------------------------------------------------------------------------------------------------


def test_framework_is_removed_after_failover_timeout(world: MasterHarness) -> None:
    world.agent()
    framework = world.framework()
    framework.launch("t")
    world.handle(StreamLost(framework.stream_id))
    world.wait(59_000)
    assert framework.id in world.master.state.frameworks
    world.wait(2_000)
    assert framework.id not in world.master.state.frameworks
    assert ShutdownFramework(framework.id) in world.messages
    effects = framework.subscribe()
    assert effects[1].event["error"]["message"] == "Framework has been removed"
    assert isinstance(effects[2], Close)


def test_framework_that_returns_within_failover_timeout_stays(world: MasterHarness) -> None:
    framework = world.framework()
    world.handle(StreamLost(framework.stream_id))
    world.wait(30_000)
    framework.subscribe()
    world.wait(120_000)
    assert framework.id in world.master.state.frameworks


def test_heartbeats_come_at_once_and_then_at_interval(world: MasterHarness) -> None:
    world.framework()
    assert len(world.take_events("HEARTBEAT")) == 1
    world.wait(45_000)
    assert len(world.take_events("HEARTBEAT")) == 3


def test_new_subscription_ends_heartbeat_of_old_stream(world: MasterHarness) -> None:
    framework = world.framework()
    framework.subscribe()
    world.take_events("HEARTBEAT")
    world.wait(15_000)
    assert len(world.take_events("HEARTBEAT")) == 1


def test_agents_get_changed_framework_info(world: MasterHarness) -> None:
    world.agent()
    framework = world.framework()
    framework.info["name"] = "renamed"
    framework.subscribe()
    assert [one.framework["name"] for one in world.messages if isinstance(one, FrameworkUpdated)] == ["renamed"]


def test_update_for_disconnected_scheduler_is_left_to_agent_retry(world: MasterHarness) -> None:
    world.agent()
    framework = world.framework()
    framework.launch("t")
    world.handle(StreamLost(framework.stream_id))
    world.update(framework.id, "t", "TASK_RUNNING")
    assert world.statuses() == []
    framework.subscribe()
    assert framework.reconcile() == [("t", "TASK_RUNNING", "REASON_RECONCILIATION")]


def test_operations_other_than_launch_are_refused(world: MasterHarness) -> None:
    agent_id = world.agent()
    framework = world.framework()
    offer = world.offers()[0]
    group = {"type": "LAUNCH_GROUP", "launch_group": {"task_group": {"tasks": [framework.task("t", agent_id)]}}}
    reserve = {"type": "RESERVE", "id": {"value": "r"}}
    framework.call("ACCEPT", {"offer_ids": [offer["id"]], "operations": [group, reserve]})
    assert world.statuses() == [("t", "TASK_ERROR", "REASON_TASK_INVALID")]
    assert world.take_events("UPDATE_OPERATION_STATUS")[0]["status"]["state"] == "OPERATION_ERROR"


# ---- offers ----------------------------------------------------------------------------------------------------


def test_task_resources_are_freed_at_end_not_at_acknowledgement(world: MasterHarness) -> None:
    agent_id = world.agent()
    framework = world.framework()
    framework.launch("t", cpus=3.9)
    world.wait(6_000)
    world.offers()
    world.update(framework.id, "t", "TASK_RUNNING", latest="TASK_FINISHED")
    world.wait(1_000)
    assert [one["resources"][0]["scalar"]["value"] for one in world.offers()] == [3.9]
    assert "t" in world.master.state.frameworks[framework.id].tasks
    uuid = world.update(framework.id, "t", "TASK_FINISHED")
    framework.acknowledge("t", agent_id, uuid)
    assert "t" not in world.master.state.frameworks[framework.id].tasks


def test_executor_exit_frees_its_resources(world: MasterHarness) -> None:
    agent_id = world.agent()
    framework = world.framework()
    framework.launch("t")
    uuid = world.update(framework.id, "t", "TASK_FINISHED")
    framework.acknowledge("t", agent_id, uuid)
    world.handle(FromAgent("a", ExecutorExited(framework.id, "e", 256)))
    failure = {"agent_id": {"value": agent_id}, "executor_id": {"value": "e"}, "status": 256}
    assert world.take_events("FAILURE") == [failure]
    assert world.master.state.agents[agent_id].used() == NOTHING


def test_frameworks_share_agents_fairly(world: MasterHarness) -> None:
    first = world.framework()
    for number in range(8):
        world.agent(f"a{number}")
    held = world.offers()
    second = world.framework()
    first.call("DECLINE", {"offer_ids": [one["id"] for one in held], "filters": {"refuse_seconds": 0}})
    world.wait(1_000)
    shares = [one["framework_id"]["value"] for one in world.offers()]
    assert (shares.count(first.id), shares.count(second.id)) == (4, 4)


def test_reserved_resources_are_offered_to_their_role_only() -> None:
    world = MasterHarness()
    world.agent(resources=parse("cpus(batch):2;cpus:1;mem:64"))
    other = world.framework(roles=["other"])
    assert [one["scalar"]["value"] for one in world.offers()[0]["resources"] if one["name"] == "cpus"] == [1.0]
    batch = world.framework(roles=["batch"])
    world.wait(1_000)
    offer = next(one for one in world.offers() if one["framework_id"]["value"] == batch.id)
    assert [(one["role"], one["scalar"]["value"]) for one in offer["resources"]] == [("batch", 2.0)]
    assert other.id != batch.id


def test_gpu_agent_is_offered_to_gpu_aware_frameworks_only(world: MasterHarness) -> None:
    world.agent(resources=parse("cpus:1;mem:64;gpus:1"))
    world.framework()
    assert world.offers() == []
    world.framework("GPU_RESOURCES")
    assert len(world.offers()) == 1


def test_filter_hides_refused_amount_but_not_larger_one(world: MasterHarness) -> None:
    agent_id = world.agent()
    framework = world.framework()
    framework.launch("t")
    world.wait(6_000)
    rest = world.offers()[0]
    framework.call("DECLINE", {"offer_ids": [rest["id"]], "filters": {"refuse_seconds": 600}})
    world.wait(10_000)
    assert world.offers() == []
    world.update(framework.id, "t", "TASK_FINISHED")
    world.wait(1_000)
    assert [one["agent_id"]["value"] for one in world.offers()] == [agent_id]


def test_offers_time_out_if_configured() -> None:
    world = MasterHarness(offer_timeout_ms=3_000)
    world.agent()
    world.framework()
    first = world.offers()[0]
    world.wait(3_000)
    assert world.take_events("RESCIND") == [{"offer_id": first["id"]}]
    world.wait(1_000)
    assert len(world.offers()) == 1


def test_unused_ports_are_offered_as_ranges(world: MasterHarness) -> None:
    agent_id = world.agent()
    framework = world.framework()
    offer = world.offers()[0]
    task = framework.task("t", agent_id)
    task["resources"].append({"name": "ports", "type": "RANGES", "ranges": {"range": [{"begin": 31003, "end": 31004}]}})
    operation = {"type": "LAUNCH", "launch": {"task_infos": [task]}}
    framework.call("ACCEPT", {"offer_ids": [offer["id"]], "operations": [operation], "filters": {"refuse_seconds": 0}})
    world.wait(1_000)
    ports = next(one for one in world.offers()[0]["resources"] if one["name"] == "ports")
    assert ports["ranges"]["range"] == [{"begin": 31000, "end": 31002}, {"begin": 31005, "end": 31009}]


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
                    "value",
                    "accept",
                    "offer_ids",
                    "operations",
                    "launch",
                    "task_infos",
                    "resources",
                    "subscribe",
                    "framework_info",
                    "filters",
                    "reconcile",
                    "tasks",
                    "kill",
                    "task_id",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(JSON, st.sampled_from(["SUBSCRIBE", "ACCEPT", "DECLINE", "KILL", "RECONCILE", "ACKNOWLEDGE", "MESSAGE"]))
def test_arbitrary_call_body_does_not_break_master(body: Any, kind: str) -> None:
    world = MasterHarness()
    world.agent()
    framework = world.framework()
    for call in (
        body,
        {"type": kind, "framework_id": framework.info["id"], kind.lower(): body},
        {"type": kind, kind.lower(): body},
    ):
        effects = world.handle(Call(call, framework.stream_id if kind != "SUBSCRIBE" else None))
        assert isinstance(effects[0], (Reply, Subscribed))
        world.handle(Operate(call))


def paths(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to all parts of a JSON value."""
    found = [above] if above else []
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        found += paths(inner, (*above, key))
    return found


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    made = json.loads(json.dumps(value))
    at = made
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = by
    return made


JUNK: list[Any] = [
    None,
    "",
    "x",
    -1,
    0,
    10**30,
    1e308,
    True,
    [],
    {},
    [None],
    {"value": None},
    {"value": 7},
    "\u0000",
    [[]],
]


def test_invalid_field_of_call_does_not_break_master() -> None:
    world = MasterHarness()
    agent_id = world.agent(resources=parse("cpus:4000;mem:4096000;ports:[31000-31999]"))
    framework = world.framework()
    offer = world.offers()[0]
    task = framework.task("t", agent_id)
    ports = {"name": "ports", "type": "RANGES", "ranges": {"range": [{"begin": 1, "end": 2}]}, "role": "*"}
    task["resources"].append({**ports, "allocation_info": {"role": "*"}, "reservations": []})
    task.update(kill_policy={"grace_period": {"nanoseconds": 1}}, data="AAAA", labels={"labels": [{"key": "a"}]})
    variables = {"variables": [{"name": "A", "value": "1", "type": "VALUE"}]}
    uris = [{"value": "/x", "extract": True, "output_file": "y"}]
    task["executor"]["command"].update(uris=uris, environment=variables, shell=True, arguments=["a"])
    task["executor"].update(shutdown_grace_period={"nanoseconds": 1}, framework_id=framework.info["id"], type="CUSTOM")
    launch = {"type": "LAUNCH", "launch": {"task_infos": [task]}}
    accept = {"offer_ids": [offer["id"]], "operations": [launch], "filters": {"refuse_seconds": 0}}
    uuid = next(UUIDS)
    one = {"task_id": {"value": "t"}, "agent_id": {"value": agent_id}}
    calls = {
        "ACCEPT": accept,
        "DECLINE": {"offer_ids": [offer["id"]], "filters": {"refuse_seconds": 1}},
        "RECONCILE": {"tasks": [one]},
        "ACKNOWLEDGE": {**one, "uuid": uuid},
        "KILL": {**one, "kill_policy": {"grace_period": {"nanoseconds": 1}}},
        "MESSAGE": {"agent_id": one["agent_id"], "executor_id": {"value": "e"}, "data": "AAAA"},
        "REVIVE": {"roles": ["*"]},
        "UPDATE_FRAMEWORK": {"framework_info": framework.info, "suppressed_roles": []},
        "SUBSCRIBE": {"framework_info": {**framework.info, "id": None, "principal": "p"}, "suppressed_roles": []},
    }
    for kind, body in calls.items():
        call = {"type": kind, kind.lower(): body}
        if kind != "SUBSCRIBE":
            call["framework_id"] = framework.info["id"]
        for path in paths(call):
            for junk in JUNK:
                if kind == "ACCEPT":  # use a valid offer and a new task id each time
                    world.wait(1_000)
                    offer = [offer, *world.offers()][-1]
                    accept["offer_ids"], task["task_id"] = [offer["id"]], {"value": f"t{len(world.messages)}"}
                changed = replaced(call, path, junk)
                stream = None if kind == "SUBSCRIBE" else framework.stream_id
                assert isinstance(world.handle(Call(changed, stream))[0], (Reply, Subscribed))
        world.events.clear()


# ---- random events ---------------------------------------------------------------------------------------------

MOVES = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 9)), max_size=60)


@settings(max_examples=120, derandomize=True, deadline=None)
@given(MOVES)
def test_resource_amounts_add_up_after_random_events(moves: list[tuple[int, int]]) -> None:
    world = MasterHarness()
    frameworks = [world.framework(checkpoint=True), world.framework("GPU_RESOURCES")]
    links = ["a", "b", "c"]
    known = {link: world.agent(link) for link in links}
    count = itertools.count()
    for move, number in moves:
        framework, link = frameworks[number % 2], links[number % 3]
        mine = [one for one in world.master.state.offers.values() if one.framework_id == framework.id]
        tasks = list(world.master.state.frameworks[framework.id].tasks.values())
        if move in (0, 1, 2) and mine:
            offer = mine[number % len(mine)]
            shown = {"id": {"value": offer.offer_id}, "agent_id": {"value": offer.agent_id}}
            framework.launch(*(f"t{next(count)}" for _ in range(1 + number % 4)), offer=shown)
        elif move in (3, 4) and tasks:
            task = tasks[number % len(tasks)]
            state = ("TASK_RUNNING", "TASK_FINISHED")[move - 3]
            at = world.master.state.agents[task.agent_id]
            uuid = world.update(framework.id, task.task_id, state, at.link)
            if number % 2:
                framework.acknowledge(task.task_id, task.agent_id, uuid)
        elif move == 5 and mine:
            refuse = {"refuse_seconds": number}
            framework.call("DECLINE", {"offer_ids": [{"value": one.offer_id} for one in mine], "filters": refuse})
        elif move == 6:
            world.handle(LinkLost(link))
        elif move == 7:
            world.handle(AgentTimedOut(known[link]))
        elif move == 8:
            agent = world.master.state.agents.get(known[link])
            reports = [
                TaskReport(one.framework_id, one.info, one.executor_id, one.state, ())
                for one in (agent.tasks.values() if agent else [])
            ]
            infos = tuple(one.info for one in frameworks)
            world.agent(link, known[link], tasks=tuple(reports), frameworks=infos)
        elif move == 9:
            framework.subscribe()
        elif move == 10 and world.master.state.offers:
            world.handle(RescindOffer(next(iter(world.master.state.offers))))
        elif move == 11:
            world.handle(FromAgent(link, ExecutorExited(framework.id, "e", 0)))
        world.wait(number * 300)
