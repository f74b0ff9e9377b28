"""A task's output as it is written, as server-sent events: read from its agent again and again, piece by piece.

The scheduler's thread is asked one thing a second and reader, whether the task still runs, and only while there is
nothing new. Nothing is kept here but the piece that is on its way to the reader.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread
from starlette.responses import StreamingResponse
from starlette.types import Send

from jobcloud.errors import NotFound, Unavailable
from jobcloud.server.api.events import Notices
from jobcloud.server.api.ports import LogChunk
from jobcloud.server.api.problems import Problem, from_refused

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_MOST_READERS = 100
# Reads wait for agents, which may be gone: they must not take the threads that all other requests run in.
_MOST_READS_AT_ONCE = 10
_PING_S = 15.0


@dataclass(frozen=True, slots=True)
class Source:
    """Where one stream of output comes from.

    `read(offset, ended)` raises NotFound and Unavailable as LogReader; `active()` is whether the task still runs;
    `state()` how it ended.
    """

    read: Callable[[int, bool], LogChunk]
    active: Callable[[], bool]
    state: Callable[[], str]


class Followers:
    """Those who follow output. A reader who comes back with the id of the last event goes on behind that.

    `poll_s` is how often an agent is asked for more, `patience_s` how long one may not answer before its readers are
    told so.
    """

    def __init__(self, notices: Notices, *, poll_s: float = 1.0, patience_s: float = 30.0) -> None:
        self._notices, self._poll_s, self._patience_s = notices, poll_s, patience_s
        self._open = 0
        self._reads: CapacityLimiter | None = None

    def check_room(self) -> None:
        """Raises Problem where too many follow already."""
        if self._open >= _MOST_READERS:
            raise Problem("too-many", f"{_MOST_READERS} follow output already.", headers={"Retry-After": "30"})

    async def stream(self, source: Source, offset: int) -> AsyncGenerator[str]:
        """Events in text/event-stream format, until the task has ended and all was sent.

        `output` has `{offset, text, missed}`, with how many bytes before `offset` are kept no more; its id is where to
        go on. `end` has the task's state, `error` the problem why there is no more.
        """
        self._open += 1
        try:
            yield "retry: 2000\n\n"
            async for event in self._events(source, offset):
                yield event
        finally:
            self._open -= 1

    async def _events(self, source: Source, offset: int) -> AsyncGenerator[str]:
        clock = asyncio.get_running_loop().time
        heard = said = clock()
        ended = False
        while not self._notices.closed:
            try:
                chunk = await self._apart(source.read, offset, ended)
                heard = clock()
            except NotFound:
                # Files are made with the first byte.
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
                # What was written until then is still to be read. A scheduler that is too busy is asked again.
                with contextlib.suppress(TimeoutError):
                    ended = not await self._apart(source.active)
            if not ended or chunk is None:
                await asyncio.sleep(self._poll_s)

    async def _apart(self, ask: Callable[P, T], *args: P.args, **_: P.kwargs) -> T:
        self._reads = self._reads or CapacityLimiter(_MOST_READS_AT_ONCE)
        return await to_thread.run_sync(ask, *args, limiter=self._reads)


class PatientResponse(StreamingResponse):
    """A stream that is given up where its reader takes nothing for `patience_s`; until then one piece waits for it."""

    def __init__(self, content: AsyncGenerator[str], *, patience_s: float = 30.0) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(content, media_type="text/event-stream", headers=headers)
        self._events, self._patience_s = content, patience_s

    async def stream_response(self, send: Send) -> None:
        async def send_soon(message: object) -> None:
            async with asyncio.timeout(self._patience_s):
                await send(message)  # type: ignore[arg-type]

        try:
            await super().stream_response(send_soon)
        except TimeoutError:
            log.warning("a reader of a task's output took nothing for %g s and was dropped", self._patience_s)
        finally:
            await self._events.aclose()


def decode(data: bytes, *, final: bool = False) -> tuple[str, int]:
    """As text, without a character that is cut off at the end unless it is `final`; and how many bytes that took."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data, final)
    pending = b"" if final else decoder.getstate()[0]
    return text, len(data) - len(pending)


def _event(kind: str, content: dict[str, object], identifier: int | None = None) -> str:
    head = "" if identifier is None else f"id: {identifier}\n"
    return f"{head}event: {kind}\ndata: {json.dumps(content)}\n\n"
