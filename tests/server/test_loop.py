"""The order of store, send, acknowledge and publish; failures at each step; the thread of the loop."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from jobcloud.adapters.memory import MemoryServer, MemoryStore
from jobcloud.adapters.sqlite import SqliteStore
from jobcloud.errors import ConfigError, Conflict, Fenced, NotConnected, Refused, StoreError, StoreUnusable, Unavailable
from jobcloud.messages import (
    Acknowledge,
    Call,
    Decline,
    Disconnected,
    Effect,
    Event,
    FrameworkRemoved,
    Kind,
    OfferRescinded,
    Publish,
    Revive,
    Save,
    SendFailed,
    SetAppEnabled,
    SetJobEnabled,
    Status,
    StatusReceived,
    Subscribed,
    Tick,
    Topic,
    Write,
)
from jobcloud.model import JobState, changed
from jobcloud.ports import StoredRecords, StoredWrite
from jobcloud.server import records
from jobcloud.server.batch import Arrived, BatchProcessor, CoreFailed, Order, merge
from jobcloud.server.loop import Health, Loop, Pace, Phase
from jobcloud.server.records import Restored
from jobcloud.server.wiring import _on_signals

NOW = 1_700_000_000_000


@dataclass
class World:
    """Everything outside the loop. `done` records all its actions in one list."""

    done: list[Any] = field(default_factory=list)
    server: MemoryServer = field(default_factory=MemoryServer)
    now: int = NOW
    fail_before: list[Exception] = field(default_factory=list)
    fail_after: list[Exception] = field(default_factory=list)
    fail_load: list[Exception] = field(default_factory=list)
    fail_send: list[Exception] = field(default_factory=list)
    fail_handle: Callable[[Event], bool] = lambda event: False
    wakes: list[int] = field(default_factory=list)
    stuck: bool = False
    cores: list[FakeCore] = field(default_factory=list)
    drivers: list[tuple[Callable[[Event], None], str]] = field(default_factory=list)

    def count(self, kind: type) -> int:
        return sum(isinstance(entry, kind) for entry in self.done)

    def restore(self, restored: Restored, epoch: int, at: int) -> FakeCore:
        self.cores.append(FakeCore(self, restored, epoch))
        return self.cores[-1]

    def deliver(self, event: Event) -> None:
        """Deliver an event as the driver does, in its present session."""
        self.drivers[-1][0](event)


@dataclass
class FakeCore:
    """Answers each event with one effect of every rank, in the wrong order."""

    world: World
    restored: Restored
    epoch: int
    handled: list[Event] = field(default_factory=list)

    def handle(self, event: Event) -> list[Effect]:
        if self.world.fail_handle(event):
            raise ZeroDivisionError("a defect")
        self.handled.append(event)
        match event:
            case StatusReceived(at, status):
                return [
                    Publish(at, Topic.RUNNING, status.task_id),
                    Acknowledge(status.task_id, status.agent_id, status.uuid),
                    Decline((status.task_id,), 5_000),
                    Save((Write(Kind.JOB_STATE, status.task_id, JobState(at)),)),
                ]
            case SetJobEnabled(at, name, enabled):
                if name == "missing":
                    raise Refused("no such job", field="jobName")
                return [Save((Write(Kind.JOB_STATE, name, JobState(at, disabled=not enabled)),))]
            case OfferRescinded():
                return [Revive()]
            case SetAppEnabled():
                return ["no effect at all"]  # type: ignore[list-item]
            case Tick(at):
                self.world.wakes = [wake for wake in self.world.wakes if wake > at]
        return []

    def next_wake(self, at: int) -> int | None:
        if self.world.stuck:
            return 0
        return max(at, min(self.world.wakes)) if self.world.wakes else None


class RecordingStore:
    def __init__(self, world: World) -> None:
        self._world = world
        self._inner = MemoryStore(world.server)

    def acquire(self, floor: int = 0) -> int:
        return self._inner.acquire(floor)

    def load(self) -> StoredRecords:
        if self._world.fail_load:
            raise self._world.fail_load.pop(0)
        return self._inner.load()

    def write(self, epoch: int, batch: Sequence[StoredWrite]) -> None:
        if batch and self._world.fail_before:
            raise self._world.fail_before.pop(0)
        self._inner.write(epoch, batch)
        if batch:
            self._world.done.append(tuple(write.key for write in batch))
        if batch and self._world.fail_after:
            raise self._world.fail_after.pop(0)

    def close(self) -> None:
        self._world.done.append("closed")
        self._inner.close()


class RecordingDriver:
    """Like the real driver, it cannot be started again after a stop."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._stopped = False

    def start(self, deliver: Callable[[Event], None], framework_id: str) -> None:
        assert not self._stopped
        self._world.drivers.append((deliver, framework_id))

    def send(self, call: Call | Acknowledge) -> None:
        if self._world.fail_send:
            raise self._world.fail_send.pop(0)
        self._world.done.append(call)

    def stop(self) -> None:
        self._stopped = True
        self._world.done.append("disconnected")

    def teardown(self) -> None:
        self._world.done.append("torn down")


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def processor(world: World) -> BatchProcessor[FakeCore]:
    made: BatchProcessor[FakeCore] = BatchProcessor(
        RecordingStore(world),
        lambda: RecordingDriver(world),
        world.restore,
        world.done.append,
        now_ms=lambda: world.now,
    )
    made.acquire()
    made.reload()
    made.connect(lambda session, event: world.done.append(event))
    made.process([])
    return made


