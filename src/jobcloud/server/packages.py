"""App packages on disk, by the hash of their content.

Layout: `<root>/<sha256>/package.<format>`. An upload is written to `<root>/.incoming/` and moves to its place only when
it is complete, inspected and synced. A stored package never changes, so readers need no lock. A package that no app and
no executor refers to is removed after a grace period, which leaves time to register an app for a new upload.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from errno import EDQUOT, ENOSPC
from pathlib import Path
from types import TracebackType

from jobcloud.config import SHA256
from jobcloud.errors import ConfigError, StoreError, StoreFull
from jobcloud.executor.package import PackageError, PackageInfo
from jobcloud.sentences import Told
from jobcloud.server.durable import sync_directory
from jobcloud.server.inspection import inspect_apart

_FILES = re.compile(r"package\.(zip|tar)")


@dataclass(frozen=True, slots=True)
class StoredPackage:
    """`size`: in bytes. `files`: the number of files in it. `file`: the name by which agents fetch it."""

    sha256: str
    size: int
    files: int
    file: str


class PackageStore:
    """Packages on disk. Raises ConfigError (field `package`) for an invalid package, StoreError if the disk fails."""

    def __init__(
        self,
        root: Path,
        *,
        max_bytes: int = 256 << 20,
        earlier_bytes: int = 4 << 30,
        grace_seconds: float = 3600.0,
        check: Callable[..., PackageInfo] = inspect_apart,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.max_bytes = max_bytes
        self.earlier_bytes = earlier_bytes
        # Held while an app is registered or removed and during `collect`, so that no package in use is removed.
        self.guard = threading.Lock()
        self._root = root
        self._incoming = root / ".incoming"
        self._grace = grace_seconds
        self._check = check
        self._clock = clock
        with _disk():
            self._incoming.mkdir(parents=True, exist_ok=True)
            self._remove_incomplete()

    def receive(self) -> Upload:
        """Begin an upload: write its chunks, then commit it, inside a `with` block."""
        return Upload(self)

    def _remove_incomplete(self) -> None:
        """Remove incomplete uploads that are older than the grace period.

        Younger ones may still be in progress in the leader's process, because schedulers can share the directory.
        """
        for path in self._incoming.iterdir():
            with contextlib.suppress(OSError):
                if path.stat().st_mtime < self._clock() - self._grace:
                    path.unlink()

    def find(self, sha256: str) -> Path | None:
        """The path of a package; None if it is not stored."""
        if not SHA256.fullmatch(sha256):
            return None
        with contextlib.suppress(OSError):
            for path in (self._root / sha256).iterdir():
                if _FILES.fullmatch(path.name):
                    return path
        return None

    def size(self, sha256: str) -> int | None:
        """The bytes of a package; None if it is not stored."""
        path = self.find(sha256)
        with contextlib.suppress(OSError):  # removed meanwhile
            return path.stat().st_size if path else None
        return None

    def renew(self, sha256: str) -> Path | None:
        """Like `find`, but also restarts the grace period of the package."""
        path = self.find(sha256)
        if path is not None:
            with contextlib.suppress(OSError):
                os.utime(path, (self._clock(), self._clock()))
        return path

    def stored(self) -> list[str]:
        """The hashes of all packages."""
        with _disk():
            return sorted(path.name for path in self._root.iterdir() if self.find(path.name))

    def usage(self) -> tuple[int, int]:
        """The number of packages, and their bytes together. Raises StoreError."""
        sizes = [size for sha256 in self.stored() if (size := self.size(sha256)) is not None]
        return len(sizes), sum(sizes)

    def collect(self, referenced: Iterable[str], earlier: Iterable[str] = ()) -> list[str]:
        """Remove packages past their grace period that are not in `referenced`. Returns their hashes.

        Of the packages in `earlier`, the newest first, those are kept that have at most `earlier_bytes` together.
        """
        keep = set(referenced)
        left = self.earlier_bytes
        for sha256 in dict.fromkeys(earlier):
            size = 0 if sha256 in keep else self.size(sha256) or 0
            if size > left:
                break
            left -= size
            keep.add(sha256)
        oldest = self._clock() - self._grace
        gone = []
        for sha256 in self.stored():
            path = self.find(sha256)
            with contextlib.suppress(OSError):
                if path and sha256 not in keep and path.stat().st_mtime < oldest:
                    shutil.rmtree(path.parent)
                    gone.append(sha256)
        return gone

    def adopt(self, incoming: Path, *, wheel: bool = False) -> StoredPackage:
        """Inspect a complete upload and move it to its place. With `wheel` the upload must be a wheel.

        Called by Upload.
        """
        try:
            with _disk():
                info = self._check(incoming, wheel=wheel)
        except PackageError as error:
            fix = Told("pack the app again as zip, tar or tar.gz", "pack_again")
            raise ConfigError(str(error), field="package", fix=fix) from error
        file = f"package.{info.format}"
        with _disk():
            place = self._root / info.sha256
            place.mkdir(exist_ok=True)
            # Replacing a package by the same content is harmless, and restarts its grace period.
            os.utime(incoming, (self._clock(), self._clock()))
            incoming.chmod(0o644)
            incoming.replace(place / file)
            for directory in (place, self._root):
                sync_directory(directory)
        return StoredPackage(info.sha256, info.packed_bytes, len(info.names), file)

    def incoming(self) -> tuple[int, Path]:
        """A new file for an upload: its descriptor and path. Called by Upload."""
        with _disk():
            descriptor, name = tempfile.mkstemp(dir=self._incoming)
            return descriptor, Path(name)


class Upload:
    """A package being received. Leaving the `with` block without `commit` drops it."""

    def __init__(self, store: PackageStore) -> None:
        self._store = store
        self._size = 0
        self._hash = hashlib.sha256()
        descriptor, self._path = store.incoming()
        self._file = os.fdopen(descriptor, "wb")

    def __enter__(self) -> Upload:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        self._path.unlink(missing_ok=True)

    def write(self, chunk: bytes) -> None:
        """Raises ConfigError above the size limit, StoreError if the disk fails."""
        self._size += len(chunk)
        if self._size > self._store.max_bytes:
            text, most = f"is larger than {self._store.max_bytes} bytes", self._store.max_bytes
            fix = Told("remove files that the app does not need", "fewer_files")
            raise ConfigError(Told(text, "large_package", most=most), field="package", fix=fix)
        self._hash.update(chunk)
        with _disk():
            self._file.write(chunk)

    @property
    def sha256(self) -> str:
        """The hash of everything written so far."""
        return self._hash.hexdigest()

    def commit(self, expected_sha256: str = "", *, wheel: bool = False) -> StoredPackage:
        """Store the upload. With `wheel` the upload must be a wheel.

        Raises ConfigError if it is not a package, or not the expected one.
        """
        if expected_sha256 and expected_sha256 != self.sha256:
            problem = Told(f"has the hash {self.sha256}, not the expected one", "other_hash", sha256=self.sha256)
            raise ConfigError(problem, field="package", fix=Told("upload it again", "send_again"))
        if not self._size:
            fix = Told("send the archive as the body of the request", "archive_as_body")
            raise ConfigError(Told("is empty", "empty_package"), field="package", fix=fix)
        with _disk():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        return self._store.adopt(self._path, wheel=wheel)


def referenced(packages: Iterable[str], specs: Iterable[str], stored: Iterable[str]) -> set[str]:
    """The hashes in use: those of registered apps, and those that the ExecutorInfo of a live executor names."""
    texts = tuple(specs)
    return set(packages) | {sha256 for sha256 in stored if any(sha256 in text for text in texts)}


@contextlib.contextmanager
def _disk() -> Iterator[None]:
    """Translate errors of the disk into StoreError."""
    try:
        yield
    except OSError as error:
        if error.errno in (ENOSPC, EDQUOT):
            raise StoreFull("no space left for the package") from error
        raise StoreError(f"cannot store packages: {error.strerror or error}") from error
