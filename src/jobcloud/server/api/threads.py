"""Threads of the API.

Routes share few threads (`Limits.threads` of the listener), because threads that compute take the interpreter's lock
from the scheduler's thread. Work that waits for long has threads of its own, so that the shared threads stay free.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

T = TypeVar("T")


async def apart(fn: Callable[[], T]) -> T:
    """Call `fn` in a thread of its own. The caller limits the number of such threads."""
    return await to_thread.run_sync(fn, limiter=CapacityLimiter(1))
