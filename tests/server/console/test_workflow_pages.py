"""The pages of workflows: the list, one workflow, one of its runs, and the links of jobs and runs to them."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from tests.browser_kit import needs_browser
from tests.console_kit import Stage, ready, staged, watched
from tests.whole_kit import until

pytestmark = needs_browser

HOSTILE = "<img src=x onerror=alert(1)>"
NEVER = "0 0 0 1 1 ? 2090"
NAMES = ("extract", "transform", "load", "alarm", "report")
NODES = [
    {"job": "extract"},
    {"job": "transform", "after": ["extract"]},
    {"name": "store", "job": "load", "after": ["transform"]},
    {
        "job": "alarm", "join": "any",
        "after": [{"node": "transform", "on": "failure"}, {"node": "store", "on": "failure"}],
    },
    {"job": "report", "after": [{"node": "store", "on": "either"}]},
]  # fmt: skip


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as found:
        found.add_app()
        for name in NAMES:
            found.add_job(name, cron=NEVER, shardingTotalCount=1, retryCount=0)
        found.call("PUT", "workflows/etl", {"nodes": NODES, "description": f"hourly {HOSTILE}"})
        yield found


@pytest.fixture
def page(stage: Stage, browser: Browser) -> Iterator[Page]:
    """The page asks for a history once."""
    with stage.context(browser) as context, watched(context, expected=["503"]) as found:
        yield found


def begin(stage: Stage, workflow: str = "etl", job: str = "extract") -> str:
    """Trigger the start; returns the id of the workflow's run."""
    stage.call("POST", f"jobs/{job}/trigger")
    return str(stage.call("GET", f"workflows/{workflow}/runs")["items"][0]["id"])


def end(stage: Stage, state: str = "TASK_FINISHED") -> None:
    """Launch the tasks that can start, and end them."""
    stage.loop.offer(f"agent-{stage.loop.now}")
    tasks = stage.loop.tick(1_000)
    assert tasks
    for task in tasks:
        stage.loop.update(task, state, "broke" if state != "TASK_FINISHED" else "")
    stage.loop.tick(1_000)


def fail(stage: Stage) -> str:
    """A run of the workflow whose start fails. Returns its id."""
    run = begin(stage)
    end(stage, "TASK_FAILED")
    end(stage)  # the node that starts after either end
    return run


def streams(stage: Stage) -> int:
    """The number of open streams of changes."""
    return len(stage.app.state.services.digests._consoles)


def button(where: Page | Locator, name: str) -> Locator:
    return where.get_by_role("button", name=name, exact=True)


def fact(page: Page, name: str) -> Locator:
    """The value of a fact in the head of a page."""
    return page.locator("dl.facts > div").filter(has=page.locator("dt", has_text=re.compile(f"^{name}$"))).locator("dd")


def node(page: Page, name: str) -> Locator:
    """A node of the graph."""
    return page.get_by_role("group", name="Graph").get_by_role("link", name=re.compile(f"^{name}: "))


def row(page: Page, name: str) -> Locator:
    """The row of a node in the table of a run or of a configuration."""
    return page.locator("table:not(.grid) tbody tr").filter(has=page.locator(f"td:first-child span:text-is('{name}')"))


def listed(page: Page) -> Locator:
    return page.get_by_role("group", name="Workflows").locator("tbody tr td:first-child a")


# ---- the list --------------------------------------------------------------------------------------------------------


