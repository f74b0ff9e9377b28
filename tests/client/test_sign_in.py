"""Sign-in of the command line: polls, refreshes, the file of tokens, and providers that answer falsely."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest
from tests.api_kit import InProcess, make_api
from tests.oidc_kit import FakeProvider

from jobcloud.client import credentials as credentials_module
from jobcloud.client.credentials import Credentials, Tokens
from jobcloud.client.http import Client
from jobcloud.client.sign_in import Bearer, Http, SignInError, Site, by_device, site_of, tokens_of
from jobcloud.errors import ConfigError

ISSUER = "https://id.example.org"
SERVER = "https://jobs.example.org"
SITE = Site(ISSUER, "cli", ("openid",), "urn:jobcloud", f"{ISSUER}/token", f"{ISSUER}/auth", f"{ISSUER}/device", "")
JWT = "eyJhbGciOiJSUzI1NiJ9.e30.c2ln"
DEVICE = {"device_code": "d", "user_code": "ABCD-EFGH", "verification_uri": f"{ISSUER}/go", "expires_in": 600}
SIGNED_IN = {"access_token": JWT, "refresh_token": "r2", "expires_in": 600}
PENDING = (400, {"error": "authorization_pending"})


class Scripted:
    """A provider that answers in a fixed order. `forms` are those of the token endpoint."""

    def __init__(self, *answers: tuple[int, Any], device: Any = DEVICE) -> None:
        self.answers = list(answers)
        self.device = device
        self.forms: list[dict[str, str]] = []
        self.http = Http(httpx.MockTransport(self.handle))

    def handle(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.startswith("/.well-known"):
            return self._answer((200, {"issuer": ISSUER, "token_endpoint": f"{ISSUER}/token"}))
        if request.url.path == "/device":
            return self._answer((200, self.device))
        self.forms.append(dict(parse_qsl(request.content.decode())))
        return self._answer(self.answers.pop(0))

    @staticmethod
    def _answer(given: tuple[int, Any]) -> httpx.Response:
        status, body = given
        if isinstance(body, Exception):
            raise body
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return httpx.Response(status, stream=httpx.ByteStream(content))


def polled(provider: Scripted) -> tuple[dict[str, Any], list[float]]:
    """The answer, and the waits before each poll."""
    waits: list[float] = []
    return by_device(SITE, provider.http, lambda found: None, waits.append), waits


def test_device_is_polled_at_the_default_interval_and_never_again_after_success() -> None:
    provider = Scripted(PENDING, PENDING, (200, SIGNED_IN), (400, {"error": "invalid_grant"}))
    answer, waits = polled(provider)
    assert answer == SIGNED_IN
    assert waits == [5.0, 5.0, 5.0]
    assert len(provider.forms) == 3
    assert provider.forms[0]["resource"] == "urn:jobcloud"


def test_interval_of_the_provider_counts_and_slow_down_adds_five_seconds() -> None:
    slow = (400, {"error": "slow_down"})
    _, waits = polled(Scripted(slow, PENDING, slow, (200, SIGNED_IN), device=DEVICE | {"interval": 2}))
    assert waits == [2.0, 7.0, 7.0, 12.0]


@pytest.mark.parametrize("interval", [0, -1, "1", True, None, 10**9, float("1e400")])
def test_foolish_interval_makes_no_flood_and_no_endless_wait(interval: object) -> None:
    _, waits = polled(Scripted((200, SIGNED_IN), device=DEVICE | {"interval": interval}))
    assert 5.0 <= waits[0] <= 60.0


@pytest.mark.parametrize("error", ["access_denied", "expired_token", "invalid_grant", "nonsense", None])
def test_refusal_ends_the_polls(error: str | None) -> None:
    provider = Scripted(PENDING, (400, {"error": error}))
    with pytest.raises(SignInError, match="refused"):
        polled(provider)
    assert len(provider.forms) == 2


def test_request_that_broke_is_not_repeated() -> None:
    provider = Scripted((200, httpx.ReadTimeout("slow")), (200, SIGNED_IN))
    with pytest.raises(SignInError, match="cannot be reached"):
        polled(provider)
    assert len(provider.forms) == 1


def test_polls_end_with_the_life_of_the_code() -> None:
    provider = Scripted(*[PENDING] * 50, device=DEVICE | {"expires_in": 60})
    with pytest.raises(SignInError, match="in time"):
        polled(provider)
    assert len(provider.forms) == 12


@pytest.mark.parametrize("device", [{}, {"device_code": 7, "user_code": "A"}, {"device_code": "d"}, []])
def test_false_answer_of_the_device_endpoint_is_refused(device: Any) -> None:
    with pytest.raises(SignInError):
        polled(Scripted(device=device))


@pytest.mark.parametrize("body", [b"<html>", b"", b"[]", b"\xff", b"[" * 99_999, b'"' + b"a" * (1 << 20) + b'"'])
def test_false_answer_of_the_token_endpoint_is_refused(body: bytes) -> None:
    provider = Scripted((200, body))

    def sign_in() -> Tokens:
        return tokens_of(polled(provider)[0], SITE, SERVER, 0)

    with pytest.raises(SignInError):
        sign_in()
    assert len(provider.forms) == 1


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"access_token": 7},
        {"access_token": "opaque"},
        {"access_token": JWT, "refresh_token": 7},
        {"access_token": "é.é.é"},
    ],
)
def test_answer_without_a_usable_token_is_refused(answer: dict[str, Any]) -> None:
    with pytest.raises(SignInError):
        tokens_of(answer, SITE, SERVER, 0)


# ------------------------------------------------------------------------------------------------- the server's word


def client_of(tmp_path: Path, url: str = "http://127.0.0.1", **options: Any) -> Client:
    fake = FakeProvider()
    return Client(url, transport=InProcess(make_api(tmp_path, oidc=fake.provider(**options))))


def metadata(**changes: Any) -> Http:
    found = FakeProvider().metadata() | {"device_authorization_endpoint": f"{ISSUER}/device"} | changes
    return Http(
        httpx.MockTransport(lambda request: httpx.Response(200, stream=httpx.ByteStream(json.dumps(found).encode())))
    )


def test_server_names_the_provider(tmp_path: Path) -> None:
    site = site_of(client_of(tmp_path), metadata())
    assert (site.issuer, site.client_id, site.audience) == (ISSUER, "jobcloud-cli", "urn:jobcloud")
    assert site.scopes == ("openid", "profile", "offline_access")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"issuer": "https://evil.example"}, "calls itself"),
        ({"token_endpoint": "http://id.example.org/token"}, "not an https URL"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "not an https URL"),
    ],
)
def test_metadata_that_lie_are_refused(tmp_path: Path, changes: dict[str, str], text: str) -> None:
    with pytest.raises(SignInError, match=text):
        site_of(client_of(tmp_path), metadata(**changes))


def test_server_without_a_provider_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no identity provider"):
        site_of(client_of(tmp_path, cli_client=""), metadata())


def test_tokens_are_not_sent_over_plain_http_to_another_machine() -> None:
    with pytest.raises(ConfigError, match="everybody on the way"):
        site_of(Client("http://jobs.example.org"), metadata())


# ---------------------------------------------------------------------------------------------- tokens and their file


def saved(expires_at: float = 0.0, refresh_token: str = "r1") -> Tokens:
    return Tokens(SERVER, ISSUER, "cli", "urn:jobcloud", JWT, expires_at, refresh_token)


@pytest.fixture
def credentials(tmp_path: Path) -> Credentials:
    return Credentials(SERVER, {"XDG_CONFIG_HOME": str(tmp_path)})


def bearer(credentials: Credentials, provider: Scripted, now: float = 1_000.0) -> Callable[[], str]:
    return Bearer(credentials, provider.http, lambda: now)


def test_file_is_private_and_of_one_server(credentials: Credentials, tmp_path: Path) -> None:
    credentials.write(saved())
    assert credentials.path.stat().st_mode & 0o777 == 0o600
    assert credentials.folder.stat().st_mode & 0o777 == 0o700
    assert credentials.read() == saved()
    assert Credentials(f"{SERVER}/", {"XDG_CONFIG_HOME": str(tmp_path)}).read() == saved()
    for other in (
        "https://jobs.example.org:444",
        "http://jobs.example.org",
        "https://JOBS.example.org.evil",
        "\ud800",
        "",
    ):
        assert Credentials(other, {"XDG_CONFIG_HOME": str(tmp_path)}).read() is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "server": 7}', "null", "\udcff"])
def test_damaged_file_counts_as_none(credentials: Credentials, content: str) -> None:
    credentials.write(saved())
    credentials.path.write_text(content, errors="surrogateescape")
    assert credentials.read() is None


def test_file_that_others_can_read_counts_as_none(credentials: Credentials) -> None:
    credentials.write(saved())
    credentials.path.chmod(0o644)
    assert credentials.read() is None


def test_token_that_still_lives_needs_no_request(credentials: Credentials) -> None:
    credentials.write(saved(expires_at=1_061))
    provider = Scripted()
    assert bearer(credentials, provider)() == JWT
    assert provider.forms == []


def test_token_is_replaced_a_minute_before_its_end_and_saved_at_once(credentials: Credentials) -> None:
    credentials.write(saved(expires_at=1_059))
    provider = Scripted((200, SIGNED_IN))
    token = bearer(credentials, provider)
    assert [token(), token()] == [JWT, JWT]
    assert [form["refresh_token"] for form in provider.forms] == ["r1"]
    found = credentials.read()
    assert found is not None
    assert (found.refresh_token, found.expires_at) == ("r2", 1_600.0)


def test_refresh_token_is_kept_if_the_provider_sends_no_new_one(credentials: Credentials) -> None:
    credentials.write(saved())
    bearer(credentials, Scripted((200, {"access_token": JWT})))()
    found = credentials.read()
    assert found is not None
    assert found.refresh_token == "r1"


def test_sign_in_that_has_ended_is_removed_with_advice(credentials: Credentials) -> None:
    credentials.write(saved())
    with pytest.raises(ConfigError, match="jobcloud login"):
        bearer(credentials, Scripted((400, {"error": "invalid_grant"})))()
    assert credentials.read() is None
    credentials.write(saved(refresh_token=""))
    with pytest.raises(ConfigError, match="jobcloud login"):
        bearer(credentials, Scripted())()


@pytest.mark.parametrize(
    "given", [(500, {}), (503, {"error": "temporarily_unavailable"}), (200, httpx.ConnectError("down"))]
)
def test_provider_that_is_away_costs_no_sign_in(credentials: Credentials, given: tuple[int, Any]) -> None:
    credentials.write(saved())
    with pytest.raises(SignInError):
        bearer(credentials, Scripted(given))()
    assert credentials.read() == saved()


def test_command_that_waited_for_another_one_uses_its_tokens(credentials: Credentials) -> None:
    credentials.write(saved())
    provider = Scripted()
    token = bearer(credentials, provider)
    credentials.write(saved(expires_at=9_999))
    assert token() == JWT
    assert provider.forms == []


def test_lock_that_another_command_holds_for_long_is_an_error(
    credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials_module, "_LOCK_S", 0.0)
    with credentials.locked(), pytest.raises(ConfigError, match="another command"), credentials.locked():
        pass


def test_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    blocked = Credentials(SERVER, {"XDG_CONFIG_HOME": str(tmp_path / "file")})
    assert blocked.read() is None
    with pytest.raises(ConfigError, match="XDG_CONFIG_HOME"):
        blocked.write(saved())


def test_client_asks_for_the_token_with_each_request(tmp_path: Path) -> None:
    seen: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        return httpx.Response(200, json={})

    tokens = iter(["a", "b"])
    with Client("http://127.0.0.1", lambda: next(tokens), transport=httpx.MockTransport(handle)) as client:
        client.health()
        client.health()
    assert seen == ["Bearer a", "Bearer b"]
