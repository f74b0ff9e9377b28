"""The console's pages of the cluster, of the executors and of the statistics."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from tests.api_kit import START
from tests.browser_kit import PATIENCE_MS, needs_browser
from tests.console_kit import Stage, busy, kept, ready, staged, watched
from tests.history_kit import make_attempt, make_run, make_sample

from jobcloud.config import Resources
from jobcloud.history.samples import TeamNumbers
from jobcloud.messages import OffersReceived
from jobcloud.model import EVERY_TEAM, Offer, ShardState, Share

pytestmark = needs_browser
_HOSTILE = '"><img src=x onerror=alert(1)>'
_HOUR_MS = 3_600_000
_TORN: list[str] = []


def offered(stage: Stage, agent: str, cpus: int, host: str = "", **attributes: str) -> None:
    """An agent offers some thousandths of CPUs, and has attributes."""
    shares = (Share("cpus", cpus), Share("mem", 4_000_000), Share("gpus", 2_000))
    offer = Offer(f"offer-of-{agent}", agent, host or f"{agent}.test", f"{agent}.test:5051", shares,
                  tuple(attributes.items()))  # fmt: skip
    stage.loop.feed(OffersReceived(stage.loop.now, (offer,)))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A busy server with a history. A test that changes it changes it back."""
    folder = tmp_path_factory.mktemp("cluster")
    ended: list[Any] = [
        make_attempt(number, at=START - _HOUR_MS, started_ms=START - _HOUR_MS - 2_000) for number in range(9)
    ]
    ended += [
        make_attempt(20, job="billing:sum", app="billing:till", at=START - 30_000, state="FAILED"),
        make_attempt(30, job=_HOSTILE, at=START - 26 * _HOUR_MS),
    ]
    ended += [
        make_run(number, state, since=START - _HOUR_MS)
        for number, state in enumerate([ShardState.FINISHED, ShardState.FINISHED, ShardState.DEAD])
    ]
    # An hour and some minutes without a leader.
    billing = TeamNumbers(1, 0, 1, 2, 0, 1, Resources(1_000))
    ended += [
        *(make_sample(START - number * _HOUR_MS, 4 + number, billing=billing) for number in (0, 2, 3)),
        *(make_sample(START - number * 60_000, 4) for number in (1, 5, 6)),
    ]
    parts = {"teardown": lambda: _TORN.append("down")}
    with kept(folder, *ended) as reader, staged(folder, history=reader, **parts) as found:
        busy(found)
        found.member("tess", "teardown", EVERY_TEAM)
        found.member("tess", "viewer", EVERY_TEAM)
        found.member("vic", "viewer", EVERY_TEAM)
        offered(found, "agent-3", 2_000, rack="r2", zone="b")
        offered(found, "agent-4", 16_000, rack="r1", zone="b")
        found.loop.tick(1_000)
        yield found


def opened(page: Page, stage: Stage, address: str) -> None:
    """Open a page at the time of the scheduler."""
    page.clock.set_fixed_time(datetime.fromtimestamp(stage.loop.now / 1_000, UTC))
    page.goto(f"{stage.url}{address}")
    ready(page)


def hosts(page: Page) -> Locator:
    return page.locator(".agent .host")


# ---- the cluster ----------------------------------------------------------------------------------------------------


def test_agents_are_boxes_with_amounts_apps_and_attributes(stage: Stage, browser: Browser) -> None:
    agents = {agent["hostname"]: agent for agent in stage.call("GET", "cluster")["agents"]}
    with stage.context(browser) as context, watched(context) as page:
        opened(page, stage, "/cluster")
        box = page.locator(".agent").filter(has_text="agent-4.test")
        claimed = agents["agent-4.test"]["claimed"]["cpuCount"]
        expect(box.locator(".amount").filter(has_text="CPUs")).to_contain_text(f"{claimed:g} of 16")
        expect(box.locator(".amount").filter(has_text="GPUs")).to_contain_text("0 of 2")
        expect(box.locator(".amount").filter(has_text="Disk")).to_have_count(0)
        expect(box).to_contain_text("rack=r1")
        chip = page.locator(".agent").filter(has_text="agent-1.test").locator(".chip").filter(has_text="demo")
        running = [one for one in stage.call("GET", "executors", limit=1000)["items"]
                   if (one["hostname"], one["appName"]) == ("agent-1.test", "demo")]  # fmt: skip
        expect(chip.locator("strong")).to_have_text(str(sum(one["tasks"] for one in running)))
        chip.click()
        page.wait_for_url("**/executors?agent=agent-1.test&app=demo")
        expect(page.get_by_role("row")).to_have_count(1 + len(running))


