"""The console in a real browser, over a scheduler without a cluster, whose clock moves only when a test says so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect
from tests.api_kit import FakeLoop, app_body, job_body, make_api, package_bytes, serving
from tests.browser_kit import PATIENCE_MS
from tests.whole_kit import until

from jobcloud.history.database import Database
from jobcloud.history.notes import Notes
from jobcloud.history.queries import Reader
from jobcloud.history.rows import of_events
from jobcloud.history.samples import Sampled
from jobcloud.messages import AttemptTraced, Effect, Event, PutAccess, RunTraced
from jobcloud.model import EVERY_TEAM, Member, Team, User
from jobcloud.server.api import Access, ApiOptions, Notices

TOKEN = "t0ken-of-the-test"


class NoticingLoop(FakeLoop):
    """Publishes the notices of the scheduler, as the real loop does."""

    def __init__(self, notices: Notices) -> None:
        super().__init__()
        self._notices = notices

    def feed(self, event: Event) -> list[Effect]:
        done = super().feed(event)
        for effect in done:
            self._notices.publish(effect)
        return done


class Stage:
    """A server with the console. The user ann is an admin. `url` is set while it serves."""

    def __init__(self, folder: Path, **parts: Any) -> None:
        self.notices = Notices()
        self.loop = NoticingLoop(self.notices)
        self.loop.subscribe()
        options = parts.pop("options", None) or ApiOptions(access=Access(token=TOKEN))
        self.app = make_api(
            folder, self.loop, options=options, notices=self.notices, clock=lambda: self.loop.now, **parts
        )
        self.url = ""
        self.member("ann", "admin", EVERY_TEAM)

    @property
    def api(self) -> httpx.Client:
        """A client with the server's token."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return httpx.Client(base_url=f"{self.url}/api/v1/", headers=headers, timeout=60)

    def member(self, name: str, role: str, team: str) -> None:
        """Add a user with a role in a team, and the team if there is none."""
        directory = self.loop.scheduler.directory
        known = directory.teams.get(team)
        members = known.members if known is not None else ()
        if name not in directory.users:
            self.loop.feed(PutAccess(self.loop.now, User(name, self.loop.now)))
        self.loop.feed(PutAccess(self.loop.now, Team(team, (*members, Member(f"user:{name}", role)))))

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """The answer of the API to a request with the server's token, which must succeed."""
        with self.api as client:
            answer = client.request(method, path, json=body, params=query)
        assert answer.is_success, (path, answer.status_code, answer.text)
        return answer.json() if answer.content else None

    def add_app(self, name: str = "demo", **changes: Any) -> None:
        with self.api as client:
            stored = client.post("packages", content=package_bytes(), headers={"Content-Type": "application/zip"})
        assert stored.is_success, stored.text
        self.call("POST", "apps", app_body(stored.json()["sha256"], name, **changes))

    def add_job(self, name: str, app: str = "demo", **changes: Any) -> None:
        self.call("POST", "jobs", job_body(name, app, **changes))

    def cookie(self, user: str) -> str:
        """The cookie of a new session, as `NAME=VALUE`."""
        with self.api as client:
            path = client.post("login-links", params={"user": user}).raise_for_status().json()["path"]
        headers = {"Sec-Fetch-Site": "same-origin"}
        answer = httpx.post(
            f"{self.url}/login/link", data={"code": path.partition("#")[2]}, headers=headers, timeout=60
        )
        return answer.headers["set-cookie"].partition(";")[0]

    @contextmanager
    def context(self, browser: Browser, user: str = "ann", **options: Any) -> Iterator[BrowserContext]:
        """A context of the browser in which a user has signed in."""
        found = browser.new_context(**({"locale": "en-GB", "timezone_id": "Europe/Berlin"} | options))
        found.set_default_timeout(PATIENCE_MS)
        name, _, value = self.cookie(user).partition("=")
        found.add_cookies([{"name": name, "value": value, "url": self.url}])
        try:
            yield found
        finally:
            found.close()


