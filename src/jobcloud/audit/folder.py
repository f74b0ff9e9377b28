"""The folder of an audit log: numbered files that only grow. One process at a time writes to it."""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path
from typing import BinaryIO, Protocol

from jobcloud.errors import ConfigError
from jobcloud.server.durable import sync_directory

_NAME = re.compile(r"audit-(\d{6,12})\.jsonl")
_LOCK = "lock"


class Folder(Protocol):
    """The operations on files that the log needs, so that tests can let each of them fail. They raise OSError."""

    def numbers(self) -> list[int]:
        """The numbers of the files, sorted."""

    def size(self, number: int) -> int: ...

    def tail(self, number: int, limit: int) -> bytes:
        """The last `limit` bytes of a file."""

    def append(self, number: int, content: bytes) -> None:
        """Write at the end of a file. Creates the file, durably, if there is none."""

    def sync(self, number: int) -> None:
        """Make the content of a file durable."""

    def truncate(self, number: int, size: int) -> None: ...

    def remove(self, number: int) -> None: ...

    def close(self) -> None: ...


def name_of(number: int) -> str:
    return f"audit-{number:06d}.jsonl"


def files_in(path: Path) -> list[Path]:
    """The files of a log in the order in which they were written."""
    return [path / name_of(number) for number in _numbers(path)]


def _numbers(path: Path) -> list[int]:
    return sorted(int(found[1]) for name in os.listdir(path) if (found := _NAME.fullmatch(name)))


class DiskFolder:
    """A folder on a disk. Raises ConfigError if another process writes to it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: tuple[int, BinaryIO] | None = None
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = open(path / _LOCK, "ab", opener=_private)  # noqa: SIM115 - held until `close`
        except OSError as error:
            problem = f"{path} cannot be used: {error.strerror or error}"
            raise ConfigError(problem, field="audit.path", fix="name a folder that this process can write to") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            problem = f"another process writes the audit log in {path}"
            raise ConfigError(problem, field="audit.path", fix="give each scheduler a folder of its own") from None

    def numbers(self) -> list[int]:
        return _numbers(self._path)

    def size(self, number: int) -> int:
        return (self._path / name_of(number)).stat().st_size

    def tail(self, number: int, limit: int) -> bytes:
        with (self._path / name_of(number)).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - limit))
            return file.read(limit)

    def append(self, number: int, content: bytes) -> None:
        file = self._opened(number)
        view = memoryview(content)
        while view:
            view = view[file.write(view) :]

    def sync(self, number: int) -> None:
        os.fsync(self._opened(number).fileno())

    def truncate(self, number: int, size: int) -> None:
        os.ftruncate(self._opened(number).fileno(), size)

    def remove(self, number: int) -> None:
        (self._path / name_of(number)).unlink(missing_ok=True)
        sync_directory(self._path)

    def close(self) -> None:
        self._end()
        self._lock.close()

    def _opened(self, number: int) -> BinaryIO:
        if self._open is not None and self._open[0] == number:
            return self._open[1]
        self._end()
        path = self._path / name_of(number)
        is_new = not path.exists()
        file: BinaryIO = open(path, "ab", buffering=0, opener=_private)  # noqa: SIM115
        self._open = number, file
        if is_new:
            sync_directory(self._path)
        return file

    def _end(self) -> None:
        opened, self._open = self._open, None
        if opened is not None:
            opened[1].close()


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)