def test_list_is_searched_filtered_and_sorted_by_the_address(stage: Stage, page: Page) -> None:
    stage.call("PUT", "workflows/alarms", {"nodes": [{"job": "alarm"}]})
    stage.add_app("other", team="billing")
    stage.add_job("sum", "other", team="billing", cron=NEVER)
    stage.call("PUT", "workflows/billing:sums", {"nodes": [{"job": "sum"}]})
    page.goto(f"{stage.url}/jobs")
    page.get_by_role("navigation", name="Menu").get_by_role("link", name="Workflows").click()
    page.wait_for_url("**/workflows")
    expect(listed(page)).to_have_text(["alarms", "billing:sums", "etl"])
    run = fail(stage)
    etl = page.get_by_role("row").filter(has=page.get_by_role("link", name="etl"))
    expect(etl.get_by_role("link", name="failed")).to_have_attribute("href", f"/workflows/runs/{run}")
    expect(etl.get_by_role("link", name="extract")).to_have_attribute("href", "/jobs/extract")
    page.get_by_label("Search", exact=True).fill("HOURLY")
    expect(listed(page)).to_have_text(["etl"])
    page.wait_for_url("**/workflows?q=HOURLY")
    page.get_by_role("link", name="Clear the filters").click()
    expect(listed(page)).to_have_count(3)
    page.get_by_label("Team").fill("billing")
    expect(listed(page)).to_have_text(["billing:sums"])
    page.get_by_label("State").or_(page.get_by_label("Last run")).select_option("FAILED")
    expect(page.get_by_text("No workflow matches.")).to_be_visible()
    page.goto(f"{stage.url}/workflows?state=FAILED")
    expect(listed(page)).to_have_text(["etl"])
    page.goto(f"{stage.url}/workflows?job=alarm&sort=-name")
    expect(listed(page)).to_have_text(["etl", "alarms"])
    button(page, "Last run").click()
    page.wait_for_url("**sort=last")
    expect(page.get_by_role("columnheader", name="Last run")).to_have_attribute("aria-sort", "ascending")


def test_list_without_workflows_tells_how_one_is_made(stage: Stage, page: Page) -> None:
    stage.call("DELETE", "workflows/etl")
    page.goto(f"{stage.url}/workflows")
    expect(page.get_by_text("jobcloud workflow set FILE")).to_be_visible()


# ---- one workflow ----------------------------------------------------------------------------------------------------


def test_workflow_shows_its_graph_and_its_configuration(stage: Stage, page: Page) -> None:
    page.goto(f"{stage.url}/workflows/etl")
    ready(page)
    expect(page.get_by_role("group", name="Graph").get_by_role("link")).to_have_count(len(NODES))
    expect(node(page, "store")).to_have_attribute("href", "/jobs/load")
    expect(node(page, "store")).to_have_accessible_name("store: job load, after: transform succeeds")
    expect(node(page, "alarm")).to_have_accessible_name("alarm: job alarm, after: any of: transform fails, store fails")
    expect(node(page, "alarm")).to_contain_text("any")
    labels = page.locator(".graph svg text")
    expect(labels).to_have_count(3)
    expect(labels.filter(has_text="fails")).to_have_count(2)
    expect(labels.filter(has_text="ends")).to_have_count(1)
    expect(fact(page, "Description")).to_have_text(f"hourly {HOSTILE}")
    expect(row(page, "report")).to_contain_text("store ends")
    expect(row(page, "alarm")).to_contain_text("any of:")
    expect(row(page, "store").get_by_role("link", name="load")).to_have_attribute("href", "/jobs/load")
    expect(page.get_by_text("The workflow has not run yet.")).to_be_visible()


def test_each_node_of_the_graph_is_reached_by_arrow_keys(stage: Stage, page: Page) -> None:
    page.goto(f"{stage.url}/workflows/etl")
    ready(page)
    expect(page.locator(".graph [tabindex='0']")).to_have_count(1)
    node(page, "extract").focus()
    seen = []
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowDown", "ArrowUp", "ArrowLeft"):
        page.keyboard.press(key)
        seen.append(page.evaluate("document.activeElement.querySelector('.name').textContent.trim()"))
    assert seen[:2] == ["transform", "store"]
    assert {seen[2], seen[3]} == {"alarm", "report"} or {seen[2], seen[4]} == {"alarm", "report"}
    assert seen[5] == "store"
    page.keyboard.press("Enter")
    page.wait_for_url("**/jobs/load")


