"""The first page of the console: numbers, short lists with their reasons, the cluster, the first run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from tests.api_kit import START
from tests.browser_kit import PATIENCE_MS, needs_browser
from tests.console_kit import Stage, busy, kept, ready, staged, watched
from tests.history_kit import make_attempt, make_sample
from tests.whole_kit import until

pytestmark = needs_browser
_HOUR_MS = 3_600_000
_HOSTILE = 'Traceback\n<img src=x onerror=alert(1)>"><script>alert(2)</script> \u202e' + "x" * 4_000


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A busy server with a history of attempts on two days. No test changes it."""
    folder = tmp_path_factory.mktemp("overview")
    ended: list[Any] = [make_attempt(number, at=START - _HOUR_MS) for number in range(3)]
    ended += [make_attempt(10 + number, at=START - 49 * _HOUR_MS, state="FAILED") for number in range(2)]
    ended += [make_sample(START - number * _HOUR_MS, 4 + number) for number in (0, 2)]
    with kept(folder, *ended) as reader, staged(folder, history=reader) as found:
        busy(found)
        found.add_job("broken", retryCount=0, cron="0 0 0 1 1 ? 2099", shardingTotalCount=1)
        found.call("POST", "jobs/broken/trigger")
        found.loop.offer("agent-3")
        for task in found.loop.tick(1_000):
            found.loop.update(task, "TASK_RUNNING")
            if task.startswith("broken"):
                found.loop.update(task, "TASK_FAILED", _HOSTILE)
        # An overview is kept for a while.
        until(lambda: found.call("GET", "overview")["shards"]["waiting"] > 0, "the present numbers")
        yield found


def opened(page: Page, stage: Stage) -> None:
    """Open the first page at the time of the scheduler."""
    page.clock.set_fixed_time(datetime.fromtimestamp(stage.loop.now / 1_000, UTC))
    page.goto(f"{stage.url}/")
    ready(page)


def part(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name=name, exact=True).first


def test_numbers_lead_to_what_they_count(stage: Stage, browser: Browser) -> None:
    numbers = stage.call("GET", "overview")
    with stage.context(browser) as context, watched(context) as page:
        opened(page, stage)
        cards = page.locator(".card")
        for text, count, address in (
            (r"shards? runs?", numbers["shards"]["running"], "/runs?state=ACTIVE"),
            (r"shards? waits?", numbers["shards"]["waiting"], "/queue"),
            (r"dead runs?", numbers["runs"]["dead"], "/runs?state=DEAD"),
            (r"late runs?", numbers["runs"]["late"], "/alerts?condition=late"),
            (r"^\s*\d+\s*jobs", numbers["jobs"]["registered"], "/jobs"),
        ):
            card = cards.filter(has_text=re.compile(text))
            expect(card.locator("strong")).to_have_text(str(count))
            expect(card).to_have_attribute("href", address)
        assert numbers["shards"]["waiting"] > 0


def test_waiting_shards_have_reasons_with_numbers(stage: Stage, browser: Browser) -> None:
    waits = stage.call("GET", "overview")["shards"]["waitingFor"]
    (queued,) = (job for job in stage.call("GET", "queue")["items"] if job["jobName"] == "wide")
    with stage.context(browser) as context, watched(context) as page:
        opened(page, stage)
        waiting = part(page, "What waits, and why")
        expect(waiting.get_by_role("listitem").filter(has_text="for an agent with room")).to_contain_text(
            f"{waits['resources']} shards"
        )
        expect(waiting.get_by_role("link", name="for an agent with room")).to_have_attribute("href", "/queue")
        row = waiting.get_by_role("row").filter(has_text="wide")
        expect(row).to_contain_text(queued["reason"])
        expect(row.get_by_role("link")).to_have_attribute("href", "/jobs/wide")


def test_failed_runs_show_the_last_line_of_their_message_as_text(stage: Stage, browser: Browser) -> None:
    with stage.context(browser) as context, watched(context) as page:
        opened(page, stage)
        failed = part(page, "Failed in the last day")
        row = failed.get_by_role("row").filter(has_text="broken")
        expect(row).to_contain_text('<img src=x onerror=alert(1)>"><script>alert(2)</script>')
        expect(row).not_to_contain_text("Traceback")
        expect(row).to_have_text(re.compile("^.{1,399}$", re.DOTALL))
        expect(page.locator("img")).to_have_count(0)
        run = stage.call("GET", "runs", job="broken")["items"][0]["id"]
        link = row.get_by_role("link", name=f"Run {run}")
        expect(link).to_have_attribute("href", f"/runs/{quote(run, safe='')}")


def test_next_firings_and_late_runs_are_listed(stage: Stage, browser: Browser) -> None:
    first = stage.call("GET", "overview")["next"][0]
    with stage.context(browser) as context, watched(context) as page:
        opened(page, stage)
        row = part(page, "Due next").get_by_role("row").nth(1)
        expect(row.get_by_role("link")).to_have_text(first["jobName"])
        expect(row.locator("time").first).to_have_attribute("datetime", first["at"])
        expect(row.locator("time").first).to_have_attribute("title", re.compile("Europe/Berlin"))
        # The zone of the job, and that of the reader.
        assert first["timeZone"] == "UTC"
        expect(row).to_contain_text(re.compile(r"22:\d\d:\d\d UTC, 2023-11-14 23:\d\d:\d\d Europe/Berlin"))
        expect(part(page, "Late")).to_contain_text("No run is late.")


