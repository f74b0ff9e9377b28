"""The one thread that owns the core: others put events, commands and questions into its inbox and wait.

A lone event is handled at once; where many come, the thread takes all that wait, a few milliseconds' worth, so that
they share one write, and rests between two turns for three times as long as the last one took: the more there is to do,
the more is done at once. After a failed write or an error inside the core it starts over from what is stored.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from enum import StrEnum
from threading import Condition, Event, Thread, current_thread
from typing import Any, Generic, TypeVar

import structlog

from jobcloud import messages
from jobcloud.errors import Fenced, NotConnected, Unavailable
from jobcloud.ports import Driver, Leadership, Sink, Store, StoredFault
from jobcloud.server.batch import Arrived, CoreT, Item, Leader, Order, Restore, refuse

log = structlog.get_logger(__name__)
T = TypeVar("T")

# How often a leadership in doubt is looked at.
_DOUBT_S = 0.02
# After a turn events gather for so many times as long as it took, but for so many times `coalesce_ms` at most.
_REST, _LONGEST_REST = 3, 7


@dataclass(frozen=True, slots=True)
class Pace:
    """How the loop spends time. `retry_*`: the wait before it starts over, doubled each time up to the most; after
    `calm_ms` without a failure it begins anew.
    """

    coalesce_ms: int = 3
    tick_ms: int = 1_000
    batch_limit: int = 10_000
    retry_first_ms: int = 100
    retry_most_ms: int = 10_000
    calm_ms: int = 60_000


class Phase(StrEnum):
    STARTING = "starting"
    STANDBY = "standby"
    LEADING = "leading"
    SUSPENDED = "suspended"
    RECOVERING = "recovering"
    FENCED = "fenced"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Health:
    """`late_ms`: how long after the wanted instant the last Tick came. `idle_ms`: since the thread was last seen."""

    phase: Phase
    problem: str
    connected: bool
    epoch: int
    written_ms: int
    late_ms: int
    idle_ms: int
    waiting: int
    recoveries: int
    faults: tuple[StoredFault, ...]

    @property
    def leading(self) -> bool:
        return self.phase is Phase.LEADING


@dataclass(frozen=True, slots=True)
class _Question:
    ask: Callable[[Any], Any]
    reply: Future[Any]


class Loop(Generic[CoreT]):
    """[stand_by* →] start → (deliver | command | ask | health)* → stop. Every method may be called from any thread.

    It owns `store` and the drivers that `make_driver` makes, one for each session with the master, and closes them.
    With `leadership` it does nothing while that is in doubt, and ends once it is lost.
    `now_ms` is the wall clock, `monotonic` counts seconds.
    """

    def __init__(
        self,
        store: Store,
        make_driver: Callable[[], Driver],
        sinks: Iterable[Sink],
        restore: Restore[CoreT],
        *,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic: Callable[[], float] = time.monotonic,
        pace: Pace = Pace(),
        leadership: Leadership | None = None,
    ) -> None:
        self._store = store
        self._sinks = tuple(sinks)
        self._failed_sinks: set[int] = set()
        self._monotonic = monotonic
        self._pace = pace
        self._leader: Leader[CoreT] = Leader(
            store, make_driver, restore, self._tell, now_ms=now_ms, tick_ms=pace.tick_ms, may_send=self._entitled
        )
        self._leadership = leadership
        self._inbox: deque[Item | _Question] = deque()
        self._changed = Condition()
        #: the thread looks for work under the lock, or waits for some
        self._idle = False
        self._stopping = Event()
        self._phase = Phase.STARTING
        self._problem = ""
        self._started: Future[None] = Future()
        self._seen = monotonic()
        self._turned = self._rested = self._recovered = float("-inf")
        self._recoveries = self._streak = 0
        self._thread = Thread(target=self._run, name="jobcloud-loop", daemon=True)
        self.failure: BaseException | None = None

    def stand_by(self, problem: str) -> None:
        """Before `start`: say to callers why there is no leader here, and where one is."""
        self._phase, self._problem = Phase.STANDBY, problem

    def start(self) -> None:
        """Lead: raise the epoch, load, subscribe. Raises StoreError and whatever else prevents it."""
        self._thread.start()
        self._started.result()

    def stop(self, timeout: float = 10.0) -> bool:
        """Leave the master (tasks run on) and close the store. False where that took longer than `timeout` s."""
        self._stopping.set()
        if self._thread.ident is None:
            self._store.close()
            return True
        with self._changed:
            self._changed.notify_all()
        return self.wait(timeout)

    def wait(self, timeout: float | None = None) -> bool:
        """Until the loop has ended, by `stop` or by itself; `failure` then says why, or is None."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def deliver(self, event: messages.Event) -> None:
        """Hand in an event. It may be dropped by a recovery, as anything that comes from the master."""
        self._put(Arrived(event))

    def command(self, make: Callable[[int], messages.Command], timeout: float = 10.0) -> None:
        """Carry out a command, made by `make` from its instant; return once it is durably stored and handed over.

        Raises what `make` raises; Refused, with nothing changed; Unavailable; CoreFailed for a defect of ours.
        """
        reply: Future[None] = Future()
        self._submit(Order(make, reply))
        self._result(reply, timeout)

    def ask(self, fn: Callable[[CoreT], T], timeout: float = 5.0) -> T:
        """What `fn` finds in the core, which it must not change. Raises what it raises, and Unavailable."""
        reply: Future[T] = Future()
        self._submit(_Question(fn, reply))
        return self._result(reply, timeout)

    def teardown(self) -> None:
        """Remove the framework from Mesos, which ends every task of it. Raises NotConnected."""
        driver = self._leader.driver
        if driver is None:
            raise NotConnected("there is no session with a master now")
        driver.teardown()

    def subscribe(self, sink: Sink) -> Callable[[], None]:
        """Publish to `sink` as well, until the function returned is called."""
        with self._changed:
            self._sinks = (*self._sinks, sink)
        return lambda: self._unsubscribe(sink)

    def healthy(self) -> bool:
        """Leading, and subscribed at a master."""
        return self._standing()[0] is Phase.LEADING and self._leader.connected

    def health(self) -> Health:
        """How things stand, without waiting for the thread."""
        leader = self._leader
        phase, problem = self._standing()
        return Health(
            phase=phase,
            problem=problem,
            connected=leader.connected,
            epoch=leader.epoch,
            written_ms=leader.written_ms,
            late_ms=leader.late_ms,
            idle_ms=int((self._monotonic() - self._seen) * 1_000),
            waiting=len(self._inbox),
            recoveries=self._recoveries,
            faults=leader.faults,
        )

    # ------------------------------------------------------------------------------------------- callers' threads

    def _put(self, item: Item | _Question) -> None:
        self._inbox.append(item)
        # A thread that is busy looks before it waits, and has said that it may wait before it looks.
        if self._idle:
            with self._changed:
                self._changed.notify()

    def _submit(self, item: Order | _Question) -> None:
        assert current_thread() is not self._thread, "the loop's own thread cannot wait for itself"
        with self._changed:
            phase, problem = self._standing()
            if phase is not Phase.LEADING:
                raise Unavailable(f"no leader here: {problem or phase}", fix="try again in some seconds")
            self._put(item)

    def _result(self, reply: Future[T], timeout: float) -> T:
        try:
            return reply.result(timeout)
        except TimeoutError:
            never = reply.cancel()
            if not never and reply.done():
                return reply.result()
            what = "it was not carried out" if never else "it may yet be carried out"
            raise Unavailable(f"no answer within {timeout:g} s; {what}", fix="look, then try again") from None

    def _unsubscribe(self, sink: Sink) -> None:
        with self._changed:
            self._sinks = tuple(other for other in self._sinks if other is not sink)

    def _arrive(self, session: int, event: messages.Event) -> None:
        self._put(Arrived(event, session))

    # --------------------------------------------------------------------------------------------- the loop's own

    def _run(self) -> None:
        try:
            self._begin()
            while not self._stopping.is_set():
                self._serve()
        except Fenced as error:
            self._end(Phase.FENCED, error)
        except BaseException as error:
            self._end(Phase.FAILED, error)
        else:
            self._end(Phase.STOPPED, None)

    def _begin(self) -> None:
        self._check_leadership()
        self._leader.acquire()
        self._leader.reload()
        self._leader.connect(self._arrive)
        self._enter(Phase.LEADING)
        log.info("leading", epoch=self._leader.epoch)
        self._started.set_result(None)

    def _serve(self) -> None:
        """One turn; what goes wrong in it is answered by starting over."""
        try:
            self._await_work()
            if not self._await_leadership():
                return
            began = self._monotonic()
            items, questions = self._take()
            self._leader.process(items)
            ended = self._monotonic()
            self._rested = ended + min(_REST * (ended - began), _LONGEST_REST * self._pace.coalesce_ms / 1_000)
            for question in questions:
                self._answer(question)
        except Fenced:
            raise
        except Exception as error:
            self._recover(error)
        finally:
            self._seen = self._monotonic()

    def _await_work(self) -> None:
        with self._changed:
            self._idle = True
            while not self._inbox and not self._stopping.is_set():
                self._seen = self._monotonic()
                if (pause := self._leader.wake_ms()) <= 0:
                    break
                self._changed.wait(pause / 1_000)
            self._idle = False
        self._coalesce()

    def _take(self) -> tuple[list[Item], list[_Question]]:
        with self._changed:
            taken = [self._inbox.popleft() for _ in range(min(len(self._inbox), self._pace.batch_limit))]
        questions = [item for item in taken if isinstance(item, _Question)]
        return [item for item in taken if not isinstance(item, _Question)], questions

    def _standing(self) -> tuple[Phase, str]:
        """Phase and problem as of now: doubt counts from its first instant, not from when the thread learns of it."""
        if self._phase is Phase.LEADING and not self._entitled():
            return Phase.SUSPENDED, "the leadership is in doubt"
        return self._phase, self._problem

    def _entitled(self) -> bool:
        return self._leadership is None or self._leadership.holds()

    def _await_leadership(self) -> bool:
        """Stand still while it is in doubt whether we lead; what arrives waits. False where we are to stop meanwhile.

        Raises Fenced once it is lost.
        """
        if self._entitled():
            return True
        log.warning("standing still: the leadership is in doubt")
        while not self._entitled() and not self._stopping.wait(_DOUBT_S):
            self._seen = self._monotonic()
            self._check_leadership()
        self._check_leadership()
        return self._entitled()

    def _check_leadership(self) -> None:
        if self._leadership is not None and self._leadership.lost:
            raise Fenced(f"the leadership was lost: {self._leadership.lost}")

    def _coalesce(self) -> None:
        """Let events that follow close upon each other gather; the first after a quiet moment waits for nobody."""
        if not self._inbox:
            return
        pause = max(self._turned + self._pace.coalesce_ms / 1_000, self._rested) - self._monotonic()
        if pause > 0:
            self._stopping.wait(pause)
        self._turned = self._monotonic()

    def _answer(self, question: _Question) -> None:
        if not question.reply.set_running_or_notify_cancel():
            return
        try:
            question.reply.set_result(question.ask(self._leader.core))
        except Exception as error:
            question.reply.set_exception(error)

    def _recover(self, error: Exception) -> None:
        """Forget what is in memory, leave the master, and begin again from the store as soon as it answers."""
        log.error("starting over from the stored state", problem=str(error), exc_info=error)
        self._recoveries += 1
        self._enter(Phase.RECOVERING, str(error))
        self._leader.disconnect()
        while not self._stopping.wait(self._delay()):
            self._seen = self._monotonic()
            self._check_leadership()
            try:
                self._leader.reload()
                self._leader.connect(self._arrive)
            except Fenced:
                raise
            except Exception as again:
                log.exception("the stored state cannot be used yet", problem=str(again))
                self._enter(Phase.RECOVERING, str(again))
            else:
                self._enter(Phase.LEADING)
                log.info("leading again", epoch=self._leader.epoch)
                return

    def _delay(self) -> float:
        """Seconds to wait before the next attempt, doubled with each that follows closely upon another."""
        now = self._monotonic()
        calm = now - self._recovered > self._pace.calm_ms / 1_000
        self._streak = 0 if calm else self._streak + 1
        delay_ms = min(self._pace.retry_most_ms, self._pace.retry_first_ms << min(self._streak, 20))
        self._recovered = now + delay_ms / 1_000
        return delay_ms / 1_000

    def _enter(self, phase: Phase, problem: str = "") -> None:
        """Change the phase; outside LEADING nobody is left waiting."""
        with self._changed:
            self._phase, self._problem = phase, problem
            waiting: list[Item | _Question] = []
            if phase is not Phase.LEADING:
                while self._inbox:
                    waiting.append(self._inbox.popleft())
        why = f"no leader here: {problem or phase}"
        refuse((item for item in waiting if not isinstance(item, _Question)), why)
        for item in waiting:
            if isinstance(item, _Question) and item.reply.set_running_or_notify_cancel():
                item.reply.set_exception(Unavailable(why, fix="try again in some seconds"))

    def _end(self, phase: Phase, error: BaseException | None) -> None:
        """Step down for good: nothing is written or sent from here on, and every caller has an answer."""
        self.failure = error
        self._enter(phase, str(error or ""))
        if error is not None:
            log.error("stepped down", phase=phase, problem=str(error), exc_info=error)
        self._leader.disconnect()
        try:
            self._store.close()
        except Exception:
            log.exception("the store could not be closed")
        if not self._started.done():
            self._started.set_exception(error or Unavailable("stopped before it had started"))

    def _tell(self, notice: messages.Publish) -> None:
        for sink in self._sinks:
            try:
                sink.publish(notice)
            except Exception:
                if id(sink) not in self._failed_sinks:
                    self._failed_sinks.add(id(sink))
                    log.exception("a receiver of notices fails; this is said once", sink=type(sink).__name__)
