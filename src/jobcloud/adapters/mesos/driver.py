"""The Driver port for Mesos. It uses the driver class of pymesos, hardened by `hardened`.

Threads: one reads the event stream, and one makes the calls in order. With zk://, another detects the leading master.
Back-pressure: while the receiver of events blocks, the stream is not read, and events wait at the master. Calls wait in
the driver. If more than MAX_WAITING_CALLS wait, the oldest ones are returned as SendFailed,
and acknowledgements among them are dropped: Mesos repeats the updates.
"""

# ruff: noqa: N802 - _Receiver has the method names that pymesos calls
from __future__ import annotations

import base64
import getpass
import logging
import queue
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from jobcloud.adapters.mesos.hardened import Backoff, HardenedDriver
from jobcloud.adapters.mesos.link import Address, CallFailed, Dialer, Session, ask_date
from jobcloud.adapters.mesos.wire import (
    Access,
    Json,
    ids,
    launch_operation,
    read_common,
    read_inverse_offer,
    read_offer,
    read_status,
)
from jobcloud.errors import ConfigError, NotConnected
from jobcloud.messages import (
    Accept,
    AcceptInverseOffers,
    Acknowledge,
    AgentLost,
    Call,
    Decline,
    DeclineInverseOffers,
    Disconnected,
    Event,
    ExecutorLost,
    FrameworkRemoved,
    InverseOffersReceived,
    Kill,
    OfferRescinded,
    OffersReceived,
    Reconcile,
    Resubscribe,
    Revive,
    SendFailed,
    ShutdownExecutor,
    Status,
    StatusReceived,
    Subscribed,
    Suppress,
)
from jobcloud.ports import TlsFiles

if TYPE_CHECKING:
    from jobcloud.adapters.mesos.detector import MasterDetector

_log = logging.getLogger("jobcloud.mesos")

MAX_WAITING_CALLS = 100_000
# Maximum number of calls without an answer. This number keeps a master busy, and limits the number of calls whose
# outcome is unknown if the master fails.
_MAX_IN_FLIGHT = 256
_STOP_S = 5.0
_TEARDOWN_S = 20.0
_DATE_S = 2.0
_CA_PEM = "name a PEM file that the scheduler can read"
_PEM = f"{_CA_PEM}, and a key without a password"
_CAPABILITIES = ("MULTI_ROLE", "PARTITION_AWARE", "RESERVATION_REFINEMENT", "TASK_KILLING_STATE")


@dataclass(frozen=True, slots=True)
class MesosSettings:
    """How to reach Mesos, and the identity of this framework.

    `master` is HOST:PORT, several separated by commas, or zk://HOST:PORT,.../PATH. `zookeeper_auth` is "user:password"
    for zk://. `heard` gets the time of a master (ms) at each subscription. Slow networks and tests may need other
    values of `missed_heartbeats` and of the numbers that follow it.
    """

    master: str
    name: str = "jobcloud"
    user: str = ""
    roles: tuple[str, ...] = ("*",)
    hostname: str = ""
    webui_url: str = ""
    principal: str = ""
    secret: str = field(default="", repr=False)
    failover_timeout_s: float = 604_800.0
    checkpoint: bool = True
    gpus: bool = True
    tls: TlsFiles | None = None
    zookeeper_auth: str = field(default="", repr=False)
    missed_heartbeats: int = 5
    answer_timeout_s: float = 15.0
    backoff_first_s: float = 0.25
    backoff_max_s: float = 15.0
    refused_retry_s: float = 60.0
    heard: Callable[[int], object] = field(default=bool, repr=False, compare=False)
    access: Access | None = field(default=None, repr=False, compare=False)


@dataclass(slots=True)
class _Teardown:
    """A request to remove the framework, and its outcome."""

    done: threading.Event = field(default_factory=threading.Event)
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _Stop:
    pass


T = TypeVar("T")
_Request: TypeAlias = Call | Acknowledge | _Teardown | _Stop


