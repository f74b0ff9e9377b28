"""The thread that owns the core. Other threads put events, commands and questions into its inbox.

In each turn the loop waits for events, gathers them into a batch, checks the leadership and processes the batch (see
batch.py). A single event is handled at once. Under load, the events of a batch share one write. After a turn the thread
rests for up to three times the length of the turn, so batches grow with the load. It answers questions while it rests.
After a failed write or an error in the core, the loop starts over from the stored state.
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
from jobcloud.server.batch import Arrived, BatchProcessor, CoreT, Item, Order, Restore, refuse

log = structlog.get_logger(__name__)
T = TypeVar("T")

# Seconds between two checks of a leadership in doubt, or of a full inbox.
_RECHECK_S = 0.02
# The rest after a turn, as a multiple of the turn's length. The longest rest, as a multiple of `coalesce_ms`.
_REST_FACTOR, _MAX_REST_FACTOR = 3, 7


@dataclass(frozen=True, slots=True)
class Pace:
    """Timing and limits of the loop.

    After a failure the loop waits before it starts over. The wait doubles from `retry_first_ms` to `retry_max_ms`. It
    is `retry_first_ms` again after `calm_ms` without failure. While `inbox_events` items wait, further events wait in
    the master. While `inbox_requests` commands and questions wait, further ones are refused.
    """

    coalesce_ms: int = 3
    tick_ms: int = 1_000
    batch_limit: int = 10_000
    inbox_events: int = 20_000
    inbox_requests: int = 1_000
    retry_first_ms: int = 100
    retry_max_ms: int = 10_000
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
    """The state of a loop.

    `well`: the loop leads, is subscribed to a master, and works again after its last failure (`_works_again`).
    `problem`: why the loop is not well, or "". `code`: its kind: the phase of a loop that does not lead, "disconnected"
    from the master, or "failing". `since_ms`: the instant at which the present series of failures began; 0
    if the loop works. `written_ms`: the instant of the last write. `late_ms`: the delay of the last Tick. `idle_ms`:
    the time since the thread was last active. `waiting`: the number of items in the inbox. `recoveries`: the number of
    failures so far.
    """

    phase: Phase
    well: bool
    problem: str
    code: str
    since_ms: int
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
    """[stand_by* →] start → (deliver | command | ask | health)* → stop. Every method may be called from any other
    thread.

    The loop owns and closes `store` and the drivers that `make_driver` returns, one for each session with the master.
    While `leadership` is in doubt the loop does nothing. Once the leadership is lost, the loop ends.
    `now_ms` is the wall clock; `monotonic` counts seconds.
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
        #: how many notices a sink has failed to take
        self.lost_notices = 0
        self._now_ms = now_ms
        self._monotonic = monotonic
        self._pace = pace
        self._processor: BatchProcessor[CoreT] = BatchProcessor(
            store, make_driver, restore, self._publish, now_ms=now_ms, tick_ms=pace.tick_ms, may_send=self._may_act
        )
        self._leadership = leadership
        self._inbox: deque[Item] = deque()
        self._questions: deque[_Question] = deque()
        #: commands and questions that wait
        self._requests = 0
        self._changed = Condition()
        #: True while the thread checks its inbox before a wait, and while it waits.
        self._idle = False
        #: True while the thread waits for questions only, so that a batch gathers more events.
        self._resting = False
        self._stopping = Event()
        self._phase = Phase.STARTING
        self._problem = ""
        self._started: Future[None] = Future()
        self._seen = monotonic()
        self._taken_at = self._rest_until = self._recovered = float("-inf")
        self._recoveries = self._streak = 0
        #: the last failure, and the instant (ms) at which its series of failures began
        self._failure, self._failing_since_ms = "", 0
        self._thread = Thread(target=self._run, name="jobcloud-loop", daemon=True)
        self._aborted: BaseException | None = None
        self.failure: BaseException | None = None

    def stand_by(self, problem: str) -> None:
        """Set the problem that callers see before `start`: why this scheduler does not lead, and which one leads."""
        self._phase, self._problem = Phase.STANDBY, problem

    def start(self) -> None:
        """Raise the epoch, load, subscribe. Raises StoreError, or any other exception of these steps."""
        self._thread.start()
        self._started.result()

    def stop(self, timeout: float = 10.0) -> bool:
        """Disconnect from the master and close the store. Tasks keep running. Returns False if this takes longer
        than `timeout` seconds."""
        self._stopping.set()
        if self._thread.ident is None:
            self._store.close()
            return True
        with self._changed:
            self._changed.notify_all()
        return self.wait(timeout)

    def abort(self, error: BaseException) -> None:
        """End the loop with `error`, because starting over would not help. Tasks keep running."""
        self._aborted = error
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait up to `timeout` s for the end of the loop. False if it still runs. `failure` is the error, or None."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def deliver(self, event: messages.Event) -> None:
        """Add an event. Waits while the inbox is full. If the loop starts over, the event may be dropped."""
        self._arrive(None, event)

    def command(self, make: Callable[[int], messages.Command], timeout: float = 10.0) -> None:
        """Carry out a command. Returns when its changes are stored and its calls are sent.

        `make` builds the command from the instant (ms) at which it is handled. Raises Refused (nothing has changed),
        Unavailable (its text says if the command may take effect), CoreFailed for a bug in the core, and any exception
        of `make`.
        """
        reply: Future[None] = Future()
        self._submit(Order(make, reply))
        self._result(reply, timeout)

    def ask(self, fn: Callable[[CoreT], T], timeout: float = 5.0) -> T:
        """The result of `fn(core)`, which must not change the core. Raises Unavailable, and any exception of `fn`."""
        reply: Future[T] = Future()
        self._submit(_Question(fn, reply))
        return self._result(reply, timeout)

    def teardown(self) -> None:
        """Remove the framework from Mesos, which kills all its tasks. Raises NotConnected."""
        driver = self._processor.driver
        if driver is None:
            raise NotConnected("not connected to a master now")
        driver.teardown()

    def subscribe(self, sink: Sink) -> Callable[[], None]:
        """Also publish to `sink`, until the returned function is called."""
        with self._changed:
            self._sinks = (*self._sinks, sink)
        return lambda: self._unsubscribe(sink)

    @property
    def standing_by(self) -> bool:
        """Whether the loop waits until this scheduler is elected, or takes over at the moment."""
        return self._phase is Phase.STANDBY

    def healthy(self) -> bool:
        """`Health.well` of the present state."""
        return self.health().well

    def health(self) -> Health:
        """The present state, without waiting for the thread."""
        processor = self._processor
        phase, problem = self._phase_now()
        failing = not self._works_again()
        problem = problem or (self._failure if failing else "")
        code = str(phase) if phase is not Phase.LEADING else "failing" if problem else ""
        if not code and not processor.connected:
            problem, code = "not subscribed to a Mesos master", "disconnected"
        return Health(
            phase=phase,
            well=phase is Phase.LEADING and not problem,
            problem=problem or ("" if phase is Phase.LEADING else phase),
            code=code,
            since_ms=self._failing_since_ms if failing else 0,
            connected=processor.connected,
            epoch=processor.epoch,
            written_ms=processor.written_ms,
            late_ms=processor.late_ms,
            idle_ms=int((self._monotonic() - self._seen) * 1_000),
            waiting=len(self._inbox) + len(self._questions),
            recoveries=self._recoveries,
            faults=processor.faults,
        )

    # ----------------------------------------------------------------------------------------- on callers' threads

    def _put(self, item: Item | _Question) -> None:
        if isinstance(item, _Question):
            self._questions.append(item)
            awake = not (self._idle or self._resting)
        else:
            self._inbox.append(item)
            awake = not self._idle
        # No wake-up is lost: the thread sets `_idle` or `_resting` before it checks for the last time.
        if not awake:
            with self._changed:
                self._changed.notify()

    def _submit(self, item: Order | _Question) -> None:
        assert current_thread() is not self._thread, "the loop's own thread cannot wait for itself"
        with self._changed:
            phase, problem = self._phase_now()
            if phase is not Phase.LEADING:
                raise Unavailable(f"no leader here: {problem or phase}", fix="try again in a few seconds")
            if self._requests >= self._pace.inbox_requests:
                raise Unavailable(f"{self._requests} other requests wait", fix="try again in a few seconds")
            self._requests += 1
            self._put(item)

    def _result(self, reply: Future[T], timeout: float) -> T:
        try:
            return reply.result(timeout)
        except TimeoutError:
            cancelled = reply.cancel()
            if not cancelled and reply.done():
                return reply.result()
            outcome = "the request was not carried out" if cancelled else "the request may still be carried out"
            raise Unavailable(f"no answer within {timeout:g} s; {outcome}", fix="check, then try again") from None

    def _unsubscribe(self, sink: Sink) -> None:
        with self._changed:
            self._sinks = tuple(other for other in self._sinks if other is not sink)

    def _arrive(self, session: int | None, event: messages.Event) -> None:
        """Add an event of a session. Waits while the inbox is full, so that the master keeps further events.

        A driver calls this on its own threads. The loop's thread calls `Driver.stop`, which may wait for these threads.
        To prevent a deadlock, the wait ends without adding the event when the loop stops or the session is closed. The
        loop would drop the event anyway.
        """
        while len(self._inbox) >= self._pace.inbox_events and current_thread() is not self._thread:
            if session not in (None, self._processor.session) or self._stopping.wait(_RECHECK_S):
                return
        self._put(Arrived(event, session))

    # -------------------------------------------------------------------------------------- on the loop's thread

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
            self._end(Phase.FAILED if self._aborted else Phase.STOPPED, self._aborted)

    def _begin(self) -> None:
        self._check_leadership()
        self._processor.acquire()
        self._processor.reload()
        self._processor.connect(self._arrive)
        self._enter(Phase.LEADING)
        log.info("leading", epoch=self._processor.epoch)
        self._started.set_result(None)

    def _serve(self) -> None:
        """One turn. After an error the loop starts over. Raises Fenced."""
        try:
            self._await_work()
            if not self._await_leadership():
                return
            began = self._monotonic()
            items, questions = self._take()
            self._processor.process(items)
            ended = self._monotonic()
            self._rest_until = ended + min(
                _REST_FACTOR * (ended - began), _MAX_REST_FACTOR * self._pace.coalesce_ms / 1_000
            )
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
            while not self._inbox and not self._questions and not self._stopping.is_set():
                self._seen = self._monotonic()
                if (pause := self._processor.wake_ms()) <= 0:
                    break
                self._changed.wait(pause / 1_000)
            self._idle = False
        self._coalesce()

    def _take(self) -> tuple[list[Item], list[_Question]]:
        with self._changed:
            items = [self._inbox.popleft() for _ in range(min(len(self._inbox), self._pace.batch_limit))]
            self._requests -= sum(not isinstance(item, Arrived) for item in items)
            return items, self._take_questions()

    def _take_questions(self) -> list[_Question]:
        taken = list(self._questions)
        self._questions.clear()
        self._requests -= len(taken)
        return taken

    def _phase_now(self) -> tuple[Phase, str]:
        """Phase and problem. Doubt about the leadership counts at once, even if the thread has not noticed it yet."""
        if self._phase is Phase.LEADING and not self._may_act():
            return Phase.SUSPENDED, "the leadership of this scheduler is in doubt"
        return self._phase, self._problem

    def _works_again(self) -> bool:
        """Whether a batch has been stored since the last failure. After repeated failures, `calm_ms` must also pass."""
        if not self._failure:
            return True
        return self._processor.proven and (not self._streak or self._is_calm())

    def _is_calm(self) -> bool:
        return self._monotonic() - self._recovered > self._pace.calm_ms / 1_000

    def _may_act(self) -> bool:
        return self._leadership is None or self._leadership.holds()

    def _await_leadership(self) -> bool:
        """Wait while the leadership is in doubt; the inbox keeps new items. False if `stop` was called meanwhile.

        Raises Fenced once the leadership is lost.
        """
        if self._may_act():
            return True
        log.warning("suspended: the leadership is in doubt")
        while not self._may_act() and not self._stopping.wait(_RECHECK_S):
            self._seen = self._monotonic()
            self._check_leadership()
        self._check_leadership()
        return self._may_act()

    def _check_leadership(self) -> None:
        if self._leadership is not None and self._leadership.lost:
            raise Fenced(f"the leadership was lost: {self._leadership.lost}")

    def _coalesce(self) -> None:
        """Wait a little, so that a batch gathers more events. The first event after a quiet moment does not wait.

        Questions are answered meanwhile, from the state after the last batch.
        """
        if not self._inbox:
            return
        until = max(self._taken_at + self._pace.coalesce_ms / 1_000, self._rest_until)
        while (pause := until - self._monotonic()) > 0 and self._may_act() and not self._stopping.is_set():
            with self._changed:
                self._resting = True
                if not self._questions and not self._stopping.is_set():
                    self._changed.wait(pause)
                self._resting = False
                questions = self._take_questions()
            for question in questions:
                self._answer(question)
        self._taken_at = self._monotonic()

    def _answer(self, question: _Question) -> None:
        if not question.reply.set_running_or_notify_cancel():
            return
        try:
            question.reply.set_result(question.ask(self._processor.core))
        except Exception as error:
            question.reply.set_exception(error)

    def _recover(self, error: Exception) -> None:
        """Discard the core, disconnect, and start over as soon as the store answers."""
        log.error("starting over from the stored state", problem=str(error), exc_info=error)
        if self._is_calm():
            self._failing_since_ms = self._now_ms()
        self._recoveries += 1
        self._enter(Phase.RECOVERING, str(error))
        self._processor.disconnect()
        while not self._stopping.wait(self._delay()):
            self._seen = self._monotonic()
            self._check_leadership()
            try:
                self._processor.reload()
                self._processor.connect(self._arrive)
            except Fenced:
                raise
            except Exception as again:
                log.exception("starting over failed; trying again", problem=str(again))
                self._enter(Phase.RECOVERING, str(again))
            else:
                self._enter(Phase.LEADING)
                log.info("leading again", epoch=self._processor.epoch)
                return

    def _delay(self) -> float:
        """The wait before the next attempt to start over, in seconds. It doubles while failures follow each other."""
        now = self._monotonic()
        self._streak = 0 if self._is_calm() else self._streak + 1
        delay_ms = min(self._pace.retry_max_ms, self._pace.retry_first_ms << min(self._streak, 20))
        self._recovered = now + delay_ms / 1_000
        return delay_ms / 1_000

    def _enter(self, phase: Phase, problem: str = "") -> None:
        """Change the phase.

        On a change to any phase but LEADING, waiting callers are refused and waiting events dropped.
        """
        with self._changed:
            self._phase, self._problem = phase, problem
            if phase is Phase.RECOVERING:
                self._failure = problem
            waiting: list[Item] = []
            questions: list[_Question] = []
            if phase is not Phase.LEADING:
                while self._inbox:
                    waiting.append(self._inbox.popleft())
                questions = self._take_questions()
                self._requests = 0
        why = f"no leader here: {problem or phase}"
        refuse(waiting, why)
        for question in questions:
            if question.reply.set_running_or_notify_cancel():
                question.reply.set_exception(Unavailable(why, fix="try again in a few seconds"))

    def _end(self, phase: Phase, error: BaseException | None) -> None:
        """Step down for good. Afterwards nothing is written or sent, and every caller has an answer."""
        self.failure = error
        self._enter(phase, str(error or ""))
        if error is not None:
            log.error("stepped down", phase=phase, problem=str(error), exc_info=error)
        self._processor.disconnect()
        try:
            self._store.close()
        except Exception:
            log.exception("the store could not be closed")
        if not self._started.done():
            self._started.set_exception(error or Unavailable("stopped before it started"))

    def _publish(self, notice: messages.Notice) -> None:
        for sink in self._sinks:
            try:
                sink.publish(notice)
            except Exception:
                self.lost_notices += 1
                if id(sink) not in self._failed_sinks:
                    self._failed_sinks.add(id(sink))
                    log.exception(
                        "a sink failed to take a notice; further failures are not logged", sink=type(sink).__name__
                    )
