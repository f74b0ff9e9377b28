"""The earlier attempts of shards: what is kept of them, for how long, and that nothing depends on them."""

from __future__ import annotations

from typing import Any

import pytest
from tests.core_world import Desk, copy_of, make_app, make_job, make_offer, of

from jobcloud.config import JobKind
from jobcloud.errors import Conflict, NotFound
from jobcloud.messages import CancelRun, Effect, Kill, KillTask, Kind, Publish, PutJob, RemoveJob, Retry, Save, Trigger
from jobcloud.model import MAX_NARROW, Attempt, End, Execution, Outcome, ShardState, changed
from jobcloud.scheduler import attempts, firings, invariants
from jobcloud.scheduler.attempts import MOST_OF_SHARD, Attempts, key_of

HOUR = 3_600_000


def attempt(number: int) -> Attempt:
    return Attempt(number, f"t{number}", "a1", "host-a1", "e", Execution.READY, End.FAILED)


def desk_of(job: Any, *, more: Any = ()) -> Desk:
    desk = Desk(make_app(), job, *more)
    desk.do(Trigger(desk.at, job.name)) if job.kind is JobKind.TRANSIENT else desk.run_until_idle()
    return desk


def fail(desk: Desk, number: int = 0, state: str = "TASK_FAILED", wait_ms: int = 2 * HOUR, **fields: str) -> str:
    """Launch the next attempts, let one of them run for a second and end, and wait for its repeat. Returns its id."""
    desk.run_until_idle(wait_ms)
    desk.offer(make_offer(f"o{len(desk.all)}", cpus=64, mem=64_000))
    task_id = desk.running()[number]
    desk.status(task_id, "TASK_RUNNING")
    desk.at += 1_000
    desk.status(task_id, state, **fields)
    return task_id


def kept(desk: Desk, item: int = 0, job: str = "report") -> list[Attempt]:
    """The earlier attempts of a shard of the job's first run, oldest first, the same in the store as in the core."""
    firing = desk.firings(job)[0]
    found = desk.scheduler.attempts.get(firing.id)
    known = list(found.of(item)) if found else []
    records = {key: one for key, one in desk.stored.attempts.items() if key.startswith(f"{firing.id}/{item}/")}
    assert records == {key_of(firing.id, item, one.number): one for one in known}
    return known


def written(effects: list[Effect]) -> list[tuple[Kind, str, bool]]:
    return [(write.kind, write.key, write.record is not None) for save in of(Save, effects) for write in save.writes]


@pytest.mark.parametrize("shards", [1, MAX_NARROW + 1])
def test_attempt_of_a_repeated_shard_is_kept_with_its_end(shards: int) -> None:
    desk = desk_of(make_job(retry_count=2, shard_count=shards, failover=True))
    task_id = fail(desk, data='{"cause":"exception","result":7}', message="x" * 3_000)
    started, ended = desk.at - 1_000, desk.at
    (found,) = kept(desk)
    assert found == Attempt(
        1, task_id, "a1", "host-a1", found.executor_id, Execution.READY, End.FAILED, started, ended, "x" * 1_000,
        Outcome("exception", "7"),
    )  # fmt: skip
    assert found.executor_id
    fail(desk, number=len(desk.running()) - 1, state="TASK_LOST", message="gone")
    firing = desk.firings()[0]
    assert [one.end for one in kept(desk)] == ([End.FAILED, End.LOST] if shards == 1 else [End.FAILED])
    assert firing.shards[0].state in (ShardState.WAITING, ShardState.ACTIVE)


def test_attempt_is_written_together_with_its_shard_and_only_if_the_shard_is_repeated() -> None:
    desk = desk_of(make_job(retry_count=1, shard_count=MAX_NARROW + 1))
    firing = desk.firings()[0].id
    task_id = fail(desk)
    assert sorted(written(desk.last)) == [
        (Kind.ATTEMPT, f"{firing}/0/1", True), (Kind.SHARD, f"{firing}/0", True), (Kind.TASK, task_id, False),
    ]  # fmt: skip
    succeeded = desk.running()[0]
    desk.status(succeeded, "TASK_FINISHED")
    assert Kind.ATTEMPT not in {kind for kind, _, _ in written(desk.last)}
    assert len(desk.stored.attempts) == 1


