"""Single sign-on with a real OpenID provider: a browser, the command line, a machine; and the provider's failures."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Request
from fastapi.responses import HTMLResponse
from tests import oidc_kit
from tests.api_kit import FakeLoop, make_api, serving
from tests.oidc_kit import AUDIENCE, CONSOLE_SECRET, MACHINE_SECRET, RSA_1, RSA_2, Person, RealProvider
from tests.process_kit import started

from jobcloud.access import tokens as own_tokens
from jobcloud.client import cli, sign_in
from jobcloud.client.credentials import Credentials
from jobcloud.client.http import Client
from jobcloud.client.sign_in import Bearer, Http, SignInError
from jobcloud.dev.tcp_ports import free_port
from jobcloud.errors import ConfigError
from jobcloud.messages import PutAccess
from jobcloud.model import EVERY_TEAM, Member, Team
from jobcloud.server.api import Access, ApiOptions, guard
from jobcloud.server.api.authorization import RULES, Of, Rule
from jobcloud.server.clock import wall_ms
from jobcloud.server.identity.oidc import provider as provider_module
from jobcloud.server.identity.oidc.options import OidcOptions
from jobcloud.server.identity.oidc.provider import RETRY_S, Provider
from jobcloud.server.routes import Routes

pytestmark = pytest.mark.oidc


class Stage:
    """An API that trusts a real provider. Its clock for fetches moves only by hand."""

    def __init__(self, folder: Path, real: RealProvider) -> None:
        self.real = real
        self.now = 0.0
        self.loop = FakeLoop()
        self.cookies: list[str] = []
        options = OidcOptions(
            real.issuer,
            "jobcloud-console",
            CONSOLE_SECRET,
            AUDIENCE,
            cli_client="jobcloud-cli",
            scopes=("openid", "profile"),
        )
        self.provider = Provider(options, monotonic=lambda: self.now)
        self.api = make_api(
            folder / "api",
            self.loop,
            options=ApiOptions(access=Access(token="t0ken")),
            oidc=self.provider,
            clock=wall_ms,
            more_routes=[self._page()],
        )

    def member(self, subject: str) -> None:
        self.loop.command(lambda at: PutAccess(at, Team(EVERY_TEAM, (Member(subject, "viewer"),))))

    def _page(self) -> Routes:
        router = Routes()

        @router.get("/page")
        async def page(request: Request) -> HTMLResponse:
            self.cookies.append(request.headers.get("cookie", ""))
            return HTMLResponse("<!doctype html><title>Signed in</title>")

        return router


@pytest.fixture(autouse=True)
def _rules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(RULES, ("GET", "/page"), Rule(Of.NONE))
    monkeypatch.setattr(guard, "OPEN_PATHS", guard.OPEN_PATHS | {"/page"})
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    for name in ("JOBCLOUD_TOKEN", "JOBCLOUD_SERVER", "DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealProvider]:
    if problem := oidc_kit.missing():
        pytest.skip(problem)
    with started([RealProvider(tmp_path_factory.mktemp("provider") / "p", free_port(), RSA_1)]) as (server,):
        yield server


@pytest.fixture
def stage(tmp_path: Path, real: RealProvider) -> Stage:
    return Stage(tmp_path, real)


@pytest.fixture
def url(stage: Stage) -> Iterator[str]:
    with serving(stage.api) as url:
        yield url


@pytest.fixture
def alice() -> Iterator[Person]:
    person = Person()
    yield person
    person.close()


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(url: str, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command against the server: its exit code, its output, its errors."""

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["--server", url, *arguments])
        found = capsys.readouterr()
        return int(ended.value.code or 0), found.out, found.err

    return call


