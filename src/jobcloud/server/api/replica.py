"""A standby's copy of the stored state, from which it answers reads.

The copy is a scheduler restored from the store, as the next leader would restore it. Nobody sends it events, so it
never changes. If a reader asks for a newer state, a new copy is made. An idle standby reads nothing from
the store.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import NamedTuple, TypeVar

import structlog

from jobcloud.errors import StoreError, Unavailable
from jobcloud.messages import Command
from jobcloud.ports import LastingStore
from jobcloud.scheduler import Scheduler
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import TRY_SOON
from jobcloud.server import records
from jobcloud.server.api.ports import Health, Loop
from jobcloud.server.batch import Restore

log = structlog.get_logger(__name__)
T = TypeVar("T")

# A copy is used for at least this long, and for `_REST_FACTOR` times as long as it took to make. So a standby with a
# large state reads the store for at most a fifth of the time.
_MIN_USE_S = 1.0
_REST_FACTOR = 4


class Copy(NamedTuple):
    """A copy of the state. `read_at`: when its read began, by the monotonic clock. `use_s`: how long it is used."""

    core: Scheduler
    read_at: float
    use_s: float


#: the copy that answers the present request; None if the scheduler itself answers
_answering: ContextVar[Copy | None] = ContextVar("_answering", default=None)


class Replica:
    """Makes copies of the state, one at a time, in a thread of its own for each.

    `open_store` opens a store that the replica owns. Every method may be called from any thread.
    """

    def __init__(
        self,
        open_store: Callable[[], LastingStore],
        restore: Restore[Scheduler],
        *,
        now_ms: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open_store = open_store
        self._restore = restore
        self._now_ms = now_ms
        self.monotonic = monotonic
        self._store: LastingStore | None = None
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._copy: Copy | None = None
        self._next: Future[Copy] | None = None
        self._closed = False

    def age(self, copy: Copy) -> float:
        """Seconds since the state was as in the copy."""
        return self.monotonic() - copy.read_at

    def copy(self, since: float = float("-inf")) -> Future[Copy]:
        """A copy that is not too old, and whose read began at or after `since` (by the monotonic clock).

        The future may have the exception StoreError.
        """
        with self._lock:
            copy = self._copy
            if copy is not None and copy.read_at >= since and self.age(copy) <= copy.use_s:
                done: Future[Copy] = Future()
                done.set_result(copy)
                return done
            # A read that waits for its turn begins later than now, so it is new enough for every caller.
            if self._next is None:
                self._next = Future()
                threading.Thread(target=self._read, name="jobcloud-replica", daemon=True).start()
            return self._next

    def close(self) -> None:
        """Drop the copy and close the store, without waiting for a read under way. Later reads fail. Idempotent."""
        self._closed = True
        if self._reading.acquire(blocking=False):
            try:
                self._drop()
            finally:
                self._reading.release()

    def _read(self) -> None:
        with self._reading:
            with self._lock:
                assert self._next is not None
                wanted, self._next = self._next, None
                began = self.monotonic()
            try:
                copy = self._load(began)
            except Exception as error:
                if not isinstance(error, StoreError):
                    log.exception("the copy of the state could not be made")
                    error = StoreError(f"the copy of the state could not be made: {error}")
                wanted.set_exception(error)
            else:
                self._copy = copy
                wanted.set_result(copy)
        if self._closed:
            self.close()

    def _drop(self) -> None:
        self._copy = None
        store, self._store = self._store, None
        if store is not None:
            with suppress(StoreError):
                store.close()

    def _load(self, began: float) -> Copy:
        if self._closed:
            raise StoreError("this scheduler is no longer on standby")
        if self._store is None:
            self._store = self._open_store()
        try:
            restored = records.restore(self._store.snapshot())
            core = self._restore(restored, 0, self._now_ms())
        except StoreError:
            self._drop()
            raise
        return Copy(core, began, max(_MIN_USE_S, _REST_FACTOR * (self.monotonic() - began)))


@contextmanager
def answering_from(copy: Copy | None) -> Iterator[None]:
    """In the block, the present task and the threads that it calls ask the copy, unless it is None."""
    before = _answering.set(copy)
    try:
        yield
    finally:
        _answering.reset(before)


class ReplicatedLoop:
    """A loop whose questions are answered by a copy of the state if the request was given one."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def command(self, make: Callable[[int], Command], timeout: float = 10.0) -> None:
        if _answering.get() is not None:
            problem = Told("no leader here: this scheduler is on standby", "on_standby")
            raise Unavailable(problem, fix=TRY_SOON)
        self._loop.command(make, timeout)

    def ask(self, fn: Callable[[Scheduler], T], timeout: float = 5.0) -> T:
        copy = _answering.get()
        return self._loop.ask(fn, timeout) if copy is None else fn(copy.core)

    def health(self) -> Health:
        return self._loop.health()
