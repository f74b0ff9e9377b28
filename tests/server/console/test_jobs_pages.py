"""The pages of jobs: the list, one job with its actions, and the form."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from tests.api_kit import ARTIFACTS, job_body
from tests.browser_kit import needs_browser
from tests.console_kit import Stage, staged, watched
from tests.history_kit import DESCRIBE, of

from jobcloud.config import WebhookScheme
from jobcloud.history.database import Database
from jobcloud.history.queries import Reader
from jobcloud.history.rows import of_events
from jobcloud.messages import ConfigTraced, PutJob
from jobcloud.model import EVERY_TEAM
from jobcloud.scheduler import Policy, Scheduler, Stored

pytestmark = needs_browser

HOSTILE = "<img src=x onerror=alert(1)>"
HOURLY = "0 0 * * * ?"
# The page asks for a history once.
NO_HISTORY = ["503"]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as found:
        found.add_app()
        yield found


@pytest.fixture
def page(stage: Stage, browser: Browser) -> Iterator[Page]:
    with stage.context(browser) as context, watched(context, expected=NO_HISTORY) as found:
        yield found


@pytest.fixture
def refused(stage: Stage, browser: Browser) -> Iterator[Page]:
    """A page whose browser reports refusals of the server."""
    with stage.context(browser) as context, watched(context, expected=[*NO_HISTORY, "422", "412", "409"]) as found:
        yield found


def button(where: Page | Locator, name: str) -> Locator:
    return where.get_by_role("button", name=name, exact=True)


def fact(page: Page, name: str) -> Locator:
    """The value of a fact in the head of a page."""
    return page.locator("dl.facts > div").filter(has=page.locator("dt", has_text=re.compile(f"^{name}$"))).locator("dd")


def field(where: Page | Locator, path: str) -> Locator:
    """The input of a field of the form."""
    return where.get_by_label(re.compile(rf"\b{re.escape(path)}\b"))


def run_once(stage: Stage, name: str, state: str = "TASK_FINISHED", message: str = "", later_ms: int = 1_000) -> str:
    """Trigger a job; end all its shards in a state; return the id of the run."""
    run = stage.call("POST", f"jobs/{name}/trigger")["id"]
    stage.loop.offer()
    for task in stage.loop.tick(1):
        stage.loop.update(task, "TASK_RUNNING")
        stage.loop.now += later_ms
        stage.loop.update(task, state, message)
    return str(run)


def names(page: Page) -> Locator:
    """The links to jobs in the list."""
    return page.get_by_role("group", name="Jobs").locator("tbody tr td:first-child a")


# ---- the list --------------------------------------------------------------------------------------------------------


def test_list_is_filtered_while_somebody_types(stage: Stage, page: Page) -> None:
    for name, labels in (("alpha", "owner=ann,tier=gold"), ("beta", "owner=bob"), ("gamma", "owner=ann,tier=iron")):
        stage.add_job(name, labels=labels)
    stage.call("POST", "jobs/beta/disable")
    page.goto(f"{stage.url}/jobs")
    expect(names(page)).to_have_text(["alpha", "beta", "gamma"])
    expect(page.get_by_text("3 of 3")).to_be_visible()
    page.get_by_label("Search", exact=True).fill("MM")
    expect(names(page)).to_have_text(["gamma"])
    page.wait_for_url("**/jobs?q=MM")
    page.get_by_label("Search", exact=True).fill("nothing like that")
    expect(page.get_by_text("No job matches.")).to_be_visible()
    page.get_by_role("link", name="Clear the filters").click()
    expect(page.get_by_label("Search", exact=True)).to_have_value("")
    expect(names(page)).to_have_count(3)
    page.get_by_label("Owner").fill("ann")
    expect(names(page)).to_have_text(["alpha", "gamma"])
    page.get_by_label("Label", exact=True).fill("tier=gold, owner")
    expect(names(page)).to_have_text(["alpha"])
    page.get_by_role("link", name="Clear the filters").click()
    page.get_by_label("State", exact=True).select_option("disabled")
    expect(names(page)).to_have_text(["beta"])
    page.wait_for_url("**/jobs?state=disabled")
    page.get_by_label("App", exact=True).fill("absent")
    expect(page.get_by_text("No job matches.")).to_be_visible()
    page.reload()
    expect(page.get_by_label("App", exact=True)).to_have_value("absent")
    expect(page.get_by_label("State", exact=True)).to_have_value("disabled")


def test_going_back_restores_the_filters(stage: Stage, page: Page) -> None:
    stage.add_job("alpha")
    stage.add_job("beta")
    page.goto(f"{stage.url}/jobs?q=alp")
    expect(names(page)).to_have_text(["alpha"])
    page.get_by_label("State", exact=True).select_option("enabled")
    page.wait_for_url("**/jobs?q=alp&state=enabled")
    page.get_by_role("link", name="alpha").click()
    expect(page.get_by_role("heading", name="alpha")).to_be_visible()
    page.go_back()
    expect(page.get_by_label("State", exact=True)).to_have_value("enabled")
    page.go_back()
    expect(page.get_by_label("State", exact=True)).to_have_value("")
    expect(page.get_by_label("Search", exact=True)).to_have_value("alp")


def test_list_is_sorted_and_paged(stage: Stage, page: Page) -> None:
    jobs = [job_body(f"job-{number:03}", cron=f"0 {number % 60} {number // 60} * * ?") for number in range(250)]
    stage.call("POST", "apply", {"apps": [], "jobs": jobs})
    page.goto(f"{stage.url}/jobs")
    expect(page.get_by_text("100 of 250")).to_be_visible()
    expect(names(page)).to_have_count(100)
    button(page, "Show more").click()
    expect(names(page)).to_have_count(200)
    button(page, "Next firing").click()
    page.wait_for_url("**/jobs?sort=next")
    expect(names(page).first).to_have_text("job-000")
    button(page, "Next firing").click()
    page.wait_for_url("**/jobs?sort=-next")
    expect(names(page).first).to_have_text("job-249")
    expect(page.get_by_role("columnheader", name="Next firing")).to_have_attribute("aria-sort", "descending")


def test_list_shows_states_and_last_runs(stage: Stage, page: Page) -> None:
    stage.add_job("alpha", cron=HOURLY)
    run = run_once(stage, "alpha", "TASK_FAILED")
    stage.call("POST", "jobs/alpha/pause")
    page.goto(f"{stage.url}/jobs")
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name="alpha"))
    expect(row).to_contain_text("scheduled")
    expect(row).to_contain_text(HOURLY)
    expect(row).to_contain_text("paused")
    expect(row.get_by_role("link", name="failed")).to_have_attribute("href", f"/runs/{run.replace('@', '%40')}")
    stage.call("POST", "jobs/alpha/trigger")
    stage.call("POST", "jobs/alpha/resume")
    stage.loop.offer()
    stage.loop.tick(1)
    expect(row).to_contain_text("2 running")


# ---- one job ---------------------------------------------------------------------------------------------------------


def test_page_tells_why_the_job_waits_and_when_it_fires(stage: Stage, page: Page) -> None:
    stage.add_job("report", cron="0 30 8 * * ?", timeZone="Asia/Tokyo", cpuCount=64)
    stage.call("POST", "jobs/report/trigger")
    stage.loop.offer(cpus=2_000)
    stage.loop.tick(1)
    page.goto(f"{stage.url}/jobs/report")
    expect(page.get_by_role("heading", name="report")).to_be_visible()
    expect(page.get_by_text("1 of 1 agents have too little cpus: asked 64.5, best available 2")).to_be_visible()
    expect(page.get_by_text("2 waiting").first).to_be_visible()
    expect(fact(page, "App").get_by_role("link")).to_have_attribute("href", "/apps/demo")
    expect(fact(page, "Schedule")).to_contain_text("0 30 8 * * ?")
    firings = page.get_by_role("group", name="Next firings").get_by_role("row")
    expect(firings.nth(0)).to_contain_text("In Asia/Tokyo")
    expect(firings.nth(0)).to_contain_text("Here (Europe/Berlin)")
    expect(firings.nth(1)).to_contain_text("2023-11-15 08:30:00")
    expect(firings.nth(1)).to_contain_text("2023-11-15 00:30:00")
    expect(firings).to_have_count(11)


def test_trigger_starts_a_run_with_its_values(stage: Stage, refused: Page) -> None:
    page = refused
    stage.add_job("report", shardingTotalCount=6, jobParameter="own")
    page.goto(f"{stage.url}/jobs/report")
    button(page, "Trigger").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Parameter of all shards")).to_have_value("own")
    dialog.get_by_label("Parameter of all shards").fill(HOSTILE)
    dialog.get_by_label("Shards", exact=True).fill("x")
    expect(button(dialog, "Start a run")).to_be_disabled()
    dialog.get_by_label("Shards", exact=True).fill("0, 3-5")
    dialog.get_by_label("Parameters of single shards").fill('{"3": "a=b,c"}')
    dialog.get_by_label("Priority").fill("9999")
    dialog.get_by_label("Idempotency key").fill("k1")
    button(dialog, "Start a run").click()
    expect(dialog.get_by_role("alert")).to_contain_text("priority")
    dialog.get_by_label("Priority").fill("7")
    button(dialog, "Start a run").click()
    link = dialog.get_by_role("status").get_by_role("link")
    expect(link).to_be_visible()
    (run,) = stage.loop.scheduler.firings.values()
    expect(link).to_have_attribute("href", f"/runs/{run.id.replace('@', '%40')}")
    terms = run.terms
    assert (terms.parameter, terms.items, terms.priority, terms.key) == (HOSTILE, (0, 3, 4, 5), 7, "k1")
    assert dict(terms.item_parameters) == {3: "a=b,c"}


def test_trigger_of_a_job_with_a_schema_has_a_field_for_each_parameter(stage: Stage, refused: Page) -> None:
    page = refused
    properties = {
        "region": {"type": "string", "enum": ["eu", "us"], "title": "Region", "description": HOSTILE},
        "rounds": {"type": "integer", "maximum": 5},
        "dry": {"type": "boolean", "default": True},
        "note": {"type": "string"},
    }
    schema = json.dumps({"type": "object", "properties": properties, "required": ["region"]})
    stage.add_job("report", parameterSchema=schema, jobParameter='{"region": "eu", "kept": [1]}')
    page.goto(f"{stage.url}/jobs/report")
    button(page, "Trigger").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Region (region)")).to_have_value("eu")
    expect(dialog.get_by_label("dry")).to_have_value("true")
    expect(dialog.get_by_text(HOSTILE)).to_be_visible()
    expect(dialog.get_by_label("Parameter of all shards")).to_have_count(0)
    dialog.get_by_label("Region (region)").select_option("us")
    dialog.get_by_label("rounds").fill("9")
    button(dialog, "Start a run").click()
    expect(dialog.get_by_role("alert")).to_contain_text("jobParameter.rounds")
    dialog.get_by_label("rounds").fill("2")
    button(dialog, "Start a run").click()
    expect(dialog.get_by_role("status").get_by_role("link")).to_be_visible()
    (run,) = stage.loop.scheduler.firings.values()
    assert json.loads(run.terms.parameter or "") == {"region": "us", "kept": [1], "rounds": 2, "dry": True}


def test_webhook_of_a_job_is_shown_with_its_address(stage: Stage, page: Page) -> None:
    stage.add_job("report")
    job = replace(stage.loop.scheduler.jobs["report"], webhook_secrets=("key",), webhook_scheme=WebhookScheme.GITHUB)
    stage.loop.feed(PutJob(stage.loop.now, job, replace=True))
    page.goto(f"{stage.url}/jobs/report")
    expect(page.get_by_text(f"{stage.url}/api/v1/hooks/report")).to_be_visible()
    expect(page.get_by_text("signed by github")).to_be_visible()


def test_second_trigger_with_the_same_key_shows_the_first_run(stage: Stage, page: Page) -> None:
    stage.add_job("report")
    first = stage.call("POST", "jobs/report/trigger", {"key": "k1"})["id"]
    page.goto(f"{stage.url}/jobs/report")
    button(page, "Trigger").click()
    page.get_by_role("dialog").get_by_label("Idempotency key").fill("k1")
    button(page.get_by_role("dialog"), "Start a run").click()
    expect(page.get_by_role("dialog").get_by_text("nothing was started")).to_contain_text(first)
    assert len(stage.loop.scheduler.firings) == 1


def test_job_is_paused_resumed_disabled_and_enabled(stage: Stage, page: Page) -> None:
    stage.add_job("report")
    page.goto(f"{stage.url}/jobs/report")

    def confirmed(name: str) -> None:
        button(page, name).click()
        button(page.get_by_role("dialog"), name).click()

    confirmed("Pause")
    expect(page.get_by_text("The job is paused since")).to_be_visible()
    assert stage.call("GET", "jobs/report")["pausedBy"] == ["job"]
    button(page, "Resume").click()
    expect(button(page, "Pause")).to_be_visible()
    assert stage.call("GET", "jobs/report")["pausedBy"] == []
    confirmed("Disable")
    expect(page.get_by_text("The job is disabled", exact=True)).to_be_visible()
    assert stage.call("GET", "jobs/report")["disabled"]
    button(page, "Enable").click()
    expect(button(page, "Disable")).to_be_visible()
    assert stage.call("GET", "jobs/report")["enabled"]


def test_backfill_shows_the_fire_times_first(stage: Stage, page: Page) -> None:
    stage.add_job("report", cron=HOURLY)
    page.goto(f"{stage.url}/jobs/report")
    button(page, "Backfill").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("From").fill("2023-11-14T10:00")
    dialog.get_by_label("Until").fill("2023-11-14T15:00")
    dialog.get_by_label("At most").fill("3")
    button(dialog, "Show the fire times").click()
    expect(dialog.get_by_text("More than 3 fire times have no run.")).to_be_visible()
    times = dialog.get_by_role("listitem")
    expect(times).to_have_text([f"2023-11-14 {hour:02}:00:00 UTC" for hour in (9, 10, 11)])
    assert not stage.loop.scheduler.backfills
    dialog.get_by_label("Order").select_option("newest")
    expect(times).to_have_count(0)
    button(dialog, "Show the fire times").click()
    expect(times).to_have_text([f"2023-11-14 {hour:02}:00:00 UTC" for hour in (14, 13, 12)])
    button(dialog, "Start 3 runs").click()
    expect(fact(page, "Backfill")).to_contain_text("3 fire times wait")
    assert len(stage.loop.scheduler.backfills["report"].times) == 3
    button(page, "Cancel the backfill").click()
    button(page.get_by_role("dialog"), "Cancel the backfill").click()
    expect(fact(page, "Backfill")).to_have_count(0)
    assert not stage.loop.scheduler.backfills


def test_delete_wants_the_name(stage: Stage, page: Page) -> None:
    stage.add_job("report")
    page.goto(f"{stage.url}/jobs/report")
    button(page, "Delete").click()
    dialog = page.get_by_role("dialog")
    expect(button(dialog, "Delete")).to_be_disabled()
    dialog.get_by_role("textbox").fill("report")
    button(dialog, "Delete").click()
    page.wait_for_url(f"{stage.url}/jobs")
    assert not stage.loop.scheduler.jobs


def test_viewer_is_offered_no_changes(stage: Stage, browser: Browser) -> None:
    stage.member("bob", "viewer", "default")
    stage.add_job("report")
    with stage.context(browser, "bob") as context, watched(context, expected=NO_HISTORY) as page:
        page.goto(f"{stage.url}/jobs/report")
        expect(page.get_by_text("No firing is due now")).to_be_visible()
        main = page.get_by_role("main")
        for name in ("Trigger", "Backfill", "Pause", "Disable", "Delete"):
            expect(button(main, name)).to_have_count(0)
        expect(main.get_by_role("link", name="Edit")).to_have_count(0)
        page.goto(f"{stage.url}/jobs")
        expect(page.get_by_role("link", name="report")).to_be_visible()
        expect(main.get_by_role("link", name="New job")).to_have_count(0)


def test_resident_job_is_neither_triggered_nor_backfilled(stage: Stage, page: Page) -> None:
    stage.add_job("pulse", jobExecutionType="DAEMON")
    page.goto(f"{stage.url}/jobs/pulse")
    expect(button(page, "Disable")).to_be_visible()
    expect(button(page, "Trigger")).to_have_count(0)
    expect(button(page, "Backfill")).to_have_count(0)


def test_unknown_job_is_not_found(stage: Stage, browser: Browser) -> None:
    with stage.context(browser) as context, watched(context, expected=["404"]) as page:
        page.goto(f"{stage.url}/jobs/%3Cimg%20src%3Dx%3E")
        expect(page.get_by_role("alert")).to_be_visible()


# ---- the grid and the trend ------------------------------------------------------------------------------------------


def test_grid_has_a_link_for_each_shard_of_each_run(stage: Stage, page: Page) -> None:
    stage.add_job("report", cron=HOURLY)
    good = run_once(stage, "report")
    bad = run_once(stage, "report", "TASK_FAILED", HOSTILE + "\u202e" + "x" * 4_000)
    page.goto(f"{stage.url}/jobs/report")
    grid = page.get_by_role("grid", name="Runs and shards")
    expect(grid.get_by_role("columnheader")).to_have_count(3)
    cell = grid.get_by_role("link", name=f"{bad}, shard 1: failed, attempt 1")
    expect(cell).to_have_attribute("href", f"/runs/{bad.replace('@', '%40')}?shard=1")
    expect(cell).to_have_attribute("title", re.compile(f"^(?=.*{re.escape(HOSTILE)}).{{1,299}}$", re.DOTALL))
    expect(grid.get_by_role("link", name=f"{good}, shard 0: finished, attempt 1", exact=True)).to_be_visible()
    expect(grid.locator("img")).to_have_count(0)
    reason = page.get_by_role("list", name="Reasons")
    expect(reason.get_by_role("link", name=bad, exact=True)).to_have_attribute(
        "href", f"/runs/{bad.replace('@', '%40')}"
    )
    expect(reason).to_contain_text(HOSTILE)
    expect(reason.locator("img")).to_have_count(0)


def test_grid_is_one_stop_of_the_keyboard(stage: Stage, page: Page) -> None:
    stage.add_job("report", cron=HOURLY, shardingTotalCount=3)
    older = run_once(stage, "report")
    newer = run_once(stage, "report")
    page.goto(f"{stage.url}/jobs/report")
    links = page.get_by_role("grid").get_by_role("link")
    expect(links).to_have_count(8)
    expect(page.get_by_role("grid").locator("a[tabindex='0']")).to_have_count(1)
    links.first.focus()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("link", name=f"{newer}, shard 0")).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("link", name=f"{older}, shard 1")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("link", name=f"{older}, shard 1")).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url(f"{stage.url}/runs/{older.replace('@', '%40')}?shard=1")


def test_grid_of_a_wide_job_shows_failed_shards_first_and_folds_the_others(stage: Stage, page: Page) -> None:
    stage.add_job("report", cron=HOURLY, shardingTotalCount=120, cpuCount=0.001, memoryMB=1)
    run = stage.call("POST", "jobs/report/trigger")["id"]
    stage.loop.offer()
    tasks = stage.loop.tick(1)
    assert len(tasks) == 120
    for task in tasks:
        stage.loop.update(task, "TASK_RUNNING")
        failed = stage.loop.scheduler.tasks[task].item in (7, 119)
        stage.loop.update(task, "TASK_FAILED" if failed else "TASK_FINISHED")
    page.goto(f"{stage.url}/jobs/report")
    rows = page.get_by_role("grid").get_by_role("row")
    expect(rows).to_have_count(4)
    expect(rows.get_by_role("rowheader")).to_have_text([re.compile(f"^{first}\\b") for first in (7, 119, 118)])
    expect(rows.nth(2).get_by_role("link", name=f"{run}, shard 119: failed")).to_be_visible()
    expect(rows.last).to_contain_text("118 more")
    expect(rows.last.get_by_role("link", name=f"{run}: 118 finished")).to_be_visible()
    page.get_by_role("link", name="Show the rows of all shards").click()
    page.wait_for_url("**/jobs/report?shards=all")
    expect(rows).to_have_count(102)
    expect(rows.last).to_contain_text("20 more")
    expect(rows.last.get_by_role("link", name=f"{run}: 1 failed, 19 finished")).to_be_visible()
    page.get_by_role("link", name="Fold the shards").click()
    expect(rows).to_have_count(4)


def test_grid_of_thirty_shards_is_not_folded(stage: Stage, page: Page) -> None:
    stage.add_job("report", cron=HOURLY, shardingTotalCount=30, cpuCount=0.001, memoryMB=1)
    run_once(stage, "report")
    page.goto(f"{stage.url}/jobs/report")
    expect(page.get_by_role("grid").get_by_role("row")).to_have_count(31)


def test_new_run_appears_in_the_grid_by_itself(stage: Stage, page: Page) -> None:
    stage.add_job("report", cron=HOURLY)
    page.goto(f"{stage.url}/jobs/report")
    expect(page.get_by_text("The job has not run yet.")).to_be_visible()
    run = run_once(stage, "report")
    expect(page.get_by_role("grid").get_by_role("link", name=f"{run}, shard 0: finished")).to_be_visible()


def test_durations_without_a_history_are_those_of_kept_runs(stage: Stage, page: Page) -> None:
    stage.add_job("report", cron=HOURLY, shardingTotalCount=1)
    run_once(stage, "report", later_ms=2_000)
    slow = run_once(stage, "report", "TASK_FAILED", later_ms=60_000)
    page.goto(f"{stage.url}/jobs/report")
    expect(page.get_by_role("img", name="Durations of the last 2 runs: median 1 min, longest 1 min.")).to_be_visible()
    page.get_by_text("As a table").click()
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name=slow, exact=True))
    expect(row).to_contain_text("failed")
    expect(row).to_contain_text("1 min")


# ---- the configuration -----------------------------------------------------------------------------------------------


def test_configuration_has_all_fields_of_the_type_with_grey_defaults(stage: Stage, page: Page) -> None:
    stage.add_job("report", description=HOSTILE, retryCount=3, retryDelaySeconds=2.5)
    page.goto(f"{stage.url}/jobs/report?tab=configuration")

    def row(name: str) -> Locator:
        header = page.get_by_role("rowheader", name=re.compile(rf"\b{name}$"))
        return page.get_by_role("table").get_by_role("row").filter(has=header)

    expect(row("description")).to_contain_text(HOSTILE)
    expect(row("retryDelaySeconds")).to_contain_text("2.5 s (default: 10 s)")
    expect(row("retryMaxDelaySeconds")).to_contain_text("3,600 s (default)")
    expect(row("retryMaxDelaySeconds")).to_have_class("unset")
    expect(row("httpUri")).to_have_count(0)
    expect(row("updateStrategy")).to_have_count(0)
    page.get_by_label("Only fields that differ from their defaults").check()
    page.wait_for_url("**/jobs/report?tab=configuration&own=1")
    expect(row("retryMaxDelaySeconds")).to_have_count(0)
    expect(row("retryCount")).to_be_visible()


# ---- the form --------------------------------------------------------------------------------------------------------


def test_change_is_checked_then_shown_then_saved(stage: Stage, refused: Page) -> None:
    page = refused
    stage.add_job("report", labels="owner=ann")
    page.goto(f"{stage.url}/jobs/report")
    page.get_by_role("main").get_by_role("link", name="Edit").click()
    expect(field(page, "shardingTotalCount")).to_have_value("2")
    expect(field(page, "jobName")).to_have_count(0)
    field(page, "shardingTotalCount").fill("many")
    field(page, "memoryMB").fill("-1")
    field(page, "description").fill(HOSTILE)
    page.get_by_text("More fields").click()
    field(page, "failover").select_option("true")
    field(page, "retryDelaySeconds").fill("0.25")
    field(page, "secrets").fill("A=secret:a")
    files = page.get_by_role("textbox", name="Files files")
    expect(files).to_have_value("{}")
    files.fill('{"conf/a": "text"}')
    button(page, "Check and show the changes").click()
    expect(field(page, "shardingTotalCount")).to_have_attribute("aria-invalid", "true")
    expect(
        page.get_by_text("must be an integer, not string").or_(page.get_by_text("whole number, not"))
    ).to_be_visible()
    expect(field(page, "memoryMB")).to_have_attribute("aria-invalid", "true")
    field(page, "shardingTotalCount").fill("3")
    field(page, "memoryMB").fill("48")
    button(page, "Check and show the changes").click()
    expect(page.get_by_text("the scheduler has no source of secrets")).to_be_visible()
    field(page, "secrets").fill("")
    button(page, "Check and show the changes").click()
    changes = page.get_by_role("dialog").get_by_role("row")
    expect(changes).to_have_count(7)
    expect(changes.filter(has_text="conf/a").get_by_role("cell")).to_have_text(["empty", '{"conf/a":"text"}'])
    expect(changes.filter(has_text="shardingTotalCount").get_by_role("cell")).to_have_text(["2", "3"])
    expect(changes.filter(has_text="description")).to_contain_text(f"empty{HOSTILE}")
    assert stage.loop.scheduler.jobs["report"].shard_count == 2
    button(page.get_by_role("dialog"), "Save").click()
    page.wait_for_url("**/jobs/report?tab=configuration")
    config = stage.call("GET", "jobs/report")["config"]
    assert config["shardingTotalCount"] == 3
    assert config["memoryMB"] == 48
    assert config["failover"] is True
    assert config["retryDelaySeconds"] == 0.25
    assert config["description"] == HOSTILE
    assert config["labels"] == "owner=ann"
    assert config["secrets"] == []
    assert config["files"] == {"conf/a": "text"}


def test_form_keeps_changes_when_somebody_else_was_faster(stage: Stage, refused: Page) -> None:
    page = refused
    stage.add_job("report")
    page.goto(f"{stage.url}/jobs/report?tab=edit")
    field(page, "retryCount").fill("5")
    field(page, "cpuCount").fill("0.2")
    button(page, "Check and show the changes").click()
    with stage.api as client:
        client.patch("jobs/report", json={"memoryMB": 99}).raise_for_status()
    button(page.get_by_role("dialog"), "Save").click()
    expect(page.get_by_role("dialog").get_by_text("Somebody else has changed it")).to_be_visible()
    assert stage.call("GET", "jobs/report")["config"]["cpuCount"] == 0.1
    button(page, "Take the present configuration").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(field(page, "memoryMB")).to_have_value("99")
    expect(field(page, "cpuCount")).to_have_value("0.2")
    button(page, "Check and show the changes").click()
    button(page.get_by_role("dialog"), "Save").click()
    page.wait_for_url("**/jobs/report?tab=configuration")
    config = stage.call("GET", "jobs/report")["config"]
    assert (config["cpuCount"], config["memoryMB"], config["retryCount"]) == (0.2, 99, 5)


def test_new_job_of_another_type_has_only_its_fields(stage: Stage, refused: Page) -> None:
    page = refused
    stage.add_app("other")
    page.goto(f"{stage.url}/jobs")
    page.get_by_role("link", name="New job").click()
    expect(page.get_by_role("heading", name="New job")).to_be_visible()
    field(page, "jobClass").fill("left.over:Class")
    field(page, "jobType").select_option("SCRIPT")
    expect(field(page, "jobClass")).to_have_count(0)
    field(page, "appName").fill("other")
    field(page, "scriptCommandLine").fill("bin/run.sh --all")
    button(page, "Check and show the changes").click()
    expect(field(page, "jobName")).to_have_attribute("aria-invalid", "true")
    field(page, "jobName").fill("nightly")
    page.get_by_label("It fires as soon as it is created").uncheck()
    button(page, "Check and show the changes").click()
    expect(page.get_by_role("dialog").get_by_role("row").filter(has_text="scriptCommandLine")).to_contain_text(
        "bin/run.sh"
    )
    button(page.get_by_role("dialog"), "Create the job").click()
    page.wait_for_url(f"{stage.url}/jobs/nightly")
    job = stage.call("GET", "jobs/nightly")
    assert job["appName"] == "other"
    assert job["disabled"]
    assert job["config"]["scriptCommandLine"] == "bin/run.sh --all"
    assert job["config"]["jobClass"] == ""


def test_new_job_does_not_replace_one_that_exists(stage: Stage, refused: Page) -> None:
    page = refused
    stage.add_job("report", description="kept")
    page.goto(f"{stage.url}/jobs?new=1&copy=report")
    expect(field(page, "description")).to_have_value("kept")
    expect(field(page, "jobName")).to_have_value("")
    field(page, "jobName").fill("report")
    field(page, "description").fill("other")
    button(page, "Check and show the changes").click()
    expect(field(page, "jobName")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert stage.call("GET", "jobs/report")["config"]["description"] == "kept"


def test_cron_is_told_in_words_and_times_while_it_is_typed(stage: Stage, refused: Page) -> None:
    page = refused
    stage.add_job("report", cron=HOURLY)
    page.goto(f"{stage.url}/jobs/report?tab=edit")
    rows = page.get_by_role("group", name="Next firings").get_by_role("row")
    expect(rows).to_have_count(11)
    expect(rows.nth(1)).to_contain_text("2023-11-14 23:00:00")
    field(page, "cron").fill("0 0 6 ? * 6L")
    expect(page.get_by_text("at 06:00 on the last Friday of each month")).to_be_visible()
    expect(rows.nth(1)).to_contain_text("2023-11-24 06:00:00")
    field(page, "cron").fill("0 0 25 * * ?")
    expect(field(page, "cron")).to_have_attribute("aria-invalid", "true")
    expect(rows).to_have_count(0)
    field(page, "cron").fill(HOURLY)
    field(page, "timeZone").fill("Mars/Base")
    expect(page.get_by_text("Mars/Base")).to_be_visible()
    field(page, "timeZone").fill("Asia/Kolkata")
    expect(rows.nth(1)).to_contain_text("2023-11-15 04:00:00")
    assert stage.call("GET", "jobs/report")["config"]["timeZone"] == "UTC"


@pytest.mark.parametrize("path", ["", "?tab=configuration", "?tab=edit"])
def test_page_is_in_chinese(stage: Stage, browser: Browser, path: str) -> None:
    stage.add_job("report")
    run_once(stage, "report")
    with stage.context(browser, locale="zh-CN") as context, watched(context, expected=NO_HISTORY) as page:
        page.goto(f"{stage.url}/jobs/report{path}")
        expect(
            page.get_by_text(
                {"": "运行与分片", "?tab=configuration": "每分片内存", "?tab=edit": "检查并查看变更"}[path]
            )
        ).to_be_visible()
        expect(page.get_by_role("alert")).to_have_count(0)


@pytest.mark.parametrize("path", ["", "?tab=configuration", "?tab=edit"])
def test_page_fits_a_phone(stage: Stage, browser: Browser, path: str) -> None:
    stage.add_job("report", description="x" * 4_000, labels="owner=" + "y" * 60)
    run_once(stage, "report", "TASK_FAILED", "z" * 4_000)
    with (
        stage.context(browser, viewport={"width": 390, "height": 800}) as context,
        watched(context, expected=NO_HISTORY) as page,
    ):
        page.goto(f"{stage.url}/jobs/report{path}")
        if path == "?tab=edit":
            expect(field(page, "cron")).to_be_visible()
        else:
            expect(page.get_by_role("row").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_correcting_a_rare_field_keeps_it_open_and_focused(stage: Stage, refused: Page) -> None:
    page = refused
    stage.add_job("report")
    page.goto(f"{stage.url}/jobs/report?tab=edit")
    page.get_by_text("More fields").click()
    field(page, "killGraceSeconds").fill("-1")
    field(page, "retryCount").fill("x")
    page.get_by_text("More fields").click()
    button(page, "Check and show the changes").click()
    expect(field(page, "retryCount")).to_be_focused()
    field(page, "killGraceSeconds").fill("8")
    expect(field(page, "killGraceSeconds")).to_be_focused()
    expect(field(page, "killGraceSeconds")).to_be_visible()


# ---- the history of configurations, and what would fit ---------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Stage]:
    """A stage with a history. `remember` writes what has happened to it."""
    url = f"sqlite:///{tmp_path / 'history.db'}"
    database = Database(url)
    database.upgrade()
    reader = Reader(lambda: Database(url, reading=True))
    with staged(tmp_path, history=reader) as found:
        found.loop.scheduler = Scheduler(Policy(ARTIFACTS, traced=True), Stored(), epoch=1, at=found.loop.now)
        found.loop.subscribe()
        found.member("ann", "admin", EVERY_TEAM)
        found.add_app()
        yield found
        reader.close()
    database.close()


def remember(stage: Stage, folder: Path) -> None:
    database = Database(f"sqlite:///{folder / 'history.db'}")
    database.write(of_events(of(ConfigTraced, stage.loop.effects), DESCRIBE))
    database.close()


def change(stage: Stage, **fields: Any) -> None:
    stage.loop.now += 60_000
    with stage.api as client:
        client.patch("jobs/report", json=fields).raise_for_status()


def test_configurations_are_compared_and_put_back(kept: Stage, browser: Browser, tmp_path: Path) -> None:
    kept.add_job("report", description=HOSTILE)
    change(kept, cpuCount=0.7)
    change(kept, cpuCount=0.9, retryCount=4)
    remember(kept, tmp_path)
    with kept.context(browser) as context, watched(context, expected=["412"]) as page:
        page.goto(f"{kept.url}/jobs/report?tab=versions")
        rows = page.get_by_role("group", name="History of configurations").locator("tbody tr")
        expect(rows).to_have_count(3)
        expect(rows.nth(0)).to_contain_text("CPUs of a shard, Repeats after failures")
        expect(rows.nth(0)).to_contain_text("token:server")
        expect(rows.nth(0)).to_contain_text("present")
        expect(rows.nth(2)).to_contain_text("the first one that is kept")
        changes = page.get_by_role("group", name="Changed fields").locator("tbody tr")
        expect(changes).to_have_count(2)
        page.get_by_label("Earlier").select_option(index=2)
        expect(changes.first.get_by_role("cell")).to_have_text(["0.1", "0.9"])
        page.reload()
        expect(changes.first.get_by_role("cell")).to_have_text(["0.1", "0.9"])

        button(rows.nth(2), "Revert to this one").click()
        dialog = page.get_by_role("dialog")
        expect(dialog.locator("tbody tr").first.get_by_role("cell")).to_have_text(["0.9", "0.1"])
        change(kept, priority=3)
        button(dialog, "Revert to this one").click()
        expect(dialog.get_by_role("alert")).to_contain_text("Somebody else has just changed the job")
        assert kept.call("GET", "jobs/report")["config"]["cpuCount"] == 0.9
        button(dialog, "Cancel").click()
        button(rows.nth(2), "Revert to this one").click()
        expect(dialog.locator("tbody tr")).to_have_count(3)
        button(dialog, "Revert to this one").click()
        expect(dialog).to_have_count(0)
    config = kept.call("GET", "jobs/report")["config"]
    assert (config["cpuCount"], config["retryCount"], config["priority"]) == (0.1, 0, 0)
    assert config["description"] == HOSTILE


def test_viewer_compares_configurations_but_reverts_none(kept: Stage, browser: Browser, tmp_path: Path) -> None:
    kept.member("bob", "viewer", "default")
    kept.add_job("report")
    change(kept, cpuCount=0.7)
    remember(kept, tmp_path)
    with kept.context(browser, "bob") as context, watched(context) as page:
        page.goto(f"{kept.url}/jobs/report?tab=versions")
        expect(page.get_by_role("group", name="Changed fields")).to_be_visible()
        expect(button(page, "Revert to this one")).to_have_count(0)


def test_scheduler_without_a_history_says_so(stage: Stage, page: Page) -> None:
    stage.add_job("report")
    page.goto(f"{stage.url}/jobs/report?tab=versions")
    expect(page.get_by_text("This scheduler keeps no history")).to_be_visible()


def test_page_tells_how_many_shards_would_fit(stage: Stage, page: Page) -> None:
    stage.add_job("report", cpuCount=1, cron=HOURLY)
    stage.call("POST", "jobs/report/trigger")
    stage.loop.offer(cpus=3_000)
    page.goto(f"{stage.url}/jobs/report?tab=fit&shards=9")
    expect(page.get_by_text("2 of 9 shards fit on the resources that are offered now.")).to_be_visible()
    expect(page.get_by_role("group", name="Agents that would take shards").get_by_role("row").nth(1)).to_contain_text(
        "2"
    )
    expect(page.get_by_text("too little cpus")).to_be_visible()
    page.get_by_label("Further shards").fill("1")
    expect(page.get_by_text("The shard fits on the resources that are offered now.")).to_be_visible()
    page.wait_for_url("**/jobs/report?tab=fit&shards=1")
