"""Packages by URL: fetched once by the server, only from allowed servers, with all kinds of bad content."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.api_kit import FakeLoop, app_body, client_of, make_api, package_bytes
from tests.origin_kit import Answer, Server

from jobcloud.config import App, Package
from jobcloud.errors import ConfigError, Unavailable
from jobcloud.server.api import ApiOptions, create_artifacts
from jobcloud.server.origin import Origin, Refill
from jobcloud.server.packages import PackageStore
from jobcloud.server.urls import UrlPolicy

GOOD = package_bytes()
SHA256 = hashlib.sha256(GOOD).hexdigest()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server({"/good.zip": GOOD})
    yield server
    server.close()


@pytest.fixture
def store(tmp_path: Path) -> PackageStore:
    return PackageStore(tmp_path / "packages", max_bytes=100_000)


@pytest.fixture
def origin(store: PackageStore) -> Origin:
    return Origin(store, UrlPolicy(hosts=("127.0.0.1", "*.example.org")), timeout_s=20)


def refused(origin: Origin, url: str, sha256: str = SHA256) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        origin.obtain(Package(url, sha256))
    assert caught.value.fix
    return caught.value


@pytest.fixture(autouse=True)
def nothing_half_done(tmp_path: Path) -> Iterator[None]:
    """After each test: all packages in the store are complete."""
    yield
    found = [path for path in (tmp_path / "packages").rglob("*") if path.is_file()]
    assert [hashlib.sha256(path.read_bytes()).hexdigest() for path in found] == [path.parent.name for path in found]


# ----------------------------------------------------------------------------------------------------- what is there


def test_package_is_fetched_once(server: Server, store: PackageStore, origin: Origin) -> None:
    package = Package(server.url + "/good.zip", SHA256)
    path = origin.obtain(package)
    assert (path.read_bytes(), path) == (GOOD, store.find(SHA256))
    assert origin.obtain(package) == path
    assert server.asked == ["/good.zip"]


def test_stored_package_needs_no_server_and_restarts_its_grace_period(tmp_path: Path) -> None:
    now = [1000.0]
    store = PackageStore(tmp_path / "packages", grace_seconds=60, clock=lambda: now[0])
    with store.receive() as upload:
        upload.write(GOOD)
        upload.commit()
    now[0] += 100
    assert Origin(store, UrlPolicy()).obtain(Package("http://gone.example.org/x", SHA256)) == store.find(SHA256)
    assert store.collect(()) == []


def test_allowed_redirects_are_followed(server: Server, origin: Origin) -> None:
    server.redirect("/old", "/older")
    server.redirect("/older", server.url + "/good.zip")
    assert origin.obtain(Package(server.url + "/old", SHA256)).read_bytes() == GOOD
    assert server.asked == ["/old", "/older", "/good.zip"]


def test_error_status_of_the_server_is_reported(server: Server, origin: Origin) -> None:
    error = refused(origin, server.url + "/none.zip")
    assert (error.field, error.problem) == ("appURL", f"404 Not Found from {server.url}/none.zip")


def test_content_with_another_hash_is_refused(server: Server, store: PackageStore, origin: Origin) -> None:
    error = refused(origin, server.url + "/good.zip", "a" * 64)
    assert (error.field, SHA256 in error.problem) == ("packageSha256", True)
    assert store.stored() == []


@pytest.mark.parametrize(("path", "content"), [("/x.zip", b"<html>login</html>"), ("/x.zip", b""), ("/x.whl", GOOD)])
def test_content_that_is_not_a_package_is_refused(
    server: Server, store: PackageStore, origin: Origin, path: str, content: bytes
) -> None:
    server.pages[path] = content
    error = refused(origin, server.url + path, hashlib.sha256(content).hexdigest())
    assert error.field == "appURL"
    assert f"the content of {server.url}{path} is not a package" in error.problem
    assert store.stored() == []


def test_unreachable_server_is_reported(origin: Origin) -> None:
    assert "Connection refused" in refused(origin, "http://127.0.0.1:1/x.zip").problem


# --------------------------------------------------------------------------------------------------- forbidden URLs


@pytest.mark.parametrize(
    ("to", "why"),
    [
        ("http://169.254.169.254/latest/meta-data", "not allowed"),
        ("http://localhost/x.zip", "not allowed"),
        ("http://[::1]/x.zip", "not allowed"),
        ("http://2130706433/x.zip", "not allowed"),
        ("http://elsewhere.test/x.zip", "not allowed"),
        ("http://10.0.0.7/x.zip", "not allowed"),
        ("http://user:pass@127.0.0.1/x.zip", "a user"),
        ("file:///etc/passwd", "scheme"),
        ("", "redirects more than"),
        ("/loop", "redirects more than"),
    ],
)
def test_redirect_to_a_forbidden_url_is_refused(server: Server, origin: Origin, to: str, why: str) -> None:
    server.redirect("/loop", to)
    error = refused(origin, server.url + "/loop")
    assert error.field == "appURL"
    assert why in error.problem
    assert set(server.asked) == {"/loop"}


def test_glob_does_not_allow_private_addresses(server: Server, store: PackageStore) -> None:
    server.redirect("/x", "http://10.0.0.7/x.zip")
    error = refused(Origin(store, UrlPolicy(hosts=("127.0.0.1", "*"))), server.url + "/x")
    assert "10.0.0.7 resolves to 10.0.0.7, which is not public" in error.problem
    assert "packages.networks" in error.fix


def test_redirect_from_https_to_http_is_refused(store: PackageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Origin, "_get", lambda *_: "http://files.example.org/x.zip")
    origin = Origin(store, UrlPolicy(hosts=("files.example.org",)))
    assert "from https to http" in refused(origin, "https://files.example.org/x.zip").problem


class Names:
    """Fake name resolution. Records the addresses connected to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
        self.connected = list[Any]()
        self.addresses = addresses
        self._connect = socket.create_connection
        monkeypatch.setattr(socket, "getaddrinfo", self.look_up)
        monkeypatch.setattr(socket, "create_connection", self.connect)

    def look_up(self, host: str, port: int, **more: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.addresses]

    def connect(self, address: Any, timeout: float) -> socket.socket:
        self.connected.append(address)
        raise ConnectionRefusedError("no server")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "192.168.0.1",
        "172.16.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "::1",
        "fe80::1%eth0",
        "fd00::1",
        "ff02::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::1",
        "4000::1",
        "fec0::1",
        "3fff::1",
        "5f00::1",
        "64:ff9b:1::1",
        "100::1",
    ],
)
def test_name_with_a_private_address_is_not_connected_to(
    origin: Origin, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    names = Names(monkeypatch, "93.184.215.14", address)
    error = refused(origin, "http://files.example.org/x.zip")
    assert f"files.example.org resolves to {address}, which is not public" in error.problem
    assert "packages.networks" in error.fix
    assert names.connected == []


def test_public_addresses_of_both_kinds_are_connected_to() -> None:
    assert all(UrlPolicy().may_connect("x.org", address) for address in ("93.184.215.14", "2606:2800:21f::1"))


def test_name_may_resolve_to_a_listed_network(store: PackageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch, "10.1.2.3", "93.184.215.14")
    policy = UrlPolicy(hosts=("files.example.org",), networks=("10.1.0.0/16", "fd00::/8"))
    refused(Origin(store, policy), "http://files.example.org:81/x.zip")
    assert names.connected == [("10.1.2.3", 81), ("93.184.215.14", 81)]


# ------------------------------------------------------------------------------------------------------ how it comes


def chunked(handler: BaseHTTPRequestHandler) -> None:
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    while True:
        handler.wfile.write(b"2000\r\n" + b"x" * 0x2000 + b"\r\n")


def announced(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(1 << 40))
    handler.end_headers()


@pytest.mark.parametrize("page", [chunked, announced])
def test_endless_body_is_cut_off(server: Server, origin: Origin, page: Answer) -> None:
    server.pages["/endless"] = page
    error = refused(origin, server.url + "/endless")
    assert (error.field, "is larger than 100000 bytes" in error.problem) == ("appURL", True)


def test_truncated_body_is_reported(server: Server, origin: Origin) -> None:
    def half(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(GOOD)))
        handler.end_headers()
        handler.wfile.write(GOOD[:50])

    server.pages["/half"] = half
    assert f"ended after 50 of {len(GOOD)} bytes" in refused(origin, server.url + "/half").problem


