"""Traces of attempts and runs for the history."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.core_world import POLICY, START, Desk, make_app, make_job, make_offer, of

from jobcloud.config import NEW_AD_HOC, JobKind
from jobcloud.messages import (
    Apply,
    AttemptTraced,
    ConfigTraced,
    PutApp,
    PutJob,
    RemoveApp,
    RemoveJob,
    RunAdHoc,
    RunTraced,
    SetJobEnabled,
    Trigger,
)

TRACED = replace(POLICY, traced=True)


def traced(desk: Desk) -> list[tuple[str, int]]:
    return [(str(trace.state), trace.task.attempt) for trace in of(AttemptTraced, desk.all)]


def make_desk(**fields: Any) -> Desk:
    return Desk(make_app(), make_job(**fields), policy=TRACED)


def test_attempt_is_traced_from_its_launch_to_its_end() -> None:
    desk = make_desk()
    desk.do(Trigger(desk.at, "report"))
    desk.at += 1_500
    (launched,) = desk.launched(desk.offer(make_offer("o1")))
    for state in ("TASK_STAGING", "TASK_STARTING", "TASK_RUNNING", "TASK_RUNNING"):
        desk.status(launched.task_id, state)
    desk.at += 2_000
    desk.status(launched.task_id, "TASK_FINISHED", message="done", data='{"result":7}')
    assert traced(desk) == [("STORED", 1), ("STARTING", 1), ("RUNNING", 1), ("SUCCEEDED", 1)]
    end = of(AttemptTraced, desk.all)[-1]
    assert (end.ended, end.message, end.outcome.result, end.queued_ms) == (True, "done", "7", 1_500)
    assert (end.run_cause, end.fire_ms, end.at, end.task.started_ms) == ("trigger", START, START + 3_500, START + 1_500)
    (run,) = of(RunTraced, desk.all)
    assert (run.app, run.firing.ended_ms) == ("shop", desk.at)


def test_nothing_is_traced_without_a_history() -> None:
    desk = Desk(make_app(), make_job())
    desk.do(Trigger(desk.at, "report"))
    (launched,) = desk.launched(desk.offer(make_offer("o1")))
    desk.status(launched.task_id, "TASK_FINISHED")
    assert not of(AttemptTraced, desk.all)
    assert not of(RunTraced, desk.all)


def test_repeat_names_the_attempt_before_and_waits_from_the_end_of_its_back_off() -> None:
    desk = make_desk(retry_count=1, retry_delay_ms=10_000, retry_jitter=0)
    desk.do(Trigger(desk.at, "report"))
    (first,) = desk.launched(desk.offer(make_offer("o1")))
    desk.status(first.task_id, "TASK_FAILED", message="broke", data='{"cause":"exception"}')
    desk.at += 10_700
    (second,) = desk.launched(desk.offer(make_offer("o2")))
    desk.status(second.task_id, "TASK_FAILED")
    failed, launched, again = of(AttemptTraced, desk.all)[-3:]
    assert (failed.state, failed.outcome.cause, failed.previous) == ("FAILED", "exception", "")
    assert (launched.previous, launched.queued_ms, launched.task.attempt) == (first.task_id, 700, 2)
    assert again.previous == first.task_id


def test_next_leader_traces_the_end_of_an_attempt_that_it_adopted() -> None:
    desk = make_desk()
    desk.do(Trigger(desk.at, "report"))
    desk.at += 300
    (launched,) = desk.launched(desk.offer(make_offer("o1")))
    desk.restart()
    desk.status(launched.task_id, "TASK_RUNNING")
    desk.status(launched.task_id, "TASK_FINISHED")
    assert traced(desk) == [("STORED", 1), ("RUNNING", 1), ("SUCCEEDED", 1)]
    assert of(AttemptTraced, desk.all)[-1].queued_ms == 300


def test_end_is_traced_after_the_job_and_its_run_are_gone() -> None:
    desk = make_desk()
    desk.do(Trigger(desk.at, "report"))
    (launched,) = desk.launched(desk.offer(make_offer("o1")))
    desk.status(launched.task_id, "TASK_RUNNING")
    desk.do(RemoveJob(desk.at, "report"))
    desk.status(launched.task_id, "TASK_KILLED")
    assert traced(desk)[-1] == ("KILLED", 1)
    assert of(RunTraced, desk.all)[-1].app == ""


def test_resident_shard_has_a_trace_for_each_attempt_and_no_run() -> None:
    desk = make_desk(kind=JobKind.DAEMON)
    (launched,) = desk.launched(desk.offer(make_offer("o1")))
    desk.status(launched.task_id, "TASK_RUNNING")
    desk.status(launched.task_id, "TASK_FAILED")
    assert traced(desk) == [("STORED", 1), ("RUNNING", 1), ("FAILED", 1)]
    assert not of(RunTraced, desk.all)


def configurations(desk: Desk) -> list[tuple[str, str, bool]]:
    return [(trace.record.key, trace.author, trace.removed) for trace in of(ConfigTraced, desk.all)]


def test_each_change_of_a_configuration_is_traced_with_its_author() -> None:
    desk = make_desk()
    desk.do(PutJob(desk.at, make_job(priority=1), replace=True, author="user:ann"))
    desk.do(PutJob(desk.at, make_job(priority=1), replace=True, author="user:same"))
    desk.do(SetJobEnabled(desk.at, "report", False))
    desk.do(PutApp(desk.at, make_app(executors=1), replace=True, author="user:bob"))
    desk.do(Apply(desk.at, (make_app(),), (make_job("other"),), prune=True, author="user:eve"))
    desk.do(RemoveApp(desk.at, "shop", jobs=True, author="user:zoe"))
    assert configurations(desk) == [
        ("shop", "", False), ("report", "", False), ("report", "user:ann", False), ("shop", "user:bob", False),
        ("report", "user:eve", True), ("shop", "user:eve", False), ("other", "user:eve", False),
        ("other", "user:zoe", True), ("shop", "user:zoe", True),
    ]  # fmt: skip
    traces = of(ConfigTraced, desk.all)
    assert [trace.number for trace in traces] == list(range(1, 10))
    assert traces[4].record == make_job(priority=1), "the last configuration of a removed job"


def test_configuration_of_an_ad_hoc_run_is_not_traced() -> None:
    desk = make_desk()
    desk.do(RunAdHoc(desk.at, make_job("once", cron="", ad_hoc=NEW_AD_HOC)))
    desk.do(RemoveApp(desk.at, "shop", jobs=True))
    assert [key for key, _, removed in configurations(desk) if removed] == ["report", "shop"]


def test_configurations_are_traced_only_if_the_policy_wants_it() -> None:
    desk = Desk(make_app(), make_job())
    desk.do(RemoveApp(desk.at, "shop", jobs=True))
    assert configurations(desk) == []