def test_last_attempt_of_an_ended_shard_is_kept_when_an_operator_puts_the_shard_back() -> None:
    desk = desk_of(make_job())
    task_id = fail(desk, message="no luck")
    assert kept(desk) == []
    assert desk.firings()[0].shards[0].end is End.FAILED
    desk.do(Retry(desk.at, desk.firings()[0].id))
    (found,) = kept(desk)
    assert (found.number, found.task_id, found.end, found.message) == (1, task_id, End.FAILED, "no luck")
    assert (found.started_ms, found.ended_ms) == (desk.at - 1_000, desk.at)


def test_last_attempt_of_a_shard_put_back_while_others_run_is_kept() -> None:
    desk = desk_of(make_job(shard_count=2))
    task_id = fail(desk)
    assert desk.running()
    desk.do(Retry(desk.at, desk.firings()[0].id))
    assert [one.task_id for one in kept(desk)] == [task_id]


def test_shard_of_a_new_item_of_a_resident_job_has_no_earlier_attempt() -> None:
    desk = desk_of(make_job(kind=JobKind.DAEMON, independent_shards=True))
    fail(desk)
    desk.do(PutJob(desk.at, make_job(kind=JobKind.DAEMON, independent_shards=True, shard_count=2), replace=True))
    assert len(desk.firings()[0].shards) == 2
    assert (len(kept(desk)), kept(desk, 1)) == (1, [])


def test_lost_last_attempt_is_kept_as_lost() -> None:
    desk = desk_of(make_job(failover=False))
    fail(desk, state="TASK_LOST")
    desk.do(Retry(desk.at, desk.firings()[0].id))
    assert [one.end for one in kept(desk)] == [End.LOST]


def test_shard_keeps_its_newest_attempts() -> None:
    desk = desk_of(make_job(retry_count=30))
    for _ in range(MOST_OF_SHARD + 3):
        fail(desk)
    assert [one.number for one in kept(desk)] == [*range(4, MOST_OF_SHARD + 4)]
    assert len(desk.stored.attempts) == MOST_OF_SHARD


def test_resident_shard_keeps_its_newest_attempts() -> None:
    desk = desk_of(make_job(kind=JobKind.DAEMON))
    ends = ("TASK_FAILED", "TASK_LOST", "TASK_FINISHED")
    for number in range(MOST_OF_SHARD + 2):
        fail(desk, state=ends[number % 3])
    assert [one.number for one in kept(desk)] == [*range(3, MOST_OF_SHARD + 3)]
    assert {one.end for one in kept(desk)} == {End.FAILED, End.LOST, End.SUCCEEDED}


def test_firing_with_very_many_attempts_keeps_the_newest_of_each_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "MOST_OF_FIRING", 3)
    found = Attempts()
    assert found.add(0, attempt(1)) == ()
    assert found.add(0, attempt(2)) == ()
    assert found.add(1, attempt(1)) == ()
    assert found.add(2, attempt(1)) == (), "a shard always keeps one"
    assert found.add(0, attempt(3)) == (attempt(1),)
    assert found.add(2, attempt(2)) == (attempt(1),)
    assert found.add(2, attempt(2)) is None, "it is known"
    assert [(item, one.number) for item, one in found] == [(0, 2), (0, 3), (1, 1), (2, 2)]
    assert found.total == 4


def test_attempts_are_restored_and_go_on_as_without_a_restart() -> None:
    lasting, restarted = desk_of(make_job(retry_count=30)), desk_of(make_job(retry_count=30))
    for _ in range(MOST_OF_SHARD + 2):
        fail(lasting)
        fail(restarted)
        restarted.restart(same_epoch=True)
    assert restarted.stored.attempts == lasting.stored.attempts
    assert kept(restarted) == kept(lasting)


def test_attempts_are_deleted_with_their_firing() -> None:
    desk = desk_of(make_job(retry_count=1))
    fail(desk)
    fail(desk)
    assert desk.firings()[0].shards[0].state is ShardState.DEAD
    assert len(kept(desk)) == 1
    desk.do(RemoveJob(desk.at, "report"))
    assert not desk.stored.attempts
    assert not desk.scheduler.attempts


