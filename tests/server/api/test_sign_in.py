"""Sign-in, sign-out, sessions and their cookies; requests that pages of other sites cause."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from tests.api_kit import FakeLoop, client_of, issues, make_api

from jobcloud.access import tokens
from jobcloud.access.directory import Directory
from jobcloud.messages import Command, Kind, PutAccess, RemoveAccess
from jobcloud.model import EVERY_TEAM, AccessToken, Member, Role, Session, Team, User, changed
from jobcloud.server.api import Access, ApiOptions, SignIn
from jobcloud.server.api.authorization import RULES, Of
from jobcloud.server.api.identities import Sessions
from jobcloud.server.api.pages.texts import TEXTS, language_of
from jobcloud.server.console.paths import FILE, SHELLS
from jobcloud.server.identity import sign_in as sign_in_module
from jobcloud.server.identity.links import LINK_MS
from jobcloud.server.identity.passwords import hash_password
from jobcloud.server.identity.sessions import NOTE_MS, SessionOptions, start_session
from jobcloud.server.identity.sign_in_limits import PER_ADDRESS
from jobcloud.server.routes import routes_of

TOKEN = "t0ken-of-the-test"
ORIGIN = "http://127.0.0.1"
#: the headers of a page of this server
OWN = {"Origin": ORIGIN, "Sec-Fetch-Site": "same-origin"}
SCRIPT = {**OWN, "Jobcloud-Request": "1"}
PASSWORD = "correct horse <&\"'>"
HASH = hash_password(PASSWORD)


@pytest.fixture
def loop() -> FakeLoop:
    loop = FakeLoop()
    loop.subscribe()
    for record in (
        User("ann", loop.now, HASH),
        User("bob", loop.now, HASH),
        User("eve", loop.now, HASH, disabled=True),
        User("sso", loop.now),
        Team(EVERY_TEAM, (Member("user:bob", "admin"), Member("user:ann", "viewer"))),
    ):
        loop.feed(PutAccess(loop.now, record, create=True))
    return loop


def served(folder: Path, loop: FakeLoop, **options: Any) -> Any:
    wanted = ApiOptions(access=Access(token=TOKEN), **options)
    return make_api(folder, loop, options=wanted, clock=lambda: loop.now)


@pytest.fixture
def app(tmp_path: Path, loop: FakeLoop) -> Any:
    return served(tmp_path, loop)


def browser(app: Any, **headers: str) -> httpx.Client:
    client = client_of(app, url=ORIGIN)
    client.headers.update(headers)
    return client


def submit(client: httpx.Client, path: str, fields: dict[str, str], **headers: str) -> httpx.Response:
    return client.post(path, data=fields, headers={**OWN, **headers})


def sign_in(client: httpx.Client, user: str = "ann", password: str = PASSWORD) -> httpx.Response:
    return submit(client, "/login", {"user": user, "password": password})


@pytest.fixture
def ann(app: Any) -> httpx.Client:
    client = browser(app)
    assert sign_in(client).status_code == 303
    return client


def form_token(client: httpx.Client) -> str:
    found = re.search(r'name="token" value="([0-9a-f]{64})"', client.get("/account").text)
    assert found is not None
    return found[1]


# ---------------------------------------------------------------------------------------------------------- sign in


def test_browser_without_a_session_is_sent_to_the_sign_in(app: Any) -> None:
    answer = browser(app).get("/account")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert "set-cookie" not in answer.headers


def test_sign_in_by_password_shows_who_has_signed_in(app: Any) -> None:
    client = browser(app)
    answer = sign_in(client)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert answer.headers["cache-control"] == "no-store"
    page = client.get("/account")
    assert page.status_code == 200
    assert "<strong>user:ann</strong>, by password" in page.text
    assert client.get("/api/v1/jobs").status_code == 200
    assert client.post("/api/v1/cluster/pause", headers=SCRIPT).status_code == 403, "a viewer"


def test_wrong_password_an_unknown_and_a_disabled_user_get_the_same_answer(app: Any) -> None:
    answers = [
        sign_in(browser(app), user, password)
        for user, password in (
            ("ann", "wrong"), ("ann", ""), ("ann", PASSWORD + "x"), ("ann", "x" * 1_001), ("nobody", PASSWORD),
            ("eve", PASSWORD), ("sso", ""), ("sso", "x"), ("", ""),
        )
    ]  # fmt: skip
    assert {answer.status_code for answer in answers} == {401}
    assert not any("set-cookie" in answer.headers for answer in answers)
    texts = {re.sub(r'value="[^"]*"|\s+autofocus', "", answer.text) for answer in answers}
    assert len({re.sub(r"\s+", " ", text) for text in texts}) == 1
    assert TEXTS["en"]["wrong"] in texts.pop()


def test_each_refusal_checks_one_password(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []

    def verify(encoded: str, text: str) -> bool:
        checked.append(encoded)
        return encoded == HASH

    monkeypatch.setattr(sign_in_module, "verify", verify)
    for user in ("nobody", "eve", "sso", "ann"):
        checked.clear()
        status = sign_in(browser(app), user).status_code
        assert (len(checked), status) == (1, 303 if user == "ann" else 401), user


@pytest.mark.parametrize(
    "after", [User("ann", 0, hash_password("another password")), User("ann", 0, HASH, disabled=True)]
)
def test_change_of_a_user_during_the_check_of_the_old_password_refuses_the_sign_in(
    app: Any, loop: FakeLoop, monkeypatch: pytest.MonkeyPatch, after: User
) -> None:
    """Otherwise, a sign-in that waited would outlive the end of all sessions."""
    real = sign_in_module.password_holds

    def slow(known: User | None, password: str) -> bool:
        loop.feed(PutAccess(loop.now, changed(after, created_ms=loop.now)))
        return real(known, password)

    monkeypatch.setattr("jobcloud.server.api.pages.routes.password_holds", slow)
    assert sign_in(browser(app)).status_code == 401
    assert loop.scheduler.directory.sessions == {}


def test_password_and_name_are_escaped_and_the_password_never_comes_back(app: Any) -> None:
    page = sign_in(browser(app), '"><script>alert(1)</script>', "s3cret-typed").text
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "s3cret-typed" not in page


def test_sign_in_with_a_session_replaces_it(app: Any, loop: FakeLoop, ann: httpx.Client) -> None:
    before = dict(ann.cookies)
    assert sign_in(ann, "bob").status_code == 303
    assert dict(ann.cookies) != before
    assert [found.subject for found in loop.scheduler.directory.sessions.values()] == ["user:bob"]


def test_cookie_that_a_stranger_has_planted_is_not_taken_over(app: Any, loop: FakeLoop) -> None:
    planted = tokens.make(tokens.SESSION_PREFIX, bytes(38))
    client = browser(app)
    client.cookies.set("jobcloud", planted.text, domain="127.0.0.1")
    answer = client.post(
        "/login", content=urlencode({"user": "ann", "password": PASSWORD}),
        headers={**OWN, "Content-Type": "application/x-www-form-urlencoded"},
    )  # fmt: skip
    assert answer.status_code == 303
    assert planted.id not in loop.scheduler.directory.sessions


def test_too_many_tries_are_refused_before_any_password_is_checked(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sign_in_module, "verify", lambda encoded, text: False)
    client = browser(app)
    statuses = [sign_in(client, f"user-{number}").status_code for number in range(PER_ADDRESS.tries + 2)]
    assert statuses == [401] * PER_ADDRESS.tries + [429] * 2
    monkeypatch.undo()
    refused = sign_in(client)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
    assert TEXTS["en"]["too_many"] in refused.text
    assert client_of(app, TOKEN).get("jobs").status_code == 200, "tokens have no such limit"


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        ("user=ann", "application/x-www-form-urlencoded", 422),
        ("user=ann&user=bob&password=x", "application/x-www-form-urlencoded", 422),
        ("user=ann&password=x&more=1", "application/x-www-form-urlencoded", 422),
        ("", "application/x-www-form-urlencoded", 422),
        ("user=%ff%fe&password=x", "application/x-www-form-urlencoded", 400),
        ("&".join(["a=1"] * 1_000), "application/x-www-form-urlencoded", 400),
        ("user=ann&password=" + "x" * 9_000, "application/x-www-form-urlencoded", 413),
        ("user=ann&password=x", "text/plain", 415),
        ('{"user": "ann", "password": "x"}', "application/json", 415),
        ("user=\xe9&password=x", "application/x-www-form-urlencoded", 400),
    ],
)
def test_malformed_form_is_refused(app: Any, content: str, kind: str, status: int) -> None:
    answer = browser(app).post("/login", content=content.encode("latin-1"), headers={**OWN, "Content-Type": kind})
    assert answer.status_code == status, answer.text


def test_password_sign_in_can_be_turned_off(tmp_path: Path, loop: FakeLoop) -> None:
    app = served(tmp_path, loop, sign_in=SignIn(password=False, single_sign_on="Example <b>"))
    client = browser(app)
    page = client.get("/login").text
    assert "<form" not in page
    assert 'href="/login/oidc"' in page
    assert "Example &lt;b&gt;" in page
    assert sign_in(client).status_code == 403
    neither = browser(served(tmp_path, loop, sign_in=SignIn(password=False))).get("/login").text
    assert TEXTS["en"]["only_link"] in neither


def test_page_says_that_an_open_server_asks_nobody_to_sign_in(tmp_path: Path, loop: FakeLoop) -> None:
    open_server = make_api(tmp_path, loop)
    page = browser(open_server).get("/account")
    assert (page.status_code, TEXTS["en"]["open_server"] in page.text) == (200, True)
    assert client_of(open_server).post("login-links").status_code == 409


# ------------------------------------------------------------------------------------------------------------- pages


@pytest.mark.parametrize("path", ["/login", "/login/link", "/account"])
def test_pages_allow_no_foreign_script_style_frame_or_form(ann: httpx.Client, path: str) -> None:
    answer = ann.get(path)
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["base-uri"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "form-action")} == {"'self'"}
    assert answer.headers["referrer-policy"] == "same-origin", "no-referrer would make the origin of forms null"
    assert answer.headers["cache-control"] == "no-store"
    assert not re.search(r"<script(?! src=)|\son\w+=|style=|javascript:", answer.text)


def test_style_and_script_of_the_pages_are_served(app: Any) -> None:
    client = browser(app)
    assert client.get("/login/style.css").headers["content-type"].startswith("text/css")
    assert client.get("/login/link.js").headers["content-type"].startswith("text/javascript")
    assert client.get("/login/none").status_code == 404


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "en"), ("zh", "zh"), ("zh-CN,zh;q=0.9,en;q=0.8", "zh"), ("en-US,zh;q=0.9", "en"), ("de,zh;q=0.1", "zh"),
        ("zh;q=0,en;q=0.1", "en"), ("de", "en"), ("zh;q=nan", "en"), ("zh;q=2", "en"), ("zh;q", "en"), (";;;,,=", "en"),
        ("x," * 2_000 + "zh", "en"),
    ],
)  # fmt: skip
def test_language_is_the_one_that_the_browser_prefers(app: Any, accepted: str, language: str) -> None:
    assert language_of(accepted) == language
    page = browser(app, **{"Accept-Language": accepted}).get("/login").text
    assert f'<html lang="{language}">' in page
    assert TEXTS[language]["sign_in"] in page


def test_languages_have_the_same_texts() -> None:
    assert {tuple(sorted(texts)) for texts in TEXTS.values()} == {tuple(sorted(TEXTS["en"]))}
    assert all("{provider}" in texts["sign_in_with"] for texts in TEXTS.values())


# ---------------------------------------------------------------------------------------------------------- sign out


def test_sign_out_ends_the_session_of_this_browser_only(app: Any, ann: httpx.Client) -> None:
    other = browser(app)
    sign_in(other)
    stolen = dict(ann.cookies)
    answer = submit(ann, "/logout", {"token": form_token(ann)})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert not ann.cookies
    assert other.get("/account").status_code == 200
    thief = browser(app)
    thief.cookies.update(stolen)
    assert thief.get("/api/v1/jobs").status_code == 401


def test_sign_out_everywhere_ends_the_sessions_of_the_person_only(app: Any, ann: httpx.Client) -> None:
    other, bob = browser(app), browser(app)
    sign_in(other)
    sign_in(bob, "bob")
    assert submit(ann, "/logout/everywhere", {"token": form_token(ann)}).status_code == 303
    assert other.get("/account").status_code == 303
    assert bob.get("/account").status_code == 200


def test_form_of_another_session_is_refused(app: Any, ann: httpx.Client) -> None:
    bob = browser(app)
    sign_in(bob, "bob")
    for token in (form_token(bob), "", "x", "é"):
        assert submit(ann, "/logout", {"token": token}).status_code == 403
    assert ann.get("/account").status_code == 200


def test_ended_session_leads_to_the_sign_in_and_its_cookie_is_removed(ann: httpx.Client, loop: FakeLoop) -> None:
    token = form_token(ann)
    loop.now += SessionOptions().idle_ms
    assert ann.get("/api/v1/jobs").status_code == 401
    answer = submit(ann, "/logout", {"token": token})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?ended=1")
    assert not ann.cookies
    assert TEXTS["en"]["ended"] in ann.get("/login?ended=1").text


def test_session_of_a_disabled_or_removed_user_ends_at_once(app: Any, ann: httpx.Client, loop: FakeLoop) -> None:
    loop.feed(PutAccess(loop.now, User("ann", loop.now, HASH, disabled=True)))
    assert ann.get("/api/v1/jobs").status_code == 401


# ------------------------------------------------------------------------------------------------------------ cookies


def test_hostile_cookies_are_refused_and_break_nothing(app: Any, ann: httpx.Client) -> None:
    own = ann.cookies["jobcloud"]
    client = browser(app)
    for value, status in (
        (f"jobcloud={own}", 200),
        (f"a=b; jobcloud={own}; c", 200),
        (f"jobcloud={own}; jobcloud={own}", 401),
        (f"jobcloud={own}; jobcloud=x", 401),
        ("jobcloud=", 401),
        ("jobcloud=" + "x" * 30_000, 401),
        (";" * 30_000, 401),
        ("; ".join(["jobcloud=x"] * 2_000), 401),
        (f"__Host-jobcloud={own}", 401),
        (f"JOBCLOUD={own}", 401),
        (f"jobcloud={own[:-1]}\xe9", 401),
    ):
        answer = client.get("/api/v1/jobs", headers=[(b"cookie", value.encode("latin-1"))])
        assert answer.status_code == status, value[:100]


def test_cookie_does_not_help_a_wrong_token(ann: httpx.Client) -> None:
    assert ann.get("/api/v1/jobs", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert ann.get("/api/v1/jobs", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_token_of_the_api_is_no_cookie_and_a_cookie_is_no_token(ann: httpx.Client, app: Any, loop: FakeLoop) -> None:
    own = ann.cookies["jobcloud"]
    assert client_of(app, own).get("jobs").status_code == 401
    made = tokens.make(tokens.TOKEN_PREFIX, bytes(38))
    loop.feed(PutAccess(loop.now, AccessToken(made.id, "ci", made.hash, "user:ann", loop.now)))
    assert client_of(app, made.text).get("jobs").status_code == 200
    client = browser(app)
    client.cookies.set("jobcloud", made.text, domain="127.0.0.1")
    assert client.get("/api/v1/jobs").status_code == 401


def test_use_of_a_session_is_noted_in_the_background(ann: httpx.Client, loop: FakeLoop) -> None:
    (before,) = loop.scheduler.directory.sessions.values()
    ann.get("/api/v1/jobs")
    loop.now += NOTE_MS
    for _ in range(3):
        ann.get("/api/v1/jobs")
    (after,) = loop.scheduler.directory.sessions.values()
    assert (before.seen_ms, after.seen_ms) == (loop.now - NOTE_MS, loop.now)


def test_use_of_a_session_in_the_copy_of_a_standby_is_not_noted(ann: httpx.Client, loop: FakeLoop) -> None:
    noted: list[Session] = []
    live = loop.scheduler.directory
    copy = Directory(live.teams, live.roles, live.users, live.tokens, live.sessions)
    source = Sessions(ApiOptions(), lambda: loop.now, lambda: live, noted.append)
    scope: dict[str, Any] = {"path": "/", "headers": [(b"cookie", f"jobcloud={ann.cookies['jobcloud']}".encode())]}
    for directory, count in ((copy, 0), (live, 1)):
        found = asyncio.run(source.identify(scope, directory))
        assert found is not None
        assert (found.subject, len(noted)) == ("user:ann", count)


# -------------------------------------------------------------------------------------------- cross-site requests


FORGED: dict[str, dict[str, str]] = {
    "no header at all": {},
    "the header of a script alone": {"Jobcloud-Request": "1"},
    "another origin": {**SCRIPT, "Origin": "http://evil.test"},
    "another port of this host": {**SCRIPT, "Origin": "http://127.0.0.1:9"},
    "no origin": {**SCRIPT, "Origin": "null"},
    "another site": {**SCRIPT, "Sec-Fetch-Site": "cross-site"},
    "another port, which is the same site": {**SCRIPT, "Sec-Fetch-Site": "same-site"},
    "no page": {**SCRIPT, "Sec-Fetch-Site": "none"},
    "a form of this origin without a token": OWN,
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_change_with_a_cookie_is_refused(name: str, app: Any, loop: FakeLoop) -> None:
    bob = browser(app)
    sign_in(bob, "bob")
    loop.failure = AssertionError("a command was given")
    for method, path in (
        ("POST", "/api/v1/jobs/hello/trigger"), ("PUT", "/api/v1/jobs/hello"), ("DELETE", "/api/v1/jobs/hello"),
        ("PATCH", "/api/v1/jobs/hello"), ("DELETE", "/api/v1/sessions"), ("POST", "/api/job/trigger"),
        ("DELETE", "/api/app/demo"),
    ):  # fmt: skip
        answer = bob.request(method, path, headers=FORGED[name])
        assert answer.status_code == 403, (method, path)
        assert "origin" in answer.text or "page" in answer.text or "header" in answer.text


def test_change_by_a_script_of_an_own_page_is_carried_out(app: Any) -> None:
    bob = browser(app)
    sign_in(bob, "bob")
    for headers in (
        SCRIPT,
        {"Origin": ORIGIN, "Jobcloud-Request": "1"},
        {"Sec-Fetch-Site": "same-origin", "Jobcloud-Request": "1"},
    ):
        assert bob.post("/api/v1/cluster/pause", headers=headers).status_code == 200


@pytest.mark.parametrize("name", [name for name in FORGED if FORGED[name] is not OWN])
def test_page_of_another_site_cannot_sign_a_browser_in(name: str, app: Any) -> None:
    client = browser(app)
    code = client_of(app, TOKEN).post("login-links").json()["path"].partition("#")[2]
    for path, fields in (("/login", {"user": "ann", "password": PASSWORD}), ("/login/link", {"code": code})):
        answer = client.post(path, data=fields, headers=FORGED[name])
        assert (answer.status_code, "set-cookie" in answer.headers) == (403, False), path
    assert submit(client, "/login/link", {"code": code}).status_code == 303, "the link was not used up"


def test_page_without_tls_cannot_pass_for_one_with_tls(tmp_path: Path, loop: FakeLoop) -> None:
    app = served(tmp_path, loop, sessions=SessionOptions(secure=True))
    fields = {"user": "ann", "password": PASSWORD}
    client = browser(app)
    assert client.post("/login", data=fields, headers={"Origin": "http://127.0.0.1"}).status_code == 403
    answer = client.post("/login", data=fields, headers={"Origin": "https://127.0.0.1"})
    assert answer.status_code == 303
    assert answer.headers["set-cookie"].startswith("__Host-jobcloud=")


def test_requests_with_a_token_need_no_proof_of_their_page(ann: httpx.Client) -> None:
    answer = ann.delete("/api/v1/jobs/none", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 404


def every_get(app: Any) -> Iterator[str]:
    for route in routes_of(app.routes):
        if route.method == "GET":
            yield re.sub(r"\{(\w+)[^}]*\}", "1", route.path)


def test_no_get_changes_anything(app: Any, loop: FakeLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A browser sends the cookie with a link of any page, so a GET that changed something could be forged."""
    bob = browser(app)
    sign_in(bob, "bob")
    given: list[Command] = []
    monkeypatch.setattr(loop, "command", lambda make, timeout=10: given.append(make(loop.now)))
    paths = [path for path in every_get(app) if not path.endswith(("/events", "/changes", "/stream"))]
    assert {"/api/job/1/disable", "/api/app/1/disable", "/api/v1/jobs", "/login/link"} <= set(paths)
    for path in paths:
        assert bob.get(path).status_code not in (401, 403), path
    assert given == []


