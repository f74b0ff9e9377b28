"""What a leader does with a batch of events: let the core decide, then store, send, acknowledge, tell. In that order.

No threads and no waiting in here: `loop` drives it with a thread, a simulation with a virtual clock. A Leader decides
nothing about jobs; it keeps the promise that what left the process was stored before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, Protocol, TypeAlias, TypeVar

import msgspec
import structlog

from jobcloud.errors import JobcloudError, RecordTooLarge, Refused, StoreError, Unavailable
from jobcloud.messages import (
    EFFECT_ORDER,
    RANK,
    Acknowledge,
    Call,
    Command,
    Disconnected,
    Effect,
    Event,
    FrameworkRemoved,
    Kind,
    Publish,
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

_OF_THE_SESSION = (Subscribed, Disconnected, FrameworkRemoved)
# An event that made the core fail this often is dropped.
_TRIES = 2
_REMEMBERED_FAILURES = 1_000
# How long a leader goes on at most without having proved that it still is one.
_PROVE_MS = 10_000


class Core(Protocol):
    """The scheduler as the shell sees it."""

    def handle(self, event: Event) -> list[Effect]:
        """Decide. Raises Refused, with nothing changed, for a command that it turns down."""

    def next_wake(self, at: int) -> int | None:
        """The next instant, later than the last Tick, at which a Tick is wanted."""


CoreT = TypeVar("CoreT", bound=Core)
Restore: TypeAlias = Callable[[Restored, int, int], CoreT]
"""(what is stored, epoch, now in ms) → a core that goes on from there."""


class Arrived(msgspec.Struct, frozen=True, gc=False):
    """An event; one of the driver's carries the session it belongs to, and is void in any other."""

    event: Event
    session: int | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """A command in the making (given its instant) and who waits for it."""

    make: Callable[[int], Command]
    reply: Future[None]


Item: TypeAlias = Arrived | Order


class CoreFailed(JobcloudError):
    """The core raised something other than Refused: its state cannot be trusted and must be loaded again."""

    def __init__(self, event: Event, error: Exception) -> None:
        super().__init__(f"{type(event).__name__} made the scheduler fail: {type(error).__name__}: {error}")
        self.event = event


@dataclass(slots=True)
class _Batch:
    """What came of the events of one turn."""

    effects: list[Effect] = field(default_factory=list)
    replies: list[Future[None]] = field(default_factory=list)
    # A new session: see to it that we still lead, even if there is nothing to store.
    prove_epoch: bool = False

    def answer(self, error: Exception | None = None) -> None:
        for reply in self.replies:
            if error is None:
                reply.set_result(None)
            else:
                reply.set_exception(error)


def merge(series: Iterable[Iterable[Write]]) -> list[Write]:
    """The last write of each record: what is left of what becomes durable at once."""
    last: dict[tuple[Kind, str], Write] = {}
    for writes in series:
        for write in writes:
            last[write.kind, write.key] = write
    return list(last.values())


