"""The warden: a small process that outlives the daemon, and then kills the descendants of the daemon's children.

The warden is a fork of the daemon and only waits. So it is forked before the daemon imports most of its modules: this
module and the modules that it imports are all that the warden has in memory. Keep its imports few.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator

MARK = "JOBCLOUD_PROCESS"
# A search for processes that must end takes at most this long. On a busy machine, a killed process remains in /proc for
# some time.
_SEARCH_S = 2.0
_LONGEST_PAUSE_S = 0.05
# A scan of /proc can miss the child of a process that forks and ends during the scan. So the warden ends its search
# only after this number of scans in a row that have found nothing.
_CLEAN_SCANS = 3


def start_warden(family: str) -> int:
    """Fork the warden. When this process has ended, the warden kills all processes with marks of `family`.

    Returns the warden's pid. All marks of this executor begin with `family`. Call this before there are threads. The
    warden reads from a pipe, and only this process has the write end. So the warden waits until this process ends.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _guard(read, write, family)
        finally:
            os._exit(0)
    os.close(read)
    return pid


def _guard(read: int, write: int, family: str) -> None:
    os.close(write)
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    os.read(read, 1)
    clean_scans = 0
    for _ in scans():
        left = [pid for pid, _ in parents() if mark_of(pid).startswith(family + ".")]
        clean_scans = 0 if left else clean_scans + 1
        if clean_scans == _CLEAN_SCANS:
            return
        for pid in left:
            kill_with_group(pid)


def scans() -> Iterator[None]:
    """The scans of one search. A pause precedes each scan except the first.

    The first pause is 2 ms, later ones are longer.
    """
    deadline = time.monotonic() + _SEARCH_S
    pause = 0.002
    yield
    while time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)
        yield


def kill_group(pid: int, number: int) -> None:
    """Send a signal to a process group, but never to the own one. A group that is gone is no error."""
    if pid <= 1 or pid == os.getpgrp():
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def kill_with_group(pid: int) -> None:
    """Kill a process with its group, so that a child that the process has just forked is killed too."""
    group = int((stat_of(pid) or [b"", b"", b"0"])[2])
    if group > 1:
        kill_group(group, signal.SIGKILL)
    _kill(pid)


def parents() -> Iterator[tuple[int, int]]:
    """The pids of all processes, each with the pid of its parent."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = stat_of(int(name))
            if fields:
                yield int(name), int(fields[1])


def stat_of(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat from the state of the process on; [] if the process is gone.

    The fields before them are the pid and the name of the program, which may contain any character.
    """
    try:
        return read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def mark_of(pid: int) -> str:
    """The mark in a process's environment; "" if there is none, or if the process is ending or has ended."""
    try:
        for entry in read(f"/proc/{pid}/environ").split(b"\0"):
            if entry.startswith(MARK.encode() + b"="):
                return entry.partition(b"=")[2].decode("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        pass
    return ""


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
