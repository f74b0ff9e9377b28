"""Sign-in, sign-out and forged requests in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher
from argon2.profiles import CHEAPEST
from playwright.sync_api import Browser, BrowserContext, Page, expect
from starlette.responses import HTMLResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from tests.api_kit import FakeLoop, make_api, serving
from tests.browser_kit import PATIENCE_MS, chromium, needs_browser

from jobcloud.messages import EndSessions, PutAccess
from jobcloud.model import EVERY_TEAM, Member, Team, User
from jobcloud.server.api import Access, ApiOptions
from jobcloud.server.identity import passwords
from jobcloud.server.identity.passwords import hash_password

pytestmark = needs_browser

TOKEN = "t0ken-of-the-test"
PASSWORD = "correct horse"


class Stage:
    """A server with the admin ann, and a page of another origin with forms and scripts against this server."""

    def __init__(self, folder: Path) -> None:
        self.loop = FakeLoop()
        self.loop.subscribe()
        for record in (
            User("ann", self.loop.now, hash_password(PASSWORD)),
            Team(EVERY_TEAM, (Member("user:ann", "admin"),)),
        ):
            self.loop.feed(PutAccess(self.loop.now, record, create=True))
        options = ApiOptions(access=Access(token=TOKEN))
        self.app = make_api(folder, self.loop, options=options, clock=lambda: self.loop.now)
        self.url = self.evil = ""

    def page_of_another_site(self) -> ASGIApp:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            # The listener adds a strict policy to pages that have none.
            own = {"Content-Security-Policy": "default-src * 'unsafe-inline'"}
            await HTMLResponse(_EVIL.replace("VICTIM", self.url), headers=own)(scope, receive, send)

        return app

    def link(self) -> str:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        made = httpx.post(f"{self.url}/api/v1/login-links", headers=headers, timeout=60).json()
        return f"{self.url}{made['path']}"

    @property
    def paused(self) -> bool:
        return bool(self.loop.scheduler.pauses)


_EVIL = """<!doctype html>
<form id="login" method="post" action="VICTIM/login"><input name="user" value="ann"><input name="password"
 value="correct horse"></form>
<form id="logout" method="post" action="VICTIM/logout"><input name="token" value="x"></form>
<form id="pause" method="post" action="VICTIM/api/v1/cluster/pause"></form>
<iframe src="VICTIM/login"></iframe>
<p id="done"></p>
<script>
const send = options => fetch("VICTIM/api/v1/cluster/pause", {method: "POST", credentials: "include", ...options})
  .then(answer => `${answer.type} ${answer.status}`, () => "refused");
Promise.all([send({mode: "no-cors"}), send({}), send({headers: {"Jobcloud-Request": "1"}}),
  fetch("VICTIM/api/v1/sessions", {credentials: "include"}).then(() => "read", () => "refused")])
  .then(found => document.getElementById("done").textContent = found.join(", "));