# --------------------------------------------------------------------------------------------- sessions and links


def listed(client: httpx.Client) -> list[tuple[str, bool]]:
    found = client.get("/api/v1/sessions").json()["items"]
    return [(item["subject"], item["current"]) for item in found]


def test_sessions_are_listed_for_their_owner_and_all_for_an_admin(app: Any, ann: httpx.Client) -> None:
    bob = browser(app)
    sign_in(bob, "bob")
    sign_in(browser(app))
    assert listed(ann) == [("user:ann", True), ("user:ann", False)] or listed(ann) == [
        ("user:ann", False), ("user:ann", True),
    ]  # fmt: skip
    assert sorted(listed(bob)) == [("user:ann", False), ("user:ann", False), ("user:bob", True)]
    text = bob.get("/api/v1/sessions").text
    assert "hash" not in text
    assert ann.cookies["jobcloud"].rpartition("_")[2] not in text


def test_sessions_that_have_ended_are_not_listed(app: Any, ann: httpx.Client, loop: FakeLoop) -> None:
    loop.now += SessionOptions().idle_ms
    assert client_of(app, TOKEN).get("sessions").json()["items"] == []


def test_session_is_ended_by_its_owner_or_an_admin(app: Any, ann: httpx.Client) -> None:
    bob = browser(app)
    sign_in(bob, "bob")
    ids = {item["subject"]: item["id"] for item in bob.get("/api/v1/sessions").json()["items"]}
    refused = ann.delete(f"/api/v1/sessions/{ids['user:bob']}", headers=SCRIPT)
    assert issues(refused, "not-found") == {
        "sessionId": f"there is no session {ids['user:bob']} | `jobcloud session list` shows all"
    }
    assert ann.delete("/api/v1/sessions?subject=user:bob", headers=SCRIPT).status_code == 403
    assert bob.get("/account").status_code == 200
    assert bob.delete(f"/api/v1/sessions/{ids['user:ann']}", headers=SCRIPT).status_code == 204
    assert ann.get("/account").status_code == 303
    assert bob.delete("/api/v1/sessions", headers=SCRIPT).status_code == 204
    assert bob.get("/account").status_code == 303