def master_time(settings: MesosSettings) -> int | None:
    """The present time of a master (ms). None if no configured master answers within 2 s. None with zk://, too."""
    dialer = Dialer(_tls_context(settings.tls), _authorization(settings), _DATE_S)
    found = (ask_date(address, dialer) for address in _masters(settings.master))
    return next((time_ms for time_ms in found if time_ms is not None), None)


class MesosDriver:
    """A `jobcloud.ports.Driver`. Raises ConfigError with the key of the wrong setting.

    `on_refusal` gets a ConfigError if Mesos has registered the framework id with another user, principal or
    `checkpoint`, and keeps the old value. Then the driver does not subscribe again. `now_ms` dates the events.
    """

    def __init__(
        self,
        settings: MesosSettings,
        on_refusal: Callable[[ConfigError], None] | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._settings = settings
        self.now_ms = now_ms
        self._on_refusal = on_refusal or (lambda error: _log.error("%s", error))
        self._framework_info = _framework_info(settings)
        self._masters = _masters(settings.master)
        dialer = Dialer(_tls_context(settings.tls), _authorization(settings), settings.answer_timeout_s, settings.heard)
        backoff = Backoff(settings.backoff_first_s, settings.backoff_max_s, settings.refused_retry_s)
        receiver = _Receiver(self)
        self._driver = HardenedDriver(
            receiver,
            self._framework_info,
            self._masters,
            dialer,
            backoff,
            settings.missed_heartbeats,
            receiver.fast_path,
        )
        self._deliver: Callable[[Event], None] = _discard
        self._requests: queue.SimpleQueue[tuple[_Request, Session | None]] = queue.SimpleQueue()
        # Used only by the thread that makes calls: its session, and the requests without an answer, oldest first.
        self._session: Session | None = None
        self._in_flight: deque[_Request] = deque()
        self._caller = threading.Thread(target=self._run_calls, name="mesos-calls", daemon=True)
        self._stopping = False
        self._detector: MasterDetector | None = None

    def start(self, deliver: Callable[[Event], None], framework_id: str) -> None:
        self._deliver = deliver
        if framework_id:
            self._driver.framework_id = framework_id
        self._caller.start()
        self._driver.start()
        if not self._masters:
            self._detector = self._detect()

    def _detect(self) -> MasterDetector:
        # Imported here because only zk:// needs kazoo.
        from jobcloud.adapters.mesos.detector import MasterDetector, parse_zk_uri

        settings = self._settings
        by_name = settings.tls is not None
        node = parse_zk_uri(settings.master)
        detector = MasterDetector(node, settings.zookeeper_auth, self._master_found, by_name)
        detector.start()
        return detector

    def _master_found(self, master: Address | None) -> None:
        self._driver.change_master(str(master) if master else None)

    def send(self, call: Call | Acknowledge) -> None:
        self._queue(call)

    def _queue(self, request: _Request) -> None:
        self._requests.put((request, self._driver.session))

    def stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        deadline = time.monotonic() + _STOP_S
        if self._detector is not None:
            threading.Thread(target=self._detector.stop, name="mesos-detector-stop", daemon=True).start()
        if self._caller.is_alive() and self._caller is not threading.current_thread():
            self._queue(_Stop())
            self._caller.join(_STOP_S * 0.6)
        self._driver.stop()
        self._driver.join(max(0.0, deadline - time.monotonic()))

    def teardown(self) -> None:
        request = _Teardown()
        if not self._caller.is_alive():
            raise NotConnected("the driver is not running")
        self._queue(request)
        if not request.done.wait(_TEARDOWN_S):
            raise NotConnected(
                f"the master did not answer in {_TEARDOWN_S:g} s: the framework may or may not have been removed"
            )
        if request.problem:
            raise NotConnected(request.problem)

    # Events.

    def deliver(self, event: Event) -> None:
        """Pass an event to the receiver, unless the driver is stopping.

        Raises the exceptions of the receiver. Callers log them, and their threads continue.
        """
        if not self._stopping:
            self._deliver(event)

    def refuse_identity(self, field_name: str, kept: str, framework_id: str) -> None:
        """Report that the settings contradict the framework that Mesos knows."""
        ours = {"user": self._framework_info["user"], "checkpoint": str(self._settings.checkpoint).lower()}
        problem = f"is {ours.get(field_name, self._settings.principal)!r}"
        problem += f", but Mesos has registered framework {framework_id} with "
        problem += (repr(kept) if kept else "another one") + " and does not change it"
        fix = (
            "keep the old value. Or change it in three steps: start with the old value, run `jobcloud framework "
            "teardown` (this kills the framework's tasks), then start with the new value"
        )
        if not self._stopping:
            self._on_refusal(ConfigError(problem, field=f"mesos.{field_name}", fix=fix))

    # Calls: everything below runs on the thread that makes calls.

    def _run_calls(self) -> None:
        while True:
            try:
                if not self._run_some():
                    return
            except Exception:
                _log.exception("error while making calls; continuing")

    def _run_some(self) -> bool:
        """Send waiting requests, up to the limit of calls in flight, and read answers. False after `stop`."""
        for request, session in self._next_requests():
            if session is not self._session or isinstance(request, Resubscribe | _Stop):
                while self._in_flight:
                    self._exchange()
                self._session = session
                self._driver.call_in(session)
            if isinstance(request, _Stop):
                return False
            self._start_call(request)
        if self._in_flight:
            self._exchange()
        return True

    def _next_requests(self) -> Iterator[tuple[_Request, Session | None]]:
        """The waiting requests, until enough calls are in flight. If no call is in flight, waits for a request."""
        try:
            yield self._requests.get(block=not self._in_flight)
            while len(self._in_flight) < _MAX_IN_FLIGHT and not (self._session is not None and self._session.full):
                yield self._requests.get_nowait()
        except queue.Empty:
            return

    def _start_call(self, request: _Request) -> None:
        if isinstance(request, Resubscribe):
            self._driver.renew()
            return
        try:
            if self._requests.qsize() > MAX_WAITING_CALLS:
                raise CallFailed(f"more than {MAX_WAITING_CALLS} calls are waiting", certain=True)
            self._make_call(request)
        except CallFailed as error:
            self._complete(request, error)
        except NotConnected as error:
            self._complete(request, CallFailed(f"not connected: {error}", certain=True))
        except Exception as error:
            # Certain, because nothing has been sent: `_exchange` sends the bytes later.
            _log.exception("%s could not be encoded for Mesos", type(request).__name__)
            reason = f"could not be encoded: {str(error) or repr(error)}"
            self._complete(request, CallFailed(reason, certain=True))
        else:
            self._in_flight.append(request)

    def _exchange(self) -> None:
        """Send the encoded calls, and wait for at least one answer."""
        assert self._session is not None
        try:
            outcomes = self._session.exchange()
        except Exception as error:
            _log.exception("unexpected error during calls to Mesos")
            self._session.end(repr(error))
            outcomes = [CallFailed(repr(error), certain=False)] * len(self._in_flight)
        for outcome in outcomes:
            request = self._in_flight.popleft()
            if outcome is not None or isinstance(request, _Teardown):
                self._complete(request, outcome)

    def _complete(self, request: _Request, failure: CallFailed | None) -> None:
        """Handle the outcome of a request."""
        if isinstance(request, _Teardown):
            if failure is not None:
                request.problem = failure.reason
                self._driver.unbar()
            request.done.set()
        elif failure is None:
            return
        elif isinstance(request, Acknowledge | _Stop):
            _log.info("%s dropped: %s", type(request).__name__, failure.reason)
        else:
            try:
                self.deliver(SendFailed(self.now_ms(), request, failure.reason, failure.certain, failure.too_large))
            except Exception:
                _log.exception("error while handling a failed %s; continuing", type(request).__name__)

    def _make_call(self, request: _Request) -> None:
        driver = self._driver
        if isinstance(request, Acknowledge):  # the most frequent call
            driver.acknowledge(request.task_id, request.agent_id, request.uuid)
            return
        match request:
            case Accept(agent_id, offer_ids, launches):
                operation = launch_operation(launches, agent_id, driver.framework_id or "", self._settings.access)
                # The remaining resources should be offered again at once.
                driver.acceptOffers(ids(offer_ids), [operation], filters={"refuse_seconds": 0.0})
            case Decline(offer_ids, refuse_ms):
                driver.declineOffer(ids(offer_ids), filters={"refuse_seconds": refuse_ms / 1000})
            case Kill(task_id, agent_id):
                driver.killTask({"value": task_id}, {"value": agent_id} if agent_id else None)
            case ShutdownExecutor(executor_id, agent_id):
                driver.shutdownExecutor({"value": executor_id}, {"value": agent_id})
            case Reconcile(tasks):
                driver.reconcileTasks([_task(task_id, agent_id) for task_id, agent_id in tasks])
            case Revive(roles):
                driver.reviveOffers(roles)
            case Suppress(roles):
                driver.suppressOffers(roles)
            case AcceptInverseOffers(inverse_offer_ids, refuse_ms):
                driver.acceptInverseOffers(ids(inverse_offer_ids), {"refuse_seconds": refuse_ms / 1000})
            case DeclineInverseOffers(inverse_offer_ids, refuse_ms):
                driver.declineInverseOffer(ids(inverse_offer_ids), {"refuse_seconds": refuse_ms / 1000})
            case _Teardown():
                driver.teardown()

    @property
    def roles(self) -> tuple[str, ...]:
        return self._settings.roles


class _Receiver:
    """The callbacks of pymesos' driver, named as in `pymesos.Scheduler`. Most methods deliver one of our events."""

    def __init__(self, owner: MesosDriver) -> None:
        self._owner = owner

    def fast_path(self, record: bytes) -> bool:
        """Read updates and offers in their common form without dicts. False for all other records."""
        event = read_common(record, self._owner.roles)
        if event is None:
            return False
        at = self._owner.now_ms()
        self._owner.deliver(StatusReceived(at, event) if isinstance(event, Status) else OffersReceived(at, event))
        return True

    def registered(self, driver: HardenedDriver, framework_id: Json, master: Json) -> None:
        address = Address(master["hostname"], master["port"])
        _log.info("subscribed at Mesos master %s as framework %s", address, framework_id["value"])
        self._owner.deliver(Subscribed(self._owner.now_ms(), framework_id["value"], str(address)))

    def reregistered(self, driver: HardenedDriver, master: Json) -> None:
        self.registered(driver, {"value": driver.framework_id}, master)

    def disconnected(self, driver: HardenedDriver) -> None:
        self._owner.deliver(Disconnected(self._owner.now_ms(), driver.last_end))

    def error(self, driver: HardenedDriver, message: str) -> None:
        self._owner.deliver(FrameworkRemoved(self._owner.now_ms(), message))

    def identityRefused(self, driver: HardenedDriver, field_name: str, kept: str) -> None:
        self._owner.refuse_identity(field_name, kept, driver.framework_id or "")

    def resourceOffers(self, driver: HardenedDriver, offers: list[Json]) -> None:
        read = (_read(lambda one: read_offer(one, self._owner.roles), offer) for offer in offers)
        self._owner.deliver(OffersReceived(self._owner.now_ms(), tuple(offer for offer in read if offer is not None)))

    def offerRescinded(self, driver: HardenedDriver, offer_id: Json) -> None:
        self._owner.deliver(OfferRescinded(self._owner.now_ms(), offer_id["value"]))

    def inverseOffers(self, driver: HardenedDriver, offers: list[Json]) -> None:
        read = (_read(read_inverse_offer, offer) for offer in offers)
        self._owner.deliver(
            InverseOffersReceived(self._owner.now_ms(), tuple(offer for offer in read if offer is not None))
        )

    def inverseOfferRescinded(self, driver: HardenedDriver, offer_id: Json) -> None:
        """Ignored: an answer to a rescinded inverse offer has no effect."""

    def statusUpdate(self, driver: HardenedDriver, status: Json) -> None:
        self._owner.deliver(StatusReceived(self._owner.now_ms(), read_status(status)))

    def operationStatusUpdate(self, driver: HardenedDriver, status: Json) -> None:
        """Ignored: we request no operations with status updates."""

    def frameworkMessage(self, driver: HardenedDriver, executor_id: Json, agent_id: Json, data: str) -> None:
        """Ignored: our executor sends status updates only, because these are reliable."""

    def slaveLost(self, driver: HardenedDriver, agent_id: Json) -> None:
        self._owner.deliver(AgentLost(self._owner.now_ms(), agent_id["value"]))

    def executorLost(self, driver: HardenedDriver, executor_id: Json, agent_id: Json, status: int) -> None:
        self._owner.deliver(ExecutorLost(self._owner.now_ms(), agent_id["value"], executor_id["value"]))

    def processHeartBeat(self, driver: HardenedDriver) -> None:
        """Ignored: the session itself watches heartbeats."""


def _read(read: Callable[[Json], T], offer: Json) -> T | None:
    """Parse one of several offers. None if it is malformed, so that the other offers are still used."""
    try:
        return read(offer)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        _log.error("malformed offer ignored: %r in %.500r", error, offer)
        return None


def _discard(event: Event) -> None:
    """The receiver of events before `start`."""


def _task(task_id: str, agent_id: str) -> Json:
    task: Json = {"task_id": {"value": task_id}}
    if agent_id:
        task["agent_id"] = {"value": agent_id}
    return task


def _masters(text: str) -> tuple[Address, ...]:
    """The masters to try in turn; empty for zk://. Raises ConfigError."""
    if text.startswith("zk://"):
        from jobcloud.adapters.mesos.detector import parse_zk_uri

        parse_zk_uri(text)
        return ()
    try:
        if "/" in text:
            raise ValueError(f"{text[:200]!r} is neither HOST:PORT nor zk://…")
        return tuple(Address.parse(one.strip()) for one in text.split(","))
    except ValueError as error:
        raise ConfigError(
            str(error), field="mesos.master", fix="use HOST:PORT, a comma list, or zk://HOST:PORT,.../PATH"
        ) from error


def _framework_info(settings: MesosSettings) -> Json:
    if not settings.roles or not all(settings.roles):
        raise ConfigError("needs at least one role", field="mesos.roles", fix='the default is "*"')
    capabilities = [*_CAPABILITIES, *(["GPU_RESOURCES"] if settings.gpus else [])]
    info: dict[str, Any] = {
        "user": settings.user or _own_user(),
        "name": settings.name,
        "roles": list(settings.roles),
        "failover_timeout": float(settings.failover_timeout_s),
        "checkpoint": settings.checkpoint,
        "capabilities": [{"type": capability} for capability in capabilities],
    }
    optional = {"hostname": settings.hostname, "webui_url": settings.webui_url, "principal": settings.principal}
    return info | {name: value for name, value in optional.items() if value}


def _own_user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError) as error:
        raise ConfigError(
            "is required, because this process has no user name", field="mesos.user", fix="set it"
        ) from error


