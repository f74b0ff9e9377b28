"""Logs: the fields of a line, and the levels of notices."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from jobcloud.messages import Publish, Topic
from jobcloud.server import logs

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
        "job": "report",
        "firing_id": "report@5",
    }


def test_notices_of_single_tasks_are_logged_at_debug_level_only(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("text", "INFO")
    logs.LogSink().publish(RUNNING)
    assert lines(capsys) == []
    logs.configure("text", "debug")
    logs.LogSink().publish(RUNNING)
    assert "item=0" in lines(capsys)[0]


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