def test_token_with_a_scope_sees_no_sessions_of_its_owner(app: Any, ann: httpx.Client, loop: FakeLoop) -> None:
    made = tokens.make(tokens.TOKEN_PREFIX, bytes(38))
    record = AccessToken(made.id, "ci", made.hash, "user:bob", loop.now, scope=((EVERY_TEAM, "viewer"),))
    loop.feed(PutAccess(loop.now, record))
    sign_in(browser(app), "bob")
    api = client_of(app, made.text)
    assert api.get("sessions").json()["items"] == []
    assert api.delete("sessions").status_code == 403
    assert api.post("login-links").status_code == 403


def test_link_signs_in_once_as_the_local_admin(app: Any, loop: FakeLoop) -> None:
    made = client_of(app, TOKEN).post("login-links")
    assert made.status_code == 201
    path, _, code = made.json()["path"].partition("#")
    assert (path, made.json()["subject"]) == ("/login/link", "token:server")
    client = browser(app)
    assert client.get(path).status_code == 200, "a look at the link does not use it up"
    assert submit(client, path, {"code": code}).headers["location"] == "/"
    assert "<strong>token:server</strong>, by link of token:server" in client.get("/account").text
    assert client.post("/api/v1/cluster/pause", headers=SCRIPT).status_code == 200
    again = browser(app)
    refused = submit(again, path, {"code": code})
    assert (refused.status_code, "set-cookie" in refused.headers) == (401, False)
    assert TEXTS["en"]["wrong_link"] in refused.text