def _authorization(settings: MesosSettings) -> str:
    if settings.secret and not settings.principal:
        raise ConfigError("is required with a secret", field="mesos.principal", fix="set it")
    if not settings.secret:
        return ""
    if ":" in settings.principal:
        problem = "must not contain a colon: HTTP Basic authentication ends it there"
        raise ConfigError(problem, field="mesos.principal", fix="use another principal")
    return "Basic " + base64.b64encode(f"{settings.principal}:{settings.secret}".encode()).decode()


def _tls_context(tls: TlsFiles | None) -> ssl.SSLContext | None:
    """Certificates and host names are always verified. Raises ConfigError."""
    if tls is None:
        return None
    try:
        context = ssl.create_default_context(cafile=tls.ca_file or None)
    except OSError as error:
        raise ConfigError(f"{tls.ca_file!r} cannot be used: {error}", field="mesos.tls.ca_file", fix=_CA_PEM) from error
    if tls.cert_file:
        try:
            # Without a password, OpenSSL would ask for it on the terminal.
            context.load_cert_chain(tls.cert_file, tls.key_file or None, password="")
        except OSError as error:
            raise ConfigError(
                f"{tls.cert_file!r} cannot be used: {error}", field="mesos.tls.cert_file", fix=_PEM
            ) from error
    return context
