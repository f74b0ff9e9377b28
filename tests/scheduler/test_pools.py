"""Pools: which shards start, what wakes those that wait, who gets slots first, and what survives a restart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.core_world import POLICY, Desk, make_ad_hoc_job, make_app, make_job, make_offer

from jobcloud.config import Job, JobKind, Resources
from jobcloud.errors import ConfigError, Conflict, NotFound, Outdated
from jobcloud.messages import (
    Apply,
    KillTask,
    Kind,
    PutAccess,
    PutCalendar,
    PutJob,
    PutPool,
    RemoveAccess,
    RemoveJob,
    RemovePool,
    RunAdHoc,
    SetPaused,
    Trigger,
)
from jobcloud.model import Calendar, Pool, Team
from jobcloud.scheduler import fit, pools
from jobcloud.scheduler.slots import slots_of
from jobcloud.triggers import parse_days


def desk_of(*jobs: Job, **slots: int) -> Desk:
    """A desk with an app, pools of the team `default`, and jobs."""
    desk = Desk(make_app())
    for name, number in slots.items():
        put(desk, name, number)
    for job in jobs:
        desk.do(PutJob(desk.at, job))
    return desk


def put(desk: Desk, name: str, slots: int, **more: Any) -> None:
    desk.do(PutPool(desk.at, name, Pool(slots), **more))


def trigger(desk: Desk, *jobs: str) -> None:
    for job in jobs:
        desk.do(Trigger(desk.at, job))


def offer(desk: Desk, agent: str = "a1", cpus: int = 64) -> list[str]:
    return [one.task_id for one in desk.launched(desk.offer(make_offer(f"o{len(desk.all)}", agent, cpus, 64_000)))]


def jobs_of(tasks: list[str]) -> list[str]:
    return [task.partition("@-@")[0] for task in tasks]


def finish(desk: Desk, *tasks: str) -> None:
    for task_id in tasks:
        desk.status(task_id, "TASK_FINISHED")


def why(desk: Desk, job: str) -> list[str]:
    return [one.text for one in desk.scheduler.explain(job, desk.at).reasons if one.code == "pool"]


# ------------------------------------------------------------------------------------------------ slots


def test_shards_of_all_jobs_together_take_at_most_the_slots_of_the_pool() -> None:
    desk = desk_of(make_job("a", shard_count=4, pools=("db",)), make_job("b", shard_count=4, pools=("db",)), db=5)
    trigger(desk, "a", "b")
    tasks = offer(desk)
    assert sorted(jobs_of(tasks)) == ["a"] * 4 + ["b"]
    assert why(desk, "b") == ["pool db: 5 of 5 slots are used"]
    assert desk.scheduler.explain("b", desk.at).headline == "pool db: 5 of 5 slots are used"
    assert offer(desk) == []
    finish(desk, *tasks[:2])
    assert jobs_of(offer(desk)) == ["b", "b"]
    (use,) = desk.scheduler.pool_uses()
    assert (use.key, use.used, use.waiting, use.jobs) == ("db", 5, 1, 2)


def test_slot_that_becomes_free_is_given_on_an_offer_that_is_held_already() -> None:
    desk = desk_of(make_job("a", shard_count=2, pools=("db",)), db=1)
    trigger(desk, "a")
    (first,) = offer(desk)
    assert offer(desk, "a2") == []
    finish(desk, first)
    assert len(desk.launched(desk.run_until_idle())) == 1


def test_job_takes_several_slots_of_several_pools() -> None:
    job = make_job("a", shard_count=5, pools=("2 of db", "licence", "*:host"))
    desk = desk_of(db=7, licence=4)
    put(desk, "*:host", 9)
    desk.do(PutJob(desk.at, job))
    trigger(desk, "a")
    assert len(offer(desk)) == 3
    assert why(desk, "a") == ["pool db: 6 of 7 slots are used, and a shard needs 2"]
    assert {use.key: use.used for use in desk.scheduler.pool_uses()} == {"*:host": 3, "db": 6, "licence": 3}


def test_other_jobs_start_while_a_pool_is_full() -> None:
    desk = desk_of(make_job("a", shard_count=3, pools=("db",), priority=9), make_job("free", shard_count=2), db=1)
    trigger(desk, "a", "free")
    assert sorted(jobs_of(offer(desk))) == ["a", "free", "free"]


def test_shard_that_needs_more_slots_gets_them_before_those_behind_it() -> None:
    wide, narrow = make_job("wide", pools=("3 of db",)), make_job("narrow", shard_count=9, pools=("db",))
    desk = desk_of(make_job("first", shard_count=3, pools=("db",)), wide, narrow, db=3)
    trigger(desk, "first")
    tasks = offer(desk)
    trigger(desk, "wide")
    trigger(desk, "narrow")
    finish(desk, *tasks[:2])
    assert offer(desk) == []
    assert why(desk, "narrow") == [
        "pool db: 1 of 3 slots are used; the others are kept for a shard that is ahead and needs more of them"
    ]
    finish(desk, tasks[2])
    assert jobs_of(offer(desk)) == ["wide"]


def test_shard_that_needs_several_slots_does_not_pass_one_ahead_when_slots_are_given_back() -> None:
    """The shards of the first job plan both slots, find no room, and give the slots back in the same cycle."""
    desk = desk_of(
        make_job("huge", shard_count=2, priority=3, pools=("p",), resources=Resources(cpus=100_000, mem=32_000)),
        make_job("one", shard_count=1, priority=2, pools=("p",)),
        make_job("two", shard_count=1, priority=1, pools=("2 of p",)),
        p=2,
    )
    trigger(desk, "two", "one", "huge")
    started = offer(desk)
    assert jobs_of(started) == ["one"]
    finish(desk, *started)
    assert jobs_of(offer(desk, "a2")) == ["two"]


def test_shard_that_never_gets_its_slots_keeps_none_from_others() -> None:
    desk = desk_of(make_job("wide", pools=("3 of db",)), make_job("narrow", pools=("db",)), db=2)
    trigger(desk, "wide")
    trigger(desk, "narrow")
    assert jobs_of(offer(desk)) == ["narrow"]
    assert why(desk, "wide") == ["pool db: 1 of 2 slots are used, and a shard needs 3: the pool never has room for it"]
    put(desk, "db", 4)
    assert jobs_of(offer(desk)) == ["wide"]


@pytest.mark.parametrize("roles", [{}, {"ops": "ops-role"}, {"default": "own-role"}])
def test_shard_that_needs_several_slots_gets_them_beside_small_ones_of_another_team(roles: dict[str, str]) -> None:
    policy = replace(POLICY, roles=("*",), team_roles=roles)
    desk = Desk(make_app(), make_app(team="ops"), policy=policy)
    put(desk, "*:db", 2)
    for job in (
        make_job("small", team="ops", shard_count=40, pools=("*:db",)),
        make_job("plain", priority=9),
        make_job("wide", pools=("2 of *:db",)),
    ):
        desk.do(PutJob(desk.at, job))

    def both() -> list[str]:
        names = ["*", *roles.values()]
        offers = [make_offer(f"o{len(desk.all)}-{role}", f"agent-{role}", 64, 64_000, role=role) for role in names]
        return [one.task_id for one in desk.launched(desk.offer(*offers))]

    trigger(desk, "ops:small")
    running = both()
    trigger(desk, "wide")
    for number in range(10):
        desk.status(running.pop(0), "TASK_FINISHED", uuid=f"u{number}")
        trigger(desk, "plain")  # another shard is ahead of the wide one in its team
        for task_id in both():
            if task_id.startswith("wide"):
                return
            if task_id.startswith("plain"):
                desk.status(task_id, "TASK_FINISHED", uuid=f"p{number}")
            else:
                running.append(task_id)
    raise AssertionError("the wide shard never starts")


def test_slots_are_kept_for_no_shard_that_cannot_start() -> None:
    resident = make_job("resident", kind=JobKind.DAEMON, pools=("db",))
    large = make_job("large", resources=Resources(90_000, 1_000), priority=9, pools=("2 of db",))
    for blocked, slots in ((large, 3), (make_job("wide", priority=9, pools=("4 of db",)), 4)):
        desk = desk_of(resident, blocked, make_job("narrow", shard_count=2, pools=("db",)), db=slots)
        assert jobs_of(offer(desk)) == ["resident"]
        trigger(desk, blocked.name)
        trigger(desk, "narrow")
        assert jobs_of(offer(desk)) == ["narrow", "narrow"]


def test_slots_are_given_away_once_their_shard_is_paused() -> None:
    jobs = (
        make_job("first", pools=("db",)),
        make_job("wide", priority=9, pools=("3 of db",)),
        make_job("narrow", pools=("db",)),
    )
    desk = desk_of(*jobs, db=3)
    trigger(desk, "first")
    offer(desk)
    trigger(desk, "wide")
    trigger(desk, "narrow")
    assert offer(desk) == []
    assert desk.scheduler.depth(desk.at).ready == 0
    assert why(desk, "wide") == ["pool db: 1 of 3 slots are used, and a shard needs 3"]
    desk.do(SetPaused(desk.at, True, job="wide"))
    assert jobs_of(offer(desk)) == ["narrow"]


def test_slots_are_kept_for_no_removed_job() -> None:
    desk = desk_of(make_job("first", pools=("db",)), make_job("wide", pools=("2 of db",)), db=2)
    trigger(desk, "first")
    offer(desk)
    trigger(desk, "wide")
    offer(desk)
    assert desk.scheduler.indexes()["pools kept"]
    desk.do(RemoveJob(desk.at, "wide"))
    desk.do(RemoveJob(desk.at, "first"))
    assert not desk.scheduler.indexes()["pools kept"]


def test_question_about_the_next_cycle_keeps_no_slots() -> None:
    desk = desk_of(
        make_job("first", pools=("db",)), make_job("wide", pools=("2 of db",)), make_job("n", pools=("db",)), db=2
    )
    trigger(desk, "first")
    offer(desk)
    trigger(desk, "wide")
    trigger(desk, "n")
    desk.scheduler.plan(desk.at)
    assert not desk.scheduler.indexes()["pools kept"]


def test_shard_without_an_agent_leaves_its_slots_to_others() -> None:
    large = make_job("large", shard_count=2, resources=Resources(90_000, 1_000), priority=9, pools=("db",))
    desk = desk_of(large, make_job("small", shard_count=2, pools=("db",)), db=2)
    trigger(desk, "large", "small")
    assert jobs_of(offer(desk)) == ["small", "small"]


def test_pool_without_slots_stops_new_starts_and_ends_nothing() -> None:
    desk = desk_of(make_job("a", shard_count=3, pools=("db",)), db=2)
    trigger(desk, "a")
    tasks = offer(desk)
    put(desk, "db", 0)
    assert not desk.launched()
    finish(desk, tasks[0])
    assert offer(desk) == []
    assert why(desk, "a") == ["pool db has no slots: no shard that names it starts"]
    put(desk, "db", 2)
    assert len(offer(desk)) == 1


def test_killed_attempt_keeps_its_slot_until_its_end_is_known() -> None:
    desk = desk_of(make_job("a", shard_count=2, pools=("db",)), db=1)
    trigger(desk, "a")
    (task_id,) = offer(desk)
    desk.do(KillTask(desk.at, task_id))
    assert offer(desk) == []
    desk.status(task_id, "TASK_KILLED")
    assert len(offer(desk)) == 1


def test_running_attempt_keeps_the_slots_of_its_start_after_its_job_was_changed() -> None:
    desk = desk_of(make_job("a", shard_count=2, pools=("db",)), db=1, other=1)
    trigger(desk, "a")
    (task_id,) = offer(desk)
    desk.do(PutJob(desk.at, make_job("a", shard_count=2, pools=("other",)), replace=True))
    assert {use.key: use.used for use in desk.scheduler.pool_uses()} == {"db": 1, "other": 0}
    (second,) = offer(desk)
    desk.restart()
    assert {use.key: use.used for use in desk.scheduler.pool_uses()} == {"db": 1, "other": 1}
    finish(desk, task_id, second)
    assert not desk.scheduler.indexes()["slots used"]


def test_resident_shards_and_ad_hoc_runs_take_slots() -> None:
    resident = make_job("daemon", kind=JobKind.DAEMON, shard_count=2, pools=("db",))
    desk = desk_of(resident, db=3)
    assert len(offer(desk)) == 2
    desk.do(RunAdHoc(desk.at, make_ad_hoc_job("once", shard_count=2, pools=("db",))))
    assert len(offer(desk)) == 1
    desk.restart()
    assert offer(desk) == []


def test_new_leader_counts_the_slots_of_running_attempts() -> None:
    desk = desk_of(make_job("a", shard_count=4, pools=("db",)), db=2)
    trigger(desk, "a")
    tasks = offer(desk)
    desk.restart()
    assert offer(desk) == []
    finish(desk, tasks[0])
    assert len(offer(desk)) == 1


def test_question_whether_a_job_fits_counts_the_slots() -> None:
    desk = desk_of(make_job("a", shard_count=6, pools=("2 of db",)), db=5)
    desk.do(Trigger(desk.at, "a"))
    offer(desk)
    found = fit.answer(desk.scheduler.fit_question("a", 3, desk.at))
    assert (found.fits, found.waiting_helps) == (0, True)
    assert [one.text for one in found.reasons] == ["pool db: 4 of 5 slots are used, and a shard needs 2"]
    put(desk, "db", 8)
    desk.offer(make_offer("o9", "a9", 64, 64_000))
    found = fit.answer(desk.scheduler.fit_question("a", 3, desk.at))
    assert (found.fits, [one.text for one in found.reasons]) == (
        0,
        ["pool db: 8 of 8 slots are used, and a shard needs 2"],
    )


# ------------------------------------------------------------------------------------------------ configuration


@pytest.mark.parametrize("text", ["", "0 of db", "2 of", "two of db", "a b", "ops:db", "*:", "1000000000000 of db"])
def test_invalid_entry_is_refused_with_the_field(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        slots_of(make_job(pools=(text,)))
    assert caught.value.field == "pools"


def test_pool_that_is_named_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="names db twice"):
        slots_of(make_job(pools=("db", "2 of db")))


def test_pools_of_another_team_are_pools_of_this_team_by_name() -> None:
    assert slots_of(make_job(team="ops", pools=("db", "3 of *:db"))) == (("*:db", 3), ("ops:db", 1))


def test_job_of_an_unknown_pool_is_refused() -> None:
    desk = desk_of(make_job("a"))
    job = make_job("b", pools=("db",))
    for command in (
        PutJob(desk.at, job),
        PutJob(desk.at, make_job("a", pools=("db",)), replace=True),
        Apply(desk.at, (), (job,)),
        RunAdHoc(desk.at, make_ad_hoc_job("once", pools=("db",))),
    ):
        with pytest.raises(ConfigError, match="there is no pool db"):
            desk.do(command)
    assert list(desk.scheduler.jobs) == ["a"]


def test_pool_that_jobs_name_is_not_removed() -> None:
    desk = desk_of(make_job("a", pools=("db",)), make_job("b", pools=("db",)), db=1)
    with pytest.raises(Conflict, match="pool db is named by 2 jobs, for example a"):
        desk.do(RemovePool(desk.at, "db"))
    desk.do(PutJob(desk.at, make_job("a"), replace=True))
    desk.do(RemoveJob(desk.at, "b"))
    desk.do(RemovePool(desk.at, "db"))
    assert not desk.scheduler.pools
    with pytest.raises(NotFound, match="there is no pool db"):
        desk.do(RemovePool(desk.at, "db"))


def test_ad_hoc_run_that_has_ended_keeps_no_pool() -> None:
    desk = desk_of(db=1)
    desk.do(RunAdHoc(desk.at, make_ad_hoc_job("once", pools=("db",))))
    (task_id,) = offer(desk)
    with pytest.raises(Conflict, match="for example once~"):
        desk.do(RemovePool(desk.at, "db"))
    finish(desk, task_id)
    desk.do(RemovePool(desk.at, "db"))


def test_removal_of_a_team_removes_its_pools_and_calendars() -> None:
    desk = Desk()
    desk.do(PutAccess(desk.at, Team("ops"), create=True))
    days = parse_days(["2026-12-24"])
    desk.do(PutCalendar(desk.at, Calendar("ops:closed", days.texts(), "2027-12-31"), days))
    put(desk, "ops:db", 3)
    put(desk, "*:db", 3)
    desk.do(RemoveAccess(desk.at, Kind.TEAM, "ops"))
    assert list(desk.scheduler.pools) == ["*:db"]
    assert not desk.scheduler.calendars


def test_change_of_an_outdated_pool_is_refused() -> None:
    desk = desk_of(db=1)
    for command in (PutPool(desk.at, "db", Pool(3), Pool(2)), RemovePool(desk.at, "db", Pool(2))):
        with pytest.raises(Outdated):
            desk.do(command)
    put(desk, "db", 3, before=Pool(1))
    assert desk.scheduler.pools == {"db": Pool(3)}


def test_number_of_pools_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "MAX_POOLS", 2)
    desk = desk_of(a=1, b=1)
    with pytest.raises(Conflict, match="2 pools already"):
        put(desk, "c", 1)
    put(desk, "a", 2)


def test_job_whose_pool_is_lost_waits_and_says_so() -> None:
    desk = desk_of(make_job("a", pools=("db",)), db=1)
    del desk.stored.pools["db"]
    desk.restart()
    trigger(desk, "a")
    assert offer(desk) == []
    assert why(desk, "a") == ["there is no pool db"]
    put(desk, "db", 1)
    assert len(offer(desk)) == 1
