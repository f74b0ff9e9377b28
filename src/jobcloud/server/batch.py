"""Process one batch of events: let the core decide, then store, send, acknowledge and publish, in that order.

This module has no threads and never waits. `loop` calls it from the scheduler's thread; the simulator calls it on a
virtual clock. BatchProcessor decides nothing about jobs and does not elect a leader. It guarantees the order: nothing
leaves the process before the decision behind it is stored.

A record that cannot be stored is a defect, because all records are bounded. It is *held back*, and the other records of
its batch are stored. The end of a task is stored only together with the record of its shard. If the shard's record is
held back, the task's record stays in the store, and the task's update is not acknowledged. So the next leader adopts
the task, and Mesos sends the update again. A task whose own record is held back is not launched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Generic, NamedTuple, Protocol, TypeAlias, TypeVar

import msgspec
import structlog

from jobcloud.errors import JobcloudError, RecordTooLarge, Refused, StoreError, StoreFull, Unavailable
from jobcloud.messages import (
    EFFECT_ORDER,
    RANK,
    Accept,
    Acknowledge,
    Call,
    Command,
    Disconnected,
    Effect,
    Event,
    FrameworkRemoved,
    Kind,
    Notice,
    Save,
    SendFailed,
    Subscribed,
    Tick,
    Write,
)
from jobcloud.model import changed
from jobcloud.ports import Driver, Store, StoredFault, StoredWrite
from jobcloud.server import records
from jobcloud.server.records import Restored

log = structlog.get_logger(__name__)

_SESSION_EVENTS = (Subscribed, Disconnected, FrameworkRemoved)
# An event that has made the core fail this many times is dropped.
_MAX_FAILURES = 2
_MAX_COUNTED = 1_000
# At most this many of the records held back are logged and reported one by one.
_MAX_REPORTED = 100
# After this time the next Tick proves by a write that the epoch is still ours. So within 10 s, a leader notices that
# another scheduler has superseded it, or that the state is gone.
_MAX_UNPROVEN_MS = 8_000


class Core(Protocol):
    """The part of the scheduler that this module calls."""

    def handle(self, event: Event) -> list[Effect]:
        """Handle an event and return its effects. Raises Refused if it refuses a command, with nothing changed."""

    def next_wake(self, at: int) -> int | None:
        """The next instant (ms) after the last Tick at which a Tick is due; None if no Tick is needed."""


CoreT = TypeVar("CoreT", bound=Core)
Restore: TypeAlias = Callable[[Restored, int, int], CoreT]
"""(stored records, epoch, now in ms) → a core restored from them."""


class Arrived(msgspec.Struct, frozen=True, gc=False):
    """An event that has arrived.

    `session`: the number of the session in which it arrived. Once that session has ended, the event is dropped. None:
    the event belongs to no session, and is always handled.
    """

    event: Event
    session: int | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """A command whose caller waits for the answer.

    `make` builds the command from the instant (ms) at which it is handled.
    """

    make: Callable[[int], Command]
    reply: Future[None]


Item: TypeAlias = Arrived | Order
Place: TypeAlias = tuple[str, str]
"""The kind and the key of a record."""


class CoreFailed(JobcloudError):
    """The core raised an exception other than Refused: its state may be inconsistent and must be loaded again."""

    def __init__(self, event: Event, error: Exception) -> None:
        super().__init__(f"{type(event).__name__} made the scheduler fail: {type(error).__name__}: {error}")
        self.event = event


class _Handled(NamedTuple):
    """The effects of one event. `reply`: the answer to the caller of a command; None if the event is no command."""

    effects: list[Effect]
    reply: Future[None] | None = None


@dataclass(slots=True)
class _Batch:
    """The events of one turn that the core has handled."""

    handled: list[_Handled] = field(default_factory=list)
    # When a session begins, the epoch is checked even if there is nothing to store.
    prove_epoch: bool = False

    @property
    def has_replies(self) -> bool:
        return any(handled.reply is not None for handled in self.handled)

    def by_rank(self) -> list[list[Effect]]:
        ranks: list[list[Effect]] = [[] for _ in EFFECT_ORDER]
        for effects, _ in self.handled:
            for effect in effects:
                ranks[RANK[type(effect)]].append(effect)
        return ranks

    def writing(self, place: Place) -> list[_Handled]:
        """The handled events that have changed this record."""
        return [
            handled
            for handled in self.handled
            if any((write.kind, write.key) == place for save in handled.effects for write in _writes(save))
        ]

    def answer(self, error: Exception | None = None) -> None:
        """Answer all callers that have no answer yet."""
        for _, reply in self.handled:
            if reply is None or reply.done():
                continue
            if error is None:
                reply.set_result(None)
            else:
                reply.set_exception(error)


@dataclass(slots=True)
class _HeldBack:
    """A record that the store does not accept.

    Updates of the tasks `unacknowledged` are not acknowledged. The records of the tasks `ended` stay in the store.
    """

    fault: StoredFault
    unacknowledged: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)


def _writes(effect: Effect) -> tuple[Write, ...]:
    return effect.writes if isinstance(effect, Save) else ()


def merge(series: Iterable[Iterable[Write]]) -> list[Write]:
    """The last write of each record. All writes of a batch become durable together, so earlier ones do not matter."""
    last: dict[tuple[Kind, str], Write] = {}
    for writes in series:
        for write in writes:
            last[write.kind, write.key] = write
    return list(last.values())


class BatchProcessor(Generic[CoreT]):
    """acquire → reload → connect → process* → disconnect.

    After a StoreError or CoreFailed: disconnect, reload, connect. After Fenced, the processor is not used again.
    """

    def __init__(
        self,
        store: Store,
        make_driver: Callable[[], Driver],
        restore: Restore[CoreT],
        publish: Callable[[Notice], None],
        *,
        now_ms: Callable[[], int],
        tick_ms: int = 1_000,
        may_send: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store = store
        self._make_driver = make_driver
        self.driver: Driver | None = None
        self._restore = restore
        self._publish = publish
        self._now_ms = now_ms
        self._tick_ms = tick_ms
        self._may_send = may_send
        self._framework_id = ""
        self._led = False
        self._failures: dict[Event, int] = {}
        self._held_back: dict[Place, _HeldBack] = {}
        self._deliver: Callable[[Event], None] = lambda event: None
        self._ticked_ms = 0
        self._planned_ms = 0
        self.core: CoreT
        self.epoch = 0
        self.session = 0
        self.connected = False
        self._unreadable: tuple[StoredFault, ...] = ()
        #: The stored records that cannot be read, and the first records that are held back.
        self.faults: tuple[StoredFault, ...] = ()
        self.written_ms = 0
        #: Whether a batch has been stored since the last `reload`.
        self.proven = False
        self._proved_ms = 0
        self.late_ms = 0

    def acquire(self) -> None:
        """Raise the epoch. Raises StoreError."""
        self.epoch = self._store.acquire()

    def reload(self) -> None:
        """Restore a core from the store. Raises StoreError; Fenced if another scheduler has raised the epoch."""
        if self._led:
            # Ids are made from the epoch and a counter that restarts, so a new core needs a new epoch. First, a write
            # proves the old epoch: a superseded scheduler must not become leader again. The state is loaded after the
            # epoch was raised, because then no other scheduler can change the state.
            self._store.write(self.epoch, ())
            self.epoch = self._store.acquire()
        restored = records.restore(self._store.load())
        # This write proves the epoch. A superseded scheduler that subscribes would cut off the leader's session.
        self._store.write(self.epoch, ())
        self._led = True
        self.core = self._restore(restored, self.epoch, self._now_ms())
        self._ticked_ms, self._planned_ms = 0, self._now_ms()
        self._held_back, self.proven = {}, False
        # Reuse a framework id that could not be stored. Otherwise each new session would register another framework.
        self._framework_id = restored.framework_id or self._framework_id
        self.faults = self._unreadable = tuple(restored.faults)
        for fault in self._unreadable:
            log.error("stored record cannot be read; left unchanged", path=fault.path, problem=fault.problem)

    def connect(self, deliver: Callable[[int, Event], None]) -> None:
        """Subscribe with a new driver. `deliver` takes (session, event) and is called on any thread."""
        self.session += 1
        self._deliver = partial(deliver, self.session)
        self.driver = self._make_driver()
        self.driver.start(self._deliver, self._framework_id)

    def disconnect(self) -> None:
        """Close the session. Events that still arrive from it are dropped."""
        self.session += 1
        self.connected = False
        driver, self.driver = self.driver, None
        try:
            if driver is not None:
                driver.stop()
        except Exception:
            log.exception("driver failed to stop")

    def process(self, items: Sequence[Item]) -> None:
        """Handle `items`, and a Tick if one is due, then perform their effects.

        Raises CoreFailed if the core fails: the effects of earlier events have been performed, later events have had no
        effect, and later orders have been refused. Raises StoreError if the write fails: nothing has been sent. In both
        cases every order has an answer.
        """
        batch = _Batch()
        try:
            for index, item in enumerate(items):  # noqa: B007 - used after an error
                self._decide(item, batch)
            self._tick_if_due(batch)
        except CoreFailed as error:
            refuse(items[index + 1 :] if items else (), "the scheduler is starting over after an internal error")
            log.exception("event failed", stimulus=repr(error.event)[:4_000])
            self._perform(batch)
            raise
        self._perform(batch)
        self._planned_ms = self._due(self._now_ms())

    def wake_ms(self) -> int:
        """Milliseconds until `process` must be called, with or without items."""
        now = self._now_ms()
        # If the clock was set back, the planned instant is meaningless.
        return 0 if now < self._ticked_ms else max(0, self._planned_ms - now)

    def _due(self, now: int) -> int:
        """The instant (ms) of the next Tick.

        It is after the last Tick, so that a core that asks for a past instant cannot make the loop spin. If the clock
        was set back behind the last Tick, a Tick is due now.
        """
        if now < self._ticked_ms:
            return now
        wake = self.core.next_wake(now)
        latest = self._ticked_ms + self._tick_ms
        return latest if wake is None else min(latest, max(wake, self._ticked_ms + 1))

    def _tick_if_due(self, batch: _Batch) -> None:
        now = self._now_ms()
        tick = Tick(now)
        try:
            if self._due(now) > now:
                return
        except Exception as error:
            raise CoreFailed(tick, error) from error
        self.late_ms = max(0, now - self._planned_ms)
        self._ticked_ms = now
        self._handle(tick, batch)

    def _decide(self, item: Item, batch: _Batch) -> None:
        if isinstance(item, Order):
            self._decide_order(item, batch)
        elif item.session is None or item.session == self.session:
            self._decide_event(item.event, batch)

    def _decide_order(self, order: Order, batch: _Batch) -> None:
        if not order.reply.set_running_or_notify_cancel():
            return
        try:
            command = order.make(self._now_ms())
            records.check_size(command)
        except Exception as error:
            order.reply.set_exception(error)
            return
        try:
            if self._is_poison(command):
                raise Refused(
                    "this command has made the scheduler fail before", fix="see the log and report the defect"
                )
            self._handle(command, batch, order.reply)
        except Refused as error:
            order.reply.set_exception(error)
        except CoreFailed as error:
            order.reply.set_exception(error)
            raise

    def _decide_event(self, event: Event, batch: _Batch) -> None:
        if event.at > (now := self._now_ms()):
            # A driver stamps events by the clock of the machine, which may have jumped ahead.
            event = changed(event, at=now)
        if self._failures and self._is_poison(event):
            log.error("event dropped: it has made the scheduler fail before", stimulus=repr(event)[:4_000])
            return
        if isinstance(event, _SESSION_EVENTS):
            self._follow_session(event, batch)
        try:
            self._handle(event, batch)
        except Refused as error:
            log.warning("event refused", stimulus=repr(event)[:4_000], problem=str(error))

    def _follow_session(self, event: Subscribed | Disconnected | FrameworkRemoved, batch: _Batch) -> None:
        match event:
            case Subscribed():
                self.connected = batch.prove_epoch = True
                self._framework_id = event.framework_id
            case Disconnected():
                self.connected = False
            case FrameworkRemoved():
                self.connected = False
                self._framework_id = ""

    def _handle(self, event: Event, batch: _Batch, reply: Future[None] | None = None) -> None:
        """Raises Refused, or CoreFailed for any other exception of the core. Then `batch` is unchanged."""
        try:
            effects = self.core.handle(event)
            for effect in effects:
                if type(effect) not in RANK:
                    raise TypeError(f"unknown effect: {type(effect)}")
        except Refused:
            raise
        except Exception as error:
            self._count_failure(event)
            raise CoreFailed(event, error) from error
        batch.handled.append(_Handled(effects, reply))

    def _is_poison(self, event: Event) -> bool:
        return bool(self._failures) and self._failures.get(changed(event, at=0), 0) >= _MAX_FAILURES

    def _count_failure(self, event: Event) -> None:
        if len(self._failures) >= _MAX_COUNTED:
            self._failures.clear()
        same = changed(event, at=0)
        self._failures[same] = self._failures.get(same, 0) + 1

    def _perform(self, batch: _Batch) -> None:
        ranks = batch.by_rank()
        try:
            self._save(batch, ranks[0])
            self._check_may_send(ranks)
        except StoreFull as error:
            batch.answer(error)
            raise
        except StoreError as error:
            batch.answer(
                Unavailable(
                    f"the change may or may not have been stored ({error})", fix="check, then try again if necessary"
                )
            )
            raise
        for ranked in ranks:
            for effect in ranked:
                if isinstance(effect, Notice):
                    self._publish(effect)
                elif not isinstance(effect, Save):
                    self._send_if_stored(effect)
        batch.answer()

    def _save(self, batch: _Batch, saves: Iterable[Effect]) -> None:
        writes = merge(_writes(save) for save in saves)
        # A leader with nothing to store must also learn in bounded time that it was superseded. A command that changes
        # nothing also needs a proof: only a scheduler that leads may confirm it.
        proven = 0 <= self._now_ms() - self._proved_ms < _MAX_UNPROVEN_MS
        if not writes and not batch.prove_epoch and proven and not batch.has_replies:
            return
        try:
            self._store_all(batch, writes)
        except StoreError:
            raise
        except Exception as error:
            raise StoreError(f"{type(error).__name__}: {error}") from error
        self._proved_ms = self._now_ms()
        self.proven = True
        if writes:
            self.written_ms = self._proved_ms

    def _store_all(self, batch: _Batch, writes: Sequence[Write]) -> None:
        """Write all records that the store takes, and hold the others back."""
        encoded, problems = _encoded([*writes, *self._postponed(writes)] if self._held_back else writes)
        while True:
            if problems:
                encoded = self._hold_back(batch, encoded, problems)
            try:
                self._store.write(self.epoch, encoded)
                break
            except RecordTooLarge as error:
                problems = error.problems
                if not any((write.kind, write.key) in problems for write in encoded):
                    raise
        if self._held_back:
            for write in encoded:
                self._held_back.pop((write.kind, write.key), None)
            # Other threads read this tuple.
            held_back = islice(self._held_back.values(), _MAX_REPORTED)
            self.faults = (*self._unreadable, *(held.fault for held in held_back))

    def _postponed(self, writes: Iterable[Write]) -> Iterator[Write]:
        """The ends of tasks that were held back together with these records, and are now stored together with them."""
        for write in writes:
            if held := self._held_back.get((write.kind, write.key)):
                yield from (Write(Kind.TASK, task_id, None) for task_id in held.ended)

    def _hold_back(
        self, batch: _Batch, writes: Iterable[StoredWrite], problems: Mapping[Place, str]
    ) -> list[StoredWrite]:
        """Hold back the writes that have a problem, and the ends of tasks that depend on them.

        Returns the other writes.
        """
        without: set[Place] = set(problems)
        for place, problem in problems.items():
            if place not in self._held_back:
                self._held_back[place] = _HeldBack(StoredFault("/".join(place), f"cannot be stored: {problem}"))
                if len(self._held_back) <= _MAX_REPORTED:
                    log.error("record cannot be stored; please report this defect", problem=problem)
            held = self._held_back[place]
            for effects, reply in batch.writing(place):
                held.unacknowledged |= {each.task_id for each in effects if isinstance(each, Acknowledge)}
                held.ended |= {
                    write.key
                    for each in effects
                    for write in _writes(each)
                    if write.kind is Kind.TASK and write.record is None
                }
                if reply is not None and not reply.done():
                    lost = f"the change has taken effect, but the next leader will not know it: {problem}"
                    reply.set_exception(Unavailable(lost, fix="undo it, and report this defect"))
            without |= {(Kind.TASK, task_id) for task_id in held.ended}
        return [write for write in writes if (write.kind, write.key) not in without]

    def _check_may_send(self, ranks: Sequence[Sequence[Effect]]) -> None:
        """Raises StoreError if the leadership is in doubt.

        The process may have been suspended since the write, and another scheduler may lead by now.
        """
        if not self._may_send() and any(not isinstance(effect, Save | Notice) for rank in ranks for effect in rank):
            raise StoreError("the leadership of this scheduler is in doubt")

    def _send_if_stored(self, effect: Call | Acknowledge) -> None:
        """Send a call or an acknowledgement, without the parts that depend on a record that is held back."""
        if not self._held_back:
            self._send(effect)
        elif isinstance(effect, Acknowledge):
            # If an end first came as the answer to a reconciliation, there was no update to acknowledge, and only
            # `ended` contains the task. A later update of this end must not be acknowledged either.
            held_back = self._held_back.values()
            if not any(effect.task_id in held.unacknowledged or effect.task_id in held.ended for held in held_back):
                self._send(effect)
        elif isinstance(effect, Accept):
            self._launch_stored(effect)
        else:
            self._send(effect)

    def _launch_stored(self, accept: Accept) -> None:
        stored = tuple(each for each in accept.launches if (Kind.TASK, each.task_id) not in self._held_back)
        if stored == accept.launches:
            self._send(accept)
            return
        if stored:
            self._send(changed(accept, launches=stored))
        others = tuple(each for each in accept.launches if each not in stored)
        unsent = changed(accept, launches=others)
        self._deliver(SendFailed(self._now_ms(), unsent, "its record cannot be stored", certain=True))

    def _send(self, effect: Call | Acknowledge) -> None:
        """A driver must not raise. If it does, the call may have been sent: the core gets an uncertain SendFailed."""
        assert self.driver is not None, "effects are performed between connect and disconnect"
        try:
            self.driver.send(effect)
        except Exception as error:
            log.exception("driver raised an exception for a call")
            if not isinstance(effect, Acknowledge):
                self._deliver(SendFailed(self._now_ms(), effect, str(error), certain=False))


def _encoded(writes: Iterable[Write]) -> tuple[list[StoredWrite], dict[Place, str]]:
    """The records as JSON, and the problems of those that have no JSON form."""
    encoded: list[StoredWrite] = []
    problems: dict[Place, str] = {}
    for write in writes:
        kind, key = write.kind, write.key
        try:
            value = None if write.record is None else records.encode(kind, write.record)
        except (TypeError, ValueError) as error:
            problems[kind, key] = f"{kind} {key[:80]!r} cannot be encoded: {error}"
        else:
            encoded.append(StoredWrite(kind, key, value))
    return encoded, problems


def refuse(items: Iterable[Item], problem: str) -> None:
    """Answer every order among `items` with Unavailable(`problem`)."""
    for item in items:
        if isinstance(item, Order) and item.reply.set_running_or_notify_cancel():
            item.reply.set_exception(Unavailable(problem, fix="try again in a few seconds"))
