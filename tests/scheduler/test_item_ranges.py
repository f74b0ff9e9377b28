"""The field `shardingItemRange`: the shards of a run divide a range of numbers or dates."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.core_world import Desk, make_ad_hoc_job, make_app, make_job, make_offer, payload_of

from jobcloud.config import JobKind
from jobcloud.errors import ConfigError
from jobcloud.messages import Kind, PutJob, Retry, RunAdHoc, Trigger
from jobcloud.model import MAX_NARROW, Terms
from jobcloud.scheduler.sharding import make_firing
from jobcloud.server.records import decode, encode

NUMBERS: dict[str, Any] = {"shard_count": 3, "item_range": "1..10"}
PARTS = ["1..4", "5..7", "8..10"]
YESTERDAY = "{fire_time}-1d..{fire_time}-1d"


def parameters(desk: Desk, name: str = "o1") -> dict[int, str]:
    launched = [
        payload_of(launch)["shardingContext"] for launch in desk.launched(desk.offer(make_offer(name, cpus=64)))
    ]
    return {context["shardingItem"]: context["shardingParameter"] for context in launched}


def fail_all(desk: Desk) -> None:
    for task_id in desk.running():
        desk.status(task_id, "TASK_FAILED")
    desk.run_until_idle(5_000)


def test_parameter_of_each_shard_is_its_part() -> None:
    desk = Desk(make_app(), make_job(**NUMBERS))
    desk.do(Trigger(desk.at, "report"))
    assert parameters(desk) == dict(enumerate(PARTS))


def test_trigger_may_leave_out_shards_and_replace_a_part() -> None:
    desk = Desk(make_app(), make_job(**NUMBERS))
    desk.do(Trigger(desk.at, "report", Terms(item_parameters=((1, "own"),), items=(1, 2))))
    assert parameters(desk) == {1: "own", 2: "8..10"}


def test_ad_hoc_run_divides_a_range() -> None:
    desk = Desk(make_app())
    desk.do(RunAdHoc(desk.at, make_ad_hoc_job(**NUMBERS)))
    assert parameters(desk) == dict(enumerate(PARTS))


@pytest.mark.parametrize("shards", [2, MAX_NARROW + 1])
def test_all_attempts_have_the_same_part_under_a_new_leader_with_another_time_zone(shards: int) -> None:
    job = make_job(shard_count=shards, item_range="{fire_time}-99d..{fire_time}", retry_count=1, retry_delay_ms=1_000)
    desk = Desk(make_app(), job)
    desk.do(Trigger(desk.at, "report"))
    first = parameters(desk)
    assert len(set(first.values())) == shards
    for name in ("Pacific/Kiritimati", "Pacific/Pago_Pago"):
        desk.do(PutJob(desk.at, replace(job, zone=name), replace=True))
    fail_all(desk)
    desk.restart()
    desk.run_until_idle(5_000)
    assert parameters(desk, "o2") == first
    (run,) = desk.firings()
    desk.do(Trigger(desk.at + 1, "report"))
    assert desk.firings()[-1].terms.range != run.terms.range, "a later run has the day of the new zone"


def test_shard_that_an_operator_repeats_keeps_its_part() -> None:
    desk = Desk(make_app(), make_job(**NUMBERS))
    desk.do(Trigger(desk.at, "report"))
    first = parameters(desk)
    fail_all(desk)
    (run,) = desk.firings()
    desk.do(PutJob(desk.at, make_job(shard_count=3, item_range="1..3000"), replace=True))
    desk.restart()
    desk.do(Retry(desk.at, run.id))
    assert parameters(desk, "o2") == first


def test_repeated_run_from_before_the_job_had_a_range_gets_one_and_keeps_it() -> None:
    desk = Desk(make_app(), make_job(shard_count=3, shard_parameters="0=a,1=b,2=c"))
    desk.do(Trigger(desk.at, "report"))
    assert parameters(desk) == {0: "a", 1: "b", 2: "c"}
    fail_all(desk)
    (run,) = desk.firings()
    for text, number in (("1..10", 2), ("1..3000", 3)):
        desk.do(PutJob(desk.at, make_job(shard_count=3, item_range=text), replace=True))
        desk.do(Retry(desk.at, run.id))
        assert parameters(desk, f"o{number}") == dict(enumerate(PARTS))
        fail_all(desk)


def test_trigger_with_a_key_may_be_repeated() -> None:
    desk = Desk(make_app(), make_job(**NUMBERS))
    for _ in range(2):
        desk.do(Trigger(desk.at, "report", Terms(key="k")))
    assert len(desk.firings()) == 1


def test_listener_of_a_run_gets_the_parts_of_all_shards() -> None:
    desk = Desk(make_app(), make_job(firing_listener="shop:Stage", **NUMBERS))
    desk.do(Trigger(desk.at, "report"))
    (before,) = desk.launched(desk.offer())
    assert payload_of(before)["firing"]["parameters"] == {str(item): text for item, text in enumerate(PARTS)}


def test_change_of_the_range_stops_the_runs() -> None:
    desk = Desk(make_app(), make_job(**NUMBERS))
    desk.do(Trigger(desk.at, "report"))
    desk.offer()
    desk.do(PutJob(desk.at, make_job(shard_count=3, item_range="1..20"), replace=True))
    assert all(task.kill_ms for task in desk.scheduler.tasks.values())


@pytest.mark.parametrize("shards", [3, MAX_NARROW + 1])
def test_record_of_a_run_keeps_its_range(shards: int) -> None:
    desk = Desk(make_app(), make_job(shard_count=shards, item_range="1..99"))
    desk.do(Trigger(desk.at, "report"))
    (run,) = desk.firings()
    read = decode(Kind.FIRING, run.id, encode(Kind.FIRING, run))
    assert read.terms.range == "1..99"  # type: ignore[union-attr]
    without = make_firing(make_job(), desk.scheduler.job_states["report"], run.cause, 0, "1", "c")
    assert b"range" not in encode(Kind.FIRING, without), "runs without a range have the form that older builds wrote"


def test_older_build_does_not_run_a_job_without_its_parts() -> None:
    assert encode(Kind.JOB, make_job(**NUMBERS)).startswith(b'{"v":2,')
    assert encode(Kind.JOB, make_job()).startswith(b'{"v":1,')


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"item_range": "1..x"}, "neither a whole number"),
        ({"item_range": "1..2", "shard_count": 3}, "only 2 numbers or days, which are too few for 3 shards"),
        ({"item_range": YESTERDAY, "shard_count": 2}, "too few for 2 shards"),
        ({"item_range": "1..9", "shard_parameters": "0=a"}, "shardingItemParameters"),
        ({"item_range": "1..9", "kind": JobKind.DAEMON}, "TRANSIENT jobs"),
    ],
)
def test_combination_that_makes_no_sense_is_refused_by_name(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as found:
        make_job(**change)
    assert found.value.field == "shardingItemRange"


def test_example_of_the_document_is_true() -> None:
    job = make_job(shard_count=3, zone="Europe/Berlin", item_range="{fire_time}-7d..{fire_time}-1d")
    desk = Desk(make_app(), job)
    fired = int(datetime(2026, 12, 2, 1, tzinfo=UTC).timestamp() * 1000)
    desk.at = max(desk.at, fired)
    desk.do(Trigger(fired, "report"))
    assert parameters(desk) == {
        0: "2026-11-25..2026-11-27", 1: "2026-11-28..2026-11-29", 2: "2026-11-30..2026-12-01",
    }  # fmt: skip
