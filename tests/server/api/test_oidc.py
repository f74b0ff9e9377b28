"""Sign-in at an identity provider through the API: bearer tokens, the code flow, hostile callbacks."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from tests.api_kit import FakeLoop, client_of, issues, make_api
from tests.audit_kit import FakeDisk, auditing
from tests.oidc_kit import AUDIENCE, CLIENT, EC_1, ISSUER, NOW_S, RSA_2, FakeProvider, access_claims, answer_json, sign

from jobcloud.audit.service import Audit
from jobcloud.messages import PutAccess
from jobcloud.model import EVERY_TEAM, Member, Team, User
from jobcloud.server.api import Access, ApiOptions
from jobcloud.server.api.headers import Https, SecurityHeaders
from jobcloud.server.identity.oidc import sign_in

TOKEN = "t0ken"
COOKIE = "jobcloud-oidc"


class World:
    """An API with an identity provider."""

    def __init__(self, folder: Path, audit: Audit | None = None, **options: Any) -> None:
        self.fake = FakeProvider()
        self.loop = FakeLoop()
        self.api = make_api(
            folder,
            self.loop,
            options=ApiOptions(access=Access(token=TOKEN, hosts=("jobs.example.org",))),
            oidc=self.fake.provider(**options),
            clock=lambda: NOW_S * 1_000,
            audit=audit,
            core=lambda: self.loop.scheduler,
        )

    def put(self, record: Team | User) -> None:
        self.loop.command(lambda at: PutAccess(at, record))

    def member(self, subject: str, role: str = "viewer", team: str = EVERY_TEAM) -> None:
        self.put(Team(team, (Member(subject, role),)))

    def get(self, text: str, path: str = "apps") -> httpx.Response:
        with client_of(self.api, text) as client:
            return client.get(path)

    def browser(self, url: str = "http://127.0.0.1") -> httpx.Client:
        return client_of(self.api, url=url)

    def sessions(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(session.subject, session.groups) for session in self.loop.scheduler.directory.sessions.values()]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


# ------------------------------------------------------------------------------------------------------ bearer tokens


def test_token_gives_the_rights_of_its_person_and_groups(world: World) -> None:
    text = sign(access_claims())
    assert world.get(text, "cluster").status_code == 403
    world.member("user:oidc:alice")
    assert world.get(text, "cluster").status_code == 200
    world.member("group:dev")
    assert world.get(text, "cluster").status_code == 200
    world.member("group:ops")
    refused = world.get(text, "cluster")
    assert "user:oidc:alice has no role" in refused.json()["detail"]


def test_machine_has_the_rights_of_its_client_and_not_of_a_person_of_this_name(world: World) -> None:
    text = sign(access_claims(sub="batch", client_id="batch", groups=None), typ="at+jwt")
    world.member("user:oidc:batch")
    assert world.get(text, "cluster").status_code == 403
    world.member("user:oidc-client:batch")
    assert world.get(text, "cluster").status_code == 200


def test_local_user_and_person_of_the_provider_with_one_name_are_two(world: World) -> None:
    world.member("user:alice", "admin")
    assert world.get(sign(access_claims()), "cluster").status_code == 403


def test_administrator_can_disable_a_person_of_the_provider(world: World) -> None:
    world.member("user:oidc:alice")
    world.put(User("oidc:alice", 1, disabled=True))
    refused = world.get(sign(access_claims()))
    assert (refused.status_code, refused.json()["detail"]) == (401, "The user is disabled.")


def test_person_of_the_provider_is_disabled_over_the_api_and_never_has_a_password(world: World) -> None:
    assert sign_in_with(world).status_code == 303
    with client_of(world.api, TOKEN) as admin:
        for name in ("oidc:alice", "oidc-client:batch", "oidc:auth0|5f"):
            refused = admin.post("users", json={"name": name, "password": "a long enough password"})
            assert "password" in issues(refused)
            assert admin.post("users", json={"name": name}).status_code == 201
            assert admin.patch(f"users/{name}", json={"disabled": True}).status_code == 200
        assert admin.post("users", json={"name": "other:alice"}).status_code == 422
    assert world.sessions() == []
    assert world.get(sign(access_claims())).status_code == 401
    assert sign_in_with(world).status_code == 403


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (sign(access_claims(exp=NOW_S - 30)), "expired"),
        (sign(access_claims(nbf=NOW_S + 31)), "not yet valid"),
        (sign(access_claims(aud="other")), "audience"),
        (sign(access_claims(aud=CLIENT)), "audience"),
        (sign(access_claims(iss="https://other.example.org")), "issuer"),
        (sign(access_claims(), RSA_2), "no key"),
        (sign(access_claims(), RSA_2, kid="k1"), "signature"),
        (sign(access_claims(), EC_1, "ES256"), "no key"),
        (sign(access_claims(), None, "none"), "algorithm"),
        (sign(access_claims(), typ="logout+jwt"), "type"),
        (sign(access_claims(exp=None)), "'exp'"),
        (sign(access_claims(sub="a\nb")), "'sub'"),
    ],
)
def test_defective_token_is_refused_with_a_reason_and_without_the_token(world: World, text: str, reason: str) -> None:
    refused = world.get(text)
    assert refused.status_code == 401
    assert reason in refused.json()["detail"]
    assert text.split(".")[1] not in refused.text
    assert refused.headers["www-authenticate"].startswith("Bearer")


def test_opaque_token_is_refused_and_the_server_token_still_works(world: World) -> None:
    assert world.get("opaque").status_code == 401
    assert world.get(TOKEN, "cluster").status_code == 200
    assert world.fake.calls.total() == 0


def test_provider_that_is_away_is_no_refusal_and_keeps_nobody_else_out(world: World) -> None:
    world.fake.answers = {"/jwks": httpx.ConnectError("refused")}
    away = world.get(sign(access_claims()))
    assert (away.status_code, away.headers["retry-after"]) == (503, "10")
    assert world.get(TOKEN, "cluster").status_code == 200


def test_tokens_are_refused_without_an_audience(tmp_path: Path) -> None:
    world = World(tmp_path, audience="")
    assert world.get(sign(access_claims())).status_code == 401
    assert world.fake.calls.total() == 0


def test_command_line_learns_where_to_sign_in_without_an_identity(world: World, tmp_path: Path) -> None:
    expected = {
        "issuer": ISSUER, "clientId": "jobcloud-cli", "audience": AUDIENCE,
        "scopes": ["openid", "profile", "offline_access"],
    }  # fmt: skip
    assert world.get("", "sign-in").json() == {"oidc": expected}
    assert World(tmp_path / "other", cli_client="").get("", "sign-in").json() == {"oidc": None}
    with client_of(make_api(tmp_path / "none")) as client:
        assert client.get("sign-in").json() == {"oidc": None}
        assert client.get("http://127.0.0.1/login/oidc").status_code == 404


# ---------------------------------------------------------------------------------------------------------- code flow


def test_browser_signs_in_and_gets_a_session_with_the_groups_of_userinfo(world: World) -> None:
    with world.browser() as browser:
        start = browser.get("/login/oidc?next=/jobs%3Fteam=a")
        assert start.status_code == 303
        assert "no-store" in start.headers["cache-control"]
        cookie = start.headers["set-cookie"]
        assert cookie.startswith(f"{COOKIE}=")
        assert all(part in cookie for part in ("HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=600"))
        asked = parse_qs(urlsplit(start.headers["location"]).query)
        assert asked["redirect_uri"] == ["http://127.0.0.1/login/oidc/callback"]
        assert asked["scope"] == ["openid profile"]
        end = browser.get("/login/oidc/callback", params=world.fake.sign_in(start.headers["location"]))
    assert (end.status_code, end.headers["location"]) == (303, "/jobs?team=a")
    session, removed = end.headers.get_list("set-cookie")
    assert session.startswith("jobcloud=jcs_")
    assert removed.startswith(f"{COOKIE}=;")
    assert "Max-Age=0" in removed
    assert world.sessions() == [("user:oidc:alice", ("dev", "ops"))]
    (stored,) = world.loop.scheduler.directory.sessions.values()
    assert (stored.by, stored.expires_ms) == ("oidc", (NOW_S + 12 * 3_600) * 1_000)
    (form,) = world.fake.forms
    assert (form["client_id"], form["grant_type"]) == (CLIENT, "authorization_code")


def sign_in_with(world: World, **parameters: str) -> httpx.Response:
    """A whole sign-in. The parameters replace those with which the browser comes back."""
    with world.browser() as browser:
        given = world.fake.sign_in(browser.get("/login/oidc").headers["location"]) | parameters
        return browser.get("/login/oidc/callback", params=given)


def test_groups_of_the_id_token_need_no_userinfo(world: World) -> None:
    world.fake.id_claims = {"groups": ["admins"]}
    assert sign_in_with(world).status_code == 303
    assert world.sessions() == [("user:oidc:alice", ("admins",))]
    assert world.fake.calls["/userinfo"] == 0


def test_claims_of_the_id_token_count_before_those_of_userinfo(tmp_path: Path) -> None:
    world = World(tmp_path, name_claim="preferred_username")
    world.fake.id_claims = {"preferred_username": "alice"}
    world.fake.userinfo |= {"preferred_username": "mallory"}
    assert sign_in_with(world).status_code == 303
    assert world.sessions() == [("user:oidc:alice", ("dev", "ops"))]


def test_callback_that_arrives_twice_gets_the_same_session_and_uses_the_code_once(world: World) -> None:
    with world.browser() as browser:
        given = world.fake.sign_in(browser.get("/login/oidc").headers["location"])
        cookie = {"Cookie": f"{COOKIE}={browser.cookies[COOKIE]}"}

        async def twice() -> list[httpx.Response]:
            transport = httpx.ASGITransport(world.api)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                callback = [client.get("/login/oidc/callback", params=given, headers=cookie) for _ in range(3)]
                both = await asyncio.gather(*callback)
                return [*both, await client.get("/login/oidc/callback", params=given, headers=cookie)]

        answers = asyncio.run(twice())
    assert {answer.status_code for answer in answers} == {303}
    assert len({tuple(answer.headers.get_list("set-cookie")) for answer in answers}) == 1
    assert (world.fake.calls["/token"], len(world.sessions())) == (1, 1)


def test_callback_of_a_browser_that_left_still_ends(world: World) -> None:
    async def story() -> int:
        provider = world.fake.provider()
        sign_ins = sign_in.SignIns(provider, lambda: NOW_S * 1_000)
        address, cookie = await sign_ins.start("http://127.0.0.1", "/")
        given = sign_in.Callback(**world.fake.sign_in(address))
        started: list[sign_in.Person] = []

        async def start(person: sign_in.Person) -> str:
            started.append(person)
            return "session=1"

        left = asyncio.create_task(sign_ins.finish("http://127.0.0.1", cookie.split(";")[0], given, start))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        place, cookies = await sign_ins.finish("http://127.0.0.1", cookie.split(";")[0], given, start)
        assert (place, cookies[0]) == ("/", "session=1")
        return len(started)

    assert asyncio.run(story()) == 1


def test_callback_without_the_cookie_of_its_browser_is_refused_without_a_request(world: World) -> None:
    with world.browser() as attacker, world.browser() as victim:
        given = world.fake.sign_in(attacker.get("/login/oidc").headers["location"])
        assert victim.get("/login/oidc/callback", params=given).status_code == 403
        victim.get("/login/oidc")  # a sign-in of the victim's own does not help
        refused = victim.get("/login/oidc/callback", params=given)
    assert refused.status_code == 403
    assert "not started in this browser" in refused.text
    assert (world.fake.calls["/token"], world.sessions()) == (0, [])


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"nonce": "other"}, "another sign-in"),
        ({"nonce": None}, "another sign-in"),
        ({"aud": AUDIENCE}, "audience"),
        ({"aud": [CLIENT, "other"]}, "azp"),
        ({"iss": "https://other.example.org"}, "issuer"),
        ({"exp": NOW_S - 30}, "expired"),
        ({"iat": NOW_S + 31}, "future"),
        ({"sub": CLIENT, "azp": CLIENT}, "machine"),
    ],
)
def test_false_id_token_starts_no_session(world: World, claims: dict[str, Any], reason: str) -> None:
    world.fake.id_claims = claims
    world.fake.userinfo["sub"] = claims.get("sub", "alice")
    refused = sign_in_with(world)
    assert refused.status_code == 403
    assert reason in refused.text
    assert world.sessions() == []


def test_id_token_of_another_key_starts_no_session(world: World) -> None:
    world.fake.signer = RSA_2
    assert "no key" in sign_in_with(world).text
    assert world.sessions() == []


def test_userinfo_about_somebody_else_starts_no_session(world: World) -> None:
    world.fake.userinfo["sub"] = "mallory"
    assert "somebody else" in sign_in_with(world).text
    assert world.sessions() == []


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"error": "access_denied", "code": ""}, "access_denied"),
        ({"error": "<script>", "code": ""}, "did not sign you in."),
        ({"code": ""}, "did not sign you in."),
        ({"iss": "https://other.example.org"}, "another identity provider"),
        ({"code": "made-up"}, "answered 400 &#x27;invalid_grant&#x27;"),
        ({"state": "x"}, "not started in this browser"),
        ({"state": "é"}, "not started in this browser"),
    ],
)
def test_callback_with_an_error_is_explained_on_an_inert_page(
    world: World, parameters: dict[str, str], reason: str
) -> None:
    refused = sign_in_with(world, session_state="ignored", **parameters)
    assert refused.status_code == 403
    assert reason in refused.text
    assert "<script" not in refused.text
    assert refused.headers["content-security-policy"].startswith("default-src 'none'")
    assert world.sessions() == []


@pytest.mark.parametrize("cookie", ["", "x", "W10", "é", "WyJhIl0", "a" * 5_000, "eyJhIjoxfQ"])
def test_malformed_cookie_is_refused(world: World, cookie: str) -> None:
    with world.browser() as browser:
        headers = [(b"Cookie", f"{COOKIE}={cookie}".encode("latin-1"))]
        assert browser.get("/login/oidc/callback?code=a&state=b", headers=headers).status_code == 403


def test_two_cookies_of_one_name_are_refused(world: World) -> None:
    with world.browser() as browser:
        given = world.fake.sign_in(browser.get("/login/oidc").headers["location"])
        own = browser.cookies[COOKIE]
        headers = {"Cookie": f"{COOKIE}={own}; {COOKIE}={own}"}
        browser.cookies.clear()
        assert browser.get("/login/oidc/callback", params=given, headers=headers).status_code == 403


@pytest.mark.parametrize(
    "place",
    ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:x", "/\t/evil", "", "/" + "a" * 1_001],
)
def test_sign_in_leads_to_no_other_site(world: World, place: str) -> None:
    with world.browser() as browser:
        start = browser.get("/login/oidc", params={"next": place})
        end = browser.get("/login/oidc/callback", params=world.fake.sign_in(start.headers["location"]))
    assert (end.status_code, end.headers["location"]) == (303, "/")


def test_url_of_the_settings_is_that_of_the_browser(tmp_path: Path) -> None:
    world = World(tmp_path, url="https://jobs.example.org")
    with world.browser("http://jobs.example.org") as browser:
        start = browser.get("/login/oidc")
    assert parse_qs(urlsplit(start.headers["location"]).query)["redirect_uri"] == [
        "https://jobs.example.org/login/oidc/callback"
    ]
    assert start.headers["set-cookie"].startswith("__Host-jobcloud-oidc=")
    assert start.headers["set-cookie"].endswith("; Secure")


def test_sign_in_behind_a_proxy_that_ends_tls_has_an_https_address_and_a_secure_cookie(world: World) -> None:
    with client_of(SecurityHeaders(world.api, Https(by_proxy=True)), url="http://jobs.example.org") as browser:
        start = browser.get("/login/oidc")
    asked = parse_qs(urlsplit(start.headers["location"]).query)
    assert asked["redirect_uri"] == ["https://jobs.example.org/login/oidc/callback"]
    assert start.headers["set-cookie"].startswith(f"__Host-{COOKIE}=")
    assert "; Secure" in start.headers["set-cookie"]
    assert len(start.headers.get_list("content-security-policy")) == 1


def test_host_that_is_not_ours_starts_no_sign_in(world: World) -> None:
    with world.browser("http://evil.example") as browser:
        assert browser.get("/login/oidc").status_code == 421


def test_disabled_person_cannot_sign_in(world: World) -> None:
    world.put(User("oidc:alice", 1, disabled=True))
    refused = sign_in_with(world)
    assert (refused.status_code, world.sessions()) == (403, [])
    assert "disabled" in refused.text
    assert "Sign in again" not in refused.text


def test_provider_that_is_away_is_explained_to_the_person(world: World) -> None:
    world.fake.answers = {"/.well-known/openid-configuration": httpx.ConnectError("refused")}
    with world.browser() as browser:
        assert "cannot be reached" in browser.get("/login/oidc").text


def test_flood_of_callbacks_asks_the_provider_only_a_few_times_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_in, "MAX_AT_ONCE", 3)
    monkeypatch.setattr(sign_in, "MAX_REMEMBERED", 5)

    async def story() -> tuple[int, int]:
        asked = 0
        gate = asyncio.Event()

        async def handle(request: httpx.Request) -> httpx.Response:
            nonlocal asked
            if request.url.path == "/token":
                asked += 1
                await gate.wait()
                return answer_json({"error": "invalid_grant"}, 400)
            return world.fake.handle(request)

        provider = world.fake.provider()
        provider._transport = httpx.MockTransport(handle)
        sign_ins = sign_in.SignIns(provider, lambda: NOW_S * 1_000)

        async def start(person: sign_in.Person) -> str:
            raise AssertionError

        async def attempt() -> None:
            address, cookie = await sign_ins.start("http://127.0.0.1", "/")
            given = sign_in.Callback(**world.fake.sign_in(address))
            await sign_ins.finish("http://127.0.0.1", cookie.split(";")[0], given, start)

        attempts = [asyncio.create_task(attempt()) for _ in range(50)]
        while sum(task.done() for task in attempts) < 47 or asked < 3:
            await asyncio.sleep(0)
        most = asked
        gate.set()
        found = await asyncio.gather(*attempts, return_exceptions=True)
        assert all(isinstance(one, sign_in.SignInFailed) for one in found)
        return most, len(sign_ins._callbacks)

    assert asyncio.run(story()) == (3, 3)


def test_sign_out_leads_to_the_provider_and_back(world: World) -> None:
    with world.browser() as browser:
        out = browser.get("/logout/oidc")
        assert out.status_code == 303
        where = urlsplit(out.headers["location"])
        assert f"{where.scheme}://{where.netloc}{where.path}" == f"{ISSUER}/session/end"
        assert parse_qs(where.query) == {
            "client_id": [CLIENT],
            "post_logout_redirect_uri": ["http://127.0.0.1/login"],
        }
        world.fake.now = 10_000
        world.fake.changes = {"end_session_endpoint": None}
        assert browser.get("/logout/oidc").headers["location"] == "http://127.0.0.1/login"


# ---------------------------------------------------------------------------------------------------- the audit log


def test_sign_ins_are_recorded_with_the_person_and_without_the_code(tmp_path: Path) -> None:
    disk = FakeDisk()
    with auditing(disk) as audit:
        world = World(tmp_path, audit=audit)
        assert sign_in_with(world).status_code == 303
        world.put(User("oidc:alice", 1, disabled=True))
        assert sign_in_with(world).status_code == 403
        assert sign_in_with(world, code="", error="access_denied").status_code == 403
        assert audit.flush()
    intent, outcome, disabled, denied = disk.entries()[1:5]
    assert (intent["kind"], outcome["kind"], outcome["outcome"]) == ("intent", "outcome", "succeeded")
    assert outcome["details"] == {"tried": "user:oidc:alice"}
    assert outcome["changes"][0]["after"]["subject"] == "user:oidc:alice"
    assert (disabled["outcome"], disabled["details"]) == ("refused", {"tried": "user:oidc:alice"})
    assert "disabled" in disabled["reason"]
    assert (denied["outcome"], "details" in denied) == ("refused", False)
    assert "access_denied" in denied["reason"]
    assert {entry["route"] for entry in (intent, outcome, disabled, denied)} == {"/login/oidc/callback"}
    assert "code=" not in str(disk.files)
    assert "state=" not in str(disk.files)
