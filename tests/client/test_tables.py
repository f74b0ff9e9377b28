"""Lists for people: at most 80 columns for usual names, filters of empty lists, and lists that are watched."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.client.test_apply import Shell

from jobcloud.client import render
from jobcloud.client.http import Client, NotReachable
from jobcloud.client.http import _Event as Event


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    found = Shell(tmp_path, monkeypatch, capsys)
    assert found("app", "add", found.app())[0] == 0
    found.loop.tick(6_000)
    found.loop.offer()
    first, second = found.loop.tick()
    found.loop.update(first, "TASK_RUNNING")
    found.loop.update(second, "TASK_FAILED", "no space left\non the device")
    return found


def columns(shell: Shell, monkeypatch: pytest.MonkeyPatch, *command: str) -> list[str]:
    """The rows of a table on a terminal of 80 columns."""
    with monkeypatch.context() as narrow:
        narrow.setattr(render, "_WIDE", 80)
        code, out, _ = shell(*command)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80, out
    return out.splitlines()[1:]


def test_long_names_fit_into_80_columns_and_can_be_copied(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of 63 characters in teams of 30."""
    team, ends = "a" * 30, ("-of-berlin", "-of-paris")
    config = json.loads(shell("app", "show", "demo", "--json")[1])["config"]
    shell.client.create_app(config | {"team": team, "appName": "b" * 63})
    job = json.loads(shell("job", "show", "hello", "--json")[1])["config"]
    shell("job", "remove", "hello")
    keys = []
    for end in ends:
        name = "nightly-report-".ljust(63 - len(end), "x") + end
        shell.client.create_job(job | {"team": team, "appName": "b" * 63, "jobName": name})
        keys.append(f"{team}:{name}")
    shell.loop.tick(6_000)
    shell.loop.offer("agent-with-a-long-name-1")
    for task in shell.loop.tick():
        shell.loop.update(task, "TASK_FAILED", "no space left on the device")

    rows = columns(shell, monkeypatch, "job", "list")
    shown = sorted(row.split()[0] for row in rows)
    assert [json.loads(shell("job", "show", name, "--json")[1])["jobName"] for name in shown] == keys
    assert len(columns(shell, monkeypatch, "--team", team, "runs")) == 2
    for row in columns(shell, monkeypatch, "--team", team, "runs"):
        code, out, _ = shell("run", "show", row.split()[0], "--json")
        assert (code, json.loads(out)["jobName"] in keys) == (0, True), row
    tasks = columns(shell, monkeypatch, "--team", team, "tasks")
    assert (len(tasks), "FAILED" in tasks[0]) == (4, True)
    for row in tasks:
        code, out, _ = shell("tasks", "--job", row.split()[0].partition("/")[0])
        assert (code, out.count("\n")) == (0, 3), row
        assert shell("logs", row.split()[0])[0] != 2
    assert len(columns(shell, monkeypatch, "--team", team, "executors")) == 1
    code, _, err = shell("job", "show", "a…x-of-")
    assert (code, "there is no job" in err) == (4, True)
    code, _, err = shell("explain", "aaa…s")
    assert code == 0
    code, _, err = shell("explain", "aaa…")
    assert (code, [key in err for key in keys]) == (2, [True, True]), "an ambiguous name lists what it may mean"


def test_runs_are_named_by_their_beginning_or_their_end(shell: Shell) -> None:
    shell("job", "trigger", "hello")
    first, second = sorted(run["id"] for run in shell.client.runs())
    assert json.loads(shell("run", "show", first.partition("@")[0], "--json")[1])["id"] == first
    assert json.loads(shell("run", "show", second.partition(".")[2], "--json")[1])["id"] == second
    code, _, err = shell("run", "cancel", "hello.")
    assert (code, first in err, second in err) == (2, True, True)
    assert shell("retry", "absent")[0] == 4