def test_link_for_a_user_is_made_by_admins_only(app: Any, ann: httpx.Client, loop: FakeLoop) -> None:
    assert ann.post("/api/v1/login-links", headers=SCRIPT).status_code == 403
    api = client_of(app, TOKEN)
    for user in ("nobody", "eve", "x" * 200, "a/b"):
        assert api.post("login-links", params={"user": user}).status_code == 404
    made = api.post("login-links", params={"user": "ann"}).json()
    client = browser(app)
    assert submit(client, "/login/link", {"code": made["path"].partition("#")[2]}).status_code == 303
    assert "user:ann</strong>, by link of token:server" in client.get("/account").text


def test_link_for_somebody_with_more_rights_is_not_made(app: Any, loop: FakeLoop) -> None:
    every = loop.scheduler.directory.teams[EVERY_TEAM]
    more = changed(every, members=(*every.members, Member("user:ann", "teardown")))
    loop.feed(PutAccess(loop.now, more))
    bob = browser(app)
    sign_in(bob, "bob")
    answer = bob.post("/api/v1/login-links", params={"user": "ann"}, headers=SCRIPT)
    assert answer.status_code == 403
    assert "user:ann has the verb teardown in the whole installation, and user:bob lacks it" in answer.json()["detail"]
    assert bob.post("/api/v1/login-links", headers=SCRIPT).status_code == 201
    loop.feed(PutAccess(loop.now, every))
    assert bob.post("/api/v1/login-links", params={"user": "ann"}, headers=SCRIPT).status_code == 201


