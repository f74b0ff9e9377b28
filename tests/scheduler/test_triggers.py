"""Triggers: runs with other parameters, with some of the shards, with a priority, with a key."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from tests.core_world import Desk, make_app, make_job, make_offer, payload_of

from jobcloud.config import JobKind
from jobcloud.errors import ConfigError, Conflict
from jobcloud.messages import Kind, PutJob, RemoveJob, Retry, SetJobEnabled, Trigger
from jobcloud.model import MAX_NARROW, NO_TERMS, Firing, ShardState, Terms, changed
from jobcloud.scheduler.recovery import shard_key
from jobcloud.server.records import decode, encode

CANCELLED, FINISHED, WAITING = ShardState.CANCELLED, ShardState.FINISHED, ShardState.WAITING


def make_desk(**fields: Any) -> Desk:
    return Desk(make_app(), make_job(**fields))


def trigger(desk: Desk, job: str = "report", **terms: Any) -> None:
    desk.do(Trigger(desk.at, job, Terms(**terms)))


def contexts(desk: Desk) -> list[tuple[int, str, str]]:
    """(item, shard's parameter, job's parameter) of each launch of the last effects."""
    found = [payload_of(launch)["shardingContext"] for launch in desk.launched()]
    return sorted((one["shardingItem"], one["shardingParameter"], one["jobParameter"]) for one in found)


@pytest.mark.parametrize("shards", [3, MAX_NARROW + 3])
def test_parameters_of_a_trigger_replace_those_of_the_job_in_one_run(shards: int) -> None:
    desk = make_desk(shard_count=shards, parameter="own", shard_parameters="0=a,1=b")
    trigger(desk, parameter="given", item_parameters=((1, "B"), (2, "")))
    desk.last = desk.offer(make_offer("o1", cpus=64))
    assert contexts(desk)[:3] == [(0, "a", "given"), (1, "B", "given"), (2, "", "given")]
    for task_id in desk.running():
        desk.status(task_id, "TASK_FINISHED")
    trigger(desk)
    desk.last = desk.offer(make_offer("o2", cpus=64))
    assert contexts(desk)[:3] == [(0, "a", "own"), (1, "b", "own"), (2, "", "own")]


def test_empty_parameter_of_a_trigger_replaces_that_of_the_job() -> None:
    desk = make_desk(parameter="own", shard_parameters="0=a")
    trigger(desk, parameter="", item_parameters=((0, ""),))
    desk.last = desk.offer()
    assert contexts(desk) == [(0, "", "")]


@pytest.mark.parametrize("shards", [2, MAX_NARROW + 1])
def test_parameters_of_a_trigger_survive_retries_and_a_new_leader(shards: int) -> None:
    desk = make_desk(shard_count=shards, retry_count=1, retry_delay_ms=1_000, retry_jitter=0)
    trigger(desk, parameter="given", item_parameters=((1, "B"),), items=(1,))
    desk.restart()
    desk.last = desk.offer()
    assert contexts(desk) == [(1, "B", "given")]
    (task_id,) = desk.running()
    desk.status(task_id, "TASK_FAILED")
    desk.restart()
    desk.run_until_idle(1_000)
    desk.last = desk.offer()
    assert contexts(desk) == [(1, "B", "given")]
    (task_id,) = desk.running()
    desk.status(task_id, "TASK_FAILED")  # DEAD
    (run,) = desk.firings()
    desk.do(Retry(desk.at, run.id))
    desk.last = desk.offer()
    assert contexts(desk) == [(1, "B", "given")]


@pytest.mark.parametrize("shards", [4, MAX_NARROW + 1])
def test_only_chosen_shards_run(shards: int) -> None:
    desk = make_desk(shard_count=shards)
    trigger(desk, items=(1, 3))
    desk.offer()
    for task_id in desk.running():
        desk.status(task_id, "TASK_FINISHED")
    (run,) = desk.firings()
    assert run.ended_ms
    wanted = [FINISHED if item in (1, 3) else CANCELLED for item in range(shards)]
    assert [shard.state for shard in run.shards] == wanted
    assert [shard.state for shard in run.chosen] == [FINISHED] * 2
    desk.restart()
    assert desk.firings() == [run]
    assert desk.firings()[0].worst is FINISHED, "shards that were left out do not count"


def test_listener_of_a_run_with_chosen_shards_hears_of_those_only() -> None:
    desk = make_desk(shard_count=3, shard_parameters="0=a,1=b", firing_listener="shop:Stage")
    trigger(desk, items=(1,))
    calls = []
    for _ in range(3):
        desk.offer()
        (task_id,) = desk.running()
        calls.append(payload_of(next(one for one in desk.launched(desk.all) if one.task_id == task_id)))
        desk.status(task_id, "TASK_FINISHED")
    before, shard, after = calls
    assert shard["shardingContext"]["shardingItem"] == 1
    assert before["firing"] == {"parameters": {"1": "b"}}
    assert after["firing"] == {"parameters": {"1": "b"}, "outcomes": {"FINISHED": 1}}
    assert desk.firings()[0].ended_ms


def test_retry_after_a_failed_call_of_the_listener_starts_chosen_shards_only() -> None:
    desk = make_desk(shard_count=3, firing_listener="shop:Stage")
    trigger(desk, items=(1,))
    desk.offer()
    (task_id,) = desk.running()
    desk.status(task_id, "TASK_FAILED")
    (run,) = desk.firings()
    assert run.ended_ms
    desk.do(Retry(desk.at, run.id))
    assert [shard.state for shard in desk.firings()[0].shards] == [CANCELLED, WAITING, CANCELLED, WAITING, WAITING]


def test_lost_record_of_a_left_out_shard_does_not_start_it() -> None:
    desk = make_desk(shard_count=MAX_NARROW + 1)
    trigger(desk, items=(0,))
    (run,) = desk.firings()
    del desk.stored.shards[shard_key(run.id, 3)]
    desk.stored.shards[shard_key(run.id, 4)] = None  # damaged
    desk.restart()
    assert [shard.state for shard in desk.firings()[0].shards] == [WAITING] + [CANCELLED] * MAX_NARROW
    desk.offer()
    assert len(desk.running()) == 1


def test_priority_of_a_trigger_precedes_that_of_its_job() -> None:
    desk = Desk(make_app(), make_job("low", priority=1), make_job("high", priority=5))
    trigger(desk, "high")
    trigger(desk, "low", priority=6)
    desk.offer(make_offer("o1", cpus=2))  # room for one
    assert [task.job for task in desk.scheduler.tasks.values()] == ["low"]


def test_key_makes_one_run_and_starts_it_once() -> None:
    desk = make_desk()
    trigger(desk, key="monday", parameter="p")
    (run,) = desk.firings()
    desk.at += 1_000
    trigger(desk, key="monday", parameter="p")
    assert desk.firings() == [run]
    desk.offer()
    desk.status(desk.running()[0], "TASK_FINISHED")
    desk.restart()
    desk.do(SetJobEnabled(desk.at, "report", False))
    trigger(desk, key="monday", parameter="p")  # the answer is the same, although the job is disabled now
    assert [(run.id, bool(run.ended_ms)) for run in desk.firings()] == [(run.id, True)]
    desk.do(SetJobEnabled(desk.at, "report", True))
    trigger(desk, key="tuesday", parameter="p")
    assert len(desk.firings()) == 2


def test_key_with_other_values_is_refused() -> None:
    desk = make_desk(shard_count=2)
    trigger(desk, key="monday", parameter="p")
    for other in ({"parameter": "q"}, {"parameter": "p", "items": (0,)}, {"parameter": "p", "priority": 1}, {}):
        with pytest.raises(Conflict) as caught:
            trigger(desk, key="monday", **other)
        assert caught.value.field == "key"
    assert len(desk.firings()) == 1


def test_key_belongs_to_one_job_and_is_free_after_its_removal() -> None:
    desk = Desk(make_app(), make_job(), make_job("other"))
    trigger(desk, key="monday")
    trigger(desk, "other", key="monday", parameter="p")
    assert len(desk.firings("other")) == 1
    desk.do(RemoveJob(desk.at, "report"))
    desk.do(PutJob(desk.at, make_job()))
    trigger(desk, key="monday", parameter="q")
    assert [run.terms.parameter for run in desk.firings()] == ["q"]


@pytest.mark.parametrize(
    ("terms", "field"),
    [(Terms(items=(0, 2)), "shards"), (Terms(item_parameters=((2, "c"),)), "shardingItemParameters")],
)
def test_shards_that_the_job_lacks_are_refused(terms: Terms, field: str) -> None:
    desk = make_desk(shard_count=2)
    with pytest.raises(ConfigError, match="no shard 2") as caught:
        desk.do(Trigger(desk.at, "report", terms))
    assert caught.value.field == field
    assert not desk.firings()


def test_resident_job_refuses_a_trigger_with_a_key() -> None:
    desk = make_desk(kind=JobKind.DAEMON)
    with pytest.raises(Conflict, match="resident"):
        trigger(desk, key="monday")


@pytest.mark.parametrize("shards", [2, MAX_NARROW + 1])
def test_record_without_terms_is_that_of_older_builds(shards: int) -> None:
    desk = make_desk(shard_count=shards)
    trigger(desk)
    (run,) = desk.firings()
    value = encode(Kind.FIRING, run)
    assert "terms" not in json.loads(value)["r"]
    found = cast(Firing, decode(Kind.FIRING, run.id, value))
    assert found == run
    assert found.terms == NO_TERMS


@pytest.mark.parametrize("shards", [4, MAX_NARROW + 1])
def test_record_with_terms_is_read_again(shards: int) -> None:
    desk = make_desk(shard_count=shards)
    terms = Terms("p", ((1, "b"),), (1, 3), -7, "monday")
    desk.do(Trigger(desk.at, "report", terms))
    (run,) = desk.firings()
    found = cast(Firing, decode(Kind.FIRING, run.id, encode(Kind.FIRING, run)))
    assert found.terms == terms
    # An older build ignores the field.
    value = json.loads(encode(Kind.FIRING, run))
    del value["r"]["terms"]
    assert decode(Kind.FIRING, run.id, json.dumps(value).encode()) == changed(found, terms=NO_TERMS)