@pytest.mark.parametrize("command", [("tasks",), ("runs",), ("job", "list")])
def test_lists_take_80_columns_and_wide_ones_have_all(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    with monkeypatch.context() as narrow:
        narrow.setattr(render, "_WIDE", 80)
        code, out, _ = shell(*command)
    assert (code, len(out.splitlines())) == (0, 3 if command == ("tasks",) else 2)
    assert max(map(len, out.splitlines())) <= 80, out
    assert len(shell(*command, "--wide")[1].splitlines()[0]) > 80


def test_names_in_lists_are_those_that_commands_take(shell: Shell) -> None:
    name = shell("tasks", "--state", "ended")[1].splitlines()[1].split()[0]
    assert (name, shell("kill", name)[0]) == ("hello/1", 4)
    assert "no space left" in shell("tasks")[1]
    run = shell("runs")[1].splitlines()[1].split()[0]
    assert shell("retry", run)[0] == 0


def test_empty_list_names_its_filters(shell: Shell) -> None:
    assert shell("tasks", "--job", "hello", "--state", "KILLING")[1] == "no task matches --job hello --state KILLING\n"
    assert shell("runs", "hello", "--state", "dead")[1] == "no run matches JOB hello --state dead\n"
    assert shell("--team", "money", "job", "list")[1] == "no job matches --team money\n"
    shell("app", "remove", "demo", "--jobs")
    assert "no jobs yet" in shell("job", "list")[1]


def test_watched_list_is_shown_again_until_interrupted(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(render, "pause", pause)
    code, out, _ = shell("tasks", "--watch")
    assert (code, out.count("hello/0"), len(pauses)) == (0, 2, 2)
    pauses.clear()
    code, out, _ = shell("tasks", "--watch", "--json")
    documents = [json.loads(line) for line in out.splitlines()]
    assert (code, [len(document) for document in documents]) == (0, [2, 2]), "one document a line"


def test_executors_are_listed(shell: Shell) -> None:
    (line,) = shell("executors")[1].splitlines()[1:]
    assert line.split()[:2] == ["demo", "agent-1"]
    assert line.rstrip().endswith("current")
    assert "EXECUTOR" in shell("executors", "--wide")[1]
    assert shell("--team", "money", "executors")[1] == "no executor matches --team money\n"


def test_earlier_notices_are_listed_and_new_ones_follow(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    for effect in shell.loop.effects:
        shell.notices.publish(effect)
    lines = shell("events", "--job", "hello")[1].splitlines()
    assert any("ended" in line and "FAILED" in line and "no space left on the device" in line for line in lines), lines
    assert shell("events", "--job", "hello", "--limit", "0")[1] == "no notice matches --job hello\n"
    assert [json.loads(line)["topic"] for line in shell("events", "--topic", "config", "--json")[1].splitlines()]

    answers: list[Any] = [
        [Event("x", "a-1", {"n": 1}), Event("x", "a-4", {"n": 4})],
        NotReachable("http://127.0.0.1", "connection refused"),
        [Event("x", "b-1", {"n": 5})],
    ]

    def events(self: Client, path: str, query: dict[str, Any], last: str = "") -> Iterator[Event]:
        asked.append(last)
        if not answers:
            raise KeyboardInterrupt
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return iter(answer)

    asked: list[str] = []
    monkeypatch.setattr(Client, "_events", events)
    monkeypatch.setattr("jobcloud.client.http.time.sleep", lambda seconds: None)
    found: list[Any] = []
    with pytest.raises(KeyboardInterrupt):
        found.extend(shell.client.recent_events(5, follow=True))
    assert found == [(0, {"n": 1}), (2, {"n": 4}), (0, {"n": 5})]
    assert asked == ["", "a-4", "a-4", "b-1"]


def test_last_column_is_cut_to_the_width_of_the_terminal() -> None:
    rows = render.fitted(["A", "TEXT"], [["a", "x" * 40], ["bbb", "one\ntwo"]], 20)
    assert rows == [["a", "x" * 14 + "…"], ["bbb", "one two"]]
    name = "nightly-report.20260101T000000Z"
    assert render.fitted(["A", "TEXT"], [[name + "@c", "y" * 30]], 43) == [[name, "y" * 9 + "…"]]
    assert render.fitted(["A", "TEXT"], [[name, "y" * 30]], 20) == [["nightl….20260101T000000Z", "y" * 9 + "…"]]
    row = ["report.20260101T000000Z", "RUNNING", "agent-with-a-long-name", "text"]
    assert render.fitted(["A", "B", "C", "D"], [row], 50) == [[*row[:2], "agent-wit…", "text"]]


def test_durations_and_instants_are_short() -> None:
    now = datetime.now(UTC)
    before = now - timedelta(days=40)
    assert render.took(before.isoformat(), (before + timedelta(seconds=90)).isoformat()) == "1m30s"
    assert render.took(None, None) == render.short_moment(None) == "-"
    assert len(render.short_moment(before.isoformat())) == 11
    assert len(render.short_moment(now.isoformat())) == 8


def test_cluster_shows_capacity_use_and_free_of_each_agent(shell: Shell) -> None:
    shell.loop.offer(cpus=7_400, mem=7_904_000)
    line = next(line for line in shell("cluster")[1].splitlines() if "agent-1.test" in line)
    assert "8 / 0.6 / 7.4" in line


def test_message_of_several_lines_takes_one_row_without_a_terminal(
    shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    message = "no space left on the device"
    assert message in shell("tasks", "--wide")[1]
    attempt = {"jobName": "report", "step": "", "item": 0, "outcome": "FAILED", "attempt": 1, "hostname": "h1"}
    attempt |= {"queuedSeconds": 1, "durationSeconds": 2, "endedAt": None, "runId": "r", "cause": ""}
    event = {"at": None, "state": "FAILED", "source": "EXECUTOR", "execution": "READY"}
    alert = {"condition": "late", "subject": "report", "team": "default", "owner": "", "state": "open", "count": 1}
    alert |= {
        "silenced": False,
        "openedAt": None,
        "closedAt": None,
        "untold": [],
        "text": message.replace(" on", "\non"),
    }
    render.past_attempts([attempt | {"message": message.replace(" on", "\non")}])
    render.past_events([event | {"message": message.replace(" on", "\non")}])
    render.alerts({"items": [alert], "channels": [{"name": "ops", "kind": "slack", "problem": ""}]}, wide=True)
    assert capsys.readouterr().out.count(message) == 3


def test_jobs_are_searched_and_sorted(shell: Shell) -> None:
    job = json.loads(shell("job", "show", "hello", "--json")[1])["config"]
    for name, labels in (("a", "owner=ann,tier=gold"), ("b", "owner=bob,tier=gold")):
        shell.client.create_job(job | {"jobName": name, "labels": labels, "cron": "0 0 0 1 1 ? 2099"})

    def found(*options: str) -> list[str]:
        return [one["jobName"] for one in json.loads(shell("job", "list", "--json", *options)[1])]

    assert found("--label", "tier=gold") == ["a", "b"]
    assert found("--label", "tier=gold", "--label", "owner=bob") == found("--owner", "bob") == ["b"]
    assert found("--search", "HELL") == found("--state", "running") == ["hello"]
    assert found("--sort=-name") == ["hello", "b", "a"]
    assert "--owner eve" in shell("job", "list", "--owner", "eve")[1]
    code, _, err = shell("job", "list", "--state", "odd")
    assert (code, "state" in err) == (1, True)


def test_queue_fits_into_80_columns(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no shard waits" in shell("queue")[1]
    job = json.loads(shell("job", "show", "hello", "--json")[1])["config"]
    for number in range(3):
        name = f"{'x' * 60}{number}"
        shell.client.create_job(job | {"jobName": name, "cpuCount": 100})
        shell.client.trigger(name)
    shell.loop.offer()
    shell.loop.tick()
    rows = columns(shell, monkeypatch, "queue")
    assert [row.split()[1:3] for row in rows] == [["2", "2"]] * 3
    assert len(json.loads(shell("queue", "--json", "--limit", "2")[1])) == 2


def test_fire_time_is_told_on_the_clock_of_the_job_too(monkeypatch: pytest.MonkeyPatch) -> None:
    at = "2023-11-14T23:30:00.000Z"
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert render.firing(at, "Asia/Tokyo").endswith(", 2023-11-15 08:30:00 in Asia/Tokyo")
    assert render.firing(at, "Etc/UTC") == render.moment(at)
    assert render.firing(at, "Mars/Base").endswith(", time zone Mars/Base")
    assert render.firing(None, "UTC") == "-"
    monkeypatch.undo()
    time.tzset()
