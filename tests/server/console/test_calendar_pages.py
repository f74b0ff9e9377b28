"""The pages of calendars."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from tests.browser_kit import needs_browser
from tests.console_kit import Stage, staged, watched

pytestmark = needs_browser
HOSTILE = "<img src=x onerror=alert(1)>"
ICAL = (
    "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:x\r\nBEGIN:VEVENT\r\nUID:u\r\nDTSTAMP:20200101T000000Z\r\n"
    "DTSTART;VALUE=DATE:20200104\r\nRRULE:FREQ=WEEKLY;BYDAY=SA\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as found:
        found.add_app()
        yield found


@pytest.fixture
def page(stage: Stage, browser: Browser) -> Iterator[Page]:
    with stage.context(browser) as context, watched(context, expected=["404", "409", "412", "422"]) as found:
        yield found


def test_calendar_is_made_shown_replaced_and_removed(stage: Stage, page: Page, tmp_path: Path) -> None:
    soon = datetime.now(UTC).date() + timedelta(30)
    far = soon.replace(year=soon.year + 3, day=1)
    page.goto(f"{stage.url}/calendars")
    expect(page.get_by_text("There is no calendar.")).to_be_visible()
    page.get_by_role("button", name="New calendar").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name", exact=True).fill("closed")
    dialog.get_by_label("Days of its own").fill("soon")
    dialog.get_by_label("Description").fill(HOSTILE)
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_contain_text("is no day and no range of days")
    dialog.get_by_label("Days of its own").fill(f"{soon}/{soon + timedelta(1)}\n{far}")
    dialog.get_by_role("button", name="Save").click()
    page.wait_for_url("**/calendars/closed")
    main = page.get_by_role("main")
    expect(main).to_contain_text(HOSTILE)
    days = page.get_by_role("region", name="The next year", exact=True).locator("tbody tr")
    expect(days).to_have_count(1)
    expect(days.get_by_role("cell")).to_have_text([str(soon), str(soon + timedelta(1))])
    expect(main.get_by_text("No job names it.")).to_be_visible()
    stage.add_job("settle", cron="0 0 8 * * ?", skipOn=["closed"])
    expect(main.get_by_role("link", name="settle")).to_have_attribute("href", "/jobs/settle")
    page.get_by_role("button", name="Remove").click()
    dialog.get_by_role("button", name="Remove").click()
    expect(dialog).to_contain_text("calendar closed is in use by job settle")
    dialog.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Replace").click()
    expect(dialog.get_by_label("Days of its own")).to_have_value(f"{soon}/{soon + timedelta(1)}\n{far}")
    file = tmp_path / "closed.ics"
    file.write_text(ICAL)
    dialog.get_by_label("iCalendar file (.ics)").set_input_files(file)
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_have_count(0)
    expect(main).to_contain_text("with an iCalendar file")
    assert stage.loop.scheduler.calendars["closed"].source.ical_sha256
    expect(days.nth(51)).to_be_visible()
    # The server does not keep the text, so another change must bring it again or leave it out.
    page.get_by_role("button", name="Replace").click()
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Choose the file again")
    dialog.get_by_label("Without its iCalendar file").check()
    dialog.get_by_role("button", name="Save").click()
    expect(days).to_have_count(1)
    stage.call("DELETE", "jobs/settle")
    page.get_by_role("button", name="Remove").click()
    dialog.get_by_role("button", name="Remove").click()
    page.wait_for_url("**/calendars")
    assert stage.loop.scheduler.calendars == {}


def test_calendar_of_a_name_that_exists_is_not_replaced(stage: Stage, page: Page) -> None:
    stage.call("PUT", "calendars/closed", {"days": ["2099-01-01"]})
    page.goto(f"{stage.url}/calendars")
    row = page.get_by_role("row").filter(has_text="closed")
    expect(row.get_by_role("cell")).to_have_text(["closed", "1", "2099-12-31", "0", ""])
    page.get_by_role("button", name="New calendar").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name", exact=True).fill("closed")
    dialog.get_by_label("Weekends too").check()
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_contain_text("There is closed already.")
    dialog.get_by_role("button", name="Cancel").click()
    # A change by somebody else is shown, and is not overwritten.
    row.get_by_role("link", name="closed").click()
    page.get_by_role("button", name="Replace").click()
    stage.call("PUT", "calendars/closed", {"days": ["2098-01-01"]})
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_role("alert")).to_contain_text(re.compile("changed"))
    assert stage.loop.scheduler.calendars["closed"].days == ("2098-01-01",)


def test_person_without_the_right_only_sees_the_calendars(stage: Stage, browser: Browser) -> None:
    stage.call("PUT", "calendars/billing:closed", {"days": ["2099-01-01"]})
    stage.member("bob", "viewer", "billing")
    with stage.context(browser, "bob") as context, watched(context) as page:
        page.goto(f"{stage.url}/calendars")
        page.get_by_role("link", name="billing:closed").click()
        expect(page.get_by_text("It has no day in the next year.")).to_be_visible()
        for name in ("Replace", "Remove", "New calendar"):
            expect(page.get_by_role("button", name=name)).to_have_count(0)
