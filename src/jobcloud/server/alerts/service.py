"""The threads that send alerts: one for each channel, one for the heartbeat, one that watches this process.

The core asks for the sending of a message by `AlertDue`, after the message was stored. The channel's thread sends it
and reports the result as a command. Then the core deletes the message, or plans the next attempt. If the report is not
accepted, the core asks again, and the thread reports again without sending. So a message is sent twice only if the
process dies between the sending and the record. A channel that is slow keeps only its own thread waiting.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

import structlog

from jobcloud.errors import JobcloudError, NotFound, Unavailable
from jobcloud.messages import AlertDue, Command, ReportDelivery, ReportProblem
from jobcloud.model import Alert, AlertMessage, Condition
from jobcloud.scheduler.alerts import FIRST_RETRY_MS, MAX_ATTEMPTS, MAX_RETRY_MS
from jobcloud.scheduler.retry import backoff_ms
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import TRY_SOON, shown_by
from jobcloud.server.alerts import delivery
from jobcloud.server.alerts.channels import Channel, Channels, Heartbeat
from jobcloud.server.alerts.delivery import SECONDS, Deliver, Result
from jobcloud.server.alerts.forms import Request
from jobcloud.server.api.ports import Health
from jobcloud.server.deadline import Deadline

log = structlog.get_logger(__name__)

_WATCH_S = 5.0
#: a store that does not work for this long opens an alert
STORE_PATIENCE_MS = 30_000
# Messages that were taken and are remembered, to recognize a repeated request. A channel has one at a time.
_REMEMBERED = 16
_HEARTBEAT_S = 10.0


class Loop(Protocol):
    """The part of the loop that alerts use."""

    def command(self, make: Callable[[int], Command], timeout: float = 10) -> object: ...

    def health(self) -> Health: ...


@dataclass(frozen=True, slots=True)
class _Job:
    """A message to send. `done` takes the result. It returns whether the result was accepted.

    `lead`: only the leader may send it.
    """

    id: str
    message: AlertMessage
    done: Callable[[Result], bool]
    lead: bool

    @property
    def attempt(self) -> tuple[str, int]:
        return self.id, self.message.attempts


class AlertService:
    """A sink of the loop. start → (publish | test)* → stop."""

    def __init__(
        self,
        wanted: Channels,
        cluster: str,
        now_ms: Callable[[], int],
        *,
        clock_warnings: Callable[[], Sequence[Told]] = tuple,
        deliver: Deliver = delivery.deliver,
    ) -> None:
        self._cluster, self._now_ms, self._deliver = cluster, now_ms, deliver
        self._heartbeat = wanted.heartbeat
        self._clock_warnings = clock_warnings
        self._stopping = threading.Event()
        self._loop: Loop | None = None
        self._tests = threading.BoundedSemaphore(1)
        self.channels: tuple[Channel, ...] = tuple(wanted.channels.values())
        self._senders = {channel.name: _Sender(self, channel) for channel in self.channels}
        self._watch = Watch(self.tell, now_ms)

    def start(self, loop: Loop) -> None:
        """`loop` must be the one that publishes to this service."""
        self._loop = loop
        for sender in self._senders.values():
            sender.start()
        threading.Thread(target=self._observe, name="alerts-watch", daemon=True).start()
        if self._heartbeat is not None:
            threading.Thread(target=self._beat, args=(self._heartbeat,), name="alerts-heartbeat", daemon=True).start()

    def stop(self) -> None:
        """Send nothing further. Messages without a result stay in the state, for the next leader."""
        self._stopping.set()
        for sender in self._senders.values():
            sender.wake()

    def publish(self, notice: object) -> None:
        """Take a message that is due. Other notices are ignored."""
        if isinstance(notice, AlertDue) and (sender := self._senders.get(notice.message.channel)) is not None:
            sender.add(_Job(notice.id, notice.message, lambda result: self._report(notice.id, result), lead=True))

    def test(self, name: str) -> str:
        """Send a test message to a channel. Returns the problem, or "" if the channel took it.

        Raises NotFound for an unknown channel, and Unavailable while another test runs.
        """
        sender = self._senders.get(name)
        if sender is None:
            problem = Told(f"there is no channel {name[:80]}", "no_channel", channel=name[:80])
            raise NotFound(problem, field="channel", fix=shown_by("jobcloud alerts", "lists them"))
        if not self._tests.acquire(blocking=False):
            raise Unavailable(Told("another test is running", "test_runs"), fix=TRY_SOON)
        try:
            now, result = self._now_ms(), Future[Result]()
            alert = Alert(Condition.RUN_FAILED, "test", now, "this is a test: an operator asked for it", now)
            message = AlertMessage(name, now, (alert,))

            def done(found: Result) -> bool:
                result.set_result(found)
                return True

            sender.add(_Job(f"test-{now}", message, done, lead=False))
            return result.result(SECONDS * 2 + 1).problem
        except TimeoutError:
            return "its earlier messages take long; the test waits behind them"
        finally:
            self._tests.release()

    # ------------------------------------------------------------------------------------------- on own threads

    def send(self, channel: Channel, job: _Job) -> Result | None:
        """One attempt; None if this process may not send now."""
        if self._stopping.is_set() or (job.lead and not self._leads()):
            return None
        result = self._deliver(channel, job.id, job.message, self._cluster, self._now_ms())
        if result.problem:
            log.warning(
                "a channel has not taken an alert", channel=channel.name, message=job.id, problem=result.problem
            )
        else:
            log.info("alert sent", channel=channel.name, message=job.id, alerts=len(job.message.alerts))
        return result

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    def _leads(self) -> bool:
        return self._loop is not None and self._loop.health().leading

    def _command(self, make: Callable[[int], Command]) -> bool:
        """Carry out a command. False if this is not possible now, or its effect is unknown."""
        try:
            assert self._loop is not None
            self._loop.command(make)
        except (JobcloudError, TimeoutError) as error:
            log.info("the scheduler did not take a report about alerts", problem=str(error))
            return False
        return True

    def _report(self, message_id: str, result: Result) -> bool:
        """If the report is not accepted, the core asks for the message again."""
        return self._command(lambda at: ReportDelivery(at, message_id, result.problem, result.retry_ms))

    def tell(self, message_id: str, message: AlertMessage) -> None:
        """Send a message that is not in the state to every channel that wants its condition."""
        for name, sender in self._senders.items():
            if not sender.channel.conditions or message.alerts[0].condition in sender.channel.conditions:
                sender.tell(f"{message_id}-{name}", message)

    def _observe(self) -> None:
        while not self._stopping.wait(_WATCH_S):
            try:
                assert self._loop is not None
                health = self._loop.health()
                self._watch.observe_store(health)
                if health.leading:
                    problems = {
                        Condition.CLOCK: _together(self._clock_warnings()),
                        Condition.STORE: _faults(health),
                    }
                    self._watch.report(health, problems, self._command)
            except Exception:
                log.exception("the watch for alerts failed")

    def should_beat(self) -> bool:
        """Whether this process leads and is well."""
        return self._loop is not None and self._loop.health().well

    def _beat(self, heartbeat: Heartbeat) -> None:
        failing = False
        while not self._stopping.wait(heartbeat.every.total_seconds()):
            if not self.should_beat():
                continue
            problem = beat(heartbeat)
            if bool(problem) != failing:
                failing = bool(problem)
                log.warning("heartbeat", problem=problem or "none: it arrives again")


class Watch:
    """Problems of this process that the core cannot see. It has no thread of its own.

    A problem of the clock, and records that cannot be read, are reported to the core. While the store does not work,
    the core can store no alert. So `tell` sends the alert about it at once, and again when the store works.
    """

    def __init__(self, tell: Callable[[str, AlertMessage], None], now_ms: Callable[[], int]) -> None:
        self._tell, self._now_ms = tell, now_ms
        #: condition → whether a problem was reported, and the epoch of the leader that was told
        self._reported: dict[Condition, bool] = {}
        self._epoch = -1
        self._opened: Alert | None = None

    def observe_store(self, health: Health) -> None:
        now = self._now_ms()
        if health.since_ms and self._opened is None and now - health.since_ms >= STORE_PATIENCE_MS:
            text = f"the scheduler does not work: {health.problem}"[:700]
            self._opened = Alert(Condition.STORE, "", health.since_ms, text, now)
            self._send(self._opened, now)
        elif not health.since_ms and self._opened is not None and health.leading:
            alert, self._opened = self._opened, None
            self._send(Alert(alert.condition, "", alert.opened_ms, alert.text, now, closed_ms=now), now)

    def _send(self, alert: Alert, now: int) -> None:
        part = "ended" if alert.closed_ms else "open"
        self._tell(f"store-{alert.opened_ms}-{part}", AlertMessage("", now, (alert,)))

    def report(
        self, health: Health, problems: dict[Condition, str], command: Callable[[Callable[[int], Command]], bool]
    ) -> None:
        """Report each change, and everything once to each new leader."""
        if health.epoch != self._epoch:
            self._epoch, self._reported = health.epoch, {}
        for condition, text in problems.items():
            if self._reported.get(condition) is not bool(text) and command(_problem(condition, text)):
                self._reported[condition] = bool(text)


def _problem(condition: Condition, text: str) -> Callable[[int], Command]:
    return lambda at: ReportProblem(at, condition, text)


def _faults(health: Health) -> str:
    if not health.faults:
        return ""
    number, first = len(health.faults), health.faults[0]
    text = f"{number} records cannot be read or written, such as {first.path}: {first.problem}"
    return Told(text, "records", records=number, path=first.path, problem=first.problem)


def _together(problems: Sequence[Told]) -> str:
    """Several problems of the clock as one. Its words are those of the first, and `others` counts the others."""
    if len(problems) < 2:
        return problems[0] if problems else ""
    words = problems[0].words
    return Told("; ".join(problems), words.code, **words.parameters, others=len(problems) - 1)


def beat(heartbeat: Heartbeat) -> str:
    """Call the URL once. Returns the problem, or ""."""
    deadline = Deadline(_HEARTBEAT_S)
    try:
        with deadline:
            answer = delivery.exchange(Request(heartbeat.url.get_secret_value(), {}, b""), deadline, "GET")
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]
    return "" if 200 <= answer.status < 300 else f"it answered {answer.status}"


class _Sender:
    """The thread of one channel. It sends one message at a time."""

    def __init__(self, service: AlertService, channel: Channel) -> None:
        self.channel = channel
        self._service = service
        self._waiting: deque[_Job] = deque()
        self._taken: deque[str] = deque(maxlen=_REMEMBERED)
        self._changed = threading.Condition()
        self._told: _Told | None = None

    def start(self) -> None:
        threading.Thread(target=self._run, name=f"alerts-{self.channel.name}", daemon=True).start()

    def wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def add(self, job: _Job) -> None:
        """Send a message, unless the same attempt waits already.

        If it is being sent now, the repeated request is dropped once the result is accepted (see `_perform`).
        """
        with self._changed:
            if all(job.attempt != other.attempt for other in self._waiting):
                self._waiting.append(job)
                self._changed.notify_all()

    def tell(self, message_id: str, message: AlertMessage) -> None:
        """Send a message that is not in the state, and repeat it here if the channel does not take it."""
        with self._changed:
            self._told = _Told(message_id, message)
            self._changed.notify_all()

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._perform(job)
            except Exception:
                log.exception("the sending of an alert failed", channel=self.channel.name)

    def _next(self) -> _Job | None:
        """Wait for a message. None: the service stops."""
        with self._changed:
            while not self._service.stopping:
                if self._told is not None and self._told.wait_s <= 0:
                    return self._told.job(self._told_result)
                if self._waiting:
                    return self._waiting.popleft()
                self._changed.wait(self._told.wait_s if self._told is not None else None)
        return None

    def _perform(self, job: _Job) -> None:
        result: Result | None = Result()
        if job.id not in self._taken:
            result = self._service.send(self.channel, job)
        if result is None:
            return
        if not result.problem:
            self._taken.append(job.id)
        if job.done(result):
            # A request for the next attempt may have come already.
            with self._changed:
                self._waiting = deque(other for other in self._waiting if other.attempt != job.attempt)

    def _told_result(self, told: _Told, result: Result) -> bool:
        with self._changed:
            if self._told is told:
                self._told = told.again() if result.problem else None
        return True


class _Told:
    """A message that is not in the state, with its failed attempts. Its next attempt is in `wait_s` seconds."""

    def __init__(self, message_id: str, message: AlertMessage, attempts: int = 0, due: float = 0) -> None:
        self.id, self.message, self.attempts, self._due = message_id, message, attempts, due

    @property
    def wait_s(self) -> float:
        return self._due - time.monotonic()

    def job(self, done: Callable[[_Told, Result], bool]) -> _Job:
        return _Job(self.id, self.message, lambda result: done(self, result), lead=False)

    def again(self) -> _Told | None:
        attempts = self.attempts + 1
        wait_s = backoff_ms(attempts, FIRST_RETRY_MS, MAX_RETRY_MS) / 1_000
        return _Told(self.id, self.message, attempts, time.monotonic() + wait_s) if attempts < MAX_ATTEMPTS else None
