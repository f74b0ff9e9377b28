"""`jobcloud next` with calendars: from files, from the server, and of a registered job."""

from __future__ import annotations

import json
import re
import shlex
from calendar import monthrange
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tests.api_kit import job_body
from tests.client.test_accounts import in_json, shell
from tests.client.test_apply import Shell

from jobcloud.client import cli
from jobcloud.client.http import Client, NotReachable

__all__ = ["shell"]
_DOC = (Path(__file__).parents[2] / "docs" / "cron.md").read_text()
WEEKENDS = (
    "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:x\r\nBEGIN:VEVENT\r\nUID:u\r\nDTSTAMP:20200101T000000Z\r\n"
    "DTSTART;VALUE=DATE:20200104\r\nRRULE:FREQ=WEEKLY;BYDAY=SA,SU\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
)


@pytest.fixture
def ical(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "closed.ics"
    path.write_text(WEEKENDS)
    return path


def days_of(found: dict[str, Any]) -> list[date]:
    return [date.fromisoformat(at[:10]) for at in found["times"]]


def register(shell: Shell, **config: Any) -> None:
    app = {"appName": "demo", "cpuCount": 0.1, "memoryMB": 64}
    job = {name: value for name, value in job_body(**config).items() if name != "appName"}
    folder = shell.app(text=json.dumps({"app": app, "jobs": [job]}), manifest="jobcloud.json")
    assert shell("app", "add", folder)[0] == 0


def last_workday(day: date) -> date:
    last = date(day.year, day.month, monthrange(day.year, day.month)[1])
    return last.replace(day=last.day - max(0, last.weekday() - 4))


def test_example_of_the_documentation_follows_a_calendar_file(shell: Shell, ical: Path) -> None:
    section = _DOC.partition("### The next fire times")[2].partition("\n## ")[0]
    block = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert block
    offline, online = block[1].splitlines()
    days = days_of(in_json(shell, *shlex.split(offline)[1:], "--count", "24"))
    assert len(days) == 24
    assert days == [last_workday(day) for day in days]
    in_json(shell, "calendar", "put", "closed", "--day", "2020-01-01")
    register(shell, jobName="settle", cron="0 0 8 * * ?", skipOn=["closed"])
    assert len(days_of(in_json(shell, *shlex.split(online)[1:]))) == 5


def test_calendars_of_the_server_count_for_names_without_a_file(shell: Shell, ical: Path) -> None:
    in_json(shell, "calendar", "put", "rare", "--day", "2098-01-03/2098-01-06")
    asked = ("next", "0 0 8 * * ?", "--only-on", "rare")
    assert days_of(in_json(shell, *asked)) == [date(2098, 1, day) for day in (3, 4, 5, 6)]
    # The holidays of the file are taken out of the days of the server.
    both = in_json(shell, *asked, "--skip-on", "closed", "--calendar", f"closed={ical}")
    assert {"rare", "closed"} <= set(re.findall(r"\w+", both["words"]))
    assert shell("next", "0 0 8 * * ?", "--skip-on", "none")[0] == 4


def test_registered_job_is_shown_with_its_calendars_and_zone(shell: Shell) -> None:
    in_json(shell, "calendar", "put", "rare", "--day", "2098-01-04")
    register(shell, jobName="settle", cron="0 0 8 * * ?", timeZone="Asia/Tokyo", onlyOn=["rare"])
    found = in_json(shell, "next", "--job", "settle", "--count", "2")
    assert found["timeZone"] == "Asia/Tokyo"
    assert found["times"] == ["2098-01-03T23:00:00.000Z"]
    assert found["notes"] == []
    in_json(shell, "job", "disable", "settle")
    assert "job settle is disabled" in in_json(shell, "next", "--job", "settle")["notes"][0]
    assert "has a schedule of its own" in shell("next", "0 0 8 * * ?", "--job", "settle")[2]


def test_days_that_are_not_known_are_told(shell: Shell, ical: Path) -> None:
    ical.write_text(WEEKENDS.replace("BYDAY=SA,SU", "BYDAY=SA;UNTIL=20301231"))
    asked = ("next", "0 0 8 1 1 ?", "--skip-on", "closed", "--calendar", f"closed={ical}", "--count", "30")
    text = "".join(shell(*asked)[1:])
    assert re.search(r"calendar closed is known until 20\d\d-12-31 only: later days count as not in it\n", text)


def test_calendar_that_cannot_be_asked_for_is_named(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def calendar(client: Client, key: str) -> None:
        raise NotReachable("http://127.0.0.1", "refused")

    monkeypatch.setattr(Client, "calendar", calendar)
    code, _, err = shell("next", "0 0 8 * * ?", "--skip-on", "closed")
    assert code != 0
    assert "the days of calendar closed are not known here" in " ".join(err.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--calendar", "closed"], "names no calendar and file"),
        (["--calendar", "closed=closed.ics"], "no calendar closed is asked for"),
        (["--skip-on", "closed", "--calendar", "closed=none.ics"], "cannot be read"),
        (["--skip-on", "closed", "--calendar", "closed=wrong.ics"], "--calendar, wrong.ics"),
        (["--skip-on", "closed", *["--calendar", "closed=closed.ics"] * 2], "is given twice"),
        (["--on-excluded-day", "next"], "is for calendars"),
    ],
)
def test_wrong_options_are_reported(
    ical: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    (ical.parent / "wrong.ics").write_text("no calendar")
    with pytest.raises(SystemExit) as ended:
        cli.main(["next", "0 0 8 * * ?", *arguments])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
