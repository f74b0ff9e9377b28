"""The last success before a run, for the placeholder `{previous_success}`."""

from __future__ import annotations

from typing import Any

import pytest
from tests.core_world import Desk, make_app, make_job, make_offer, payload_of

from jobcloud.config import Concurrency, JobKind, JobType
from jobcloud.messages import PutJob, Trigger
from jobcloud.model import MAX_NARROW, ShardState, Terms

ASKS: dict[str, Any] = {"placeholders": ("jobParameter",), "parameter": "{previous_success:%Y}"}


def start(desk: Desk, **terms: Any) -> list[int | None]:
    """Trigger the job. The last success before it, as each launched shard gets it."""
    desk.do(Trigger(desk.at, "report", Terms(**terms)))
    return given(desk)


def given(desk: Desk) -> list[int | None]:
    return [payload_of(launch).get("previousSuccess") for launch in desk.launched(desk.offer())]


def end(desk: Desk, state: str = "TASK_FINISHED") -> int:
    """End all running shards. The fire time of the run."""
    for task_id in desk.running():
        desk.status(task_id, state)
    fired: int = desk.firings()[-1].fire_ms
    desk.tick(1_000)
    return fired


def test_run_gets_the_fire_time_of_the_last_run_that_succeeded() -> None:
    desk = Desk(make_app(), make_job(shard_count=2, **ASKS))
    assert start(desk) == [None, None]
    first = end(desk)
    assert start(desk) == [first, first]
    end(desk, "TASK_FAILED")
    assert start(desk) == [first, first], "a failed run is no success"
    third = end(desk)
    assert start(desk, items=(1,)) == [third]
    end(desk)
    assert start(desk) == [third, third], "a run of some shards is no success of all"


def test_previous_success_outlives_the_kept_runs_and_the_leader() -> None:
    desk = Desk(make_app(), make_job(**ASKS))
    start(desk)
    first = end(desk)
    for _ in range(60):
        start(desk)
        end(desk, "TASK_FAILED")
    assert all(run.worst is not ShardState.FINISHED for run in desk.firings() if run.ended_ms)
    desk.restart()
    assert start(desk) == [first]


@pytest.mark.parametrize("shards", [2, MAX_NARROW + 1])
def test_all_attempts_of_a_run_get_the_same_value(shards: int) -> None:
    desk = Desk(make_app(), make_job(
        shard_count=shards, retry_count=1, retry_delay_ms=1_000, concurrency=Concurrency.ALLOW, **ASKS
    ))  # fmt: skip
    desk.do(Trigger(desk.at, "report"))
    desk.offer(make_offer("o1", cpus=64))
    earlier = desk.running()
    desk.tick(1_000)
    desk.do(Trigger(desk.at, "report"))
    launched = desk.launched(desk.offer(make_offer("o2", cpus=64)))
    assert [payload_of(launch).get("previousSuccess") for launch in launched] == [None] * shards
    for task_id in earlier:
        desk.status(task_id, "TASK_FINISHED")
    task_id = next(task_id for task_id in desk.running() if task_id not in earlier)
    desk.status(task_id, "TASK_FAILED")
    desk.restart()
    desk.run_until_idle(5_000)
    (again,) = desk.launched(desk.offer(make_offer("o3", cpus=64)))
    assert (payload_of(again)["attempt"], payload_of(again).get("previousSuccess")) == (2, None)


def test_run_that_was_due_before_the_latest_success_gets_an_earlier_one() -> None:
    desk = Desk(make_app(), make_job(**ASKS))
    start(desk)
    first = end(desk)
    late = desk.at
    desk.tick(10_000)
    start(desk)
    end(desk)
    desk.do(Trigger(late, "report"))
    assert given(desk) == [first]


def test_runs_before_the_job_asked_count_as_far_as_they_are_kept() -> None:
    desk = Desk(make_app(), make_job())
    assert start(desk) == [None]
    first = end(desk)
    desk.do(PutJob(desk.at, make_job(**ASKS), replace=True))
    assert start(desk) == [first]


def test_parameter_of_a_trigger_may_ask_too() -> None:
    desk = Desk(make_app(), make_job(placeholders=("jobParameter",)))
    start(desk)
    first = end(desk)
    assert start(desk) == [None]
    end(desk)
    second = desk.firings()[-1].fire_ms
    assert start(desk, parameter="{previous_success}") == [second]
    assert second > first


def test_job_that_does_not_ask_stores_nothing_more() -> None:
    desk = Desk(make_app(), make_job())
    start(desk)
    end(desk)
    assert start(desk) == [None]
    assert desk.firings()[-1].terms.previous_ms is None
    assert desk.stored.job_states["report"].success_fire_ms == 0


def test_payload_describes_placeholders_in_a_format_of_its_own() -> None:
    script: dict[str, Any] = {"type": JobType.SCRIPT, "job_class": "", "script": "run {item}", "zone": "Europe/Berlin"}
    desk = Desk(make_app(), make_job(placeholders=("scriptCommandLine",), environment=("A=b",), **script))
    desk.do(Trigger(desk.at, "report"))
    (launch,) = desk.launched(desk.offer())
    found = payload_of(launch)
    assert found["schema"] == 4
    assert found["job"]["placeholders"] == {"fields": ["scriptCommandLine"], "timeZone": "Europe/Berlin"}
    assert found["job"]["environment"] == {"A": "b"}
    assert found["job"]["scriptCommandLine"] == "run {item}", "the executor replaces placeholders"


def test_resident_job_has_no_previous_success() -> None:
    desk = Desk(make_app(), make_job(kind=JobKind.DAEMON, **ASKS))
    assert given(desk) == [None]