def machine_token(issuer: str, **parameters: str) -> dict[str, Any]:
    form = {"grant_type": "client_credentials", "scope": "api", **parameters}
    answer = httpx.post(f"{issuer}/token", data=form, auth=("batch", MACHINE_SECRET.replace(" ", "+")), trust_env=False)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def status(url: str, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.get(f"{url}/api/v1/cluster", headers=headers, trust_env=False).status_code


def test_discovery_finds_the_keys_of_the_provider(stage: Stage) -> None:
    assert asyncio.run(stage.provider.describe()).startswith("keys: 1, algorithms: ")


def test_person_signs_in_and_the_groups_come_from_userinfo(stage: Stage, url: str, alice: Person) -> None:
    assert "Signed in" in alice.open(f"{url}/login/oidc?next=/page").text
    (session,) = stage.loop.scheduler.directory.sessions.values()
    assert (session.subject, session.groups, session.by) == ("user:oidc:alice", ("dev", "ops"), "oidc")
    assert "oidc" not in stage.cookies[0]


@pytest.mark.browser
def test_real_browser_signs_in_and_keeps_only_the_cookie_of_the_session(tmp_path: Path) -> None:
    if problem := oidc_kit.missing():
        pytest.skip(problem)
    with started([RealProvider(tmp_path / "provider", free_port(), RSA_1, scripted=True)]) as (server,):
        stage = Stage(tmp_path, server)
        with serving(stage.api) as url:
            argv = [
                "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                f"--user-data-dir={tmp_path / 'profile'}", "--remote-debugging-port=0",
                f"{url}/login/oidc?next=/page",
            ]  # fmt: skip
            browser = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                arrived = threading.Event()
                while not stage.cookies:
                    assert browser.poll() is None
                    arrived.wait(0.1)
            finally:
                browser.kill()
                browser.wait()
    (session,) = stage.loop.scheduler.directory.sessions.values()
    assert (session.subject, session.groups) == ("user:oidc:alice", ("dev", "ops"))
    # The cookies of the provider are there too, because browsers ignore the port.
    cookies = dict(pair.split("=", 1) for pair in stage.cookies[0].split("; "))
    cookie = own_tokens.parse(cookies["jobcloud"])
    assert cookie is not None
    assert (cookie.id, cookie.hash) == (session.id, session.hash)
    assert "jobcloud-oidc" not in cookies


def test_command_line_signs_in_on_another_device_and_out(
    stage: Stage, url: str, run: Run, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        """The person acts between the second and the third poll."""
        waits.append(seconds)
        if len(waits) == 3:
            assert alice.open(shown[0]).text == "<title>Done</title>"

    def by_device(site: sign_in.Site, http: Http, show: Callable[..., None]) -> dict[str, Any]:
        def both(found: Mapping[str, str]) -> None:
            shown.append(found["verification_uri_complete"])
            show(found)

        return original(site, http, both, sleep)

    original = sign_in.by_device
    monkeypatch.setattr(sign_in, "by_device", by_device)
    code, out, _ = run("login", "--device")
    assert code == 0
    assert shown[0] in out
    assert "signed in" in out
    assert waits == [5.0, 5.0, 5.0], "the provider names no interval"
    credentials = Credentials(url)
    assert credentials.path.stat().st_mode & 0o777 == 0o600
    saved = credentials.read()
    assert saved is not None
    assert saved.refresh_token
    code, _, error = run("cluster")
    assert (code, "user:oidc:alice has no role" in error) == (5, True)
    stage.member("group:ops")
    assert run("cluster")[0] == 0
    assert "signed out" in run("logout")[1]
    assert credentials.read() is None
    credentials.write(replace(saved, expires_at=0))
    code, _, error = run("cluster")
    assert (code, "sign in again: jobcloud login" in error) == (2, True)
    assert credentials.read() is None


def signed_in(url: str, alice: Person) -> Credentials:
    """The tokens of a sign-in by a browser on this machine."""
    with Client(url) as client:
        site = sign_in.site_of(client, Http())
    pages: list[threading.Thread] = []

    def show(address: str) -> None:
        pages.append(threading.Thread(target=alice.open, args=(address,)))
        pages[0].start()

    answer = sign_in.by_browser(site, Http(), show)
    pages[0].join()
    credentials = Credentials(url)
    credentials.write(sign_in.tokens_of(answer, site, url, 0))
    return credentials


def test_command_line_signs_in_with_a_browser_on_this_machine(stage: Stage, url: str, alice: Person) -> None:
    stage.member("user:oidc:alice")
    saved = signed_in(url, alice).read()
    assert saved is not None
    assert saved.refresh_token
    assert status(url, saved.access_token) == 200


def test_two_commands_use_a_refresh_token_once_and_the_sign_in_lives_on(stage: Stage, url: str, alice: Person) -> None:
    stage.member("user:oidc:alice")
    credentials = signed_in(url, alice)
    first = credentials.read()
    assert first is not None
    clients = [Bearer(Credentials(url)) for _ in range(4)]
    found: list[str] = []
    threads = [threading.Thread(target=lambda client=client: found.append(client())) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert found[0] != first.access_token
    second = credentials.read()
    assert second is not None
    assert second.refresh_token not in ("", first.refresh_token)
    credentials.write(replace(second, expires_at=0))
    third = Bearer(Credentials(url))()
    assert third not in (first.access_token, second.access_token)
    assert status(url, third) == 200


def test_refresh_token_that_was_used_twice_ends_in_a_new_sign_in(url: str, alice: Person) -> None:
    credentials = signed_in(url, alice)
    first = credentials.read()
    assert first is not None
    Bearer(credentials)()
    credentials.write(first)
    with pytest.raises(ConfigError, match="sign in again"):
        Bearer(credentials)()
    assert credentials.read() is None


def test_machine_needs_a_token_for_the_audience_of_the_api(stage: Stage, url: str) -> None:
    token = machine_token(stage.real.issuer, resource=AUDIENCE)["access_token"]
    assert status(url, token) == 403
    stage.member("user:oidc-client:batch")
    assert status(url, token) == 200
    opaque = machine_token(stage.real.issuer)["access_token"]
    assert status(url, opaque) == 401


def test_opaque_token_is_explained_at_the_sign_in() -> None:
    site = sign_in.Site("https://id.example.org", "cli", (), "api", "", "", "", "")
    with pytest.raises(SignInError, match="must issue JWTs for the audience 'api'"):
        sign_in.tokens_of({"access_token": "opaque"}, site, "http://127.0.0.1", 0)


def test_rotated_keys_are_followed_and_a_provider_that_is_down_or_slow_delays_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if problem := oidc_kit.missing():
        pytest.skip(problem)
    monkeypatch.setattr(provider_module, "ANSWER_S", 1.0)
    port = free_port()
    with started([RealProvider(tmp_path / "first", port, RSA_1)]) as (first,):
        stage = Stage(tmp_path, first)
        stage.member("user:oidc-client:batch")
        with serving(stage.api) as url:
            old = machine_token(first.issuer, resource=AUDIENCE)["access_token"]
            assert status(url, old) == 200
            first.kill()
            # Known keys count while the provider is down; a sign-in of a browser cannot begin after a fetch failed.
            stage.now += 1_000
            assert [status(url, old) for _ in range(3)] == [200, 200, 200]
            with started([RealProvider(tmp_path / "second", port, RSA_2)]) as (second,):
                new = machine_token(second.issuer, resource=AUDIENCE)["access_token"]
                stage.now += RETRY_S
                assert status(url, new) == 200
                assert status(url, old) == 401
                second.pause()
                stage.now += 1_000
                # The first request waits for the fetch, which ends at the limit. The others do not wait.
                assert [status(url, new) for _ in range(3)] == [200, 200, 200]
                assert status(url, "t0ken") == 200
                assert stage.provider.warnings()
                second.resume()
                stage.now += RETRY_S
                assert status(url, machine_token(second.issuer, resource=AUDIENCE)["access_token"]) == 200
                assert status(url, old) == 401


def test_callback_that_is_repeated_uses_the_code_once(stage: Stage, url: str, alice: Person) -> None:
    first = httpx.get(f"{url}/login/oidc?next=/page", trust_env=False)
    cookie = first.headers["set-cookie"].partition(";")[0]
    callbacks: list[httpx.URL] = []

    with httpx.Client(
        trust_env=False, event_hooks={"request": [lambda request: callbacks.append(request.url)]}
    ) as probe:
        alice._browser.close()
        alice._browser = probe
        alice.open(first.headers["location"])
    callback = next(each for each in callbacks if each.path == "/login/oidc/callback")
    answers = [httpx.get(callback, headers={"Cookie": cookie}, trust_env=False) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {303}
    assert len({answer.headers["set-cookie"] for answer in answers}) == 1
    assert len(stage.loop.scheduler.directory.sessions) == 1
