"""Backup files, and the stores that they are taken from and put back into."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobcloud.adapters import sqlite
from jobcloud.adapters.memory import MemoryServer, MemoryStore
from jobcloud.adapters.sqlite import SqliteStore
from jobcloud.errors import ConfigError, Conflict, Fenced, NotFound, StoreError
from jobcloud.messages import Kind
from jobcloud.model import Restoration
from jobcloud.ports import LastingStore, StoredWrite
from jobcloud.server import backup, records, state_commands
from jobcloud.server.backup import Backup
from jobcloud.server.settings import Settings, load

OpenStore = Callable[[], LastingStore]
TAKEN, NOW = 1_790_000_000_000, 1_790_000_500_000
BATCH = [
    StoredWrite(Kind.JOB, "a", b'{"v":1}'),
    StoredWrite(Kind.APP, "shop é/@-@", b"\xff damaged \x00"),
    StoredWrite(Kind.TASK, "t", b"x" * 1_000_000),
    StoredWrite(Kind.FRAMEWORK, "id", b'{"v":1,"r":"f"}'),
    StoredWrite(Kind.DISABLED_APP, "shop", b'{"v":1,"r":true}'),
]
LATER = [
    StoredWrite(Kind.JOB, "a", b"changed"),
    StoredWrite(Kind.JOB, "b", b"new"),
    StoredWrite(Kind.TASK, "t", None),
    StoredWrite(Kind.FIRING, "f", b"new"),
]


def led(store: LastingStore, *batches: list[StoredWrite]) -> int:
    epoch = store.acquire()
    for batch in batches:
        store.write(epoch, batch)
    return epoch


@pytest.fixture
def file(tmp_path: Path) -> Path:
    store = MemoryStore(MemoryServer())
    led(store, BATCH)
    path = tmp_path / "state.backup"
    backup.write(path, backup.take(store, TAKEN)[0])
    return path


def rewritten(file: Path, **header: Any) -> None:
    line, _, body = file.read_bytes().partition(b"\n")
    file.write_bytes(json.dumps(json.loads(line) | header).encode() + b"\n" + body)


def test_restore_returns_every_record_and_removes_later_ones(open_store: OpenStore, tmp_path: Path) -> None:
    store = open_store()
    epoch = led(store, BATCH)
    before = store.load().records
    taken, _ = backup.take(open_store(), TAKEN)
    store.write(epoch, LATER)
    changed = store.load().records

    aside = tmp_path / "aside.backup"
    raised = backup.put_back(open_store(), taken, aside, floor=0, now_ms=NOW)
    assert raised > epoch
    found = open_store().load().records
    mark = found[Kind.RESTORATION].pop("last")
    assert found == before
    assert records.decode(Kind.RESTORATION, "last", mark) == Restoration(TAKEN, NOW)
    with pytest.raises(Fenced):
        store.write(epoch, [])

    # The previous state is itself a backup.
    backup.put_back(open_store(), backup.read(aside), tmp_path / "again.backup", floor=0, now_ms=NOW)
    found = open_store().load().records
    del found[Kind.RESTORATION]["last"]
    assert found == changed


def test_backup_of_one_store_is_restored_into_another(file: Path, open_store: OpenStore, tmp_path: Path) -> None:
    store = open_store()
    backup.put_back(store, backup.read(file), tmp_path / "aside.backup", floor=70_000, now_ms=NOW)
    assert store.load().records[Kind.TASK] == {"t": b"x" * 1_000_000}
    assert store.epoch() == 70_000
    assert not (tmp_path / "aside.backup").exists(), "there was nothing to keep"


def test_epoch_after_a_restore_is_far_above_that_of_the_backup(tmp_path: Path) -> None:
    """The leaders since the backup are unknown if the restore is into an empty directory of another machine."""
    taken = Backup(TAKEN, 500, [])
    assert backup.put_back(MemoryStore(MemoryServer()), taken, tmp_path / "a", floor=0, now_ms=NOW) == 1_500


def test_backup_is_private_and_replaces_the_file_as_a_whole(file: Path) -> None:
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    backup.write(file, Backup(TAKEN, 1, []))
    assert backup.read(file).entries == []
    assert list(file.parent.iterdir()) == [file]
    with pytest.raises(StoreError, match="cannot be written"):
        backup.write(file / "inside", Backup(TAKEN, 1, []))


@pytest.mark.parametrize("keep", [0, 1, 50, -1])
def test_incomplete_file_is_refused(file: Path, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ConfigError, match=r"no backup of jobcloud|damaged"):
        backup.read(file)


def test_any_flipped_byte_of_the_body_is_found(file: Path) -> None:
    content = file.read_bytes()
    for place in range(content.index(b"\n") + 1, len(content), 97):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(ConfigError, match="checksum"):
            backup.read(file)


def test_appended_bytes_are_found(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(ConfigError, match="damaged"):
        backup.read(file)


@pytest.mark.parametrize(
    "header",
    [{"jobcloudBackup": 2}, {"recordFormat": records.VERSION + 1}],
    ids=["format", "records"],
)
def test_newer_file_is_refused_with_a_fix(file: Path, header: dict[str, Any]) -> None:
    rewritten(file, **header)
    with pytest.raises(ConfigError, match=r"newer jobcloud.*run the newer version"):
        backup.read(file)


def test_file_with_an_unknown_kind_is_newer(file: Path) -> None:
    backup.write(file, Backup(TAKEN, 1, [("quota", "q", b"1")]))
    with pytest.raises(ConfigError, match=r"newer jobcloud.*'quota'"):
        backup.read(file)


@pytest.mark.parametrize(
    "header",
    [{"epoch": -1}, {"bytes": "7"}, {"takenMs": None}, {"records": True}, {"records": 99}, {"bytes": 2**52},
     {"jobcloudBackup": "1"}],
)  # fmt: skip
def test_wrong_header_is_refused(file: Path, header: dict[str, Any]) -> None:
    rewritten(file, **header)
    with pytest.raises(ConfigError):
        backup.read(file)


@pytest.mark.parametrize("content", [b"", b"\n", b"[]\n", b"null\n", b"PK\3\4", b"SQLite format 3\0", b"{" * 20_000])
def test_foreign_file_is_refused(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="no backup of jobcloud"):
        backup.read(file)


# ---- the commands --------------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    store = SqliteStore(made / "jobcloud.db")
    led(store, BATCH)
    store.close()
    return made


def wanted(data: Path) -> Settings:
    return load(flags={"data": data})


def test_restore_is_refused_while_a_scheduler_uses_the_state(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "state.backup"
    leader = SqliteStore(data / "jobcloud.db")
    epoch = leader.acquire()
    state_commands.back_up(wanted(data), file)
    with pytest.raises(Conflict, match="a scheduler uses"):
        state_commands.restore(wanted(data), file)
    leader.write(epoch, LATER)
    leader.close()
    assert state_commands.restore(wanted(data), file).epoch > epoch


def test_restore_keeps_the_state_of_before_and_records_the_epoch(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "state.backup"
    state_commands.back_up(wanted(data), file)
    done = state_commands.restore(wanted(data), file)
    (aside,) = done.aside
    assert backup.read(aside).entries == backup.read(file).entries
    assert json.loads((data / "epoch").read_text())["epoch"] == done.epoch


def test_damaged_state_is_moved_aside_by_a_restore(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "state.backup"
    state_commands.back_up(wanted(data), file)
    (data / "jobcloud.db").write_bytes(b"damaged" * 1_000)
    (moved,) = state_commands.restore(wanted(data), file).aside
    assert moved.read_bytes() == b"damaged" * 1_000
    store = SqliteStore(data / "jobcloud.db")
    assert store.load().records[Kind.JOB] == {"a": b'{"v":1}'}
    store.close()


def test_deleted_state_is_restored(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "state.backup"
    state_commands.back_up(wanted(data), file)
    for each in sqlite.files_of(data / "jobcloud.db"):
        each.unlink(missing_ok=True)
    assert state_commands.restore(wanted(data), file).aside == []


def test_damaged_backup_changes_nothing(data: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in data.iterdir()}
    (tmp_path / "state.backup").write_bytes(b"{}\n")
    with pytest.raises(ConfigError):
        state_commands.restore(wanted(data), tmp_path / "state.backup")
    assert {path: path.read_bytes() for path in data.iterdir()} == before


def test_backup_names_the_entries_that_it_cannot_hold(data: Path, tmp_path: Path) -> None:
    store = SqliteStore(data / "jobcloud.db")
    store._db.execute("INSERT INTO record VALUES ('quota', 'q', x'31')")
    store.close()
    saved = state_commands.back_up(wanted(data), tmp_path / "state.backup")
    assert saved.unreadable == ["quota/q is of a kind that this version does not know"]


def test_state_that_does_not_exist_is_not_made_by_a_backup(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no state"):
        state_commands.back_up(wanted(tmp_path / "nowhere"), tmp_path / "state.backup")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="data: is not set"):
        state_commands.back_up(load(), tmp_path / "state.backup")
