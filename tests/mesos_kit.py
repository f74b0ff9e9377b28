"""A scripted Mesos master for tests of the driver, and a receiver that waits for events.

The master serves HTTP on loopback. Each test defines its behaviour, including wrong behaviour.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from jobcloud.adapters.mesos.driver import MesosDriver, MesosSettings
from jobcloud.errors import ConfigError
from jobcloud.messages import Event

T = TypeVar("T")
Json = dict[str, Any]
# Only failing tests wait this long. A loaded machine may need much of it.
DEADLINE_S = 60.0
FRAMEWORK = "framework-1"
AGENT = "agent-1"


def until(test: Callable[[], T], what: str = "") -> T:
    """The result of `test` as soon as it is true."""
    deadline = time.monotonic() + DEADLINE_S
    while not (found := test()):
        assert time.monotonic() < deadline, f"not true in time: {what}"
        time.sleep(0.005)
    return found


def frame(event: object) -> bytes:
    body = json.dumps(event).encode()
    return b"%d\n%s" % (len(body), body)


def subscribed(framework_id: str = FRAMEWORK, heartbeat_s: float | None = 15.0) -> Json:
    info: Json = {"framework_id": {"value": framework_id}, "master_info": {"id": "m", "version": "1.12.0-rc1"}}
    if heartbeat_s is not None:
        info["heartbeat_interval_seconds"] = heartbeat_s
    return {"type": "SUBSCRIBED", "subscribed": info}


def offer(number: int = 1, agent: str = AGENT, **more: Any) -> Json:
    return {
        "id": {"value": f"offer-{number}"},
        "framework_id": {"value": FRAMEWORK},
        "agent_id": {"value": agent},
        "hostname": f"{agent}.example",
        "url": {"address": {"hostname": f"{agent}.example", "port": 5051}},
        "resources": [scalar("cpus", 4.0), scalar("mem", 1024.0)],
        **more,
    }


def scalar(name: str, value: float, **more: Any) -> Json:
    return {"name": name, "type": "SCALAR", "scalar": {"value": value}, "allocation_info": {"role": "*"}, **more}


def offers(*some: Json) -> Json:
    return {"type": "OFFERS", "offers": {"offers": list(some)}}


def update(task: str = "task-1", state: str = "TASK_RUNNING", **more: Any) -> Json:
    status = {"task_id": {"value": task}, "agent_id": {"value": AGENT}, "state": state, "uuid": "dXVpZA==", **more}
    return {"type": "UPDATE", "update": {"status": status}}


class Stream:
    """One request of the driver, seen from the master."""

    def __init__(self, connection: socket.socket, call: Json, headers: dict[str, str], number: int) -> None:
        self.connection, self.call, self.headers, self.number = connection, call, headers, number
        self.id = f"stream-{number}"
        self.begun = threading.Event()  # the behaviour defined by the test has run

    def answer(self, status: str, body: bytes = b"", *headers: str) -> None:
        """A complete answer, after which the connection may serve another request."""
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
        self.raw("\r\n".join(lines).encode() + body)

    def begin(self) -> Stream:
        """The answer to a SUBSCRIBE, up to the first event."""
        self.raw(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n"
            b"Mesos-Stream-Id: " + self.id.encode() + b"\r\n\r\n"
        )
        return self

    def send(self, *events: object) -> Stream:
        self.chunk(b"".join(frame(event) for event in events))
        return self

    def chunk(self, data: bytes) -> None:
        self.raw(b"%x\r\n%s\r\n" % (len(data), data))

    def raw(self, data: bytes) -> None:
        self.connection.sendall(data)

    def close(self) -> None:
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()


def accept_all(stream: Stream) -> None:
    stream.begin().send(subscribed())


def subscribe_with(*events: object) -> Callable[[Stream], None]:
    """A behaviour: every stream begins with these events."""

    def begin(stream: Stream) -> None:
        stream.begin().send(*events)

    return begin


class FakeMaster:
    """`on_subscribe`, `on_update` (for UPDATE_FRAMEWORK) and `on_call` define its behaviour.

    The defaults are a healthy master.
    """

    def __init__(
        self,
        on_subscribe: Callable[[Stream], None] = accept_all,
        on_call: Callable[[Stream], None] = lambda stream: stream.answer("202 Accepted"),
        family: socket.AddressFamily = socket.AF_INET,
        tls: ssl.SSLContext | None = None,
        on_update: Callable[[Stream], None] = lambda stream: stream.answer("200 OK"),
    ) -> None:
        self.on_subscribe, self.on_call, self.on_update, self._tls = on_subscribe, on_call, on_update, tls
        self.updates: list[Stream] = []
        self.streams: list[Stream] = []
        self.calls: list[Stream] = []
        self.problems: list[BaseException] = []
        self._stopped = False
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("::1" if family is socket.AF_INET6 else "127.0.0.1", 0), family=family)
        self.port: int = self._listener.getsockname()[1]
        self.address = f"[::1]:{self.port}" if family is socket.AF_INET6 else f"127.0.0.1:{self.port}"
        self._threads: list[threading.Thread] = []
        self._begin(self._accept)

    def _begin(self, target: Callable[..., None], *args: object) -> None:
        self._threads.append(threading.Thread(target=target, args=args, daemon=True))
        self._threads[-1].start()

    def __enter__(self) -> FakeMaster:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread
        self._listener.close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        for thread in self._threads:
            thread.join(DEADLINE_S)
        assert not self.problems, self.problems

    def stream(self, number: int = 0) -> Stream:
        """Wait for the n-th subscription."""
        until(lambda: len(self.streams) > number, f"subscription {number}")
        assert self.streams[number].begun.wait(DEADLINE_S)
        return self.streams[number]

    def call(self, number: int = 0) -> Stream:
        until(lambda: len(self.calls) > number, f"call {number}; there were {[one.call for one in self.calls]}")
        return self.calls[number]

    @property
    def kinds(self) -> list[str]:
        return [one.call["type"] for one in self.calls]

    def _accept(self) -> None:
        while not self._stopped:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._begin(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            self._open.append(connection)
            pending = b""
            while True:
                head, _, pending = self._read_until(connection, pending, b"\r\n\r\n").partition(b"\r\n\r\n")
                headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
                length = int(headers["Content-Length"])
                while len(pending) < length:
                    pending += self._recv(connection)
                call, pending = json.loads(pending[:length]), pending[length:]
                self._handle(connection, call, headers)
        except OSError:
            connection.close()
        except BaseException as error:
            self.problems.append(error)
            raise

    def _handle(self, connection: socket.socket, call: Json, headers: dict[str, str]) -> None:
        if call["type"] == "SUBSCRIBE":
            stream = Stream(connection, call, headers, len(self.streams))
            self.streams.append(stream)
            self.on_subscribe(stream)
            stream.begun.set()
        elif call["type"] == "UPDATE_FRAMEWORK":
            stream = Stream(connection, call, headers, len(self.updates))
            self.updates.append(stream)
            self.on_update(stream)
        else:
            stream = Stream(connection, call, headers, len(self.calls))
            self.calls.append(stream)
            self.on_call(stream)

    def _read_until(self, connection: socket.socket, data: bytes, end: bytes) -> bytes:
        while end not in data:
            data += self._recv(connection)
        return data

    def _recv(self, connection: socket.socket) -> bytes:
        data = connection.recv(65536)
        if not data:
            raise ConnectionError("closed by the driver")
        return data


class Receiver:
    """Records events and waits for them. It raises an exception for the event classes in `fail_at`."""

    def __init__(self, *fail_at: type) -> None:
        self.events: list[Event] = []
        self.fail_at = fail_at

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, self.fail_at):
            raise RuntimeError(f"the receiver fails for {type(event).__name__}")

    def all(self, kind: type[T]) -> list[T]:
        return [event for event in self.events if isinstance(event, kind)]

    def wait(self, kind: type[T], count: int = 1) -> T:
        """Wait for the `count`-th event of a kind."""
        until(lambda: len(self.all(kind)) >= count, f"{count} {kind.__name__}; there were {self.events}")
        return self.all(kind)[count - 1]


def settings(master: str, **more: Any) -> MesosSettings:
    """Settings with short waits. Timeouts are long, so that a loaded machine does not cause one."""
    quick: dict[str, Any] = {
        "answer_timeout_s": 30.0,
        "backoff_first_s": 0.01,
        "backoff_max_s": 0.05,
        "refused_retry_s": 0.05,
        "user": "nobody",
    }
    return MesosSettings(master, **{**quick, **more})


class Running:
    """A running driver and its events, stopped at the end of the block."""

    def __init__(self, master: str, receiver: Receiver | None = None, framework_id: str = "", **more: Any) -> None:
        self.receiver = receiver or Receiver()
        self.refusals: list[ConfigError] = []
        self.driver = MesosDriver(settings(master, **more), self.refusals.append)
        self._framework_id = framework_id

    def __enter__(self) -> Running:
        self.driver.start(self.receiver, self._framework_id)
        return self

    def __exit__(self, *_: object) -> None:
        self.driver.stop()

    def wait(self, kind: type[T], count: int = 1) -> T:
        return self.receiver.wait(kind, count)