def test_use_of_the_cluster_has_numbers_and_the_leader_a_time(stage: Stage, browser: Browser) -> None:
    total = stage.call("GET", "overview")["cluster"]["total"]["cpuCount"]
    with stage.context(browser) as context, watched(context) as page:
        opened(page, stage)
        cluster = part(page, "Cluster")
        expect(cluster.get_by_role("link", name="3 agents")).to_have_attribute("href", "/cluster")
        expect(cluster.locator(".amount").filter(has_text="CPUs")).to_contain_text(f"of {total:g}")
        expect(cluster.locator(".amount").filter(has_text="GPUs")).to_have_count(0)
        health = part(page, "Health")
        expect(health).to_contain_text("connected")
        expect(health.locator("time")).to_have_count(1)


def test_last_seven_days_are_a_chart_and_a_table(stage: Stage, browser: Browser) -> None:
    with stage.context(browser, locale="zh-CN") as context, watched(context) as page:
        opened(page, stage)
        week = part(page, "最近七天")
        expect(week.get_by_role("img", name="每天成功和失败的尝试次数")).to_be_visible()
        expect(week).to_contain_text("3 次尝试成功，2 次失败或丢失。")
        week.get_by_text("以表格显示").click()
        rows = week.locator(".scroll tbody tr")
        expect(rows).to_have_count(7)
        expect(rows.nth(0).get_by_role("cell").nth(1)).to_have_text("3")
        expect(rows.nth(2).get_by_role("cell").nth(2)).to_have_text("2")


def test_last_day_shows_what_ran_and_the_use_of_the_cluster(stage: Stage, browser: Browser) -> None:
    with stage.context(browser) as context, watched(context) as page:
        opened(page, stage)
        day = part(page, "The last 24 hours")
        expect(day.get_by_role("img")).to_have_count(2)
        day.get_by_text("As a table").click()
        rows = day.locator(".scroll tbody tr")
        expect(rows).to_have_count(24)
        expect(rows.nth(0).get_by_role("cell")).to_have_text([re.compile("23:00"), "4", "3", "2", "50 %", "10 %"])
        expect(rows.nth(1).get_by_role("cell")).to_have_text([re.compile("22:00"), *["–"] * 5])
        expect(rows.nth(2)).to_contain_text("6")
    with stage.context(browser, "bob") as context, watched(context) as page:
        opened(page, stage)
        expect(part(page, "The last 24 hours").get_by_role("img")).to_have_count(1)


def test_person_without_the_cluster_sees_the_own_team_only(stage: Stage, browser: Browser) -> None:
    with stage.context(browser, "bob") as context, watched(context) as page:
        opened(page, stage)
        expect(part(page, "What waits, and why")).to_be_visible()
        expect(page.locator(".card").filter(has_text=re.compile(r"\d\s*job")).locator("strong")).to_have_text("1")
        for name in ("Cluster", "Health"):
            expect(page.get_by_role("heading", name=name, exact=True)).to_have_count(0)
        expect(page.get_by_role("main")).not_to_contain_text("hello")


def test_first_run_says_how_to_begin_and_follows_what_happens(tmp_path: Path, browser: Browser) -> None:
    with (
        staged(tmp_path) as stage,
        stage.context(browser) as context,
        watched(context, expected=["503"]) as page,
    ):
        page.goto(f"{stage.url}/")
        ready(page)
        steps = page.get_by_role("listitem").filter(has_text="jobcloud ")
        expect(steps).to_have_count(3)
        expect(steps.nth(1)).to_contain_text("jobcloud app add hello")
        stage.add_app()
        stage.add_job("hello", shardingTotalCount=7, cron="0 0 0 1 1 ? 2099")
        expect(page.get_by_role("heading", name="There is no job yet")).to_have_count(0, timeout=PATIENCE_MS)
        stage.call("POST", "jobs/hello/trigger")
        waiting = page.locator(".card").filter(has_text="shards wait").locator("strong")
        expect(waiting).to_have_text("7", timeout=PATIENCE_MS)
        expect(part(page, "The last seven days")).to_contain_text("This scheduler keeps no history.")
        stage.loop.well, stage.loop.problem = False, "the store does not answer <b>at all</b>"
        until(lambda: stage.call("GET", "overview")["health"]["problem"], "the problem")
        page.reload()
        expect(page.get_by_role("alert")).to_contain_text("the store does not answer <b>at all</b>")


def test_problem_of_the_scheduler_is_told_in_the_language_of_the_reader(tmp_path: Path, browser: Browser) -> None:
    with staged(tmp_path) as stage:
        stage.loop.problem, stage.loop.since_ms = "the disk is full", stage.loop.now
        with stage.context(browser, locale="zh-CN") as context, watched(context) as page:
            page.goto(f"{stage.url}/")
            expect(page.get_by_role("alert")).to_contain_text("出错： the disk is full")