def test_large_graph_opens_at_its_start_or_at_the_first_failed_node(stage: Stage, page: Page) -> None:
    steps = [{"name": f"step-{number}", "job": "load", "after": ["extract"]} for number in range(1, 60)]
    chain = [{"name": "step-0", "job": "alarm", "after": ["extract"]}, {"job": "transform", "after": ["step-0"]}]
    stage.call("PUT", "workflows/wide", {"nodes": [{"job": "extract"}, *chain, *steps]})
    page.goto(f"{stage.url}/workflows/wide")
    expect(node(page, "extract")).to_be_in_viewport(ratio=1)
    expect(node(page, "step-0")).not_to_be_in_viewport()
    run = begin(stage, "wide")
    end(stage)
    end(stage)
    end(stage, "TASK_FAILED")
    page.goto(f"{stage.url}/workflows/runs/{run}")
    expect(node(page, "transform")).to_have_accessible_name(re.compile("transform: failed"))
    expect(node(page, "transform")).to_be_in_viewport(ratio=1)
    expect(page.locator(".graph [tabindex='0']")).to_contain_text("transform")


def test_grid_has_the_states_of_the_nodes_of_each_run_and_follows_them(stage: Stage, page: Page) -> None:
    first = fail(stage)
    page.goto(f"{stage.url}/workflows/etl")
    grid = page.get_by_role("grid", name="Runs and nodes")
    expect(grid.get_by_role("link", name=f"{first}, node extract: failed")).to_be_visible()
    skipped = f"{first}, node store: skipped: it starts when node transform succeeds, and node transform is SKIPPED"
    expect(grid.get_by_role("link", name=skipped)).to_have_attribute("href", f"/workflows/runs/{first}")
    until(lambda: streams(stage) == 1, "the stream")
    second = begin(stage)
    expect(grid.get_by_role("columnheader")).to_have_count(3)
    expect(grid.get_by_role("link", name=f"{second}, node extract: running")).to_be_visible()
    end(stage)
    expect(grid.get_by_role("link", name=f"{second}, node transform: running")).to_be_visible()
    end(stage, "TASK_FAILED")
    expect(grid.get_by_role("link", name=f"{second}, node alarm: running")).to_be_visible()
    run = stage.call("GET", f"workflow-runs/{second}")["nodes"][0]["runId"]
    link = grid.get_by_role("link", name=f"{second}, node extract: finished")
    expect(link).to_have_attribute("href", f"/runs/{run.replace('@', '%40')}")


def test_grid_follows_a_node_that_waits_for_its_job(stage: Stage, page: Page) -> None:
    run = begin(stage)
    stage.call("POST", "jobs/transform/disable")
    end(stage)
    page.goto(f"{stage.url}/workflows/etl")
    grid = page.get_by_role("grid", name="Runs and nodes")
    why = "ready: job transform or its app is disabled"
    expect(grid.get_by_role("link", name=f"{run}, node transform: {why}")).to_be_visible()
    until(lambda: streams(stage) == 1, "the stream")
    stage.call("POST", "jobs/transform/enable")
    stage.loop.tick(1_000)
    expect(grid.get_by_role("link", name=f"{run}, node transform: running")).to_be_visible()


def test_runs_that_have_ended_are_read_once(stage: Stage, page: Page) -> None:
    first = fail(stage)
    read: list[str] = []
    page.clock.set_fixed_time(datetime.fromtimestamp(stage.loop.now / 1_000, UTC))
    page.on("request", lambda request: read.append(request.url) if "/workflow-runs/" in request.url else None)
    page.goto(f"{stage.url}/workflows/etl")
    ready(page)
    until(lambda: streams(stage) == 1, "the stream")
    second = begin(stage)
    grid = page.get_by_role("grid", name="Runs and nodes")
    for number in range(4):
        end(stage)
        name = ["transform", "store", "report", "report"][number]
        state = "finished" if number == 3 else "running"
        expect(grid.get_by_role("link", name=f"{second}, node {name}: {state}")).to_be_visible()
    # After this time, the page reads all unfinished runs.
    page.clock.set_fixed_time(datetime.fromtimestamp(stage.loop.now / 1_000 + 3_600, UTC))
    third = begin(stage)
    expect(grid.get_by_role("link", name=f"{third}, node extract: running")).to_be_visible()
    assert sum(url.endswith(first) for url in read) == 1


