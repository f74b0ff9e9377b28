"""pymesos' scheduler driver with what is unsafe in it replaced. docs/mesos.md lists every override and its reason.

Kept: its calls (acceptOffers, declineOffer, killTask, …), which build the messages, and its dispatch of events to
the methods of a `pymesos.Scheduler`. Replaced: everything that touches the network, and every way to lose tasks.
"""

# ruff: noqa: N802 - the method names are those of pymesos
from __future__ import annotations

import http.client
import logging
import random
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
    """Importing pymesos takes over SIGINT (which works on the main thread only) and logs to stderr. Not here."""
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
# Those that may come before SUBSCRIBED.
_EARLY_EVENTS = frozenset({"SUBSCRIBED", "ERROR", "HEARTBEAT"})
# What an ERROR event says of a framework id that Mesos will never take again (master.cpp, subscribing a completed one).
_REMOVED = ("framework has been removed", "completed framework")
# … and to a scheduler that another one with the same id has replaced. Coming back at once would oust that one in turn.
_REPLACED = "framework failed over"
_HEARTBEAT_S = 15.0
_LONGEST_HEARTBEAT_S = 3600.0
# A session that held so long was a good one: after it, the first attempt comes at once again.
_GOOD_SESSION_S = 30.0


def _heartbeat_s(info: Json) -> float:
    """The interval between heartbeats that a SUBSCRIBED event announces, within reason."""
    announced = float(info.get("heartbeat_interval_seconds", _HEARTBEAT_S))
    return min(announced, _LONGEST_HEARTBEAT_S) if announced > 0 else _HEARTBEAT_S


class End(Enum):
    """How an attempt at a subscription ended, as far as it matters for the next one."""

    LOST = auto()
    REDIRECTED = auto()
    REFUSED = auto()  # not until somebody has changed something: wrong credentials, replaced by another scheduler


class Backoff:
    """How long to wait before the next attempt: doubling from `first_s` to `most_s`, jittered over its upper half."""

    def __init__(self, first_s: float, most_s: float, refused_s: float) -> None:
        self._first_s, self._most_s, self._refused_s = first_s, most_s, refused_s
        self._failures = 0

    def reset(self) -> None:
        self._failures = 0

    def next(self, end: End) -> float:
        """Seconds."""
        doubled = self._first_s * 2 ** min(self._failures, 30)
        self._failures += 1
        if end is End.REDIRECTED and self._failures == 1:
            return 0.0
        most = self._refused_s if end is End.REFUSED else min(self._most_s, doubled)
        return most * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