def dripping(first: bytes) -> Callable[[Server], Answer]:
    """Send `first`, then a byte now and then, so that no read times out."""

    def page(server: Server) -> Answer:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.wfile.write(first)
            while not server.released.wait(0.02):
                handler.wfile.write(b"x")

        return answer

    return page


@pytest.mark.parametrize(
    "page", [dripping(b""), dripping(b"HTTP/1.1 200 OK\r\nX: "), dripping(b"HTTP/1.1 200 OK\r\n\r\n")]
)
def test_slow_server_is_cut_off_in_time(server: Server, store: PackageStore, page: Callable[[Server], Answer]) -> None:
    server.pages["/slow"] = page(server)
    origin = Origin(store, UrlPolicy(hosts=("127.0.0.1",)), timeout_s=0.4)
    assert f"{server.url}/slow takes longer than 0.4 s" in refused(origin, server.url + "/slow").problem


def test_hanging_tls_handshake_is_cut_off_in_time(store: PackageStore) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        origin = Origin(store, UrlPolicy(hosts=("127.0.0.1",)), timeout_s=0.3)
        assert (
            "takes longer than 0.3 s" in refused(origin, f"https://127.0.0.1:{silent.getsockname()[1]}/x.zip").problem
        )


def test_number_of_parallel_fetches_is_limited(server: Server, store: PackageStore) -> None:
    def wait(handler: BaseHTTPRequestHandler) -> None:
        server.released.wait(30)
        handler.send_error(503)

    server.pages["/wait"] = wait
    origin = Origin(store, UrlPolicy(hosts=("127.0.0.1",)))
    package = Package(server.url + "/wait", SHA256)

    def fetch() -> None:
        with contextlib.suppress(ConfigError):
            origin.obtain(package)

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(server.asked) == 4)
    with pytest.raises(Unavailable):
        origin.obtain(package)
    server.released.set()
    for thread in threads:
        thread.join(10)
    assert origin.obtain(Package(server.url + "/good.zip", SHA256))


