"""Epochs that never go back, even if the stored state does.

Ids and fence tokens are made from the epoch, so no epoch may be used twice. The stored epoch cannot ensure this,
because it goes back if an old copy of the state is put back. So a new epoch is higher than the stored one, and higher
than the one in the file DATA/epoch. It is also at least the number of ten-minute units since 2020, by the clock.

An epoch must not exceed 9 million, because fence tokens of higher epochs are not exact in a double. The clock can count
to at most 4 million, so that a clock that is far ahead cannot use up the range.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import structlog

from jobcloud.errors import StoreError, StoreFull, StoreUnusable
from jobcloud.ports import LastingStore, StoredRecords, StoredWrite
from jobcloud.server.durable import replace_file

log = structlog.get_logger(__name__)

FILE_NAME = "epoch"
#: a fence token of a greater epoch is not exact in a double
MAX_EPOCH = 9_000_000
# The clock counts units of ten minutes since 2020-01-01. It reaches its limit in the year 2096.
_BEGIN_MS = 1_577_836_800_000
_UNIT_MS = 600_000
_MAX_OF_CLOCK = 4_000_000
_FORMAT = 1
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Recorded(NamedTuple):
    """The content of the file: the last epoch used here, and the name of the state of this epoch."""

    epoch: int = 0
    state: str = ""


def of_clock(now_ms: int) -> int:
    """The epoch that the clock suggests, within its limit."""
    return min(max(now_ms - _BEGIN_MS, 0) // _UNIT_MS, _MAX_OF_CLOCK)


def read(path: Path) -> Recorded:
    """The recorded epoch; 0 if there is no file. Raises StoreError; StoreUnusable for a damaged or newer file."""
    try:
        with path.open("rb") as file:
            content = file.read(1_000)
        found = json.loads(content)
        epoch, state, version = found["epoch"], found["state"], found["v"]
    except FileNotFoundError:
        return Recorded()
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(path) from error
    if type(version) is int and version > _FORMAT:
        raise StoreUnusable(f"{path} was written by a newer jobcloud; run the newer version")
    if type(epoch) is not int or not 0 <= epoch <= MAX_EPOCH or not isinstance(state, str) or version != _FORMAT:
        raise _damaged(path)
    return Recorded(epoch, state)


def record(path: Path, recorded: Recorded) -> None:
    """Write the file durably. The epoch in the file is never lowered. Raises StoreError."""
    before = read(path)
    if before.epoch >= recorded.epoch and before.state == recorded.state:
        return
    recorded = recorded._replace(epoch=max(before.epoch, recorded.epoch))
    content = json.dumps({"v": _FORMAT, **recorded._asdict()}).encode()
    try:
        replace_file(path, content)
    except OSError as error:
        kind = StoreFull if error.errno in _NO_ROOM else StoreError
        raise kind(f"{path} cannot be written: {error.strerror or error}") from error


def _damaged(path: Path) -> StoreUnusable:
    return StoreUnusable(
        f"{path} is damaged; it was left unchanged. Write the last known epoch into it, or delete it: then the epoch "
        "comes from the stored state and the clock"
    )


class LastingEpochs:
    """A `Store` whose epochs never go back. It owns `store`.

    `path` is the file of the epoch. `state` names the place of the state. The file contains this name, so a file left
    by a scheduler with another state is recognized.
    """

    def __init__(self, store: LastingStore, path: Path, *, state: str, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._path = path
        self._state = state
        self._now_ms = now_ms

    def acquire(self, floor: int = 0) -> int:
        """Raise the epoch. Raises StoreError; StoreUnusable if the state is empty, but a scheduler has led with it."""
        recorded = read(self._path)
        if recorded.state == self._state and recorded.epoch and not self._store.epoch():
            raise StoreUnusable(
                f"the state in {self._state} is empty, but {self._path} shows that a scheduler has led with it (epoch "
                f"{recorded.epoch}): it was deleted, or this is another place. Put it back with `jobcloud restore`, or "
                f"delete {self._path} to start with an empty state"
            )
        of_clock_now = of_clock(self._now_ms())
        epoch = self._store.acquire(max(floor, recorded.epoch + 1, of_clock_now))
        if epoch > MAX_EPOCH:
            log.error("the epoch has left its range: fence tokens are no longer exact in a double", epoch=epoch)
        # Nothing uses the epoch before it is recorded.
        record(self._path, Recorded(min(epoch, MAX_EPOCH), self._state))
        return epoch

    def load(self) -> StoredRecords:
        return self._store.load()

    def write(self, epoch: int, batch: Sequence[StoredWrite]) -> None:
        self._store.write(epoch, batch)

    def close(self) -> None:
        self._store.close()