def test_trigger_begins_a_run_of_the_workflow(stage: Stage, page: Page) -> None:
    page.goto(f"{stage.url}/workflows/etl")
    button(page, "Trigger").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Parameter of all shards")).to_be_visible()
    expect(dialog.get_by_label("Shards", exact=True)).to_have_count(0)
    button(dialog, "Start a run").click()
    expect(dialog).to_contain_text("It has begun these runs of workflows:")
    run = stage.call("GET", "workflows/etl/runs")["items"][0]["id"]
    dialog.get_by_role("link", name=run, exact=True).click()
    page.wait_for_url(f"**/workflows/runs/{run}")
    expect(node(page, "extract")).to_have_accessible_name("extract: running")


def test_workflow_is_deleted_after_its_name_is_typed(stage: Stage, page: Page) -> None:
    page.goto(f"{stage.url}/workflows/etl")
    button(page, "Delete").click()
    dialog = page.get_by_role("dialog")
    expect(button(dialog, "Delete")).to_be_disabled()
    dialog.get_by_label("etl").fill("etl")
    button(dialog, "Delete").click()
    page.wait_for_url("**/workflows")
    expect(page.get_by_text("etl is deleted.")).to_be_visible()
    assert stage.call("GET", "workflows")["items"] == []


# ---- one run ---------------------------------------------------------------------------------------------------------


def test_run_shows_states_reasons_and_runs_of_its_nodes_as_they_change(stage: Stage, page: Page) -> None:
    run = begin(stage)
    page.goto(f"{stage.url}/workflows/runs/{run}")
    expect(node(page, "extract")).to_have_accessible_name("extract: running")
    expect(node(page, "transform")).to_have_accessible_name("transform: waiting, after: extract succeeds")
    until(lambda: streams(stage) == 1, "the stream")
    stage.call("POST", "jobs/transform/disable")
    end(stage)
    expect(row(page, "transform")).to_contain_text("ready")
    expect(row(page, "transform")).to_contain_text("job transform or its app is disabled")
    expect(node(page, "transform")).to_have_attribute("href", "/jobs/transform")
    stage.call("POST", "jobs/transform/enable")
    stage.loop.tick(1_000)
    expect(node(page, "transform")).to_have_accessible_name(re.compile("transform: running"))
    end(stage)
    expect(fact(page, "Nodes")).to_contain_text("2 finished")
    end(stage)
    end(stage)
    expect(fact(page, "State")).to_have_text("✓ finished")
    expect(row(page, "alarm")).to_contain_text("it starts when node transform fails, and node transform is SUCCEEDED")
    job_run = stage.call("GET", f"workflow-runs/{run}")["nodes"][1]["runId"]
    expect(row(page, "transform").get_by_role("link", name=job_run)).to_be_visible()
    node(page, "transform").click()
    page.wait_for_url(f"**/runs/{job_run.replace('@', '%40')}")
    back = fact(page, "Run of a workflow")
    expect(back).to_contain_text("node transform of")
    back.get_by_role("link", name=run).click()
    page.wait_for_url(f"**/workflows/runs/{run}")


def test_run_is_cancelled_and_retried(stage: Stage, page: Page) -> None:
    run = begin(stage)
    page.goto(f"{stage.url}/workflows/runs/{run}")
    ready(page)
    expect(button(page, "Retry")).to_have_count(0)
    button(page, "Cancel the run").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("no further node starts")
    button(dialog, "Cancel the run").click()
    expect(page.get_by_text("The run is cancelled.")).to_be_visible()
    expect(fact(page, "State")).to_contain_text("cancelled")
    expect(button(page, "Cancel the run")).to_have_count(0)
    button(page, "Retry").click()
    button(dialog, "Retry").click()
    expect(page.get_by_text("The run continues.")).to_be_visible()
    stage.loop.tick(1_000)
    expect(node(page, "extract")).to_have_accessible_name("extract: running")
    end(stage, "TASK_FAILED")
    end(stage)
    expect(fact(page, "State")).to_contain_text("failed")
    expect(button(page, "Retry")).to_be_visible()