def status(task_id: str) -> StatusReceived:
    return StatusReceived(NOW, Status(task_id, "agent", "TASK_RUNNING", uuid=f"u-{task_id}"))


def ranks(done: list[Any]) -> list[type]:
    return [type(entry) for entry in done]


def ordered(make: Callable[[int], Any]) -> Order:
    return Order(make, Future())


def enabling(name: str) -> Order:
    return ordered(lambda at: SetJobEnabled(at, name, True))


# ---------------------------------------------------------------------------------------------- the order of effects


def test_batch_is_stored_once_then_sent_then_acknowledged_then_published(
    processor: BatchProcessor[FakeCore], world: World
) -> None:
    processor.process([Arrived(status("a")), Arrived(status("b"))])
    assert ranks(world.done) == [tuple, Decline, Decline, Acknowledge, Acknowledge, Publish, Publish]
    assert world.done[0] == ("a", "b")
    assert [call.offer_ids for call in world.done[1:3]] == [("a",), ("b",)]


def test_order_is_answered_only_after_it_is_stored(processor: BatchProcessor[FakeCore], world: World) -> None:
    order = enabling("j")
    order.reply.add_done_callback(lambda reply: world.done.append("answered"))
    processor.process([order])
    assert world.done == [("j",), "answered"]
    assert order.reply.result() is None


def test_refused_order_affects_only_its_caller(processor: BatchProcessor[FakeCore], world: World) -> None:
    refused, accepted = enabling("missing"), enabling("j")
    processor.process([refused, accepted, Arrived(status("a"))])
    with pytest.raises(Refused, match="no such job"):
        refused.reply.result(0)
    assert accepted.reply.result(0) is None
    assert world.done[0] == ("j", "a")


def test_error_while_a_command_is_built_is_returned_to_its_caller(
    processor: BatchProcessor[FakeCore], world: World
) -> None:
    order = ordered(lambda at: [][at])
    processor.process([order, Arrived(status("a"))])
    with pytest.raises(IndexError):
        order.reply.result(0)
    assert world.count(Acknowledge) == 1


def test_command_carries_the_instant_at_which_it_is_handled(processor: BatchProcessor[FakeCore], world: World) -> None:
    world.now += 77
    processor.process([enabling("j")])
    assert world.cores[-1].handled[-1] == SetJobEnabled(NOW + 77, "j", True)


def test_batch_without_changes_is_not_written(processor: BatchProcessor[FakeCore], world: World) -> None:
    processor.process([Arrived(OfferRescinded(NOW, "o"))])
    assert world.done == [Revive()]


_KEYS = st.sampled_from(["a", "b", "c"])
_SERIES = st.lists(
    st.tuples(st.sampled_from([Kind.JOB_STATE, Kind.DISABLED_APP]), _KEYS, st.none() | st.integers(0, 9))
)


@given(_SERIES)
def test_merged_writes_have_the_same_result_as_the_whole_series(series: list[tuple[Kind, str, int | None]]) -> None:
    writes = [Write(kind, key, None if number is None else JobState(number)) for kind, key, number in series]
    merged = merge([writes[:3], writes[3:]])
    assert len({(write.kind, write.key) for write in merged}) == len(merged)
    one_by_one: dict[tuple[Kind, str], Any] = {}
    for write in writes:
        one_by_one[write.kind, write.key] = write.record
    assert {(write.kind, write.key): write.record for write in merged} == one_by_one


# ------------------------------------------------------------------------------------------------- crash points


