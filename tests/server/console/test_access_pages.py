"""The pages about access: users, tokens, sessions, teams, roles, secrets, audit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import APIResponse, Browser, Page, Route, expect
from tests.browser_kit import needs_browser
from tests.console_kit import Stage, asked, staged, watched
from tests.whole_kit import until

from jobcloud.model import EVERY_TEAM

pytestmark = needs_browser
EVIL = '<img src=x onerror="document.title=1">'


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as found:
        yield found


@pytest.fixture
def page(stage: Stage, browser: Browser) -> Iterator[Page]:
    with stage.context(browser) as context, watched(context, expected=["404", "409", "412", "422", "503"]) as found:
        yield found


def row(page: Page, text: str) -> Any:
    return page.get_by_role("row").filter(has_text=text)


def confirm(page: Page, label: str, typed: str = "") -> None:
    """Press a button in the open dialog. `typed` is a name that it asks for."""
    dialog = page.get_by_role("dialog")
    if typed:
        dialog.get_by_label(typed, exact=True).fill(typed)
    dialog.get_by_role("button", name=label, exact=True).click()


def test_user_is_added_disabled_and_removed(stage: Stage, page: Page) -> None:
    directory = stage.loop.scheduler.directory
    page.goto(f"{stage.url}/users")
    page.get_by_role("button", name="Add user").click()
    page.get_by_role("dialog").get_by_label("Name").fill("not a name")
    confirm(page, "Add user")
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("name")
    page.get_by_role("dialog").get_by_label("Name").fill("bob")
    page.get_by_role("dialog").get_by_label("Password").fill("a long enough password")
    confirm(page, "Add user")
    expect(row(page, "bob")).to_contain_text("set")
    assert directory.users["bob"].password
    row(page, "bob").get_by_role("button", name="Disable").click()
    confirm(page, "Disable")
    expect(row(page, "bob")).to_contain_text("disabled")
    assert directory.users["bob"].disabled
    row(page, "bob").get_by_role("button", name="Remove").click()
    expect(page.get_by_role("dialog").get_by_role("button", name="Remove", exact=True)).to_be_disabled()
    confirm(page, "Remove", typed="bob")
    expect(row(page, "bob")).to_have_count(0)
    assert "bob" not in directory.users


def test_link_for_a_user_is_shown_once(stage: Stage, page: Page) -> None:
    stage.member("bob", "viewer", "default")
    page.goto(f"{stage.url}/users")
    row(page, "bob").get_by_role("button", name="Sign-in link").click()
    expect(page.get_by_role("dialog")).to_contain_text(f"{stage.url}/login/link#")


def test_last_admin_cannot_be_removed(stage: Stage, page: Page) -> None:
    stage.call("DELETE", "tokens/server")
    page.goto(f"{stage.url}/users")
    row(page, "ann").get_by_role("button", name="Remove").click()
    confirm(page, "Remove", typed="ann")
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text("nobody else is an admin")


def test_token_is_shown_once_and_revoked(stage: Stage, page: Page) -> None:
    page.goto(f"{stage.url}/tokens")
    page.get_by_role("button", name="New token").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("ci")
    dialog.get_by_label("Roles").fill("default")
    confirm(page, "New token")
    expect(dialog.get_by_role("alert")).to_contain_text("The line default is not TEAM ROLE.")
    dialog.get_by_label("Roles").fill("default viewer")
    confirm(page, "New token")
    expect(dialog).to_contain_text("It is shown only once")
    secret = dialog.locator("code").inner_text()
    assert stage.loop.scheduler.directory.tokens[secret.split("_")[1]].scope == (("default", "viewer"),)
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    assert secret not in page.content()
    expect(row(page, "default viewer")).to_contain_text("valid")
    row(page, "default viewer").get_by_role("button", name="Revoke").click()
    confirm(page, "Revoke")
    expect(row(page, "default viewer")).to_contain_text("revoked")


@pytest.fixture
def ending(stage: Stage, browser: Browser) -> Iterator[Page]:
    """A page that may notice the end of its session by a refusal."""
    with stage.context(browser) as context, watched(context, expected=["401"]) as found:
        yield found


def sign_out_everywhere(stage: Stage, page: Page) -> None:
    page.goto(f"{stage.url}/tokens")
    expect(row(page, "this one")).to_contain_text("user:ann")
    page.get_by_role("button", name="Sign out everywhere").click()
    confirm(page, "Sign out everywhere")


def test_person_ends_all_own_sessions(stage: Stage, ending: Page) -> None:
    sign_out_everywhere(stage, ending)
    ending.wait_for_url("**/login?ended=1")
    assert not stage.loop.scheduler.directory.sessions


def ways_out(page: Page) -> list[Route]:
    """The requests by which a page leaves the console, from now on. Their answer lets it stay."""
    found: list[Route] = []

    def stay(route: Route) -> None:
        found.append(route)
        route.fulfill(status=204)

    page.route("**/account", stay)
    return found


def test_page_leaves_once_if_a_refusal_comes_before_the_answer_to_the_end(stage: Stage, ending: Page) -> None:
    """A second way out would lose what the first one says: its cookie is gone."""
    left = ways_out(ending)
    answered: list[tuple[Route, APIResponse]] = []

    def late(route: Route) -> None:
        if route.request.method == "DELETE":
            answered.append((route, route.fetch()))
        else:
            route.continue_()

    ending.route("**/api/v1/sessions*", late)
    sign_out_everywhere(stage, ending)
    asked(ending, left, 1)
    ((end, answer),) = answered
    end.fulfill(response=answer)
    expect(ending.get_by_role("dialog")).to_have_count(0)
    asked(ending, left, 1)


def test_page_leaves_once_if_a_refusal_comes_after_the_answer_to_the_end(stage: Stage, ending: Page) -> None:
    left = ways_out(ending)
    late: list[Route] = []
    holding = True

    def hold_reads(route: Route) -> None:
        if holding and route.request.method == "GET" and not stage.loop.scheduler.directory.sessions:
            late.append(route)
        else:
            route.continue_()

    ending.route(re.compile("/api/v1/(sessions|tokens|whoami)"), hold_reads)
    ending.clock.install()
    sign_out_everywhere(stage, ending)
    asked(ending, left, 1)
    ending.clock.fast_forward(61_000)  # a page loads its data once a minute in any case
    until(lambda: ending.evaluate("true") and late, "a load after the end of the session")
    holding = False
    for route in late:
        route.continue_()
    expect(ending.get_by_role("main").get_by_role("alert").first).to_be_visible()
    asked(ending, left, 1)


def test_team_gets_a_quota_members_and_is_removed(stage: Stage, page: Page) -> None:
    teams = stage.loop.scheduler.directory.teams
    page.goto(f"{stage.url}/teams")
    page.get_by_role("button", name="New team").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("billing")
    dialog.get_by_label("CPUs").fill("many")
    confirm(page, "Save")
    expect(dialog.get_by_role("alert")).to_contain_text("CPUs is not a number.")
    dialog.get_by_label("CPUs").fill("1.5")
    confirm(page, "Save")
    page.wait_for_url("**/teams/billing")
    expect(row(page, "CPUs")).to_contain_text("1.5")
    assert teams["billing"].quota.cpus == 1_500
    page.get_by_role("button", name="Add a member").click()
    dialog.get_by_label("Subject").fill("service:billing/bot")
    dialog.get_by_label("Role").select_option("operator")
    confirm(page, "Add a member")
    members = page.get_by_role("region", name="Members")
    expect(members.get_by_role("row").filter(has_text="bot")).to_contain_text("operator")
    page.get_by_role("region", name="Service accounts").get_by_role("button", name="Remove").click()
    confirm(page, "Remove")
    expect(members.get_by_role("row")).to_have_count(0)
    assert teams["billing"].members == ()
    page.get_by_role("button", name="Remove the team").click()
    confirm(page, "Remove the team", typed="billing")
    page.wait_for_url("**/teams")
    assert "billing" not in teams


def test_change_of_a_team_that_somebody_else_changed_meanwhile_is_refused(stage: Stage, page: Page) -> None:
    stage.call("PUT", "teams/billing", {"weight": 2})
    page.goto(f"{stage.url}/teams/billing")
    page.get_by_role("button", name="Change quota and weight").click()
    stage.call("PUT", "teams/billing", {"weight": 3})
    # The page behind the form follows. The form does not.
    expect(page.get_by_text("Weight 3")).to_be_visible()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Weight")).to_have_value("2")
    dialog.get_by_label("CPUs").fill("1")
    confirm(page, "Save")
    expect(dialog.get_by_role("alert")).to_contain_text("It has changed meanwhile")
    assert stage.loop.scheduler.directory.teams["billing"].weight == 3


def test_change_of_a_role_that_somebody_else_changed_meanwhile_is_refused(stage: Stage, page: Page) -> None:
    stage.call("PUT", "roles/caller", {"verbs": ["trigger"]})
    page.goto(f"{stage.url}/teams")
    row(page, "caller").get_by_role("button", name="Change").click()
    stage.call("PUT", "roles/caller", {"verbs": ["view", "trigger"]})
    # The page behind the form follows. The form does not.
    expect(row(page, "caller")).to_contain_text("view, trigger")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("view", exact=True)).not_to_be_checked()
    dialog.get_by_label("pause", exact=True).check()
    confirm(page, "Save")
    expect(dialog.get_by_role("alert")).to_contain_text("It has changed meanwhile")
    assert stage.loop.scheduler.directory.roles["caller"].verbs == ("view", "trigger")
    page.keyboard.press("Escape")
    row(page, "caller").get_by_role("button", name="Change").click()
    dialog.get_by_label("pause", exact=True).check()
    confirm(page, "Save")
    expect(row(page, "caller")).to_contain_text("view, trigger, pause")


def test_new_team_or_role_replaces_no_other_one(stage: Stage, page: Page) -> None:
    stage.call("PUT", "teams/billing", {"weight": 2})
    stage.call("PUT", "roles/caller", {"verbs": ["trigger"]})
    page.goto(f"{stage.url}/teams")
    page.get_by_role("button", name="New team").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("billing")
    confirm(page, "Save")
    expect(dialog.get_by_role("alert")).to_contain_text("There is billing already.")
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="New team")).to_be_focused()
    page.get_by_role("button", name="New role").click()
    dialog.get_by_label("Name").fill("caller")
    dialog.get_by_label("pause", exact=True).check()
    confirm(page, "Save")
    expect(dialog.get_by_role("alert")).to_contain_text("There is caller already.")
    directory = stage.loop.scheduler.directory
    assert (directory.teams["billing"].weight, directory.roles["caller"].verbs) == (2, ("trigger",))


def test_role_is_made_of_verbs(stage: Stage, page: Page) -> None:
    page.goto(f"{stage.url}/teams")
    page.get_by_role("button", name="New role").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("caller")
    dialog.get_by_label("trigger").check()
    confirm(page, "Save")
    expect(row(page, "caller")).to_contain_text("trigger")
    row(page, "caller").get_by_role("button", name="Remove").click()
    confirm(page, "Remove")
    expect(row(page, "caller")).to_have_count(0)


def test_viewer_is_offered_no_change(stage: Stage, browser: Browser) -> None:
    stage.member("bob", "viewer", "billing")
    with stage.context(browser, "bob") as context, watched(context) as page:
        page.goto(f"{stage.url}/teams/billing")
        expect(row(page, "user:bob")).to_contain_text("viewer")
        expect(page.get_by_role("main").get_by_role("button")).to_have_count(0)
        page.goto(f"{stage.url}/teams")
        expect(row(page, "billing")).to_be_visible()
        expect(page.get_by_role("main").get_by_role("button")).to_have_count(0)


def test_secrets_are_listed_by_name_only(stage: Stage, page: Page) -> None:
    stage.add_app()
    page.goto(f"{stage.url}/secrets")
    expect(page.get_by_role("main")).to_contain_text("No job refers to a secret.")


def test_audit_page_says_that_there_is_no_history(stage: Stage, page: Page) -> None:
    page.goto(f"{stage.url}/audit?outcome=refused")
    expect(page.get_by_label("Outcome")).to_have_value("refused")
    expect(page.get_by_role("alert")).to_be_visible()


def test_hostile_names_are_texts(stage: Stage, page: Page) -> None:
    stage.call("POST", f"teams/{EVERY_TEAM}/members", {"subject": f"group:{EVIL}", "role": "viewer"})
    page.goto(f"{stage.url}/teams/{EVERY_TEAM}")
    expect(row(page, EVIL)).to_be_visible()
    expect(page).not_to_have_title("1")
    assert json.dumps(EVIL) not in page.content()
