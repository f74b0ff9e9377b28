"""A raw client of Mesos' v1 HTTP API for tests: it keeps every event as it was received."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jobcloud.wire import FramingError, RecordReader, decode_data, encode_data

JSON = "application/json"
Event = dict[str, Any]


class Answer:
    """An HTTP answer: `status`, `headers` (lower case names) and the `body` as text."""

    def __init__(self, status: int, headers: dict[str, str], body: str) -> None:
        self.status, self.headers, self.body = status, headers, body

    def json(self) -> Any:
        return json.loads(self.body)


def request(address: str, method: str, path: str, body: bytes | str | None = None, **headers: str) -> Answer:
    """Send one request on a new connection. A header `content_type` is sent as `content-type`."""
    host, port = address.split(":")
    link = http.client.HTTPConnection(host, int(port), timeout=60)
    try:
        link.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        reply = link.getresponse()
        return Answer(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read().decode())
    finally:
        link.close()


def post(address: str, path: str, call: Any, **headers: str) -> Answer:
    return request(address, "POST", path, json.dumps(call), **{"content_type": JSON, "accept": JSON, **headers})


class Stream:
    """The answer to a SUBSCRIBE: a thread reads events until the stream ends or is closed."""

    def __init__(self, address: str, path: str, call: Any, **headers: str) -> None:
        host, port = address.split(":")
        self._link = http.client.HTTPConnection(host, int(port), timeout=60)
        self._link.request("POST", path, json.dumps(call), {"Content-Type": JSON, "Accept": JSON, **headers})
        self._socket: socket.socket = self._link.sock
        self._reply = self._link.getresponse()
        self.status = self._reply.status
        self.headers = {k.lower(): v for k, v in self._reply.getheaders()}
        self.stream_id = self.headers.get("mesos-stream-id", "")
        self.events: list[Event] = []
        self.ended = False
        self._changed = threading.Condition()
        self._socket.settimeout(None)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self.body = ""
        if self.status == 200:
            self._thread.start()
        else:
            self.body, self.ended = self._reply.read().decode(), True

    def _read(self) -> None:
        records = RecordReader()
        try:
            while piece := self._reply.read1(65536):
                with self._changed:
                    self.events += [json.loads(record) for record in records.feed(piece)]
                    self._changed.notify_all()
        except (OSError, ValueError, FramingError, http.client.HTTPException):
            pass
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def wait_for(self, test: Callable[[], Any], seconds: float, what: str) -> Any:
        """The first true result of `test`, which is called after every event."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while not (found := test()):
                left = deadline - time.monotonic()
                if self.ended or left <= 0:
                    raise AssertionError(
                        f"no {what} in {seconds} s (stream ended: {self.ended}); events: {self.events}"
                    )
                self._changed.wait(left)
        return found

    def wait_end(self, seconds: float = 60) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.ended, seconds), f"the stream is still open: {self.events}"

    def close(self) -> None:
        if self._thread.is_alive():
            self._socket.shutdown(socket.SHUT_RDWR)
            self._thread.join(10)
        self._reply.close()
        self._link.close()