def test_token_with_a_scope_makes_no_link_without_it(app: Any, loop: FakeLoop) -> None:
    loop.feed(PutAccess(loop.now, Role("access", ("manage-access",))))
    made = tokens.make(tokens.TOKEN_PREFIX, bytes(38))
    loop.feed(
        PutAccess(
            loop.now, AccessToken(made.id, "ci", made.hash, "user:bob", loop.now, scope=((EVERY_TEAM, "access"),))
        )
    )
    api = client_of(app, made.text)
    for user in ("bob", "ann"):
        assert api.post("login-links", params={"user": user}).status_code == 403
    assert api.post("login-links", params={"user": "sso"}).status_code == 201


def test_link_that_is_too_old_or_whose_user_was_disabled_is_refused(app: Any, loop: FakeLoop) -> None:
    api = client_of(app, TOKEN)

    def code() -> str:
        return str(api.post("login-links", params={"user": "ann"}).json()["path"].partition("#")[2])

    late, disabled = code(), code()
    loop.feed(PutAccess(loop.now, User("ann", loop.now, HASH, disabled=True)))
    assert submit(browser(app), "/login/link", {"code": disabled}).status_code == 401
    loop.feed(PutAccess(loop.now, User("ann", loop.now, HASH)))
    loop.now += LINK_MS
    assert submit(browser(app), "/login/link", {"code": late}).status_code == 401