def test_ended_firings_of_a_job_keep_a_limited_number_of_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firings, "MOST_ATTEMPTS", 5)
    desk = Desk(make_app(), make_job(retry_count=2))
    runs = []
    for _ in range(4):
        desk.do(Trigger(desk.at, "report"))
        for _ in range(3):
            fail(desk)
        runs.append(desk.firings()[-1].id)
    assert list(desk.scheduler.attempts) == runs[-2:], "the oldest lose theirs, and the runs stay"
    assert len(desk.stored.attempts) == 4
    assert desk.firings()[0].shards[0].state is ShardState.DEAD
    desk.restart()
    desk.do(Retry(desk.at, runs[-2]))
    for _ in range(3):
        fail(desk)
    assert {key.rsplit("/", 2)[0] for key in desk.stored.attempts} == {runs[-2]}


def test_very_many_attempts_are_restored_and_deleted_with_their_firing(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = desk_of(make_job(retry_count=9, shard_count=3))
    for number in (0, 0, 0, 1, 1, 2):
        fail(desk, number)
    before = copy_of(desk.stored).attempts
    monkeypatch.setattr(attempts, "MOST_OF_FIRING", 2)  # the limit was reached in another order
    desk.restart()
    assert desk.stored.attempts == before
    assert {key_of(desk.firings()[0].id, *place) for place in numbers(desk)} == before.keys()
    desk.do(RemoveJob(desk.at, "report"))
    for task_id in desk.running():
        desk.status(task_id, "TASK_KILLED")
    assert not desk.stored.attempts


def test_attempts_beyond_the_limit_of_a_shard_are_deleted_at_the_next_start(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = desk_of(make_job(retry_count=9))
    for _ in range(5):
        fail(desk)
    monkeypatch.setattr(attempts, "MOST_OF_SHARD", 3)
    monkeypatch.setattr(invariants, "MOST_OF_SHARD", 3)
    desk.restart()
    assert [one.number for one in kept(desk)] == [3, 4, 5]


def numbers(desk: Desk) -> list[tuple[int, int]]:
    return [(item, one.number) for item, one in desk.scheduler.attempts[desk.firings()[0].id]]


def test_attempts_without_a_shard_are_deleted_at_the_next_start() -> None:
    desk = desk_of(make_job(retry_count=3))
    fail(desk)
    firing = desk.firings()[0].id
    stored = copy_of(desk.stored)
    desk.stored.attempts |= {
        "other.f/0/1": attempt(1), key_of(firing, 7, 1): attempt(1), key_of(firing, 0, 9): attempt(9),
    }  # fmt: skip
    desk.restart()
    assert desk.stored.attempts == stored.attempts
    assert len(kept(desk)) == 1


def test_state_without_records_of_attempts_is_taken_over() -> None:
    desk = desk_of(make_job(retry_count=3))
    fail(desk)
    desk.stored.attempts.clear()  # as an older build stores it
    (run,) = desk.stored.firings.values()
    desk.stored.firings[run.id] = changed(run, shards=(changed(run.shards[0], end=None),))
    desk.restart()
    fail(desk)
    assert [one.number for one in kept(desk)] == [2]


# ------------------------------------------------------------------------------------------- kills and cancelled runs


def test_shard_that_waits_for_its_repeat_ends_when_its_last_task_is_killed() -> None:
    desk = desk_of(make_job(retry_count=3))
    task_id = fail(desk)
    desk.do(KillTask(desk.at, task_id))
    (shard,) = desk.firings()[0].shards
    assert (shard.state, shard.ended_ms) == (ShardState.KILLED, desk.at)
    assert desk.firings()[0].ended_ms
    assert [one.end for one in kept(desk)] == [End.FAILED]
    assert shard.outcome == Outcome()
    desk.do(Retry(desk.at, desk.firings()[0].id))
    assert [one.end for one in kept(desk)] == [End.FAILED], "it is not kept twice"
    assert fail(desk) != task_id


def test_resident_shard_that_waits_cannot_be_killed() -> None:
    desk = desk_of(make_job(kind=JobKind.DAEMON))
    task_id = fail(desk)
    with pytest.raises(Conflict, match="starts again by itself"):
        desk.do(KillTask(desk.at, task_id))
    assert desk.firings()[0].shards[0].state is ShardState.WAITING


@pytest.mark.parametrize("task_id", ["x", "report@-@7@-@READY@-@a1@-@1-1", "report@-@0@-@READY@-@a1@-@9-9", ""])
def test_kill_of_an_unknown_task_is_refused(task_id: str) -> None:
    desk = desk_of(make_job(retry_count=3))
    fail(desk)
    with pytest.raises(NotFound):
        desk.do(KillTask(desk.at, task_id))


def test_earlier_attempt_cannot_be_killed() -> None:
    desk = desk_of(make_job(retry_count=3))
    first = fail(desk)
    fail(desk)
    with pytest.raises(NotFound):
        desk.do(KillTask(desk.at, first))


@pytest.mark.parametrize("state", ["TASK_KILLED", "TASK_FAILED", "TASK_LOST", "TASK_FINISHED"])
@pytest.mark.parametrize("shards", [3, MAX_NARROW + 1])
def test_cancelled_run_ends_its_running_and_its_waiting_shards(state: str, shards: int) -> None:
    desk = desk_of(make_job(retry_count=3, shard_count=shards, resources=make_job().resources))
    repeated = fail(desk)
    run = desk.firings()[0].id
    active = desk.running()
    assert active
    desk.do(CancelRun(desk.at, run))
    assert {kill.task_id for kill in of(Kill, desk.last)} == {*active}
    assert desk.firings()[0].shards[0].state is ShardState.CANCELLED
    assert desk.firings()[0].shards[0].task_id == repeated
    desk.restart()
    desk.do(CancelRun(desk.at, run))  # again, while it ends
    for task_id in desk.running():
        desk.status(task_id, state)
    firing = desk.firings()[0]
    assert firing.ended_ms
    assert all(shard.state.ended for shard in firing.shards)
    assert not desk.launched(desk.offer(make_offer("later", cpus=64)))
    with pytest.raises(Conflict, match="has ended"):
        desk.do(CancelRun(desk.at, run))


def test_cancelled_run_lets_the_next_run_of_its_job_start() -> None:
    desk = desk_of(make_job())
    desk.do(Trigger(desk.at, "report"))
    first, second = desk.firings()
    desk.do(CancelRun(desk.at, first.id))
    texts = [(notice.topic, notice.firing_id) for notice in of(Publish, desk.last)]
    assert texts == [("fired", first.id), ("done", first.id)]
    (launched,) = desk.launched(desk.offer())
    assert desk.scheduler.tasks[launched.task_id].firing_id == second.id


def test_cancelled_run_no_longer_calls_its_listener() -> None:
    desk = desk_of(make_job(firing_listener="shop:Stage", shard_count=2))
    desk.offer()
    (before,) = desk.running()
    desk.do(CancelRun(desk.at, desk.firings()[0].id))
    desk.status(before, "TASK_FINISHED")
    states = [shard.state for shard in desk.firings()[0].shards]
    assert states == [ShardState.CANCELLED] * 2 + [ShardState.FINISHED, ShardState.CANCELLED]
    assert desk.firings()[0].ended_ms


def test_run_of_a_resident_job_and_an_unknown_run_cannot_be_cancelled() -> None:
    desk = desk_of(make_job(kind=JobKind.DAEMON))
    with pytest.raises(Conflict, match="resident") as refused:
        desk.do(CancelRun(desk.at, desk.firings()[0].id))
    assert "job disable report" in refused.value.fix
    with pytest.raises(NotFound):
        desk.do(CancelRun(desk.at, "x"))


@pytest.mark.parametrize(
    ("item", "numbers", "counted", "problem"),
    [
        (0, (2, 1), 2, r"are \[2, 1\]"),
        (0, (1, 1), 2, r"are \[1, 1\]"),
        (0, (1, 9), 2, "has 9 before its attempt 3"),
        (0, tuple(range(-9, 2)), 11, "keeps 11 attempts"),
        (7, (1,), 1, "and no shard"),
        (0, (1, 2), 3, "has 2 attempts, counted as 3"),
    ],
)
def test_wrong_attempts_break_an_invariant(item: int, numbers: tuple[int, ...], counted: int, problem: str) -> None:
    desk = desk_of(make_job(retry_count=5))
    for _ in range(2):
        fail(desk)
    desk.run_until_idle(2 * HOUR)
    desk.offer(make_offer("last", cpus=64, mem=64_000))
    found = Attempts()
    for number in numbers:
        found.restore(item, attempt(number))
    found.total = counted
    desk.scheduler.attempts[desk.firings()[0].id] = found
    with pytest.raises(AssertionError, match=problem):
        desk.scheduler.validate()