def test_failed_write_prevents_sending(processor: BatchProcessor[FakeCore], world: World) -> None:
    world.fail_before = [StoreError("disk")]
    order = enabling("j")
    with pytest.raises(StoreError):
        processor.process([Arrived(status("a")), order])
    assert world.done == []
    with pytest.raises(Unavailable, match="may or may not"):
        order.reply.result(0)


def test_write_that_succeeded_but_reported_failure_prevents_sending(
    processor: BatchProcessor[FakeCore], world: World
) -> None:
    world.fail_after = [StoreError("connection lost")]
    with pytest.raises(StoreError):
        processor.process([Arrived(status("a"))])
    assert ranks(world.done) == [tuple]
    processor.disconnect()
    processor.reload()
    assert set(world.cores[-1].restored.job_states) == {"a"}


def test_unexpected_exception_of_a_store_counts_as_a_failed_write(
    processor: BatchProcessor[FakeCore], world: World
) -> None:
    world.fail_before = [RuntimeError("bug in the adapter")]
    with pytest.raises(StoreError, match="RuntimeError"):
        processor.process([Arrived(status("a"))])
    assert world.done == []


def test_driver_exception_is_an_uncertain_failure_of_that_call_only(
    processor: BatchProcessor[FakeCore], world: World
) -> None:
    world.fail_send = [OSError("socket")]
    processor.process([Arrived(status("a")), Arrived(status("b"))])
    failed = SendFailed(NOW, Decline(("a",), 5_000), "socket", certain=False)
    assert world.done[1] == failed
    assert ranks(world.done[2:]) == [Decline, Acknowledge, Acknowledge, Publish, Publish]


def test_lost_acknowledgement_is_ignored_because_mesos_resends(
    processor: BatchProcessor[FakeCore], world: World
) -> None:
    processor.process([Arrived(status("a"))])
    before = len(world.done)
    world.fail_send = [OSError("first"), OSError("second")]
    processor.process([Arrived(status("b"))])
    assert ranks(world.done[before:]) == [tuple, SendFailed, Publish]


def test_error_in_the_core_drops_only_the_events_after_it(processor: BatchProcessor[FakeCore], world: World) -> None:
    world.fail_handle = lambda event: event == status("bad")
    before, after = enabling("before"), enabling("after")
    with pytest.raises(CoreFailed, match="ZeroDivisionError: a defect"):
        processor.process([before, Arrived(status("a")), Arrived(status("bad")), Arrived(status("c")), after])
    assert ranks(world.done) == [tuple, Decline, Acknowledge, Publish]
    assert before.reply.result(0) is None
    with pytest.raises(Unavailable, match="starting over"):
        after.reply.result(0)


def test_unknown_effect_is_an_error_of_the_core_and_no_effect_of_its_event_is_performed(
    processor: BatchProcessor[FakeCore], world: World
) -> None:
    order = ordered(lambda at: SetAppEnabled(at, "app", True))
    with pytest.raises(CoreFailed):
        processor.process([order])
    with pytest.raises(CoreFailed):
        order.reply.result(0)
    assert world.done == []


def test_update_that_fails_twice_is_dropped_and_never_acknowledged(
    processor: BatchProcessor[FakeCore], world: World
) -> None:
    world.fail_handle = lambda event: isinstance(event, StatusReceived) and event.status.task_id == "bad"
    for _ in range(2):
        with pytest.raises(CoreFailed):
            processor.process([Arrived(status("bad"))])
        processor.reload()
    with capture_logs() as logs:
        processor.process([Arrived(status("bad")), Arrived(status("a"))])
    assert [entry["log_level"] for entry in logs] == ["error"]
    assert [entry.task_id for entry in world.done if isinstance(entry, Acknowledge)] == ["a"]


def test_command_that_fails_twice_is_refused(processor: BatchProcessor[FakeCore], world: World) -> None:
    world.fail_handle = lambda event: isinstance(event, SetJobEnabled)
    for _ in range(2):
        with pytest.raises(CoreFailed):
            processor.process([enabling("j")])
    order = enabling("j")
    processor.process([order])
    with pytest.raises(Refused, match="made the scheduler fail before"):
        order.reply.result(0)


def test_failed_ticks_are_always_retried(processor: BatchProcessor[FakeCore], world: World) -> None:
    world.fail_handle = lambda event: isinstance(event, Tick)
    for _ in range(5):
        world.now += 1_000
        with pytest.raises(CoreFailed):
            processor.process([])
    world.fail_handle = lambda event: False
    world.now += 1_000
    processor.process([])
    assert isinstance(world.cores[-1].handled[-1], Tick)


