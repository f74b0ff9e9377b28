"""A loop whose leadership is in doubt is suspended; a loop that has lost it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.server.test_loop import (
    NOW,
    PACE,
    FakeCore,
    RecordingDriver,
    RecordingStore,
    World,
    enabling,
    eventually,
    status,
)

from jobcloud.errors import Fenced, StoreError, Unavailable
from jobcloud.messages import OfferRescinded, SetJobEnabled
from jobcloud.ports import Flag
from jobcloud.server.batch import Arrived, BatchProcessor
from jobcloud.server.loop import Loop, Phase


class FakeLeadership:
    leader = ""

    def __init__(self) -> None:
        self.sure = True
        self.lost = ""

    def wait(self, stop: Flag, tell: Callable[[str], None]) -> bool:
        return True

    def holds(self) -> bool:
        return self.sure and not self.lost

    def resign(self) -> None:
        self.sure = False


@contextmanager
def running(world: World, leadership: FakeLeadership) -> Iterator[Loop[FakeCore]]:
    loop: Loop[FakeCore] = Loop(
        RecordingStore(world), lambda: RecordingDriver(world), (), world.restore, pace=PACE, leadership=leadership
    )
    loop.start()
    try:
        yield loop
    finally:
        assert loop.stop(10)


def test_doubtful_leadership_suspends_store_and_send_and_loses_nothing() -> None:
    world, leadership = World(), FakeLeadership()
    with running(world, leadership) as loop:
        leadership.sure = False
        world.deliver(status("a"))
        world.deliver(OfferRescinded(NOW, "o"))
        for use in (lambda: loop.command(lambda at: SetJobEnabled(at, "j", True)), lambda: loop.ask(lambda core: core)):
            with pytest.raises(Unavailable, match="in doubt"):
                use()
        assert loop.health().phase is Phase.SUSPENDED
        assert not loop.health().leading
        assert not loop.healthy()
        assert world.done == []
        leadership.sure = True
        eventually(lambda: ("a",) in world.done)
        loop.command(lambda at: SetJobEnabled(at, "j", True))
        assert loop.health().recoveries == 0


def test_b12_lost_leadership_ends_the_loop_with_nothing_stored_or_sent() -> None:
    world, leadership = World(), FakeLeadership()
    with running(world, leadership) as loop:
        leadership.lost = "the session was lost"
        world.deliver(status("a"))
        assert loop.wait(10)
        assert isinstance(loop.failure, Fenced)
        assert "the session was lost" in str(loop.failure)
        assert world.done == ["disconnected", "closed"]


def test_lost_leadership_also_ends_recovery() -> None:
    world, leadership = World(), FakeLeadership()
    with running(world, leadership) as loop:
        world.fail_before = [StoreError("gone")]
        world.fail_load = [StoreError("gone")] * 3
        world.deliver(status("a"))
        eventually(lambda: loop.health().phase is Phase.RECOVERING)
        leadership.lost = "the session was lost"
        assert loop.wait(10)
        assert isinstance(loop.failure, Fenced)


def test_loop_stopped_while_in_doubt_stores_nothing() -> None:
    world, leadership = World(), FakeLeadership()
    with running(world, leadership) as loop:
        leadership.sure = False
        world.deliver(status("a"))
        assert loop.stop(10)
        assert loop.failure is None
    assert world.done == ["disconnected", "closed"]


def test_loop_that_never_led_names_the_leader_and_stops() -> None:
    world = World()
    loop: Loop[FakeCore] = Loop(RecordingStore(world), lambda: RecordingDriver(world), (), world.restore)
    loop.stand_by("http://other:8899 leads")
    with pytest.raises(Unavailable, match="http://other:8899 leads"):
        loop.ask(lambda core: core)
    assert loop.health().phase is Phase.STANDBY
    assert loop.stop()
    assert world.done == ["closed"]


def make_processor(world: World, may_send: Callable[[], bool]) -> BatchProcessor[FakeCore]:
    made: BatchProcessor[FakeCore] = BatchProcessor(
        RecordingStore(world),
        lambda: RecordingDriver(world),
        world.restore,
        world.done.append,
        now_ms=lambda: world.now,
        may_send=may_send,
    )
    made.acquire()
    made.reload()
    made.connect(lambda session, event: None)
    made.process([])
    return made


def test_process_suspended_between_store_and_send_sends_nothing() -> None:
    world, answers = World(), [False]
    processor = make_processor(world, lambda: answers[0])
    order: Any = enabling("j")
    with pytest.raises(StoreError, match="in doubt"):
        processor.process([Arrived(status("a")), order])
    assert world.done == [("a", "j")]
    with pytest.raises(Unavailable, match="may or may not"):
        order.reply.result(0)
