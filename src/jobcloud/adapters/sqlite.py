"""State in one SQLite file: the default store.

Each record is a row; the leader's epoch is a row of its own. Each write is one transaction that also checks the epoch.
So when a second scheduler takes over the file, the writes of the first one fail. docs/state.md describes the file.
Formats: https://www.sqlite.org/fileformat2.html (header), https://www.sqlite.org/wal.html.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from jobcloud.errors import Fenced, RecordTooLarge, StoreDamaged, StoreError, StoreFull, StoreGone, StoreUnusable
from jobcloud.messages import KIND_NAMES, KINDS
from jobcloud.ports import StoredFault, StoredRecords, StoredWrite

SCHEMA_VERSION = 1
APPLICATION_ID = int.from_bytes(b"jobc")
# A check of all pages of a file of this size takes at most two seconds. In a larger file, a page is checked when it
# is read.
_CHECKED_BYTES = 256 * 1024 * 1024
# How long a new leader tries to lock the file.
_TAKEOVER_S = 10.0
# With this cache and 100,000 stored tasks, writes take 20 % less CPU time than with SQLite's default of 2 MB. A larger
# cache has no effect.
_CACHE_KIB = 8_000
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE record (kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE TABLE leader (one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER NOT NULL);
INSERT INTO leader VALUES (1, 0);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""  # noqa: S608 - made of constants
_PUT = "INSERT INTO record VALUES (?, ?, ?) ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value"
_DELETE = "DELETE FROM record WHERE kind = ? AND key = ?"
_RAISE_EPOCH = "UPDATE leader SET epoch = max(epoch + 1, ?) RETURNING epoch"
_EPOCH_MISSING = "the row that holds the leader's epoch is missing"
# SQLite writes the row even if its value stays the same, so an empty batch also proves that the disk works.
_PROVE_EPOCH = "UPDATE leader SET epoch = epoch WHERE epoch = ?"


class _Busy(StoreError):
    """Another process has locked the file."""


class SqliteStore:
    """A `Store` in the file `path`. A missing file is created, with its directory.

    Only one thread at a time may use it. `busy_s` limits the wait for a transaction of another process. Raises
    StoreUnusable for a file that is damaged, of another program or of a newer version; the file is left unchanged.
    """

    def __init__(self, path: Path, *, busy_s: float = 2.0) -> None:
        self.path = path
        #: the files in use, with the identity that they had when the epoch was raised
        self._files: dict[str, tuple[int, int] | None] = {}
        with self._translated():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._check_header()
            # From the start, only the owner can read the file: parameters of jobs may contain secrets.
            path.touch(mode=0o600)
            self._busy_s = busy_s
            self._db = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
        try:
            with self._translated():
                self._open()
        except StoreError:
            self._db.close()
            raise

    def acquire(self, floor: int = 0) -> int:
        # A leader under load releases the lock only briefly. SQLite polls every 100 ms and could miss every release.
        deadline = time.monotonic() + _TAKEOVER_S
        while True:
            try:
                epoch = self._raise_epoch(floor)
            except _Busy:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.001)
            else:
                self._files = {name: _identity(name) for name in (str(self.path), f"{self.path}-wal")}
                return epoch

    def _raise_epoch(self, floor: int) -> int:
        with self._transaction(wait_s=0.0):
            return self._one_epoch(_RAISE_EPOCH, floor)

    def epoch(self) -> int:
        with self._translated():
            return self._one_epoch("SELECT epoch FROM leader")

    def _one_epoch(self, statement: str, *values: int) -> int:
        row = self._db.execute(statement, values).fetchone()
        if row is None:
            raise sqlite3.DatabaseError(_EPOCH_MISSING)
        return int(row[0])

    def load(self) -> StoredRecords:
        stored = StoredRecords()
        with self._translated():
            for kind, key, value in self._db.execute("SELECT kind, key, value FROM record"):
                if kind in KINDS and isinstance(key, str) and isinstance(value, bytes):
                    stored.records[KINDS[kind]][key] = value
                else:
                    stored.faults.append(StoredFault(f"{kind}/{key}", _problem(kind)))
        return stored

    def snapshot(self) -> StoredRecords:
        return self.load()  # one statement reads the file as of one instant

    def write(self, epoch: int, batch: Sequence[StoredWrite]) -> None:
        self._check_files()
        with self._transaction():
            if self._db.execute(_PROVE_EPOCH, (epoch,)).rowcount != 1:
                raise Fenced(f"epoch {epoch} was superseded: another scheduler has taken over {self.path}")
            last = {(KIND_NAMES[write.kind], write.key): write.value for write in batch}
            put = [(kind, key, value) for (kind, key), value in last.items() if value is not None]
            if put:
                self._put(put)
            if len(put) < len(last):
                self._db.executemany(_DELETE, [place for place, value in last.items() if value is None])

    def _put(self, records: Sequence[tuple[str, str, bytes]]) -> None:
        try:
            self._db.executemany(_PUT, records)
        except sqlite3.DataError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_TOOBIG:
                raise
            # SQLite does not say which record it refuses, so the largest one is named.
            kind, key, value = max(records, key=lambda record: len(record[2]))
            problem = f"{kind} {key[:80]!r} takes {len(value)} bytes; {self.path} cannot hold it ({error})"
            raise RecordTooLarge({(kind, key): problem}) from error

    def close(self) -> None:
        self._db.close()

    def _check_files(self) -> None:
        """Raises StoreGone if a file was deleted or replaced. SQLite itself continues to write to a deleted file."""
        for name, identity in self._files.items():
            if _identity(name) != identity:
                raise StoreGone(
                    f"{name} was deleted or replaced while this scheduler used it, so nothing can be stored any more. "
                    "Restore the state with `jobcloud restore`"
                )

    def _check_header(self) -> None:
        """Raises StoreUnusable for a foreign or newer file, by its first 100 bytes, before SQLite can change it."""
        try:
            with self.path.open("rb") as file:
                header = file.read(100)
        except FileNotFoundError:
            return
        if not header:
            return
        if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
            raise StoreDamaged(
                f"{self.path} is not an SQLite database, or its beginning is damaged; it was left unchanged. "
                "Restore a backup, or move the file away to start with an empty state"
            )
        self._check_version(*(int.from_bytes(header[start : start + 4]) for start in (60, 68)))

    def _check_version(self, version: int, application: int) -> None:
        if application not in (0, APPLICATION_ID):
            raise StoreUnusable(f"{self.path} is the database of another program; choose another data directory")
        if version > SCHEMA_VERSION:
            raise StoreUnusable(
                f"{self.path} was written by a newer jobcloud (format {version}, this one reads {SCHEMA_VERSION}); "
                "it was left unchanged. Run the newer version, or choose another data directory"
            )

    def _open(self) -> None:
        version, application = (self._pragma(name) for name in ("user_version", "application_id"))
        self._check_version(int(version), int(application))
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if tables and not tables >= {"record", "leader"}:
            raise StoreUnusable(f"{self.path} is the database of another program; choose another data directory")
        if self._pragma("journal_mode = WAL") != "wal":
            raise StoreError(
                f"{self.path} is on a file system without the shared memory that WAL needs; use a local disk"
            )
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute(f"PRAGMA cache_size = {-_CACHE_KIB}")
        if not tables:
            self._create()
        elif self.path.stat().st_size <= _CHECKED_BYTES:
            self._check_pages()

    def _create(self) -> None:
        try:
            self._db.executescript(_SCHEMA)
        except sqlite3.OperationalError:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            # Another process may have created the tables meanwhile.
            if self._pragma("user_version") != SCHEMA_VERSION:
                raise

    def _check_pages(self) -> None:
        if (finding := self._pragma("quick_check(1)")) != "ok":
            raise sqlite3.DatabaseError(str(finding).strip())

    def _pragma(self, text: str) -> str | int:
        value: str | int = self._db.execute(f"PRAGMA {text}").fetchone()[0]
        return value

    @contextmanager
    def _transaction(self, wait_s: float | None = None) -> Iterator[None]:
        with self._translated():
            self._pragma(f"busy_timeout = {int((self._busy_s if wait_s is None else wait_s) * 1_000)}")
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            finally:
                # After some errors SQLite has already rolled back.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise _translate(self.path, error) from error
        except (UnicodeError, OverflowError) as error:
            raise StoreError(f"{self.path} cannot hold this record: {error}") from error


def files_of(path: Path) -> list[Path]:
    """The files that a database may consist of."""
    return [path, *(path.with_name(f"{path.name}{suffix}") for suffix in ("-wal", "-shm"))]


def in_use(path: Path) -> bool:
    """Whether another process, such as a scheduler, has the database open. False for a missing or damaged database."""
    if not path.exists():
        return False
    try:
        with closing(sqlite3.connect(path, timeout=0.0, isolation_level=None)) as db:
            # This fails if another process has the database open. The next `SqliteStore` switches the database back to
            # WAL.
            return bool(db.execute("PRAGMA journal_mode = DELETE").fetchone()[0] != "delete")
    except sqlite3.Error as error:
        return isinstance(_translate(path, error), _Busy)


def _identity(name: str) -> tuple[int, int] | None:
    """The device and number of a file; None if there is none."""
    try:
        found = os.stat(name)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _problem(kind: object) -> str:
    return "does not contain a JSON value" if kind in KINDS else "is of a kind that this version does not know"


def _translate(path: Path, error: sqlite3.Error | OSError) -> StoreError:
    # The low byte of an extended code is the primary code: https://www.sqlite.org/rescode.html
    code = sqlite3.SQLITE_FULL if isinstance(error, OSError) and error.errno in _NO_ROOM else -1
    match getattr(error, "sqlite_errorcode", code) & 0xFF:
        case sqlite3.SQLITE_FULL:
            return StoreFull(f"no space left for {path}: free some space on its disk ({error})")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return _Busy(f"{path} is locked by another process: stop that process, or wait ({error})")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return _damaged(path, error)
        case 0xFF if type(error) is sqlite3.DatabaseError:
            return _damaged(path, error)
        case _:
            return StoreError(f"{path} cannot be used: {error}")


def _damaged(path: Path, error: Exception) -> StoreDamaged:
    return StoreDamaged(
        f"{path} is damaged ({error}); it was left unchanged. Restore a backup, "
        "or move the file away to start with an empty state"
    )