# ------------------------------------------------------------------------------------------- epochs and sessions


def test_superseded_leader_is_fenced_at_its_next_write(processor: BatchProcessor[FakeCore], world: World) -> None:
    MemoryStore(world.server).acquire()
    with pytest.raises(Fenced):
        processor.process([Arrived(status("a"))])
    assert world.done == []


def test_superseded_leader_sends_nothing_in_a_new_session(processor: BatchProcessor[FakeCore], world: World) -> None:
    MemoryStore(world.server).acquire()
    with pytest.raises(Fenced):
        processor.process([Arrived(Subscribed(NOW, "f")), Arrived(OfferRescinded(NOW, "o"))])
    assert world.done == []


def test_superseded_leader_does_not_subscribe_again(processor: BatchProcessor[FakeCore], world: World) -> None:
    MemoryStore(world.server).acquire()
    with pytest.raises(Fenced):
        processor.reload()


def test_reload_reads_the_state_after_no_other_leader_can_write(
    processor: BatchProcessor[FakeCore], world: World
) -> None:
    """It may be suspended between two requests. Another leader's writes of that time must be loaded."""

    def meanwhile(self: RecordingStore) -> int:
        other = MemoryStore(world.server)
        written = [StoredWrite(Kind.JOB_STATE, "of-another", records.encode(Kind.JOB_STATE, JobState(NOW)))]
        other.write(other.acquire(), written)
        return MemoryStore(world.server).acquire()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RecordingStore, "acquire", meanwhile)
        processor.reload()
    assert "of-another" in processor.core.restored.job_states


def test_event_with_a_future_time_gets_the_present_time(processor: BatchProcessor[FakeCore], world: World) -> None:
    """The driver stamps events by the clock of the machine. Back-offs and ends would begin when it was ahead."""
    processor.process([Arrived(changed(status("a"), at=NOW + 180 * 86_400_000)), Arrived(changed(status("b"), at=5))])
    assert [event.at for event in processor.core.handled if isinstance(event, StatusReceived)] == [NOW, 5]


def test_events_of_an_earlier_session_are_dropped(processor: BatchProcessor[FakeCore], world: World) -> None:
    old = processor.session
    processor.disconnect()
    processor.connect(lambda session, event: None)
    processor.process([Arrived(status("old"), old), Arrived(status("new"), processor.session)])
    assert [call.offer_ids for call in world.done if isinstance(call, Decline)] == [("new",)]


def test_unstored_framework_id_is_reused_until_mesos_refuses_it(
    processor: BatchProcessor[FakeCore], world: World
) -> None:
    for event, expected in ((Subscribed(NOW, "f-1"), "f-1"), (FrameworkRemoved(NOW, "gone"), "")):
        processor.process([Arrived(event)])
        processor.reload()
        processor.connect(lambda session, event: None)
        assert world.drivers[-1][1] == expected


# ------------------------------------------------------------------------------------------------------- ticks


def test_ticks_come_every_second_and_at_requested_instants(processor: BatchProcessor[FakeCore], world: World) -> None:
    world.wakes = [NOW + 250]
    processor.process([])
    ticks = []
    while world.now < NOW + 3_000:
        world.now += processor.wake_ms()
        processor.process([])
        ticks.append(world.now - NOW)
    assert ticks == [250, 1_250, 2_250, 3_250]


def test_core_that_requests_a_past_instant_does_not_spin(processor: BatchProcessor[FakeCore], world: World) -> None:
    world.stuck = True
    processor.process([])
    assert processor.wake_ms() == 1


def test_lateness_is_the_time_from_the_requested_instant_to_the_tick(
    processor: BatchProcessor[FakeCore], world: World
) -> None:
    world.wakes = [NOW + 100]
    processor.process([])
    world.now = NOW + 130
    processor.process([])
    assert processor.late_ms == 30
    world.now += 1_000
    processor.process([])
    assert processor.late_ms == 0


def test_ticks_continue_after_the_clock_is_set_back(processor: BatchProcessor[FakeCore], world: World) -> None:
    world.now -= 3_600_000
    assert processor.wake_ms() == 0
    processor.process([])
    assert world.cores[-1].handled[-1] == Tick(NOW - 3_600_000)
    assert 0 < processor.wake_ms() <= 1_000


def test_due_tick_shares_the_write_of_the_events_before_it(processor: BatchProcessor[FakeCore], world: World) -> None:
    world.wakes = [NOW + 1]
    world.now = NOW + 1
    processor.process([Arrived(status("a"))])
    assert ranks(world.cores[-1].handled[-2:]) == [StatusReceived, Tick]


