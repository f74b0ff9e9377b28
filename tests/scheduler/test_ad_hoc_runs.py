"""Ad-hoc runs: runs of jobs that are not registered."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.core_world import POLICY, Desk, make_ad_hoc_job, make_app, make_job, make_offer, of, payload_of

from jobcloud.config import JobKind, is_ad_hoc
from jobcloud.errors import ConfigError, Conflict, NotFound, Refused
from jobcloud.messages import (
    Apply,
    CancelRun,
    Event,
    Kind,
    Publish,
    PutJob,
    RemoveApp,
    RemoveJob,
    Retry,
    RunAdHoc,
    Save,
    SetAppEnabled,
    SetJobEnabled,
    SetPaused,
    Topic,
    Trigger,
)
from jobcloud.model import MAX_NARROW, Firing, ShardState, Terms
from jobcloud.server.records import Unreadable, decode, encode

CANCELLED, DEAD, FINISHED, WAITING = ShardState.CANCELLED, ShardState.DEAD, ShardState.FINISHED, ShardState.WAITING


def make_desk(**policy: Any) -> Desk:
    return Desk(make_app(), policy=replace(POLICY, **policy))


def start(desk: Desk, name: str = "once", key: str = "", **fields: Any) -> Firing:
    """Start an ad-hoc run. Returns it, or the run that has the key already."""
    before = set(desk.scheduler.firings)
    desk.do(RunAdHoc(desk.at, make_ad_hoc_job(name, **fields), Terms(key=key)))
    new = [firing for firing in desk.scheduler.firings.values() if firing.id not in before]
    return new[0] if new else next(one for one in desk.scheduler.firings.values() if one.terms.key == key)


def finish(desk: Desk, firing: Firing, state: str = "TASK_FINISHED") -> None:
    desk.offer(make_offer(f"o{len(desk.all)}", cpus=64))
    for task_id in desk.running(firing.job):
        desk.status(task_id, state)


def test_ad_hoc_run_has_shards_a_listener_and_the_name_of_its_job() -> None:
    desk = make_desk()
    run = start(desk, shard_count=3, shard_parameters="0=a,2=c", parameter="p", firing_listener="shop:Stage")
    assert run.id == f"{run.job}.run@jobcloud"
    seen = []
    for _ in range(3):
        desk.offer(make_offer(f"o{len(desk.all)}", cpus=64))
        tasks = desk.running(run.job)
        found = [payload_of(one) for one in desk.launched(desk.all) if one.task_id in tasks]
        seen.append(sorted(one["shardingContext"]["shardingItem"] for one in found))
        assert {one["shardingContext"]["jobName"] for one in found} == {"once"}
        for task_id in tasks:
            desk.status(task_id, "TASK_FINISHED")
    assert seen == [[-1], [0, 1, 2], [-2]]
    assert desk.scheduler.firings[run.id].worst is FINISHED
    text = "the ad-hoc run has ended"
    assert desk.scheduler.explain(run.job, desk.at).headline == text


def test_ad_hoc_run_never_has_the_key_of_a_registered_job() -> None:
    desk = Desk(make_app(), make_job("once"))
    first, second = start(desk), start(desk)
    assert len({first.job, second.job, "once"}) == 3
    assert is_ad_hoc(first.job)
    assert not is_ad_hoc("billing:once")
    with pytest.raises(ConfigError):
        make_job(first.job)
    assert not desk.firings("once")


def test_job_of_an_ad_hoc_run_has_no_cron_and_ends() -> None:
    for wrong in ({"cron": "0 0 0 * * ?"}, {"kind": JobKind.DAEMON}, {"ad_hoc": "x"}):
        with pytest.raises(ConfigError):
            make_ad_hoc_job(**wrong)


@pytest.mark.parametrize("shards", [1, MAX_NARROW + 1])
def test_ad_hoc_run_and_its_job_are_one_write_and_are_deleted_together(shards: int) -> None:
    desk = make_desk(history=1)
    run = start(desk, shard_count=shards)
    (save,) = of(Save, desk.last)
    assert {(write.kind, write.key) for write in save.writes} == {(Kind.AD_HOC, run.job), (Kind.FIRING, run.id)}
    finish(desk, run)
    assert desk.stored.ad_hoc.keys() == {run.job}
    finish(desk, start(desk))
    deleted = [{write.key for write in save.writes if write.record is None} for save in of(Save, desk.all)]
    assert [keys for keys in deleted if run.id in keys or run.job in keys] == [
        keys for keys in deleted if run.job in keys
    ]
    assert any(run.id in keys for keys in deleted)
    assert len(desk.stored.ad_hoc) == len(desk.stored.firings) == 1
    assert not desk.stored.job_states


@pytest.mark.parametrize("shards", [2, MAX_NARROW + 1])
def test_ad_hoc_run_continues_under_each_new_leader(shards: int) -> None:
    """A leader ends after each write: before the launch, while the shards run, and while a repeat waits."""
    desk = make_desk()
    run = start(desk, shard_count=shards, retry_count=1, retry_delay_ms=1_000, retry_jitter=0, parameter="given")
    desk.restart(same_epoch=True)
    for state in ("TASK_FAILED", "TASK_FINISHED"):
        desk.restart()
        desk.run_until_idle(1_000)
        desk.last = desk.offer(make_offer(f"o{state}", cpus=64))
        launched = desk.launched()
        assert len(launched) == shards
        assert {payload_of(one)["shardingContext"]["jobParameter"] for one in launched} == {"given"}
        desk.restart()
        for task_id in desk.running(run.job):
            desk.status(task_id, state)
    desk.restart()
    ended = desk.scheduler.firings[run.id]
    assert {shard.state for shard in ended.shards} == {FINISHED}
    assert {shard.attempt for shard in ended.shards} == {2}
    assert desk.scheduler.attempts[run.id].total == shards


def test_dead_ad_hoc_run_can_be_retried() -> None:
    desk = make_desk()
    run = start(desk, retry_count=1, retry_delay_ms=1_000, retry_jitter=0)
    finish(desk, run, "TASK_FAILED")
    desk.run_until_idle(1_000)
    finish(desk, run, "TASK_FAILED")
    assert desk.scheduler.firings[run.id].worst is DEAD
    desk.do(Retry(desk.at, run.id))
    desk.restart()
    finish(desk, run)
    assert desk.scheduler.firings[run.id].worst is FINISHED


def test_ad_hoc_run_is_cancelled() -> None:
    desk = make_desk()
    run = start(desk)
    desk.do(CancelRun(desk.at, run.id))
    assert desk.scheduler.firings[run.id].worst is CANCELLED


def test_pause_of_the_app_and_of_everything_holds_ad_hoc_runs() -> None:
    desk = make_desk()
    for target in ({"app": "shop"}, {}):
        desk.do(SetPaused(desk.at, True, **target))
        run = start(desk)
        desk.offer(make_offer(f"o{len(desk.all)}"))
        assert not desk.running(run.job)
        assert desk.scheduler.explain(run.job, desk.at).reasons[0].code == "paused"
        desk.do(SetPaused(desk.at, False, **target))
        finish(desk, run)
        assert desk.scheduler.firings[run.id].worst is FINISHED


def test_ad_hoc_run_with_a_higher_priority_starts_first() -> None:
    desk = Desk(make_app(), make_job("often", shard_count=3))
    desk.do(Trigger(desk.at, "often"))
    run = start(desk, priority=5)
    desk.offer(make_offer("o1", cpus=2))
    assert (len(desk.running(run.job)), len(desk.running("often"))) == (1, 0)


def test_removed_app_ends_its_ad_hoc_runs() -> None:
    desk = make_desk()
    ended, running = start(desk), start(desk)
    desk.do(CancelRun(desk.at, ended.id))
    desk.offer()
    with pytest.raises(Conflict, match="1 ad-hoc runs of app shop have not ended"):
        desk.do(RemoveApp(desk.at, "shop"))
    (task_id,) = desk.running(running.job)
    desk.do(RemoveApp(desk.at, "shop", jobs=True))
    assert desk.stored.firings.keys() == {running.id}, "the record stays until the task has ended"
    assert not desk.stored.ad_hoc
    desk.restart()
    desk.status(task_id, "TASK_KILLED")
    assert not desk.stored.firings
    indexes = desk.scheduler.indexes()
    assert not any(indexes[name] for name in ("ad-hoc jobs", "ad-hoc jobs by app", "kept", "refusals"))


def test_app_whose_ad_hoc_runs_have_ended_can_be_removed() -> None:
    desk = make_desk()
    desk.do(CancelRun(desk.at, start(desk).id))
    desk.do(RemoveApp(desk.at, "shop"))
    assert not desk.stored.firings
    assert not desk.stored.ad_hoc


def test_disabled_app_ends_its_ad_hoc_runs_and_takes_no_new_ones() -> None:
    desk = make_desk()
    run = start(desk)
    desk.do(SetAppEnabled(desk.at, "shop", False))
    assert desk.scheduler.firings[run.id].worst is CANCELLED
    with pytest.raises(Conflict, match="disabled"):
        start(desk)
    desk.do(SetAppEnabled(desk.at, "shop", True))
    assert not desk.stored.job_states
    finish(desk, start(desk))


def test_ad_hoc_run_of_an_unknown_app_is_refused() -> None:
    desk = make_desk()
    with pytest.raises(NotFound, match="no app billing:shop"):
        start(desk, team="billing")
    assert not desk.scheduler.ad_hoc


def test_ad_hoc_runs_of_an_app_that_have_not_ended_are_bounded() -> None:
    desk = make_desk(max_waiting=2)
    run, _ = start(desk), start(desk)
    with pytest.raises(Conflict, match="2 ad-hoc runs of app shop have not ended"):
        start(desk)
    desk.do(CancelRun(desk.at, run.id))
    start(desk)


def test_ended_ad_hoc_runs_of_an_app_are_bounded_and_dead_ones_are_not_displaced() -> None:
    desk = make_desk(history=2, max_dead=1)
    dead = []
    for _ in range(2):
        dead.append(start(desk, retry_count=1, retry_delay_ms=1_000))
        finish(desk, dead[-1], "TASK_FAILED")
        desk.run_until_idle(2_000)
        finish(desk, dead[-1], "TASK_FAILED")
    others = [start(desk) for _ in range(3)]
    for run in others:
        desk.at += 1
        desk.do(CancelRun(desk.at, run.id))
    wanted = {dead[-1].id, others[-1].id, others[-2].id}
    assert desk.scheduler.firings.keys() == wanted
    desk.policy = replace(desk.policy, history=1)
    desk.restart()
    assert desk.scheduler.firings.keys() == {dead[-1].id, others[-1].id}
    assert desk.scheduler.ad_hoc.keys() == {dead[-1].job, others[-1].job}


def test_ended_ad_hoc_run_is_forgotten_at_once_without_a_history() -> None:
    desk = make_desk(history=0)
    desk.do(CancelRun(desk.at, start(desk).id))
    assert not desk.scheduler.firings
    assert not desk.stored.ad_hoc


def test_shards_of_ended_ad_hoc_runs_are_bounded() -> None:
    desk = make_desk(max_ended_shards=5)
    runs = [start(desk, shard_count=3) for _ in range(3)]
    for run in runs:
        desk.at += 1
        desk.do(CancelRun(desk.at, run.id))
    assert desk.scheduler.firings.keys() == {runs[-1].id}


def test_second_ad_hoc_run_with_a_key_is_the_first_one() -> None:
    desk = make_desk()
    run = start(desk, key="k", parameter="p")
    desk.restart()
    assert start(desk, key="k", parameter="p").id == run.id
    finish(desk, run)
    assert start(desk, key="k", parameter="p").id == run.id, "also after its end"
    assert len(desk.scheduler.firings) == 1
    with pytest.raises(Conflict, match="another configuration"):
        start(desk, key="k", parameter="q")
    desk.do(SetAppEnabled(desk.at, "shop", False))
    assert start(desk, key="k", parameter="p").id == run.id


@pytest.mark.parametrize(
    "make",
    [
        Trigger,
        RemoveJob,
        lambda at, key: SetJobEnabled(at, key, False),
        lambda at, key: SetPaused(at, True, job=key),
    ],
)
def test_commands_for_registered_jobs_refuse_ad_hoc_runs(make: Any) -> None:
    desk = make_desk()
    run = start(desk)
    with pytest.raises(NotFound, match="is an ad-hoc run"):
        desk.do(make(desk.at, run.job))
    assert desk.scheduler.firings[run.id] is run


def test_prune_leaves_ad_hoc_runs() -> None:
    desk = Desk(make_app(), make_job("old"))
    run = start(desk)
    desk.do(Apply(desk.at, (), (make_job("new"),), prune=True))
    assert desk.scheduler.jobs.keys() == {"new", run.job}
    assert desk.scheduler.firings[run.id].shards[0].state is WAITING


def test_warm_executors_do_not_build_the_context_of_an_ad_hoc_run() -> None:
    desk = Desk(make_app(executors=1), make_job("old", context="shop:beans", bean="job"))
    start(desk, context="shop:others", bean="job")
    desk.offer(make_offer("o1", cpus=64))
    contexts = [payload_of(one)["job"]["contexts"] for one in desk.launched(desk.all) if "keeper" in one.name]
    assert contexts == [["shop:beans"]]


def test_ad_hoc_run_without_its_job_record_is_cancelled() -> None:
    desk = make_desk()
    run = start(desk)
    del desk.stored.ad_hoc[run.job]
    desk.restart()
    desk.run_until_idle()
    assert not desk.scheduler.firings, "the run is deleted like the runs of a removed job"
    (done,) = [notice for notice in of(Publish, desk.all) if notice.topic is Topic.DONE]
    assert done.state == CANCELLED


def test_job_record_without_its_ad_hoc_run_is_deleted() -> None:
    desk = make_desk()
    run = start(desk)
    del desk.stored.firings[run.id]
    desk.restart()
    assert not desk.stored.ad_hoc
    assert run.job not in desk.scheduler.jobs


def test_record_of_an_ad_hoc_job_is_of_its_own_kind() -> None:
    job, ad_hoc = make_job(), make_ad_hoc_job(ad_hoc="1-2")
    for kind, one in ((Kind.AD_HOC, job), (Kind.JOB, ad_hoc)):
        with pytest.raises(Unreadable):
            decode(kind, one.key, encode(kind, one))


def test_refused_ad_hoc_run_changes_nothing() -> None:
    desk = make_desk(max_waiting=1)
    start(desk, key="k")
    events: list[Event] = [
        RunAdHoc(desk.at, make_ad_hoc_job("other")),
        RunAdHoc(desk.at, make_ad_hoc_job("other"), Terms(key="k")),
        PutJob(desk.at, make_job("x", app="none")),
    ]
    for event in events:
        with pytest.raises(Refused):
            desk.scheduler.handle(event)
        assert not desk.scheduler._state.flush()
