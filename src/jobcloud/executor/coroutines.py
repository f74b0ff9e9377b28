"""The event loop of a worker: all `async def` jobs of the app run in it, each as an asyncio task."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Awaitable, Callable, Optional, Tuple


class EventLoop:
    """The first call of `run` starts the loop. The loop ends with the process. Any thread may call `run`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: Optional[asyncio.AbstractEventLoop] = None

    def run(self, coroutine: Awaitable[Any], on_stop: Callable[[Callable[[], None]], None]) -> Any:
        """Run `coroutine` in the loop and return its result. Raises the exception of the coroutine.

        Before the coroutine begins, `on_stop` is called with a function. Any thread may call this function to cancel
        the coroutine at its current await. The coroutine sees the context variables of the caller of `run`.
        """
        error, result = asyncio.run_coroutine_threadsafe(_carry(coroutine, on_stop), self._running()).result()
        if error is not None:
            raise error
        return result

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="coroutines", daemon=True).start()
            return self._loop


async def _carry(
    coroutine: Awaitable[Any], on_stop: Callable[[Callable[[], None]], None]
) -> Tuple[Optional[BaseException], Any]:
    """Await `coroutine`. Returns (its error or None, its result or None).

    The error is not raised, because a SystemExit that leaves an asyncio task ends the loop, and with it every other
    job.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    on_stop(lambda: _cancel(loop, task))
    try:
        return None, await coroutine
    except BaseException as error:
        return error, None


def _cancel(loop: asyncio.AbstractEventLoop, task: "asyncio.Task[Any]") -> None:
    loop.call_soon_threadsafe(task.cancel)