# -------------------------------------------------------------------------------------------------- the thread


PACE = Pace(retry_first_ms=1, retry_max_ms=5, tick_ms=20)


@contextmanager
def running(
    world: World,
    *,
    pace: Pace = PACE,
    sinks: tuple[Any, ...] = (),
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
) -> Iterator[Loop[FakeCore]]:
    loop: Loop[FakeCore] = Loop(
        RecordingStore(world), lambda: RecordingDriver(world), sinks, world.restore, pace=pace, now_ms=now_ms
    )
    loop.start()
    try:
        yield loop
    finally:
        assert loop.stop(60)


def eventually(condition: Callable[[], object], within: float = 60.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "not true in time"
        time.sleep(0.002)


def test_command_returns_once_it_is_stored(world: World) -> None:
    with running(world) as loop:
        loop.command(lambda at: SetJobEnabled(at, "j", True))
        assert world.done == [("j",)]
        with pytest.raises(Refused, match="no such job"):
            loop.command(lambda at: SetJobEnabled(at, "missing", True))


def test_question_is_answered_between_batches_and_sees_completed_commands(world: World) -> None:
    with running(world) as loop:
        loop.command(lambda at: SetJobEnabled(at, "j", True))
        assert loop.ask(lambda core: [event.job for event in core.handled if isinstance(event, SetJobEnabled)]) == ["j"]
        with pytest.raises(Conflict):
            loop.ask(lambda core: raising(Conflict("asked for")))
        assert loop.health().leading


def hold(entered: Future[None], busy: Future[None]) -> None:
    """Keep the thread of the loop busy until the test continues."""
    entered.set_result(None)
    busy.result(60)


def raising(error: Exception) -> None:
    raise error


def test_stored_framework_id_is_used_to_subscribe(world: World) -> None:
    world.server.entries["framework", "id"] = b'{"v":1,"r":"f-7"}'
    with running(world):
        assert world.drivers[0][1] == "f-7"


def test_failed_write_is_never_acknowledged_and_the_loop_restarts_from_the_store(world: World) -> None:
    with running(world) as loop:
        loop.command(lambda at: SetJobEnabled(at, "kept", True))
        world.fail_before = [StoreError("disk"), StoreError("disk")]
        world.deliver(status("a"))
        eventually(lambda: len(world.drivers) == 2 and loop.health().leading)
        assert world.count(Acknowledge) == 0
        assert set(world.cores[-1].restored.job_states) == {"kept"}
        world.deliver(status("a"))
        eventually(lambda: len(world.drivers) == 3 and loop.health().leading)
        world.deliver(status("a"))
        eventually(lambda: world.count(Acknowledge) == 1)
        assert loop.health().recoveries == 2


def test_b15_commands_are_unavailable_only_while_the_store_is_out_of_reach(world: World) -> None:
    with running(world) as loop:
        world.fail_before = [StoreError("disk")]
        world.fail_load = [StoreError("still")] * 20
        with pytest.raises(Unavailable):
            loop.command(lambda at: SetJobEnabled(at, "j", True))
        eventually(lambda: loop.health().phase is Phase.RECOVERING)
        with pytest.raises(Unavailable, match=r"still|disk"):
            loop.command(lambda at: SetJobEnabled(at, "j", True))
        with pytest.raises(Unavailable):
            loop.ask(lambda core: core)
        eventually(lambda: loop.health().leading)
        loop.command(lambda at: SetJobEnabled(at, "j", True))
        assert world.done[-1] == ("j",)


def test_fenced_leader_stops_and_reports_why(world: World) -> None:
    with running(world) as loop:
        MemoryStore(world.server).acquire()
        with pytest.raises(Unavailable):
            loop.command(lambda at: SetJobEnabled(at, "j", True))
        assert loop.wait(10)
        assert isinstance(loop.failure, Fenced)
        assert loop.health().phase is Phase.FENCED
        assert loop.health().recoveries == 0
        assert world.done == ["disconnected", "closed"]
        with pytest.raises(Unavailable, match="superseded"):
            loop.command(lambda at: SetJobEnabled(at, "j", True))


def test_update_that_always_fails_causes_two_recoveries_and_is_then_dropped(world: World) -> None:
    world.fail_handle = lambda event: isinstance(event, StatusReceived) and event.status.task_id == "bad"
    with running(world) as loop:

        def leads_in(session: int) -> bool:
            return len(world.drivers) == session and loop.health().leading

        for sessions in (2, 3):
            world.deliver(status("bad"))
            eventually(partial(leads_in, sessions))
        world.deliver(status("bad"))
        world.deliver(status("good"))
        eventually(lambda: world.count(Acknowledge) == 1)
        assert loop.health().recoveries == 2


def test_b13_signal_requests_the_shutdown_and_a_second_one_does_not_interrupt_it() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            stop = _on_signals()
            assert not stop.is_set()
            signal.raise_signal(number)
            assert stop.is_set()
            signal.raise_signal(number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_b14_delay_of_repeated_recoveries_grows_until_one_lasts(world: World) -> None:
    loop: Loop[FakeCore] = Loop(RecordingStore(world), lambda: RecordingDriver(world), (), world.restore, pace=Pace())
    assert [loop._delay() for _ in range(9)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    loop._recovered -= 3_600  # an hour without a failure
    assert loop._delay() == 0.1
    loop.stop()


def test_b14_failed_start_raises_its_cause(world: World) -> None:
    world.fail_load = [StoreUnusable("damaged")]
    loop: Loop[FakeCore] = Loop(RecordingStore(world), lambda: RecordingDriver(world), (), world.restore)
    with pytest.raises(StoreUnusable, match="damaged"):
        loop.start()
    assert loop.wait(10)
    assert loop.health().phase is Phase.FAILED


def test_b13_stop_disconnects_closes_the_store_and_answers_all_callers(world: World) -> None:
    with running(world) as loop:
        pass
    assert world.done == ["disconnected", "closed"]
    assert loop.failure is None
    with pytest.raises(Unavailable, match="stopped"):
        loop.ask(lambda core: core)


def test_aborted_loop_ends_with_the_error(world: World) -> None:
    error = ConfigError("is 'nobody', but Mesos keeps 'root'", field="mesos.user", fix="restore it")
    with running(world) as loop:
        loop.abort(error)
        assert loop.wait(60)
        assert loop.failure is error
        assert (loop.health().phase, loop.health().problem) == (Phase.FAILED, str(error))
        assert world.done == ["disconnected", "closed"]


def test_loop_is_healthy_while_it_leads_and_is_subscribed(world: World) -> None:
    with running(world) as loop:
        assert not loop.healthy()
        world.deliver(Subscribed(NOW, "f"))
        eventually(loop.healthy)
        world.deliver(Disconnected(NOW))
        eventually(lambda: not loop.healthy())
    assert not loop.healthy()


def failing(health: Health) -> tuple[bool, str, int]:
    return health.well, health.problem, health.since_ms


def fail_once(world: World, loop: Loop[FakeCore], problem: str) -> None:
    """Fail the next write, and wait until the loop leads in a new session, to which the master has not answered."""
    session = len(world.drivers) + 1
    world.fail_before = [StoreError(problem)]
    world.deliver(status("a"))
    eventually(lambda: len(world.drivers) == session and loop.health().leading)


def test_loop_is_healthy_again_after_a_failure_once_a_batch_is_stored(world: World) -> None:
    with running(world, now_ms=lambda: world.now) as loop:
        world.deliver(Subscribed(NOW, "f"))
        eventually(loop.healthy)
        world.now += 5_000
        fail_once(world, loop, "disk")
        world.now += 5_000
        assert failing(loop.health()) == (False, "disk", NOW + 5_000)
        world.deliver(Subscribed(NOW, "f"))
        eventually(loop.healthy)
        assert failing(loop.health()) == (True, "", 0)
        assert loop.health().recoveries == 1


def test_loop_that_starts_over_repeatedly_is_unhealthy_until_no_failure_has_followed_for_a_while(world: World) -> None:
    with running(world, now_ms=lambda: world.now) as loop:
        for problem in ("disk", "network", "quota"):
            world.deliver(Subscribed(NOW, "f"))
            eventually(lambda: world.cores[-1].handled[-1:] and loop.health().connected)
            fail_once(world, loop, problem)
            world.now += 5_000
        world.deliver(Subscribed(NOW, "f"))
        world.deliver(status("b"))
        eventually(lambda: world.count(Acknowledge))
        assert loop.health().connected
        assert failing(loop.health()) == (False, "quota", NOW)
        loop._recovered -= 61
        assert failing(loop.health()) == (True, "", 0)
        fail_once(world, loop, "again")
        assert failing(loop.health()) == (False, "again", world.now)


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.STANDBY, Phase.RECOVERING, Phase.STOPPED])
def test_health_names_a_problem_in_every_phase_without_a_leader(world: World, phase: Phase) -> None:
    loop: Loop[FakeCore] = Loop(RecordingStore(world), lambda: RecordingDriver(world), (), world.restore)
    loop._enter(phase)
    assert failing(loop.health())[:2] == (False, phase.value)
    loop.stop()


def test_framework_is_removed_only_by_an_explicit_teardown(world: World) -> None:
    with running(world) as loop:
        loop.teardown()
    assert world.done == ["torn down", "disconnected", "closed"]
    with pytest.raises(NotConnected):
        loop.teardown()


def test_ticks_come_without_events(world: World) -> None:
    with running(world):
        eventually(lambda: len(world.cores[0].handled) >= 3)
        assert {type(event) for event in world.cores[0].handled} == {Tick}


def test_command_that_times_out_in_the_inbox_is_not_carried_out(world: World) -> None:
    with running(world) as loop, ThreadPoolExecutor(1) as pool:
        busy: Future[None] = Future()
        entered: Future[None] = Future()
        blocking = pool.submit(loop.ask, lambda core: hold(entered, busy))
        entered.result(60)
        with pytest.raises(Unavailable, match="the request was not carried out"):
            loop.command(lambda at: SetJobEnabled(at, "j", True), timeout=0.01)
        busy.set_result(None)
        blocking.result(10)
        loop.ask(lambda core: None)
        assert ("j",) not in world.done


def test_callers_behind_a_failed_write_are_answered_at_once(world: World) -> None:
    with running(world, pace=Pace(batch_limit=1, retry_first_ms=1)) as loop, ThreadPoolExecutor(3) as pool:
        busy: Future[None] = Future()
        entered: Future[None] = Future()
        blocking = pool.submit(loop.ask, lambda core: hold(entered, busy))
        entered.result(60)
        world.fail_before = [StoreError("disk")]
        waiting = []
        for name in ("first", "second"):
            waiting.append(pool.submit(loop.command, partial(SetJobEnabled, job=name, enabled=True)))
            eventually(lambda: loop.health().waiting == len(waiting))
        busy.set_result(None)
        blocking.result(10)
        for each in waiting:
            with pytest.raises(Unavailable):
                each.result(10)
    assert world.count(tuple) == 0


def test_single_event_is_handled_without_delay(world: World) -> None:
    with running(world, pace=Pace(coalesce_ms=60_000)):
        world.deliver(status("a"))
        eventually(lambda: world.count(Acknowledge) == 1)


def test_events_in_quick_succession_share_a_write(world: World) -> None:
    with running(world, pace=Pace(coalesce_ms=2_000)):
        for name in "abcdef":
            world.deliver(status(name))
            if name == "a":
                eventually(lambda: world.count(Acknowledge) == 1)
            time.sleep(0.003)
        eventually(lambda: world.count(Acknowledge) == 6)
    assert [entry for entry in world.done if isinstance(entry, tuple)] == [("a",), ("b", "c", "d", "e", "f")]


def test_events_gather_after_a_long_turn(world: World) -> None:
    def slow(event: Event) -> bool:
        if isinstance(event, StatusReceived) and event.status.task_id == "a":
            time.sleep(1.0)
        return False

    world.fail_handle = slow
    with running(world, pace=Pace(coalesce_ms=300)):
        world.deliver(status("a"))
        eventually(lambda: world.count(Acknowledge) == 1)
        world.deliver(status("b"))
        time.sleep(0.03)  # long enough to handle it, if the thread did not rest
        for name in "cdef":
            world.deliver(status(name))
        eventually(lambda: world.count(Acknowledge) == 6)
    assert [entry for entry in world.done if isinstance(entry, tuple)] == [("a",), ("b", "c", "d", "e", "f")]


def test_question_does_not_wait_until_a_batch_has_gathered(world: World) -> None:
    with running(world, pace=Pace(coalesce_ms=60_000)) as loop:
        world.deliver(status("a"))
        eventually(lambda: world.count(Acknowledge) == 1)
        world.deliver(status("b"))
        for _ in range(3):
            handled = loop.ask(lambda core: [event for event in core.handled if isinstance(event, StatusReceived)])
            assert [event.status.task_id for event in handled] == ["a"]
        assert loop.health().waiting == 1


def test_many_events_share_few_writes_and_none_is_lost(world: World) -> None:
    with running(world) as loop, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: world.deliver(status(f"t{number}")), range(2_000)))
        eventually(lambda: world.count(Acknowledge) == 2_000)
        assert world.count(tuple) < 1_000
        stored = loop.ask(lambda core: len(world.server.entries))
    assert stored == 2_000


