"""The documents of a provider that rotates its keys, is away, is slow, or answers falsely."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from tests.http_kit import QuietServer
from tests.oidc_kit import (
    AUDIENCE,
    CLIENT,
    EC_1,
    ISSUER,
    RSA_1,
    RSA_2,
    FakeProvider,
    answer,
    answer_json,
    public,
    rsa,
    sign,
)

from jobcloud.server.identity.oidc import provider as module
from jobcloud.server.identity.oidc.metadata import ProviderError
from jobcloud.server.identity.oidc.options import OidcOptions
from jobcloud.server.identity.oidc.provider import FRESH_S, LASTS_S, MAX_ANSWER_BYTES, RETRY_S, Provider
from jobcloud.server.identity.oidc.tokens import BadSignature, KeyUnknown, TokenError

DISCOVERY = "/.well-known/openid-configuration"


class World:
    """A provider in memory, and this program's view of it."""

    def __init__(self) -> None:
        self.fake = FakeProvider()
        self.provider = self.fake.provider()

    async def accepts(self, text: str) -> bool:
        """Whether a token is accepted. Raises other errors than those of an unknown or a wrong key."""
        try:
            await self.provider.claims(text)
        except (KeyUnknown, BadSignature):
            return False
        return True

    def fetched(self) -> tuple[int, int]:
        """The number of fetches of metadata and of keys since the last call."""
        found = (self.fake.calls[DISCOVERY], self.fake.calls["/jwks"])
        self.fake.calls.clear()
        return found


def played(story: Callable[[World], Awaitable[None]]) -> None:
    async def play() -> None:
        await story(World())

    asyncio.run(play())


def test_first_token_fetches_both_documents_and_the_second_one_none() -> None:
    async def story(world: World) -> None:
        assert await world.accepts(sign({}))
        assert world.fetched() == (1, 1)
        assert await world.accepts(sign({"n": 2}))
        assert world.fetched() == (0, 0)

    played(story)


def test_rotated_key_is_followed_and_the_withdrawn_one_is_refused() -> None:
    async def story(world: World) -> None:
        assert await world.accepts(sign({}))
        world.fake.keys = [public(RSA_2)]
        world.fake.now += RETRY_S
        assert await world.accepts(sign({}, RSA_2))
        assert not await world.accepts(sign({}))
        world.fetched()
        world.fake.now += RETRY_S
        assert not await world.accepts(sign({}))
        assert world.fetched() == (0, 1)

    played(story)


def test_both_keys_count_while_both_are_published() -> None:
    async def story(world: World) -> None:
        world.fake.keys = [public(RSA_1), public(RSA_2)]
        assert await world.accepts(sign({}))
        assert await world.accepts(sign({}, RSA_2))
        assert world.fetched() == (1, 1)

    played(story)


def test_new_key_under_an_old_id_is_followed() -> None:
    async def story(world: World) -> None:
        twin = rsa("k1")
        assert await world.accepts(sign({}))
        world.fake.keys = [public(twin)]
        world.fake.now += RETRY_S
        assert await world.accepts(sign({}, twin))
        assert not await world.accepts(sign({}))

    played(story)


def test_flood_of_unknown_keys_and_bad_signatures_fetches_once_in_ten_seconds() -> None:
    async def story(world: World) -> None:
        assert await world.accepts(sign({}))
        world.fetched()
        unknown = [sign({}, RSA_2, kid=f"made-up-{number}") for number in range(20)] + [sign({}, RSA_2, kid="k1")] * 20
        for second in range(int(RETRY_S) * 3):
            assert not any(await asyncio.gather(*(world.accepts(text) for text in unknown)))
            assert await world.accepts(sign({"second": second}))
            world.fake.now += 1
        assert world.fetched() == (0, 2)

    played(story)


def test_tokens_with_known_keys_are_checked_while_keys_are_fetched() -> None:
    async def story(world: World) -> None:
        assert await world.accepts(sign({}))
        world.fake.now += RETRY_S
        arrived, answer = asyncio.Event(), asyncio.Event()

        async def slow(request: httpx.Request) -> httpx.Response:
            arrived.set()
            await answer.wait()
            return world.fake.handle(request)

        world.provider._client = httpx.AsyncClient(transport=httpx.MockTransport(slow))
        waiting = asyncio.create_task(world.accepts(sign({}, RSA_2)))
        await arrived.wait()
        assert await world.accepts(sign({"n": 2}))
        assert not waiting.done()
        world.fake.keys.append(public(RSA_2))
        answer.set()
        assert await waiting

    played(story)