def test_link_for_a_user_with_more_rights_is_refused(app: Any, loop: FakeLoop) -> None:
    members = (Member("user:bob", "admin"), Member("user:ann", "teardown"))
    loop.feed(PutAccess(loop.now, Team(EVERY_TEAM, members)))
    bob = browser(app)
    sign_in(bob, "bob")
    refused = bob.post("/api/v1/login-links", params={"user": "ann"}, headers=SCRIPT)
    assert "user:ann has the verb teardown" in issues(refused, "forbidden")[""]
    assert bob.post("/api/v1/login-links", params={"user": "bob"}, headers=SCRIPT).status_code == 201
    assert client_of(app, TOKEN).post("login-links", params={"user": "ann"}).status_code == 201


@pytest.mark.parametrize("lost", ["the role of its maker", "less than its user has got"])
def test_link_needs_the_rights_of_its_maker_when_it_is_used(app: Any, loop: FakeLoop, lost: str) -> None:
    every = loop.scheduler.directory.teams[EVERY_TEAM]
    bob = browser(app)
    sign_in(bob, "bob")

    def code() -> str:
        made = bob.post("/api/v1/login-links", params={"user": "ann"}, headers=SCRIPT).json()
        return str(made["path"].partition("#")[2])

    kept, unused = code(), code()
    assert submit(browser(app), "/login/link", {"code": kept}).status_code == 303
    members: tuple[Member, ...] = (Member("user:ann", "viewer"), Member("user:root", "admin"))
    if lost != "the role of its maker":
        members = (*every.members, Member("user:ann", "teardown"))
    loop.feed(PutAccess(loop.now, User("root", loop.now, HASH), create=True))
    loop.feed(PutAccess(loop.now, changed(every, members=members)))
    assert submit(browser(app), "/login/link", {"code": unused}).status_code == 401


