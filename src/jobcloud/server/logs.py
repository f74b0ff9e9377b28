"""Logs: JSON lines for machines, or text for people, on standard error; and the notices of the core among them."""

from __future__ import annotations

import logging
import sys
from dataclasses import asdict
from typing import Literal

import structlog

from jobcloud.messages import Publish, Topic

# What happens to each single task is for the run history; a log keeps what an operator would want to be told.
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


def configure(form: Literal["text", "json"], level: str) -> None:
    """Set up structlog for this process. `level` is a name of the logging module, in any case."""
    renderer: structlog.typing.Processor
    renderer = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    tracebacks = [structlog.processors.format_exc_info] if form == "json" else []
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *tracebacks,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


class LogSink:
    """A sink that writes each notice to the log, at the level of its topic."""

    def __init__(self) -> None:
        self._log = structlog.get_logger("notice")

    def publish(self, notice: object) -> None:
        if not isinstance(notice, Publish):
            return
        level = _LEVELS[notice.topic]
        if self._log.is_enabled_for(level):
            fields = {name: value for name, value in asdict(notice).items() if value not in ("", -1)}
            self._log.log(level, fields.pop("text"), **fields)
