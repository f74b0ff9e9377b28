"""Runs and fire times in the API."""

from __future__ import annotations

from pathlib import Path

import pytest
from httpx import Client
from tests.api_kit import FakeLoop, issues, job_body, make_api, serving

from jobcloud.client.http import Client as ApiClient
from jobcloud.model import Cause, Firing, Outcome, Shard, ShardState, changed, shards_of
from jobcloud.server.api import services


def test_dead_run_is_listed_and_can_be_retried(api: Client, loop: FakeLoop, demo: str) -> None:
    body = job_body(retryCount=1, retryDelaySeconds=0.5, retryJitter=0, shardingTotalCount=1)
    assert api.post("jobs", json=body).status_code == 201
    run = api.post("jobs/hello/trigger").json()["id"]
    loop.subscribe()
    for wait in (0, 500):
        loop.offer()
        (task_id,) = loop.tick(wait)
        loop.update(task_id, "TASK_FAILED", "it broke")
    (found,) = api.get("runs", params={"state": "DEAD"}).json()["items"]
    (shard,) = found["shards"]
    assert (found["id"], found["state"], shard["state"], shard["retries"]) == (run, "DEAD", "DEAD", 1)
    assert api.get("jobs/hello").json()["deadRuns"] == 1
    assert [task["id"] for task in api.get("tasks", params={"state": "dead"}).json()["items"]] == [task_id]
    reasons = api.get("jobs/hello/explain").json()["reasons"]
    assert next(reason["code"] for reason in reasons) == "dead"
    answer = api.post(f"runs/{run}/retry")
    assert (answer.status_code, answer.json()["state"]) == (202, "WAITING")
    assert api.get("jobs/hello").json()["deadRuns"] == 0
    assert "runId" in issues(api.post(f"runs/{run}/retry"), "conflict")
    assert "item" in issues(api.post(f"runs/{run}/retry", params={"item": 9}), "not-found")
    assert api.post(f"runs/{run}/retry", params={"item": "x"}).status_code == 422
    assert api.post("runs/nope/retry").status_code == 404


