"""All pages of the console as people see or hear them: axe-core finds nothing, nothing is cut at the width of a phone.

The pictures of all pages are kept in build/console.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, ViewportSize
from tests.api_kit import START
from tests.browser_kit import needs_browser
from tests.console_kit import Stage, busy, kept, notes_of, ready, staged, watched
from tests.history_kit import make_attempt, make_sample
from tests.npm_kit import install

pytestmark = needs_browser
PICTURES = Path(__file__).parents[3] / "build" / "console"
_HOUR_MS = 3_600_000
_WIDE: ViewportSize = {"width": 1440, "height": 900}
_NARROW: ViewportSize = {"width": 390, "height": 844}
# Rules of WCAG 2.2, levels A and AA, and those of axe that are good practice. `only`: these rules.
_AXE = """only => axe.run(document, {resultTypes: ["violations"], ...(only.length ? {runOnly: only} : {})})
  .then(found => found.violations.map(one =>
    `${one.id}: ${one.nodes.slice(0, 3).map(node => node.html.slice(0, 150)).join(" | ")}`))"""


@pytest.fixture(scope="module")
def axe() -> str:
    """The script of axe-core."""
    folder = install(Path(__file__).parents[2] / "axe")
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("console")
    ended = [make_attempt(number, at=START - number * _HOUR_MS) for number in range(20)]
    samples = [make_sample(START - number * _HOUR_MS, number) for number in range(20) if number != 5]
    with kept(folder, *ended, *samples) as reader, staged(folder, history=reader, notes=notes_of(folder)) as found:
        busy(found)
        add_workflow(found)
        yield found


def add_workflow(stage: Stage) -> None:
    """A workflow with conditions of all kinds, and a run with nodes in several states."""
    names = ("extract-orders-of-all-shops", "transform", "load", "alarm", "report", "clean")
    for name in names:
        stage.add_job(name, cron="0 0 0 1 1 ? 2090", shardingTotalCount=1, retryCount=0)
    after = {
        "transform": ["extract-orders-of-all-shops"], "load": ["transform"],
        "alarm": [{"node": "transform", "on": "failure"}, {"node": "load", "on": "failure"}],
        "report": ["load", "extract-orders-of-all-shops"], "clean": [{"node": "load", "on": "either"}],
    }  # fmt: skip
    nodes = [{"job": name, "after": after.get(name, []), "join": "any" if name == "alarm" else "all"} for name in names]
    stage.call("PUT", "workflows/sales", {"nodes": nodes, "description": "the sales of each hour"})
    for state in ("TASK_FINISHED", "TASK_FAILED"):
        stage.call("POST", f"jobs/{names[0]}/trigger")
        for _ in range(2):
            stage.loop.offer("agent-1")
            for task in stage.loop.tick(1_000):
                if "hello" not in task and "resident" not in task:
                    stage.loop.update(task, state)
    stage.call("POST", "jobs/clean/pause")


def addresses(stage: Stage) -> dict[str, str]:
    """Name → address of a page, of every kind of page."""
    run = stage.call("GET", "runs")["items"][0]["id"]
    workflow_run = stage.call("GET", "workflows/sales/runs")["items"][0]["id"]
    names = (
        "jobs", "runs", "queue", "apps", "packages", "cluster", "executors", "events", "statistics", "alerts", "teams",
        "users", "tokens", "secrets", "audit", "calendars", "workflows",
    )  # fmt: skip
    return {
        "overview": "/", **{name: f"/{name}" for name in names},
        "job": "/jobs/hello", "job-configuration": "/jobs/hello?tab=configuration", "job-new": "/jobs?new=1",
        "run": f"/runs/{run}", "shard": f"/runs/{run}?shard=0", "runs-failed": "/runs?failed=24h",
        "job-versions": "/jobs/hello?tab=versions", "job-fit": "/jobs/hello?tab=fit",
        "job-edit": "/jobs/hello?tab=edit",
        "app": "/apps/demo", "app-edit": "/apps/demo?tab=edit", "app-new": "/apps?new=1", "team": "/teams/billing",
        "calendar": "/calendars/closed", "workflow": "/workflows/sales",
        "workflow-run": f"/workflows/runs/{workflow_run}",
    }  # fmt: skip


def is_cut(page: Page) -> bool:
    """Whether the page is wider than the window."""
    found: bool = page.evaluate("document.documentElement.scrollWidth > innerWidth")
    return found


class Looks:
    """A page that is looked at in several sizes and colours. `faults`: what was found, by page."""

    def __init__(self, page: Page, axe: str) -> None:
        self.faults: dict[str, list[str]] = {}
        self._page, self._axe = page, axe

    def open(self, name: str, url: str) -> None:
        self._name = name
        self._page.goto(url)
        try:
            ready(self._page)
        except AssertionError as error:
            raise AssertionError(f"{name} is still being loaded") from error
        self._page.evaluate(self._axe)

    def look(self, size: ViewportSize, colours: Literal["light", "dark"], *rules: str) -> None:
        """Take a picture, and run the rules of axe (default: all) on what is open."""
        self._page.set_viewport_size(size)
        self._page.emulate_media(color_scheme=colours)
        name = f"{self._name}-{colours}-{size['width']}"
        self._page.screenshot(path=PICTURES / f"{name}.png", full_page=True)
        found = self._page.evaluate(_AXE, list(rules))
        if is_cut(self._page):
            found.append("is wider than the window")
        if found:
            self.faults[name] = found


@pytest.mark.parametrize("language", ["en-GB", "zh-CN"])
def test_pages_pass_axe_and_fit(stage: Stage, browser: Browser, axe: str, language: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    with stage.context(browser, locale=language) as context, watched(context) as page:
        page.clock.set_fixed_time(datetime.fromtimestamp(stage.loop.now / 1_000, UTC))
        looks = Looks(page, axe)
        for name, address in addresses(stage).items():
            page.set_viewport_size(_NARROW)
            page.emulate_media(color_scheme="dark")
            looks.open(name, stage.url + address)
            if language == "zh-CN":
                looks.look(_NARROW, "dark")
            else:
                looks.look(_NARROW, "light")
                looks.look(_WIDE, "light")
                # The colours are all that differs.
                looks.look(_WIDE, "dark", "color-contrast")
    assert looks.faults == {}, "\n".join(f"{name}: {found}" for name, found in looks.faults.items())