def test_fetch_ends_though_the_request_that_began_it_is_gone() -> None:
    async def story(world: World) -> None:
        waiting = asyncio.create_task(world.accepts(sign({})))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await world.accepts(sign({}))
        assert world.fetched() == (1, 1)

    played(story)


def test_token_without_a_key_id_is_accepted_with_one_key_and_refused_with_several() -> None:
    async def story(world: World) -> None:
        assert await world.accepts(sign({}, kid=None))
        world.fake.keys = [public(RSA_1), public(EC_1)]
        world.fake.now += FRESH_S + 1
        assert await world.accepts(sign({}, kid=None))
        world.fake.keys = [public(RSA_1), public(RSA_2)]
        world.fake.now += FRESH_S + 1
        assert not await world.accepts(sign({}, kid=None))

    played(story)


def test_withdrawn_key_is_refused_after_a_pause_without_requests() -> None:
    async def story(world: World) -> None:
        assert await world.accepts(sign({}))
        world.fake.keys = [public(RSA_2)]
        world.fake.now += FRESH_S + 1
        assert not await world.accepts(sign({}))

    played(story)


def test_known_keys_count_for_a_day_while_the_provider_is_away_and_not_longer() -> None:
    async def story(world: World) -> None:
        assert await world.accepts(sign({}))
        world.fetched()
        world.fake.answers = {path: httpx.ConnectError("refused") for path in (DISCOVERY, "/jwks")}
        for _ in range(5):
            world.fake.now += FRESH_S
            assert await world.accepts(sign({}))
        assert world.provider.warnings()
        with pytest.raises(ProviderError):
            await world.provider.claims(sign({}, RSA_2))
        world.fake.now = LASTS_S + 1
        with pytest.raises(ProviderError, match="cannot be reached"):
            await world.provider.claims(sign({}))
        world.fake.answers.clear()
        with pytest.raises(ProviderError):  # it is too early to ask again
            await world.provider.claims(sign({}))
        world.fake.now += RETRY_S
        assert await world.accepts(sign({}))
        assert world.provider.warnings() == ()

    played(story)


def test_provider_that_is_away_is_asked_once_in_ten_seconds() -> None:
    async def story(world: World) -> None:
        world.fake.answers = {DISCOVERY: httpx.ConnectError("refused")}
        for _ in range(30):
            with pytest.raises(ProviderError, match="cannot be reached"):
                await world.provider.claims(sign({}))
            world.fake.now += 1
        assert world.fetched() == (3, 0)

    played(story)


@pytest.mark.parametrize(
    ("false", "text"),
    [
        (lambda: answer(content=b"<!doctype html><p>Sign in to the network</p>"), "not answer with a JSON object"),
        (lambda: answer(content=b"[" * 100_000), "not answer with a JSON object"),
        (lambda: answer(content=b"\xff\xfe"), "not answer with a JSON object"),
        (lambda: answer(content=b'{"keys": "' + b"a" * MAX_ANSWER_BYTES + b'"}'), "longer than"),
        (lambda: answer(content=gzip.compress(b" " * (64 << 20)), content_encoding="gzip"), "compressed"),
        (lambda: answer(302, location="http://169.254.169.254/"), "answered 302"),
        (lambda: answer(500, b'{"error": "server_error"}'), "answered 500 'server_error'"),
        (lambda: httpx.ReadTimeout("slow"), "cannot be reached: slow"),
        (lambda: httpx.RemoteProtocolError("peer closed"), "cannot be reached: peer closed"),
    ],
)
@pytest.mark.parametrize("path", [DISCOVERY, "/jwks"])
def test_false_answer_is_refused_with_a_reason(
    path: str, false: Callable[[], httpx.Response | Exception], text: str
) -> None:
    async def story(world: World) -> None:
        world.fake.answers = {path: false()}
        with pytest.raises(ProviderError, match=text):
            await world.provider.claims(sign({}))
        (warning, *_) = world.provider.warnings()
        assert warning.startswith(f"the identity provider {ISSUER}: ")

    played(story)


