"""For tests of alerts: receivers on loopback, and a scheduler with a loop whose every attempt fails."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.core_world import make_app, make_job, make_offer, make_status
from tests.http_kit import QuietServer

from jobcloud.adapters.memory import MemoryServer, MemoryStore
from jobcloud.messages import (
    Accept,
    Acknowledge,
    Call,
    Event,
    OffersReceived,
    PutApp,
    PutJob,
    Revive,
    StatusReceived,
    Subscribed,
    Trigger,
)
from jobcloud.scheduler import Policy, Scheduler
from jobcloud.server.alerts.channels import Channel
from jobcloud.server.alerts.service import AlertService
from jobcloud.server.clock import wall_ms
from jobcloud.server.loop import Loop

PATIENCE_S = 20.0


@dataclass(frozen=True)
class Got:
    """A request that a receiver got."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Receiver:
    """A server that keeps each request, and answers with the next of `answers`, or with 200."""

    def __init__(self) -> None:
        self.got: queue.Queue[Got] = queue.Queue()
        self.answers: list[Callable[[BaseHTTPRequestHandler], None]] = []
        self.released = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                outer.got.put(Got(self.path, {name.lower(): value for name, value in self.headers.items()}, body))
                (outer.answers.pop(0) if outer.answers else answer(200))(self)

            def do_GET(self) -> None:
                self.do_POST()

            def log_message(self, *args: Any) -> None:
                pass

        self._http = QuietServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/hook"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def take(self) -> Got:
        return self.got.get(timeout=PATIENCE_S)

    def close(self) -> None:
        self.released.set()
        self._http.shutdown()
        self._http.server_close()


def answer(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Callable[..., None]:
    def write(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return write


def make_channel(name: str = "ops", kind: str = "webhook", **fields: Any) -> Channel:
    given: dict[str, Any] = {"url": "http://127.0.0.1:1/hook"} if kind != "email" else {}
    return Channel.model_validate({"name": name, "kind": kind, **given, **fields})


class FailingMesos:
    """A driver whose master offers one agent, and on which each task fails at once."""

    def __init__(self) -> None:
        self._deliver: Callable[[Event], None] = lambda event: None
        self._offers = 0

    def start(self, deliver: Callable[[Event], None], framework_id: str) -> None:
        self._deliver = deliver
        deliver(Subscribed(wall_ms(), framework_id or "framework-1", "master"))
        self._offer()

    def _offer(self) -> None:
        self._offers += 1
        self._deliver(OffersReceived(wall_ms(), (make_offer(f"o{self._offers}", cpus=64, mem=100_000),)))

    def send(self, call: Call | Acknowledge) -> None:
        for launch in call.launches if isinstance(call, Accept) else ():
            status = make_status(launch.task_id, "TASK_FAILED", "u", message="broke")
            self._deliver(StatusReceived(wall_ms(), status))
        if isinstance(call, Accept | Revive):
            self._offer()

    def stop(self) -> None:
        pass

    def teardown(self) -> None:
        pass


@contextmanager
def leading(service: AlertService, policy: Policy, server: MemoryServer | None = None) -> Iterator[Loop[Scheduler]]:
    """A scheduler that leads, with the state of a server."""
    loop: Loop[Scheduler] = Loop(
        MemoryStore(server or MemoryServer()),
        FailingMesos,
        [service],
        lambda stored, epoch, at: Scheduler(policy, stored, epoch, at),
    )
    service.start(loop)
    loop.start()
    try:
        yield loop
    finally:
        service.stop()
        loop.stop()


def run_dead(loop: Loop[Scheduler], job: str = "report") -> None:
    """Trigger a job whose shard fails twice. Its run ends DEAD."""
    if not loop.ask(lambda scheduler: bool(scheduler.apps)):
        loop.command(lambda at: PutApp(at, make_app()))
    if not loop.ask(lambda scheduler: job in scheduler.jobs):
        made = make_job(job, retry_count=1, retry_delay_ms=100, retry_jitter=0)
        loop.command(lambda at: PutJob(at, made))
    loop.command(lambda at: Trigger(at, job))
