"""Threads of the API.

Routes share few threads (`Limits.threads` of the listener), because threads that compute take the interpreter's lock
from the scheduler's thread. Work that waits for long has threads of its own, so that the shared threads stay free.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

from jobcloud.errors import Unavailable
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import TRY_SOON

T = TypeVar("T")


async def apart(fn: Callable[[], T]) -> T:
    """Call `fn` in a thread of its own. The caller limits the number of such threads."""
    return await to_thread.run_sync(fn, limiter=CapacityLimiter(1))


class Questions:
    """Threads for questions to a server that may be slow or away: a few at once, while some others wait a little.

    Used by one event loop. `of` names the database, or another part that answers slowly.
    """

    def __init__(
        self, at_once: int = 4, waiting: int = 32, patience_s: float = 5.0, *, of: str = "the history"
    ) -> None:
        self._turns = asyncio.Semaphore(at_once)
        self._free = at_once + waiting
        self._patience_s = patience_s
        self._of = of

    async def ask(self, fn: Callable[[], T]) -> T:
        """Call `fn` in a thread of its own. Raises Unavailable if there is no thread for it in time."""
        if not self._free:
            raise self._busy()
        self._free -= 1
        try:
            try:
                async with asyncio.timeout(self._patience_s):
                    await self._turns.acquire()
            except TimeoutError:
                raise self._busy() from None
            try:
                return await apart(fn)
            finally:
                self._turns.release()
        finally:
            self._free += 1

    def _busy(self) -> Unavailable:
        return Unavailable(Told(f"{self._of} answers too many other questions", "too_busy"), fix=TRY_SOON)
