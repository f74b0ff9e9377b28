"""The pages of alerts, apps and packages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect
from tests.api_kit import package_bytes
from tests.browser_kit import needs_browser
from tests.console_kit import Stage, asked, staged, watched

pytestmark = needs_browser
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as found:
        found.add_app()
        found.add_job("hello")
        yield found


@pytest.fixture
def page(stage: Stage, browser: Browser) -> Iterator[Page]:
    with stage.context(browser) as context, watched(context, expected=["409", "422", "412"]) as found:
        yield found


def row(page: Page, text: str) -> Any:
    return page.get_by_role("row").filter(has_text=text)


def confirm(page: Page, label: str, typed: str = "") -> None:
    dialog = page.get_by_role("dialog")
    if typed:
        dialog.get_by_label(typed, exact=True).fill(typed)
    dialog.get_by_role("button", name=label, exact=True).click()


def test_app_is_paused_disabled_and_enabled(stage: Stage, page: Page) -> None:
    page.goto(f"{stage.url}/apps")
    row(page, "demo").get_by_role("link", name="demo").click()
    page.get_by_role("button", name="Pause").click()
    confirm(page, "Pause")
    expect(page.get_by_role("main")).to_contain_text("paused")
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    assert not stage.loop.scheduler.pauses
    page.get_by_role("button", name="Disable").click()
    confirm(page, "Disable")
    expect(page.get_by_role("button", name="Enable")).to_be_visible()
    assert "demo" in stage.loop.scheduler.disabled_apps
    page.get_by_role("button", name="Enable").click()
    expect(page.get_by_role("button", name="Disable")).to_be_visible()


def entry(page: Page, path: str) -> Locator:
    """The input of a field of the form."""
    return page.get_by_label(re.compile(rf"\b{path}\b"))


def review(page: Page) -> Locator:
    """Let the server check the form. Returns the dialog with the changes."""
    page.get_by_role("button", name="Check and show the changes").click()
    return page.get_by_role("dialog")


def test_app_is_changed_in_a_form_and_rolled_back(stage: Stage, page: Page) -> None:
    page.goto(f"{stage.url}/apps/demo")
    page.get_by_role("main").get_by_role("link", name="Edit").click()
    expect(entry(page, "cpuCount")).to_have_value("0.5")
    expect(entry(page, "appName")).to_have_count(0)
    entry(page, "cpuCount").fill("-1")
    page.get_by_text("More fields").click()
    entry(page, "idleTimeoutSeconds").fill("soon")
    dialog = review(page)
    expect(entry(page, "cpuCount")).to_have_attribute("aria-invalid", "true")
    expect(entry(page, "idleTimeoutSeconds")).to_have_attribute("aria-invalid", "true")
    expect(dialog).to_have_count(0)
    entry(page, "cpuCount").fill("2")
    entry(page, "idleTimeoutSeconds").fill("90")
    entry(page, "executors").fill("each")
    entry(page, "appCacheEnable").select_option("false")
    entry(page, "description").fill(HOSTILE)
    rows = review(page).locator("tbody tr")
    expect(rows).to_have_count(5)
    expect(rows.filter(has_text="cpuCount").get_by_role("cell")).to_have_text(["0.5", "2"])
    expect(rows.filter(has_text="executors").get_by_role("cell")).to_have_text(["0", "each"])
    assert stage.loop.scheduler.apps["demo"].resources.cpus == 500
    confirm(page, "Save")
    page.wait_for_url("**/apps/demo")
    config = stage.call("GET", "apps/demo")["config"]
    assert (config["cpuCount"], config["executors"], config["idleTimeoutSeconds"]) == (2, "each", 90)
    assert (config["appCacheEnable"], config["description"]) == (False, HOSTILE)
    expect(page.get_by_role("row").filter(has_text="description").first).to_contain_text(HOSTILE)
    page.get_by_role("button", name="Roll back to it").click()
    expect(dialog.locator("tbody tr").filter(has_text="cpuCount").get_by_role("cell")).to_have_text(["2", "0.5"])
    confirm(page, "Roll back to it")
    expect(dialog).to_have_count(0)
    assert stage.loop.scheduler.apps["demo"].resources.cpus == 500


def test_number_of_warm_executors_stays_a_number(stage: Stage, page: Page) -> None:
    page.goto(f"{stage.url}/apps/demo?tab=edit")
    entry(page, "executors").fill("3")
    expect(review(page).locator("tbody tr")).to_have_count(1)
    confirm(page, "Save")
    page.wait_for_url("**/apps/demo")
    assert stage.loop.scheduler.apps["demo"].executors == 3


def test_another_stored_package_of_an_app_brings_its_hash(stage: Stage, page: Page) -> None:
    content = package_bytes({"hello.py": "class Hello: ...\n", "more.py": ""})
    with stage.api as client:
        stored = client.post("packages", content=content, headers={"Content-Type": "application/zip"}).json()
    page.goto(f"{stage.url}/apps/demo?tab=edit")
    expect(entry(page, "appURL")).to_be_visible()
    expect(entry(page, "packageSha256")).to_have_count(0)
    entry(page, "appURL").fill(stored["appURL"])
    expect(review(page).locator("tbody tr")).to_have_count(2)
    confirm(page, "Save")
    page.wait_for_url("**/apps/demo")
    assert stage.call("GET", "apps/demo")["config"]["packageSha256"] == stored["sha256"]


def test_form_of_an_app_keeps_changes_when_somebody_else_was_faster(stage: Stage, page: Page) -> None:
    page.goto(f"{stage.url}/apps/demo?tab=edit")
    entry(page, "cpuCount").fill("0.2")
    dialog = review(page)
    with stage.api as client:
        client.patch("apps/demo", json={"memoryMB": 99}).raise_for_status()
    confirm(page, "Save")
    expect(dialog.get_by_text("Somebody else has changed it")).to_be_visible()
    assert stage.loop.scheduler.apps["demo"].resources.cpus == 500
    page.get_by_role("button", name="Take the present configuration").click()
    expect(entry(page, "memoryMB")).to_have_value("99")
    review(page)
    confirm(page, "Save")
    page.wait_for_url("**/apps/demo")
    found = stage.loop.scheduler.apps["demo"].resources
    assert (found.cpus, found.mem) == (200, 99_000)


def test_app_is_added_from_an_upload_and_removed_with_its_jobs(stage: Stage, page: Page, tmp_path: Path) -> None:
    archive = tmp_path / "package.zip"
    archive.write_bytes(package_bytes({"other.py": "class Other: ...\n"}))
    page.goto(f"{stage.url}/packages")
    page.get_by_role("button", name="Upload a package").click()
    expect(page.get_by_role("dialog")).to_contain_text("at most")
    page.get_by_label("Archive").set_input_files(archive)
    confirm(page, "Upload a package")
    url = page.get_by_role("dialog").locator("code").inner_text()
    page.goto(f"{stage.url}/apps")
    page.get_by_role("link", name="New app").click()
    dialog = review(page)
    expect(entry(page, "appName")).to_be_focused()
    expect(dialog).to_have_count(0)
    entry(page, "appName").fill("demo")
    expect(page.locator(f'datalist option[value="{url}"]')).to_have_count(1)
    entry(page, "appURL").fill(url)
    review(page)
    expect(entry(page, "appName")).to_have_attribute("aria-invalid", "true")
    entry(page, "appName").fill("other")
    expect(review(page).locator("tbody tr").filter(has_text="appURL")).to_contain_text(url)
    confirm(page, "Create the app")
    page.wait_for_url("**/apps/other")
    page.goto(f"{stage.url}/apps/demo")
    page.get_by_role("button", name="Remove").click()
    expect(page.get_by_role("dialog")).to_contain_text("with its job.")
    confirm(page, "Remove", typed="demo")
    page.wait_for_url("**/apps")
    assert list(stage.loop.scheduler.apps) == ["other"]
    assert not stage.loop.scheduler.jobs


def test_package_that_is_missing_is_refused_in_the_form(stage: Stage, page: Page) -> None:
    page.goto(f"{stage.url}/apps?new=1")
    entry(page, "appName").fill("other")
    entry(page, "appURL").fill(f"package:sha256:{'0' * 64}")
    review(page)
    confirm(page, "Create the app")
    expect(entry(page, "appURL")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert list(stage.loop.scheduler.apps) == ["demo"]


def test_upload_of_something_else_is_refused_in_words(stage: Stage, page: Page, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no archive")
    page.goto(f"{stage.url}/packages")
    page.get_by_role("button", name="Upload a package").click()
    page.get_by_label("Archive").set_input_files(text)
    confirm(page, "Upload a package")
    expect(page.get_by_role("dialog").get_by_role("alert")).to_be_visible()


def test_viewer_is_offered_no_change_of_an_app(stage: Stage, browser: Browser) -> None:
    stage.member("bob", "viewer", "default")
    with stage.context(browser, "bob") as context, watched(context) as page:
        for path in ("apps/demo", "apps", "packages", "alerts"):
            page.goto(f"{stage.url}/{path}")
            page.get_by_role("heading", level=1).wait_for()
            expect(page.locator("main .loading")).to_have_count(0)
            expect(page.get_by_role("main").get_by_role("button")).to_have_count(0)


def test_alerts_page_names_conditions_and_the_missing_channels(stage: Stage, page: Page) -> None:
    page.goto(f"{stage.url}/alerts")
    expect(page.get_by_text("Nothing is wrong.")).to_be_visible()
    expect(page.get_by_text("No channel is configured")).to_be_visible()
    expect(row(page, "lateAfterSeconds")).to_be_visible()
    page.get_by_label("Condition").first.select_option("late")
    page.wait_for_url("**/alerts?condition=late")
    page.get_by_role("button", name="Silence alerts").click()
    confirm(page, "Silence alerts")
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("no channel")


def test_alerts_are_asked_for_once(stage: Stage, page: Page) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/api/v1/alerts?*", hold)
    page.goto(f"{stage.url}/alerts")
    expect(page.get_by_text("Nothing is silenced.")).to_be_visible()
    asked(page, held, 1)
    page.unroute_all()  # what was held goes on
    expect(page.get_by_text("No channel is configured")).to_be_visible()
    expect(page.get_by_text("Nothing is wrong.")).to_be_visible()
    page.get_by_label("Condition").first.select_option("late")
    page.wait_for_url("**/alerts?condition=late")
    expect(page.get_by_text("Nothing is wrong.")).to_be_visible()
    expect(page.get_by_text("No channel is configured")).to_be_visible()