def test_page_names_the_mesos_roles_of_teams_if_some_have_one(stage: Stage, browser: Browser) -> None:
    known = stage.loop.scheduler.cluster
    with stage.context(browser) as context, watched(context) as page:
        opened(page, stage, "/cluster")
        expect(page.get_by_text("Matcher", exact=True)).to_be_visible()
        expect(page.get_by_text("Mesos roles of teams")).to_have_count(0)
        known.team_roles = {"billing": "finance", "web": "eng/web"}
        opened(page, stage, "/cluster")
        fact = page.locator(".facts > div").filter(has_text="Mesos roles of teams")
        expect(fact.locator("dd")).to_have_text("billing: finance, web: eng/web")
    known.team_roles = {}


def test_groups_order_and_filters_are_in_the_address(stage: Stage, browser: Browser) -> None:
    with stage.context(browser) as context, watched(context) as page:
        opened(page, stage, "/cluster")
        expect(hosts(page)).to_have_text([f"agent-{number}.test" for number in (1, 2, 3, 4)])
        page.get_by_label("Group by").select_option("rack")
        expect(page.get_by_role("heading", level=3)).to_contain_text(["without rack", "rack: r1", "rack: r2"])
        page.get_by_label("Order").select_option("free")
        page.wait_for_url("**/cluster?group=rack&sort=free")
        page.get_by_label("Group by").select_option("")
        expect(page.get_by_role("heading", level=3)).to_have_count(0)
        free = [agent["hostname"] for agent in sorted(
            stage.call("GET", "cluster")["agents"], key=lambda agent: max(
                agent["claimed"][name] / whole for name, whole in agent["whole"].items() if whole))]  # fmt: skip
        expect(hosts(page)).to_have_text(free)
        page.go_back()
        expect(page.get_by_role("heading", level=3)).to_have_count(3)
        page.get_by_label("Host name").fill("AGENT-3")
        expect(hosts(page)).to_have_text(["agent-3.test"])
        page.get_by_label("Show").select_option("lost")
        expect(page.get_by_text("No agent matches the filters.")).to_be_visible()


def test_agent_is_drained_with_a_reason_and_the_drain_ended(stage: Stage, browser: Browser) -> None:
    with stage.context(browser) as context, watched(context, expected=["422"]) as page:
        opened(page, stage, "/cluster")
        page.get_by_role("link", name="agent-4.test").first.click()
        page.get_by_role("button", name="Drain …").click()
        dialog = page.get_by_role("dialog", name="Drain agent-4.test")
        dialog.get_by_label("Deadline in seconds").fill("soon")
        dialog.get_by_label("Reason").fill(_HOSTILE)
        dialog.get_by_role("button", name="Drain", exact=True).click()
        expect(dialog.get_by_role("alert")).to_contain_text("deadline")
        dialog.get_by_label("Deadline in seconds").fill("1200")
        dialog.get_by_role("button", name="Drain", exact=True).click()
        expect(dialog).to_have_count(0)
        (drain,) = (agent["drain"] for agent in stage.call("GET", "cluster")["agents"] if agent["drain"])
        since, deadline = (datetime.fromisoformat(drain[name]) for name in ("since", "deadline"))
        assert (drain["reason"], (deadline - since).total_seconds()) == (_HOSTILE, 1_200)
        expect(page.locator(".facts")).to_contain_text("drained")
        expect(page.locator(".facts")).to_contain_text(_HOSTILE)
        page.goto(f"{stage.url}/cluster?show=closed")
        expect(hosts(page)).to_have_text(["agent-4.test"])
        hosts(page).click()
        page.get_by_role("button", name="End the drain").click()
        page.get_by_role("dialog").get_by_role("button", name="End the drain").click()
        expect(page.get_by_role("button", name="Drain …")).to_be_visible()
        assert not any(agent["closed"] for agent in stage.call("GET", "cluster")["agents"])


def test_everything_is_paused_after_a_question_and_resumed(stage: Stage, browser: Browser) -> None:
    with stage.context(browser) as context, watched(context) as page:
        opened(page, stage, "/cluster")
        page.get_by_role("button", name="Pause everything").click()
        dialog = page.get_by_role("dialog", name="Pause everything")
        expect(dialog).to_contain_text("Running shards continue.")
        dialog.get_by_role("button", name="Cancel").click()
        assert not stage.call("GET", "cluster")["paused"]
        page.get_by_role("button", name="Pause everything").click()
        dialog.get_by_role("button", name="Pause everything").click()
        expect(page.get_by_text("Everything is paused: no shard of any job starts.")).to_be_visible()
        assert stage.call("GET", "cluster")["paused"]
        page.get_by_role("button", name="Resume everything").click()
        expect(page.get_by_role("button", name="Pause everything")).to_be_visible()
        assert not stage.call("GET", "cluster")["paused"]


