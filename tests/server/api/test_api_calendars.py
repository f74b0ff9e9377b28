"""Calendars in the API, and the example of docs/cron.md."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from httpx import Client
from tests.api_kit import FakeLoop, app_body, client_of, issues, job_body, make_api, package_bytes
from tests.client.test_accounts import in_json, out, shell
from tests.client.test_apply import Shell

from jobcloud.messages import PutCalendar
from jobcloud.model import Calendar
from jobcloud.triggers import parse_days

__all__ = ["shell"]
_TEXT = (Path(__file__).parents[3] / "docs" / "cron.md").read_text().partition("## Calendars")[2]
DAY_MS = 86_400_000


def put(api: Client, name: str = "closed", **config: Any) -> dict[str, Any]:
    answer = api.put(f"calendars/{name}", json=config or {"days": ["2023-11-16", "2023-11-18/2023-11-19"]})
    assert answer.is_success, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_calendar_is_made_shown_listed_and_removed(api: Client) -> None:
    config = {"days": ["2023-11-18/2023-11-19", "2023-11-16"], "description": "closed"}
    answer = api.put("calendars/closed", json=config)
    assert answer.status_code == 201
    made = answer.json()
    assert made == api.get("calendars/closed").json()
    assert (made["calendar"], made["team"], made["dayCount"], made["jobCount"]) == ("closed", "default", 3, 0)
    assert made["days"] == ["2023-11-16", "2023-11-18/2023-11-19"]
    assert made["knownUntil"] == "2099-12-31"
    assert made["source"]["days"] == config["days"]
    (item,) = api.get("calendars").json()["items"]
    assert item == {name: value for name, value in made.items() if name not in ("days", "source", "jobs")}
    assert api.put("calendars/closed", json=config).status_code == 200
    assert api.delete("calendars/closed").status_code == 204
    assert issues(api.get("calendars/closed"), "not-found")
    assert issues(api.delete("calendars/closed"), "not-found")


def test_job_with_a_calendar_shows_its_next_firing(api: Client, loop: FakeLoop, demo: str) -> None:
    put(api)
    assert "skipOn" in issues(api.post("jobs", json=job_body(cron="0 0 8 * * ?", skipOn=["none"])))
    made = api.post("jobs", json=job_body(cron="0 0 8 * * ?", skipOn=["closed"])).json()
    assert made["nextFiring"] == "2023-11-15T08:00:00.000Z"
    put(api, days=["2023-11-15/2023-11-20"])
    loop.tick()
    assert api.get("jobs/hello").json()["nextFiring"] == "2023-11-21T08:00:00.000Z"
    shown = api.get("calendars/closed").json()
    assert (shown["jobs"], shown["jobCount"]) == (["hello"], 1)
    assert "in use by job hello" in str(issues(api.delete("calendars/closed"), "conflict"))


def test_next_times_know_the_calendars(api: Client) -> None:
    put(api)
    query: dict[str, Any] = {"cron": "0 0 8 * * ?", "count": 3, "after": 1_700_000_000_000}
    found = api.get("cron/next", params={**query, "skipOn": "closed"}).json()
    assert found["times"] == ["2023-11-15T08:00:00.000Z", "2023-11-17T08:00:00.000Z", "2023-11-20T08:00:00.000Z"]
    assert found["words"].endswith("; not on days of closed")
    only = api.get("cron/next", params={**query, "onlyOn": "closed", "language": "zh"}).json()
    assert only["times"] == ["2023-11-16T08:00:00.000Z", "2023-11-18T08:00:00.000Z", "2023-11-19T08:00:00.000Z"]
    assert "仅在日历 closed 的日期" in only["words"]
    assert "skipOn" in issues(api.get("cron/next", params={**query, "skipOn": "none"}))


def test_next_times_move_to_open_days(api: Client, loop: FakeLoop, demo: str) -> None:
    put(api)
    query: dict[str, Any] = {"cron": "0 0 8 18 11 ?", "count": 1, "after": 1_700_000_000_000, "skipOn": "closed"}
    for where, day, words in (("next", "20", "to the next open day"), ("previous", "17", "to the open day before")):
        found = api.get("cron/next", params={**query, "onExcludedDay": where}).json()
        assert found["times"] == [f"2023-11-{day}T08:00:00.000Z"]
        assert found["words"].endswith(words)
        name = f"job-{where}"
        config = job_body(name, cron=query["cron"], skipOn=["closed"], onExcludedDay=where)
        assert api.post("jobs", json=config).json()["nextFiring"] == f"2023-11-{day}T08:00:00.000Z"


def test_backfill_knows_the_calendars(api: Client, loop: FakeLoop, demo: str) -> None:
    put(api)
    api.post("jobs", json=job_body(cron="0 0 8 * * ?", skipOn=["closed"]))
    loop.tick(7 * DAY_MS)
    config = {"from": "2023-11-10T00:00:00Z", "dryRun": True}
    days = [at[8:10] for at in api.post("jobs/hello/backfill", json=config).json()["times"]]
    assert days == ["10", "11", "12", "13", "14", "15", "17", "20", "21"]


def test_change_is_made_only_of_the_expected_revision(api: Client) -> None:
    made = put(api)
    changed = put(api, days=["2023-11-16"])
    body = {"days": ["2023-11-17"]}
    late = api.put("calendars/closed", json=body, headers={"If-Match": f'"{made["revision"]}"'})
    assert late.status_code == 412
    assert api.put("calendars/closed", json=body, headers={"If-Match": f'"{changed["revision"]}"'}).status_code == 200
    assert api.put("calendars/new", json=body, headers={"If-Match": '"0"'}).status_code == 412


@pytest.mark.parametrize(
    ("config", "field"),
    [({}, "days"), ({"days": ["x"]}, "days"), ({"country": "Germany"}, "country"), ({"weekend": True}, "weekend"),
     ({"days": ["2026-12-24"] * 1_001}, "days"), ({"ical": "x" * (1 << 19 | 1)}, "ical"),
     ({"days": ["2026-12-24"], "untilYear": 2090}, "untilYear"), ({"ical": "x"}, "ical")],
)  # fmt: skip
def test_wrong_calendar_is_refused(api: Client, config: dict[str, Any], field: str) -> None:
    assert any(name.startswith(field) for name in issues(api.put("calendars/closed", json=config)))
    assert api.get("calendars").json()["items"] == []


def test_wrong_name_is_refused(api: Client) -> None:
    assert issues(api.put("calendars/a%20b", json={"days": ["2026-12-24"]}))


def examples(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", _TEXT.partition("\n## ")[0], re.DOTALL)


def test_example_of_the_api_makes_a_job_that_fires_on_working_days(loop: FakeLoop, tmp_path: Path) -> None:
    calendar, job = map(json.loads, examples("json"))
    api = client_of(make_api(tmp_path, loop, clock=lambda: 1_796_083_200_000))  # December 2026
    sha256 = api.post("packages", content=package_bytes()).json()["sha256"]
    assert api.post("apps", json=app_body(sha256)).status_code == 201
    assert api.put("calendars/closed", json=calendar).status_code == 201
    assert api.post("jobs", json=job).status_code == 201
    query = {"cron": job["cron"], "zone": job["timeZone"], "skipOn": job["skipOn"], "after": 1_797_980_400_000}
    times = api.get("cron/next", params={**query, "count": 6}).json()["times"]
    assert [at[5:10] for at in times] == ["12-23", "12-28", "12-29", "12-30", "01-04", "01-05"]


def test_example_of_the_command_line_makes_a_calendar(shell: Shell) -> None:
    line, *_ = examples("sh")
    made = in_json(shell, *shlex.split(line)[1:])
    assert made["source"]["country"] == "DE"
    assert out(shell, "calendar", "list").splitlines()[1].split()[0] == "closed"
    assert "made from" in out(shell, "calendar", "show", "closed")
    assert in_json(shell, "calendar", "rm", "closed") == {"calendar": "closed", "removed": True}
    assert shell("calendar", "show", "closed")[0] == 4


def test_command_reads_an_icalendar_file(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "closed.ics"
    file.write_bytes(
        b"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:x\r\nBEGIN:VEVENT\r\nUID:u\r\nDTSTAMP:20230101T000000Z\r\n"
        b"DTSTART;VALUE=DATE:20231224\r\nRRULE:FREQ=YEARLY\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
    )
    made = in_json(shell, "calendar", "put", "closed", "--ical", str(file))
    assert {day[4:] for day in made["days"]} == {"-12-24"}
    assert made["dayCount"] == 7
    assert len(made["source"]["icalSha256"]) == 64
    assert shell("calendar", "put", "closed", "--ical", str(tmp_path / "none.ics"))[0] == 2
    file.write_bytes(b"x" * (600 << 10))
    assert "at most 512 KiB" in shell("calendar", "put", "closed", "--ical", str(file))[2]


def test_calendar_that_was_changed_after_the_check_of_its_revision_stays(api: Client, loop: FakeLoop) -> None:
    tag, command = f'"{put(api)["revision"]}"', loop.command
    others = parse_days(["2023-11-30"])

    def late(make: Any, *more: Any) -> Any:
        loop.feed(PutCalendar(loop.now, Calendar("closed", others.texts(), "2099-12-31"), others))
        return command(make, *more)

    loop.command = late  # type: ignore[assignment, method-assign]
    answer = api.put("calendars/closed", json={"days": ["2023-11-17"]}, headers={"If-Match": tag})
    assert answer.status_code == 412
    assert api.get("calendars/closed").json()["days"] == ["2023-11-30"]


@pytest.mark.parametrize("text", ["a\x00b", "a\nb", "\x1b[31m", "\u202eabc"])
def test_description_with_a_control_character_is_refused(api: Client, text: str) -> None:
    answer = api.put("calendars/closed", json={"days": ["2026-12-24"], "description": text})
    assert "cannot be printed" in issues(answer)["description"]
    assert api.get("calendars").json()["items"] == []
