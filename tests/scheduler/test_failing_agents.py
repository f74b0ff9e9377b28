"""Agents on which a job fails again and again are avoided, unless the job itself is at fault."""

from __future__ import annotations

from typing import Any

import pytest
from tests.core_world import Desk, make_app, make_job, make_offer

from jobcloud.messages import AgentLost, FrameworkRemoved, OffersReceived, PutJob, RemoveJob, Trigger

AVOID_MS = 600_000


def desk_with(*agents: str, **job: Any) -> Desk:
    desk = Desk(make_app(), make_job(**job))
    hold(desk, *agents)
    return desk


def hold(desk: Desk, *agents: str, cpus: int = 8) -> None:
    offers = tuple(make_offer(f"o-{agent}-{desk.at}-{len(desk.all)}", agent, cpus=cpus) for agent in agents)
    desk.do(OffersReceived(desk.at, offers))


def attempt(desk: Desk, agent: str, *others: str, state: str = "TASK_FAILED", job: str = "report") -> None:
    """Run the job once while only `agent` has an offer, and end the attempt. The others were offered before."""
    for other in [one.id for one in desk.scheduler.cluster.agents.values() if one.offers]:
        desk.scheduler.cluster.take_offers(other)
    desk.at += 1_000
    desk.do(Trigger(desk.at, job))
    hold(desk, agent)
    desk.run_until_idle()
    for task in desk.running(job):
        desk.status(task, "TASK_RUNNING")
        desk.status(task, state)


def next_agent(desk: Desk, *agents: str, job: str = "report") -> list[str]:
    desk.at += 1_000
    desk.do(Trigger(desk.at, job))
    hold(desk, *agents)
    desk.run_until_idle()
    return [task.agent_id for task in desk.scheduler.tasks.values() if task.job == job]


def first_reason(desk: Desk) -> tuple[str, str, int]:
    reason = desk.scheduler.explain("report", desk.at).reasons[0]
    return reason.code, reason.text, reason.at


@pytest.mark.parametrize("state", ["TASK_FAILED", "TASK_LOST"])
def test_agent_is_avoided_after_three_failures_there_until_they_are_forgotten(state: str) -> None:
    desk = desk_with("a1", "a2")
    for _ in range(2):
        attempt(desk, "a1", state=state)
    assert desk.scheduler._cycle._failing_agents.avoided(desk.scheduler.jobs["report"]) == {}
    attempt(desk, "a1", state=state)
    failed_at = desk.at
    assert next_agent(desk, "a1") == []
    assert first_reason(desk) == ("avoided", "agent host-a1 is avoided after 3 failures there", failed_at + AVOID_MS)
    hold(desk, "a1", "a2")
    desk.run_until_idle()
    (task,) = desk.running()
    assert desk.scheduler.tasks[task].agent_id == "a2"
    for end in ("TASK_RUNNING", "TASK_FINISHED"):
        desk.status(task, end)
    desk.at = failed_at + AVOID_MS - 2_000
    assert next_agent(desk, "a1") == []
    desk.at = failed_at + AVOID_MS
    hold(desk, "a1")
    desk.run_until_idle()
    assert [task.agent_id for task in desk.scheduler.tasks.values()] == ["a1"]
    assert desk.scheduler.indexes()["failing agents"] == {}


def test_waiting_shard_starts_by_itself_when_the_failures_are_forgotten() -> None:
    desk = desk_with("a1", "a2")
    for _ in range(3):
        attempt(desk, "a1")
    assert next_agent(desk, "a1") == []
    assert desk.scheduler.next_wake(desk.at) is not None
    desk.run_until_idle(until_ms=AVOID_MS)
    hold(desk, "a1")
    desk.run_until_idle()
    assert [task.agent_id for task in desk.scheduler.tasks.values()] == ["a1"]


def test_removed_framework_is_no_failure_of_its_agents() -> None:
    desk = desk_with("a1", "a2", shard_count=3)
    desk.do(Trigger(desk.at, "report"))
    hold(desk, "a1")
    desk.run_until_idle()
    for task in desk.running():
        desk.status(task, "TASK_RUNNING")
    assert {task.agent_id for task in desk.scheduler.tasks.values()} == {"a1"}
    desk.do(FrameworkRemoved(desk.at, "an operator removed it"))
    assert desk.scheduler.indexes()["failing agents"] == {}
    assert {shard.avoid_ms for shard in desk.firings()[0].shards} == {0}


