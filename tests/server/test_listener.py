"""Limits of a listener that hold before a request reaches the app: connections, heads, time, descriptors."""

from __future__ import annotations

import asyncio
import resource
import socket
import threading
from collections.abc import Iterator

import anyio
import httpx
import pytest
from starlette.types import Receive, Scope, Send
from tests.api_kit import serving
from tests.attack_kit import dial, first_status, rest_of, status_of

from jobcloud.errors import ConfigError
from jobcloud.server.listener import Limits, _Protocol, listen, raise_descriptor_limit

GET = b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n"


class App:
    """Answers `/`; on `/held`, after `release`; on `/large`, with 8 MiB; on `/body`, with the length of the body."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.release = threading.Event()
        self.held = threading.Semaphore(0)
        self.sent = threading.Semaphore(0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.paths.append(scope["path"])
        body = b"ok"
        if scope["path"] == "/held":
            self.held.release()
            await anyio.to_thread.run_sync(self.release.wait)
        if scope["path"] == "/large":
            body = bytes(8 << 20)
        if scope["path"] == "/body":
            body = b"%d" % len((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        self.sent.release()


@pytest.fixture
def app() -> Iterator[App]:
    app = App()
    yield app
    app.release.set()


def test_body_of_an_answer_does_not_wait_for_the_acknowledgement_of_the_head(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, options = _Protocol.connection_made, []

    def record(self: _Protocol, transport: asyncio.Transport) -> None:
        options.append(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        made(self, transport)

    monkeypatch.setattr(_Protocol, "connection_made", record)
    with serving(app) as url:
        assert httpx.get(url).status_code == 200
    assert options == [1]


def test_incomplete_head_is_answered_with_408_after_its_time(app: App) -> None:
    with serving(app, Limits(head_seconds=0.05)) as url:
        answer = rest_of(dial(url, b"GET / HTTP/1.1\r\nHost: x\r\n"))
        assert status_of(answer) == 408
        assert b"application/problem+json" in answer
        assert rest_of(dial(url)) == b"", "a client that sends nothing gets nothing"
    assert app.paths == []


def test_second_head_on_a_connection_has_a_time_limit_too(app: App) -> None:
    with serving(app, Limits(head_seconds=0.2)) as url:
        sock = dial(url, GET % b"")
        assert first_status(sock) == 200
        sock.sendall(b"GET / HT")
        assert b"408" in rest_of(sock)
    assert app.paths == ["/"]


def test_incomplete_head_behind_a_request_does_not_cost_its_answer(app: App) -> None:
    with serving(app, Limits(head_seconds=0.1)) as url:
        sock = dial(url, GET % b"held" + b"GET / HT")
        app.held.acquire()
        # This head is later, and its time is over.
        assert status_of(rest_of(dial(url, b"GET / HT"))) == 408
        app.release.set()
        answers = rest_of(sock)
    assert status_of(answers) == 200
    assert b"HTTP/1.1 408" in answers, "then the head has its time"


@pytest.mark.parametrize("line", [b"X: " + b"a" * (1 << 20), b"a: b\r\n" * 100_000])
def test_long_head_is_answered_with_431_and_reaches_no_route(app: App, line: bytes) -> None:
    with serving(app) as url:
        assert status_of(rest_of(dial(url, b"GET / HTTP/1.1\r\n" + line))) in (431, 0)
        sock = dial(url, b"GET / HTTP/1.1\r\n" + line[: (32 << 10) + 1])
        assert status_of(rest_of(sock)) == 431
    assert app.paths == []


def test_endless_trailer_of_a_body_counts_as_head(app: App) -> None:
    begin = b"POST /held HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    with serving(app, Limits(head_seconds=3_600)) as url:
        assert rest_of(dial(url, begin + b"X: " + b"a" * (33 << 10))) == b""


def test_large_body_does_not_count_as_head(app: App) -> None:
    body = bytes(40 << 10)
    with serving(app) as url:
        sock = dial(url, b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert first_status(sock) == 200
        sock.close()


def test_body_that_nobody_reads_is_limited_in_time(app: App) -> None:
    with serving(app, Limits(head_seconds=0.05)) as url:
        sock = dial(url, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        assert status_of(rest_of(sock)) == 200


def test_malformed_request_is_answered_with_a_problem(app: App) -> None:
    with serving(app) as url:
        answer = rest_of(dial(url, b"\x16\x03\x01\r\n\r\n"))
    assert status_of(answer) == 400
    assert b"application/problem+json" in answer


def test_connections_of_one_address_are_limited_and_others_are_served(app: App) -> None:
    with serving(app, Limits(per_address=3)) as url:
        mine = [dial(url, GET % b"") for _ in range(3)]
        assert [first_status(sock) for sock in mine] == [200] * 3
        refused = rest_of(dial(url))
        assert status_of(refused) == 429
        assert b"retry-after" in refused.lower()
        other = dial(url, GET % b"", source="127.0.0.2")
        assert first_status(other) == 200
        for sock in (*mine, other):
            sock.close()
        assert httpx.get(url, trust_env=False).status_code in (200, 429)


def test_full_listener_drops_the_client_that_has_waited_longest_without_a_request(app: App) -> None:
    with serving(app, Limits(connections=3)) as url:
        slow = [dial(url, b"GET / HTT") for _ in range(3)]
        last = dial(url, GET % b"")
        assert first_status(last) == 200
        assert rest_of(slow[0]) == b""
        slow[1].sendall(b"P/1.1\r\nHost: x\r\n\r\n")
        assert first_status(slow[1]) == 200
        for sock in (*slow, last):
            sock.close()


def test_full_listener_without_idle_clients_accepts_after_one_has_ended(app: App) -> None:
    with serving(app, Limits(connections=2)) as url:
        busy = [dial(url, GET % b"held") for _ in range(2)]
        assert app.held.acquire(timeout=60)
        assert app.held.acquire(timeout=60)
        waiting = dial(url, GET % b"next")
        assert "/next" not in app.paths
        app.release.set()
        assert [first_status(sock) for sock in (*busy, waiting)] == [200] * 3
        for sock in (*busy, waiting):
            sock.close()


def test_connection_whose_descriptor_is_reserved_for_others_is_refused(app: App) -> None:
    with serving(app, Limits(descriptors=0)) as url:
        answer = rest_of(dial(url))
        assert status_of(answer) == 503
        assert b"application/problem+json" in answer
    assert app.paths == []


def test_client_that_takes_nothing_of_its_answer_is_dropped(app: App) -> None:
    with serving(app, Limits(stall_seconds=0.05)) as url:
        sock = dial(url, GET % b"large")
        assert app.sent.acquire(timeout=60), "the app goes on"
        assert len(rest_of(sock)) < 8 << 20


def test_many_pipelined_requests_end_the_connection(app: App) -> None:
    with serving(app) as url:
        rest_of(dial(url, GET % b"held" + GET % b"" * 1_000))
    assert app.paths == ["/held"]


def test_descriptor_limit_is_raised_to_the_hard_limit_with_a_reserve() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
        usable = raise_descriptor_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
        assert usable == hard - 256
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_address_is_announced_before_anybody_can_connect() -> None:
    """A client that connects reads the token from a file, which is therefore written first."""
    seen: list[int] = []

    def announce(bound: socket.socket) -> None:
        seen.append(bound.getsockname()[1])
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", seen[0]), timeout=5)

    with listen("127.0.0.1", 0, "http.port", announce) as listening:
        assert [listening.getsockname()[1]] == seen
        socket.create_connection(("127.0.0.1", seen[0]), timeout=5).close()
        with pytest.raises(ConfigError, match="cannot listen"):
            listen("127.0.0.1", seen[0], "http.port", lambda bound: pytest.fail("announced a port of another process"))
