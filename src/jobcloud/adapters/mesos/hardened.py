"""pymesos' scheduler driver with its unsafe parts replaced. docs/mesos.md lists every override and its reason.

Kept: its calls (acceptOffers, declineOffer, killTask, …), which build the messages, and its dispatch of events to the
methods of a `pymesos.Scheduler`. Replaced: everything that uses the network, and everything that can lose tasks.
"""

# ruff: noqa: N802 - the method names are those of pymesos
from __future__ import annotations

import http.client
import logging
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from typing import Any

from jobcloud.adapters.mesos.link import Address, Dialer, Session
from jobcloud.adapters.mesos.wire import Json, dumps, loads
from jobcloud.errors import NotConnected
from jobcloud.wire import FramingError


@contextmanager
def _without_side_effects() -> Iterator[None]:
    """Suppress side effects of the import: pymesos installs a log handler and a SIGINT handler.

    On another thread than the main one, installing the SIGINT handler would make the import fail.
    """
    real = signal.signal

    def keep(number: int, handler: Any) -> Any:
        if getattr(handler, "__module__", "") == "pymesos.process":
            return signal.getsignal(number)
        return real(number, handler)

    logger = logging.getLogger("pymesos")
    handlers, level = list(logger.handlers), logger.level
    signal.signal = keep  # type: ignore[assignment]
    try:
        yield
    finally:
        signal.signal = real
        logger.handlers[:] = handlers
        logger.setLevel(level)


with _without_side_effects():
    from pymesos import MesosSchedulerDriver

_log = logging.getLogger("jobcloud.mesos")

_EVENTS = frozenset(
    {
        "SUBSCRIBED",
        "OFFERS",
        "INVERSE_OFFERS",
        "RESCIND",
        "RESCIND_INVERSE_OFFER",
        "UPDATE",
        "UPDATE_OPERATION_STATUS",
        "MESSAGE",
        "FAILURE",
        "ERROR",
        "HEARTBEAT",
    }
)
# Events that may arrive before SUBSCRIBED.
_EARLY_EVENTS = frozenset({"SUBSCRIBED", "ERROR", "HEARTBEAT"})
# Messages of ERROR for a framework id that Mesos will never accept again (master.cpp: completed frameworks).
_REMOVED = ("framework has been removed", "completed framework")
# Message to a scheduler that was replaced by another scheduler with the same framework id. If the replaced scheduler
# subscribed again at once, it would replace the other scheduler in turn.
_REPLACED = "framework failed over"
# Message to a framework that has subscribed with another principal.
_OTHER_PRINCIPAL = "changing framework's principal is not allowed"
# The answers with which a master that does not lead, or is in trouble, refuses UPDATE_FRAMEWORK.
_TRY_AGAIN = frozenset({http.client.TEMPORARY_REDIRECT, http.client.INTERNAL_SERVER_ERROR, http.client.BAD_GATEWAY,
                        http.client.SERVICE_UNAVAILABLE, http.client.GATEWAY_TIMEOUT})  # fmt: skip
# The answer if UPDATE_FRAMEWORK would change a field that Mesos does not change. In SUBSCRIBE, Mesos ignores such a
# change.
_UNCHANGEABLE = re.compile(r"Updating 'FrameworkInfo\.(\w+)' is unsupported; attempted to update from '(.*?)' to '")
_HEARTBEAT_S = 15.0
_LONGEST_HEARTBEAT_S = 3600.0
# After a session of this length, the back-off starts at its first value again.
_GOOD_SESSION_S = 30.0


def _heartbeat_s(info: Json) -> float:
    """The interval between heartbeats that SUBSCRIBED announces, limited to plausible values."""
    announced = float(info.get("heartbeat_interval_seconds", _HEARTBEAT_S))
    return min(announced, _LONGEST_HEARTBEAT_S) if announced > 0 else _HEARTBEAT_S


class End(Enum):
    """The end of an attempt to subscribe. It determines the wait before the next attempt."""

    LOST = auto()
    REDIRECTED = auto()
    REFUSED = auto()  # wrong credentials, or replaced by another scheduler: a quick retry would not help


class Backoff:
    """The wait before the next attempt, which doubles from `first_s` to `max_s`. After a refusal, it is `refused_s`.

    Each wait is shortened at random, by at most half of it.
    """

    def __init__(self, first_s: float, max_s: float, refused_s: float) -> None:
        self._first_s, self._max_s, self._refused_s = first_s, max_s, refused_s
        self._failures = 0

    def reset(self) -> None:
        self._failures = 0

    def next(self, end: End) -> float:
        """Seconds to wait after an attempt that ended with `end`."""
        doubled = self._first_s * 2 ** min(self._failures, 30)
        self._failures += 1
        if end is End.REDIRECTED and self._failures == 1:
            return 0.0
        limit = self._refused_s if end is End.REFUSED else min(self._max_s, doubled)
        return limit * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