def test_slow_answer_ends_at_the_limit_even_if_bytes_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_S", 0.05)

    async def drip() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.01)

    async def story(world: World) -> None:
        world.fake.answers = {DISCOVERY: httpx.Response(200, content=drip())}
        with pytest.raises(ProviderError, match="did not answer within"):
            await world.provider.metadata()

    played(story)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"issuer": "https://evil.example.org"}, "calls itself 'https://evil.example.org'"),
        ({"jwks_uri": "http://id.example.org/jwks"}, "jwks_uri is not an https URL"),
        ({"id_token_signing_alg_values_supported": ["HS256", "none"]}, "signs with none of the algorithms"),
    ],
)
def test_metadata_that_lies_is_refused(changes: dict[str, Any], text: str) -> None:
    async def story(world: World) -> None:
        world.fake.changes = changes
        with pytest.raises(ProviderError, match=text):
            await world.provider.claims(sign({}))

    played(story)


def test_algorithm_that_the_metadata_do_not_name_is_refused_without_a_fetch_of_keys() -> None:
    async def story(world: World) -> None:
        world.fake.algorithms = ["RS256"]
        with pytest.raises(TokenError, match="algorithm"):
            await world.provider.claims(sign({}, alg="PS256"))
        assert world.fetched() == (1, 0)

    played(story)


def test_unexpected_failure_is_a_problem_of_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        monkeypatch.setattr(module, "read_keys", lambda found: 1 // 0)
        with pytest.raises(ProviderError, match="the log has the reason"):
            await world.provider.claims(sign({}))

    played(story)


@pytest.mark.parametrize(
    ("secret", "methods", "header", "form"),
    [
        ("", None, False, {"client_id": CLIENT}),
        ("s:cret/ü", None, True, {}),
        ("s3cret", ["client_secret_post"], False, {"client_id": CLIENT, "client_secret": "s3cret"}),
        ("s3cret", ["client_secret_basic", "client_secret_post"], True, {}),
    ],
)
def test_client_proves_itself_as_the_provider_wants(
    secret: str, methods: list[str] | None, header: bool, form: dict[str, str]
) -> None:
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path != "/token":
            changes = {"token_endpoint_auth_methods_supported": methods} if methods else {}
            return answer_json(FakeProvider().metadata() | changes)
        seen.append(request)
        return answer_json({"access_token": "t"})

    async def play() -> None:
        options = OidcOptions(ISSUER, CLIENT, secret, AUDIENCE)
        await Provider(options, transport=httpx.MockTransport(handle)).exchange({"grant_type": "x"})

    asyncio.run(play())
    (request,) = seen
    assert ("authorization" in request.headers) == header
    assert dict(httpx.QueryParams(request.content.decode())) == {"grant_type": "x", **form}


def test_description_counts_the_usable_keys() -> None:
    async def story(world: World) -> None:
        world.fake.algorithms = ["RS256"]
        assert await world.provider.describe() == "keys: 1, algorithms: RS256"
        empty = FakeProvider()
        empty.answers = {"/jwks": answer(content=json.dumps({"keys": [{"kty": "oct"}]}).encode())}
        with pytest.raises(ProviderError, match="no key"):
            await empty.provider().describe()

    played(story)


def test_authority_of_the_settings_is_trusted_and_others_are_not(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with QuietServer(("127.0.0.1", 0), _Discovery) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        issuer = f"https://127.0.0.1:{server.server_port}"
        found = asyncio.run(Provider(OidcOptions(issuer, CLIENT, ca_file=tmp_path / "ca.pem")).metadata())
        assert found.issuer == issuer
        for wrong in (other, None):
            with pytest.raises(ProviderError, match="certificate verify failed"):
                asyncio.run(Provider(OidcOptions(issuer, CLIENT, ca_file=wrong)).metadata())
        server.shutdown()


class _Discovery(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        issuer = f"https://{self.headers['host']}"
        names = ("jwks_uri", "authorization_endpoint", "token_endpoint")
        body = json.dumps({"issuer": issuer} | {name: f"{issuer}/{name}" for name in names}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None: ...