def test_teardown_needs_its_verb_and_the_typed_id(stage: Stage, browser: Browser) -> None:
    with stage.context(browser, "tess") as context, watched(context) as page:
        opened(page, stage, "/cluster")
        expect(page.get_by_role("button", name="Pause everything")).to_have_count(0)
        page.get_by_role("button", name="Tear down").click()
        dialog = page.get_by_role("dialog")
        go = dialog.get_by_role("button", name="Tear down")
        expect(go).to_be_disabled()
        dialog.get_by_role("textbox").fill("framework")
        expect(go).to_be_disabled()
        assert _TORN == []
        dialog.get_by_role("textbox").fill("framework-1")
        go.click()
        expect(dialog).to_have_count(0)
        assert _TORN == ["down"]


@pytest.mark.parametrize(("user", "offers"), [("ann", ["Drain …"]), ("vic", []), ("tess", [])])
def test_actions_are_offered_to_those_who_may_take_them(
    stage: Stage, browser: Browser, user: str, offers: list[str]
) -> None:
    with stage.context(browser, user) as context, watched(context) as page:
        opened(page, stage, "/cluster/agent-1.test")
        expect(page.get_by_role("region", name="Resources").locator(".amount").first).to_be_visible()
        expect(page.locator(".actions button")).to_have_text(offers)
        page.goto(f"{stage.url}/cluster/nowhere")
        expect(page.get_by_text("No agent has this id or host name")).to_be_visible()


def test_room_for_a_job_is_told_by_agent_with_what_is_lacking(stage: Stage, browser: Browser) -> None:
    with stage.context(browser) as context, watched(context, expected=["404"]) as page:
        opened(page, stage, "/cluster")
        fit = page.get_by_role("region", name="Would a job fit?")
        fit.get_by_label("Job").fill("hello")
        expect(fit.locator("datalist option[value='billing:daily']")).to_have_count(1)
        fit.get_by_role("button", name="Compute").click()
        page.wait_for_url("**/cluster?fit=hello")
        fit.get_by_label("Further shards").fill("9999")
        page.wait_for_url("**/cluster?fit=hello&shards=9999")
        found = stage.call("GET", "jobs/hello/fit", shards=9999)
        expect(fit).to_contain_text(f"{found['fits']:,} of 9,999 shards")
        for reason in found["reasons"]:
            text = re.sub(r"\d{4,}", lambda number: f"{int(number[0]):,}", reason["text"])
            expect(fit.get_by_role("listitem").filter(has_text=re.compile(re.escape(text), re.I))).to_have_count(1)
        assert found["reasons"]
        fit.get_by_label("Job", exact=True).fill(_HOSTILE)
        fit.get_by_role("button", name="Compute").click()
        expect(fit.get_by_role("alert")).to_be_visible()


def test_held_job_says_why_it_starts_nothing(stage: Stage, browser: Browser) -> None:
    with stage.context(browser, locale="zh-CN") as context, watched(context) as page:
        opened(page, stage, "/cluster?fit=billing:daily")
        fit = page.get_by_role("region", name="作业放得下吗？")
        expect(fit).to_contain_text("作业目前不会启动")
        expect(fit).to_contain_text("起已暂停")


def test_five_hundred_agents_are_compact_and_shown_in_parts(tmp_path: Path, browser: Browser) -> None:
    with staged(tmp_path) as stage:
        for number in range(500):
            offered(stage, f"a{number}", 4_000, host=f"host{number}.test", rack=f"r{number % 3}")
        offered(stage, "bad", 4_000, host=_HOSTILE, rack=_HOSTILE)
        with stage.context(browser) as context, watched(context) as page:
            opened(page, stage, "/cluster")
            expect(page.locator(".agents.compact .agent")).to_have_count(200)
            page.get_by_role("button", name="Show 200 more").click()
            expect(page.locator(".agent")).to_have_count(400)
            page.get_by_label("Group by").select_option("rack")
            expect(page.get_by_role("heading", level=3).first).to_contain_text(f"rack: {_HOSTILE}")
            expect(hosts(page).first).to_have_text(_HOSTILE)
            page.get_by_label("Host name").fill("host49")
            expect(page.locator(".agent")).to_have_count(11)
            expect(page.locator(".agents.compact")).to_have_count(0)
            hosts(page).first.click()
            expect(page.get_by_role("heading", level=1)).to_have_text(re.compile("^host49"))
            expect(page.locator("img")).to_have_count(0)


