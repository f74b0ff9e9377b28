"""The examples of docs/cron.md about triggers, ends of runs, blackouts, jitter and deadline."""

from __future__ import annotations

import json
import re
import shlex
from datetime import datetime
from pathlib import Path

from tests.core_world import Desk, make_app
from typer.testing import CliRunner

from jobcloud import zones
from jobcloud.client.cli import cli
from jobcloud.messages import PutJob
from jobcloud.server.api.body import parse
from jobcloud.server.api.convert import read_job
from jobcloud.server.urls import UrlPolicy

_TEXT = (Path(__file__).parents[2] / "docs" / "cron.md").read_text().partition("## Several triggers")[2]
_AFTER = _TEXT.partition("### After the end of a run")[2]


def block(language: str, text: str = _TEXT) -> str:
    found = re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


def test_job_of_the_example_is_accepted_and_fires_as_it_says() -> None:
    job = read_job(parse(block("json").encode()), UrlPolicy())
    clock = zones.zone("Europe/Berlin")
    first = int(datetime(2026, 12, 24, tzinfo=clock).timestamp() * 1_000)
    found = [datetime.fromtimestamp(at / 1_000, clock) for at in job.times().between(first - 1, 1 << 45, 6)]
    assert [f"{at:%d %H:%M}" for at in found] == [
        "24 06:00",
        "24 14:00",
        "24 18:00",
        "28 06:00",
        "28 18:00",
        "29 06:00",
    ]
    assert (job.jitter_ms, job.start_deadline_ms) == (120_000, 3_600_000)


def test_command_of_the_example_prints_the_next_fire_times() -> None:
    ran = CliRunner().invoke(cli, [*shlex.split(block("sh"))[1:], "--json"])
    assert ran.exit_code == 0, ran.output
    answer = json.loads(ran.stdout)
    assert answer["times"][:2] == ["2026-12-24T08:00:00.000Z", "2026-12-24T18:00:00.000Z"]
    assert "once, at 2026-12-24T18:00" in answer["words"]


def test_job_of_the_example_fires_after_the_end_of_a_run_and_not_in_the_night() -> None:
    job = read_job(parse(block("json", _AFTER).encode()), UrlPolicy())
    desk = Desk(make_app("demo"))
    desk.do(PutJob(desk.at, job))
    clock = zones.zone("Europe/Berlin")

    def due() -> str:
        return f"{datetime.fromtimestamp(desk.scheduler.due['poll-inbox'] / 1_000, clock):%H:%M}"

    assert due() == "06:00"
    desk.run_until_idle(5 * 3_600_000)
    desk.offer()
    desk.at += 7 * 60_000
    (task_id,) = desk.running("poll-inbox")
    desk.status(task_id, "TASK_FINISHED")
    assert due() == "06:17"


def test_command_of_the_example_says_that_the_fire_time_is_not_known() -> None:
    ran = CliRunner().invoke(cli, shlex.split(block("sh", _AFTER))[1:])
    assert ran.exit_code == 0, ran.output
    assert "10m after the end of each run" in ran.output
    assert "known when the run before it has ended" in ran.output
    assert "never" not in ran.output
    ran = CliRunner().invoke(cli, [*shlex.split(block("sh", _AFTER))[1:], "--json"])
    assert (json.loads(ran.stdout)["afterRun"], json.loads(ran.stdout)["times"]) == (True, [])
