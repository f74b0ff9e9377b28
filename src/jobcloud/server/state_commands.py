"""`jobcloud backup` and `jobcloud restore`: settings → the stored state → a file, and back. See docs/operations.md."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from jobcloud.adapters import sqlite
from jobcloud.adapters.etcd.client import EtcdClient
from jobcloud.adapters.etcd.election import EtcdElection
from jobcloud.adapters.etcd.store import EtcdStore
from jobcloud.adapters.sqlite import SqliteStore
from jobcloud.adapters.zookeeper.election import ZooKeeperElection
from jobcloud.adapters.zookeeper.session import ZooKeeperSession
from jobcloud.adapters.zookeeper.store import ZooKeeperStore
from jobcloud.errors import ConfigError, Conflict, NotFound, StoreDamaged, StoreError
from jobcloud.messages import Kind
from jobcloud.ports import LastingStore, Leadership
from jobcloud.server import backup, epochs
from jobcloud.server.backup import Backup
from jobcloud.server.settings import Settings
from jobcloud.server.wiring import (
    STATE_FILE,
    etcd_settings,
    etcd_state,
    shared_store,
    zookeeper_settings,
    zookeeper_state,
)

# How long a restore waits for ZooKeeper or etcd.
_ELECTION_S = 15.0


@dataclass(frozen=True, slots=True)
class Saved:
    """The result of a backup. `unreadable` names entries of the state that are no records. The backup lacks them."""

    backup: Backup
    size: int
    unreadable: list[str]


@dataclass(frozen=True, slots=True)
class PutBack:
    """The result of a restore. `aside`: the files that hold the previous state."""

    backup: Backup
    epoch: int
    aside: list[Path]


def back_up(wanted: Settings, file: Path) -> Saved:
    """Save the state to a file, also while a scheduler leads. Raises ConfigError, NotFound, StoreError."""
    data = _data(wanted)
    if not is_shared(wanted) and not (data / STATE_FILE).exists():
        raise NotFound(f"there is no state in {data}", field="--data", fix="name the directory of the scheduler")
    with opened(wanted) as store:
        if not store.epoch():
            raise NotFound("no scheduler has ever led with this state", field="--data", fix="check where it is")
        taken, stored = backup.take(store, now_ms())
    return Saved(taken, backup.write(file, taken), backup.unreadable(stored))


def restore(wanted: Settings, file: Path) -> PutBack:
    """Replace the state by the state in a file. Raises ConfigError, StoreError, and Conflict if a scheduler leads."""
    data, found = _data(wanted), backup.read(file)
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    recorded, epoch_file = epochs.read(data / epochs.FILE_NAME), data / epochs.FILE_NAME
    aside = data / f"before-restore-{stamp}.backup"
    with contextlib.ExitStack() as stack:
        if is_shared(wanted):
            moved: list[Path] = []
            store: LastingStore = stack.enter_context(elected(wanted, "jobcloud restore"))
        else:
            moved = _make_way(data / STATE_FILE, stamp)
            store = stack.enter_context(opened(wanted))
        floor = max(recorded.epoch + 1, epochs.of_clock(now_ms()))
        epoch = backup.put_back(store, found, aside, floor=floor, now_ms=now_ms())
        epochs.record(epoch_file, epochs.Recorded(min(epoch, epochs.MAX_EPOCH), _name(wanted)))
    return PutBack(found, epoch, [*moved, *([aside] if aside.exists() else [])])


def _data(wanted: Settings) -> Path:
    if wanted.data is None:
        raise ConfigError("is not set", field="data", fix="--data DIR, the directory of the scheduler")
    return wanted.data


def _name(wanted: Settings) -> str:
    if wanted.zookeeper.hosts:
        return zookeeper_state(wanted.zookeeper)
    return etcd_state(wanted.etcd) if wanted.etcd.hosts else STATE_FILE


def same(one: Settings, other: Settings) -> bool:
    """Whether two settings name the same state. In ZooKeeper and etcd, both must also list the servers alike."""
    if is_shared(one) or is_shared(other):
        return _name(one) == _name(other) and (one.zookeeper.hosts, one.etcd.hosts) == (
            other.zookeeper.hosts,
            other.etcd.hosts,
        )
    return _data(one).resolve() == _data(other).resolve()


def is_shared(wanted: Settings) -> bool:
    """Whether the state is in ZooKeeper or etcd. Then several schedulers can use it, and one of them is elected."""
    return bool(wanted.zookeeper.hosts or wanted.etcd.hosts)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@contextlib.contextmanager
def opened(wanted: Settings) -> Iterator[LastingStore]:
    store = shared_store(wanted) if is_shared(wanted) else SqliteStore(_data(wanted) / STATE_FILE)
    with contextlib.closing(store):
        yield store


def _make_way(path: Path, stamp: str) -> list[Path]:
    """Check that nobody uses the SQLite file. If it is damaged, move it aside. Returns the new names of its files."""
    if sqlite.in_use(path):
        raise Conflict(f"a scheduler uses {path}", field="--data", fix="stop it first, then start it again")
    try:
        SqliteStore(path).close()
    except StoreDamaged:
        found = [each for each in sqlite.files_of(path) if each.exists()]
        return [each.rename(each.with_name(f"{each.name}.damaged-{stamp}")) for each in found]
    return []


@contextlib.contextmanager
def elected(wanted: Settings, name: str, option: str = "") -> Iterator[LastingStore]:
    """Yields the store in ZooKeeper or etcd. Meanwhile this process leads as `name`, so that no scheduler can lead.

    Raises Conflict if a scheduler leads.
    """
    store, election, own_option = _candidate(wanted, name)
    turn = _FirstTurn()
    with contextlib.closing(store):
        if not election.wait(turn, turn.report):
            if turn.leader:
                raise Conflict(turn.leader, field=option or own_option, fix="stop all schedulers first")
            raise StoreError(f"the store cannot be used: {turn.told}")
        try:
            yield store
        finally:
            election.resign()


def _candidate(wanted: Settings, name: str) -> tuple[LastingStore, Leadership, str]:
    """A store, the election that gives access to it, and the option that names its servers."""
    if wanted.zookeeper.hosts:
        session = ZooKeeperSession(zookeeper_settings(wanted.zookeeper))
        nodes = ZooKeeperElection(session, name)
        return ZooKeeperStore(session, name=name, candidate=lambda: nodes.node), nodes, "--zookeeper"
    client = EtcdClient(etcd_settings(wanted.etcd))
    keys = EtcdElection(client, name)
    return EtcdStore(client, name=name, candidacy=lambda: keys.candidacy), keys, "--etcd"


class _FirstTurn:
    """Ends the wait for the leadership when another scheduler leads, or after _ELECTION_S."""

    def __init__(self) -> None:
        self.leader = self.told = ""
        self._deadline = time.monotonic() + _ELECTION_S

    def report(self, text: str) -> None:
        self.told = text
        if text.endswith(" leads"):
            self.leader = text

    def is_set(self) -> bool:
        return bool(self.leader) or time.monotonic() > self._deadline


def facts(found: Backup) -> dict[str, object]:
    """A backup in words and numbers, for users."""
    return {
        "takenAt": f"{datetime.fromtimestamp(found.taken_ms / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}",
        "epoch": found.epoch,
        "records": len(found.entries),
        "apps": found.count(Kind.APP),
        "jobs": found.count(Kind.JOB),
        "runs": found.count(Kind.FIRING),
        "tasks": found.count(Kind.TASK),
    }
