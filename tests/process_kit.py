"""Real servers for tests: each one a process, with its log in a folder."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar


def paths_below(folder: Path) -> Iterator[Path]:
    """All folders and files below a folder. In contrast to `Path.rglob`, it passes over those that vanish meanwhile."""
    for parent, folders, files in os.walk(folder):
        yield from (Path(parent, name) for name in (*folders, *files))


class ServerProcess:
    """One server. Subclasses set `argv` and tell whether it serves."""

    argv: Sequence[str]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.process: subprocess.Popen[bytes] | None = None

    def serves(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self.argv, stdout=log, stderr=log)

    def wait(self) -> None:
        """Wait until it serves."""
        deadline = time.monotonic() + 120  # several servers on a loaded machine
        while not self.serves():
            assert self.process is not None
            assert self.process.poll() is None, (self.folder / "log").read_text()[-2_000:]
            assert time.monotonic() < deadline, f"{self.argv[0]} does not start"
            time.sleep(0.05)

    def pause(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Stop in an orderly way."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait(60)
        self.process = None

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


_Server = TypeVar("_Server", bound=ServerProcess)


@contextmanager
def started(servers: list[_Server]) -> Iterator[list[_Server]]:
    """Start all, and wait for them. Killed at the end of the block."""
    try:
        for server in servers:
            server.start()
        for server in servers:
            server.wait()
        yield servers
    finally:
        for server in servers:
            server.kill()
