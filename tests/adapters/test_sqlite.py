"""The SQLite file: damage, newer versions, full disks, other processes and kill -9."""

from __future__ import annotations

import os
import random
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobcloud.adapters.sqlite import SqliteStore
from jobcloud.errors import RecordTooLarge, StoreError, StoreFull, StoreGone, StoreUnusable
from jobcloud.messages import Kind
from jobcloud.ports import MAX_RECORD_BYTES, StoredWrite

JOB = StoredWrite(Kind.JOB, "a", b"1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobcloud.db"


def written(path: Path, *batch: StoredWrite) -> None:
    store = SqliteStore(path)
    store.write(store.acquire(), batch)
    store.close()


@contextmanager
def other_program(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


def test_file_and_its_directory_are_private(tmp_path: Path) -> None:
    path = tmp_path / "new" / "jobcloud.db"
    written(path, JOB)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_newer_file_is_refused_with_a_fix_and_left_unchanged(path: Path) -> None:
    written(path, JOB)
    with other_program(path) as connection:
        connection.execute("PRAGMA user_version = 2")
    before = path.read_bytes()
    with pytest.raises(StoreUnusable, match=r"newer jobcloud \(format 2, this one reads 1\).*Run the newer version"):
        SqliteStore(path)
    assert path.read_bytes() == before
    assert sorted(path.parent.iterdir()) == [path]


def test_newer_format_in_the_write_ahead_log_is_refused(path: Path) -> None:
    written(path, JOB)
    with other_program(path) as connection:
        connection.execute("PRAGMA user_version = 2")
        assert path.read_bytes()[60:64] == b"\0\0\0\1"
        with pytest.raises(StoreUnusable, match="newer"):
            SqliteStore(path)


@pytest.mark.parametrize("content", [b"hello", b"SQLite format 3\0", b"\0" * 4096, b"PK\3\4" * 100])
def test_file_that_is_not_a_database_is_named_and_left_unchanged(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreUnusable, match=r"jobcloud\.db is not an SQLite database"):
        SqliteStore(path)
    assert path.read_bytes() == content


def test_database_of_another_program_is_refused(path: Path) -> None:
    with other_program(path) as connection:
        connection.execute("CREATE TABLE browser_history (url)")
    before = path.read_bytes()
    with pytest.raises(StoreUnusable, match="another program"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_damaged_page_is_found_at_the_start_and_left_unchanged(path: Path) -> None:
    written(path, *(StoredWrite(Kind.TASK, f"t{number}", b"x" * 300) for number in range(2_000)))
    content = bytearray(path.read_bytes())
    content[40_000:44_000] = b"\xa5" * 4_000
    path.write_bytes(content)
    with pytest.raises(StoreUnusable, match=r"jobcloud\.db is damaged"):
        SqliteStore(path)
    assert path.read_bytes() == content


def test_truncated_file_is_refused(path: Path) -> None:
    written(path, *(StoredWrite(Kind.TASK, f"t{number}", b"x" * 300) for number in range(2_000)))
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(StoreUnusable, match="is damaged"):
        SqliteStore(path)


def test_random_damage_raises_only_store_errors(path: Path, seed: int) -> None:
    written(path, *(StoredWrite(Kind.TASK, f"t{number}", b"x" * 300) for number in range(200)))
    sound, chance = path.read_bytes(), random.Random(seed)
    for _ in range(60):
        damaged = bytearray(sound)
        for _ in range(chance.randint(1, 40)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            store = SqliteStore(path)
        except StoreError:
            continue
        try:
            store.load()
            store.write(store.acquire(), [JOB])
        except StoreError:
            pass
        finally:
            store.close()


def test_missing_epoch_row_counts_as_damage(path: Path) -> None:
    written(path, JOB)
    with other_program(path) as connection:
        connection.execute("DELETE FROM leader")
    store = SqliteStore(path)
    with pytest.raises(StoreUnusable, match="epoch is missing"):
        store.acquire()
    store.close()


def test_unknown_kinds_and_values_of_other_types_are_faults_and_stay(path: Path) -> None:
    written(path, JOB)
    with other_program(path) as connection:
        connection.execute("INSERT INTO record VALUES ('quota', 'q', x'31'), ('job', 'b', 7), ('job', x'ff', x'31')")
    for _ in range(2):
        store = SqliteStore(path)
        stored = store.load()
        assert stored.records[Kind.JOB] == {"a": b"1"}
        assert {fault.path for fault in stored.faults} == {"quota/q", "job/b", "job/b'\\xff'"}
        store.close()


def test_full_database_loses_nothing_and_accepts_writes_when_space_is_free(path: Path) -> None:
    store = SqliteStore(path)
    epoch = store.acquire()
    store.write(epoch, [JOB])
    store._db.execute("PRAGMA max_page_count = 20")
    with pytest.raises(StoreFull, match=r"no space left for .*jobcloud\.db"):
        store.write(epoch, [StoredWrite(Kind.JOB, "a", b"2"), StoredWrite(Kind.JOB, "b", b"x" * 200_000)])
    assert store.load().records[Kind.JOB] == {"a": b"1"}
    store._db.execute("PRAGMA max_page_count = 1000000")
    store.write(epoch, [StoredWrite(Kind.JOB, "b", b"x" * 200_000)])
    assert store.load().records[Kind.JOB] == {"a": b"1", "b": b"x" * 200_000}
    store.close()


def test_record_that_sqlite_refuses_is_named_and_nothing_is_written(path: Path) -> None:
    store = SqliteStore(path)
    epoch = store.acquire()
    store._db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_RECORD_BYTES + 1_000)
    large = StoredWrite(Kind.JOB, "large", bytes(MAX_RECORD_BYTES + 1_000))
    with pytest.raises(RecordTooLarge, match=f"job 'large' takes {MAX_RECORD_BYTES + 1_000} bytes") as caught:
        store.write(epoch, [JOB, large])
    assert set(caught.value.problems) == {("job", "large")}
    assert store.load().records[Kind.JOB] == {}
    store.close()


@pytest.mark.parametrize("batch", [[], [JOB]], ids=["proof", "write"])
@pytest.mark.parametrize("deleted", ["*", "jobcloud.db", "jobcloud.db-wal"])
def test_deleted_file_is_noticed_at_the_next_proof_of_the_epoch(
    path: Path, deleted: str, batch: list[StoredWrite]
) -> None:
    store = SqliteStore(path)
    epoch = store.acquire()
    store.write(epoch, [JOB])
    for file in path.parent.glob("jobcloud.db*" if deleted == "*" else deleted):
        file.unlink()
    for _ in range(2):
        with pytest.raises(StoreGone, match=r"jobcloud\.db(-wal)? was deleted.*jobcloud restore"):
            store.write(epoch, batch)
    store.close()


def test_replaced_file_is_noticed_at_the_next_proof_of_the_epoch(path: Path) -> None:
    store = SqliteStore(path)
    epoch = store.acquire()
    store.write(epoch, [JOB])
    other = path.with_name("other.db")
    written(other, JOB)
    other.replace(path)
    with pytest.raises(StoreGone, match="deleted or replaced"):
        store.write(epoch, [])
    store.close()


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Fail every write beyond `size` bytes of a file, like a broken disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_disk_error_loses_nothing_and_writes_work_again_afterwards(path: Path) -> None:
    store = SqliteStore(path)
    epoch = store.acquire()
    store.write(epoch, [JOB])
    with largest_file(200_000), pytest.raises(StoreError, match=r"jobcloud\.db"):
        store.write(epoch, [StoredWrite(Kind.JOB, "a", b"2"), StoredWrite(Kind.JOB, "b", b"x" * 1_000_000)])
    assert store.load().records[Kind.JOB] == {"a": b"1"}
    store.write(epoch, [StoredWrite(Kind.JOB, "b", b"x" * 1_000_000)])
    store.close()
    again = SqliteStore(path)
    assert set(again.load().records[Kind.JOB]) == {"a", "b"}
    again.close()


def test_file_locked_by_another_process_is_reported_and_works_once_unlocked(path: Path) -> None:
    written(path, JOB)
    store = SqliteStore(path, busy_s=0.01)
    epoch = store.acquire()
    with other_program(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked by another process"):
            store.write(epoch, [StoredWrite(Kind.JOB, "a", b"2")])
        connection.execute("ROLLBACK")
    store.write(epoch, [StoredWrite(Kind.JOB, "a", b"2")])
    assert store.load().records[Kind.JOB] == {"a": b"2"}
    store.close()


def test_unwritable_place_is_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        SqliteStore(tmp_path / "file" / "jobcloud.db")
    with pytest.raises(StoreError, match="cannot be used"):
        SqliteStore(tmp_path)


def test_key_that_cannot_be_encoded_is_refused_and_nothing_of_its_batch_is_stored(path: Path) -> None:
    store = SqliteStore(path)
    with pytest.raises(StoreError, match="cannot hold"):
        store.write(store.acquire(), [JOB, StoredWrite(Kind.TASK, "\ud800", b"1")])
    assert store.load().records[Kind.JOB] == {}
    store.close()


def test_every_commit_is_synced(path: Path) -> None:
    store = SqliteStore(path)
    assert (store._pragma("journal_mode"), store._pragma("synchronous")) == ("wal", 2)
    store.close()


_WRITER = """
import sys
from pathlib import Path
from jobcloud.adapters.sqlite import SqliteStore
from jobcloud.messages import Kind
from jobcloud.ports import StoredWrite
store = SqliteStore(Path(sys.argv[1]))
epoch = store.acquire()
for number in range(1_000_000):
    store.write(epoch, [StoredWrite(Kind.TASK, f"{item}", b"%d" % number) for item in range(50)])
    print(number, flush=True)
"""


def test_kill_9_loses_no_reported_batch_and_leaves_no_partial_batch(path: Path) -> None:
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        for line in writer.stdout:
            if int(line) >= 30:
                break
        writer.send_signal(signal.SIGKILL)
        reported = [30, *(int(line) for line in writer.stdout.read().split("\n")[:-1])][-1]
        writer.stdout.close()
        writer.wait()
        store = SqliteStore(path)
        values = {int(value) for value in store.load().records[Kind.TASK].values()}
        store.close()
        assert len(values) == 1
        assert reported <= values.pop() <= reported + 1


@pytest.mark.parametrize("_", range(3))
def test_second_process_on_the_same_file_fences_the_first(path: Path, _: int) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    writer.stdout.readline()
    second = SqliteStore(path)
    epoch = second.acquire()
    output = writer.communicate(timeout=60)[1]
    assert "Fenced" in output
    assert writer.returncode == 1
    second.write(epoch, [JOB])
    second.close()