class HardenedDriver(MesosSchedulerDriver):  # type: ignore[misc]  # pymesos has no types
    """Stays subscribed until stopped, despite all errors, and removes the framework only by `teardown`.

    `sched` is a `pymesos.Scheduler`, called on the driver's thread; its exceptions are logged and have no other effect.
    `fast_path` gets each record of a subscription first; it returns True if it has handled the record.
    Calls and `call_in` must be made by one thread; they raise CallFailed or NotConnected.
    """

    # Set by pymesos.
    _started: bool
    framework_id: str | None
    stream_id: str | None

    def __init__(
        self,
        sched: Any,
        framework: Json,
        masters: tuple[Address, ...],
        dialer: Dialer,
        backoff: Backoff,
        missed_heartbeats: int = 5,
        fast_path: Callable[[bytes], bool] = lambda record: False,
    ) -> None:
        super().__init__(sched, dict(framework), "", implicit_acknowledgements=False, failover=True)
        self._fast_path = fast_path
        self._masters = masters
        self._dialer = dialer
        self._backoff_policy = backoff
        self._missed_heartbeats = missed_heartbeats
        self._wake = threading.Event()
        self._redirect: Address | None = None
        self._turn = 0
        self._attempt: Session | None = None
        self._calling: Session | None = None
        self._replaced = False
        self._barred = False
        self._identity_checked = False

    # Start, stop, and the loop between them.

    def start(self) -> None:
        """Subscribe on a new thread."""
        with self._lock:
            if self._started:
                return
            self._started = True
            self._io_thread = threading.Thread(target=self._run, name="mesos-events", daemon=True)
        self._io_thread.start()

    def stop(self, failover: bool = True) -> None:
        """Disconnect. The framework and its tasks stay; `failover` has no effect. `teardown` removes them."""
        with self._lock:
            self._started = False
            attempt = self._attempt
        if attempt is not None:
            attempt.end("stopped")
        self._wake.set()

    def join(self, timeout_s: float | None = None) -> None:
        thread = self._io_thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)

    def _shutdown(self) -> None:
        """Does nothing: pymesos would remove the framework here."""

    def _notify(self) -> None:
        self._wake.set()

    def _run(self) -> None:
        while self._started:
            session = self._next_session()
            if session is None:
                self._pause(None)
                continue
            began = time.monotonic()
            end = self._follow(session)
            if time.monotonic() - began >= _GOOD_SESSION_S:
                self._backoff_policy.reset()
            if self._started and not self._barred:
                self._pause(self._backoff_policy.next(end))

    def _pause(self, seconds: float | None) -> None:
        """Wait for `seconds` (None: without limit), or until something changes."""
        self._wake.wait(seconds)
        self._wake.clear()

    def _next_session(self) -> Session | None:
        """The next attempt; None if it is not allowed or no master is known.

        The attempt is chosen and stored under one lock. So a thread that changes the master or the framework id finds
        either no attempt, or one that it can end.
        """
        with self._lock:
            address = None if self._barred or not self._started else self._next_master()
            self._master = str(address) if address else None
            self._attempt = Session(address, self._dialer) if address else None
            return self._attempt

    def _next_master(self) -> Address | None:
        """The master to try next: the target of a redirect, or the next configured master, or the detected master."""
        address, self._redirect = self._redirect, None
        if address is None and self._masters:
            address = self._masters[self._turn % len(self._masters)]
            self._turn += 1
        elif address is None and self._new_master:
            address = Address.parse(self._new_master)
        return address

    def _follow(self, session: Session) -> End:
        """Subscribe and handle events until the session ends. Never raises."""
        end = End.LOST
        try:
            end = self._subscribe(session)
        except (OSError, http.client.HTTPException, NotConnected, FramingError, ValueError) as error:
            session.end(str(error) or repr(error))
        except Exception as error:
            _log.exception("unexpected error in the connection to Mesos master %s", session.address)
            session.end(repr(error))
        session.end("the master closed the event stream")
        session.close()
        self._leave(session)
        return End.REFUSED if self._replaced else end

    def _subscribe(self, session: Session) -> End:
        self._replaced = False
        status = session.open(self.gen_request())
        if status == http.client.OK:
            for record in session.records():
                if session.ended:
                    break
                self._take(session, record)
            return End.LOST
        if status in (http.client.TEMPORARY_REDIRECT, http.client.MOVED_PERMANENTLY, http.client.FOUND):
            self._redirect = Address.parse(session.location)
            session.end(f"it does not lead and redirects to {self._redirect}")
            return End.REDIRECTED
        session.end(f"SUBSCRIBE was answered with HTTP {status}: {session.body()}")
        if status in (http.client.UNAUTHORIZED, http.client.FORBIDDEN):
            _log.error("Mesos refuses this framework: check principal, secret and the master's ACLs")
            return End.REFUSED
        return End.LOST

    def _leave(self, session: Session) -> None:
        with self._lock:
            self._attempt = None
            self.stream_id = None
            wanted = self._started
        if wanted:
            _log.warning("not connected to Mesos master %s: %s", session.address, session.end_reason)
        if session.subscribed:
            self._last_end = session.end_reason
            self._guarded("disconnected", self.on_close)

    # The master to connect to.

    def change_master(self, new_master: str | None) -> None:
        """Switch to another master at once. None: disconnect until a master is known."""
        with self._lock:
            changed = new_master != self.master
            self._new_master = new_master
            attempt = self._attempt
            self._backoff_policy.reset()
        if changed and attempt is not None:
            attempt.end(f"the leading master is now {new_master or 'unknown'}")
        self._wake.set()

    def _get_version(self, master: str) -> None:
        """Does nothing: the version is not needed, and pymesos cannot parse one that ends in -rc1."""

    # The framework's identity.

    @property
    def framework(self) -> Json:
        """The given FrameworkInfo, and the framework id once this is known. pymesos would add capabilities."""
        return dict(self._framework)

    def gen_request(self) -> bytes:
        """The body of SUBSCRIBE."""
        info = self.framework
        call: Json = {"type": "SUBSCRIBE", "subscribe": {"framework_info": info}}
        if "id" in info:
            call["framework_id"] = info["id"]
        return dumps(call)

    def renew(self) -> None:
        """Drop the framework id and subscribe as a new framework."""
        with self._lock:
            self._framework.pop("id", None)
            self._barred = False
            self._backoff_policy.reset()
            attempt = self._attempt
        if attempt is not None:
            attempt.end("the framework id was dropped")
        self._wake.set()

    def bar(self) -> None:
        """Do not subscribe again until `renew` or `unbar`."""
        self._barred = True

    def unbar(self) -> None:
        """Allow subscribing again, with the same framework id."""
        self._barred = False
        self._wake.set()

    # Events.

    def _take(self, session: Session, record: bytes) -> None:
        """Handle one record of the stream. An error in the record or in its receiver affects this event alone.

        Only if the session cannot begin without the record, the session ends.
        """
        if session.subscribed and self._started and self._guarded("an event", self._fast_path, record):
            return
        try:
            event = loads(record)
        except ValueError as error:
            # An agent resends an update until it is acknowledged. Such a record must not end each session.
            _log.error("event ignored, because it is not JSON: %s", error)
            if not session.subscribed:
                session.end(f"its first event is not JSON: {error}")
            return
        kind = event.get("type") if isinstance(event, dict) else None
        if kind not in _EVENTS:
            _log.error("event of unknown type %.100r ignored", kind)
        elif not session.subscribed and kind not in _EARLY_EVENTS:
            _log.error("event %s before SUBSCRIBED ignored", kind)
        else:
            self._guarded(str(kind), super().process_event, event)
            if kind == "SUBSCRIBED" and not session.subscribed:
                session.end("its SUBSCRIBED event was not understood")

    def _guarded(self, label: str, handle: Any, *arguments: Any) -> Any:
        """The result of `handle`; True if it raised an exception, which is logged."""
        try:
            return handle(*arguments)
        except Exception:
            _log.exception("error while handling %s from Mesos; continuing", label)
            return True

    def on_subscribed(self, info: Json) -> None:
        framework_id = info["framework_id"]["value"]
        if not isinstance(framework_id, str) or not framework_id:
            raise ValueError(f"{framework_id!r} is not a framework id")
        with self._lock:
            session = self._attempt
            known = self.framework_id is not None
        if session is None or (known and not self._identity_checked and not self._check_identity(session)):
            return
        self._identity_checked = True
        with self._lock:
            if session.ended:
                return
            self.framework_id = framework_id
            self.stream_id = session.stream_id
            session.silence_limit_s = _heartbeat_s(info) * self._missed_heartbeats
            session.subscribed = True
        master = {"hostname": session.address.host, "port": session.address.port}
        if known:
            self.sched.reregistered(self, master)
        else:
            self.sched.registered(self, {"value": framework_id}, master)

    def _check_identity(self, session: Session) -> bool:
        """Compare this framework with Mesos' record of it. Returns whether the session may continue.

        If Mesos keeps another value, or cannot compare at present, this method ends the session. If Mesos refuses the
        comparison for another reason, the session continues.

        Mesos silently ignores a change of the user or of checkpointing in SUBSCRIBE. Only UPDATE_FRAMEWORK reports such
        a change.
        """
        info = self.framework
        update = {"type": "UPDATE_FRAMEWORK", "framework_id": info["id"], "update_framework": {"framework_info": info}}
        try:
            status, body = session.ask(dumps(update))
        except (OSError, http.client.HTTPException) as error:
            session.end(f"UPDATE_FRAMEWORK was not answered: {str(error) or repr(error)}")
            return False
        refused = _UNCHANGEABLE.search(body)
        if status == http.client.BAD_REQUEST and refused is not None:
            self._refuse(session, refused[1], refused[2])
            return False
        if status in _TRY_AGAIN:
            session.end(f"UPDATE_FRAMEWORK was answered with HTTP {status}: {body}")
            return False
        if status >= http.client.MULTIPLE_CHOICES:
            _log.warning("Mesos did not compare this framework with its record: HTTP %d: %s", status, body)
        return True

    def _refuse(self, session: Session, field: str, kept: str) -> None:
        """End the session: Mesos keeps another value of a field of this framework."""
        self.bar()
        session.end(f"Mesos keeps another value of FrameworkInfo.{field}")
        self.sched.identityRefused(self, field, kept)

    def on_failure(self, failure: Json) -> None:
        if "executor_id" in failure:
            self.sched.executorLost(self, failure["executor_id"], failure["agent_id"], failure.get("status", 0))
        else:
            self.sched.slaveLost(self, failure["agent_id"])

    def on_error(self, event: Json) -> None:
        message = str(event.get("message", ""))
        _log.error("error from Mesos: %s", message)
        lowered = message.lower()
        removed = any(words in lowered for words in _REMOVED)
        if removed:
            self.bar()
        self._replaced = _REPLACED in lowered
        attempt = self._attempt
        if attempt is not None and _OTHER_PRINCIPAL in lowered:
            self._refuse(attempt, "principal", "")
        elif attempt is not None:
            attempt.end(f"error from Mesos: {message}")
        if removed:
            self.sched.error(self, message)

    def on_close(self) -> None:
        """Called once for each subscription that succeeded, not for each attempt."""
        self.sched.disconnected(self)

    @property
    def last_end(self) -> str:
        """The reason why the last subscription ended."""
        return self._last_end

    _last_end = ""

    # Calls.

    @property
    def session(self) -> Session | None:
        """The present subscription; None if there is none. Calls that are queued now belong to this subscription."""
        session = self._attempt
        return session if session is not None and session.subscribed and not session.ended else None

    def call_in(self, session: Session | None) -> None:
        """Calls from now on belong to `session`. They fail if it is None or has ended."""
        self._calling = session

    @property
    def connected(self) -> bool:
        """True, or raises NotConnected. It is never False, because pymesos' calls would then silently do nothing."""
        self._session_of_call()
        return True

    def _session_of_call(self) -> Session:
        if self._calling is None:
            raise NotConnected("no subscription")
        return self._calling

    def _send(self, body: Json, path: str = "", method: str = "POST", headers: object = None) -> Json:
        """The last step of every call: add it to the session's next exchange. Raises CallFailed or NotConnected."""
        self._session_of_call().add(dumps(body))
        return {}

    def _close(self) -> None:
        """Does nothing: the connection for calls belongs to the session."""

    def acknowledge(self, task_id: str, agent_id: str, uuid: str) -> None:
        """As pymesos' `acknowledgeStatusUpdate`, but without the update's dict. This is the most frequent call."""
        which = {"agent_id": {"value": agent_id}, "task_id": {"value": task_id}, "uuid": uuid}
        self._send({"type": "ACKNOWLEDGE", "framework_id": {"value": self.framework_id}, "acknowledge": which})

    def killTask(self, task_id: Json, agent_id: Json | None = None) -> None:
        """Sends the agent id too. With this id, the master finds the task even before the agent has re-registered."""
        kill = {"task_id": task_id} if agent_id is None else {"task_id": task_id, "agent_id": agent_id}
        self._call("KILL", kill)

    def reconcileTasks(self, tasks: list[Json]) -> None:
        """Sends agent ids too. Without these ids, the master does not answer until all agents have re-registered."""
        self._call("RECONCILE", {"tasks": tasks})

    def shutdownExecutor(self, executor_id: Json, agent_id: Json) -> None:
        """A call that pymesos lacks."""
        self._call("SHUTDOWN", {"executor_id": executor_id, "agent_id": agent_id})

    def teardown(self) -> None:
        """Remove the framework, which kills all its tasks. Only this method sends TEARDOWN.

        New subscriptions are barred. If the call fails, call `unbar`.
        """
        self.bar()
        self._call("TEARDOWN", None)

    def _call(self, kind: str, message: Json | None) -> None:
        if self.connected:
            body: Json = {"type": kind, "framework_id": {"value": self.framework_id}}
            if message is not None:
                body[kind.lower()] = message
            self._send(body)