def deliver_many(world: World, numbers: range) -> None:
    for number in numbers:
        world.deliver(status(f"t{number}"))


def test_full_inbox_makes_the_driver_wait_and_no_event_is_lost(world: World) -> None:
    with running(world, pace=Pace(inbox_events=10)) as loop, ThreadPoolExecutor(2) as pool:
        busy: Future[None] = Future()
        entered: Future[None] = Future()
        blocking = pool.submit(loop.ask, lambda core: hold(entered, busy), 60)
        entered.result(60)
        for number in range(10):
            world.deliver(status(f"t{number}"))
        more = pool.submit(deliver_many, world, range(10, 100))
        with pytest.raises(TimeoutError):
            more.result(0.1)
        assert loop.health().waiting == 10
        busy.set_result(None)
        blocking.result(60)
        more.result(60)
        eventually(lambda: world.count(Acknowledge) == 100)


@pytest.mark.parametrize("ending", ["stop", "recovery"])
def test_driver_that_waits_at_a_full_inbox_is_released_when_its_session_ends(world: World, ending: str) -> None:
    pace = Pace(inbox_events=10, retry_first_ms=1)
    with running(world, pace=pace) as loop, ThreadPoolExecutor(2) as pool:
        busy: Future[None] = Future()
        entered: Future[None] = Future()
        blocking = pool.submit(loop.ask, lambda core: hold(entered, busy), 60)
        entered.result(60)
        events = pool.submit(deliver_many, world, range(100))
        eventually(lambda: loop.health().waiting == 10)
        if ending == "recovery":
            world.fail_before = [StoreError("disk")]
        else:
            loop.stop(0)
            events.result(60)
        busy.set_result(None)
        blocking.result(60)
        events.result(60)
        if ending == "recovery":
            eventually(lambda: len(world.drivers) == 2)