class Framework:
    """A scheduler that is controlled by a test. It keeps every event."""

    def __init__(self, master: str, *capabilities: str, name: str = "contract", **info: Any) -> None:
        self.master = master
        self.info: dict[str, Any] = {
            "user": "root",
            "name": name,
            "capabilities": [{"type": one} for one in ("MULTI_ROLE", *capabilities)],
            "roles": ["*"],
            "failover_timeout": 600.0,
            **info,
        }
        self.seen = 0  # index of the first event that no test has consumed
        self.stream: Stream

    def subscribe(self, **extra: Any) -> Framework:
        call: dict[str, Any] = {"type": "SUBSCRIBE", "subscribe": {"framework_info": self.info, **extra}}
        if "id" in self.info:
            call["framework_id"] = self.info["id"]
        self.seen = 0
        self.stream = Stream(self.master, "/api/v1/scheduler", call)
        if self.stream.status == 200 and self.next("SUBSCRIBED", "ERROR")["type"] == "SUBSCRIBED":
            self.info["id"] = self.stream.events[0]["subscribed"]["framework_id"]
        return self

    @property
    def id(self) -> str:
        return str(self.info["id"]["value"])

    def call(self, kind: str, body: Any = None, /, **headers: str) -> Answer:
        call: dict[str, Any] = {"type": kind, "framework_id": self.info["id"]}
        if body is not None:
            call[kind.lower()] = body
        return post(self.master, "/api/v1/scheduler", call, **{"mesos_stream_id": self.stream.stream_id, **headers})

    def next(self, *kinds: str, seconds: float = 60, where: Callable[[Event], bool] = lambda _: True) -> Event:
        """The next event of one of `kinds`. Skips the events before it."""

        def find() -> Event | None:
            for index in range(self.seen, len(self.stream.events)):
                event = self.stream.events[index]
                if event["type"] in kinds and where(event):
                    self.seen = index + 1
                    return event
            return None

        found: Event = self.stream.wait_for(find, seconds, f"event {'/'.join(kinds)}")
        return found

    def expect_none(self, *kinds: str, seconds: float, where: Callable[[Event], bool] = lambda _: True) -> None:
        """Wait for `seconds` and check that no event of these kinds comes."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                event = self.next(*kinds, seconds=left, where=where)
            except AssertionError:
                return
            raise AssertionError(f"unexpected: {event}")

    def offers(self, count: int = 1, seconds: float = 60, agent: str = "") -> list[dict[str, Any]]:
        """The next `count` offers, of one agent if its id is given."""
        found: list[dict[str, Any]] = []
        while len(found) < count:
            event = self.next("OFFERS", seconds=seconds)
            found += [o for o in event["offers"]["offers"] if agent in ("", o["agent_id"]["value"])]
        return found

    def accept(self, offers: list[dict[str, Any]], *tasks: Any, filters: Any = None, **headers: str) -> Answer:
        body: dict[str, Any] = {
            "offer_ids": [o["id"] for o in offers],
            "operations": [{"type": "LAUNCH", "launch": {"task_infos": list(tasks)}}],
        }
        if filters is not None:
            body["filters"] = filters
        return self.call("ACCEPT", body, **headers)

    def decline(self, offers: list[dict[str, Any]], refuse_seconds: float | None = None) -> Answer:
        body: dict[str, Any] = {"offer_ids": [o["id"] for o in offers]}
        if refuse_seconds is not None:
            body["filters"] = {"refuse_seconds": refuse_seconds}
        return self.call("DECLINE", body)

    def update(self, task: str = "", state: str = "", seconds: float = 60, acknowledge: bool = True) -> dict[str, Any]:
        """The next status update, of one task or state if given. Acknowledges it if it has a uuid."""

        def fits(event: Event) -> bool:
            status = event["update"]["status"]
            return task in ("", status["task_id"]["value"]) and state in ("", status["state"])

        status: dict[str, Any] = self.next("UPDATE", seconds=seconds, where=fits)["update"]["status"]
        if acknowledge and "uuid" in status:
            self.acknowledge(status)
        return status

    def acknowledge(self, status: dict[str, Any]) -> Answer:
        return self.call("ACKNOWLEDGE", {k: status[k] for k in ("agent_id", "task_id", "uuid")})

    def command(self, agent_id: dict[str, str], executor: str, *commands: Any) -> Answer:
        """Send commands to the scripted executor."""
        data = encode_data(json.dumps(list(commands)).encode())
        return self.call("MESSAGE", {"agent_id": agent_id, "executor_id": {"value": executor}, "data": data})

    def reported(self, kind: str, seconds: float = 60) -> Any:
        """The next event or report of that kind that the scripted executor sends."""

        def fits(event: Event) -> bool:
            return bool(report_of(event)["type"] == kind)

        return report_of(self.next("MESSAGE", seconds=seconds, where=fits))

    def teardown(self) -> None:
        """Remove the framework, which kills its executors, and close the stream."""
        if not self.stream.ended:
            self.call("TEARDOWN")
            self.stream.wait_end()
        self.stream.close()


def report_of(event: Event) -> Any:
    return json.loads(decode_data(event["message"]["data"]))


@dataclass
class Cluster:
    """A running cluster: its kind ("dev" or "mesos") and the master's address."""

    kind: str
    master: str

    def agent(self, agent_id: str) -> str:
        """The address of an agent. The /state of a local Mesos shows the master's port for all agents."""
        slaves = request(self.master, "GET", "/state").json()["slaves"]
        found = next(one for one in slaves if one["id"] == agent_id)
        if self.kind == "dev":
            return f"127.0.0.1:{found['port']}"
        number = int(found["pid"].partition("(")[2].partition(")")[0])
        host, _, port = self.master.partition(":")
        return f"{host}:{int(port) + number}"


def amounts(**named: float) -> list[dict[str, Any]]:
    """Scalar resources for a TaskInfo or ExecutorInfo, with the default role."""
    return [{"name": name, "type": "SCALAR", "scalar": {"value": value}} for name, value in named.items()]


def total(resources: list[dict[str, Any]]) -> dict[str, float]:
    """The sums of scalar resources by name."""
    sums: dict[str, float] = {}
    for one in resources:
        if one["type"] == "SCALAR":
            sums[one["name"]] = round(sums.get(one["name"], 0) + one["scalar"]["value"], 3)
    return sums
