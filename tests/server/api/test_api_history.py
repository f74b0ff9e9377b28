"""The routes of the history and of the statistics."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.api_kit import (
    ARTIFACTS,
    FakeLoop,
    app_body,
    client_of,
    issues,
    job_body,
    make_api,
    package_bytes,
    serving,
)
from tests.audit_kit import CHAIN, make_entry
from tests.executor_kit import wait_until
from tests.history_kit import DESCRIBE, START, make_attempt, make_run, of, played

from jobcloud.audit.entries import Head, Kind, seal
from jobcloud.errors import Unavailable
from jobcloud.history.answers import MAX_NOTES, Found, Wanted
from jobcloud.history.database import Database
from jobcloud.history.notes import Notes
from jobcloud.history.queries import Reader
from jobcloud.history.rows import AuditLine, of_events
from jobcloud.messages import ConfigTraced
from jobcloud.model import ShardState
from jobcloud.scheduler import Policy, Scheduler, Stored
from jobcloud.server.api import Access, ApiOptions
from jobcloud.server.api.threads import Questions

Rows = list[dict[str, Any]]


@pytest.fixture
def url(tmp_path: Path) -> str:
    found = f"sqlite:///{tmp_path / 'history.db'}"
    database = Database(found)
    database.upgrade()
    events = [make_attempt(number, job="billing:sum", app="billing:till") for number in range(25)]
    database.write(
        of_events([*events, *(make_run(number) for number in range(5)), make_run(9, ShardState.DEAD), *played()])
    )
    database.close()
    return found


@pytest.fixture
def client(url: str, tmp_path: Path) -> Iterator[httpx.Client]:
    reader, notes = Reader(lambda: Database(url, reading=True)), Notes(lambda: Database(url))
    yield client_of(make_api(tmp_path, history=reader, notes=notes))
    reader.close()
    notes.close()


def items(client: httpx.Client, path: str, **params: Any) -> Rows:
    """All pages."""
    found: Rows = []
    while True:
        answer = client.get(path, params=params)
        assert answer.status_code == 200, answer.text
        found += answer.json()["items"]
        params["cursor"] = answer.json()["nextCursor"]
        if not params["cursor"]:
            return found


def test_runs_are_listed_by_fire_time_and_filtered(client: httpx.Client) -> None:
    found = items(client, "history/runs", job="report", limit=2)
    assert [run["state"] for run in found] == ["DEAD", *["FINISHED"] * 6]
    assert [run["firedAt"] for run in found] == sorted((run["firedAt"] for run in found), reverse=True)
    (dead,) = items(client, "history/runs", state="DEAD")
    assert dead["shardStates"] == {"FINISHED": 1, "DEAD": 1}
    assert (dead["appName"], dead["team"], dead["shardCount"], dead["cause"]) == ("shop", "default", 2, "cron")
    assert items(client, "history/runs", team="billing") == []
    several = items(client, "history/runs", state=["DEAD", "FAILED"], since="2026-01-01T00:00:00Z", limit=1)
    assert several == [dead]
    assert len(items(client, "history/runs", state=["DEAD", "FINISHED", "DEAD"], limit=2)) == 7
    assert items(client, "history/runs", state=["DEAD", "FAILED"], since="2026-01-01T00:01:00Z") == []


def test_attempts_are_listed_by_end_and_filtered(client: httpx.Client) -> None:
    found = items(client, "history/attempts", team="billing", limit=7)
    assert len({attempt["taskId"] for attempt in found}) == 25
    assert [attempt["endedAt"] for attempt in found] == sorted((a["endedAt"] for a in found), reverse=True)
    ranged = items(
        client, "history/attempts", app="billing:till", since="2026-01-01T00:00:05Z", until="2026-01-01T00:00:08Z"
    )
    assert [attempt["endedAt"] for attempt in ranged] == [f"2026-01-01T00:00:0{second}.000Z" for second in (7, 6, 5)]
    (failed,) = items(client, "history/attempts", job="report", outcome="FAILED")
    assert (failed["cause"], failed["attempt"], failed["durationSeconds"], failed["cpuCount"]) == (
        "exception",
        1,
        1.234,
        1,
    )
    assert len(items(client, "history/attempts", run=failed["runId"])) == 2


def test_events_of_an_attempt_are_its_states(client: httpx.Client) -> None:
    (failed,) = items(client, "history/attempts", job="report", outcome="FAILED")
    found = items(client, "history/events", task=failed["taskId"], limit=1)
    assert items(client, "history/events", task=failed["taskId"]) == found
    assert [event["state"] for event in found][-1] == "TASK_FAILED"
    assert {event["state"] for event in found} == {"TASK_STAGING", "TASK_RUNNING", "TASK_FAILED"}
    assert found[-1]["at"] == "2026-01-01T00:00:01.234000Z"


def test_statistics_are_given_by_job_and_in_total(client: httpx.Client) -> None:
    within = {"since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z"}
    one, two = items(client, "statistics", limit=1, **within)
    assert (one["name"], one["attempts"], one["succeeded"], one["failed"]) == ("billing:sum", 25, 25, 0)
    assert one["duration"] == {"p50": 13.0, "p95": 24.0, "p99": 25.0}
    assert one["cpuSeconds"] == pytest.approx(0.5 * sum(range(1, 26)))
    assert (two["name"], two["succeeded"], two["failed"], two["queued"]["p50"]) == ("report", 1, 1, 0.0)
    (total,) = items(client, "statistics", by="total", **within)
    assert (total["name"], total["attempts"]) == ("", 27)
    assert [team["name"] for team in items(client, "statistics", by="team", **within)] == ["billing", "default"]


def test_statistics_are_of_the_last_day_by_default(url: str, tmp_path: Path) -> None:
    reader = Reader(lambda: Database(url, reading=True))
    client = client_of(make_api(tmp_path, history=reader, clock=lambda: START + 86_400_000 + 10_000))
    (job,) = items(client, "statistics", job="billing:sum")
    assert job["attempts"] == 16
    reader.close()


@pytest.mark.parametrize(
    ("path", "params", "field"),
    [
        ("history/runs", {"cursor": "../x"}, "cursor"),
        ("history/runs", {"state": "GONE"}, "state.0"),
        ("history/configurations", {"app": "a", "job": "b"}, ""),
        ("history/runs", {"since": "yesterday"}, "since"),
        ("history/runs", {"since": "2026-01-01T00:00:00"}, "since"),
        ("history/runs", {"nonsense": "1"}, "nonsense"),
        ("history/attempts", {"limit": "0"}, "limit"),
        ("history/attempts", {"job": "a", "team": "b"}, ""),
        ("statistics", {"by": "host"}, "by"),
        ("history/events", {}, "task"),
    ],
)
def test_wrong_parameter_is_named(client: httpx.Client, path: str, params: dict[str, str], field: str) -> None:
    answer = client.get(path, params=params)
    assert answer.status_code == 422
    assert field in issues(answer)


def test_scheduler_without_history_says_how_to_get_one(tmp_path: Path) -> None:
    for path in ("history/runs", "history/attempts", "history/events?task=t", "history/configurations", "statistics"):
        answer = client_of(make_api(tmp_path, FakeLoop())).get(path)
        assert answer.status_code == 503
        assert "history.url" in str(issues(answer, "unavailable"))


def test_database_that_is_away_is_unavailable(tmp_path: Path) -> None:
    reader = Reader(lambda: Database(f"sqlite:///{tmp_path / 'none' / 'history.db'}", reading=True))
    answer = client_of(make_api(tmp_path, history=reader)).get("history/runs")
    assert answer.status_code == 503
    assert "history" in answer.json()["detail"]
    reader.close()


class StuckReader(Reader):
    """Answers when the test lets it."""

    def __init__(self) -> None:
        super().__init__(lambda: pytest.fail("not opened"))
        self.asked = 0
        self.answers = threading.Event()

    def runs(self, wanted: Wanted, limit: int, cursor: str = "") -> tuple[list[Found], str]:
        self.asked += 1
        assert self.answers.wait(60)
        return [], ""


def test_questions_to_a_database_that_hangs_delay_no_other_request(tmp_path: Path) -> None:
    reader = StuckReader()
    with (
        serving(make_api(tmp_path, history=reader)) as url,
        httpx.Client(base_url=f"{url}/api/v1", timeout=60) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        asked = [pool.submit(client.get, "history/runs") for _ in range(8)]
        wait_until(lambda: reader.asked == 4, "four questions are asked")
        for path in ("jobs", "runs", "cluster"):
            assert client.get(path).status_code == 200
        assert reader.asked == 4
        reader.answers.set()
        assert [each.result().status_code for each in asked] == [200] * 8


def test_questions_are_refused_if_too_many_wait_or_a_turn_takes_long() -> None:
    async def ask() -> list[object]:
        questions = Questions(at_once=1, waiting=1, patience_s=0.01)
        answers = threading.Event()
        first = asyncio.create_task(questions.ask(answers.wait))
        second = asyncio.create_task(questions.ask(lambda: "never asked"))
        await asyncio.sleep(0)  # both have begun
        third = await asyncio.gather(questions.ask(lambda: "never asked"), return_exceptions=True)
        found = [*third, *await asyncio.gather(second, return_exceptions=True)]
        answers.set()
        return [*found, await first, await questions.ask(lambda: "answered")]

    *refused, first, last = asyncio.run(ask())
    assert [type(each) for each in refused] == [Unavailable, Unavailable]
    assert (first, last) == (True, "answered")


def test_audit_log_is_listed_and_filtered(client: httpx.Client, url: str) -> None:
    database = Database(url)
    head = Head(CHAIN)
    for number in range(5):
        line, head = seal(make_entry(number, target=f"job{number % 2}", kind=Kind.OUTCOME), head)
        database.write(of_events([AuditLine(line)]))
    database.close()
    assert [entry["seq"] for entry in items(client, "audit", limit=2)] == [5, 4, 3, 2, 1]
    (entry,) = items(client, "audit", target="job1", actor="user:u3")
    assert (entry["seq"], entry["kind"]) == (4, "outcome")
    assert client.get("audit", params={"outcome": "no"}).status_code == 422
    assert client.get("audit", params={"request": "no"}).status_code == 422


# ------------------------------------------------------------------------------------------------ configurations


def test_configurations_can_be_compared_and_put_back(url: str, tmp_path: Path) -> None:
    loop = FakeLoop()
    loop.scheduler = Scheduler(Policy(ARTIFACTS, traced=True), Stored(), epoch=1, at=loop.now)
    loop.subscribe()
    reader = Reader(lambda: Database(url, reading=True))
    options = ApiOptions(access=Access(token="t0ken"))
    client = client_of(make_api(tmp_path, loop, history=reader, options=options), "t0ken")
    sha256 = client.post("packages", content=package_bytes()).json()["sha256"]
    client.post("apps", json=app_body(sha256)).raise_for_status()
    first = client.post("jobs", json=job_body()).json()
    loop.now += 1
    client.patch("jobs/hello", json={"cpuCount": 0.7}).raise_for_status()
    loop.now += 1
    client.put("jobs/hello", json=job_body(cpuCount=0.7)).raise_for_status()  # no change
    client.delete("apps/demo", params={"jobs": "true"}).raise_for_status()
    database = Database(url)
    database.write(of_events(of(ConfigTraced, loop.effects), DESCRIBE))
    database.close()
    found = items(client, "history/configurations", job="hello", limit=1)
    assert [(one["by"], one["removed"]) for one in found] == [
        ("token:server", True), ("token:server", False), ("token:server", False),
    ]  # fmt: skip
    assert [one["config"]["cpuCount"] for one in found] == [0.7, 0.7, 0.1]
    assert (found[2]["revision"], found[2]["config"]) == (first["revision"], first["config"])
    assert (found[2]["kind"], found[2]["key"], found[2]["team"]) == ("job", "hello", "default")
    assert found[2]["at"] == "2023-11-14T22:13:20.000Z"
    assert [one["removed"] for one in items(client, "history/configurations", app="demo")] == [True, False]
    assert len(items(client, "history/configurations", team="default")) == 5
    assert items(client, "history/configurations", team="other") == []
    client.post("apps", json=app_body(sha256)).raise_for_status()
    again = client.post("jobs", json=found[2]["config"])
    assert again.json()["revision"] == first["revision"]
    back = client.put("jobs/hello", json=found[1]["config"], headers={"If-Match": again.headers["etag"]})
    assert (back.status_code, back.json()["revision"]) == (200, found[1]["revision"])
    reader.close()


# ------------------------------------------------------------------------------------------------ notes


def test_notes_of_a_run_are_kept_in_order(client: httpx.Client) -> None:
    run = items(client, "history/runs", state="DEAD")[0]["id"]
    for text in ("disk was full", "retried\n☃"):
        answer = client.post(f"runs/{run}/notes", json={"text": text})
        assert (answer.status_code, answer.json()["text"]) == (201, text)
    found = items(client, f"runs/{run}/notes", limit=1)
    assert [(note["number"], note["text"]) for note in found] == [(1, "disk was full"), (2, "retried\n☃")]
    assert found[1] == answer.json()
    assert found[0]["by"].startswith("token:")
    assert found[0]["at"]
    assert items(client, "runs/none/notes") == []


def test_run_of_the_state_can_have_notes(url: str, loop: FakeLoop, tmp_path: Path) -> None:
    notes = Notes(lambda: Database(url))
    own = client_of(make_api(tmp_path, loop, notes=notes))
    sha256 = own.post("packages", content=package_bytes()).json()["sha256"]
    own.post("apps", json=app_body(sha256)).raise_for_status()
    own.post("jobs", json=job_body()).raise_for_status()
    run = own.post("jobs/hello/trigger").json()["id"]
    assert own.post(f"runs/{run}/notes", json={"text": "x"}).status_code == 201
    own.delete("jobs/hello").raise_for_status()
    assert [note["text"] for note in items(own, f"runs/{run}/notes")] == ["x"]
    notes.close()


@pytest.mark.parametrize("text", ["", "x" * 2_001, "a\tb", "a\rb", "\x1b[2J", "\x00", "\x7f", "\x9b", 7, None])
def test_text_of_a_note_is_bounded(client: httpx.Client, text: object) -> None:
    run = items(client, "history/runs", state="DEAD")[0]["id"]
    answer = client.post(f"runs/{run}/notes", json={"text": text})
    assert answer.status_code == 422
    assert list(issues(answer)) == ["text"]
    assert items(client, f"runs/{run}/notes") == []


def test_note_that_cannot_be_stored_is_refused(client: httpx.Client, tmp_path: Path) -> None:
    assert client.post("runs/none/notes", json={"text": "x"}).status_code == 404
    run = items(client, "history/runs", state="DEAD")[0]["id"]
    for _ in range(MAX_NOTES):
        client.post(f"runs/{run}/notes", json={"text": "x" * 2_000}).raise_for_status()
    assert client.post(f"runs/{run}/notes", json={"text": "x"}).status_code == 409
    away = Notes(lambda: Database(f"sqlite:///{tmp_path / 'none' / 'history.db'}"))
    for api in (client_of(make_api(tmp_path, notes=away)), client_of(make_api(tmp_path))):
        assert api.get("runs/r/notes").status_code == 503
        assert api.post("runs/r/notes", json={"text": "x"}).status_code == 503
    away.close()
