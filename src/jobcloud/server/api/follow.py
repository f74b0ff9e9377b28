"""A task's output as server-sent events, read piece by piece from its agent while it is written.

Each reader asks the scheduler's thread at most once a second whether the task is active, and only after the reader has
sent all output so far. The server keeps only the piece that is being sent.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

from jobcloud.errors import NotFound, Unavailable
from jobcloud.server.api.events import Notices
from jobcloud.server.api.ports import LogChunk
from jobcloud.server.api.problems import from_refused
from jobcloud.server.api.streams import Places, opening

T = TypeVar("T")

_MAX_READERS = 100
# Readers ask the scheduler in threads of their own, not in those of other requests.
_MAX_QUESTIONS_AT_ONCE = 10
_PING_S = 15.0


@dataclass(frozen=True, slots=True)
class Source:
    """The source of a stream of output.

    `read(offset, ended)` raises NotFound and Unavailable as LogReader does. `active()` is False after the end of the
    task; `state()` is the task's state.
    """

    read: Callable[[int, bool], Awaitable[LogChunk]]
    active: Callable[[], bool]
    state: Callable[[], str]


class Followers:
    """The readers of output. A reader that returns with the id of its last event continues after that event.

    An agent is polled every `poll_s`. If it has not answered for `patience_s`, its readers get an error.
    """

    def __init__(self, notices: Notices, *, poll_s: float = 1.0, patience_s: float = 30.0) -> None:
        self._notices, self._poll_s, self._patience_s = notices, poll_s, patience_s
        self._questions: CapacityLimiter | None = None
        self.places = Places(_MAX_READERS, "follow output")

    async def stream(self, source: Source, offset: int) -> AsyncGenerator[str]:
        """Events in text/event-stream format, until the task has ended and all its output was sent.

        `output` has `{offset, text, missed}`: `missed` bytes before `offset` no longer exist. The id of the event is
        the offset to continue from. `end` has the task's state. `error` has the problem that ends the stream.
        """
        yield opening(2_000, str(offset))
        clock = asyncio.get_running_loop().time
        heard = said = clock()
        ended = False
        while not self._notices.closed:
            try:
                chunk = await source.read(offset, ended)
                heard = clock()
            except NotFound:
                # The file is made with the first byte of output.
                chunk, heard = LogChunk(b"", offset, offset), clock()
            except Unavailable as error:
                if clock() - heard > self._patience_s:
                    yield _event("error", from_refused(error).document())
                    return
                chunk = None
            if chunk is not None:
                whole = ended and chunk.offset + len(chunk.data) >= chunk.size
                text, length = decode(chunk.data, final=whole)
                if length:
                    missed = max(0, chunk.offset - offset)
                    offset = chunk.offset + length
                    yield _event("output", {"offset": chunk.offset, "text": text, "missed": missed}, offset)
                    said = clock()
                    if offset < chunk.size:
                        continue
                elif ended:
                    yield _event("end", {"state": await self._apart(source.state)}, offset)
                    return
            if clock() - said > _PING_S:
                yield ": nothing new\n\n"
                said = clock()
            if not ended:
                # Output written before the end must still be read. If the scheduler is too busy, it is asked again.
                with contextlib.suppress(TimeoutError):
                    ended = not await self._apart(source.active)
            if not ended or chunk is None:
                await asyncio.sleep(self._poll_s)

    async def _apart(self, ask: Callable[[], T]) -> T:
        self._questions = self._questions or CapacityLimiter(_MAX_QUESTIONS_AT_ONCE)
        return await to_thread.run_sync(ask, limiter=self._questions)


def decode(data: bytes, *, final: bool = False) -> tuple[str, int]:
    """The text of the bytes, and the number of bytes used. Unless `final`, a character cut at the end is left out."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data, final)
    pending = b"" if final else decoder.getstate()[0]
    return text, len(data) - len(pending)


def _event(kind: str, content: dict[str, object], identifier: int | None = None) -> str:
    head = "" if identifier is None else f"id: {identifier}\n"
    return f"{head}event: {kind}\ndata: {json.dumps(content)}\n\n"
