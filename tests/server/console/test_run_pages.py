"""The pages of runs, of one run with its output, of the queue and of events."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect
from tests.api_kit import START
from tests.browser_kit import needs_browser
from tests.console_kit import Stage, asked, staged, watched
from tests.history_kit import make_attempt, make_run
from tests.whole_kit import until

from jobcloud.errors import NotFound, Unavailable
from jobcloud.executor.output import TIMES_SUFFIX
from jobcloud.history.database import Database
from jobcloud.history.notes import Notes
from jobcloud.history.queries import Reader
from jobcloud.history.rows import of_events
from jobcloud.messages import Kill, Status, StatusReceived
from jobcloud.model import ShardState
from jobcloud.server.api import LogChunk, LogRequest

pytestmark = needs_browser

HOSTILE = '<img src=x onerror=alert(1)> "><script>alert(2)</script> \u202egnp.exe '
LONG = HOSTILE + "x" * 3_000
# Pretends that the tab is hidden or visible.
HIDE = """value => {
    Object.defineProperty(document, "hidden", {value, configurable: true});
    document.dispatchEvent(new Event("visibilitychange"));
}"""
# Counts the event streams that the page itself has open.
COUNTED = """
streams = 0;
EventSource = class extends EventSource {
    constructor(url) { super(url); streams += 1; }
    close() { if (!this.gone) streams -= 1; this.gone = true; super.close(); }
};
"""


class Agents:
    """The output of attempts as the API reads it, the same for all of them: name of the stream → bytes.

    `error` is raised instead, if it is set.
    """

    def __init__(self) -> None:
        self.output: dict[str, bytes] = {}
        self.error: Unavailable | None = None

    async def read(self, request: LogRequest) -> LogChunk:
        if self.error is not None:
            raise self.error
        data = self.output.get(request.stream)
        if data is None:
            raise NotFound("there is no output", field="taskId")
        offset = max(0, len(data) + request.offset) if request.offset < 0 else min(request.offset, len(data))
        return LogChunk(data[offset : offset + request.limit], offset, len(data))

    def write(self, stream: str, *lines: tuple[int, str]) -> None:
        """Append lines, each with its time in milliseconds."""
        for at_ms, line in lines:
            known = self.output.get(stream, b"")
            mark = f"{len(known)} {at_ms}\n".encode()
            self.output[stream] = known + line.encode() + b"\n"
            self.output[stream + TIMES_SUFFIX] = self.output.get(stream + TIMES_SUFFIX, b"") + mark


@pytest.fixture
def agents() -> Agents:
    return Agents()


@pytest.fixture
def stage(tmp_path: Path, agents: Agents) -> Iterator[Stage]:
    with staged(tmp_path, read_log=agents.read) as found:
        found.add_app()
        yield found


@pytest.fixture
def page(stage: Stage, browser: Browser) -> Iterator[Page]:
    with stage.context(browser) as context, watched(context, expected=["503", "409"]) as found:
        yield found


def start(stage: Stage, job: str, **changes: Any) -> tuple[str, list[str]]:
    """A run of a new job that was launched: its id, and the ids of its tasks in the order of the shards."""
    stage.add_job(job, cron="0 0 0 1 1 ? 2090", **changes)
    return again(stage, job)


def again(stage: Stage, job: str) -> tuple[str, list[str]]:
    run = str(stage.call("POST", f"jobs/{job}/trigger")["id"])
    stage.loop.offer()
    tasks = sorted(stage.loop.tick(1_000))
    for task in tasks:
        stage.loop.update(task, "TASK_RUNNING")
    return run, tasks


def fail(stage: Stage, *tasks: str, message: str = "broke") -> None:
    for task in tasks:
        stage.loop.update(task, "TASK_FAILED", message)


def state_of(stage: Stage, run: str) -> str:
    return str(stage.call("GET", f"runs/{run}")["state"])


# ---- lists -------------------------------------------------------------------------------------------------------


def test_runs_are_filtered_by_the_address(stage: Stage, page: Page) -> None:
    one, tasks = start(stage, "load")
    fail(stage, *tasks)
    two, _ = start(stage, "mail")
    page.goto(f"{stage.url}/runs")
    expect(page.get_by_role("link", name=one)).to_be_visible()
    expect(page.get_by_role("link", name=two)).to_be_visible()
    page.get_by_label("State").select_option("FAILED")
    expect(page.get_by_role("link", name=two)).to_have_count(0)
    expect(page).to_have_url(f"{stage.url}/runs?state=FAILED")
    page.go_back()
    page.get_by_role("textbox", name="Job").fill("mail")
    expect(page.get_by_role("link", name=one)).to_have_count(0)
    expect(page).to_have_url(f"{stage.url}/runs?job=mail")
    expect(page.get_by_role("row", name=re.compile("mail.*running"))).to_be_visible()
    page.get_by_role("textbox", name="Job").fill("nothing")
    expect(page.get_by_text("No run that the scheduler keeps")).to_be_visible()


def test_run_appears_while_the_list_is_shown(stage: Stage, page: Page) -> None:
    page.goto(f"{stage.url}/runs")
    expect(page.get_by_text("No run that the scheduler keeps")).to_be_visible()
    run, tasks = start(stage, "load", shardingTotalCount=1)
    expect(page.get_by_role("row", name=run)).to_contain_text("running")
    fail(stage, *tasks)
    expect(page.get_by_role("row", name=run)).to_contain_text("failed")


def test_chosen_runs_are_cancelled(stage: Stage, page: Page) -> None:
    runs = [start(stage, f"load-{number}")[0] for number in range(6)]
    page.goto(f"{stage.url}/runs")
    for run in runs[:5]:
        page.get_by_role("checkbox", name=f"Choose {run}").check()
    expect(page.get_by_text("5 chosen")).to_be_visible()
    expect(page.get_by_role("button", name="Retry the chosen ones")).to_be_disabled()
    page.get_by_role("button", name="Cancel the chosen ones").click()
    assert {state_of(stage, run) for run in runs} == {"ACTIVE"}, "it asks first"
    page.get_by_role("dialog").get_by_role("button", name="Cancel the chosen ones").click()
    expect(page.get_by_role("region", name="Results").get_by_text("cancelled")).to_have_count(5)
    killed = {effect.task_id for effect in stage.loop.effects if isinstance(effect, Kill)}
    assert len(killed) == 10
    assert not any(task.startswith("load-5@") for task in killed)


def test_failed_runs_since_a_time_are_retried_together(stage: Stage, page: Page) -> None:
    runs = []
    for number in range(6):
        run, tasks = start(stage, f"load-{number}")
        fail(stage, *tasks)
        runs.append(run)
    stage.call("POST", "jobs/load-3/disable")
    well, tasks = start(stage, "well")
    for task in tasks:
        stage.loop.update(task, "TASK_FINISHED")
    page.goto(f"{stage.url}/runs?failed=2023-11-01")
    expect(page.get_by_text("This scheduler keeps no history.")).to_be_visible()
    expect(page.get_by_role("link", name=well)).to_have_count(0)
    page.get_by_role("checkbox", name="Choose all that are shown").check()
    page.get_by_role("button", name="Retry the chosen ones").click()
    page.get_by_role("dialog").get_by_role("button", name="Retry the chosen ones").click()
    results = page.get_by_role("region", name="Results")
    expect(results.get_by_text("5 done, 1 refused")).to_be_visible()
    expect(results.get_by_role("row", name=runs[3])).to_contain_text("disabled")
    expect(results.get_by_role("row", name=runs[0])).to_contain_text("retried")
    assert [state_of(stage, run) for run in runs] == [*["WAITING"] * 3, "FAILED", *["WAITING"] * 2]
    expect(page.get_by_role("checkbox", name=f"Choose {runs[0]}")).to_have_count(0)


def test_at_most_four_runs_are_retried_at_once(stage: Stage, page: Page) -> None:
    for number in range(9):
        fail(stage, *start(stage, f"load-{number}", shardingTotalCount=1)[1])
    open_now: list[Route] = []

    def hold(route: Route) -> None:
        open_now.append(route)

    page.route("**/retry", hold)
    page.goto(f"{stage.url}/runs?state=FAILED")
    page.get_by_role("checkbox", name="Choose all that are shown").check()
    page.get_by_role("button", name="Retry the chosen ones").click()
    page.get_by_role("dialog").get_by_role("button", name="Retry the chosen ones").click()
    results = page.get_by_role("region", name="Results")
    expect(results.get_by_text("working …")).to_have_count(4)
    expect(results.get_by_text("waits")).to_have_count(5)
    asked(page, open_now, 4)
    page.get_by_role("button", name="Stop").click()
    for route in open_now:
        route.continue_()
    expect(results.get_by_text("retried")).to_have_count(4)
    expect(results.get_by_text("left out")).to_have_count(5)


def test_run_of_the_history_that_the_scheduler_no_longer_keeps_says_so(
    tmp_path: Path, browser: Browser, agents: Agents
) -> None:
    url = f"sqlite:///{tmp_path / 'history.db'}"
    database = Database(url)
    database.upgrade()
    old = make_run(9, ShardState.DEAD)
    gone = old.firing.id
    attempt = make_attempt(1, state="FAILED", run=gone, item=1, message=f"{HOSTILE}\nline two", cause="exception")
    failed = make_run(5, ShardState.FAILED, job="other").firing.id
    database.write(of_events([make_run(3), old, attempt, make_run(5, ShardState.FAILED, job="other")]))
    database.close()
    reader = Reader(lambda: Database(url, reading=True))
    with (
        staged(tmp_path, read_log=agents.read, history=reader) as stage,
        stage.context(browser) as context,
        watched(context, expected=["404", "503"]) as page,
    ):
        page.goto(f"{stage.url}/runs?failed=2026-01-01")
        expect(page.get_by_text("From the history")).to_be_visible()
        expect(page.get_by_role("checkbox", name=re.compile("^Choose report"))).to_have_count(1)
        expect(page.get_by_role("checkbox", name=f"Choose {failed}")).to_have_count(1)
        page.get_by_role("checkbox", name=f"Choose {gone}").check()
        page.get_by_role("button", name="Retry the chosen ones").click()
        page.get_by_role("dialog").get_by_role("button", name="Retry the chosen ones").click()
        expect(page.get_by_text("The scheduler no longer keeps this run.")).to_be_visible()
        page.get_by_role("table").last.get_by_role("link", name=gone).click()
        expect(page.get_by_text("The scheduler does not keep this run.")).to_be_visible()
        page.get_by_role("table").get_by_role("link", name="1", exact=True).click()
        expect(page.get_by_text("line two")).to_contain_text(HOSTILE.strip())
    reader.close()


def test_wrong_time_is_named(stage: Stage, page: Page) -> None:
    page.goto(f"{stage.url}/runs?failed={HOSTILE.replace(' ', '%20')}")
    expect(page.get_by_role("alert")).to_contain_text("is not a time")
    page.get_by_label("Failed since").select_option("7d")
    expect(page.get_by_text("No run has failed since")).to_be_visible()


def test_viewer_sees_runs_and_is_offered_no_action(stage: Stage, browser: Browser) -> None:
    run, tasks = start(stage, "load")
    fail(stage, tasks[0])
    stage.member("bob", "viewer", "default")
    with stage.context(browser, "bob") as context, watched(context, expected=["503", "409"]) as page:
        page.goto(f"{stage.url}/runs")
        expect(page.get_by_role("link", name=run)).to_be_visible()
        expect(page.get_by_role("checkbox")).to_have_count(0)
        page.goto(f"{stage.url}/runs/{run}?shard=0")
        expect(page.get_by_role("group", name="Attempts of the shard")).to_be_visible()
        for name in ("Retry", "Kill", "Cancel the run", "Retry all that failed", "Add the note"):
            expect(page.get_by_role("button", name=name)).to_have_count(0)
        expect(page.get_by_role("button", name="Show the output")).to_be_visible()


# ---- one run -----------------------------------------------------------------------------------------------------


def test_run_shows_its_attempts_over_time_and_its_shards(stage: Stage, page: Page) -> None:
    run, (first, second) = start(stage, "load", retryCount=2, retryDelaySeconds=60)
    stage.loop.now += 5_000
    fail(stage, first, message=LONG)
    stage.loop.tick(70_000)
    stage.loop.offer()
    stage.loop.tick()
    page.goto(f"{stage.url}/runs/{run}")
    expect(page.get_by_role("heading", name=run)).to_be_visible()
    rows = page.get_by_role("list", name="Shards").get_by_role("link")
    expect(rows).to_have_count(2)
    expect(rows.first).to_have_accessible_name(
        re.compile(r"Shard 0: attempt 1 failed on agent-1\.test after 5\.0 s; attempt 2 launching on agent-1\.test")
    )
    expect(rows.nth(1)).to_have_accessible_name(re.compile(r"Shard 1: attempt 1 running on agent-1\.test for"))
    page.get_by_role("button", name="As a table").click()
    table = page.get_by_role("region", name="Attempts over time").get_by_role("table")
    expect(table.get_by_role("row")).to_have_count(4)
    expect(table.get_by_role("row").nth(1)).to_contain_text("failed")
    expect(page).to_have_url(re.compile(r"\?view=table$"))
    stage.loop.update(second, "TASK_FINISHED")
    shards = page.get_by_role("region", name="Shards").get_by_role("table")
    expect(shards.get_by_role("row").nth(2)).to_contain_text("finished")


def test_large_run_shows_failed_shards_first_and_folds_the_others(stage: Stage, page: Page) -> None:
    run, tasks = start(stage, "load", shardingTotalCount=230, cpuCount=0.001, memoryMB=1)
    page.goto(f"{stage.url}/runs/{run}")
    expect(page.get_by_text("No shard failed. The others are folded.")).to_be_visible()
    folds = page.get_by_role("list", name="Folded shards").get_by_role("listitem")
    expect(folds).to_have_text([re.compile("230 running")])
    failed = [task for task in tasks if "@-@7@-@" in task or "@-@150@-@" in task]
    fail(stage, *failed)
    expect(folds).to_have_text([re.compile("228 running")])
    rows = page.get_by_role("list", name="Shards", exact=True).get_by_role("link")
    expect(rows).to_have_count(2)
    expect(rows.nth(1)).to_have_accessible_name(re.compile("^Shard 150:"))
    expect(page.get_by_role("group", name="Shards").get_by_role("row")).to_have_count(3)
    folds.get_by_role("link", name="Show the shards: running").click()
    page.wait_for_url("**?state=ACTIVE")
    expect(rows).to_have_count(100)
    expect(rows.nth(7)).to_have_accessible_name(re.compile("^Shard 8:"))
    page.get_by_role("link", name="failed first").click()
    expect(rows).to_have_count(2)
    page.get_by_role("link", name="Show all 230 shards").click()
    expect(page.get_by_text("100 of 230 shards are shown.")).to_be_visible()
    expect(rows).to_have_count(100)
    page.get_by_role("link", name="Next page").click()
    expect(rows.first).to_have_accessible_name(re.compile("^Shard 100:"))
    page.get_by_role("link", name="Next page").click()
    expect(rows).to_have_count(30)
    page.get_by_role("navigation", name="Shards by state").get_by_role("link", name="2 failed").click()
    expect(rows).to_have_count(2)
    expect(rows.nth(1)).to_have_accessible_name(re.compile("^Shard 150:"))


TRACEBACK = f"""ValueError: no price for {HOSTILE}

