"""The output of tasks: bounded files, in one folder for each task."""

from __future__ import annotations

import os
import re
import threading
import time
from collections import deque
from typing import Callable, Deque, Optional, Tuple

LOG_BYTES = 10 << 20
TAIL_BYTES = 2000
# At most this many folders of ended tasks are kept. They have at most this many bytes together.
KEPT_FOLDERS = 500
KEPT_BYTES = 1 << 30
# The file `<stream>.times` has one line `OFFSET MILLISECONDS` per mark: the line of output that begins at this byte of
# the stream was written at this time (Unix, agent's clock). A change of this form needs another suffix.
TIMES_SUFFIX = ".times"
TIMES_BYTES = 64 << 10
_MARK_EVERY_S = 0.1
_MAX_FOLDER_NAME = 200
_UNSAFE = re.compile(r"[^A-Za-z0-9._@=-]|^\.")


def task_folder(task_id: str) -> str:
    """The name of a task's folder below `tasks/`: the id, with unsafe characters percent-encoded.

    If the name is too long, a hash of the id replaces its end.
    """
    name = _UNSAFE.sub(
        lambda match: "".join(f"%{byte:02X}" for byte in match.group().encode("utf-8", "replace")), task_id
    )
    if len(name) <= _MAX_FOLDER_NAME:
        return name
    import hashlib  # only for long or unusual ids

    return name[: _MAX_FOLDER_NAME - 17] + "-" + hashlib.sha256(task_id.encode("utf-8", "replace")).hexdigest()[:16]


class RotatingLog:
    """A file and its predecessor, each of at most `limit` bytes. The first byte creates the file.

    The predecessor is named `<file>.N`. N is the number of bytes of the stream that precede the bytes in `<file>`. So a
    reader finds its place after a rotation. Any thread may write. Output that cannot be written is dropped, because a
    job must not fail in a print() when the disk is full.

    `<file>.times` says when lines were written, at most every 0.1 s. It has at most TIMES_BYTES: when it is full, marks
    of bytes that no longer exist are dropped, and every second one of the others if too many are left.
    """

    def __init__(self, path: str, limit: int = LOG_BYTES, clock: Callable[[], float] = time.time) -> None:
        self._path, self._limit, self._clock = path, limit, clock
        self._marked_s = 0.0
        self._lock = threading.Lock()
        self._descriptor: Optional[int] = None
        self._ended = False
        self._size = 0
        self._before = 0
        self._tail = b""

    def write(self, data: bytes) -> bool:
        """Write `data`. After end(), write nothing and return False."""
        with self._lock:
            if self._ended:
                return False
            # If `data` continues a line, the line after it is marked.
            begin = 0 if self._tail[-1:] in (b"", b"\n") else data.find(b"\n") + 1 or len(data)
            self._tail = (self._tail + data[-TAIL_BYTES:])[-TAIL_BYTES:]
            left = memoryview(data)
            try:
                while left:
                    left = left[self._write_some(left) :]
                if begin < len(data):
                    self._mark(self._before + self._size - len(data) + begin)
            except OSError:
                pass
            return True

    def _mark(self, offset: int) -> None:
        """Note the time at which the line at `offset` was written, unless another line was marked just before."""
        now = self._clock()
        if 0 <= now - self._marked_s < _MARK_EVERY_S:
            return
        self._marked_s = now
        path = self._path + TIMES_SUFFIX
        with open(path, "ab") as file:
            file.write(b"%d %d\n" % (offset, round(now * 1000)))
            full = file.tell() > TIMES_BYTES
        if full:
            with open(path, "rb") as file:
                marks = file.read().splitlines(keepends=True)
            first = self._before - self._limit
            kept = [mark for mark in marks if int(mark.split()[0]) >= first]
            with open(path + ".new", "wb") as file:
                file.writelines(kept if len(kept) <= len(marks) // 2 else kept[::2])
            os.replace(path + ".new", path)

    def tail(self) -> str:
        """The last TAIL_BYTES of the output, as text."""
        return self._tail.decode("utf-8", "replace")

    def close(self) -> None:
        """Close the file. The next write opens it again."""
        with self._lock:
            self._close()

    def end(self) -> None:
        """Close the file. Later writes are refused."""
        with self._lock:
            self._ended = True
            self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _write_some(self, data: memoryview) -> int:
        if self._descriptor is None:
            self._descriptor = self._open()
        if self._size >= self._limit:
            self._rotate()
        written = os.write(self._descriptor, data[: self._limit - self._size])
        self._size += written
        return written

    def _open(self) -> int:
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        self._before = rotated(self._path)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._size = os.fstat(descriptor).st_size
        return descriptor

    def _rotate(self) -> None:
        """Rename the file, in one step, so that a reader finds its bytes under the old name or under the new name."""
        assert self._descriptor is not None
        self._close()
        previous, now = self._before, self._before + self._size
        os.replace(self._path, f"{self._path}.{now}")
        if previous:
            os.unlink(f"{self._path}.{previous}")
        self._descriptor = self._open()


def rotated(path: str) -> int:
    """The number of bytes of the stream that precede the bytes in the file at `path`.

    It is in the name of the file's predecessor, and 0 if there is no predecessor.
    """
    folder, name = os.path.split(path)
    ends = (entry[len(name) + 1 :] for entry in os.listdir(folder) if entry.startswith(name + "."))
    return max((int(end) for end in ends if end.isdigit()), default=0)


class TaskFolders:
    """The folders of tasks.

    If the folders of ended tasks exceed a limit, the folders of the tasks that ended first are removed.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._ended: Deque[Tuple[str, int]] = deque()
        self._bytes = 0

    def path(self, task_id: str) -> str:
        return os.path.join(self.root, task_folder(task_id))

    def ended(self, task_id: str) -> None:
        path = self.path(task_id)
        try:
            size = sum(entry.stat(follow_symlinks=False).st_size for entry in os.scandir(path))
        except OSError:
            return
        self._ended.append((path, size))
        self._bytes += size
        while len(self._ended) > KEPT_FOLDERS or self._bytes > KEPT_BYTES:
            oldest, size = self._ended.popleft()
            self._bytes -= size
            import shutil  # only the daemon removes folders, and workers import this module, too

            shutil.rmtree(oldest, ignore_errors=True)