# ---- executors ------------------------------------------------------------------------------------------------------


def test_executors_are_filtered_and_sorted(stage: Stage, browser: Browser) -> None:
    items = stage.call("GET", "executors", limit=1000)["items"]
    with stage.context(browser) as context, watched(context) as page:
        opened(page, stage, "/executors")
        rows = page.locator("tbody tr")
        expect(rows).to_have_count(len(items))
        page.get_by_role("button", name="Running shards").click()
        page.get_by_role("button", name="Running shards").click()
        page.wait_for_url("**/executors?sort=-tasks")
        expect(rows.first).to_contain_text(str(max(one["tasks"] for one in items)))
        expect(rows.first.get_by_role("link").nth(1)).to_have_attribute("href", "/apps/demo")
        expect(rows.first.get_by_role("link").nth(2)).to_have_attribute("href", re.compile("^/packages/[0-9a-f]{64}$"))
        page.get_by_label("Agent", exact=True).fill("agent-1")
        expect(rows).to_have_count(sum(one["hostname"] == "agent-1.test" for one in items))
        page.get_by_label("State").select_option("gone")
        page.wait_for_url("**/executors?sort=-tasks&agent=agent-1&state=gone")
        expect(page.get_by_text("No executor matches the filters.")).to_be_visible()
        page.go_back()
        expect(rows.first).to_contain_text("current")


# ---- statistics -----------------------------------------------------------------------------------------------------


def busiest(page: Page) -> Locator:
    return page.get_by_role("region", name="Busiest").first.locator("tbody tr")


def test_statistics_have_sums_charts_a_table_and_the_busiest_jobs(stage: Stage, browser: Browser) -> None:
    with stage.context(browser) as context, watched(context) as page:
        opened(page, stage, "/statistics")
        over = page.get_by_role("region", name="Attempts over time").first
        expect(over.locator(".facts").first).to_contain_text(re.compile("10.*9.*1.*90 %", re.DOTALL))
        expect(over.get_by_role("img")).to_have_count(4)
        over.get_by_text("As a table").click()
        expect(over.locator(".scroll tbody tr")).to_have_count(24)
        expect(over.locator(".scroll tbody tr").filter(has_text="2.0 s")).to_have_count(1)
        expect(busiest(page).first).to_contain_text(re.compile("report.*9.*100 %", re.DOTALL))
        page.get_by_role("button", name="Failed or lost").first.click()
        page.get_by_role("button", name="Failed or lost").first.click()
        page.wait_for_url("**/statistics?sort=-failed")
        expect(busiest(page).first.get_by_role("link")).to_have_attribute("href", "/jobs/billing%3Asum")
        recent = page.get_by_role("region", name="Recently").first
        expect(recent.get_by_role("row").nth(1)).to_contain_text("0 %")
        expect(recent.get_by_role("row").nth(4)).to_contain_text("10")


def test_range_group_and_filter_of_statistics_are_in_the_address(stage: Stage, browser: Browser) -> None:
    with stage.context(browser) as context, watched(context) as page:
        opened(page, stage, "/statistics?range=week")
        expect(busiest(page)).to_have_count(3)
        expect(busiest(page).filter(has_text=_HOSTILE)).to_have_count(1)
        expect(page.locator("img")).to_have_count(0)
        page.get_by_label("By", exact=True).select_option("app")
        expect(busiest(page)).to_have_count(2)
        page.get_by_label("Of", exact=True).select_option("team")
        page.get_by_label("Name").fill("billing")
        page.get_by_role("button", name="Show").click()
        page.wait_for_url("**/statistics?range=week&by=app&team=billing")
        expect(busiest(page)).to_have_count(1)
        expect(page.locator(".facts").first).to_contain_text("0 %")
        page.go_back()
        expect(busiest(page)).to_have_count(2)
        page.get_by_label("Range").select_option("hour")
        expect(busiest(page)).to_have_count(1)


def expect_shown(chart: Locator, index: int, count: int, values: list[str]) -> None:
    """The legend of a chart shows these values while the mouse is over a step."""
    area = chart.locator(".u-over")
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    assert box is not None
    x = min(box["width"] * index / (count - 1), box["width"] - 2)
    area.hover(position={"x": x, "y": 5})  # waits until the chart has its place
    expect(chart.locator(".u-series .u-value")).to_have_text([re.compile(r"\d"), *values])