def test_person_who_may_only_look_is_offered_no_action(stage: Stage, browser: Browser) -> None:
    run = begin(stage)
    stage.member("bob", "viewer", "default")
    with stage.context(browser, "bob") as context, watched(context, expected=["503"]) as page:
        for address, shown in (("/workflows/etl", "extract"), (f"/workflows/runs/{run}", "extract")):
            page.goto(stage.url + address)
            ready(page)
            expect(node(page, shown)).to_be_visible()
            expect(page.locator("main .actions").first.get_by_role("button")).to_have_count(0)


def test_absent_workflow_and_run_are_told(stage: Stage, browser: Browser) -> None:
    with stage.context(browser) as context, watched(context, expected=["404"]) as page:
        for address in ("/workflows/absent", "/workflows/runs/absent.1"):
            page.goto(stage.url + address)
            expect(page.get_by_role("alert")).to_contain_text("there is no")


def test_job_page_names_its_workflows_and_nodes(stage: Stage, page: Page) -> None:
    for number in range(6):
        nodes = [{"job": "extract"}, {"name": f"step-{number}", "job": "load", "after": ["extract"]}]
        stage.call("PUT", f"workflows/more-{number}", {"nodes": nodes})
    page.goto(f"{stage.url}/jobs/load")
    part = fact(page, "Part of workflows")
    expect(part).to_contain_text("etl (node store)")
    expect(part).to_contain_text("more-3 (node step-3)")
    part.get_by_role("link", name="all 7").click()
    expect(listed(page)).to_have_count(7)
    page.goto(f"{stage.url}/jobs/load")
    part.get_by_role("link", name="etl").click()
    page.wait_for_url("**/workflows/etl")
    expect(page.get_by_role("heading", level=1)).to_have_text("etl")


def test_pages_are_in_chinese(stage: Stage, browser: Browser) -> None:
    run = fail(stage)
    with stage.context(browser, locale="zh-CN") as context, watched(context, expected=["503"]) as page:
        page.goto(f"{stage.url}/workflows/runs/{run}")
        ready(page)
        reason = "等待节点 extract 的结束方式 成功，而节点 extract 为 失败"
        expect(row(page, "transform")).to_contain_text(reason)
        expect(row(page, "report")).to_contain_text("store 结束")
        page.goto(f"{stage.url}/workflows/etl")
        expect(page.get_by_role("heading", name="运行与节点")).to_be_visible()
        expect(page.get_by_role("link", name=re.compile("alarm：作业 alarm，先决条件：任一："))).to_be_visible()


# ---- fields of answers -----------------------------------------------------------------------------------------------


def with_answers(page: Page, run: str) -> list[Any]:
    """Let the page see a run with hostile names, a node that waits for approval, and a pause. Returns what it sends."""
    sent: list[Any] = []
    waiting = {
        "name": HOSTILE, "job": "", "jobName": "", "after": [], "join": "all", "waitFor": "approval", "event": "",
        "deadlineSeconds": 90, "state": "RUNNING", "runId": "", "startedAt": None, "endedAt": None, "reason": None,
    }  # fmt: skip
    behind = waiting | {
        "name": "behind", "state": "SKIPPED", "waitFor": "event", "event": HOSTILE, "join": "shards",
        "after": [{"node": HOSTILE, "on": "success", "result": HOSTILE}],
        "reason": {"code": "unheard_of", "parameters": {}, "text": HOSTILE},
    }  # fmt: skip
    state = {"paused": False}

    def answer(route: Any) -> None:
        if route.request.method == "POST":
            sent.append((route.request.url.rsplit("/workflow-runs/", 1)[1], route.request.post_data))
            state["paused"] = route.request.url.endswith("pause")
            route.fulfill(status=202, body="{}", content_type="application/json")
            return
        seen = route.fetch().json() | {"paused": state["paused"], "deadlineSeconds": 60, "start": "behind"}
        seen["nodes"] = [waiting, behind]
        route.fulfill(status=200, body=json.dumps(seen), content_type="application/json")

    page.route(re.compile(rf".*/workflow-runs/{re.escape(run)}.*"), answer)
    return sent


