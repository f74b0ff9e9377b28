"""An API over a scheduler without a cluster and a loop without a thread, for tests of the API and its clients."""

from __future__ import annotations

import asyncio
import io
import itertools
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
from fastapi import FastAPI

from jobcloud.executor.package import inspect
from jobcloud.messages import Accept, Command, Effect, Event, OffersReceived, Status, StatusReceived, Subscribed, Tick
from jobcloud.model import Offer, Share
from jobcloud.ports import StoredFault
from jobcloud.scheduler import Policy, Scheduler, Stored
from jobcloud.scheduler.launch import Artifacts
from jobcloud.server.api import ApiOptions, Notices, create_api
from jobcloud.server.api.headers import Https
from jobcloud.server.listener import Limits, Listener, listen
from jobcloud.server.packages import PackageStore
from jobcloud.server.tls import ServerTls

T = TypeVar("T")

START = 1_700_000_000_000
_LIMITS = Limits()
_HTTPS = Https()
ARTIFACTS = Artifacts("http://artifacts.test", "e" * 64, "executor.zip", "true")


@dataclass(frozen=True)
class Health:
    leading: bool
    connected: bool
    problem: str = ""
    since_ms: int = 0
    recoveries: int = 0
    faults: tuple[StoredFault, ...] = ()
    epoch: int = 1

    @property
    def well(self) -> bool:
        return self.leading and self.connected and not self.problem

    @property
    def code(self) -> str:
        return "" if self.well else "failing" if self.problem else "disconnected" if self.leading else "standby"


class FakeLoop:
    """Carries out commands at once, on the caller's thread. Its clock moves only in `tick`."""

    def __init__(self) -> None:
        self.now = START
        self.scheduler = Scheduler(Policy(ARTIFACTS), Stored(), epoch=1, at=self.now)
        self.effects: list[Effect] = []
        self.well = True
        self.problem = ""
        self.since_ms = self.recoveries = 0
        self.faults: tuple[StoredFault, ...] = ()
        self.failure: Exception | None = None
        self._lock = threading.RLock()
        self._uuids = itertools.count()

    def command(self, make: Callable[[int], Command], timeout: float = 10) -> None:
        self.feed(make(self.now))

    def ask(self, fn: Callable[[Scheduler], T], timeout: float = 5) -> T:
        with self._lock:
            return fn(self.scheduler)

    def health(self) -> Health:
        return Health(self.well, self.scheduler.connected, self.problem, self.since_ms, self.recoveries, self.faults)

    def feed(self, event: Event) -> list[Effect]:
        with self._lock:
            if self.failure:
                raise self.failure
            done = self.scheduler.handle(event)
            self.effects += done
            return done

    def subscribe(self) -> None:
        self.feed(Subscribed(self.now, "framework-1"))

    def offer(self, agent: str = "agent-1", cpus: int = 8000, mem: int = 8_000_000, address: str = "") -> None:
        ports = Share("ports", 10_000, ranges=((31_000, 31_009),))
        shares = (Share("cpus", cpus), Share("mem", mem), Share("disk", mem), ports)
        offer = Offer(f"offer-{next(self._uuids)}", agent, f"{agent}.test", address or f"{agent}.test:5051", shares)
        self.feed(OffersReceived(self.now, (offer,)))

    def tick(self, later_ms: int = 0) -> list[str]:
        """Advance the clock; return the ids of the launched tasks."""
        self.now += later_ms
        done = self.feed(Tick(self.now))
        return [launch.task_id for effect in done if isinstance(effect, Accept) for launch in effect.launches]

    def update(self, task_id: str, state: str, message: str = "", reason: str = "") -> None:
        agent = self.scheduler.tasks[task_id].agent_id
        status = Status(task_id, agent, state, reason=reason, uuid=f"uuid-{next(self._uuids)}", message=message)
        self.feed(StatusReceived(self.now, status))


def package_bytes(files: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in (files or {"hello.py": "class Hello: ...\n"}).items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return out.getvalue()


def make_api(tmp_path: Path, loop: FakeLoop | None = None, **extra: Any) -> FastAPI:
    options = extra.pop("options", ApiOptions())
    # The check of production starts a process for each upload.
    packages = extra.pop("packages", None) or PackageStore(tmp_path / "packages", check=inspect)
    notices = extra.pop("notices", Notices())
    loop = loop or FakeLoop()
    if isinstance(loop, FakeLoop):
        extra.setdefault("directory", lambda: loop.scheduler.directory)
    return create_api(loop, packages, options, notices=notices, **extra)


@contextmanager
def serving(app: Any, limits: Limits = _LIMITS, tls: ServerTls | None = None, https: Https = _HTTPS) -> Iterator[str]:
    """Serve an app on a free loopback port; yields its URL."""
    socket = listen("127.0.0.1", 0, "http.port")
    port = socket.getsockname()[1]
    listener = Listener(app, socket, limits, tls, https)
    try:
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{port}"
    finally:
        listener.stop()


def app_body(sha256: str, name: str = "demo", **changes: Any) -> dict[str, Any]:
    return {"appName": name, "appURL": f"package:sha256:{sha256}", "cpuCount": 0.5, "memoryMB": 64} | changes


def job_body(name: str = "hello", app: str = "demo", **changes: Any) -> dict[str, Any]:
    return {
        "jobName": name,
        "appName": app,
        "jobClass": "hello:Hello",
        "jobType": "SIMPLE",
        "jobExecutionType": "TRANSIENT",
        "cron": "0/5 * * * * ?",
        "shardingTotalCount": 2,
        "cpuCount": 0.1,
        "memoryMB": 32,
    } | changes


# One event loop for all calls: creating one takes longer than most calls. conftest.py closes it, because Python 3.12
# starts no thread in functions of `atexit`, and the end of a loop needs one.
RUNNER = asyncio.Runner()


class InProcess(httpx.BaseTransport):
    """Calls an ASGI app without a socket. With `strict`, an unexpected error fails the test instead of being a 500."""

    def __init__(self, app: Any, *, strict: bool = True) -> None:
        self._transport = httpx.ASGITransport(app, raise_app_exceptions=strict)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return RUNNER.run(self._call(request))

    async def _call(self, request: httpx.Request) -> httpx.Response:
        asked = httpx.Request(request.method, request.url, headers=request.headers, content=request.read())
        answer = await self._transport.handle_async_request(asked)
        return httpx.Response(answer.status_code, headers=answer.headers, content=await answer.aread())


def client_of(app: Any, token: str = "", *, strict: bool = True, url: str = "http://127.0.0.1/api/v1") -> httpx.Client:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.Client(transport=InProcess(app, strict=strict), base_url=url, headers=headers)


def issues(answer: httpx.Response, slug: str = "invalid") -> dict[str, str]:
    """The problem and the fix of each field, from a problem document of this kind."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    document = answer.json()
    assert document["type"] == f"urn:jobcloud:problem:{slug}", document
    assert document["status"] == answer.status_code
    assert document["title"]
    assert document["detail"]
    return {issue["field"]: f"{issue['problem']} | {issue['fix']}" for issue in document["errors"]}
