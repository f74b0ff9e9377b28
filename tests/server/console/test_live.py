"""The console follows the server: one stream for all tabs, and what it says while the server is away."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from tests.browser_kit import PATIENCE_MS, needs_browser
from tests.console_kit import Stage, ready, staged, watched
from tests.whole_kit import until

from jobcloud.messages import EndSessions
from jobcloud.server.listener import Limits, Listener, listen

pytestmark = needs_browser
_AWAY = "No connection to the scheduler"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as found:
        found.add_app()
        found.add_job("hello")
        yield found


def streams(stage: Stage) -> int:
    """The number of open streams of changes."""
    return len(stage.app.state.services.digests._consoles)


def test_change_by_somebody_else_appears(stage: Stage, browser: Browser) -> None:
    with stage.context(browser) as context, watched(context) as page:
        page.goto(f"{stage.url}/jobs")
        row = page.get_by_role("row").filter(has_text="hello")
        expect(row).to_contain_text("enabled")
        until(lambda: streams(stage) == 1, "the stream")
        stage.call("POST", "jobs/hello/disable")
        expect(row).to_contain_text("disabled", timeout=PATIENCE_MS)


def test_tabs_of_one_browser_share_a_stream_that_ends_when_none_is_visible(stage: Stage, browser: Browser) -> None:
    """A browser opens at most six connections to one server, so the seventh tab would otherwise never load."""
    hidden = "Object.defineProperty(document, 'hidden', {get: () => window.isHidden === true})"
    with stage.context(browser) as context:
        context.add_init_script(hidden)
        pages = [context.new_page() for _ in range(8)]
        for page in pages:
            page.goto(f"{stage.url}/jobs")
            ready(page)
        until(lambda: streams(stage) == 1, "one stream")
        for page in pages:
            page.evaluate("isHidden = true; document.dispatchEvent(new Event('visibilitychange'))")
        until(lambda: streams(stage) == 0, "no stream")
        stage.call("POST", "jobs/hello/disable")
        pages[3].evaluate("isHidden = false; document.dispatchEvent(new Event('visibilitychange'))")
        until(lambda: streams(stage) == 1, "one stream again")
        row = pages[3].get_by_role("row").filter(has_text="hello")
        expect(row).to_contain_text("disabled", timeout=PATIENCE_MS)


def test_console_says_that_the_server_is_away_and_catches_up(stage: Stage, browser: Browser) -> None:
    with ExitStack() as stack:
        context = stack.enter_context(stage.context(browser))
        page = stack.enter_context(watched(context, expected=["Failed to load resource", "ERR_"]))
        socket = listen("127.0.0.1", 0, "http.port")
        port = socket.getsockname()[1]
        other = Listener(stage.app, socket, Limits())
        url = f"http://127.0.0.1:{port}"
        page.goto(f"{url}/jobs")
        row = page.get_by_role("row").filter(has_text="hello")
        expect(row).to_contain_text("enabled")
        until(lambda: streams(stage) == 1, "the stream")
        other.stop()
        expect(page.get_by_text(_AWAY)).to_be_visible(timeout=PATIENCE_MS)
        expect(row).to_contain_text("enabled")
        stage.call("POST", "jobs/hello/disable")
        again = Listener(stage.app, listen("127.0.0.1", port, "http.port"), Limits())
        stack.callback(again.stop)
        expect(page.get_by_text(_AWAY)).to_be_hidden(timeout=PATIENCE_MS)
        expect(row).to_contain_text("disabled", timeout=PATIENCE_MS)


def test_end_of_the_session_leads_to_the_sign_in(stage: Stage, browser: Browser) -> None:
    with stage.context(browser) as context, watched(context, expected=["401"]) as page:
        page.goto(f"{stage.url}/jobs")
        until(lambda: streams(stage) == 1, "the stream")
        stage.loop.feed(EndSessions(stage.loop.now, "user:ann"))
        page.wait_for_url("**/login?ended=1")


# A page may load at once eight times, and after that once in ten seconds, so the 16th load would come after 80 s.
_MANY = 16


def test_job_that_changes_all_the_time_is_shown_after_each_change(stage: Stage, browser: Browser) -> None:
    """For the page, the time stands still. So it gets no further load for the time that has passed."""
    with stage.context(browser) as context, watched(context, expected=["503"]) as page:
        page.clock.set_fixed_time(datetime.fromtimestamp(stage.loop.now / 1_000, UTC))
        page.goto(f"{stage.url}/jobs/hello")
        ready(page)
        until(lambda: streams(stage) == 1, "the stream")
        runs = page.get_by_role("grid", name="Runs and shards").get_by_role("columnheader")
        for number in range(1, _MANY + 1):
            stage.call("POST", f"jobs/hello/{'pause' if number % 2 else 'resume'}")
            stage.call("POST", "jobs/hello/trigger")
            stage.loop.now += 1_000
            expect(page.get_by_role("button", name="Resume" if number % 2 else "Pause", exact=True)).to_be_visible()
            expect(runs).to_have_count(1 + number)


def test_run_that_changes_all_the_time_is_shown_after_each_change(stage: Stage, browser: Browser) -> None:
    stage.add_job("wide", shardingTotalCount=_MANY, cpuCount=0.001, memoryMB=1, cron="0 0 0 1 1 ? 2090")
    run = stage.call("POST", "jobs/wide/trigger")["id"]
    stage.loop.offer()
    tasks = stage.loop.tick(1_000)
    with stage.context(browser) as context, watched(context, expected=["503"]) as page:
        page.clock.set_fixed_time(datetime.fromtimestamp(stage.loop.now / 1_000, UTC))
        page.goto(f"{stage.url}/runs/{run}")
        ready(page)
        until(lambda: streams(stage) == 1, "the stream")
        states = page.get_by_role("navigation", name="Shards by state")
        for number, task in enumerate(tasks, 1):
            stage.loop.update(task, "TASK_RUNNING")
            stage.loop.update(task, "TASK_FINISHED")
            expect(states.get_by_role("link", name=f"{number} finished")).to_be_visible()


def test_grid_shows_an_old_run_that_changes_and_many_new_ones(stage: Stage, browser: Browser) -> None:
    """The page reads only runs that may differ."""
    stage.add_job("old", shardingTotalCount=1, retryCount=0, cron="0 0 0 1 1 ? 2090")

    def ended() -> str:
        run = str(stage.call("POST", "jobs/old/trigger")["id"])
        stage.loop.offer()
        for task in stage.loop.tick(1_000):
            stage.loop.update(task, "TASK_FAILED")
        return run

    first = ended()
    for _ in range(9):
        ended()
    with stage.context(browser) as context, watched(context, expected=["503"]) as page:
        page.clock.set_fixed_time(datetime.fromtimestamp(stage.loop.now / 1_000, UTC))
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{stage.url}/jobs/old")
        ready(page)
        until(lambda: streams(stage) == 1, "the stream")
        grid = page.get_by_role("grid", name="Runs and shards")
        expect(grid.get_by_role("columnheader")).to_have_count(11)
        asked.clear()
        newest = ended()
        expect(grid.get_by_role("link", name=f"{newest}: failed")).to_be_visible()
        expect(grid.get_by_role("columnheader")).to_have_count(12)
        assert any("/runs?job=old&limit=3" in url for url in asked)
        for run in [ended() for _ in range(6)]:
            expect(grid.get_by_role("link", name=f"{run}: failed")).to_be_visible()
        expect(grid.get_by_role("columnheader")).to_have_count(18)
        stage.call("POST", f"runs/{first}/retry")
        expect(grid.get_by_role("link", name=f"{first}: waiting")).to_be_visible()


def test_list_that_changes_all_the_time_says_how_old_it_is(stage: Stage, browser: Browser) -> None:
    with stage.context(browser, timezone_id="UTC") as context, watched(context) as page:
        page.clock.set_fixed_time(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
        page.goto(f"{stage.url}/jobs")
        ready(page)
        until(lambda: streams(stage) == 1, "the stream")
        old = page.get_by_text("Much is changing")
        expect(old).to_have_count(0)
        verbs = itertools.cycle(("pause", "resume"))

        def told() -> bool:
            stage.call("POST", f"jobs/hello/{next(verbs)}")
            return old.is_visible()

        until(told, "the page to say that it is old")
        expect(old).to_contain_text("It is of 2026-01-02 03:04:05.")