def test_requests_beyond_the_limit_of_the_inbox_are_refused_at_once(world: World) -> None:
    with running(world, pace=Pace(inbox_requests=2)) as loop, ThreadPoolExecutor(3) as pool:
        busy: Future[None] = Future()
        entered: Future[None] = Future()
        blocking = pool.submit(loop.ask, lambda core: hold(entered, busy), 60)
        entered.result(60)
        waiting = [pool.submit(loop.ask, lambda core: 1, 60) for _ in range(2)]
        eventually(lambda: loop.health().waiting == 2)
        with pytest.raises(Unavailable, match="2 other requests wait"):
            loop.command(lambda at: SetJobEnabled(at, "j", True))
        busy.set_result(None)
        assert [each.result(60) for each in waiting] == [1, 1]
        blocking.result(60)
        assert loop.ask(lambda core: 2) == 2


@dataclass
class Receiver:
    got: list[object] = field(default_factory=list)
    broken: bool = False

    def publish(self, notice: object) -> None:
        if self.broken:
            raise ValueError("full")
        self.got.append(notice)


def test_notices_reach_every_sink_even_if_one_is_broken(world: World) -> None:
    broken, first, late = Receiver(broken=True), Receiver(), Receiver()
    with running(world, sinks=(broken, first)) as loop, capture_logs() as logs:
        leave = loop.subscribe(late)
        world.deliver(status("a"))
        eventually(lambda: len(late.got) == 1)
        leave()
        world.deliver(status("b"))
        eventually(lambda: len(first.got) == 2)
        assert len(late.got) == 1
        assert sum("sink failed" in entry["event"] for entry in logs) == 1
        assert loop.lost_notices == 2


def test_damaged_records_are_reported_in_the_health_and_stop_nothing(world: World) -> None:
    world.server.entries["job", "broken"] = b"{"
    with running(world) as loop:
        health: Health = loop.health()
        assert [fault.path for fault in health.faults] == ["job/broken"]
        loop.command(lambda at: SetJobEnabled(at, "j", True))
    assert world.server.entries["job", "broken"] == b"{"


def test_loop_runs_on_a_real_sqlite_file(world: World, tmp_path: Path) -> None:
    for expected in (set(), {"j"}):
        loop: Loop[FakeCore] = Loop(
            SqliteStore(tmp_path / "db"), lambda: RecordingDriver(world), (), world.restore, pace=PACE
        )
        loop.start()
        assert set(world.cores[-1].restored.job_states) == expected
        loop.command(lambda at: SetJobEnabled(at, "j", True))
        assert loop.stop()
