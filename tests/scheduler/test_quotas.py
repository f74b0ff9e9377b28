"""Quotas of teams: what counts, what waits or is refused, what wakes it, and what survives a restart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.core_world import Desk, make_ad_hoc_job, make_app, make_job, make_offer, of

from jobcloud.config import Concurrency, Job, JobKind, Resources
from jobcloud.errors import Conflict
from jobcloud.messages import (
    Apply,
    BackfillJob,
    ExecutorLost,
    Publish,
    PutAccess,
    PutApp,
    PutJob,
    RemoveJob,
    Retry,
    RunAdHoc,
    Suppress,
    Tick,
    Topic,
    Trigger,
)
from jobcloud.model import Quota, ShardState, Team
from jobcloud.scheduler import queue
from jobcloud.sentences import Words

CPU = 1_000
EXECUTOR = Resources(cpus=CPU, mem=128_000)
SECONDLY, MINUTELY = "* * * * * ?", "0 * * * * ?"


def desk_of(*jobs: Job, **quota: int) -> Desk:
    """A desk with an app and these jobs of the team `default`, which has a quota."""
    desk = Desk(make_app(resources=EXECUTOR), *jobs)
    limit(desk, "default", **quota)
    return desk


def limit(desk: Desk, team: str = "default", /, **quota: int) -> None:
    desk.do(PutAccess(desk.at, Team(team, (), Quota(**quota))))


def run(desk: Desk, job: str = "report", cpus: int = 32, agent: str = "a1") -> list[str]:
    """Trigger a job and offer an agent. Returns the launched tasks."""
    desk.do(Trigger(desk.at, job))
    return offer(desk, cpus, agent)


def offer(desk: Desk, cpus: int = 32, agent: str = "a1") -> list[str]:
    return [one.task_id for one in desk.launched(desk.offer(make_offer(f"o{len(desk.all)}", agent, cpus, 32_000)))]


def finish(desk: Desk, *tasks: str, state: str = "TASK_FINISHED") -> None:
    for task_id in tasks:
        desk.status(task_id, state)


def quota_reason(desk: Desk, job: str = "report") -> str:
    return next((one.text for one in desk.scheduler.explain(job, desk.at).reasons if one.code == "quota"), "")


# ------------------------------------------------------------------------------------------------ starts


@pytest.mark.parametrize(
    ("quota", "number", "text"),
    [
        ({"cpus": 4 * CPU}, 3, "quota of team default: 4 of 4 cpus used"),
        ({"mem": 500_000}, 2, "quota of team default: 384 of 500 mem used"),
        ({"shards": 5}, 5, "quota of team default: 5 of 5 shards at once used"),
    ],
)
def test_shards_wait_while_the_quota_has_no_room_and_start_after_a_release(
    quota: dict[str, int], number: int, text: str
) -> None:
    desk = desk_of(make_job(shard_count=8), **quota)
    tasks = run(desk)
    assert len(tasks) == number
    assert quota_reason(desk) == text
    assert desk.scheduler.explain("report", desk.at).headline == text
    assert offer(desk) == []
    finish(desk, *tasks[:2])
    assert len(offer(desk)) == 2
    assert desk.scheduler.team_usage("default").shards == number


def test_gpus_of_a_quota_hold_only_shards_that_need_one() -> None:
    desk = desk_of(make_job(shard_count=2, resources=Resources(CPU, 1_000, 0, CPU)), make_job("plain"), gpus=CPU)
    desk.do(Trigger(desk.at, "report"))
    desk.do(Trigger(desk.at, "plain"))
    launched = desk.launched(desk.offer(make_offer("o1", gpus=4)))
    assert sorted(one.task_id.partition("@")[0] for one in launched) == ["plain", "report"]
    assert quota_reason(desk) == "quota of team default: 1 of 1 gpus used"
    assert quota_reason(desk, "plain") == ""


def test_executor_counts_once_and_until_it_is_gone() -> None:
    desk = desk_of(make_job(shard_count=3), cpus=4 * CPU)
    tasks = run(desk)
    assert len(tasks) == 3
    assert desk.scheduler.team_usage("default").resources.cpus == 4 * CPU
    finish(desk, *tasks)
    assert desk.scheduler.team_usage("default").resources == EXECUTOR
    executor = next(iter(desk.scheduler.executors.values()))
    desk.do(ExecutorLost(desk.at, executor.agent_id, executor.id))
    assert desk.scheduler.team_usage("default").resources == Resources()


def test_shard_that_lacks_a_further_executor_joins_one_that_runs_already() -> None:
    desk = desk_of(make_job(shard_count=3), cpus=3_500)
    first = run(desk, cpus=2)
    assert len(first) == 1
    assert offer(desk, agent="a2") == []
    assert quota_reason(desk) == (
        "quota of team default: 2 of 3.5 cpus used; a start also needs an executor (1), because no agent with free "
        "resources runs one of this app"
    )
    assert not any(desk.scheduler.indexes()["planned"])
    assert offer(desk, agent="a3") == []
    assert len(offer(desk, agent="a1")) == 1
    assert desk.scheduler.team_usage("default").resources.cpus == 3 * CPU


def test_request_that_never_fits_says_so_and_lets_others_pass() -> None:
    large = make_job("large", resources=Resources(8 * CPU, 1_000), priority=9)
    desk = desk_of(large, make_job(), cpus=4 * CPU)
    desk.do(Trigger(desk.at, "large"))
    assert len(run(desk)) == 1
    assert "the quota never has room for it" in quota_reason(desk, "large")
    (reason,) = (one for one in desk.scheduler.explain("large", desk.at).reasons if one.code == "quota")
    assert (reason.resource, reason.asked, reason.waiting_helps) == ("cpus", 8 * CPU, False)


def test_smaller_shards_start_in_the_same_cycle_if_larger_ones_find_no_agent() -> None:
    large = make_job("large", shard_count=4, resources=Resources(8 * CPU, 1_000), priority=9)
    desk = desk_of(large, make_job(), cpus=12 * CPU)
    desk.do(Trigger(desk.at, "large"))
    assert len(run(desk, cpus=4)) == 1


def test_quota_below_the_use_ends_nothing_and_only_prevents_starts() -> None:
    desk = desk_of(make_job(shard_count=4, failover=True), shards=4)
    tasks = run(desk)
    limit(desk, shards=2)
    desk.run_until_idle(5_000)
    assert desk.running() == tasks
    finish(desk, tasks[0], state="TASK_LOST")
    desk.run_until_idle(60_000)
    assert offer(desk) == []  # a repeated attempt counts like any other
    finish(desk, *tasks[1:3])
    assert len(offer(desk)) == 1


def test_larger_quota_and_removed_quota_wake_what_waits() -> None:
    desk = desk_of(make_job(shard_count=4), shards=1)
    assert len(run(desk)) == 1
    desk.offer(make_offer("held"))
    limit(desk, shards=2)
    assert len(desk.launched(desk.run_until_idle())) == 1
    desk.offer(make_offer("held2"))
    desk.do(PutAccess(desk.at, Team("default")))
    assert len(desk.launched(desk.run_until_idle())) == 2


def test_resident_and_ad_hoc_shards_count_and_a_restart_keeps_the_use() -> None:
    resident = make_job("resident", kind=JobKind.DAEMON, shard_count=2)
    desk = desk_of(resident, shards=3)
    assert len(offer(desk)) == 2
    desk.do(RunAdHoc(desk.at, make_ad_hoc_job("once", shard_count=2)))
    (once,) = offer(desk)
    before = desk.scheduler.team_usage("default")
    assert (before.shards, before.queue, before.held_runs) == (3, 1, 1)
    desk.restart()
    assert replace(desk.scheduler.team_usage("default"), share=before.share) == before
    assert offer(desk) == []
    finish(desk, once)
    assert len(offer(desk)) == 1


def test_first_quota_counts_what_runs_already() -> None:
    desk = Desk(make_app(resources=EXECUTOR), make_job(shard_count=8))
    tasks = run(desk, cpus=4)
    assert len(tasks) == 3
    limit(desk, cpus=4 * CPU)
    assert offer(desk) == []
    assert quota_reason(desk) == "quota of team default: 4 of 4 cpus used"
    finish(desk, *tasks[:2])
    assert len(offer(desk)) == 2


def test_use_of_a_single_team_without_a_quota_is_shown_but_not_counted_at_each_launch() -> None:
    desk = Desk(make_app(resources=EXECUTOR), make_job(shard_count=3))
    tasks = run(desk)
    for ended in range(3):
        usage = desk.scheduler.team_usage("default")
        assert (usage.shards, usage.resources.cpus) == (3 - ended, (4 - ended) * CPU)
        assert usage.share > 0
        assert desk.scheduler.teams_in_use() == ["default"]
        finish(desk, tasks[ended])
    assert desk.scheduler._quotas._used is None


def test_warm_executors_count_and_stay_within_the_quota() -> None:
    desk = desk_of(cpus=2_500)
    desk.do(PutApp(desk.at, make_app(resources=EXECUTOR, executors=3), replace=True))
    offers = [make_offer(f"o{number}", f"a{number}") for number in range(3)]
    assert len(desk.launched(desk.offer(*offers))) == 2
    assert desk.scheduler.team_usage("default").resources.cpus == 2 * CPU + 2
    lacking = desk.scheduler.lacking_executors("shop", desk.at)
    assert lacking is not None
    assert "quota of team default" in lacking.text


def test_held_team_neither_holds_offers_nor_wants_them() -> None:
    desk = desk_of(make_job(shard_count=9), shards=1)
    run(desk)
    desk.run_until_idle(60_000)
    assert desk.scheduler.cluster.held == 0
    assert any(isinstance(effect, Suppress) for effect in desk.all)


def test_held_shards_of_a_team_cost_the_cycles_of_others_no_visit(monkeypatch: pytest.MonkeyPatch) -> None:
    burst = [make_job(f"burst{number}", team="big", shard_count=10_000) for number in range(10)]
    many = [make_job(f"small{number}", team="big") for number in range(500)]
    desk = Desk(make_app(), make_app(team="big"), make_job())
    validate = desk.scheduler.validate
    # The check of so many shards takes too long after each event.
    monkeypatch.setattr(desk.scheduler, "validate", lambda: None)
    for job in (*burst, *many):
        desk.do(PutJob(desk.at, job))
    limit(desk, "big", shards=1)
    for job in (*burst, *many):
        desk.do(Trigger(desk.at, job.key))
    assert len(offer(desk)) == 1
    looked_at: list[str] = []
    look = queue._Open.eligible

    def counted(entry: Any, at: int) -> Any:
        looked_at.append(entry.firing.job)
        return look(entry, at)

    monkeypatch.setattr(queue._Open, "eligible", counted)
    (task_id,) = run(desk)
    assert task_id.startswith("report@")
    assert set(looked_at) == {"report"}
    looked_at.clear()
    desk.do(Tick(desk.at))
    assert looked_at == []
    (held,) = desk.running("big:burst0") or desk.running("big:small0")
    finish(desk, held)
    assert len(offer(desk)) == 1
    validate()


# ------------------------------------------------------------------------------------------------ jobs


def test_further_job_is_refused_with_team_limit_and_fix() -> None:
    desk = desk_of(make_job("one"), jobs=2)
    desk.do(PutJob(desk.at, make_job("two")))
    with pytest.raises(Conflict) as found:
        desk.do(PutJob(desk.at, make_job("three")))
    assert "quota of team default: it has 2 of 2 jobs, and 1 would be added" in str(found.value)
    assert found.value.field == "jobName"
    assert "remove a job" in found.value.fix
    desk.do(PutJob(desk.at, make_job("two", priority=1), replace=True))
    desk.do(RunAdHoc(desk.at, make_ad_hoc_job("once")))  # it is not registered
    desk.do(RemoveJob(desk.at, "one"))
    desk.do(PutJob(desk.at, make_job("three")))
    limit(desk, jobs=1)
    assert desk.scheduler.team_usage("default").jobs == 2
    desk.restart()
    with pytest.raises(Conflict):
        desk.do(PutJob(desk.at, make_job("four")))


def test_whole_documents_are_refused_as_a_whole_and_count_what_they_remove() -> None:
    desk = desk_of(make_job("one"), jobs=2)
    too_many = Apply(desk.at, (), (make_job("two"), make_job("three")))
    with pytest.raises(Conflict):
        desk.scheduler.check_apply(too_many)
    with pytest.raises(Conflict):
        desk.do(too_many)
    assert desk.scheduler.jobs.keys() == {"one"}
    desk.do(Apply(desk.at, (make_app(resources=EXECUTOR),), (make_job("two"), make_job("three")), prune=True))
    assert desk.scheduler.jobs.keys() == {"two", "three"}
    desk.do(Apply(desk.at, (), (make_job("two", priority=1), make_job("three"))))


# ------------------------------------------------------------------------------------------------ the queue


def test_firing_without_room_in_the_queue_is_skipped_and_counted_with_the_reason() -> None:
    desk = desk_of(make_job(cron=MINUTELY, shard_count=3, misfire=True, misfire_limit=9), queue=5)
    desk.run_until_idle(200_000)
    state = desk.scheduler.job_states["report"]
    fired = [one for one in desk.scheduler.firings.values() if one.job == "report"]
    assert len(fired) == 1
    assert state.skipped >= 2
    assert state.skipped_reason == ("quota of team default: 3 of 5 shards wait already, and 3 would be added")
    assert state.skipped_words == Words("queue_quota", {"team": "default", "waiting": 3, "most": 5, "more": 3})
    assert [notice.job for notice in of(Publish, desk.all) if notice.topic is Topic.SKIPPED] == [
        "report"
    ] * state.skipped
    offer(desk)
    desk.run_until_idle(60_000)
    assert len(desk.firings()) == 2


def test_trigger_ad_hoc_run_and_retry_without_room_in_the_queue_are_refused() -> None:
    desk = desk_of(make_job(shard_count=3), queue=3)
    tasks = run(desk)
    for task_id in tasks:
        desk.status(task_id, "TASK_FAILED")
    (failed,) = desk.firings()
    desk.do(Trigger(desk.at, "report"))
    for command in (
        Trigger(desk.at, "report"),
        RunAdHoc(desk.at, make_ad_hoc_job("once")),
        Retry(desk.at, failed.id, None),
    ):
        with pytest.raises(Conflict) as found:
            desk.do(command)
        assert "quota of team default: 3 of 3 shards wait already" in str(found.value)
        assert found.value.field
        assert "larger quota" in found.value.fix


def test_lost_shards_return_to_a_full_queue() -> None:
    desk = desk_of(make_job(shard_count=3, failover=True), make_job("other", shard_count=3), queue=3)
    tasks = run(desk)
    desk.do(Trigger(desk.at, "other"))
    finish(desk, *tasks, state="TASK_LOST")
    assert desk.scheduler.team_usage("default").queue == 6
    assert {shard.state for shard in desk.firings()[0].shards} == {ShardState.WAITING}


def test_replaced_run_makes_room_in_the_queue() -> None:
    desk = desk_of(make_job(cron=MINUTELY, shard_count=3, concurrency=Concurrency.REPLACE), queue=3)
    desk.run_until_idle(130_000)
    assert desk.scheduler.job_states["report"].skipped == 0
    assert len(desk.firings()) >= 2


def test_backfill_waits_for_room_in_the_queue() -> None:
    desk = desk_of(make_job(cron=MINUTELY, shard_count=2), make_job("other", shard_count=2), queue=3)
    desk.run_until_idle(61_000)
    finish(desk, *offer(desk))
    desk.do(Trigger(desk.at, "other"))
    minute = desk.at // 60_000 * 60_000
    desk.do(BackfillJob(desk.at, "report", (minute - 600_000,)))
    desk.run_until_idle()
    assert desk.scheduler.backfills.keys() == {"report"}
    offer(desk)
    assert not desk.scheduler.backfills
