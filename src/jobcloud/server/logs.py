"""Logging to standard error, as JSON lines or as text. The notices of the core go to the same log."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import Literal, TextIO, cast

import msgspec
import structlog

from jobcloud.messages import Publish, Topic

# The run history records each task. The log keeps only notices that an operator needs.
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
    """Set up logging for this process. `level` is a name of the logging module, in any case."""
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor
    if form == "json":
        shared.append(structlog.processors.format_exc_info)
        renderer = structlog.processors.JSONRenderer()
    else:
        # Tracebacks that show variables would show secrets.
        plain = structlog.dev.plain_traceback
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Lossy(sys.stderr))),
        cache_logger_on_first_use=False,
    )
    # Libraries and adapters use the standard module. Their records go to the same handler.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared))
    logging.basicConfig(level=number, handlers=[handler], force=True)
    for chatty in ("httpx", "httpcore", "kazoo"):
        logging.getLogger(chatty).setLevel(max(number, logging.WARNING))


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


class LogSink:
    """A sink that logs each notice at the level of its topic. Create it after `configure`."""

    def __init__(self) -> None:
        # Computed once: each task causes three notices, and none of them is logged by default.
        self._log = structlog.get_logger("notice").bind()
        self._topics = frozenset(topic for topic, level in _LEVELS.items() if self._log.is_enabled_for(level))

    def publish(self, notice: object) -> None:
        if isinstance(notice, Publish) and notice.topic in self._topics:
            fields = {name: value for name, value in msgspec.structs.asdict(notice).items() if value not in ("", -1)}
            self._log.log(_LEVELS[notice.topic], fields.pop("text"), **fields)
