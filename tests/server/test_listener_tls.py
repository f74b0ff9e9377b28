"""A listener with TLS: its limits hold before, during and after handshakes."""

from __future__ import annotations

import dataclasses
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send
from tests.api_kit import serving
from tests.attack_kit import dial, first_status, rest_of, status_of
from tests.server.test_listener import GET, App
from tests.tls_kit import Authority, server_tls

from jobcloud.server.listener import Limits, _Protocol
from jobcloud.server.tls import CERTIFICATE, Demand, ServerFiles, ServerTls

# The beginning of a ClientHello that never ends.
HELLO = b"\x16\x03\x01\x02\x00\x01"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls(authority: Authority) -> ServerTls:
    return server_tls(authority.issue())


@pytest.fixture
def app() -> Iterator[App]:
    app = App()
    yield app
    app.release.set()


def asking(url: str, authority: Authority, source: str = "127.0.0.1", path: bytes = b"") -> ssl.SSLSocket:
    """A connection over which a request was sent."""
    sock = speak(url, authority, source)
    sock.sendall(GET % path)
    return sock


def asks(files: ServerFiles, authority: Authority, clients: Demand) -> ServerFiles:
    """The files of a listener that asks for certificates of the authority."""
    return dataclasses.replace(files, client_ca=authority.file, clients=clients)


def speak(url: str, authority: Authority, source: str = "127.0.0.1") -> ssl.SSLSocket:
    """A connection whose handshake is over."""
    return authority.trust().wrap_socket(dial(url, source=source), server_hostname="localhost")


def test_requests_over_tls_are_answered(app: App, tls: ServerTls, authority: Authority) -> None:
    with serving(app, tls=tls) as url, httpx.Client(verify=authority.trust(), trust_env=False) as client:
        assert client.get(url).text == "ok"
        assert len(client.get(f"{url}/large").content) == 8 << 20
        body = bytes(100 << 10)
        assert client.post(f"{url}/body", content=body).status_code == 200
    assert app.paths == ["/", "/large", "/body"]


def test_plain_request_to_a_port_with_tls_is_told_to_use_https(app: App, tls: ServerTls) -> None:
    with serving(app, tls=tls) as url:
        answer = rest_of(dial(url, GET % b""))
    assert status_of(answer) == 400
    assert b"https://" in answer
    assert app.paths == []


@pytest.mark.parametrize("sent", [b"", HELLO, HELLO[:1]], ids=["nothing", "half a hello", "one byte"])
def test_slow_handshake_ends_after_the_time_of_a_head(app: App, tls: ServerTls, sent: bytes) -> None:
    with serving(app, Limits(head_seconds=0.05), tls) as url:
        assert rest_of(dial(url, sent)) == b""


def test_garbage_in_a_handshake_ends_the_connection(app: App, tls: ServerTls, authority: Authority) -> None:
    with serving(app, tls=tls) as url:
        # The answer is an alert of TLS (RFC 8446, section 6).
        assert rest_of(dial(url, HELLO + b"\xff" * 600))[:1] in (b"\x15", b"")
        with asking(url, authority) as sock:
            assert first_status(sock) == 200


def test_incomplete_head_over_tls_is_answered_with_408(app: App, tls: ServerTls, authority: Authority) -> None:
    with serving(app, Limits(head_seconds=0.2), tls) as url:
        sock = speak(url, authority)
        sock.sendall(b"GET / HTTP/1.1\r\n")
        assert status_of(sock.recv(1 << 16)) == 408
        sock.close()


def test_handshakes_count_as_connections_of_their_address(app: App, tls: ServerTls, authority: Authority) -> None:
    with serving(app, Limits(per_address=3), tls) as url:
        slow = [dial(url, HELLO) for _ in range(3)]
        assert rest_of(dial(url, HELLO)) == b"", "refused at once"
        other = asking(url, authority, "127.0.0.2")
        assert first_status(other) == 200
        for sock in (*slow, other):
            sock.close()


def test_new_client_takes_the_place_of_the_longest_handshake(app: App, tls: ServerTls, authority: Authority) -> None:
    with serving(app, Limits(connections=3, head_seconds=3_600), tls) as url:
        slow = [dial(url, HELLO) for _ in range(3)]
        last = asking(url, authority)
        assert first_status(last) == 200
        assert rest_of(slow[0]) == b""
        for sock in (*slow, last):
            sock.close()


def test_requests_are_answered_beside_many_handshakes_that_never_end(
    app: App, tls: ServerTls, authority: Authority
) -> None:
    with serving(app, Limits(connections=50, per_address=100, head_seconds=3_600), tls) as url:
        kept = asking(url, authority)
        assert first_status(kept) == 200
        flood = [dial(url, HELLO) for _ in range(90)]
        fresh = asking(url, authority)
        assert first_status(fresh) == 200
        for sock in (*flood, kept, fresh):
            sock.close()


def test_client_that_takes_nothing_over_tls_is_dropped(app: App, tls: ServerTls, authority: Authority) -> None:
    with serving(app, Limits(stall_seconds=0.05), tls) as url:
        sock = speak(url, authority)
        sock.sendall(GET % b"large")
        assert app.sent.acquire(timeout=60), "the app ends although the client has not taken its answer"
        sock.close()


def test_bytes_that_wait_below_tls_count_as_unsent(
    app: App, tls: ServerTls, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a client that takes a large answer slowly would seem to take nothing."""
    watch, seen = _Protocol._watch_progress, []

    def record(self: _Protocol, unsent: int) -> None:
        seen.append((unsent, self.transport.get_write_buffer_size()))
        watch(self, unsent)

    monkeypatch.setattr(_Protocol, "_watch_progress", record)
    with serving(app, Limits(stall_seconds=0.05), tls) as url, asking(url, authority, path=b"large") as sock:
        assert app.sent.acquire(timeout=60)
        sock.close()
    below = [unsent - above for unsent, above in seen]
    assert max(below) > 1 << 20


def test_certificate_of_a_client_is_in_the_scope_of_its_requests(authority: Authority) -> None:
    seen: list[bytes | None] = []

    async def note(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope.get(CERTIFICATE))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    files = authority.issue()
    client = authority.issue(common_name="ana", file="ana")
    tls = server_tls(asks(files, authority, "optional"))
    with serving(note, tls=tls) as url:
        for context in (authority.trust(), authority.trust(client)):
            with httpx.Client(verify=context, trust_env=False) as caller:
                assert caller.get(url).status_code == 204
    assert seen[0] is None
    assert ssl.DER_cert_to_PEM_cert(seen[1] or b"").split() == client.cert.read_text().split()


def test_required_certificate_of_another_authority_or_none_is_refused(
    app: App, authority: Authority, tmp_path: Path
) -> None:
    foreign = Authority(tmp_path).issue(common_name="ana")
    tls = server_tls(asks(authority.issue(), authority, "required"))
    with serving(app, tls=tls) as url:
        for client in (None, foreign):
            context = authority.trust(client)
            with httpx.Client(verify=context, trust_env=False) as caller, pytest.raises(httpx.TransportError):
                caller.get(url)
    assert app.paths == []


def test_listener_stops_while_handshakes_are_under_way(app: App, tls: ServerTls) -> None:
    with serving(app, Limits(head_seconds=3_600), tls) as url:
        slow = dial(url, HELLO)
    assert rest_of(slow) == b""