def test_hostile_names_are_texts_and_approvals_are_answered(stage: Stage, page: Page) -> None:
    run = begin(stage)
    sent = with_answers(page, run)
    page.goto(f"{stage.url}/workflows/runs/{run}")
    ready(page)
    expect(page.locator("img")).to_have_count(0)
    expect(page.locator(".graph .name").first).to_have_text(f"▶ {HOSTILE}")
    expect(page.locator(".graph svg text")).to_have_text(f"= {HOSTILE[:11]}…")
    expect(page.get_by_role("main")).to_contain_text("waits for approval")
    expect(row(page, "behind")).to_contain_text(f"{HOSTILE} succeeds with the result {HOSTILE}")
    expect(row(page, "behind")).to_contain_text("shard by shard:")
    expect(row(page, "behind")).to_contain_text(f"event {HOSTILE}")
    button(page, f"Approve {HOSTILE}").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Result").fill("yes")
    dialog.get_by_label("Note").fill("checked")
    button(dialog, "Approve").click()
    expect(page.get_by_text("The answer is stored.")).to_be_visible()
    button(page, f"Reject {HOSTILE}").click()
    expect(dialog.get_by_label("Result")).to_have_count(0)
    button(dialog, "Reject").click()
    expect(dialog).to_have_count(0)
    button(page, "Pause").click()
    button(dialog, "Pause").click()
    button(page, "Resume").click()
    expect(button(page, "Pause")).to_be_visible()
    assert [(path.rsplit("/", 1)[1], body and json.loads(body)) for path, body in sent] == [
        ("answer", {"succeeded": True, "note": "checked", "result": "yes"}),
        ("answer", {"succeeded": False, "note": ""}),
        ("pause", None),
        ("resume", None),
    ]


# ---- the places of the graph -----------------------------------------------------------------------------------------

_LAYOUT = """([path, graphs]) => import(path).then(({layout}) => graphs.map(nodes => layout(nodes, 50)))"""


def shaped(after: dict[int, list[int]], count: int) -> list[dict[str, Any]]:
    return [
        {"name": f"n{number}", "after": [{"node": f"n{other}", "on": "success"} for other in after.get(number, [])]}
        for number in range(count)
    ]


def test_no_graph_has_nodes_one_above_the_other(stage: Stage, page: Page) -> None:
    """The largest graphs, with the longest edges, and ones that the server would refuse."""
    rng = random.Random(7)
    dense = {number: rng.sample(range(number), min(number, 6)) for number in range(200)}
    graphs = [
        shaped({}, 1),
        shaped({number: [number - 1] for number in range(1, 200)}, 200),
        shaped({number: [0] for number in range(1, 200)}, 200),
        shaped(dense, 200),
        shaped({number: [number - 1, *range(max(0, number - 5))][:5] for number in range(1, 200)}, 200),
        shaped({0: [1], 1: [0], 2: [1, 2]}, 3),
        [{"name": "n0", "after": [{"node": "absent", "on": "success"}]}],
    ]
    page.goto(f"{stage.url}/workflows")
    ready(page)
    folder = (page.locator("script[type=module]").get_attribute("src") or "").removesuffix("/main.js")
    drawn = page.evaluate(_LAYOUT, [f"{folder}/pages/workflow/layout.js", graphs])
    for given, found in zip(graphs, drawn, strict=True):
        places = {one["node"]["name"]: one for one in found["nodes"]}
        assert places.keys() == {one["name"] for one in given}
        for column in range(found["columns"]):
            tops = sorted(one["y"] for one in places.values() if one["column"] == column)
            assert tops, "each column has a node"
            assert all(below - above >= 48 for above, below in itertools.pairwise(tops))
        assert min(one["y"] for one in places.values()) >= -0.001
        assert max(one["y"] for one in places.values()) + 48 <= found["height"] + 0.001
        for edge in found["edges"]:
            assert places[edge["from"]]["column"] < places[edge["to"]]["column"]
    assert [len(found["edges"]) for found in drawn[:4]] == [0, 199, 199, sum(map(len, dense.values()))]
    assert len(drawn[5]["edges"]) == len(drawn[6]["edges"]) == 0
