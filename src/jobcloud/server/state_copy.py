"""`jobcloud state copy`: move the state of a stopped scheduler to another kind of store. See docs/operations.md.

The records are copied as they are, in one write. No record of the source is changed. While the copy runs, this
process is the elected leader of each side that has an election. Afterwards both sides are read again and compared.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jobcloud.adapters import sqlite
from jobcloud.errors import ConfigError, Conflict, NotFound, StoreError
from jobcloud.ports import LastingStore, StoredRecords, StoredWrite
from jobcloud.server import epochs, settings, state_commands
from jobcloud.server.backup import Backup
from jobcloud.server.settings import Settings
from jobcloud.server.wiring import STATE_FILE

_URL = re.compile(r"(sqlite|zookeeper|etcd)://(.+)")
_FORMS = "sqlite://DIR, zookeeper://HOST:PORT,…/NAMESPACE or etcd://HOST:PORT,…/PREFIX"
_NAME = "jobcloud state copy"


@dataclass(frozen=True, slots=True)
class Place:
    """A store that a URL names. `option` is the option that held the URL."""

    option: str
    url: str
    wanted: Settings


@dataclass(frozen=True, slots=True)
class Copied:
    """The content that was copied, and the epoch of the target."""

    content: Backup
    epoch: int


def place(option: str, url: str, config: Path | None) -> Place:
    """The store of a URL. Its credentials, certificates and time limits come from the settings. Raises ConfigError."""
    found = _URL.fullmatch(url)
    if found is None:
        raise ConfigError(f"{url[:80]!r} does not name a store", field=option, fix=_FORMS)
    scheme, rest = found.groups()
    # The settings may name a store as well. Only the store of the URL counts.
    flags: dict[str, object] = {"zookeeper.hosts": "", "etcd.hosts": "", "data": Path()}
    if scheme == "sqlite":
        flags["data"] = Path(rest)
    else:
        hosts, slash, name = rest.partition("/")
        if not hosts:
            raise ConfigError(f"{url[:80]!r} names no server", field=option, fix=_FORMS)
        flags[f"{scheme}.hosts"] = hosts
        if slash:
            flags["zookeeper.namespace" if scheme == "zookeeper" else "etcd.prefix"] = name
    return Place(option, url, settings.load(config, flags))


def copy(source: Place, target: Place) -> Copied:
    """Copy all records. Raises ConfigError, NotFound, Conflict if a side is in use or the target is not empty.

    Raises StoreError if a store cannot be used, or if the sides differ afterwards.
    """
    if state_commands.same(source.wanted, target.wanted):
        raise _same(target)
    # Other candidates see this name while this process leads. If the second election reports this name as the leader,
    # both sides are the same place.
    name = f"{_NAME} (process {os.getpid()} on {socket.gethostname()})"
    with _held(source, name, must_exist=True) as old, _held(target, name) as new:
        epoch, stored = old.epoch(), old.snapshot()
        _check_source(source, epoch, stored)
        _check_target(target, new.snapshot())
        floor = 1 + max([epoch, *(epochs.read(file).epoch for side in (source, target) for file in _epoch_files(side))])
        raised = new.acquire(max(floor, epochs.of_clock(state_commands.now_ms())))
        new.write(
            raised, [StoredWrite(kind, *each) for kind, found in stored.records.items() for each in found.items()]
        )
        _verify(stored, epoch, old, new)
        for file in _epoch_files(target):
            epochs.record(file, epochs.Recorded(min(raised, epochs.MAX_EPOCH), STATE_FILE))
    return Copied(Backup.of(stored, epoch, state_commands.now_ms()), raised)


@contextlib.contextmanager
def _held(side: Place, name: str, *, must_exist: bool = False) -> Iterator[LastingStore]:
    """The store of one side, while no scheduler leads with it. Raises Conflict, NotFound.

    If the copy fails, an SQLite file that did not exist before is removed.
    """
    if state_commands.is_shared(side.wanted):
        with contextlib.ExitStack() as stack:
            try:
                store = stack.enter_context(state_commands.elected(side.wanted, name, side.option))
            except Conflict as error:
                if name in str(error):
                    raise _same(side) from error
                raise
            yield store
        return
    path = _data(side) / STATE_FILE
    if must_exist and not path.exists():
        raise NotFound(f"there is no state in {path.parent}", field=side.option, fix="name the scheduler's --data")
    if sqlite.in_use(path):
        raise Conflict(f"a scheduler uses {path}", field=side.option, fix="stop it first")
    existed = path.exists()
    try:
        with state_commands.opened(side.wanted) as store:
            yield store
    except BaseException:
        if not existed and not sqlite.in_use(path):
            for file in sqlite.files_of(path):
                file.unlink(missing_ok=True)
        raise


def _same(target: Place) -> ConfigError:
    return ConfigError("is the same place as --from", field=target.option, fix="name another store")


def _check_source(side: Place, epoch: int, stored: StoredRecords) -> None:
    if not epoch:
        raise NotFound("no scheduler has ever led with this state", field=side.option, fix="check where it is")
    if stored.faults:
        # A leader treats shards with lost records as failed. A copy would not show which records are lost.
        names = ", ".join(f"{fault.path} {fault.problem}" for fault in stored.faults[:5])
        fix = "repair it, or restore a backup into the target"
        raise Conflict(
            f"the state has {len(stored.faults)} entries that cannot be read: {names}", field=side.option, fix=fix
        )


def _check_target(side: Place, stored: StoredRecords) -> None:
    if stored.faults or any(stored.records.values()):
        raise Conflict("the target is not empty", field=side.option, fix="name an empty place, or delete its content")


def _verify(stored: StoredRecords, epoch: int, old: LastingStore, new: LastingStore) -> None:
    if old.snapshot().records != stored.records or old.epoch() != epoch:
        raise StoreError(
            "the source was changed during the copy: delete the target, stop all schedulers, and try again"
        )
    if new.snapshot().records != stored.records:
        raise StoreError("the target differs from the source: delete it, and try again")


def _data(side: Place) -> Path:
    assert side.wanted.data is not None
    return side.wanted.data


def _epoch_files(side: Place) -> list[Path]:
    """The file of the last epoch, which lies next to an SQLite file."""
    return [] if state_commands.is_shared(side.wanted) else [_data(side) / epochs.FILE_NAME]
