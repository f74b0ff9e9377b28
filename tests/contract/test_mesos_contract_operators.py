"""Maintenance windows and drained agents. Recorded on a real Mesos 1.11, and holds on both clusters."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.contract.clusters import KINDS, start_cluster
from tests.contract.test_mesos_contract import launch, summary, update_of
from tests.mesos_client import Answer, Cluster, Framework, post

Frameworks = Callable[..., Framework]
Json = dict[str, Any]
HOUR_NS = 3_600 * 10**9


@pytest.fixture(scope="module", params=KINDS)
def spacious_cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Five agents, of which the tests lose three."""
    yield from start_cluster(request.param, tmp_path_factory, 5)


@pytest.fixture(autouse=True)
def _clear_schedule(spacious_cluster: Cluster) -> Iterator[None]:
    yield
    scheduled = operate(spacious_cluster, "GET_MAINTENANCE_STATUS").json()["get_maintenance_status"]["status"]
    if scheduled.get("down_machines"):
        operate(spacious_cluster, "STOP_MAINTENANCE", machines=scheduled["down_machines"])
    schedule(spacious_cluster)


def operate(cluster: Cluster, kind: str, **part: Any) -> Answer:
    return post(cluster.master, "/api/v1", {"type": kind, **({kind.lower(): part} if part else {})})


def machine(offer: Json) -> Json:
    return {"hostname": offer["hostname"], "ip": "127.0.0.1"}


def window(offer: Json, start_ns: int, **more: Any) -> Json:
    return {"machine_ids": [machine(offer)], "unavailability": {"start": {"nanoseconds": start_ns}, **more}}


def schedule(cluster: Cluster, *windows: Json) -> Answer:
    return operate(cluster, "UPDATE_MAINTENANCE_SCHEDULE", schedule={"windows": list(windows)})


def next_inverse_offer(framework: Framework, seconds: float = 60) -> Json:
    """The next inverse offer, which must be alone in its event."""
    (found,) = framework.next("INVERSE_OFFERS", seconds=seconds)["inverse_offers"]["inverse_offers"]
    return dict(found)


def answer_inverse_offer(framework: Framework, verb: str, inverse: Json, refuse_seconds: float = 60.0) -> None:
    body = {"inverse_offer_ids": [inverse["id"]], "filters": {"refuse_seconds": refuse_seconds}}
    assert framework.call(f"{verb}_INVERSE_OFFERS", body).status == 202


def recorded_answers(cluster: Cluster) -> list[tuple[str, str]]:
    """The (status, framework id) pairs that operators see as answers to inverse offers."""
    status = operate(cluster, "GET_MAINTENANCE_STATUS").json()["get_maintenance_status"]["status"]
    found = [one for drained in status.get("draining_machines", ()) for one in drained.get("statuses", ())]
    return [(one["status"], one["framework_id"]["value"]) for one in found]


def agent(cluster: Cluster, agent_id: Json) -> Json:
    agents = operate(cluster, "GET_AGENTS").json()["get_agents"]["agents"]
    return next((dict(one) for one in agents if one["agent_info"]["id"] == agent_id), {})


def wait_until(test: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + 60
    while not (found := test()):
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.05)
    return found


# ---- maintenance -----------------------------------------------------------------------------------------------


def test_maintenance_window_is_announced_by_offers_and_inverse_offer(
    spacious_cluster: Cluster, frameworks: Frameworks
) -> None:
    framework = frameworks(spacious_cluster.master)
    offers = framework.offers(5)
    start = int(time.time() + 3600) * 10**9
    announced = {"start": {"nanoseconds": start}, "duration": {"nanoseconds": HOUR_NS}}
    assert schedule(spacious_cluster, window(offers[0], start, duration=announced["duration"])).status == 200
    rescinded = [framework.next("RESCIND")["rescind"]["offer_id"]["value"] for _ in offers]
    assert sorted(rescinded) == sorted(one["id"]["value"] for one in offers)  # of every agent
    again = framework.offers(5)
    marked = [one for one in again if "unavailability" in one]
    assert [one["agent_id"] for one in marked] == [offers[0]["agent_id"]]
    assert marked[0]["unavailability"] == announced
    inverse = next_inverse_offer(framework)
    assert inverse == {
        "id": inverse["id"],
        "url": marked[0]["url"],
        "framework_id": framework.info["id"],
        "agent_id": offers[0]["agent_id"],
        "unavailability": announced,
    }
    answered = operate(spacious_cluster, "GET_MAINTENANCE_SCHEDULE").json()["get_maintenance_schedule"]
    assert answered == {"schedule": {"windows": [window(offers[0], start, duration=announced["duration"])]}}
    status = operate(spacious_cluster, "GET_MAINTENANCE_STATUS").json()["get_maintenance_status"]
    assert status == {"status": {"draining_machines": [{"id": machine(offers[0])}]}}