Traceback (most recent call last):
  File "/usr/lib/python3.11/runpy.py", line 88, in _run_code
    exec(code, run_globals)
  File "/sandbox/jobcloud/executor/worker.py", line 210, in run
    job.execute(context)
    ^^^^^^^^^^^^^^^^^^^^
  File "/sandbox/app/prices.py", line 12, in execute
    total += price(item)
  File "/sandbox/lib/python3.11/site-packages/shop/table.py", line 3, in price
    return json.loads(text)
  File "/usr/lib/python3.11/json/__init__.py", line 346, in loads
    return _default_decoder.decode(s)
  [Previous line repeated 3 more times]
ValueError: no price for 7"""


def test_run_shows_the_range_that_its_shards_divide(stage: Stage, page: Page) -> None:
    run, _ = start(stage, "load", shardingItemRange="1..1000")
    page.goto(f"{stage.url}/runs/{run}")
    expect(page.get_by_text("Divided range")).to_be_visible()
    expect(page.get_by_text("1..1000", exact=True)).to_be_visible()


def test_frames_of_python_and_jobcloud_are_folded(stage: Stage, page: Page) -> None:
    run, (task,) = start(stage, "load", shardingTotalCount=1)
    fail(stage, task, message=TRACEBACK)
    page.goto(f"{stage.url}/runs/{run}?shard=0")
    message = page.get_by_role("region", name="Shard 0", exact=True).locator("pre")
    expect(message).to_have_text(
        f"""ValueError: no price for {HOSTILE}

