"""Alerts, channels and silences in the API."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from httpx import Client
from tests.alert_kit import make_channel
from tests.api_kit import ARTIFACTS, FakeLoop, client_of, issues, job_body, make_api
from tests.core_world import make_app

from jobcloud.errors import NotFound
from jobcloud.messages import AgentLost, AlertDue, PutApp, ReportDelivery, ReportProblem
from jobcloud.model import Condition
from jobcloud.scheduler import Policy, Scheduler, Stored
from jobcloud.server.alerts.channels import Channel

OPS = make_channel("ops", "slack", url="https://hooks.example.org/s3cret", conditions=["agent_lost"])


class Channels:
    """Channels of which one takes nothing."""

    channels: tuple[Channel, ...] = (OPS, make_channel("web", owners=["ali*"]))

    def test(self, name: str) -> str:
        if name == "absent":
            raise NotFound("there is no channel absent", field="channel")
        return "" if name == "ops" else "it answered 503: "


@pytest.fixture
def loop() -> FakeLoop:
    loop = FakeLoop()
    policy = replace(Policy(ARTIFACTS), alert_channels=tuple(each.filter for each in Channels.channels))
    loop.scheduler = Scheduler(policy, Stored(), epoch=1, at=loop.now)
    loop.subscribe()
    return loop


@pytest.fixture
def api(loop: FakeLoop, tmp_path: Path) -> Client:
    return client_of(make_api(tmp_path, loop, alert_channels=Channels()))


def alerts(api: Client, **filters: str) -> list[dict[str, Any]]:
    answer = api.get("alerts", params=filters)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


def test_alerts_are_listed_with_their_state(api: Client, loop: FakeLoop) -> None:
    assert alerts(api) == []
    loop.feed(AgentLost(loop.now, "a1"))
    loop.now += 1_000
    loop.feed(ReportProblem(loop.now, Condition.CLOCK, "it is ahead by 1 h"))
    loop.feed(ReportProblem(loop.now, Condition.CLOCK, ""))
    loop.feed(ReportProblem(loop.now, Condition.STORE, "3 records cannot be read"))
    assert [alert["condition"] for alert in alerts(api)] == ["store", "agent_lost"]
    assert alerts(api)[1] == {
        "condition": "agent_lost", "subject": "a1", "team": "", "owner": "", "state": "open", "silenced": False,
        "openedAt": "2023-11-14T22:13:20.000Z", "lastAt": "2023-11-14T22:13:20.000Z", "closedAt": None, "count": 1,
        "runId": "", "text": "agent a1 is unreachable or gone; 0 tasks were on it", "channels": ["ops"],
        "untold": ["ops"], "code": "agent_lost", "parameters": {"agent": "a1", "tasks": 0},
    }  # fmt: skip
    assert (alerts(api)[0]["code"], alerts(api)[0]["parameters"]) == ("", {}), "the text has no words"
    assert [alert["condition"] for alert in alerts(api, condition="agent_lost")] == ["agent_lost"]
    assert alerts(api, team="billing") == alerts(api, owner="alice") == []
    assert api.get("alerts?condition=fire").status_code == 422


def test_success_that_is_expected_is_told_with_its_time(api: Client, loop: FakeLoop) -> None:
    loop.feed(PutApp(loop.now, make_app("demo")))
    body = job_body(expectedBy="22:30", timeZone="Europe/Berlin")
    assert api.post("jobs", json=body | {"expectedBy": "6am"}).json()["errors"][0]["field"] == "expectedBy"
    assert api.post("jobs", json=body).json()["config"]["expectedBy"] == "22:30"
    loop.tick()
    loop.tick(24 * 3_600_000)
    (alert,) = alerts(api, condition="expected")
    assert (alert["subject"], alert["code"]) == ("hello", "expected")
    assert alert["parameters"] == {"due": "2023-11-15T21:30:00Z"}


def test_channel_is_shown_without_its_secrets(api: Client, loop: FakeLoop) -> None:
    loop.feed(AgentLost(loop.now, "a1"))
    loop.now += 5_000
    loop.tick()
    (due,) = [effect for effect in loop.effects if isinstance(effect, AlertDue)]
    loop.feed(ReportDelivery(loop.now, due.id, "it answered 503"))
    answer = api.get("alerts")
    assert "s3cret" not in answer.text
    assert answer.json()["channels"] == [
        {"name": "ops", "kind": "slack", "conditions": ["agent_lost"], "teams": [], "owners": [], "attempts": 1,
         "nextAttempt": "2023-11-14T22:13:35.000Z", "problem": "it answered 503"},
        {"name": "web", "kind": "webhook", "conditions": [], "teams": [], "owners": ["ali*"], "attempts": 0,
         "nextAttempt": None, "problem": ""},
    ]  # fmt: skip


def test_silence_is_created_listed_and_removed(api: Client, loop: FakeLoop) -> None:
    loop.feed(AgentLost(loop.now, "a1"))
    body = {"forSeconds": 60, "condition": "agent_lost", "subject": "a*", "comment": "it moves"}
    answer = api.post("silences", json=body)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert made == {
        "id": made["id"], "since": "2023-11-14T22:13:20.000Z", "until": "2023-11-14T22:14:20.000Z",
        "condition": "agent_lost", "subject": "a*", "team": "", "owner": "", "comment": "it moves",
    }  # fmt: skip
    assert api.get("silences").json() == {"items": [made], "nextCursor": ""}
    assert alerts(api)[0]["silenced"] is True
    assert api.delete(f"silences/{made['id']}").status_code == 204
    assert api.get("silences").json()["items"] == []
    assert alerts(api)[0]["silenced"] is False
    assert issues(api.delete(f"silences/{made['id']}"), "not-found")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "forSeconds"),
        ({"forSeconds": 0}, "forSeconds"),
        ({"forSeconds": 30 * 86_400 + 1}, "forSeconds"),
        ({"forSeconds": "1h"}, "forSeconds"),
        ({"forSeconds": 60, "condition": "fire"}, "condition"),
        ({"forSeconds": 60, "team": "No Team"}, "team"),
        ({"forSeconds": 60, "subject": "a\n"}, "subject"),
        ({"forSeconds": 60, "comment": "x" * 301}, "comment"),
        ({"forSeconds": 60, "until": "tomorrow"}, "until"),
    ],
)
def test_wrong_silence_is_refused(api: Client, loop: FakeLoop, body: dict[str, Any], field: str) -> None:
    assert field in issues(api.post("silences", json=body))
    assert not loop.scheduler.silences


def test_channel_is_tested(api: Client) -> None:
    assert api.post("alerts/channels/ops/test").json() == {"channel": "ops", "problem": ""}
    assert api.post("alerts/channels/web/test").json() == {"channel": "web", "problem": "it answered 503: "}
    assert issues(api.post("alerts/channels/absent/test"), "not-found")


def test_scheduler_without_channels_says_so(tmp_path: Path) -> None:
    api = client_of(make_api(tmp_path))
    assert api.get("alerts").json() == {"items": [], "channels": [], "nextCursor": ""}
    for answer in (api.post("alerts/channels/ops/test"), api.post("silences", json={"forSeconds": 60})):
        assert answer.status_code in (404, 409)
        assert "alerts.channels_file" in answer.text
