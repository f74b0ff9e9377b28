"""A browser comes back to an event stream that was refused, and continues behind its last event."""

from __future__ import annotations

import json
import queue
import subprocess
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Request
from fastapi.responses import HTMLResponse
from starlette.types import Receive, Scope, Send
from tests.api_kit import FakeLoop, make_api, serving

from jobcloud.messages import Publish, Topic
from jobcloud.server.api import Access, ApiOptions, Notices
from jobcloud.server.api.authorization import RULES, Of, Rule
from jobcloud.server.api.problems import Problem
from jobcloud.server.api.streams import Places, refused_stream
from jobcloud.server.routes import Routes


@dataclass(frozen=True)
class Event:
    kind: str
    data: Any


class Gone(Exception):
    """The source has failed for good."""


class EventSource:
    """A client as in the HTML Standard, section 9.2 (https://html.spec.whatwg.org/multipage/server-sent-events.html).

    `read` connects, and yields the events until the stream ends, `open` at its first empty line. Then a browser waits
    `retry_ms` and connects again.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.last_id = ""
        self.retry_ms = 3_000

    def read(self) -> Generator[Event]:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if self.last_id:
            headers["Last-Event-ID"] = self.last_id
        with httpx.stream("GET", self._url, headers=headers, timeout=20) as answer:
            if answer.status_code != 200 or answer.headers["content-type"].partition(";")[0] != "text/event-stream":
                raise Gone(answer.status_code)
            kind, data, last_id = "", "", ""  # the buffers of this stream
            opened = False
            for line in answer.iter_lines():
                name, colon, value = line.partition(":")
                value = value.removeprefix(" ")
                if not line:
                    self.last_id = last_id
                    if not opened:
                        yield Event("open", None)
                    opened = True
                    if data:
                        yield Event(kind or "message", json.loads(data))
                    kind, data = "", ""
                elif not name and colon:
                    continue
                elif name == "event":
                    kind = value
                elif name == "data":
                    data += value + "\n"
                elif name == "id" and "\0" not in value:
                    last_id = value
                elif name == "retry" and value.isascii() and value.isdigit():
                    self.retry_ms = int(value)


@pytest.fixture(autouse=True)
def _page_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody may use the routes of the page."""
    for route in (("GET", "/page"), ("POST", "/report")):
        monkeypatch.setitem(RULES, route, Rule(Of.NONE))


def notice(text: str) -> Publish:
    return Publish(1, Topic.FIRED, text, job="hello")


class Stage:
    """A server whose streams can be refused. It starts over with `restart`, as another leader would.

    While it is `busy`, there is no leader.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.busy = False
        self.reports: queue.Queue[list[Any]] = queue.Queue()
        self.restart()

    def restart(self) -> None:
        self.notices = Notices()
        self.app = make_api(
            self._folder,
            FakeLoop(),
            notices=self.notices,
            options=ApiOptions(access=Access()),
            more_routes=[self._page()],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.busy and scope["path"].endswith("/events"):
            problem = Problem("unavailable", "no leader here", headers={"Retry-After": "1"})
            refusal = refused_stream(scope, problem)
            assert refusal is not None
            await refusal(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def refuse(self, *, refused: bool) -> None:
        self.notices.places = Places(0 if refused else 10, "listen to events")

    def _page(self) -> Routes:
        router = Routes()

        @router.get("/page")
        def page() -> HTMLResponse:
            policy = "default-src 'self' 'unsafe-inline'"
            return HTMLResponse(_PAGE, headers={"Content-Security-Policy": policy})

        @router.post("/report", openapi_extra={"requestBody": {}})
        async def report(request: Request) -> None:
            self.reports.put(await request.json())

        return router


_PAGE = """<!doctype html><script>
const report = (...what) => fetch("/report", {method: "POST", body: JSON.stringify(what)});
const source = new EventSource("/api/v1/events");
source.onopen = () => report("open");
source.onerror = () => report("error", source.readyState);
source.addEventListener("problem", event => report("problem", JSON.parse(event.data).status));
source.addEventListener("fired", event => report("fired", JSON.parse(event.data).text));
</script>"""


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_refused_client_comes_back_and_misses_nothing(stage: Stage) -> None:
    with serving(stage) as url:
        source = EventSource(f"{url}/api/v1/events")
        listening = source.read()
        assert next(listening).kind == "open"
        stage.notices.publish(notice("first"))
        assert next(listening).data["text"] == "first"
        listening.close()
        seen = source.last_id
        stage.notices.publish(notice("second"))
        stage.refuse(refused=True)
        _, refused = source.read()
        assert (refused.kind, refused.data["status"]) == ("problem", 429)
        assert (source.retry_ms, source.last_id) == (30_000, seen)
        stage.refuse(refused=False)
        again = source.read()
        assert next(again).kind == "open"
        # A connection that breaks before the first event must not lose the id either.
        again.close()
        assert (source.retry_ms, source.last_id) == (2_000, seen)
        again = source.read()
        assert [next(again).kind, next(again).data["text"]] == ["open", "second"]
        again.close()


def test_client_of_a_leader_gets_all_that_its_successor_has_published(stage: Stage) -> None:
    with serving(stage) as url:
        source = EventSource(f"{url}/api/v1/events")
        listening = source.read()
        assert next(listening).kind == "open"
        stage.notices.close()
        assert list(listening) == []
        stage.restart()
        stage.notices.publish(notice("of the next leader"))
        again = source.read()
        assert [next(again).kind, next(again).data["text"]] == ["open", "of the next leader"]
        again.close()


def test_errors_that_do_not_pass_end_a_source_for_good(stage: Stage) -> None:
    with serving(stage) as url:
        for path in ("tasks/none/logs/stream", "events?unknown=1", "nothing"):
            with pytest.raises(Gone):
                list(EventSource(f"{url}/api/v1/{path}").read())


def test_client_that_reads_the_status_gets_the_problem(stage: Stage) -> None:
    stage.refuse(refused=True)
    with serving(stage) as url:
        answer = httpx.get(f"{url}/api/v1/events")
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "30")
        assert answer.headers["content-type"] == "application/problem+json"


def test_id_that_could_end_a_line_is_not_sent_back(stage: Stage) -> None:
    stage.refuse(refused=True)
    with serving(stage) as url:
        headers = {b"Accept": b"text/event-stream", b"Last-Event-ID": b"a b\xe9"}
        answer = httpx.get(f"{url}/api/v1/events", headers=headers)
        assert answer.status_code == 200
        assert "id:" not in answer.text


@pytest.mark.browser
def test_real_browser_comes_back_and_continues_behind_its_last_event(stage: Stage, tmp_path: Path) -> None:
    def reported() -> list[Any]:
        return stage.reports.get(timeout=60)

    with serving(stage) as url:
        argv = [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}", "--remote-debugging-port=0", f"{url}/page",
        ]  # fmt: skip
        browser = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            assert reported() == ["open"]
            stage.notices.publish(notice("first"))
            assert reported() == ["fired", "first"]
            # The stream ends. Until it is admitted again, the browser is refused.
            stage.busy = True
            before = stage.notices
            stage.restart()
            before.close()
            assert reported() == ["error", 0], "0: it connects again"
            assert [reported(), reported(), reported()] == [["open"], ["problem", 503], ["error", 0]]
            stage.notices.publish(notice("second"))
            stage.busy = False
            while (report := reported()) != ["open"]:
                assert report[0] in ("problem", "error")
            assert reported() == ["fired", "second"]
        finally:
            browser.kill()
            browser.wait()