class HardenedDriver(MesosSchedulerDriver):  # type: ignore[misc]  # pymesos has no types
    """Stays subscribed until stopped, whatever happens, and never tears the framework down unless told to.

    `sched` is a `pymesos.Scheduler`, called from the driver's thread; its exceptions are logged and change nothing.
    `usual` is shown each record of a subscription first: it may take one itself and return True.
    Calls, and `call_in`, are for one thread; they raise CallFailed or NotConnected.
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
        usual: Callable[[bytes], bool] = lambda record: False,
    ) -> None:
        super().__init__(sched, dict(framework), "", implicit_acknowledgements=False, failover=True)
        self._usual = usual
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

    # Life: start, stop and the loop between them.

    def start(self) -> None:
        """Subscribe from a thread of the driver's own."""
        with self._lock:
            if self._started:
                return
            self._started = True
            self._io_thread = threading.Thread(target=self._run, name="mesos-events", daemon=True)
        self._io_thread.start()

    def stop(self, failover: bool = True) -> None:
        """Disconnect. The framework and its tasks stay, whatever `failover` says: see `teardown`."""
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
        """pymesos' tears the framework down here."""

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
        """Wait, unless something has changed or does meanwhile."""
        self._wake.wait(seconds)
        self._wake.clear()

    def _next_session(self) -> Session | None:
        """The next attempt, if there may be one and a master is known.

        Chosen and noted in one step: whoever changes the master or the framework id finds either the old choice, to
        end it, or none.
        """
        with self._lock:
            address = None if self._barred or not self._started else self._next_master()
            self._master = str(address) if address else None
            self._attempt = Session(address, self._dialer) if address else None
            return self._attempt

    def _next_master(self) -> Address | None:
        """Where to try next: where we were sent, else the one detected, else the configured ones in turn."""
        address, self._redirect = self._redirect, None
        if address is None and self._masters:
            address = self._masters[self._turn % len(self._masters)]
            self._turn += 1
        elif address is None and self._new_master:
            address = Address.parse(self._new_master)
        return address

    def _follow(self, session: Session) -> End:
        """One attempt at a subscription, and its events as long as it lasts. Whatever goes wrong ends here."""
        end = End.LOST
        try:
            end = self._subscribe(session)
        except (OSError, http.client.HTTPException, NotConnected, FramingError, ValueError) as error:
            session.end(str(error) or repr(error))
        except Exception as error:
            _log.exception("the connection to Mesos master %s failed in an unforeseen way", session.address)
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
            session.end(f"it does not lead and points to {self._redirect}")
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

    # Where the master is.

    def change_master(self, new_master: str | None) -> None:
        """Go to another master as soon as may be; None: to none until there is one."""
        with self._lock:
            changed = new_master != self.master
            self._new_master = new_master
            attempt = self._attempt
            self._backoff_policy.reset()
        if changed and attempt is not None:
            attempt.end(f"the leading master is now {new_master or 'not known'}")
        self._wake.set()

    def _get_version(self, master: str) -> None:
        """Nothing here depends on the master's version, which pymesos cannot read if it ends in -rc1."""

    # Who we are.

    @property
    def framework(self) -> Json:
        """FrameworkInfo as it was given, with the id once there is one; pymesos adds capabilities on its own."""
        return dict(self._framework)

    def gen_request(self) -> bytes:
        """The SUBSCRIBE call's body."""
        info = self.framework
        call: Json = {"type": "SUBSCRIBE", "subscribe": {"framework_info": info}}
        if "id" in info:
            call["framework_id"] = info["id"]
        return dumps(call)

    def renew(self) -> None:
        """The framework id is void: forget it, and subscribe as a new framework."""
        with self._lock:
            self._framework.pop("id", None)
            self._barred = False
            self._backoff_policy.reset()
            attempt = self._attempt
        if attempt is not None:
            attempt.end("the framework id was dropped")
        self._wake.set()

    def bar(self) -> None:
        """Do not subscribe any more, until `renew` or `unbar`."""
        self._barred = True

    def unbar(self) -> None:
        """Subscribe again, as who we are."""
        self._barred = False
        self._wake.set()

    # Events.

    def _take(self, session: Session, record: bytes) -> None:
        """One record of the stream. What is wrong with it, or with its receiver, costs this one event only."""
        if session.subscribed and self._started and self._guarded("an event", self._usual, record):
            return
        try:
            event = loads(record)
        except ValueError as error:
            session.end(f"an event is no JSON: {error}")
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

    def _guarded(self, what: str, handle: Any, *arguments: Any) -> Any:
        """What `handle` returns; True where it failed, which has been said then."""
        try:
            return handle(*arguments)
        except Exception:
            _log.exception("error while handling %s from Mesos; going on", what)
            return True

    def on_subscribed(self, info: Json) -> None:
        framework_id = info["framework_id"]["value"]
        if not isinstance(framework_id, str) or not framework_id:
            raise ValueError(f"{framework_id!r} is no framework id")
        with self._lock:
            session = self._attempt
            if session is None or session.ended:
                return
            known = self.framework_id is not None
            self.framework_id = framework_id
            self.stream_id = session.stream_id
            session.patience_s = _heartbeat_s(info) * self._missed_heartbeats
            session.subscribed = True
        master = {"hostname": session.address.host, "port": session.address.port}
        if known:
            self.sched.reregistered(self, master)
        else:
            self.sched.registered(self, {"value": framework_id}, master)

    def on_failure(self, failure: Json) -> None:
        if "executor_id" in failure:
            self.sched.executorLost(self, failure["executor_id"], failure["agent_id"], failure.get("status", 0))
        else:
            self.sched.slaveLost(self, failure["agent_id"])

    def on_error(self, event: Json) -> None:
        message = str(event.get("message", ""))
        _log.error("Mesos says: %s", message)
        lowered = message.lower()
        removed = any(words in lowered for words in _REMOVED)
        if removed:
            self.bar()
        self._replaced = _REPLACED in lowered
        attempt = self._attempt
        if attempt is not None:
            attempt.end(f"Mesos says: {message}")
        if removed:
            self.sched.error(self, message)

    def on_close(self) -> None:
        """Once for each subscription that had succeeded, not for each attempt."""
        self.sched.disconnected(self)

    @property
    def last_end(self) -> str:
        """Why the last subscription ended."""
        return self._last_end

    _last_end = ""

    # Calls.

    @property
    def session(self) -> Session | None:
        """The subscription that calls belong to which are decided on now."""
        session = self._attempt
        return session if session is not None and session.subscribed and not session.ended else None

    def call_in(self, session: Session | None) -> None:
        """Calls made from now on belong to `session`, and fail where there is none or it has ended."""
        self._calling = session

    @property
    def connected(self) -> bool:
        """True, or raises NotConnected: where this is False, pymesos' calls do nothing and do not say so."""
        self._session_of_call()
        return True

    def _session_of_call(self) -> Session:
        if self._calling is None:
            raise NotConnected("no subscription")
        return self._calling

    def _send(self, body: Json, path: str = "", method: str = "POST", headers: object = None) -> Json:
        """The end of every call of pymesos: it goes out with the session's next exchange.

        Raises CallFailed or NotConnected.
        """
        self._session_of_call().add(dumps(body))
        return {}

    def _close(self) -> None:
        """pymesos' connection for calls; ours belongs to the session."""

    def acknowledge(self, task_id: str, agent_id: str, uuid: str) -> None:
        """pymesos' `acknowledgeStatusUpdate`, which takes a whole status: there is one for each update."""
        which = {"agent_id": {"value": agent_id}, "task_id": {"value": task_id}, "uuid": uuid}
        self._send({"type": "ACKNOWLEDGE", "framework_id": {"value": self.framework_id}, "acknowledge": which})

    def killTask(self, task_id: Json, agent_id: Json | None = None) -> None:
        """With the agent's id, the master finds the task even before that agent has re-registered."""
        kill = {"task_id": task_id} if agent_id is None else {"task_id": task_id, "agent_id": agent_id}
        self._call("KILL", kill)

    def reconcileTasks(self, tasks: list[Json]) -> None:
        """With agent ids: without, the master keeps silent while any agent has yet to re-register."""
        self._call("RECONCILE", {"tasks": tasks})

    def shutdownExecutor(self, executor_id: Json, agent_id: Json) -> None:
        """A call pymesos lacks."""
        self._call("SHUTDOWN", {"executor_id": executor_id, "agent_id": agent_id})

    def teardown(self) -> None:
        """Remove the framework: every task of it is killed. The only way here that leads to TEARDOWN.

        Nobody subscribes from here on, unless `unbar` says that it failed.
        """
        self.bar()
        self._call("TEARDOWN", None)

    def _call(self, kind: str, message: Json | None) -> None:
        if self.connected:
            body: Json = {"type": kind, "framework_id": {"value": self.framework_id}}
            if message is not None:
                body[kind.lower()] = message
            self._send(body)
