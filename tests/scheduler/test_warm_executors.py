"""Warm executors: started before a job needs them, replaced when lost, and ended when no longer wanted."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tests.core_world import Desk, make_app, make_job, make_offer, of, payload_of

from jobcloud.config import EVERY_AGENT, JobKind, Resources
from jobcloud.messages import (
    Accept,
    AcceptInverseOffers,
    AgentLost,
    Decline,
    DrainAgent,
    InverseOffersReceived,
    Kill,
    KillTask,
    Launch,
    PutApp,
    PutJob,
    RemoveApp,
    RemoveJob,
    Revive,
    SendFailed,
    SetAppEnabled,
    ShutdownExecutor,
    Suppress,
    Trigger,
    UndrainAgent,
)
from jobcloud.model import InverseOffer, Window


def desk(executors: int = 2, **fields: Any) -> Desk:
    return Desk(make_app(executors=executors, **fields), make_job(resources=Resources(500, 64_000)))


def offer_all(desk: Desk, *agents: str, **amounts: Any) -> list[Launch]:
    """Make one offer of each agent. Returns the launches."""
    offers = [make_offer(f"{agent}-{desk.at}-{len(desk.all)}", agent, **amounts) for agent in agents]
    return desk.launched(desk.offer(*offers))


def up(desk: Desk, launches: list[Launch]) -> list[str]:
    for launched in launches:
        desk.status(launched.task_id, "TASK_RUNNING")
    desk.run_until_idle()
    return [launched.task_id for launched in launches]


def agents(desk: Desk) -> list[str]:
    return sorted(task.agent_id for task in desk.scheduler.tasks.values() if task.placeholder and not task.kill_ms)


def test_warm_executors_start_before_any_job_needs_them() -> None:
    world = desk(2, resources=Resources(1000, 128_000))
    launches = offer_all(world, "a1", "a2", "a3")
    assert len(launches) == len({launched.executor.agent_id for launched in launches}) == 2
    assert payload_of(launches[0])["job"] == {"jobType": "KEEPER", "jobExecutionType": "DAEMON", "contexts": []}
    up(world, launches)
    assert world.scheduler.warm_executors("shop") == 2
    assert not offer_all(world, "a1", "a2", "a3")
    world.do(Trigger(world.at, "report"))
    (shard,) = world.launched(world.run_until_idle())
    assert shard.executor.agent_id in ("a1", "a2", "a3")
    assert shard.executor.id == launches[0].executor.id


def test_executor_is_counted_once_for_its_placeholder_and_its_shards() -> None:
    world = desk(1, resources=Resources(1000, 128_000))
    up(world, offer_all(world, "a1", cpus=2))
    entry = world.scheduler.cluster.agents["a1"]
    assert world.scheduler.cluster.claimed(entry).cpus == 1_001
    world.do(Trigger(world.at, "report"))
    assert offer_all(world, "a1", cpus=1)
    assert world.scheduler.cluster.claimed(entry).cpus == 1_501


def test_agent_that_runs_the_executor_already_is_preferred() -> None:
    world = Desk(make_app(), make_job())
    world.do(Trigger(world.at, "report"))
    offer_all(world, "a2")
    world.do(PutApp(world.at, make_app(executors=1), replace=True))
    assert [launched.executor.agent_id for launched in offer_all(world, "a1", "a2", cpus=4)] == ["a2"]


def test_every_agent_setting_reaches_new_agents() -> None:
    world = desk(EVERY_AGENT)
    up(world, offer_all(world, "a1", "a2"))
    assert agents(world) == ["a1", "a2"]
    world.do(Trigger(world.at, "report"))
    assert not of(Suppress, world.run_until_idle(120_000))
    assert "a3" in {launched.executor.agent_id for launched in offer_all(world, "a3")}
    offer_all(world, "a1", "a2")
    assert of(Decline, world.run_until_idle(6_000))[-1].refuse_ms == world.policy.roaming_refuse_ms


def test_offers_are_requested_only_while_warm_executors_are_missing() -> None:
    world = desk(2)
    up(world, offer_all(world, "a1", "a2"))
    world.run_until_idle(60_000)
    assert of(Suppress, world.all)
    assert not of(Revive, world.all)
    world.do(PutApp(world.at, make_app(executors=3), replace=True))
    assert of(Revive, world.run_until_idle())
    assert len(offer_all(world, "a3")) == 1


@pytest.mark.parametrize("state", ["TASK_LOST", "TASK_FAILED", "TASK_GONE", "TASK_KILLED"])
def test_lost_warm_executor_is_replaced_after_a_back_off(state: str) -> None:
    world = desk(1)
    (first,) = up(world, offer_all(world, "a1"))
    world.status(first, state)
    assert not offer_all(world, "a1"), "not at the same time"
    assert world.scheduler.explain("report", world.at).reasons[0].code == "executors"
    world.run_until_idle(1_000)
    assert agents(world) == ["a1"], "from the offer that was held"


def test_unreachable_warm_executor_is_replaced_and_the_surplus_ends_on_its_return() -> None:
    world = desk(1)
    (first,) = up(world, offer_all(world, "a1"))
    world.do(AgentLost(world.at, "a1"))
    world.status(first, "TASK_UNREACHABLE")
    (second,) = up(world, offer_all(world, "a2"))
    world.status(first, "TASK_RUNNING")
    kills = of(Kill, world.run_until_idle())
    assert len(kills) == 1
    assert kills[0].task_id in (first, second)


def test_warm_executors_end_with_a_disabled_or_removed_app_and_restart_when_enabled() -> None:
    world = desk(2)
    tasks = up(world, offer_all(world, "a1", "a2"))
    world.do(PutApp(world.at, make_app(executors=1), replace=True))
    (kill,) = of(Kill, world.run_until_idle())
    world.status(kill.task_id, "TASK_KILLED")
    world.do(SetAppEnabled(world.at, "shop", enabled=False))
    (other,) = of(Kill, world.run_until_idle())
    assert {kill.task_id, other.task_id} == set(tasks)
    world.status(other.task_id, "TASK_KILLED")
    assert not offer_all(world, "a1")
    world.do(SetAppEnabled(world.at, "shop", enabled=True))
    (last,) = up(world, offer_all(world, "a1"))
    world.do(RemoveApp(world.at, "shop", jobs=True))
    assert [kill.task_id for kill in of(Kill, world.run_until_idle())] == [last]
    assert of(ShutdownExecutor, world.status(last, "TASK_KILLED"))


def test_update_of_the_app_replaces_its_warm_executors() -> None:
    world = desk(1)
    (old,) = up(world, offer_all(world, "a1"))
    world.do(PutApp(world.at, make_app(version=2, executors=1), replace=True))
    assert [kill.task_id for kill in of(Kill, world.run_until_idle())] == [old]
    new = offer_all(world, "a1")
    assert len(new) == 1
    world.status(old, "TASK_KILLED")
    assert not of(Kill, world.run_until_idle())
    assert agents(world) == ["a1"]


def test_change_of_the_number_leaves_existing_executors_and_shards_alone() -> None:
    world = Desk(make_app(executors=1), make_job(kind=JobKind.DAEMON, resources=Resources(500, 64_000)))
    tasks = up(world, offer_all(world, "a1"))
    assert len(tasks) == 2, "a placeholder and the resident shard, in one ACCEPT"
    world.do(PutApp(world.at, make_app(executors=2), replace=True))
    assert not of(Kill, world.run_until_idle())
    assert [launched.executor.agent_id for launched in offer_all(world, "a1", "a2")] == ["a2"]


def test_new_leader_adopts_warm_executors() -> None:
    world = desk(2)
    tasks = up(world, offer_all(world, "a1", "a2"))
    world.restart()
    world.run_until_idle()
    assert sorted(task.id for task in world.scheduler.tasks.values()) == sorted(tasks)
    assert not offer_all(world, "a1", "a2", "a3")
    assert not of(Kill, world.run_until_idle(60_000))
    world.stored.tasks.clear()
    world.restart()
    world.status(tasks[0], "TASK_RUNNING")
    assert [kill.task_id for kill in of(Kill, world.last)] == [tasks[0]], "a task whose record was lost is an orphan"


@pytest.mark.parametrize("executors", [1, EVERY_AGENT])
def test_drained_agent_loses_its_warm_executor_until_it_is_uncordoned(executors: int) -> None:
    world = desk(executors)
    (old,) = up(world, offer_all(world, "a1"))
    world.do(DrainAgent(world.at, "a1", world.at + 600_000))
    assert [kill.task_id for kill in of(Kill, world.run_until_idle())] == [old]
    assert not offer_all(world, "a1")
    (other,) = offer_all(world, "a1", "a2")
    assert other.executor.agent_id == "a2", "the other one starts while the old one ends"
    world.status(other.task_id, "TASK_RUNNING")
    world.status(old, "TASK_KILLED")
    world.run_until_idle(60_000)
    world.do(UndrainAgent(world.at, "a1"))
    world.run_until_idle(1_000)
    back = [launched.executor.agent_id for launched in offer_all(world, "a1", "a2")]
    assert back == (["a1"] if executors == EVERY_AGENT else [])


def test_maintenance_window_ends_a_warm_executor() -> None:
    world = desk(1)
    (old,) = up(world, offer_all(world, "a1"))
    inverse = InverseOffer("i1", "a1", Window(world.at + 60_000, world.at + 600_000))
    assert of(AcceptInverseOffers, world.do(InverseOffersReceived(world.at, (inverse,))))
    assert [kill.task_id for kill in of(Kill, world.run_until_idle())] == [old]
    assert not offer_all(world, "a1")


@pytest.mark.parametrize("restarted", [False, True])
def test_placeholder_killed_by_an_operator_is_replaced(restarted: bool) -> None:
    world = desk(1)
    (first,) = up(world, offer_all(world, "a1"))
    world.do(KillTask(world.at, first))
    if restarted:
        world.restart()
        assert [kill.task_id for kill in of(Kill, world.run_until_idle())] == [first]
    assert not offer_all(world, "a1")  # one per agent, until it has ended
    world.status(first, "TASK_KILLED")
    assert len(offer_all(world, "a1")) == 1


def test_unsent_placeholder_launch_is_repeated() -> None:
    world = desk(1)
    effects = world.offer(make_offer("o1"))
    accept = of(Accept, effects)[0]
    world.do(SendFailed(world.at, accept, "no route", certain=True))
    assert not world.scheduler.tasks
    world.run_until_idle(1_000)
    assert len(offer_all(world, "a1")) == 1


def test_lack_of_room_for_warm_executors_is_explained() -> None:
    world = desk(2, resources=Resources(1000, 128_000))
    up(world, offer_all(world, "a1"))
    world.do(Trigger(world.at, "report"))
    offer_all(world, "a2", cpus=1)
    reasons = [reason.text for reason in world.scheduler.explain("report", world.at).reasons]
    assert any("has 1 of 2 warm executors: no further agent" in text for text in reasons)


def test_placeholders_build_the_contexts_of_the_apps_jobs() -> None:
    world = desk(1)
    world.do(PutJob(world.at, make_job("pooled", bean="count", context="pool_jobs:context")))
    (launched,) = offer_all(world, "a1")
    assert payload_of(launched)["job"]["contexts"] == ["pool_jobs:context"]
    (first,) = up(world, [launched])
    world.do(PutJob(world.at, make_job("other", bean="sum", context="other_jobs:context")))
    world.do(PutJob(world.at, make_job("third", bean="sum", context="third_jobs:context", isolation="process")))
    assert [kill.task_id for kill in of(Kill, world.run_until_idle())] == [first], (
        "it lacks a context that a new job needs"
    )
    world.status(first, "TASK_KILLED")
    (again,) = offer_all(world, "a1", "a2")
    assert payload_of(again)["job"]["contexts"] == ["other_jobs:context", "pool_jobs:context"]
    assert again.executor.agent_id == "a1", "in the living executor"
    up(world, [again])
    world.do(RemoveJob(world.at, "other"))
    assert not of(Kill, world.run_until_idle())


def test_wanted_number_of_warm_executors_is_kept_in_any_history() -> None:
    for seed in range(10):
        _random_history(random.Random(seed))


def _random_history(dice: random.Random) -> None:
    """Random updates, losses, kills and fail-overs. Afterwards there are as many as are wanted."""
    world, app = desk(dice.randrange(1, 4)), make_app()
    names = ["a1", "a2", "a3", "a4", "a5"]
    for _ in range(40):
        kept = [task for task in world.scheduler.tasks.values() if task.placeholder]
        what = dice.randrange(9)
        if what < 3:
            offer_all(world, *dice.sample(names, 3))
        elif what < 5 and kept:
            states = ("TASK_RUNNING", "TASK_LOST", "TASK_KILLED", "TASK_UNREACHABLE", "TASK_FAILED")
            world.status(dice.choice(kept).id, dice.choice(states))
        elif what == 5:
            app = make_app(version=dice.randrange(1, 3), executors=dice.choice((1, 2, 3, 0, EVERY_AGENT)))
            world.do(PutApp(world.at, app, replace=True))
        elif what == 6:
            world.do(SetAppEnabled(world.at, "shop", enabled=dice.random() < 0.7))
        elif what == 7:
            world.restart()
        world.run_until_idle(dice.choice((0, 500, 5_000)))
    world.do(SetAppEnabled(world.at, "shop", enabled=True))
    for _ in range(20):
        world.run_until_idle(61_000)
        for task in [task for task in world.scheduler.tasks.values() if task.placeholder]:
            world.status(task.id, "TASK_KILLED" if task.kill_ms else "TASK_RUNNING")
        offer_all(world, *names)
    app = world.scheduler.apps["shop"]
    assert len(agents(world)) == (len(names) if app.executors == EVERY_AGENT else app.executors)