def test_runs_are_selected_by_several_states_and_by_fire_time(
    api: Client, loop: FakeLoop, demo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert api.post("jobs", json=job_body(shardingTotalCount=1, concurrency="allow")).status_code == 201
    runs, times = [], []
    for state in ("TASK_FAILED", "TASK_FINISHED", "TASK_KILLED", "TASK_FAILED", "TASK_RUNNING"):
        run = api.post("jobs/hello/trigger").json()
        runs.append(run["id"])
        times.append(run["firedAt"])
        loop.offer()
        (task,) = loop.tick()
        loop.update(task, state)
        loop.now += 100

    def found(**params: object) -> list[int]:
        given: list[int] = []
        cursor = ""
        while True:
            page = api.get("runs", params={**params, "cursor": cursor})  # type: ignore[dict-item]
            assert page.status_code == 200, page.text
            given += [runs.index(run["id"]) for run in page.json()["items"]]
            if not (cursor := page.json()["nextCursor"]):
                return given

    for copied in (False, True):
        if copied:
            monkeypatch.setattr(services, "_MAX_SHARDS", 1)
        states = {run["id"]: run["state"] for run in api.get("runs").json()["items"]}
        failed = states[runs[0]]
        assert found(state=[failed, "ACTIVE"], limit=1) == [4, 3, 0]
        assert found(state=[failed, "ACTIVE"], since=times[1], job="hello") == [4, 3]
        assert found(since=times[3]) == [4, 3]
        assert found(since=times[2], state="FINISHED") == []
    assert "state.1" in issues(api.get("runs", params={"state": ["DEAD", "GONE"]}))
    assert "since" in issues(api.get("runs", params={"since": "yesterday"}))


def test_pages_neither_repeat_nor_hide_runs_when_new_ones_come(
    api: Client, loop: FakeLoop, launched: list[str]
) -> None:
    for _ in range(4):
        api.post("jobs/hello/trigger")
        loop.now += 1
    known = [run["id"] for run in api.get("runs").json()["items"]]
    assert len(known) == 5
    seen: list[str] = []
    cursor = ""
    while True:
        page = api.get("runs", params={"limit": 2, "cursor": cursor}).json()
        seen += [run["id"] for run in page["items"]]
        cursor = page["nextCursor"]
        if not cursor:
            break
        api.post("jobs/hello/trigger")
        loop.now += 1
    assert seen == known


def test_next_firings_are_computed_in_the_requested_zone(api: Client) -> None:
    query: dict[str, str | int] = {
        "cron": "0 30 2 * * ?",
        "zone": "Europe/Berlin",
        "after": 1_774_645_200_000,
        "count": 2,
    }
    times = api.get("cron/next", params=query).json()["times"]
    assert times == ["2026-03-28T01:30:00.000Z", "2026-03-29T01:00:00.000Z"]
    assert "cron" in issues(api.get("cron/next", params={"cron": "nope"}))
    assert "count" in issues(api.get("cron/next", params={"cron": "0 0 0 * * ?", "count": 101}))


def test_next_firings_have_the_expression_in_words(api: Client) -> None:
    query = {"cron": "0 30 2 ? * 6L", "zone": "Europe/Berlin"}
    english = api.get("cron/next", params=query).json()
    assert english["words"] == "at 02:30 on the last Friday of each month (Europe/Berlin)"
    chinese = api.get("cron/next", params={**query, "language": "zh"}).json()
    assert chinese == {**english, "words": "每月最后一个星期五 02:30（Europe/Berlin）"}
    assert "language" in issues(api.get("cron/next", params={**query, "language": "de"}))


def test_fire_times_after_runs_are_named_and_not_listed(api: Client) -> None:
    found = api.get("cron/next", params={"cron": "", "trigger": "@after 10m"}).json()
    assert (found["words"], found["times"], found["afterRun"]) == ("10m after the end of each run", [], True)
    chinese = api.get("cron/next", params={"cron": "", "trigger": "@after 10m", "language": "zh"}).json()
    assert chinese["words"] == "每次运行结束后 10m"
    assert not api.get("cron/next", params={"cron": "0 0 8 * * ?"}).json()["afterRun"]
    assert "triggers" in issues(api.get("cron/next", params={"cron": "", "trigger": "@after 1ms"}))


def test_job_that_fires_after_its_runs_is_described(api: Client, loop: FakeLoop, demo: str) -> None:
    job = api.post("jobs", json=job_body(cron="", triggers=["@after 10m"])).json()
    assert job["nextFiring"], "the first run is due at once"
    loop.tick(1_000)
    assert api.get("jobs/hello").json()["nextFiring"] is None
    reasons = api.get("jobs/hello/explain").json()["reasons"]
    waits = next(reason for reason in reasons if reason["code"] == "after_end")
    assert waits["parameters"] == {"run": loop.scheduler.newest[0][1], "seconds": 600}
    refused = api.post("jobs/hello/backfill", json={"from": "2026-01-01T00:00:00Z"})
    assert (refused.status_code, "no fire times" in refused.text) == (409, True)


def wide_run(loop: FakeLoop, count: int, message: str, name: str = "wide") -> Firing:
    """A run with `count` failed shards, in the scheduler's tables."""
    shards = [Shard(ShardState.FAILED, 1, message=message, outcome=Outcome("exception"))] * count
    run = Firing(f"{name}.run", name, 1, Cause.TRIGGER, loop.now, shards_of(*shards), ended_ms=loop.now)
    loop.scheduler._state.put_firing_unsaved(run)
    return run


def test_run_of_many_failed_shards_is_shown_in_pages_of_bounded_size(api: Client, loop: FakeLoop) -> None:
    wide_run(loop, 700, "é" * 2_000)
    seen: list[int] = []
    cursor, pages = "", 0
    while cursor or not pages:
        answer = api.get("runs/wide.run", params={"cursor": cursor})
        assert len(answer.content) < 1_200_000
        page = answer.json()
        assert (page["state"], page["shardCount"], page["shardStates"]) == ("FAILED", 700, {"FAILED": 700})
        seen += [shard["item"] for shard in page["shards"]]
        cursor, pages = page["nextCursor"], pages + 1
    assert seen == list(range(700))
    assert pages > 2
    few = api.get("runs/wide.run", params={"limit": 3}).json()
    assert [shard["item"] for shard in few["shards"]] == [0, 1, 2]
    assert "limit" in issues(api.get("runs/wide.run", params={"limit": 1001}))
    assert "cursor" in issues(api.get("runs/wide.run", params={"cursor": "nope"}))


def test_shards_of_a_run_are_selected_by_state(api: Client, loop: FakeLoop) -> None:
    run = wide_run(loop, 50, "")
    states = {3: ShardState.DEAD, 20: ShardState.FAILED, 40: ShardState.DEAD}
    shards = [changed(shard, state=states.get(item, ShardState.FINISHED)) for item, shard in enumerate(run.shards)]
    loop.scheduler.firings[run.id] = changed(run, shards=shards_of(*shards))
    wanted = "runs/wide.run?state=DEAD&state=FAILED&limit=2"
    page = api.get(wanted).json()
    assert [shard["item"] for shard in page["shards"]] == [3, 20]
    assert (page["shardCount"], page["shardStates"]) == (50, {"FINISHED": 47, "DEAD": 2, "FAILED": 1})
    rest = api.get(f"{wanted}&cursor={page['nextCursor']}").json()
    assert ([shard["item"] for shard in rest["shards"]], rest["nextCursor"]) == ([40], "")
    assert api.get("runs/wide.run", params={"state": "KILLED"}).json()["shards"] == []
    assert "state.0" in issues(api.get("runs/wide.run", params={"state": "dead"}))


def test_list_of_wide_runs_is_bounded_and_complete(api: Client, loop: FakeLoop) -> None:
    for number in range(30):
        wide_run(loop, 300, "x" * 4_000, f"wide{number}")
    found: list[str] = []
    cursor, pages = "", 0
    while cursor or not pages:
        answer = api.get("runs", params={"limit": 1000, "cursor": cursor})
        assert len(answer.content) < 2_200_000
        page = answer.json()
        assert all((len(run["shards"]), run["shardCount"]) == (100, 300) for run in page["items"])
        found += [run["id"] for run in page["items"]]
        cursor, pages = page["nextCursor"], pages + 1
    assert sorted(found) == sorted(f"wide{number}.run" for number in range(30))
    first = api.get("runs", params={"limit": 1}).json()["items"][0]
    rest = api.get(f"runs/{first['id']}", params={"cursor": first["nextCursor"]}).json()
    assert [shard["item"] for shard in rest["shards"]] == list(range(100, 300))


def test_page_of_tasks_is_bounded(api: Client, loop: FakeLoop) -> None:
    run = wide_run(loop, 1, "")
    shards = shards_of(*(changed(run.shards[0], task_id=f"t{item}", message="x" * 4_000) for item in range(900)))
    loop.scheduler.firings[run.id] = changed(run, shards=shards)
    answer = api.get("tasks", params={"limit": 1000})
    assert len(answer.content) < 1_200_000
    assert answer.json()["nextCursor"]


def test_client_shows_all_shards_of_a_wide_run(tmp_path: Path, loop: FakeLoop) -> None:
    wide_run(loop, 1_500, "broken")
    with serving(make_api(tmp_path, loop)) as url, ApiClient(url) as client:
        run = client.run("wide.run")
    assert [shard["item"] for shard in run["shards"]] == list(range(1_500))
    assert run["nextCursor"] == ""


def test_lists_are_the_same_whether_or_not_the_tables_are_copied_for_them(
    api: Client, loop: FakeLoop, launched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.update(launched[0], "TASK_FINISHED")
    for _ in range(5):
        api.post("jobs/hello/trigger")
        loop.tick(7_000)
    paths = ["runs", "runs?limit=1", "runs?state=ACTIVE", "runs?job=hello&limit=2", "runs?job=none", "tasks"]
    paths += ["tasks?state=active&limit=1", "tasks?app=demo", "jobs", "jobs?app=demo", "jobs?app=none"]
    quick = [api.get(path).json() for path in paths]
    monkeypatch.setattr(services, "_MAX_SHARDS", 1)
    assert [api.get(path).json() for path in paths] == quick
    assert [len(found["items"]) for found in quick[:3]] != [0, 0, 0]
    for path in ("runs", "tasks"):
        items: list[object] = []
        cursor = ""
        while cursor or not items:
            page = api.get(path, params={"limit": 1, "cursor": cursor}).json()
            items += page["items"]
            cursor = page["nextCursor"]
        assert items == quick[paths.index(path)]["items"]
