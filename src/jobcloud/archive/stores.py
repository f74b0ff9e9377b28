"""The stores of the archive: their interface, and a directory. Another module has S3-compatible stores."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from jobcloud.adapters.folders import make_private
from jobcloud.errors import JobcloudError

_UNFINISHED = ".new"
# A file of an unfinished write is removed if it is older than this: its writer has crashed.
_UNFINISHED_S = 3_600


class Away(JobcloudError):
    """A store cannot be used now: it does not answer, refuses the access, or is full."""


class Stored(NamedTuple):
    """An object of a store. `ms`: the instant at which it was written, by the clock of the store."""

    name: str
    size: int
    ms: int


class LogStore(Protocol):
    """Objects by name. Names are relative paths, which jobcloud makes. Threads may share a store.

    Every method may raise Away.
    """

    def prepare(self) -> None:
        """Make sure that objects can be written. Called before any other method."""

    def put(self, name: str, content: bytes) -> None:
        """Store an object, or replace it. A reader sees the old content or the new one."""

    def open(self, name: str) -> BinaryIO:
        """The content of an object, in which the reader can seek. Raises FileNotFoundError."""

    def list(self) -> Iterator[Stored]:
        """All objects, in any order. Objects of other programs may be among them."""

    def delete(self, names: Sequence[str]) -> None:
        """Delete objects. Missing ones are ignored."""


class DirectoryStore:
    """Objects are files below `folder`/`root`, in folders with names of two characters. Only the owner has access."""

    def __init__(self, folder: Path, root: str) -> None:
        self._folder = folder
        self._root = folder / root

    def __str__(self) -> str:
        return str(self._folder)

    def prepare(self) -> None:
        with self._away():
            make_private(self._folder, "archive of logs")
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)

    def put(self, name: str, content: bytes) -> None:
        path = self._root / name
        unfinished = path.with_name(f".{uuid.uuid4().hex}{_UNFINISHED}")
        with self._away():
            path.parent.mkdir(exist_ok=True, mode=0o700)
            try:
                descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                with open(descriptor, "wb", buffering=0) as file:
                    left = memoryview(content)
                    while left:
                        left = left[file.write(left) :]
                    os.fsync(file.fileno())
                unfinished.replace(path)
            except OSError:
                with suppress(OSError):
                    unfinished.unlink()
                raise

    def open(self, name: str) -> BinaryIO:
        with self._away():
            return (self._root / name).open("rb")

    def list(self) -> Iterator[Stored]:
        with self._away():
            for folder in sorted(self._root.glob("[0-9a-f][0-9a-f]/")):
                with os.scandir(folder) as entries:
                    yield from self._files(folder.name, entries)

    def delete(self, names: Sequence[str]) -> None:
        with self._away():
            for name in names:
                (self._root / name).unlink(missing_ok=True)

    def _files(self, folder: str, entries: Iterable[os.DirEntry[str]]) -> Iterator[Stored]:
        for entry in entries:
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if entry.name.endswith(_UNFINISHED):
                    if status.st_mtime < time.time() - _UNFINISHED_S:
                        os.unlink(entry)
                elif entry.is_file(follow_symlinks=False):
                    yield Stored(f"{folder}/{entry.name}", status.st_size, int(status.st_mtime * 1_000))

    @contextmanager
    def _away(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            if self._root.is_dir():
                raise
            raise Away(f"the directory {self._folder} is gone") from None
        except OSError as error:
            raise Away(f"{self._folder}: {error.strerror or error}") from error