@contextmanager
def staged(folder: Path, **parts: Any) -> Iterator[Stage]:
    found = Stage(folder, **parts)
    with serving(found.app) as found.url:
        yield found


@contextmanager
def kept(folder: Path, *effects: AttemptTraced | RunTraced | Sampled) -> Iterator[Reader]:
    """A history with these attempts, runs and samples, for `staged(folder, history=…)`."""
    url = f"sqlite:///{folder / 'history.db'}"
    database = Database(url)
    database.upgrade()
    database.write(of_events(list(effects)))
    database.close()
    reader = Reader(lambda: Database(url, reading=True))
    yield reader
    reader.close()


def notes_of(folder: Path) -> Notes:
    """The notes of runs in the history that `kept` has made in a folder."""
    return Notes(lambda: Database(f"sqlite:///{folder / 'history.db'}"))


@contextmanager
def watched(context: BrowserContext, expected: Sequence[str] = ()) -> Iterator[Page]:
    """A page that fails if a script fails, or if the browser reports an error that has none of the expected texts."""
    found = context.new_page()
    found.set_default_timeout(PATIENCE_MS)
    problems: list[str] = []
    found.on("pageerror", lambda error: problems.append(str(error)))
    found.on(
        "console",
        lambda message: (
            problems.append(f"{message.text} ({message.location['url']})") if message.type == "error" else None
        ),
    )
    yield found
    left = [problem for problem in problems if not any(text in problem for text in expected)]
    assert not left, "\n".join(left)


def ready(page: Page) -> None:
    """Wait until the page has its heading, and nothing of it is being loaded."""
    page.get_by_role("heading", level=1).wait_for()
    expect(page.locator("main .loading")).to_have_count(0, timeout=PATIENCE_MS)


def asked(page: Page, held: Sequence[Route], count: int) -> None:
    """Wait until a page has sent a number of requests that a test holds, and no further one."""
    # Playwright tells of requests while it talks to the browser.
    until(lambda: page.evaluate("true") and len(held) >= count, f"{count} requests")
    assert len(held) == count


def busy(stage: Stage) -> None:
    """Fill a server with work of every kind: runs that run, wait, failed and are dead, teams, tokens."""
    stage.add_app()
    stage.add_app("reports", team="billing")
    stage.member("bob", "operator", "billing")
    stage.add_job("hello", shardingTotalCount=4, cron="0/10 * * * * ?", retryCount=0, description="says hello")
    stage.add_job("daily", "reports", team="billing", cron="0 30 2 L * ?", timeZone="Europe/Berlin")
    stage.call("PUT", "calendars/closed", {"days": ["2023-12-24/2023-12-26"], "description": "Christmas"})
    stage.add_job("wide", cron="0 0 5 * * ?", shardingTotalCount=60, cpuCount=100, skipOn=["closed"])
    stage.add_job("resident", jobExecutionType="DAEMON", cron="0/5 * * * * ?", shardingTotalCount=2)
    stage.loop.offer("agent-1")
    stage.loop.offer("agent-2", cpus=2_000)
    launched = stage.loop.tick(10_000)
    for number, task in enumerate(launched):
        stage.loop.update(task, "TASK_RUNNING")
        if number % 3 == 1:
            stage.loop.update(task, "TASK_FAILED", "Traceback (most recent call last):\nOSError: disk")
        elif number % 3 == 2:
            stage.loop.update(task, "TASK_FINISHED")
    stage.call("POST", "jobs/wide/trigger")
    stage.call("POST", "jobs/billing:daily/trigger")
    stage.call("POST", "jobs/billing:daily/pause")
    for agent in ("agent-1", "agent-2"):
        stage.loop.offer(agent)
    stage.loop.tick(1_000)
    stage.call("POST", "teams/billing/members", {"subject": "service:billing/bot", "role": "operator"})
    stage.call("POST", "tokens", {"name": "ci", "subject": "service:billing/bot", "scope": []})
