"""Reads of output from an agent that accepts connections and never answers."""

from __future__ import annotations

import functools
import select
import socket
from pathlib import Path

import httpx
from tests.api_kit import FakeLoop, app_body, client_of, job_body, make_api, package_bytes, serving
from tests.attack_kit import dial, status_of

from jobcloud.adapters.sandbox import OutputReader
from jobcloud.server.wiring import _read_log

READS = 160


def launched(loop: FakeLoop, app: object, address: str) -> str:
    """The id of a task on an agent at `address`."""
    api = client_of(app)
    loop.subscribe()
    sha256 = api.post("packages", content=package_bytes()).json()["sha256"]
    api.post("apps", json=app_body(sha256))
    api.post("jobs", json=job_body())
    loop.tick(6_000)
    loop.offer(address=address)
    return loop.tick()[0]


def test_reads_of_a_silent_agent_hold_no_other_call_up(tmp_path: Path) -> None:
    silent = socket.create_server(("127.0.0.1", 0), backlog=READS)
    loop = FakeLoop()
    reader = OutputReader(deadline_s=3_600)
    app = make_api(tmp_path, loop, read_log=functools.partial(_read_log, reader))
    task_id = launched(loop, app, f"127.0.0.1:{silent.getsockname()[1]}")
    request = f"GET /api/v1/tasks/{task_id}/logs HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    follow = request.replace(b"/logs ", b"/logs/stream ")
    with silent, serving(app) as url:
        reads = [dial(url, follow if number % 4 == 0 else request) for number in range(READS)]
        for path in ("jobs", "tasks", "health", "cluster"):
            assert httpx.get(f"{url}/api/v1/{path}", trust_env=False, timeout=60).status_code == 200
        answered, _, _ = select.select(reads, [], [], 0)
        assert answered == [], "the other calls were answered first"
        for read in reads:
            read.close()


def test_reads_of_a_silent_agent_end_at_their_deadline(tmp_path: Path) -> None:
    silent = socket.create_server(("127.0.0.1", 0), backlog=READS)
    loop = FakeLoop()
    reader = OutputReader(deadline_s=0.3)
    app = make_api(tmp_path, loop, read_log=functools.partial(_read_log, reader))
    task_id = launched(loop, app, f"127.0.0.1:{silent.getsockname()[1]}")
    request = f"GET /api/v1/tasks/{task_id}/logs HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    with silent, serving(app) as url:
        reads = [dial(url, request) for _ in range(READS)]
        assert {status_of(read.recv(1 << 16)) for read in reads} == {503}
        for read in reads:
            read.close()