def eventually(test: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not test():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# ---------------------------------------------------------------------------------------------------- in the product


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


def api_of(tmp_path: Path, loop: FakeLoop, store: PackageStore) -> httpx.Client:
    options = ApiOptions(urls=UrlPolicy(hosts=("127.0.0.1",)))
    return client_of(make_api(tmp_path, loop, packages=store, options=options))


def body(url: str, sha256: str = SHA256, **more: Any) -> dict[str, Any]:
    return app_body("", appURL=url, packageSha256=sha256, **more)


def test_app_by_url_keeps_the_content_of_its_registration(
    server: Server, tmp_path: Path, loop: FakeLoop, store: PackageStore
) -> None:
    api = api_of(tmp_path, loop, store)
    answer = api.post("apps", json=body(server.url + "/good.zip"))
    assert answer.status_code == 201, answer.text
    assert answer.json()["config"]["appURL"] == server.url + "/good.zip"
    assert loop.scheduler.apps["demo"].package == Package(server.url + "/good.zip", SHA256, "package.zip")
    server.close()
    again = body(server.url + "/good.zip", description="the same package, its server is gone")
    assert api.put("apps/demo", json=again).status_code == 200
    assert store.stored() == [SHA256]


def test_failed_fetch_registers_nothing_and_names_the_field(
    server: Server, tmp_path: Path, loop: FakeLoop, store: PackageStore
) -> None:
    api = api_of(tmp_path, loop, store)
    for url, sha256, field in (("/none", SHA256, "appURL"), ("/good.zip", "b" * 64, "packageSha256")):
        answer = api.post("apps", json=body(server.url + url, sha256))
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)
    assert loop.scheduler.apps == {}


