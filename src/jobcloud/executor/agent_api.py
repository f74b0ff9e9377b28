"""The executor's side of Mesos' v1 executor HTTP API.

Each call of the executor is a POST. The agent answers SUBSCRIBE with an endless RecordIO stream of events, and every
other call with the status 202. Two threads make the calls and hand all results to the daemon's loop.

Source: Mesos documentation, "Executor HTTP API".
"""

from __future__ import annotations

import http.client
import json
import queue
import random
import socket
import threading
import time
from collections import OrderedDict, deque
from typing import Any, Callable, Deque, Dict, Mapping, Optional, Tuple

from jobcloud.executor.settings import Settings
from jobcloud.wire import RecordReader

Call = Mapping[str, Any]

_PATH = "/api/v1/executor"
_ANSWER_TIMEOUT_S = 15.0
_FIRST_BACKOFF_S = 0.1
# The scheduler launches single tasks and no task groups, so an event contains at most one task.
_MAX_EVENT_BYTES = 16 << 20


class AgentError(Exception):
    """The agent refused SUBSCRIBE, or sent an event that does not belong to the executor API."""


class Listener:
    """The methods that an AgentLink calls, always in the loop. `connection`: the number of the attempt to subscribe."""

    def subscribe_call(self, connection: int) -> Call:
        raise NotImplementedError

    def on_event(self, connection: int, event: Dict[str, Any]) -> None:
        raise NotImplementedError

    def on_disconnected(self, connection: int, reason: str) -> None:
        raise NotImplementedError

    def on_sent(self, uuid: str, refusal: str) -> None:
        """An UPDATE was sent, or the attempt to send it has failed.

        `refusal` is the reason why the agent has not accepted the UPDATE, or "" if the agent has accepted it.
        """
        raise NotImplementedError


class Outbox:
    """Updates that wait to be sent, one at a time. Jobs take turns. The updates of one job stay in order.

    So a job with a thousand failed shards does not delay the updates of other jobs.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: "OrderedDict[str, Deque[Tuple[str, Call]]]" = OrderedDict()

    def put(self, job: str, uuid: str, call: Call) -> None:
        with self._changed:
            self._waiting.setdefault(job, deque()).append((uuid, call))
            self._changed.notify()

    def get(self) -> Tuple[str, Call]:
        """Remove and return the next update. If there is none, wait for one."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting)
            job, updates = self._waiting.popitem(last=False)
            first = updates.popleft()
            if updates:
                self._waiting[job] = updates
            return first


class AgentLink:
    """Subscribes to the agent, and sends updates from its Outbox.

    When a subscription ends, the link subscribes again after a random back-off.
    """

    def __init__(self, settings: Settings, listener: Listener, post: Callable[..., None]) -> None:
        self._settings, self._listener, self._post = settings, listener, post
        self._outbox = Outbox()

    def start(self) -> None:
        for target, name in ((self._subscribe_for_ever, "agent-events"), (self._send_for_ever, "agent-calls")):
            threading.Thread(target=target, name=name, daemon=True).start()

    def send(self, job: str, uuid: str, call: Call) -> None:
        self._outbox.put(job, uuid, call)

    def _subscribe_for_ever(self) -> None:
        connection, failures = 0, 0
        while True:
            connection += 1
            began = time.monotonic()
            try:
                self._subscribe(connection)
                reason = "the agent closed the stream"
            except Exception as error:
                # This thread must survive every error: without it, the executor gets no events.
                reason = f"{type(error).__name__}: {error}"
            self._post(self._listener.on_disconnected, connection, reason)
            # If the stream lasted longer than the longest back-off, the agent is healthy. Otherwise the back-off grows.
            failures = 0 if time.monotonic() - began > self._settings.backoff_max_s else failures + 1
            ceiling = min(self._settings.backoff_max_s, _FIRST_BACKOFF_S * 2 ** min(failures, 16))
            time.sleep(random.uniform(ceiling / 4, ceiling))  # noqa: S311 - jitter

    def _subscribe(self, connection: int) -> None:
        server = self._connect()
        try:
            answer = self._request(server, self._ask_for_call(connection))
            if answer.status != 200:
                raise AgentError(f"SUBSCRIBE was answered {answer.status}: {_text(answer)}")
            if server.sock is not None:
                server.sock.settimeout(None)
            self._read_events(connection, answer)
        finally:
            server.close()

    def _ask_for_call(self, connection: int) -> Call:
        reply: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._post(lambda: reply.put(self._listener.subscribe_call(connection)))
        return reply.get()

    def _read_events(self, connection: int, answer: http.client.HTTPResponse) -> None:
        records = RecordReader(_MAX_EVENT_BYTES)
        while True:
            data = answer.read1(1 << 16)
            if not data:
                return
            for record in records.feed(data):
                self._post(self._listener.on_event, connection, _event(record))

    def _send_for_ever(self) -> None:
        server: Optional[http.client.HTTPConnection] = None
        while True:
            uuid, call = self._outbox.get()
            try:
                server = server or self._connect()
                answer = self._request(server, call)
                said = _text(answer)
                refusal = "" if answer.status in (200, 202) else f"{answer.status}: {said}"
                if answer.will_close:
                    server.close()
                    server = None
            except Exception as error:
                refusal = f"{type(error).__name__}: {error}"
                if server is not None:
                    server.close()
                server = None
            self._post(self._listener.on_sent, uuid, refusal)

    def _connect(self) -> http.client.HTTPConnection:
        settings = self._settings
        if settings.domain_socket:
            return _UnixConnection(settings.domain_socket, _ANSWER_TIMEOUT_S)
        if settings.tls:
            import ssl

            # The certificate of the agent is checked against the certificate authorities of the system. SSL_CERT_FILE
            # can name another file of authorities.
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(settings.host, settings.port, timeout=_ANSWER_TIMEOUT_S, context=context)
        return http.client.HTTPConnection(settings.host, settings.port, timeout=_ANSWER_TIMEOUT_S)

    def _request(self, server: http.client.HTTPConnection, call: Call) -> http.client.HTTPResponse:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._settings.token:
            headers["Authorization"] = "Bearer " + self._settings.token
        server.request("POST", _PATH, json.dumps(call, separators=(",", ":")).encode(), headers)
        return server.getresponse()


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket. The agent names the file of the socket in MESOS_DOMAIN_SOCKET."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _event(record: bytes) -> Dict[str, Any]:
    try:
        event = json.loads(record.decode())
    except (ValueError, RecursionError) as error:
        raise AgentError(f"an event that is not JSON: {record[:80]!r}") from error
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise AgentError(f"an event without a type: {record[:80]!r}")
    return event


def _text(answer: http.client.HTTPResponse) -> str:
    return answer.read(1 << 16)[:500].decode("utf-8", "replace").strip()
