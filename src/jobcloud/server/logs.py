"""Logging to standard error, as JSON lines or as text. The notices of the core go to the same log.

A client, a job or a skipped firing can cause any number of lines. So the lines of each kind are limited per minute. A
line with the count of the omitted lines follows.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Literal, TextIO, cast

import msgspec
import structlog

from jobcloud.messages import Publish, Topic

# The history records each task. At the default level, the log has only notices that an operator needs.
_LEVELS = {
    Topic.FIRED: logging.INFO,
    Topic.SKIPPED: logging.WARNING,
    Topic.LAUNCHED: logging.DEBUG,
    Topic.RUNNING: logging.DEBUG,
    Topic.ENDED: logging.DEBUG,
    Topic.DONE: logging.INFO,
    Topic.REFUSED: logging.DEBUG,
    Topic.FAULT: logging.ERROR,
    Topic.CLUSTER: logging.INFO,
    Topic.CONFIG: logging.INFO,
}
assert set(_LEVELS) == set(Topic), "every topic needs a level"


_WINDOW_S = 60.0
# Kinds beyond this number share one limit. A kind is a constant text of the code, so the code has far fewer kinds.
_MAX_KINDS = 1_000
_LEFT_OUT = "log lines were left out"


def configure(
    form: Literal["text", "json"],
    level: str,
    lines_per_minute: int = 600,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Set up logging for this process. `level` is a name of the logging module, in any case.

    `lines_per_minute` limits the lines of each kind.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    limit = _Limit(lines_per_minute, clock)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor
    if form == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        shared.append(_escape)
        # Tracebacks that show variables would show secrets.
        plain = structlog.dev.plain_traceback
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    structlog.configure(
        processors=[limit.process, *shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Lossy(sys.stderr))),
        cache_logger_on_first_use=False,
    )
    # Libraries and adapters use the standard module. Their records go to the same handler.
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(limit.filter)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared))
    logging.basicConfig(level=number, handlers=[handler], force=True)
    for chatty in ("httpx", "httpcore", "kazoo"):
        logging.getLogger(chatty).setLevel(max(number, logging.WARNING))


class _Limit:
    """Lets at most `lines` of each kind pass in a window. A line with the count of those left out follows. Thread-safe.

    The kind of a notice is its topic. The kind of any other line is its text without the values.
    """

    def __init__(self, lines: int, clock: Callable[[], float]) -> None:
        self._lines, self._clock = lines, clock
        self._lock = threading.Lock()
        self._ends = clock() + _WINDOW_S
        self._counts: dict[str, int] = {}

    def process(self, logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        """A processor of structlog."""
        if not self._admit(str(event.get("topic") or event["event"])):
            raise structlog.DropEvent
        return event

    def filter(self, record: logging.LogRecord) -> bool:
        """A filter of the logging module."""
        return self._admit(str(record.msg))

    def _admit(self, kind: str) -> bool:
        if kind == _LEFT_OUT:
            return True
        over: dict[str, int] = {}
        with self._lock:
            if self._clock() >= self._ends:
                over, self._counts = self._counts, {}
                self._ends = self._clock() + _WINDOW_S
            if kind not in self._counts and len(self._counts) >= _MAX_KINDS:
                kind = "other"
            count = self._counts[kind] = self._counts.get(kind, 0) + 1
        for other, written in over.items():
            if written > self._lines:
                structlog.get_logger("log").warning(_LEFT_OUT, kind=other, lines=written - self._lines)
        return count <= self._lines


def _escape(logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Replace control characters of texts by escapes: they could forge lines, or control a terminal.

    A traceback keeps its lines. They are indented, so that none of them looks like a line of the log.
    """
    for name, value in event.items():
        if name == "exception":
            event[name] = "\n".join("  " + _printable(line) for line in str(value).splitlines())
        elif isinstance(value, str):
            event[name] = _printable(value)
    return event


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class _Lossy:
    """A stream that drops text that cannot be written: a full disk must not end the process that logs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


# Field of a notice → its name in a line of the log, if the two names differ.
_NAMES = {"firing_id": "run", "item": "shard"}
# Field of a notice → the value that means that the notice lacks the field.
_MISSING = {"item": -1, "attempt": 0, "due": 0}


class LogSink:
    """A sink that logs each notice at the level of its topic. Create it after `configure`.

    `event_id` returns the id that `GET /events` gives to the notice that is being published.
    """

    def __init__(self, event_id: Callable[[], str] = str) -> None:
        self._event_id = event_id
        # Computed once: each task causes three notices, and none of them is logged by default.
        self._log = structlog.get_logger("notice").bind()
        self._topics = frozenset(topic for topic, level in _LEVELS.items() if self._log.is_enabled_for(level))

    def publish(self, notice: object) -> None:
        if isinstance(notice, Publish) and notice.topic in self._topics:
            given = msgspec.structs.asdict(notice).items()
            fields = {_NAMES.get(name, name): value for name, value in given if value != _MISSING.get(name, "")}
            if notice.team:
                fields["team"] = notice.team
            if event_id := self._event_id():
                fields["event_id"] = event_id
            self._log.log(_LEVELS[notice.topic], fields.pop("text"), **fields)