class Leader(Generic[CoreT]):
    """acquire → reload → connect → process* → disconnect; after a StoreError or CoreFailed: disconnect, reload,
    connect. Fenced ends it for good.
    """

    def __init__(
        self,
        store: Store,
        make_driver: Callable[[], Driver],
        restore: Restore[CoreT],
        tell: Callable[[Publish], None],
        *,
        now_ms: Callable[[], int],
        tick_ms: int = 1_000,
        may_send: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store = store
        self._make_driver = make_driver
        self.driver: Driver | None = None
        self._restore = restore
        self._tell = tell
        self._now_ms = now_ms
        self._tick_ms = tick_ms
        self._may_send = may_send
        self._framework_id = ""
        self._led = False
        self._failures: dict[Event, int] = {}
        self._deliver: Callable[[Event], None] = lambda event: None
        self._ticked_ms = 0
        self._planned_ms = 0
        self.core: CoreT
        self.epoch = 0
        self.session = 0
        self.connected = False
        self.faults: tuple[StoredFault, ...] = ()
        self.written_ms = 0
        self._proved_ms = 0
        self.late_ms = 0

    def acquire(self) -> None:
        """Become the leader. Raises StoreError."""
        self.epoch = self._store.acquire()

    def reload(self) -> None:
        """Start over from what is stored, as the leader that we must still be. Raises StoreError."""
        if self._led:
            # A core makes ids from its epoch and a count that begins anew: a further core needs a further epoch, and
            # the state as it is once nobody else can change it. But not the place of who has taken ours.
            self._store.write(self.epoch, ())
            self.epoch = self._store.acquire()
        restored = records.restore(self._store.load())
        # Who would subscribe as a former leader would cut off the present one.
        self._store.write(self.epoch, ())
        self._led = True
        self.core = self._restore(restored, self.epoch, self._now_ms())
        self._ticked_ms, self._planned_ms = 0, self._now_ms()
        # An id that could not be stored is used again all the same, lest each attempt leave a framework behind.
        self._framework_id = restored.framework_id or self._framework_id
        self.faults = tuple(restored.faults)
        for fault in self.faults:
            log.error("stored record unreadable, left as it is", path=fault.path, problem=fault.problem)

    def connect(self, deliver: Callable[[int, Event], None]) -> None:
        """Subscribe, with a driver of this session's own; `deliver` takes (session, event) on any thread."""
        self.session += 1
        self._deliver = partial(deliver, self.session)
        self.driver = self._make_driver()
        self.driver.start(self._deliver, self._framework_id)

    def disconnect(self) -> None:
        """Leave the master; what it still sends belongs to no session any more."""
        self.session += 1
        self.connected = False
        driver, self.driver = self.driver, None
        try:
            if driver is not None:
                driver.stop()
        except Exception:
            log.exception("driver failed to stop")

    def process(self, items: Sequence[Item]) -> None:
        """Handle `items` and perform what comes of them; a Tick joins them when one is due.

        On CoreFailed everything before the event that failed has been performed, nothing after it has. On a
        StoreError nothing has been performed. Whoever waits for an order has got an answer in each case.
        """
        batch = _Batch()
        try:
            for index, item in enumerate(items):  # noqa: B007 - the rest is refused below
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
        """How long from now until `process` should be called at the latest, items or not."""
        now = self._now_ms()
        # After the clock was set back the plan says nothing.
        return 0 if now < self._ticked_ms else max(0, self._planned_ms - now)

    def _due(self, now: int) -> int:
        """When the next Tick is due. A core that asks for an instant gone by gets it, but not without end."""
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
        except Exception as error:
            order.reply.set_exception(error)
            return
        try:
            if self._is_poison(command):
                raise Refused("this command has made the scheduler fail before", fix="see the log; report the defect")
            self._handle(command, batch)
        except Refused as error:
            order.reply.set_exception(error)
        except CoreFailed as error:
            order.reply.set_exception(error)
            raise
        else:
            batch.replies.append(order.reply)

    def _decide_event(self, event: Event, batch: _Batch) -> None:
        if self._failures and self._is_poison(event):
            log.error("event dropped: it has made the scheduler fail before", stimulus=repr(event)[:4_000])
            return
        if isinstance(event, _OF_THE_SESSION):
            self._note_session(event, batch)
        try:
            self._handle(event, batch)
        except Refused as error:
            log.warning("event refused", stimulus=repr(event)[:4_000], problem=str(error))

    def _note_session(self, event: Subscribed | Disconnected | FrameworkRemoved, batch: _Batch) -> None:
        match event:
            case Subscribed():
                self.connected = batch.prove_epoch = True
                self._framework_id = event.framework_id
            case Disconnected():
                self.connected = False
            case FrameworkRemoved():
                self.connected = False
                self._framework_id = ""

    def _handle(self, event: Event, batch: _Batch) -> None:
        """Raises Refused, or CoreFailed for anything else that the core raises; then `batch` is unchanged."""
        try:
            effects = self.core.handle(event)
            for effect in effects:
                if type(effect) not in RANK:
                    raise TypeError(f"there is no such effect: {type(effect)}")
        except Refused:
            raise
        except Exception as error:
            self._remember(event)
            raise CoreFailed(event, error) from error
        batch.effects.extend(effects)

    def _is_poison(self, event: Event) -> bool:
        return bool(self._failures) and self._failures.get(changed(event, at=0), 0) >= _TRIES

    def _remember(self, event: Event) -> None:
        if len(self._failures) >= _REMEMBERED_FAILURES:
            self._failures.clear()
        same = changed(event, at=0)
        self._failures[same] = self._failures.get(same, 0) + 1

    def _perform(self, batch: _Batch) -> None:
        ranks: list[list[Effect]] = [[] for _ in EFFECT_ORDER]
        for effect in batch.effects:
            ranks[RANK[type(effect)]].append(effect)
        try:
            self._save(batch, ranks[0])
            self._check_standing(batch)
        except RecordTooLarge as error:
            batch.answer(Refused(str(error), fix="make it smaller"))
            raise
        except StoreError as error:
            batch.answer(
                Unavailable(f"it is not certain that this was stored ({error})", fix="look, then try again if need be")
            )
            raise
        for same in ranks:
            for effect in same:
                if isinstance(effect, Publish):
                    self._tell(effect)
                elif not isinstance(effect, Save):
                    self._send(effect)
        batch.answer()

    def _save(self, batch: _Batch, saves: Iterable[Effect]) -> None:
        writes = merge(save.writes for save in saves if isinstance(save, Save))
        # A leader with nothing to store learns in bounded time, too, that another has taken its place; and nobody is
        # told that things are as he wants by one who knows only how they were.
        due = batch.replies or not 0 <= self._now_ms() - self._proved_ms < _PROVE_MS
        if not writes and not batch.prove_epoch and not due:
            return
        try:
            self._store.write(self.epoch, [_encoded(write) for write in writes])
        except StoreError:
            raise
        except Exception as error:
            raise StoreError(f"{type(error).__name__}: {error}") from error
        self._proved_ms = self._now_ms()
        if writes:
            self.written_ms = self._proved_ms

    def _check_standing(self, batch: _Batch) -> None:
        """A process may stand still between any two lines, and find another leader in its place."""
        if not self._may_send() and any(not isinstance(effect, Save | Publish) for effect in batch.effects):
            raise StoreError("whether this scheduler still leads is in doubt")

    def _send(self, effect: Call | Acknowledge) -> None:
        """A driver never raises; if it does, nobody knows whether the call left, and the core learns just that."""
        assert self.driver is not None, "effects are performed between connect and disconnect"
        try:
            self.driver.send(effect)
        except Exception as error:
            log.exception("driver failed to take a call")
            if not isinstance(effect, Acknowledge):
                self._deliver(SendFailed(self._now_ms(), effect, str(error), certain=False))


def refuse(items: Iterable[Item], problem: str) -> None:
    """Answer every order among `items` that it was not carried out."""
    for item in items:
        if isinstance(item, Order) and item.reply.set_running_or_notify_cancel():
            item.reply.set_exception(Unavailable(problem, fix="try again in some seconds"))


def _encoded(write: Write) -> StoredWrite:
    value = None if write.record is None else records.encode(write.kind, write.record)
    return StoredWrite(write.kind, write.key, value)