def test_samples_are_charts_with_gaps_and_a_table(stage: Stage, browser: Browser) -> None:
    with stage.context(browser) as context, watched(context) as page:
        opened(page, stage, "/statistics")
        found = page.get_by_role("region", name="Running and waiting over time").first
        work = found.get_by_role("img", name="Mean number of running shards")
        expect_shown(work, 21, 24, ["8", "3", "3", "2"])
        expect_shown(work, 22, 24, ["–", "–", "–", "–"])  # a gap is not 0
        expect_shown(work, 23, 24, ["4.5", "3", "2.25", "1.25"])
        use = found.get_by_role("img", name="Part of the cluster's resources that is used")
        expect_shown(use, 21, 24, ["62.5 %", "10 %"])  # no disk and no GPUs
        expect_shown(found.get_by_role("img", name="Number of agents"), 20, 24, ["3"])
        expect_shown(found.get_by_role("img", name="Registered jobs"), 20, 24, ["4", "2"])
        found.get_by_text("As a table").click()
        rows = found.locator(".scroll tbody tr")
        expect(rows).to_have_count(24)
        expect(rows.nth(1).get_by_role("cell")).to_have_text([re.compile(r"22:00"), *["–"] * 9])
        expect(rows.nth(2)).to_contain_text(re.compile("21:00.*8.*62.5 %", re.DOTALL))
        page.get_by_label("Range").select_option("hour")
        expect(rows).to_have_count(60)
        expect_shown(work, 58, 60, ["4", "3", "2", "1"])
        expect_shown(work, 56, 60, ["–", "–", "–", "–"])
        page.get_by_label("Range").select_option("quarter")
        page.wait_for_url("**/statistics?range=quarter")
        expect(rows).to_have_count(90)


def test_charts_take_the_colours_of_the_page(stage: Stage, browser: Browser) -> None:
    with stage.context(browser, color_scheme="light") as context, watched(context) as page:
        opened(page, stage, "/statistics")
        marker = page.get_by_role("img", name="Registered jobs").locator(".u-series .u-marker").nth(1)
        expect(marker).to_have_css("border-top-color", "rgb(23, 113, 58)")
        page.emulate_media(color_scheme="dark")
        expect(marker).to_have_css("border-top-color", "rgb(123, 214, 155)")
        page.get_by_label("Colours").select_option("light")
        expect(marker).to_have_css("border-top-color", "rgb(23, 113, 58)")


def test_samples_are_of_the_teams_of_the_person_and_not_of_jobs(stage: Stage, browser: Browser) -> None:
    with stage.context(browser, "bob", locale="zh-CN") as context, watched(context) as page:
        opened(page, stage, "/statistics")
        found = page.get_by_role("region", name="各时段的运行与等待").first
        expect_shown(found.get_by_role("img", name="各时段运行中的分片"), 21, 24, ["2", "0", "1", "1"])
        for name in ("集群资源的使用比例", "可用节点数"):
            expect(found.get_by_role("img", name=name)).to_have_count(0)
        found.get_by_text("以表格显示").click()
        expect(found.get_by_role("columnheader")).to_have_count(7)
    with stage.context(browser) as context, watched(context) as page:
        opened(page, stage, "/statistics?job=report")
        expect(page.get_by_text("Samples are by team, so there are none for a job or an app.")).to_be_visible()
        opened(page, stage, "/statistics?team=absent")
        found = page.get_by_role("region", name="Running and waiting over time").first
        expect_shown(found.get_by_role("img", name="Mean number of running shards"), 21, 24, ["0", "0", "0", "0"])


def test_runs_count_by_their_fire_time(stage: Stage, browser: Browser) -> None:
    with stage.context(browser) as context, watched(context) as page:
        opened(page, stage, "/statistics")
        chart = page.get_by_role("img", name="Ended runs that finished and that failed")
        expect_shown(chart, 22, 24, ["2", "1"])


def test_jobs_are_counted_by_type_and_execution(stage: Stage, browser: Browser) -> None:
    with stage.context(browser) as context, watched(context) as page:
        opened(page, stage, "/statistics")
        now = page.get_by_role("region", name="Jobs now")
        expect(now).to_contain_text("4 of 4")
        expect(now).to_contain_text("3 of 4")
        expect(now.get_by_role("link").first).to_have_attribute("href", "/jobs")


def test_pages_say_how_to_get_a_history(tmp_path: Path, browser: Browser) -> None:
    with staged(tmp_path) as stage, stage.context(browser) as context, watched(context, expected=["503"]) as page:
        page.goto(f"{stage.url}/statistics")
        expect(page.get_by_text("This scheduler keeps no history.")).to_have_count(4, timeout=PATIENCE_MS)
        expect(page.get_by_role("alert")).to_have_count(0)
