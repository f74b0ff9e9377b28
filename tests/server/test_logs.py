"""Logs: the fields of a line, and the levels of notices."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from jobcloud.messages import Publish, Topic
from jobcloud.server import logs
from jobcloud.server.api import Notices

FIRED = Publish(5, Topic.FIRED, "4 shards", job="report", firing_id="report@5")
RUNNING = Publish(6, Topic.RUNNING, "runs", job="report", task_id="t", item=0)


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.configure(**before)
    root.handlers[:], root.level = handlers, level


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_notice_becomes_one_json_line_with_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info")
    logs.LogSink().publish(FIRED)
    (line,) = lines(capsys)
    entry = json.loads(line)
    assert entry.pop("timestamp").endswith("Z")
    assert entry == {
        "event": "4 shards",
        "level": "info",
        "at": 5,
        "topic": "fired",
        "team": "default",
        "job": "report",
        "run": "report@5",
    }


def test_line_about_a_task_has_team_job_run_shard_attempt_and_event_id(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "debug")
    notices = Notices()
    sink = logs.LogSink(notices.last_id)
    ended = Publish(
        7, Topic.ENDED, "exit 1", "billing:report", "run-1", "t", 0, "host", "FAILED, again", "", 2, "FAILED"
    )
    for notice in (FIRED, ended):
        notices.publish(notice)
        sink.publish(notice)
    first, second = [json.loads(line) for line in lines(capsys)]
    assert {name: second[name] for name in ("team", "job", "run", "shard", "attempt", "reason", "task_id")} == {
        "team": "billing",
        "job": "billing:report",
        "run": "run-1",
        "shard": 0,
        "attempt": 2,
        "reason": "FAILED",
        "task_id": "t",
    }
    boot, _, number = second["event_id"].partition("-")
    assert (first["event_id"], number) == (f"{boot}-1", "2")
    assert "attempt" not in first
    assert "due" not in second


def test_notices_of_single_tasks_are_logged_at_debug_level_only(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text", "INFO")
    logs.LogSink().publish(RUNNING)
    assert lines(capsys) == []
    logs.configure("text", "debug")
    logs.LogSink().publish(RUNNING)
    assert "shard=0" in lines(capsys)[0]


def test_error_in_json_is_one_line_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        structlog.get_logger().exception("failed")
    (line,) = lines(capsys)
    assert "ValueError: two\nlines" in json.loads(line)["exception"]


def test_other_values_than_notices_are_ignored(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "debug")
    logs.LogSink().publish("text")
    assert lines(capsys) == []


def test_lines_of_one_kind_are_limited_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    logs.configure("json", "info", 10, lambda: now[0])
    sink = logs.LogSink()
    for number in range(1_000):
        structlog.get_logger().warning("client refused", client=number)
        logging.getLogger("library").warning("a request failed: %s", number)
        sink.publish(Publish(5, Topic.SKIPPED, f"skipped {number}", job=f"j{number}"))
    written = [json.loads(line) for line in lines(capsys)]
    assert len(written) == 30
    assert {entry.get("client") for entry in written if entry["event"] == "client refused"} == set(range(10))
    now[0] = 60.0
    structlog.get_logger().info("next")
    *counts, last = [json.loads(line) for line in lines(capsys)]
    assert last["event"] == "next"
    assert {(entry["kind"], entry["lines"]) for entry in counts} == {
        ("client refused", 990), ("a request failed: %s", 990), ("skipped", 990),
    }  # fmt: skip


def test_kinds_of_lines_are_limited(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info", 10)
    for number in range(1_100):
        structlog.get_logger().info(f"line {number}")
    assert len(lines(capsys)) == 1_010


HOSTILE = "x\r\n2026-01-01T00:00:00Z [error    ] forged\x1b[2J\x07\x9b31m\u202e\u2028\x00"


def test_control_characters_never_reach_the_text_log(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text", "info")
    logs.LogSink().publish(Publish(5, Topic.SKIPPED, HOSTILE, job=HOSTILE))
    structlog.get_logger().warning("refused", client=HOSTILE, several=[HOSTILE])
    logging.getLogger("library").warning("failed: %s", HOSTILE)
    shown = capsys.readouterr().err
    assert len(shown.splitlines()) == 3
    assert all(char.isprintable() or char == "\n" for char in shown)
    assert "\\x1b[2J" in shown


def test_traceback_in_the_text_log_forges_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text", "info")
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        structlog.get_logger().exception("failed")
        logging.getLogger("library").exception("failed too")
    shown = capsys.readouterr().err
    assert shown.count("Traceback") == 2
    assert all(char.isprintable() or char == "\n" for char in shown)
    assert sum(not line.startswith("  ") for line in shown.splitlines() if line) == 2