def test_answer_to_inverse_offer_is_shown_and_requested_again(
    spacious_cluster: Cluster, frameworks: Frameworks
) -> None:
    framework = frameworks(spacious_cluster.master)
    offer, _ = launch(framework, "t1")
    schedule(spacious_cluster, window(offer, HOUR_NS))
    first = next_inverse_offer(framework)
    assert first["agent_id"] == offer["agent_id"]
    answer_inverse_offer(framework, "DECLINE", first, 1.0)
    wait_until(lambda: recorded_answers(spacious_cluster) == [("DECLINE", framework.id)], "DECLINE")
    second = next_inverse_offer(framework)  # after the filter expires
    answer_inverse_offer(framework, "ACCEPT", second)
    wait_until(lambda: recorded_answers(spacious_cluster) == [("ACCEPT", framework.id)], "ACCEPT")
    answer_inverse_offer(framework, "DECLINE", second)  # ignored: it has been answered
    framework.expect_none("INVERSE_OFFERS", seconds=1.5)
    assert recorded_answers(spacious_cluster) == [("ACCEPT", framework.id)]


def test_framework_without_share_of_agent_gets_no_inverse_offer(
    spacious_cluster: Cluster, frameworks: Frameworks
) -> None:
    first = frameworks(spacious_cluster.master)
    offers = first.offers(5)
    other = frameworks(spacious_cluster.master)
    schedule(spacious_cluster, window({"hostname": "elsewhere"}, HOUR_NS))
    first.call("SUPPRESS")
    schedule(spacious_cluster, window(offers[0], HOUR_NS))
    next_inverse_offer(other)  # it has the offers now
    first.expect_none("INVERSE_OFFERS", seconds=1)