def test_invalid_app_is_refused_before_the_fetch(
    server: Server, tmp_path: Path, loop: FakeLoop, store: PackageStore
) -> None:
    api = api_of(tmp_path, loop, store)
    assert api.put("apps/demo", json=body(server.url + "/good.zip")).status_code == 404
    assert api.post("apps", json=body(server.url + "/good.zip")).status_code == 201
    assert api.post("apps", json=body(server.url + "/other.zip", "b" * 64)).status_code == 409
    assert server.asked == ["/good.zip"]


def test_fetch_does_not_block_other_requests(
    server: Server, tmp_path: Path, loop: FakeLoop, store: PackageStore
) -> None:
    def wait(handler: BaseHTTPRequestHandler) -> None:
        server.released.wait(30)
        handler.send_error(410)

    server.pages["/wait"] = wait
    origin = Origin(store, UrlPolicy(hosts=("127.0.0.1",)))
    app = make_api(tmp_path, loop, packages=store, origin=origin, options=ApiOptions(urls=UrlPolicy(("127.0.0.1",))))

    async def play() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1/api/v1") as api:
            first = asyncio.ensure_future(api.post("apps", json=body(server.url + "/wait")))
            while not server.asked:
                assert not first.done()
                await asyncio.sleep(0.005)
            uploaded = (await api.post("packages", content=GOOD)).json()["sha256"]
            assert (await api.post("apps", json=app_body(uploaded, name="other"))).status_code == 201
            assert (await api.get("apps")).status_code == 200
            server.released.set()
            assert "410 Gone" in (await first).text

    asyncio.run(asyncio.wait_for(play(), 30))


def make_listener(store: PackageStore, origin: Origin, *packages: Package) -> Any:
    apps = [App(f"a{number}", package) for number, package in enumerate(packages)]
    return create_artifacts(store, None, Refill(origin, lambda: apps))


def test_leader_without_a_package_fetches_it_when_an_agent_asks(
    server: Server, store: PackageStore, origin: Origin
) -> None:
    app = make_listener(store, origin, Package(server.url + "/good.zip", SHA256))

    async def play() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://agents.test") as agents:
            return await asyncio.gather(*(agents.get(f"/{SHA256}/package.zip") for _ in range(8)))

    answers = asyncio.run(play())
    assert [answer.content for answer in answers] == [GOOD] * 8
    assert server.asked == ["/good.zip"], "once for all of them"


def test_artifact_listener_fetches_only_packages_of_apps(server: Server, store: PackageStore, origin: Origin) -> None:
    gone = Package(server.url + "/none.zip", "b" * 64)
    app = make_listener(store, origin, gone, Package("package:sha256:" + "c" * 64, "c" * 64))
    agent = client_of(app, url="http://agents.test")
    for path in (f"/{SHA256}/package.zip", f"/{'b' * 64}/other.zip", f"/{'c' * 64}/package.zip"):
        assert agent.get(path).status_code == 404
    assert server.asked == []
    assert agent.get(f"/{'b' * 64}/package.zip").status_code == 503
    assert server.asked == ["/none.zip"]


def test_artifact_listener_reads_the_apps_at_most_once_a_second(store: PackageStore, origin: Origin) -> None:
    asked, now = list[int](), [0.0]

    def apps() -> list[App]:
        asked.append(1)
        return []

    refill = Refill(origin, apps, lambda: now[0])
    for _ in range(10):
        assert refill("d" * 64, "package.zip") is None
    now[0] += 1
    refill("d" * 64, "package.zip")
    assert len(asked) == 2


def test_artifact_listener_of_a_standby_is_unavailable(store: PackageStore, origin: Origin) -> None:
    def nobody() -> list[App]:
        raise Unavailable("no leader here")

    app = create_artifacts(store, None, Refill(origin, nobody))
    assert client_of(app, url="http://agents.test").get(f"/{SHA256}/package.zip").status_code == 503