def test_success_on_the_agent_forgets_its_failures() -> None:
    desk = desk_with("a1", "a2")
    for state in ("TASK_FAILED", "TASK_FAILED", "TASK_FINISHED", "TASK_FAILED", "TASK_FAILED"):
        attempt(desk, "a1", state=state)
    assert next_agent(desk, "a1") == ["a1"]


def test_job_that_fails_on_all_agents_avoids_none() -> None:
    desk = desk_with("a1", "a2")
    for _ in range(3):
        attempt(desk, "a1")
    attempt(desk, "a2")
    assert next_agent(desk, "a1") == ["a1"]


def test_last_agent_is_never_avoided() -> None:
    desk = desk_with("a1")
    for _ in range(5):
        attempt(desk, "a1")
    assert next_agent(desk, "a1") == ["a1"]


@pytest.mark.parametrize("why", ["lost", "small", "constraint"])
def test_unusable_agent_is_no_alternative(why: str) -> None:
    desk = desk_with("a1", constraints=("host != host-a2",) if why == "constraint" else ())
    hold(desk, "a2", cpus=1 if why == "small" else 8)
    desk.run_until_idle()
    if why == "lost":
        desk.do(AgentLost(desk.at, "a2"))
    for _ in range(3):
        attempt(desk, "a1")
    assert next_agent(desk, "a1") == ["a1"]


def test_job_that_fails_on_many_agents_is_at_fault_itself() -> None:
    agents = [f"a{number}" for number in range(1, 9)]
    desk = desk_with(*agents)
    for agent in agents[:5]:
        for _ in range(3):
            attempt(desk, agent)
    assert next_agent(desk, "a1") == []
    hold(desk, "a6")
    desk.run_until_idle()
    for task in desk.running():
        desk.status(task, "TASK_RUNNING")
        desk.status(task, "TASK_FAILED")
    assert next_agent(desk, "a1") == ["a1"]
    assert len(desk.scheduler.indexes()["failing agents"]["report"]) == 6


def test_memory_of_one_job_is_bounded() -> None:
    agents = [f"a{number}" for number in range(1, 13)]
    desk = desk_with(*agents)
    for agent in agents:
        attempt(desk, agent)
    assert len(desk.scheduler.indexes()["failing agents"]["report"]) == 6


def test_killed_attempts_and_other_jobs_do_not_count() -> None:
    desk = desk_with("a1", "a2")
    desk.do(PutJob(desk.at, make_job("other")))
    for _ in range(4):
        attempt(desk, "a1", job="other")
        attempt(desk, "a1", state="TASK_KILLED")
    assert next_agent(desk, "a1") == ["a1"]
    assert next_agent(desk, "a1", job="other") == []


def test_number_of_failures_is_configured_and_zero_turns_it_off() -> None:
    desk = desk_with("a1", "a2", avoid_after=1)
    attempt(desk, "a1")
    assert next_agent(desk, "a1") == []
    desk.do(PutJob(desk.at, make_job(avoid_after=0), replace=True))
    hold(desk, "a1")
    desk.run_until_idle()
    assert len(desk.running()) == 1
    for _ in range(4):
        attempt(desk, "a1")
    assert desk.scheduler.indexes()["failing agents"] == {}


def test_changed_or_removed_job_forgets_its_failures() -> None:
    desk = desk_with("a1", "a2")
    for _ in range(3):
        attempt(desk, "a1")
    desk.do(PutJob(desk.at, make_job(parameter="new"), replace=True))
    assert next_agent(desk, "a1") == ["a1"]
    for _ in range(3):
        attempt(desk, "a1")
    desk.do(RemoveJob(desk.at, "report"))
    assert desk.scheduler.indexes()["failing agents"] == {}


def test_clock_set_back_makes_no_agent_avoided_for_longer() -> None:
    desk = desk_with("a1", "a2")
    for _ in range(3):
        attempt(desk, "a1")
    desk.at -= 86_400_000
    desk.tick()
    (until,) = desk.scheduler._cycle._failing_agents.avoided(desk.scheduler.jobs["report"]).values()
    assert until == desk.at + AVOID_MS


def test_new_leader_avoids_nothing() -> None:
    desk = desk_with("a1", "a2")
    for _ in range(3):
        attempt(desk, "a1")
    desk.restart()
    hold(desk, "a2")
    desk.run_until_idle()
    for other in ["a2"]:
        desk.scheduler.cluster.take_offers(other)
    assert next_agent(desk, "a1") == ["a1"]