def test_link_of_a_revoked_server_token_is_refused(app: Any, loop: FakeLoop) -> None:
    api, client = client_of(app, TOKEN), browser(app)
    unused, used = (api.post("login-links").json()["path"].partition("#")[2] for _ in range(2))
    submit(client, "/login/link", {"code": used})
    kept = next(iter(loop.scheduler.directory.sessions.values()))
    assert api.delete("tokens/server").status_code == 204
    assert submit(browser(app), "/login/link", {"code": unused}).status_code == 401
    loop.feed(PutAccess(loop.now, kept))  # a sign-in at the instant of the revocation
    assert client.get("/api/v1/whoami").status_code == 401


def test_link_does_not_sign_in_as_a_later_user_of_the_same_name(app: Any, loop: FakeLoop) -> None:
    api = client_of(app, TOKEN)
    code = api.post("login-links", params={"user": "ann"}).json()["path"].partition("#")[2]
    api.delete("users/ann")
    loop.now += 1
    api.post("users", json={"name": "ann"})
    assert submit(browser(app), "/login/link", {"code": code}).status_code == 401


def test_link_and_session_of_the_server_token_end_when_it_is_revoked(app: Any, loop: FakeLoop) -> None:
    api = client_of(app, TOKEN)
    unused, used = (str(api.post("login-links").json()["path"].partition("#")[2]) for _ in range(2))
    signed_in = browser(app)
    assert submit(signed_in, "/login/link", {"code": used}).status_code == 303
    assert api.delete("tokens/server").status_code == 204
    assert signed_in.get("/api/v1/jobs").status_code == 401
    assert submit(browser(app), "/login/link", {"code": unused}).status_code == 401
    # The record alone is enough, for example in the copy of a standby.
    cookie = start_session(app.state.services, "token:server").partition(";")[0]
    assert client_of(app, url=ORIGIN).get("/api/v1/jobs", headers={"Cookie": cookie}).status_code == 401


