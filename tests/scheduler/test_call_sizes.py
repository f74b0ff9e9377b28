"""The size of launch calls: they are limited, and a refused one stops only the job that is at fault."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.core_world import POLICY, Desk, make_app, make_job, make_offer, of

from jobcloud.adapters.mesos.wire import dumps, launch_operation
from jobcloud.config import Resources
from jobcloud.messages import Accept, Decline, Publish, PutJob, Reconcile, SendFailed, Topic, Trigger
from jobcloud.model import ShardState

SMALL = {"resources": make_job().resources._replace(cpus=10, mem=1_000)}


def desk(jobs: list[dict[str, Any]], **policy: Any) -> Desk:
    made = [make_job(f"job{number}", **(SMALL | fields)) for number, fields in enumerate(jobs)]
    found = Desk(make_app(), *made, policy=replace(POLICY, **policy))
    for job in made:
        found.do(Trigger(found.at, job.name))
    return found


def accepts(one: Desk, name: str, agent: str = "a1") -> list[Accept]:
    return of(Accept, one.offer(make_offer(name, agent, cpus=64, mem=65_536)))


def fail(one: Desk, call: Accept) -> None:
    one.do(SendFailed(one.at, call, "HTTP 413: the body is too large", certain=True, too_large=True))


def test_launch_call_holds_at_most_the_limit_of_tasks_and_the_rest_goes_with_the_next_offer() -> None:
    one = desk([{"shard_count": 7}], accept_tasks=3)
    launched: list[str] = []
    for number, tasks in enumerate((3, 3, 1)):
        [call] = accepts(one, f"o{number}")
        assert call.offer_ids == (f"o{number}",)
        assert len(call.launches) == tasks
        launched += [launch.name for launch in call.launches]
    assert launched == [f"job0@-@{item}" for item in range(7)]


def test_launch_call_ends_at_the_limit_of_bytes() -> None:
    one = desk([{"shard_count": 300, "parameter": "ä" * 10_000}])
    calls: list[Accept] = []
    while len(one.running("job0")) < 300:
        calls += accepts(one, f"o{len(calls)}")
    sizes = [sum(launch.size for launch in call.launches) for call in calls]
    largest = max(launch.size for call in calls for launch in call.launches)
    assert largest > 80_000
    assert max(sizes) < POLICY.accept_bytes + largest
    assert min(sizes[:-1]) >= POLICY.accept_bytes


def test_shards_beyond_the_limit_of_one_agent_start_on_another_at_once() -> None:
    one = desk([{"shard_count": 4}], accept_tasks=2)
    calls = of(Accept, one.offer(make_offer("o1", "a1", cpus=64), make_offer("o2", "a2", cpus=64)))
    assert sorted((call.agent_id, len(call.launches)) for call in calls) == [("a1", 2), ("a2", 2)]


def test_attempts_of_a_job_share_the_large_part_of_their_payload() -> None:
    one = desk([{"shard_count": 3, "parameter": "p" * 60_000}])
    [call] = accepts(one, "o1")
    first, *others = call.launches
    assert all(other.shared is first.shared for other in others)
    assert all(len(launch.own) < 1_000 for launch in call.launches)


def test_refused_call_is_halved_until_only_the_job_that_is_too_large_stops() -> None:
    """Nothing is charged to other jobs: here one lost attempt would be the last."""
    small = {"shard_count": 4, "failover_attempts": 0}
    one = desk([small, {"parameter": "p" * 60_000, "failover_attempts": 0}, small])
    refused, started = 0, 0
    for number in range(20):
        for call in accepts(one, f"o{number}"):
            if any(launch.name.startswith("job1@") for launch in call.launches):
                refused += 1
                fail(one, call)
            else:
                started += len(call.launches)
        one.tick(2_000)
    assert started == 8
    assert 1 < refused < 6
    assert list(one.scheduler.faults) == ["job1"]
    fault = one.scheduler.faults["job1"]
    assert "refuses the launch of 8" in fault
    assert "HTTP 413" in fault
    assert any(reason.code == "fault" for reason in one.scheduler.explain("job1", one.at).reasons)
    assert [shard.state for shard in one.firings("job1")[0].shards] == [ShardState.WAITING]
    assert one.firings("job1")[0].shards[0].failures == 0


def test_job_whose_launch_was_refused_for_its_size_starts_after_it_was_changed() -> None:
    one = desk([{"parameter": "p" * 60_000}])
    [call] = accepts(one, "o1")
    fail(one, call)
    one.tick(5_000)
    assert not accepts(one, "o2")
    one.do(PutJob(one.at, make_job("job0", **SMALL, parameter="p", concurrency_limit=11), replace=True))
    one.do(Trigger(one.at, "job0"))
    assert len(accepts(one, "o3")) == 1


def test_late_refusal_of_a_larger_call_does_not_enlarge_later_calls() -> None:
    one = desk([{"shard_count": 16}], accept_tasks=8)
    calls = of(Accept, one.offer(make_offer("o1", "a1", cpus=64), make_offer("o2", "a2", cpus=64)))
    assert [len(call.launches) for call in calls] == [8, 8]
    fail(one, calls[0])
    one.tick(2_000)
    [four] = accepts(one, "o3", "a3")
    fail(one, four)
    fail(one, calls[1])
    one.tick(2_000)
    assert [len(call.launches) for call in accepts(one, "o4", "a4")] == [2]


def test_refused_call_returns_its_offers() -> None:
    one = desk([{"shard_count": 2}])
    [call] = accepts(one, "o1")
    fail(one, call)
    assert of(Decline, one.last) == [Decline(("o1",), 0)]


def test_launches_of_a_new_session_have_the_full_size_again() -> None:
    one = desk([{"shard_count": 4}])
    [call] = accepts(one, "o1")
    fail(one, call)
    one.tick(2_000)
    assert [len(call.launches) for call in accepts(one, "o2")] == [2]
    one.restart()
    assert [len(call.launches) for call in accepts(one, "o3")] == [2]


def test_size_of_a_launch_is_that_of_its_part_of_the_call() -> None:
    one = desk([{"parameter": "é" * 5_000, "shard_count": 2}])
    [call] = accepts(one, "o1")
    for launch in call.launches:
        encoded = len(dumps(launch_operation([launch], "a1", "framework-1")))
        assert encoded <= launch.size <= encoded + 2_000


def test_fault_of_a_refused_launch_is_published() -> None:
    one = desk([{}])
    [call] = accepts(one, "o1")
    fail(one, call)
    faults = [notice for notice in of(Publish, one.last) if notice.topic is Topic.FAULT and notice.job == "job0"]
    assert "refuses the launch" in faults[0].text


@pytest.mark.parametrize("too_large", [True, False])
def test_shard_whose_launch_was_not_sent_does_not_avoid_the_agent(too_large: bool) -> None:
    """The agent never heard of it. Another agent is known, but has no room."""
    one = desk([{"shard_count": 2}])
    one.offer(make_offer("o0", "a0", cpus=0))
    [call] = accepts(one, "o1")
    one.do(SendFailed(one.at, call, "HTTP 413", certain=True, too_large=too_large))
    one.tick(1_000)
    assert [len(call.launches) for call in accepts(one, "o2")] == [1 if too_large else 2]


@pytest.mark.parametrize("too_large", [True, False])
def test_executor_of_a_launch_that_was_not_sent_is_charged_to_the_next_offer(too_large: bool) -> None:
    """Its record would claim that it lives. Then the next launch would leave no room for it, and Mesos refuses."""
    one = desk([{"shard_count": 2}])
    [call] = accepts(one, "o1")
    assert len(one.scheduler.executors) == 1
    one.do(SendFailed(one.at, call, "HTTP 413", certain=True, too_large=too_large))
    assert not one.scheduler.executors


def test_question_about_tasks_that_is_too_large_is_asked_in_parts() -> None:
    desk = Desk(make_app(), make_job(shard_count=7, resources=Resources(100, 1_000)))
    desk.do(Trigger(desk.at, "report"))
    assert len(desk.launched(desk.offer())) == 7
    desk.restart()
    asked = [len(call.tasks) for call in of(Reconcile, desk.all) if call.tasks]
    assert asked[-1] == 7
    desk.all.clear()
    for most, sizes in ((7, [3, 3, 1]), (3, [1] * 7)):
        call = Reconcile(tuple((task.id, task.agent_id) for task in list(desk.scheduler.tasks.values())[:most]))
        desk.do(SendFailed(desk.at, call, "HTTP 413", certain=True, too_large=True))
        desk.all.clear()
        desk.run_until_idle(1_000)
        assert [len(call.tasks) for call in of(Reconcile, desk.all)] == sizes