Traceback (most recent call last):
  … 2 frames of Python and jobcloud …
  File "/sandbox/app/prices.py", line 12, in execute
    total += price(item)
  File "/sandbox/lib/python3.11/site-packages/shop/table.py", line 3, in price
    return json.loads(text)
  … 1 frame of Python and jobcloud …
ValueError: no price for 7"""
    )
    page.get_by_role("button", name="Show all frames").click()
    expect(message).to_have_text(TRACEBACK)
    page.get_by_role("button", name="Fold the frames of Python and jobcloud").click()
    expect(message).not_to_contain_text("runpy")
    expect(page.locator("img, script:not([src])")).to_have_count(0)


@pytest.mark.parametrize("message", ["plain text", 'Traceback:\n  File "<frozen runpy>", line 1, in x\nOSError: disk'])
def test_message_without_a_frame_of_the_job_is_shown_whole(stage: Stage, page: Page, message: str) -> None:
    run, (task,) = start(stage, "load", shardingTotalCount=1)
    fail(stage, task, message=message)
    page.goto(f"{stage.url}/runs/{run}?shard=0")
    expect(page.get_by_role("region", name="Shard 0", exact=True).locator("pre")).to_have_text(message)
    expect(page.get_by_role("button", name="Show all frames")).to_have_count(0)


@pytest.mark.parametrize("width", [1440, 390])
def test_actions_of_a_wide_table_stay_in_sight(stage: Stage, browser: Browser, width: int) -> None:
    run, (task,) = start(stage, "load", shardingTotalCount=1)
    fail(stage, task, message="x" * 150 + " " + "y" * 3_000)
    size = {"width": width, "height": 800}
    with stage.context(browser, viewport=size) as context, watched(context, expected=["503"]) as page:
        page.goto(f"{stage.url}/runs/{run}")
        retry = page.get_by_role("group", name="Shards").get_by_role("button", name="Retry")
        retry.scroll_into_view_if_needed()
        table = page.get_by_role("group", name="Shards")
        table.evaluate("element => { element.scrollLeft = 0; }")
        box = retry.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width


def test_actions_of_a_run_and_its_shards(stage: Stage, page: Page) -> None:
    run, tasks = start(stage, "load", shardingTotalCount=3)
    fail(stage, tasks[0])
    page.goto(f"{stage.url}/runs/{run}")
    shards = page.get_by_role("region", name="Shards").get_by_role("table")
    shards.get_by_role("row").nth(1).get_by_role("button", name="Retry").click()
    expect(shards.get_by_role("row").nth(1)).to_contain_text("waiting")
    shards.get_by_role("row").nth(2).get_by_role("button", name="Kill").click()
    page.get_by_role("dialog").get_by_role("button", name="Kill").click()
    expect(page.get_by_text("The task was asked to end.")).to_be_visible()
    stage.loop.update(tasks[1], "TASK_KILLED")
    expect(shards.get_by_role("row").nth(2)).to_contain_text("killed")
    page.get_by_role("button", name="Retry all that failed").click()
    page.get_by_role("dialog").get_by_role("button", name="Retry all that failed").click()
    # The first retry has left the same message, so the table tells.
    expect(shards.get_by_role("row").nth(2)).to_contain_text("waiting")
    states = stage.call("GET", f"runs/{run}")["shardStates"]
    assert states == {"WAITING": 2, "ACTIVE": 1}
    page.get_by_role("button", name="Cancel the run").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the run").click()
    expect(page.get_by_text("The run is cancelled.")).to_be_visible()
    assert stage.call("GET", f"runs/{run}")["shardStates"]["CANCELLED"] == 2
    stage.loop.update(tasks[2], "TASK_KILLED")
    expect(page.get_by_role("button", name="Cancel the run")).to_have_count(0)


def test_refusal_of_a_retry_is_shown(stage: Stage, page: Page) -> None:
    run, tasks = start(stage, "load")
    fail(stage, *tasks)
    page.goto(f"{stage.url}/runs/{run}")
    stage.call("POST", "jobs/load/disable")
    page.get_by_role("button", name="Retry all that failed").click()
    dialog = page.get_by_role("dialog")
    with page.expect_response("**/retry") as answer:
        dialog.get_by_role("button", name="Retry all that failed").click()
    assert answer.value.status == 409
    expect(dialog.get_by_role("alert")).to_contain_text("disabled")


def test_shard_shows_messages_and_results_as_text(stage: Stage, page: Page) -> None:
    run, tasks = start(stage, "load")
    fail(stage, tasks[0], message=f"{LONG}\nTraceback:\n  File {HOSTILE}")
    agent = stage.loop.scheduler.tasks[tasks[1]].agent_id
    result = json.dumps({"result": {"rows": 12, "name": HOSTILE}})
    status = Status(tasks[1], agent, "TASK_FINISHED", uuid="u-result", data=result)
    stage.loop.feed(StatusReceived(stage.loop.now, status))
    page.goto(f"{stage.url}/runs/{run}?shard=0")
    message = page.get_by_role("region", name="Shard 0").locator("pre")
    expect(message).to_contain_text("<script>alert(2)</script>")
    expect(message).to_contain_text("Traceback:")
    expect(message).to_have_text(re.compile(".{3000}"))
    page.get_by_role("list", name="Shards").get_by_role("link", name=re.compile("^Shard 1")).click()
    expect(page.get_by_role("region", name="Shard 1").locator("pre")).to_contain_text('"rows": 12')
    expect(page.locator("img, script:not([src])")).to_have_count(0)
    page.get_by_role("link", name="Close").click()
    expect(page.get_by_role("region", name="Shard 1")).to_have_count(0)


def test_waiting_shard_says_why_and_earlier_attempts_are_shown(stage: Stage, page: Page) -> None:
    run, (task,) = start(stage, "load", shardingTotalCount=1, retryCount=2, retryDelaySeconds=60, retryJitter=0)
    fail(stage, task, message="no price for 7")
    page.goto(f"{stage.url}/runs/{run}?shard=0")
    shard = page.get_by_role("region", name="Shard 0", exact=True)
    expect(shard).to_contain_text("Waits because: attempt 1 is failed: no price for 7")
    expect(page.get_by_role("term").filter(has_text="Next attempt").first).to_be_visible()
    stage.loop.tick(70_000)
    stage.loop.offer()
    stage.loop.tick()
    attempts = page.get_by_role("group", name="Attempts of the shard").get_by_role("row")
    expect(attempts).to_have_count(3)
    attempts.nth(2).get_by_role("link", name="1").click()
    expect(shard.locator("pre")).to_contain_text("no price for 7")
    expect(page).to_have_url(re.compile("attempt=1"))


def test_unknown_run_is_told(stage: Stage, browser: Browser) -> None:
    with stage.context(browser) as context, watched(context, expected=["404", "503"]) as page:
        page.goto(f"{stage.url}/runs/{HOSTILE.replace(' ', '%20').replace('/', '%2F')}")
        expect(page.get_by_text("The scheduler does not keep this run.")).to_be_visible()
        expect(page.get_by_role("alert").first).to_contain_text("keeps no history")


def test_notes_are_written_and_shown(tmp_path: Path, browser: Browser, agents: Agents) -> None:
    url = f"sqlite:///{tmp_path / 'history.db'}"
    database = Database(url)
    database.upgrade()
    database.close()
    notes = Notes(lambda: Database(url))
    with staged(tmp_path, read_log=agents.read, notes=notes) as stage:
        stage.add_app()
        run, _ = start(stage, "load")
        with stage.context(browser) as context, watched(context) as page:
            page.goto(f"{stage.url}/runs/{run}")
            expect(page.get_by_text("Nobody has written a note")).to_be_visible()
            expect(page.get_by_role("button", name="Add the note")).to_be_disabled()
            page.get_by_label("New note").fill(f"{HOSTILE}\nwait for Bob")
            page.get_by_role("button", name="Add the note").click()
            note = page.get_by_role("region", name="Notes").get_by_role("listitem")
            expect(note).to_contain_text("user:ann")
            expect(note).to_contain_text("<script>alert(2)</script>")
            expect(page.get_by_label("New note")).to_have_value("")
        assert stage.call("GET", f"runs/{run}/notes")["items"][0]["text"] == f"{HOSTILE}\nwait for Bob"
    notes.close()


# ---- output ------------------------------------------------------------------------------------------------------


def test_both_streams_are_shown_by_time_and_followed(stage: Stage, page: Page, agents: Agents) -> None:
    run, (task,) = start(stage, "load", shardingTotalCount=1)
    agents.write("stdout", (START, "one"), (START + 2_000, "three \x1b[31mred\x1b[0m"))
    agents.write("stderr", (START + 1_000, f"two {HOSTILE}"))
    page.goto(f"{stage.url}/runs/{run}")
    page.get_by_role("link", name="Log 0").click()
    lines = page.locator(".line")
    expect(lines).to_have_text(["out one", re.compile(r"^err two <img src=x"), "out three red"])
    agents.write("stderr", (START + 3_000, "four"))
    expect(lines.last).to_have_text("err four")
    page.get_by_label("Times").check()
    expect(lines.first).to_have_text("23:13:20.0 out one")
    page.get_by_label("Stream").select_option("stderr")
    expect(lines).to_have_count(2)
    expect(page).to_have_url(re.compile("log=stderr"))
    stage.loop.update(task, "TASK_FINISHED")
    agents.write("stderr", (START + 4_000, "the last line"))
    expect(lines.last).to_contain_text("the last line")
    expect(page.get_by_text("ended: finished")).to_be_visible()


def test_output_is_searched(stage: Stage, page: Page, agents: Agents) -> None:
    run, _ = start(stage, "load", shardingTotalCount=1)
    agents.output["stdout"] = b"".join(b"line %d of (all)\n" % number for number in range(400))
    page.goto(f"{stage.url}/runs/{run}?shard=0&log=stdout")
    expect(page.locator(".line").last).to_have_text("line 399 of (all)")
    page.get_by_label("Find").fill("LINE 39")
    expect(page.get_by_text("1 of 11")).to_be_visible()
    expect(page.locator("mark")).to_have_count(11)
    page.get_by_role("button", name="Next match").click()
    expect(page.get_by_text("2 of 11")).to_be_visible()
    expect(page.locator("mark.present")).to_be_in_viewport()
    page.get_by_label("Find").press("Shift+Enter")
    expect(page.get_by_text("1 of 11")).to_be_visible()
    page.get_by_role("button", name="Previous match").click()
    expect(page.get_by_text("11 of 11")).to_be_visible()
    page.get_by_label("Find").fill("(all")
    expect(page.locator("mark").first).to_have_text("(all")
    page.get_by_label("Find").fill("[")
    expect(page.get_by_text("no match")).to_be_visible()
    expect(page).to_have_url(re.compile("find=%5B"))


def test_long_output_is_bounded_and_earlier_lines_are_loaded(stage: Stage, page: Page, agents: Agents) -> None:
    run, _ = start(stage, "load", shardingTotalCount=1)
    agents.output["stdout"] = "".join(f"línea {number}\n" for number in range(20_000)).encode()
    page.goto(f"{stage.url}/runs/{run}?shard=0&log=stdout")
    lines = page.locator(".line")
    expect(lines.last).to_have_text("línea 19999")
    expect(lines).to_have_count(1_000)
    expect(lines.first).to_have_text("línea 19000")
    page.get_by_role("button", name="Load earlier output").click()
    expect(lines.first).not_to_have_text("línea 19000")
    expect(page.get_by_label("Follow")).not_to_be_checked()
    earlier, beginning = (
        page.get_by_role("button", name="Load earlier output"),
        page.get_by_text("This is the beginning of the output."),
    )
    for _ in range(40):
        expect(earlier.or_(beginning)).to_be_visible()
        if beginning.is_visible():
            break
        before = lines.first.inner_text()
        earlier.click()
        expect(lines.first).not_to_have_text(before)
    # There is no gap, and the number of lines is bounded.
    expect(lines.first).to_have_text("línea 0")
    expect(lines).to_have_text([f"línea {number}" for number in range(5_000)])
    page.get_by_role("button", name="Show the newest output").click()
    expect(lines.last).to_have_text("línea 19999")
    expect(lines).to_have_count(5_000)


def test_output_is_downloaded_whole(stage: Stage, page: Page, agents: Agents) -> None:
    run, _ = start(stage, "load", shardingTotalCount=1)
    agents.output["stdout"] = "".join(f"línea {number}\n" for number in range(150_000)).encode()
    page.goto(f"{stage.url}/runs/{run}?shard=0&log=stdout")
    with page.expect_download() as found:
        page.get_by_role("button", name="Download stdout").click()
    assert found.value.suggested_filename == f"{run.replace('@', '_')}-0-1-stdout.log"
    assert Path(found.value.path()).read_bytes() == agents.output["stdout"]


def test_output_continues_after_the_agent_was_away(stage: Stage, page: Page, agents: Agents) -> None:
    run, _ = start(stage, "load", shardingTotalCount=1)
    agents.write("stdout", (START, "one"))
    page.goto(f"{stage.url}/runs/{run}?shard=0&log=both")
    expect(page.locator(".line")).to_have_text(["out one"])
    agents.error = Unavailable("the agent does not answer")
    expect(page.get_by_text("What you see may be old. the agent does not answer")).to_be_visible()
    agents.write("stdout", (START, "two"))
    agents.error = None
    expect(page.locator(".line")).to_have_text(["out one", "out two"])
    expect(page.get_by_text("● live")).to_be_visible()


def test_followed_stream_continues_at_its_byte_after_it_broke(stage: Stage, browser: Browser, agents: Agents) -> None:
    run, _ = start(stage, "load", shardingTotalCount=1)
    agents.write("stdout", (START, "one"))
    with stage.context(browser) as context, watched(context, expected=["502", "503"]) as page:
        asked: list[str] = []
        broken = True

        def answer(route: Route) -> None:
            asked.append(route.request.url)
            if broken:
                route.fulfill(status=502, body="bad gateway")
            else:
                route.continue_()

        page.route("**/logs/stream**", answer)
        page.goto(f"{stage.url}/runs/{run}?shard=0&log=stdout")
        expect(page.locator(".line")).to_have_text(["one"])
        expect(page.locator(".following")).to_contain_text("No connection for")
        broken = False
        agents.write("stdout", (START, "two"))
        expect(page.locator(".line")).to_have_text(["one", "two"])
        expect(page.get_by_text("● live")).to_be_visible()
        assert "offset=4" in asked[0]


def test_hidden_tab_reads_no_output(stage: Stage, page: Page, agents: Agents) -> None:
    run, _ = start(stage, "load", shardingTotalCount=1)
    agents.write("stdout", (START, "one"))
    page.add_init_script(COUNTED)
    page.goto(f"{stage.url}/runs/{run}?shard=0&log=stdout")
    expect(page.get_by_text("● live")).to_be_visible()
    until(lambda: page.evaluate("streams === 1"), "one stream")
    page.evaluate(HIDE, True)
    expect(page.get_by_text("halted, because the tab was hidden")).to_be_visible()
    until(lambda: page.evaluate("streams === 0"), "no stream")
    agents.write("stdout", (START, "two"))
    page.evaluate(HIDE, False)
    expect(page.locator(".line")).to_have_text(["one", "two"])
    expect(page.get_by_text("● live")).to_be_visible()
    until(lambda: page.evaluate("streams === 1"), "one stream")
    page.get_by_role("button", name="Close the output").click()
    expect(page.get_by_role("button", name="Show the output")).to_be_visible()
    until(lambda: page.evaluate("streams === 0"), "no stream")


def test_missing_output_says_why(stage: Stage, page: Page, agents: Agents) -> None:
    run, (task,) = start(stage, "load", shardingTotalCount=1)
    page.goto(f"{stage.url}/runs/{run}?shard=0&log=both")
    expect(page.get_by_text("The task has written nothing yet.")).to_be_visible()
    stage.loop.update(task, "TASK_FINISHED")
    expect(page.get_by_role("log").get_by_text("there is no output")).to_be_visible()


# ---- queue -------------------------------------------------------------------------------------------------------


def test_queue_shows_what_waits_and_why(stage: Stage, page: Page) -> None:
    stage.member("ann", "admin", "billing")
    page.goto(f"{stage.url}/queue")
    expect(page.get_by_text("No shard waits.")).to_be_visible()
    stage.add_job("big", cron="0 0 0 1 1 ? 2090", cpuCount=4_000, shardingTotalCount=3, priority=7)
    stage.call("POST", "jobs/big/trigger")
    stage.loop.offer()
    stage.loop.tick(1_000)
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name="big", exact=True))
    expect(row.get_by_role("cell")).to_contain_text(
        ["big", "3", re.compile("agents have too little cpus: asked 4,000"), re.compile("ago"), "3", "7", "default"]
    )
    expect(row.get_by_role("link", name="Explain big")).to_have_attribute("href", "/jobs/big")
    page.get_by_role("textbox", name="Team").fill("billing")
    expect(page.get_by_text("No shard waits.")).to_be_visible()
    expect(page).to_have_url(f"{stage.url}/queue?team=billing")
    page.get_by_role("textbox", name="Team").fill("default")
    expect(row).to_be_visible()
    run = stage.call("GET", "runs")["items"][0]["id"]
    stage.call("POST", f"runs/{run}/cancel")
    expect(row).to_have_count(0)


def test_pool_is_made_changed_and_removed_and_shows_its_use(stage: Stage, page: Page) -> None:
    page.goto(f"{stage.url}/queue")
    pools = page.get_by_role("region", name="Pools", exact=True)
    expect(pools.get_by_text("There is no pool.")).to_be_visible()
    pools.get_by_role("button", name="New pool").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("orders-db")
    dialog.get_by_label("Slots").fill("2")
    dialog.get_by_label("Description").fill("<b>the database</b>")
    dialog.get_by_role("button", name="Save").click()
    row = pools.get_by_role("row").filter(has_text="orders-db")
    expect(row).to_contain_text("<b>the database</b>")
    stage.add_job("uses-db", shardingTotalCount=3, cron="0 0 0 1 1 ? 2099", pools=["orders-db"])
    stage.call("POST", "jobs/uses-db/trigger")
    stage.loop.offer("agent-of-pool")
    stage.loop.tick()
    expect(row.get_by_role("cell").nth(1)).to_have_text("2")
    queued = page.get_by_role("row").filter(has_text="uses-db")
    expect(queued).to_contain_text("Pool orders-db: 2 of 2 slots are used")
    row.get_by_role("button", name="Remove").click()
    dialog.get_by_role("button", name="Remove").click()
    expect(dialog).to_contain_text("pool orders-db is named by 1 jobs, for example uses-db")
    dialog.get_by_role("button", name="Cancel").click()
    row.get_by_role("button", name="Set slots").click()
    dialog.get_by_label("Slots").fill("5")
    dialog.get_by_role("button", name="Save").click()
    expect(row.get_by_role("cell").nth(2)).to_have_text("5")
    assert stage.loop.scheduler.pools["orders-db"].description == "<b>the database</b>"


# ---- events ------------------------------------------------------------------------------------------------------


def test_events_are_followed_filtered_and_paused(stage: Stage, page: Page) -> None:
    run, tasks = start(stage, "load", shardingTotalCount=1)
    page.goto(f"{stage.url}/events")
    rows = page.get_by_role("table").get_by_role("row")
    fired = rows.filter(has=page.get_by_role("cell", name="fired", exact=True))
    expect(fired.get_by_role("link", name=run)).to_have_attribute("href", f"/runs/{run.replace('@', '%40')}")
    expect(page.get_by_text("● live")).to_be_visible()
    fail(stage, *tasks, message=LONG)
    ended = rows.filter(has=page.get_by_role("cell", name="attempt ended"))
    expect(ended).to_contain_text("<img src=x onerror=alert(1)>")
    expect(ended.get_by_role("link", name="0", exact=True)).to_have_attribute(
        "href", f"/runs/{run.replace('@', '%40')}?shard=0"
    )
    page.get_by_label("Topic").select_option("ended")
    expect(fired).to_have_count(0)
    page.get_by_label("Topic").select_option("")
    page.get_by_role("button", name="Pause").click()
    start(stage, "mail")
    expect(page.get_by_text(re.compile(r"Paused\. \d+ new events wait\."))).to_be_visible()
    expect(page.get_by_role("link", name="mail", exact=True)).to_have_count(0)
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("link", name="mail", exact=True).first).to_be_visible()
    page.get_by_role("textbox", name="Job").fill("MAI")
    expect(page.get_by_role("link", name="load", exact=True)).to_have_count(0)
    expect(page).to_have_url(f"{stage.url}/events?job=MAI")
    page.get_by_role("textbox", name="Text").fill("nothing like this")
    expect(page.get_by_text("No event fits.")).to_be_visible()


def test_refused_launch_is_an_event_and_not_an_end_of_the_stream(stage: Stage, page: Page) -> None:
    stage.add_job("big", cron="0 0 0 1 1 ? 2090", cpuCount=4_000)
    stage.call("POST", "jobs/big/trigger")
    page.goto(f"{stage.url}/events")
    stage.loop.offer()
    stage.loop.tick(1_000)
    expect(page.get_by_role("cell", name="refused", exact=True).first).to_be_visible()
    expect(page.get_by_text("● live")).to_be_visible()


def test_events_in_the_page_are_bounded(stage: Stage, page: Page) -> None:
    page.goto(f"{stage.url}/events")
    expect(page.get_by_text("● live")).to_be_visible()
    start(stage, "load", shardingTotalCount=400, cpuCount=0.001, memoryMB=1)
    expect(page.get_by_text(re.compile("^500 of the 80[0-9] newest events"))).to_be_visible()
    expect(page.get_by_role("table").locator("tbody tr")).to_have_count(500)
    answer = httpx.get(f"{stage.url}/events", timeout=60)
    assert answer.status_code == 200