def test_link_of_a_removed_user_signs_nobody_in(app: Any, loop: FakeLoop) -> None:
    code = client_of(app, TOKEN).post("login-links", params={"user": "ann"}).json()["path"].partition("#")[2]
    loop.feed(RemoveAccess(loop.now, Kind.USER, "ann"))
    assert submit(browser(app), "/login/link", {"code": code}).status_code == 401


def new_link(api: httpx.Client, **query: str) -> str:
    """The code of a new link."""
    made = api.post("http://127.0.0.1/api/v1/login-links", params=query, headers=SCRIPT)
    assert made.status_code == 201, made.text
    return str(made.json()["path"].partition("#")[2])


def is_usable(app: Any, code: str) -> bool:
    return submit(browser(app), "/login/link", {"code": code}).status_code == 303


@pytest.mark.parametrize("way", ["button", "route", "other", "password", "disabled", "removed"])
def test_links_for_and_of_a_person_end_with_all_sessions_of_the_person(app: Any, way: str) -> None:
    server, bob = client_of(app, TOKEN), browser(app)
    sign_in(bob, "bob")
    for_bob, of_bob = new_link(server, user="bob"), new_link(bob, user="ann")
    for_ann = new_link(server, user="ann")
    match way:
        case "button":
            done = submit(bob, "/logout/everywhere", {"token": form_token(bob)})
        case "route":
            done = bob.delete("/api/v1/sessions", headers=SCRIPT)
        case "other":
            done = server.delete("sessions", params={"subject": "user:bob"})
        case "password":
            done = server.put("users/bob/password", json={"password": "another horse battery"})
        case "disabled":
            done = server.patch("users/bob", json={"disabled": True})
            server.patch("users/bob", json={"disabled": False})
        case _:
            done = server.delete("users/bob")
    assert done.status_code in (200, 204, 303), done.text
    assert [is_usable(app, code) for code in (for_bob, of_bob, for_ann)] == [False, False, True]


def test_links_of_one_session_outlast_it(app: Any) -> None:
    """The sign-out of one browser is no sign of a theft: an admin invites somebody, and signs out."""
    bob = browser(app)
    sign_in(bob, "bob")
    code = new_link(bob, user="ann")
    assert submit(bob, "/logout", {"token": form_token(bob)}).status_code == 303
    assert is_usable(app, code)


def test_links_end_with_the_token_that_made_them(app: Any, loop: FakeLoop) -> None:
    def token(name: str, **more: Any) -> tuple[httpx.Client, str]:
        made = tokens.make(tokens.TOKEN_PREFIX, name.encode() * 19)
        loop.feed(PutAccess(loop.now, AccessToken(made.id, name, made.hash, "user:bob", loop.now, **more)))
        return client_of(app, made.text), made.id

    server = client_of(app, TOKEN)
    (parent, parent_id), (kept, _) = token("pa"), token("ke")
    child, _ = token("ch", parent=parent_id)
    expiring, _ = token("ex", expires_ms=loop.now + 1)
    codes = [new_link(api, user="ann") for api in (parent, child, expiring, kept)]
    loop.now += 1
    assert server.delete(f"tokens/{parent_id}").status_code == 204
    assert [is_usable(app, code) for code in codes] == [False, False, False, True]


def test_links_that_the_server_token_made_for_others_end_with_it(app: Any) -> None:
    server, bob = client_of(app, TOKEN), browser(app)
    sign_in(bob, "bob")
    of_the_server, of_bob = new_link(server, user="ann"), new_link(bob, user="ann")
    assert bob.delete("/api/v1/tokens/server", headers=SCRIPT).status_code == 204
    assert [is_usable(app, code) for code in (of_the_server, of_bob)] == [False, True]


def test_refused_sign_out_of_somebody_else_ends_no_link(app: Any, ann: httpx.Client) -> None:
    code = new_link(client_of(app, TOKEN), user="bob")
    assert ann.delete("/api/v1/sessions", params={"subject": "user:bob"}, headers=SCRIPT).status_code == 403
    assert ann.delete("/api/v1/users/bob", headers=SCRIPT).status_code == 403
    assert is_usable(app, code)


def test_pages_have_rules() -> None:
    console = {*SHELLS, FILE}
    none = {path for (_, path), rule in RULES.items() if rule.of is Of.NONE and not path.startswith("/api/")}
    single_sign_on = {"/login/oidc", "/login/oidc/callback", "/logout/oidc"}
    assert none - console == {"/login", "/login/link", "/login/style.css", "/login/link.js"} | single_sign_on
