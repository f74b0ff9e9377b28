"""Wide firings: each shard has a record of its own, so neither a write nor a decision grows with the firing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from tests.core_world import POLICY, Desk, apply, make_app, make_job, make_offer, of

from jobcloud.config import Job, JobKind, Resources
from jobcloud.messages import Effect, Kind, PutJob, RemoveJob, Retry, Save, Trigger, Write
from jobcloud.model import (
    MAX_NARROW,
    UNTRIED,
    Cause,
    Firing,
    JobState,
    Shard,
    ShardState,
    WideShards,
    changed,
    replaced,
    shards_of,
    tried,
    untried,
)
from jobcloud.scheduler import Policy, Stored
from jobcloud.scheduler.recovery import MESSAGE, differences, recover, shard_key
from jobcloud.server.records import encode

SMALL = Resources(1, 1_000)
WIDE = MAX_NARROW + 8
FIRING = "report.trigger-1-1@jobcloud"


def desk_of(shards: int, policy: Policy = POLICY, **fields: Any) -> Desk:
    """A desk with a triggered run."""
    desk = Desk(make_app(), make_job(shard_count=shards, resources=SMALL, **fields), policy=policy)
    desk.do(Trigger(desk.at, "report"))
    return desk


def started(shards: int, **fields: Any) -> tuple[Desk, list[str]]:
    """A desk whose run has started, and the ids of its tasks by item."""
    desk = desk_of(shards, **fields)
    desk.offer(make_offer("o1", cpus=64, mem=1_000_000))
    return desk, [shard.task_id for shard in desk.firings()[0].shards]


def writes(effects: Iterable[Effect]) -> list[Write]:
    return [write for save in of(Save, effects) for write in save.writes]


def places(effects: Iterable[Effect]) -> list[tuple[Kind, str, bool]]:
    """(kind, key, whether it is put or deleted) of each write."""
    return [(write.kind, write.key, write.record is not None) for write in writes(effects)]


def size(effects: Iterable[Effect]) -> int:
    return sum(len(encode(write.kind, write.record)) for write in writes(effects) if write.record is not None)


def end_all(desk: Desk, state: str = "TASK_FINISHED", **fields: str) -> None:
    for task_id in desk.running():
        desk.status(task_id, state, **fields)


# ---- the sequence ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 5, 99, 100, 101, 250, 10_000])
def test_shards_are_a_sequence(width: int) -> None:
    plain = [Shard(attempt=item) for item in range(width)]
    shards = shards_of(*plain)
    assert (len(shards), list(shards), shards[:]) == (width, plain, tuple(plain))
    assert (shards[0], shards[-1], shards[width - 1], shards[-1:]) == (plain[0], plain[-1], plain[-1], (plain[-1],))
    for item in (width, -width - 1):
        with pytest.raises(IndexError):
            shards[item]
    assert untried(width) == shards_of(*[UNTRIED] * width)
    assert tried(shards) == {item: shard for item, shard in enumerate(plain) if item}


def test_replaced_shards_are_equal_to_new_ones_and_share_the_other_chunks() -> None:
    shards, other = untried(1_000), Shard(attempt=1)
    changes = {0: other, 101: other, 999: other}
    found = replaced(shards, changes)
    assert found == shards_of(*(changes.get(item, UNTRIED) for item in range(1_000)))
    assert shards == untried(1_000), "the old version stays"
    assert isinstance(shards, WideShards)
    assert isinstance(found, WideShards)
    assert sum(one is not two for one, two in zip(shards.chunks, found.chunks, strict=True)) == 3


def test_replaced_shards_behind_the_last_one_are_added() -> None:
    other = Shard(attempt=1)
    assert replaced(untried(99), {1: other, 101: other}) == shards_of(
        *(other if item in (1, 101) else UNTRIED for item in range(102))
    )
    assert replaced((), {}) == ()


# ---- writes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["TASK_RUNNING", "TASK_FAILED", "TASK_FINISHED"])
def test_update_writes_as_much_whatever_the_width(state: str) -> None:
    sizes = set()
    for width in (100, 1_000, 10_000):
        desk, tasks = started(width)
        end = [effects for item in range(3) for effects in [desk.status(tasks[50 + item], state, message="x" * 4_000)]]
        assert all(len(writes(effects)) == (1 if state == "TASK_RUNNING" else 2) for effects in end)
        sizes.add(tuple(map(size, end)))
    assert len(sizes) == 1
    assert max(max(each) for each in sizes) < 4_600


def test_narrow_firing_keeps_its_shards_in_its_record() -> None:
    desk, tasks = started(MAX_NARROW)
    assert places(desk.status(tasks[0], "TASK_FINISHED")) == [
        (Kind.TASK, tasks[0], False), (Kind.FIRING, FIRING, True),
    ]  # fmt: skip
    assert not desk.stored.shards


def test_life_of_a_wide_firing_in_the_store() -> None:
    desk = desk_of(WIDE)
    assert places(desk.last) == [(Kind.FIRING, FIRING, True)]
    effects = desk.offer(make_offer("o1", cpus=64, mem=1_000_000))
    kinds = [kind for kind, _, _ in places(effects)]
    assert (kinds.count(Kind.SHARD), kinds.count(Kind.TASK), kinds.count(Kind.FIRING)) == (WIDE, WIDE, 0)
    first, *others = desk.running()
    item = desk.scheduler.tasks[first].item
    assert places(desk.status(first, "TASK_RUNNING")) == [(Kind.TASK, first, True)]
    ended = desk.status(first, "TASK_FINISHED")
    assert places(ended) == [(Kind.TASK, first, False), (Kind.SHARD, shard_key(FIRING, item), True)]
    for task_id in others:
        ended = desk.status(task_id, "TASK_FAILED")
    assert places(ended)[-1] == (Kind.FIRING, FIRING, True), "the last end ends the firing"
    effects = desk.do(Retry(desk.at, FIRING, len(desk.firings()[0].shards) - 1))
    assert places(effects) == [
        (Kind.ATTEMPT, f"{FIRING}/{WIDE - 1}/1", True), (Kind.SHARD, shard_key(FIRING, WIDE - 1), True),
        (Kind.FIRING, FIRING, True),
    ]  # fmt: skip
    desk.do(RemoveJob(desk.at, "report"))
    desk.run_until_idle()
    assert (desk.stored.firings, desk.stored.shards) == ({}, {})


def test_wide_firing_outlives_its_leader_in_every_state() -> None:
    desk, tasks = started(WIDE, retry_count=2)
    for item, state in enumerate(("TASK_RUNNING", "TASK_FINISHED", "TASK_FAILED", "TASK_LOST", "TASK_UNREACHABLE")):
        desk.status(tasks[item], state, message="why")
    before = desk.firings()
    desk.restart()
    assert desk.firings() == before
    assert not [write for write in writes(desk.last) if write.kind in (Kind.SHARD, Kind.FIRING)], "nothing to repair"


def test_resident_firing_becomes_wide_when_it_grows() -> None:
    def job(shards: int) -> Job:
        return make_job(kind=JobKind.DAEMON, shard_count=shards, resources=SMALL, independent_shards=True)

    desk = Desk(make_app(), job(2))
    desk.run_until_idle()
    desk.offer(make_offer("o1", cpus=64, mem=1_000_000))
    assert not desk.stored.shards
    desk.do(PutJob(desk.at, job(WIDE), replace=True))
    assert len(desk.stored.shards) == 2
    desk.restart()
    assert [shard.state.value for shard in desk.firings()[0].shards] == ["ACTIVE"] * 2 + ["WAITING"] * (WIDE - 2)


# ---- decisions ---------------------------------------------------------------------------------------------------


def test_cycle_tries_few_shards_if_there_is_room_for_few(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = desk_of(10_000)
    tried = 0
    place = desk.scheduler.cluster.place

    def counted(requests: Any, limit: int) -> Any:
        nonlocal tried
        tried += len(requests)
        return place(requests, limit)

    monkeypatch.setattr(desk.scheduler.cluster, "place", counted)
    for number in range(3):
        assert len(desk.launched(desk.offer(make_offer(f"o{number}", f"a{number}", cpus=2, mem=148)))) == 20
    assert tried < 400


def test_shards_in_back_off_cost_a_cycle_nothing() -> None:
    desk, _ = started(200, retry_count=5)
    end_all(desk, "TASK_FAILED")
    (row,) = desk.scheduler.queue._open.values()
    assert row._ready == ([], [])
    desk.run_until_idle(600_000)
    assert len(row._ready[1]) == 200
    assert len(desk.launched(desk.offer(make_offer("o2", cpus=64, mem=1_000_000)))) == 200


# ---- history -----------------------------------------------------------------------------------------------------


def test_ended_shards_kept_for_a_job_are_bounded_and_the_last_run_stays() -> None:
    policy = replace(POLICY, max_ended_shards=2 * WIDE)
    desk = Desk(make_app(), make_job(shard_count=WIDE, resources=SMALL), policy=policy)
    for number in range(4):
        desk.do(Trigger(desk.at, "report"))
        desk.offer(make_offer(f"o{number}", cpus=64, mem=1_000_000))
        end_all(desk)
    assert len(desk.firings()) == 2
    assert len(desk.stored.shards) == 2 * WIDE
    desk.policy = replace(POLICY, max_ended_shards=1)
    desk.restart()
    assert len(desk.firings()) == 1
    assert len(desk.stored.shards) == WIDE


# ---- recovery ----------------------------------------------------------------------------------------------------


def loaded(firing: Firing, shards: dict[str, Shard | None]) -> Stored:
    found = Stored(shards=shards, firings={firing.id: firing})
    found.apps["shop"], found.jobs["report"] = make_app(), make_job(shard_count=len(firing.shards))
    found.job_states["report"] = JobState(5)
    return found


def wide(ended_ms: int = 0) -> Firing:
    return Firing("report.f", "report", 1, Cause.TRIGGER, 5, untried(WIDE), ended_ms)


def test_damaged_record_of_a_running_shard_starts_nothing_twice() -> None:
    desk, tasks = started(WIDE)
    desk.stored.shards[shard_key(FIRING, 3)] = None
    desk.restart()
    found = desk.firings()[0].shards[3]
    assert (found.state, found.task_id, found.attempt) == (ShardState.ACTIVE, tasks[3], 1)
    assert not desk.launched(desk.offer(make_offer("o2", "a2", cpus=64, mem=1_000_000)))
    assert desk.stored.shards[shard_key(FIRING, 3)] == found, "the record is repaired"


def test_damaged_record_of_another_shard_is_a_failure() -> None:
    desk, tasks = started(WIDE)
    desk.status(tasks[3], "TASK_FINISHED")
    desk.stored.shards[shard_key(FIRING, 3)] = None
    desk.restart()
    found = desk.firings()[0].shards[3]
    assert (found.state, found.message) == (ShardState.FAILED, MESSAGE)
    assert not desk.launched(desk.offer(make_offer("o2", "a2", cpus=64, mem=1_000_000)))


def test_lost_record_of_a_task_starts_nothing_twice() -> None:
    desk, tasks = started(WIDE)
    del desk.stored.tasks[tasks[3]]
    desk.restart()
    assert tasks[3] in desk.scheduler.tasks
    assert not desk.launched(desk.offer(make_offer("o2", "a2", cpus=64, mem=1_000_000)))


def test_shard_without_a_record_in_an_ended_firing_has_failed() -> None:
    done = Shard(ShardState.FINISHED, 1, ended_ms=8)
    stored = loaded(wide(ended_ms=9), {shard_key("report.f", item): done for item in range(WIDE - 1)})
    found = recover(stored, 100).firings["report.f"]
    assert found.ended_ms == 9
    assert found.shards[WIDE - 1] == Shard(ShardState.FAILED, ended_ms=9, message=MESSAGE)


def test_records_of_shards_without_a_firing_are_deleted() -> None:
    stored = loaded(
        wide(),
        {"other/1": Shard(attempt=1), shard_key("report.f", WIDE): None, shard_key("report.f", 1): Shard(attempt=1)},
    )
    assert list(differences(stored, recover(stored, 100))) == [
        (Kind.SHARD, "other/1", None), (Kind.SHARD, shard_key("report.f", WIDE), None),
    ]  # fmt: skip


def test_wide_firing_of_an_older_build_gets_records_for_its_shards_at_once() -> None:
    shards = {0: Shard(ShardState.FINISHED, 1), 5: Shard(ShardState.FAILED, 2, message="no luck")}
    firing = changed(wide(), shards=replaced(wide().shards, shards))
    stored = loaded(firing, {})
    found = list(differences(stored, recover(stored, 100)))
    assert found == [
        (Kind.FIRING, "report.f", firing),
        (Kind.SHARD, shard_key("report.f", 0), shards[0]),
        (Kind.SHARD, shard_key("report.f", 5), shards[5]),
    ]  # fmt: skip
    apply(stored, [Write(*each) for each in found])
    again = recover(stored, 100)
    assert again.firings["report.f"] == firing
    assert not list(differences(stored, again))