</script>"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(autouse=True)
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "_HASHER", PasswordHasher.from_parameters(CHEAPEST))


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    found = Stage(tmp_path)
    with serving(found.app) as found.url, serving(found.page_of_another_site()) as found.evil:
        yield found


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    found = browser.new_context()
    found.set_default_timeout(PATIENCE_MS)
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page that fails the test if the browser reports a violation of the policy, or an error of a script."""
    found = context.new_page()
    problems: list[str] = []
    found.on("pageerror", lambda error: problems.append(str(error)))
    found.on("console", lambda message: problems.append(message.text) if "Security Policy" in message.text else None)
    yield found
    assert problems == []


def sign_in(page: Page, url: str, password: str = PASSWORD) -> None:
    page.goto(f"{url}/login")
    page.get_by_label("User").fill("ann")
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def test_person_signs_in_by_password_and_out_again(stage: Stage, page: Page, context: BrowserContext) -> None:
    page.goto(f"{stage.url}/account")
    expect(page).to_have_url(f"{stage.url}/login")
    sign_in(page, stage.url, "wrong")
    expect(page.get_by_role("alert")).to_have_text("The user or the password is wrong.")
    expect(page.get_by_label("User")).to_have_value("ann")
    expect(page.get_by_label("Password")).to_have_value("")
    assert context.cookies() == []
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_label("Password").press("Enter")
    page.wait_for_url(f"{stage.url}/")
    page.goto(f"{stage.url}/account")
    expect(page.get_by_text("You are signed in as")).to_contain_text("user:ann")
    (cookie,) = context.cookies()
    assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == ("jobcloud", True, "Lax", "/")
    assert page.evaluate("document.cookie") == ""
    page.get_by_role("button", name="Sign out", exact=True).click()
    page.wait_for_url(f"{stage.url}/login")
    assert context.cookies() == []
    assert not stage.loop.scheduler.directory.sessions


def test_one_time_link_signs_in_once_and_leaves_no_code_behind(stage: Stage, page: Page, browser: Browser) -> None:
    link, seen = stage.link(), []
    code = link.partition("#")[2]
    page.on("request", lambda request: seen.append((request.url, request.headers.get("referer", ""))))
    page.goto(link)
    page.wait_for_url(f"{stage.url}/login/link")
    expect(page.get_by_label("Code of the link")).to_have_value(code)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{stage.url}/")
    page.goto(f"{stage.url}/account")
    expect(page.get_by_text("You are signed in as")).to_contain_text("token:server")
    # Playwright shows the URL of the navigation itself with the part that is not sent.
    assert not any(code in url.partition("#")[0] or code in referer for url, referer in seen)
    page.go_back()
    expect(page).not_to_have_url(re.compile(re.escape(code)))
    with browser.new_context() as other:
        again = other.new_page()
        again.set_default_timeout(PATIENCE_MS)
        again.goto(link)
        again.get_by_role("button", name="Sign in").click()
        expect(again.get_by_role("alert")).to_contain_text("This link is not valid")
        assert other.cookies() == []


def test_sign_in_needs_no_script_and_has_no_style_of_its_own(stage: Stage, browser: Browser) -> None:
    with browser.new_context(java_script_enabled=False, locale="zh-CN") as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"{stage.url}/login")
        page.get_by_label("用户名").fill("ann")
        page.get_by_label("密码").fill(PASSWORD)
        page.get_by_role("button", name="登录").click()
        page.wait_for_url(f"{stage.url}/")
        page.goto(stage.link())
        page.get_by_label("链接中的代码").fill(stage.link().partition("#")[2])
        page.get_by_role("button", name="登录").click()
        page.wait_for_url(f"{stage.url}/")
        page.goto(f"{stage.url}/account")
        expect(page.get_by_text("token:server").first).to_be_visible()


def test_ended_session_leads_to_the_sign_in(stage: Stage, page: Page, context: BrowserContext) -> None:
    sign_in(page, stage.url)
    page.wait_for_url(f"{stage.url}/")
    # The console would notice the end of the session too, and leave this page.
    page.goto(f"{stage.url}/account")
    stage.loop.feed(EndSessions(stage.loop.now, "user:ann"))
    page.goto(f"{stage.url}/account")
    expect(page).to_have_url(f"{stage.url}/login?ended=1")
    expect(page.get_by_role("alert")).to_have_text("The session has ended.")
    assert context.cookies() == []


def test_script_of_an_own_page_changes_something_with_its_cookie(stage: Stage, browser: Browser) -> None:
    with browser.new_context(bypass_csp=True) as context:  # the pages of the sign-in allow no such script
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        sign_in(page, stage.url)
        page.wait_for_url(f"{stage.url}/")
        call = """headers => fetch("/api/v1/cluster/pause", {method: "POST", headers}).then(answer => answer.status)"""
        assert page.evaluate(call, {}) == 403
        assert not stage.paused
        assert page.evaluate(call, {"Jobcloud-Request": "1"}) == 200
        assert stage.paused


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_page_of_another_origin_changes_nothing_and_reads_nothing(
    stage: Stage, page: Page, context: BrowserContext, host: str
) -> None:
    """The page at 127.0.0.1 has the same site, so the browser sends the cookie with its requests."""
    evil = stage.evil.replace("127.0.0.1", host)
    forger = context.new_page()
    forger.goto(evil)
    forger.evaluate("document.getElementById('login').submit()")
    forger.wait_for_url(f"{stage.url}/login")
    # Nobody is signed in by a page of another site.
    expect(forger.locator("body")).to_contain_text("forbidden-origin")
    assert context.cookies() == []
    sign_in(page, stage.url)
    page.wait_for_url(f"{stage.url}/")
    before = dict(stage.loop.scheduler.directory.sessions)
    forger.goto(evil)
    done = forger.locator("#done")
    expect(done).to_have_text("refused, refused, refused, refused")
    expect(forger.frames[1].locator("form")).to_have_count(0)  # no page may frame the sign-in
    for form in ("logout", "pause"):
        forger.goto(evil)
        forger.evaluate(f"document.getElementById('{form}').submit()")
        forger.wait_for_url(f"{stage.url}/**")
    assert not stage.paused
    assert stage.loop.scheduler.directory.sessions == before


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_a_phone_in_light_and_dark(stage: Stage, browser: Browser, scheme: Any) -> None:
    with browser.new_context(viewport={"width": 320, "height": 600}, color_scheme=scheme) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        for path in ("/login", "/login/link"):
            page.goto(f"{stage.url}{path}")
            assert page.evaluate("document.documentElement.scrollWidth") <= 320
            background = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (background == "rgb(255, 255, 255)") == (scheme == "light"), background
            assert page.get_by_role("button").bounding_box()["width"] > 250  # type: ignore[index]
