"""The route of series over time: results, samples, rights, and refusals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.api_kit import FakeLoop, client_of, issues, make_api
from tests.history_kit import START, make_attempt, make_run

from jobcloud.access import tokens
from jobcloud.config import Resources
from jobcloud.history.database import Database
from jobcloud.history.queries import Reader
from jobcloud.history.rows import of_events
from jobcloud.history.samples import Sample, Sampled, TeamNumbers
from jobcloud.history.steps import HOUR_MS, MINUTE_MS
from jobcloud.messages import PutAccess
from jobcloud.model import AccessToken, Member, Team
from jobcloud.server.api import Access, ApiOptions

TOKEN = "t0ken-of-the-test"
NOW = START + 2 * HOUR_MS + 10 * MINUTE_MS
PATH = "statistics/series"


def sample(*, billing: int) -> Sample:
    teams = {
        "default": TeamNumbers(4, 1, 1, 2, 3, 1, Resources(1_000, 64_000)),
        "billing": TeamNumbers(1, 0, 1, billing, 0, 1, Resources(500 * billing, 0)),
    }
    return Sample(3, Resources(8_000, 640_000, 1_000_000), teams)


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


@pytest.fixture
def client(tmp_path: Path, loop: FakeLoop) -> Iterator[httpx.Client]:
    url = f"sqlite:///{tmp_path / 'history.db'}"
    database = Database(url)
    database.upgrade()
    database.write(
        of_events(
            [
                make_attempt(1), make_attempt(2, state="LOST", job="billing:sum", app="billing:till"), make_run(1),
                Sampled(START, sample(billing=4)), Sampled(START + MINUTE_MS, sample(billing=1)),
            ]
        )
    )  # fmt: skip
    database.close()
    reader = Reader(lambda: Database(url, reading=True))
    app = make_api(tmp_path, loop, options=ApiOptions(access=Access(token=TOKEN)), history=reader, clock=lambda: NOW)
    yield client_of(app, TOKEN)
    reader.close()


def test_steps_have_results_and_samples_and_null_for_a_gap(client: httpx.Client) -> None:
    found = client.get(PATH, params={"since": "2025-12-31T23:30:00Z"}).json()
    assert (found["by"], found["zone"]) == ("hour", "UTC")
    assert (found["since"], found["until"]) == ("2025-12-31T23:00:00.000Z", "2026-01-01T03:00:00.000Z")
    before, first, second, present = found["steps"]
    assert before == {
        "at": "2025-12-31T23:00:00.000Z", "until": "2026-01-01T00:00:00.000Z",
        "attempts": None, "runs": None, "shards": None, "sampled": None,
    }  # fmt: skip
    assert first["attempts"]["outcomes"] == {"SUCCEEDED": 1, "LOST": 1}
    assert (first["attempts"]["succeeded"], first["attempts"]["failed"]) == (1, 1)
    assert first["attempts"]["duration"] == {"p50": 2.0, "p95": 3.0, "p99": 3.0}
    assert (first["runs"], first["shards"]) == ({"FINISHED": 1}, {"FINISHED": 2})
    assert first["sampled"] == {
        "samples": 2, "registeredJobs": 5.0, "enabledJobs": 4.0, "disabledJobs": 1.0, "runningJobs": 2.0,
        "runningShards": 4.5, "waitingShards": 3.0, "unfinishedRuns": 2.0,
        "used": {"cpuCount": 2.25, "memoryMB": 64, "diskMB": 0, "gpuCount": 0, "portCount": 0},
        "cluster": {
            "agents": 3.0,
            "total": {"cpuCount": 8, "memoryMB": 640, "diskMB": 1000, "gpuCount": 0, "portCount": 0},
            "usedShare": {"cpuCount": 0.2812, "memoryMB": 0.1, "diskMB": 0.0, "gpuCount": None, "portCount": None},
        },
    }  # fmt: skip
    assert (second["attempts"]["attempts"], second["runs"], second["sampled"]) == (0, {}, None)
    assert present["until"] == "2026-01-01T03:00:00.000Z", "the present step ends in the future"


def shape(value: Any) -> Any:
    """The names of fields, without their values."""
    if isinstance(value, dict):
        return {name: None if name in ("outcomes", "runs", "shards") else shape(one) for name, one in value.items()}
    return [shape(value[0])] if isinstance(value, list) else None


def test_example_of_the_documents_has_the_form_of_an_answer(client: httpx.Client) -> None:
    section = (Path(__file__).parents[3] / "docs" / "api.md").read_text().partition("## Series over time")[2]
    example = json.loads(section.partition("```json")[2].partition("```")[0])
    assert shape(example) == shape(client.get(PATH, params={"since": "2026-01-01T00:00:00Z"}).json())


@pytest.mark.parametrize(
    ("by", "steps", "first"),
    [
        ("minute", 60, "2026-01-01T01:10:00.000Z"),
        ("hour", 25, "2025-12-31T02:00:00.000Z"),
        ("day", 31, "2025-12-02T00:00:00.000Z"),
    ],
)
def test_range_ends_now_and_has_a_default(client: httpx.Client, by: str, steps: int, first: str) -> None:
    for params in ({}, {"until": "2099-01-01T00:00:00Z"}):
        found = client.get(PATH, params={"by": by, **params}).json()
        assert (len(found["steps"]), found["since"], found["steps"][0]["at"]) == (steps, first, first)
    assert client.get(PATH, params={"since": "2099-01-01T00:00:00Z"}).json()["steps"] == []


def test_days_are_those_of_a_zone(client: httpx.Client) -> None:
    params = {"by": "day", "zone": "Asia/Kolkata", "since": "2026-01-01T00:00:00Z"}
    (day,) = client.get(PATH, params=params).json()["steps"]
    assert (day["at"], day["until"]) == ("2025-12-31T18:30:00.000Z", "2026-01-01T18:30:00.000Z")
    assert day["attempts"]["attempts"] == 2


def test_filters_select_results_and_samples(client: httpx.Client) -> None:
    def first(**params: str) -> tuple[int | None, float | None]:
        step = client.get(PATH, params={"since": "2026-01-01T00:00:00Z", **params}).json()["steps"][0]
        sampled = step["sampled"]
        return (step["attempts"] or {}).get("attempts"), sampled and sampled["runningShards"]

    assert first(team="billing") == (1, 2.5)
    assert first(job="billing:sum") == first(app="billing:till") == (1, None)
    assert first(team="absent") == (None, 0.0)


def member_of(loop: FakeLoop, team: str) -> dict[str, str]:
    """The header of somebody who may view one team."""
    secret = tokens.make("jct", b"x" * 38)
    loop.feed(PutAccess(loop.now, Team(team, (Member("user:ann", "viewer"),))))
    loop.feed(PutAccess(loop.now, AccessToken(secret.id, "t", secret.hash, "user:ann", loop.now)))
    return {"Authorization": f"Bearer {secret.text}"}


def test_sender_gets_the_numbers_of_the_own_teams_and_nothing_of_the_cluster(
    client: httpx.Client, loop: FakeLoop
) -> None:
    headers = member_of(loop, "billing")
    step = client.get(PATH, params={"since": "2026-01-01T00:00:00Z"}, headers=headers).json()["steps"][0]
    assert step["attempts"]["outcomes"] == {"LOST": 1}
    assert step["runs"] == {}
    assert (step["sampled"]["registeredJobs"], step["sampled"]["runningShards"]) == (1.0, 2.5)
    assert step["sampled"]["used"]["memoryMB"] == 0
    assert step["sampled"]["cluster"] is None
    assert client.get(PATH, params={"team": "default"}, headers=headers).status_code == 403


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"by": "week"}, "by"),
        ({"by": "minute", "since": "2025-12-01T00:00:00Z"}, "since"),
        ({"by": "day", "since": "2000-01-01T00:00:00Z"}, "since"),
        ({"zone": "Mars/Olympus"}, "zone"),
        ({"zone": "Z" * 101}, "zone"),
        ({"job": "a", "team": "b"}, ""),
        ({"since": "yesterday"}, "since"),
        ({"limit": "5"}, "limit"),
    ],
)
def test_wrong_parameters_are_refused(client: httpx.Client, params: dict[str, str], field: str) -> None:
    answer = client.get(PATH, params=params)
    assert answer.status_code == 422
    assert field in issues(answer)


def test_without_a_history_the_answer_says_so(tmp_path: Path) -> None:
    answer = client_of(make_api(tmp_path)).get(PATH)
    assert answer.status_code == 503
    assert "keeps no history" in answer.json()["detail"]
