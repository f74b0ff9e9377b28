"""The queue: its order, one run per job, back-offs, and a comparison with a slow twin under random changes."""

from __future__ import annotations

import random

from jobcloud.model import Cause, Execution, Firing, Shard, ShardState, changed, replaced, shards_of
from jobcloud.scheduler.queue import Queue


def firing(name: str, *shards: Shard, job: str = "") -> Firing:
    return Firing(name, job or name, 1, Cause.TRIGGER, 0, shards_of(*(shards or (Shard(),))))


def order(queue: Queue, at: int = 0, **priorities: int) -> list[str]:
    rows = queue.eligible(at, lambda job: True, lambda firing: priorities.get(firing.job, 0)).get("default", [])
    return [f"{name}{item}" for name, items in rows for item in items]


def queue_of(*firings: Firing) -> Queue:
    queue = Queue()
    for one in firings:
        queue.add(one)
    return queue


def test_older_firings_come_first_and_shards_in_order() -> None:
    assert order(queue_of(firing("b", Shard(), Shard()), firing("a"))) == ["b0", "b1", "a0"]


def test_lost_attempt_precedes_priority_and_priority_precedes_age() -> None:
    lost = Shard(execution=Execution.FAILOVER)
    queue = queue_of(firing("old"), firing("urgent"), firing("lost", Shard(), lost))
    assert order(queue, urgent=5) == ["lost1", "urgent0", "old0", "lost0"]


def test_only_the_oldest_firing_of_a_job_may_run() -> None:
    queue = queue_of(firing("one", job="j"), firing("two", job="j"))
    assert order(queue) == ["one0"]
    done = Shard(ShardState.FINISHED)
    assert not queue.change(firing("one", done, job="j"), {0: done})
    assert order(queue) == ["two0"]


def test_running_firing_keeps_the_next_one_waiting() -> None:
    queue = queue_of(firing("one", Shard(ShardState.ACTIVE), job="j"), firing("two", job="j"))
    assert order(queue) == []
    assert not queue.any_eligible(0, lambda job: True)


def test_each_back_off_wakes_once_at_its_end() -> None:
    queue = queue_of(firing("a", Shard(not_before_ms=10), Shard(not_before_ms=20), Shard(not_before_ms=20)))
    assert (order(queue, 9), queue.next_wake(), queue.expire_backoffs(9)) == ([], 10, False)
    assert queue.expire_backoffs(10)
    assert (order(queue, 10), queue.next_wake()) == (["a0"], 20)
    assert queue.expire_backoffs(20)
    assert (order(queue, 20), queue.next_wake(), queue.expire_backoffs(20)) == (["a0", "a1", "a2"], None, False)


def test_shards_of_disallowed_jobs_stay_in_the_queue() -> None:
    queue = queue_of(firing("a"), firing("b"))
    ((name, items),) = queue.eligible(0, lambda job: job == "b", lambda job: 0)["default"]
    assert (name, list(items)) == ("b", [0])
    assert len(queue) == 2


def test_queue_agrees_with_a_slow_twin(seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(30):
        queue, firings, twin_at = Queue(), {}, 0
        for number in range(40):
            if dice.random() < 0.4:
                made = firing(
                    f"f{number}", *(random_shard(dice) for _ in range(dice.randrange(1, 5))), job=f"j{number % 4}"
                )
                if not all(shard.state.ended for shard in made.shards):
                    queue.add(made)
                    firings[made.id] = made
            elif firings:
                old = firings[dice.choice(list(firings))]
                items = dice.sample(range(len(old.shards)), dice.randrange(1, len(old.shards) + 1))
                changes = {item: random_shard(dice) for item in items}
                new = changed(old, shards=replaced(old.shards, changes))
                firings[old.id] = new
                over = all(shard.state.ended for shard in new.shards)
                assert queue.change(new, changes) != over
                if over:
                    del firings[old.id]
            twin_at += dice.randrange(10)
            heads = {one.job: one for one in reversed(firings.values())}
            expected = sorted(
                (shard.execution is Execution.READY, list(firings).index(one.id), item)
                for one in heads.values()
                for item, shard in enumerate(one.shards)
                if shard.state is ShardState.WAITING and shard.not_before_ms <= twin_at
            )
            found = queue.eligible(twin_at, lambda job: True, lambda job: 0).get("default", [])
            queue.validate()
            assert [(name, item) for name, items in found for item in items] == [
                (list(firings)[i], item) for _, i, item in expected
            ]
            assert queue.any_eligible(twin_at, lambda job: True) == bool(expected)
            assert len(queue) == len(firings)


def random_shard(dice: random.Random) -> Shard:
    state = dice.choice([*ShardState, ShardState.WAITING])
    execution = dice.choice(list(Execution))
    return Shard(state, execution=execution, not_before_ms=dice.choice((0, 0, 50, 100, 200)))