def test_changed_window_replaces_inverse_offer(spacious_cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(spacious_cluster.master)
    offer, _ = launch(framework, "t1")
    schedule(spacious_cluster, window(offer, HOUR_NS))
    first = next_inverse_offer(framework)
    schedule(spacious_cluster, window(offer, 2 * HOUR_NS))
    rescinded = framework.next("RESCIND_INVERSE_OFFER")["rescind_inverse_offer"]
    assert rescinded == {"inverse_offer_id": first["id"]}
    second = next_inverse_offer(framework)
    assert second["unavailability"] == {"start": {"nanoseconds": 2 * HOUR_NS}}
    answer_inverse_offer(framework, "ACCEPT", second)
    wait_until(lambda: recorded_answers(spacious_cluster), "the answer")
    schedule(spacious_cluster, window(offer, 3 * HOUR_NS))
    assert recorded_answers(spacious_cluster) == []  # the old answer was for another window
    third = next_inverse_offer(framework)
    assert third["unavailability"] == {"start": {"nanoseconds": 3 * HOUR_NS}}
    schedule(spacious_cluster)
    framework.next("RESCIND_INVERSE_OFFER")
    framework.expect_none("INVERSE_OFFERS", seconds=1)


def test_resubscribed_scheduler_gets_inverse_offer_again(spacious_cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(spacious_cluster.master)
    offer, _ = launch(framework, "t1")
    schedule(spacious_cluster, window(offer, HOUR_NS))
    answer_inverse_offer(framework, "DECLINE", next_inverse_offer(framework), 600.0)
    framework.stream.close()
    framework.subscribe()
    assert next_inverse_offer(framework)["agent_id"] == offer["agent_id"]


def test_machine_brought_down_loses_its_tasks(spacious_cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(spacious_cluster.master)
    offer, _ = launch(framework, "t1")
    there = [machine(offer)]
    refused = operate(spacious_cluster, "START_MAINTENANCE", machines=there)
    shown_as = f'{{"hostname":"{offer["hostname"]}","ip":"127.0.0.1"}}'
    assert refused.status == 400
    assert refused.body == f"Machine '{shown_as}' is not in DRAINING mode and cannot be brought down"
    schedule(spacious_cluster, window(offer, HOUR_NS))
    inverse = next_inverse_offer(framework)
    assert operate(spacious_cluster, "START_MAINTENANCE", machines=there).status == 200
    status = framework.update("t1", "TASK_LOST")  # and not TASK_UNREACHABLE
    text = f"Agent {offer['hostname']} removed: Operator initiated 'Machine DOWN'"
    assert summary(status) == ("TASK_LOST", "SOURCE_MASTER", "REASON_AGENT_REMOVED", text)
    assert "unreachable_time" not in status
    assert "uuid" not in status
    gone = framework.next("RESCIND_INVERSE_OFFER")["rescind_inverse_offer"]["inverse_offer_id"]
    assert gone == inverse["id"]
    failure = framework.next("FAILURE", where=lambda e: "executor_id" not in e["failure"])
    assert failure["failure"] == {"agent_id": offer["agent_id"]}
    framework.call("RECONCILE", {"tasks": [{"task_id": {"value": "t1"}, "agent_id": offer["agent_id"]}]})
    assert framework.update("t1")["state"] == "TASK_UNKNOWN"
    status = operate(spacious_cluster, "GET_MAINTENANCE_STATUS").json()["get_maintenance_status"]["status"]
    assert status == {"down_machines": there}
    refused = schedule(spacious_cluster)
    assert refused.status == 400
    assert refused.body == f"Machine '{shown_as}' is deactivated and cannot be removed from the schedule"
    assert operate(spacious_cluster, "STOP_MAINTENANCE", machines=there).status == 200
    empty = operate(spacious_cluster, "GET_MAINTENANCE_SCHEDULE").json()["get_maintenance_schedule"]
    assert empty == {"schedule": {}}


def test_bad_schedules_are_refused(spacious_cluster: Cluster) -> None:
    def refusal(*windows: Json) -> str:
        refused = schedule(spacious_cluster, *windows)
        assert refused.status == 400
        return refused.body

    start = {"start": {"nanoseconds": HOUR_NS}}
    x = {"hostname": "x"}
    empty = refusal({"machine_ids": [], "unavailability": start})
    assert empty == "List of machines in the maintenance window is empty"
    nameless = refusal({"machine_ids": [{}], "unavailability": start})
    assert nameless == "Both 'hostname' and 'ip' for a machine are empty"
    missing = "Missing required fields: update_maintenance_schedule.schedule.windows[0].unavailability"
    assert refusal({"machine_ids": [x]}) == f"Failed to convert JSON into Call protobuf: {missing}"
    backwards = refusal({"machine_ids": [x], "unavailability": {**start, "duration": {"nanoseconds": -5}}})
    assert backwards == "Unavailability 'duration' is negative"
    twice = refusal({"machine_ids": [x, x], "unavailability": start})
    assert twice == """Machine '{"hostname":"x"}' appears more than once in the schedule"""
    part = operate(spacious_cluster, "UPDATE_MAINTENANCE_SCHEDULE")
    assert part.body == "Failed to validate master::Call: Expecting 'update_maintenance_schedule' to be present"
    none = operate(spacious_cluster, "START_MAINTENANCE", machines=[])
    assert (none.status, none.body) == (400, "List of machines is empty")
    unknown = operate(spacious_cluster, "STOP_MAINTENANCE", machines=[{"hostname": "y"}])
    assert unknown.body == """Machine '{"hostname":"y"}' is not part of a maintenance schedule"""


# ---- drained agents --------------------------------------------------------------------------------------------


def test_agent_drained_with_mark_gone_is_gone_afterwards(spacious_cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(spacious_cluster.master)
    offer, _ = launch(framework, "t1")
    assert operate(spacious_cluster, "DRAIN_AGENT", agent_id=offer["agent_id"], mark_gone=True).status == 200
    assert framework.reported("KILL")["event"]["kill"] == {"task_id": {"value": "t1"}}
    framework.command(offer["agent_id"], "e", update_of("t1", "TASK_KILLED"))
    status = framework.update("t1")
    assert summary(status) == ("TASK_GONE_BY_OPERATOR", "SOURCE_EXECUTOR", "REASON_AGENT_DRAINING", None)
    failure = framework.next("FAILURE", where=lambda e: "executor_id" not in e["failure"])
    assert failure["failure"] == {"agent_id": offer["agent_id"]}
    wait_until(lambda: not agent(spacious_cluster, offer["agent_id"]), "its end")


def test_deactivated_agent_is_not_offered_until_reactivated(spacious_cluster: Cluster, frameworks: Frameworks) -> None:
    framework = frameworks(spacious_cluster.master)
    offer, _ = launch(framework, "t1")
    framework.call("REVIVE")
    rest = framework.offers(1, agent=offer["agent_id"]["value"])[0]
    refused = operate(spacious_cluster, "REACTIVATE_AGENT", agent_id=offer["agent_id"])
    assert (refused.status, refused.body) == (400, "Agent is not deactivated")
    assert operate(spacious_cluster, "DEACTIVATE_AGENT", agent_id=offer["agent_id"]).status == 200
    assert framework.next("RESCIND")["rescind"]["offer_id"] == rest["id"]
    framework.command(offer["agent_id"], "e", update_of("t1", "TASK_FINISHED"))
    assert summary(framework.update("t1"))[0] == "TASK_FINISHED"  # running tasks continue
    framework.expect_none("OFFERS", seconds=1)
    assert operate(spacious_cluster, "REACTIVATE_AGENT", agent_id=offer["agent_id"]).status == 200
    framework.offers(1, agent=offer["agent_id"]["value"])


def test_unknown_agents_cannot_be_drained(spacious_cluster: Cluster) -> None:
    for kind, text in (
        ("DRAIN_AGENT", "Unknown agent"),
        ("DEACTIVATE_AGENT", "Unknown agent"),
        ("REACTIVATE_AGENT", "Agent is not deactivated"),
    ):
        refused = operate(spacious_cluster, kind, agent_id={"value": "nobody"})
        assert (refused.status, refused.body) == (400, text)
        assert operate(spacious_cluster, kind).status == 400


def test_tasks_of_drained_agent_are_killed_with_reason(spacious_cluster: Cluster, frameworks: Frameworks) -> None:
    # Must be the last test: after a reactivation, Mesos' agent drops tasks for a while as if it were still draining.
    framework = frameworks(spacious_cluster.master)
    offer, _ = launch(framework, "t1")
    agent_id = offer["agent_id"]
    grace = {"nanoseconds": HOUR_NS}
    drain = operate(spacious_cluster, "DRAIN_AGENT", agent_id=agent_id, max_grace_period={"seconds": 3600})
    assert drain.status == 200
    kill = framework.reported("KILL")["event"]["kill"]
    assert kill == {"task_id": {"value": "t1"}, "kill_policy": {"grace_period": grace}}
    drained = agent(spacious_cluster, agent_id)
    assert (drained.get("active"), drained["deactivated"]) == (False, True)
    assert drained["drain_info"] == {"state": "DRAINING", "config": {"max_grace_period": grace, "mark_gone": False}}
    refused = operate(spacious_cluster, "REACTIVATE_AGENT", agent_id=agent_id)
    assert (refused.status, refused.body) == (400, "Agent is still in the DRAINING state")
    framework.command(agent_id, "e", update_of("t1", "TASK_KILLED"))
    status = framework.update("t1")
    assert summary(status) == ("TASK_KILLED", "SOURCE_EXECUTOR", "REASON_AGENT_DRAINING", None)
    wait_until(lambda: agent(spacious_cluster, agent_id)["drain_info"]["state"] == "DRAINED", "DRAINED")
    framework.expect_none(
        "OFFERS", seconds=1, where=lambda e: any(o["agent_id"] == agent_id for o in e["offers"]["offers"])
    )
    assert operate(spacious_cluster, "REACTIVATE_AGENT", agent_id=agent_id).status == 200
    framework.call("REVIVE")
    framework.offers(1, agent=agent_id["value"])
    assert "drain_info" not in agent(spacious_cluster, agent_id)
