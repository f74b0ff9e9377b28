"""A browser with open pages of two schedulers, while the leader is killed: the pages go on without a reload."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("kazoo", reason="the extra [server] is not installed")
pytest.importorskip("playwright", reason="the group dev is not installed")

from playwright.sync_api import BrowserContext, Page, expect
from tests.browser_kit import PATIENCE_MS, chromium, needs_browser
from tests.pair_kit import Pair, paired, start_two
from tests.whole_kit import add_demo, until

pytestmark = [pytest.mark.dev_cluster, pytest.mark.zookeeper, needs_browser]
_AWAY = "No connection to the scheduler"
# A page may go on before the test looks at it again, so the page itself notes that it has said that it is away.
_NOTE = """() => {
  window.loadedOnce = true;
  const place = document.querySelector(".stale");
  const root = document.documentElement;
  new MutationObserver(() => { root.dataset.said = (root.dataset.said ?? "") + place.textContent; })
    .observe(place, {childList: true, characterData: true, subtree: true});
}"""


@pytest.fixture
def pair(tmp_path: Path, zookeeper_hosts: str) -> Iterator[Pair]:
    with paired(tmp_path, "zookeeper", zookeeper_hosts) as found:
        yield found


@pytest.fixture
def context() -> Iterator[BrowserContext]:
    with chromium() as browser:
        found = browser.new_context(locale="en-GB")
        found.set_default_timeout(PATIENCE_MS)
        yield found
        found.close()


def opened(context: BrowserContext, pair: Pair, number: int, problems: list[str]) -> Page:
    """The page of a job at the address of a scheduler. It notes what it says, and that it is the same page."""
    page = context.new_page()
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(f"http://127.0.0.1:{pair.products[number].port}/jobs/sales")
    expect(page.get_by_role("heading", level=1)).to_have_text("sales")
    page.evaluate(_NOTE)
    return page


def expect_live(page: Page, pair: Pair, number: int) -> None:
    """The page shows a change that it can only know from the stream, and is the one that was opened."""
    expect(page.get_by_text(_AWAY)).to_be_hidden()
    for command, other in (("pause", "Resume"), ("resume", "Pause")):
        assert pair.products[number].call(f"jobs/sales/{command}", "POST")[0] == 200
        expect(page.get_by_role("button", name=other, exact=True)).to_be_visible()
    assert page.evaluate("window.loadedOnce") is True, "the page was loaded again"


def trigger(page: Page, pair: Pair, number: int) -> None:
    """Start a run by the button of the page, and wait until it has finished."""
    before = {run["id"] for run in pair.products[number].get("runs", job="sales", limit="1000")["items"]}
    page.get_by_role("button", name="Trigger", exact=True).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Start a run").click()
    expect(dialog).to_contain_text("The run has been started")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)

    def by_hand() -> bool:
        runs = pair.products[number].get("runs", job="sales", limit="1000")["items"]
        return any(run["id"] not in before and (run["cause"], run["state"]) == ("trigger", "FINISHED") for run in runs)

    until(by_hand, "the run that the page has started")


def test_open_pages_go_on_with_the_next_leader(pair: Pair, context: BrowserContext, tmp_path: Path) -> None:
    start_two(pair)
    add_demo(pair.products[0], tmp_path / "output")
    sign_in = context.new_page()
    sign_in.goto(pair.products[1].run("login-link").strip())
    sign_in.get_by_role("button", name="Sign in").click()
    expect(sign_in.get_by_role("heading", level=1)).to_have_text("Overview")
    sign_in.close()
    problems: list[str] = []
    of_leader, of_standby = (opened(context, pair, number, problems) for number in (0, 1))
    for page in (of_leader, of_standby):
        expect_live(page, pair, 0)

    pair.send_signal(0, signal.SIGKILL).wait()
    for page in (of_leader, of_standby):
        expect(page.locator("html")).to_have_attribute("data-said", re.compile(_AWAY))
        expect(page.get_by_role("heading", level=1)).to_have_text("sales")
    until(lambda: pair.leads(1), "scheduler 1 to lead")
    expect_live(of_standby, pair, 1)
    trigger(of_standby, pair, 1)
    # The page of the killed one goes on once that address answers again, now as a standby.
    expect(of_leader.get_by_text(_AWAY)).to_be_visible()
    pair.start(0)
    until(lambda: pair.is_standby(0), "scheduler 0 on standby")
    expect_live(of_leader, pair, 1)
    trigger(of_leader, pair, 1)
    for page in (of_leader, of_standby):
        page.goto(page.url.replace("/jobs/sales", "/account"))
        expect(page.get_by_text("token:server").first).to_be_visible()
    assert problems == []
