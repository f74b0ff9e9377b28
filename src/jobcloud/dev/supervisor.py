"""`jobcloud dev`: one process tree with a dev cluster, a scheduler and, with --demo, the demo app.

This process is the root of the tree. It starts the other processes, restarts those that die, and prints the server's
events. At the end it stops the others. The scheduler is the same program as in production. The client is imported while
the other processes start, which saves time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

import jobcloud
from jobcloud.dev import tcp_ports

if TYPE_CHECKING:
    from jobcloud.client.http import Client

_START_S = 60.0
_STOP_S = 4.0
_RESTART_LOOP_S = 10.0  # a process that ends within this time of its start is restarted after a pause


@dataclass(frozen=True, slots=True)
class DevOptions:
    """Options of `jobcloud dev`. Without `data`, the state is in a temporary folder.

    `config` is the settings file of the scheduler.
    """

    demo: bool = False
    agents: int = 2
    data: Path | None = None
    port: int = 8899
    config: Path | None = None


class Stopped(Exception):
    """A signal asks this process to stop."""


class StartFailed(Exception):
    """The process tree did not start. The text gives the reason."""


def run_dev(options: DevOptions) -> int:
    """Run until SIGINT or SIGTERM. Returns the exit code."""
    console = Console(highlight=False)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.suppress(Stopped))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _stop)
        data = options.data or Path(stack.enter_context(_temporary()))
        try:
            _ProcessTree(options, data.absolute(), console).run()
        except StartFailed as error:
            # The text may quote a log. Rich would take "[warning]" in it for markup.
            console.print(Text(str(error), "red"))
            return 1
    return 0


def _stop(number: int, frame: FrameType | None) -> None:
    # A second signal must not interrupt the clean-up after the first signal.
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.SIG_IGN)
    raise Stopped


@contextlib.contextmanager
def _temporary() -> Iterator[str]:
    """A folder that is removed at the end. Also removes the folders of `jobcloud dev` processes that were killed."""
    base = Path(tempfile.gettempdir())
    for left in base.glob("jobcloud-dev.*"):
        with contextlib.suppress(ValueError, OSError):
            if not Path(f"/proc/{int(left.name.split('.')[1])}").exists() and left.owner() == base.owner():
                shutil.rmtree(left, ignore_errors=True)
    folder = tempfile.mkdtemp(prefix=f"jobcloud-dev.{os.getpid()}.")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _ProcessTree:
    """The processes, and their files below `data`."""

    def __init__(self, options: DevOptions, data: Path, console: Console) -> None:
        self._options = options
        self._data = data
        self._console = console
        self._port = options.port or _free_ports(1)[0]
        self._url = f"http://127.0.0.1:{self._port}"
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._started: dict[str, float] = {}
        self._log_begin: dict[str, int] = {}

    def run(self) -> None:
        try:
            self._prepare()
            self._start("cluster")
            self._start("scheduler")
            from jobcloud.dev.terminal import EventPrinter, banner

            self._wait_until_healthy()
            printer = EventPrinter(self._console)
            follower = threading.Thread(target=printer.follow, args=(self._client(),), daemon=True)
            follower.start()
            if self._options.demo:
                self._register_demo()
            self._console.print(
                banner(self._client().url, self._data if self._options.data else None, self._options.demo)
            )
            self._print_link()
            self._supervise()
        except Stopped:
            # The terminal may be closed. The processes must be stopped nevertheless.
            with contextlib.suppress(OSError):
                self._console.print("stopping")
        finally:
            self._end()

    def _prepare(self) -> None:
        """Check the port, claim the data directory and choose the other ports. Raises StartFailed."""
        self._claim_port()
        try:
            self._data.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock()
            self._token = _token(self._data / "token")
        except OSError as error:
            raise StartFailed(
                f"{self._data} cannot be used as --data: {error.strerror or error}; name a directory you may write to"
            ) from error
        self._master_port, self._artifact_port = _free_ports(2)

    def _claim_port(self) -> None:
        """Raise StartFailed if the port is in use. Another server there would be taken for our scheduler."""
        try:
            socket.create_server(("127.0.0.1", self._port)).close()
        except OSError as error:
            raise StartFailed(
                f"port {self._port} is not available: {error.strerror or error}; stop the process that listens there"
                " (another `jobcloud dev`?), or choose a port with --port"
            ) from error

    def _lock(self) -> None:
        """Allow one process tree per data directory: two schedulers with one store would fence each other forever."""
        self._lock_file = open(self._data / "dev.lock", "a")  # noqa: SIM115 - held until the process ends
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartFailed(
                f"{self._data} is in use by another `jobcloud dev`: stop it, or name another directory with --data"
            ) from None

    def _start(self, name: str) -> None:
        with open(self._data / f"{name}.log", "ab") as log:
            self._log_begin[name] = log.tell()
            self._children[name] = subprocess.Popen(
                [sys.executable, "-m", "jobcloud.dev.parent_death", str(os.getpid()), *self._command(name)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C signals the terminal's foreground group. Only the root is in this group, and stops the others.
                process_group=0,
            )
        self._started[name] = time.monotonic()

    def _command(self, name: str) -> list[str]:
        if name == "cluster":
            return [
                sys.executable, "-m", "jobcloud.dev.cluster", f"--agents={self._options.agents}",
                f"--port={self._master_port}", f"--data={self._data / 'cluster'}",
            ]  # fmt: skip
        return [
            sys.executable, "-m", "jobcloud", "scheduler", "--mesos", f"127.0.0.1:{self._master_port}",
            "--data", str(self._data), "--port", str(self._port),
            "--token-file", str(self._data / "token"), "--artifact-port", str(self._artifact_port),
            *([f"--config={self._options.config.absolute()}"] if self._options.config else []),
        ]  # fmt: skip

    def _client(self) -> Client:
        from jobcloud.client import context
        from jobcloud.client.http import Client
        from jobcloud.ports import TlsFiles

        # Only the scheduler knows whether the settings give it TLS.
        found = context.of_process(self._children["scheduler"].pid)
        if found is None:
            return Client(self._url, self._token)
        return Client(found.url, self._token, tls=TlsFiles(found.ca_file))

    def _wait_until_healthy(self) -> None:
        from jobcloud.client.http import ApiError, NotReachable

        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            for name, child in self._children.items():
                if child.poll() is not None:
                    raise StartFailed(
                        f"the {name} ended while it started; the end of {self._data / name}.log:\n" + self._tail(name)
                    )
            with contextlib.suppress(ApiError, NotReachable):
                if self._client().health().get("leading"):
                    return
            time.sleep(0.05)
        raise StartFailed(
            f"the scheduler was not healthy after {_START_S:g} s; the end of its log:\n" + self._tail("scheduler")
        )

    def _print_link(self) -> None:
        from jobcloud.client.http import ApiError

        with contextlib.suppress(ApiError):
            link = self._client().make_link()["url"]
            # A line of its own that Rich does not break, so that terminals recognise the link.
            self._console.print(Text(f"To sign a browser in, once and within 15 minutes:\n{link}"), soft_wrap=True)

    def _register_demo(self) -> None:
        """Do the same as `jobcloud app add examples/demo`. The jobs write their output below `data`."""
        from jobcloud.client.apps import add_app

        folder = Path(jobcloud.__file__).parents[2] / "examples" / "demo"
        if not folder.is_dir():
            raise StartFailed(f"the demo app is part of the source code: {folder} does not exist")
        add_app(self._client(), folder, job_fields={"jobParameter": str(self._data / "demo-output")})

    def _supervise(self) -> None:
        while True:
            time.sleep(0.2)
            for name, child in list(self._children.items()):
                if child.poll() is not None:
                    self._console.print(f"[yellow]the {name} ended with {child.returncode}: restarting it[/]")
                    if time.monotonic() - self._started[name] < _RESTART_LOOP_S:
                        time.sleep(1.0)
                    self._start(name)

    def _end(self) -> None:
        """Stop the scheduler before the cluster. The scheduler would report the end of the cluster as a failure."""
        deadline = time.monotonic() + _STOP_S
        for name in ("scheduler", "cluster"):
            child = self._children.get(name)
            if child is None:
                continue
            child.terminate()
            try:
                child.wait(max(0.1, deadline - time.monotonic() - (1.5 if name == "scheduler" else 0)))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def _tail(self, name: str) -> str:
        """The last lines that a process has written to its log since the process started."""
        with contextlib.suppress(OSError), open(self._data / f"{name}.log", "rb") as log:
            log.seek(self._log_begin[name])
            return "\n".join(log.read().decode(errors="replace").splitlines()[-15:])
        return ""


def _token(path: Path) -> str:
    """The token in a private file, which is created on first use."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_text().strip()
    token = secrets.token_urlsafe(24)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as file:
        file.write(token)
    return token


def _free_ports(count: int) -> list[int]:
    try:
        return tcp_ports.free_ports(count)
    except OSError as error:
        raise StartFailed(str(error)) from error
