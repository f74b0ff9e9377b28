"""Sandboxes of executors: directories, fetched files, processes and their end.

Each executor leads its own session. When an executor ends, all processes that it started are killed. The sandbox in
their environment identifies these processes. When the cluster's process ends, even by SIGKILL, the executors get
SIGKILL as their parent-death signal, and the warden process kills all other processes. The kernel sends this signal
when the thread that forked the executor ends, so only the main thread starts executors.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from .protocol import Json, StartExecutor

_ARCHIVES = {
    ".tar": "tar",
    ".tar.gz": "gztar",
    ".tgz": "gztar",
    ".tar.bz2": "bztar",
    ".tbz2": "bztar",
    ".tar.xz": "xztar",
    ".txz": "xztar",
    ".zip": "zip",
}
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PR_SET_PDEATHSIG = 1
_FETCH_SECONDS = 60
_MAX_KILL_SCANS = 100
_libc = ctypes.CDLL(None, use_errno=True)


class LaunchError(Exception):
    """An executor could not be started. The text becomes the message in the updates of its tasks."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """An agent's work directory, and the agent settings that executors get in their environment."""

    work_dir: Path
    port: int
    shutdown_grace: str = "5secs"

    @property
    def agents_dir(self) -> Path:
        """The root of all sandboxes of the agent, under its present id and its earlier ids."""
        return self.work_dir / "slaves"

    def sandbox(self, start: StartExecutor) -> Path:
        executor_id = str(start.executor["executor_id"]["value"])
        executors = self.agents_dir / start.agent_id / "frameworks" / start.framework_id / "executors"
        return executors / executor_id / "runs" / start.container_id


def prepare(workspace: Workspace, start: StartExecutor) -> Path:
    """Create a sandbox and fetch the URIs of the command. The call blocks: use a thread. Raises LaunchError."""
    sandbox = workspace.sandbox(start)
    sandbox.mkdir(parents=True)
    latest = sandbox.parent / "latest"
    latest.unlink(missing_ok=True)
    latest.symlink_to(sandbox)
    for uri in start.executor["command"].get("uris") or []:
        try:
            _fetch(uri, sandbox, workspace.work_dir / "fetch-cache")
        except (OSError, ValueError, EOFError, shutil.Error, zipfile.BadZipFile) as failure:
            (sandbox / "stderr").write_text(f"Failed to fetch '{uri['value']}': {failure}\n")
            text = f"Failed to fetch all URIs for container '{start.container_id}': exited with status 1"
            raise LaunchError(f"Failed to launch container: {text}") from None
    return sandbox


def _fetch(uri: Json, sandbox: Path, cache: Path) -> None:
    source = uri["value"].strip()
    target = (sandbox / (uri.get("output_file") or source.rpartition("/")[2])).resolve()
    if not target.is_relative_to(sandbox.resolve()) or target == sandbox.resolve():
        raise ValueError("its name leads outside the sandbox")
    target.parent.mkdir(parents=True, exist_ok=True)
    if uri.get("cache"):
        shutil.copyfile(_cached(source, cache), target)
    else:
        _download(source, target)
    if uri.get("executable"):
        target.chmod(0o755)
    elif uri.get("extract", True):
        _extract(target, sandbox)


def _cached(source: str, cache: Path) -> Path:
    """The cached copy of a URI. Executors that start at the same time may each download it."""
    cached = cache / sha256(source.encode()).hexdigest()
    if not cached.exists():
        cache.mkdir(parents=True, exist_ok=True)
        descriptor, partial = tempfile.mkstemp(dir=cache)
        os.close(descriptor)
        try:
            _download(source, Path(partial))
            os.replace(partial, cached)
        finally:
            Path(partial).unlink(missing_ok=True)
    return cached


def _download(source: str, target: Path) -> None:
    url = urlsplit(source)
    if url.scheme in ("http", "https"):
        with urllib.request.urlopen(source, timeout=_FETCH_SECONDS) as answer, target.open("wb") as out:  # noqa: S310
            shutil.copyfileobj(answer, out)
        return
    path = source.removeprefix("file://").removeprefix("localhost")
    if url.scheme not in ("", "file") or not path.startswith("/"):
        raise ValueError("the fetcher supports http, https, file and absolute paths")
    shutil.copyfile(path, target)


def _extract(path: Path, sandbox: Path) -> None:
    for ending, kind in sorted(_ARCHIVES.items(), key=lambda item: -len(item[0])):
        if path.name.endswith(ending):
            if kind == "zip":
                shutil.unpack_archive(path, sandbox, kind)
            else:
                shutil.unpack_archive(path, sandbox, kind, filter="data")
            return


def environment(workspace: Workspace, start: StartExecutor, sandbox: Path) -> dict[str, str]:
    """The environment of an executor: Mesos' variables, then those of its command."""
    variables = {
        "PATH": _DEFAULT_PATH,
        "LIBPROCESS_PORT": "0",
        "LIBPROCESS_IP": "127.0.0.1",
        "MESOS_FRAMEWORK_ID": start.framework_id,
        "MESOS_EXECUTOR_ID": start.executor["executor_id"]["value"],
        "MESOS_DIRECTORY": str(sandbox),
        "MESOS_SANDBOX": str(sandbox),
        "MESOS_SLAVE_ID": start.agent_id,
        "MESOS_SLAVE_PID": f"slave(1)@127.0.0.1:{workspace.port}",
        "MESOS_AGENT_ENDPOINT": f"127.0.0.1:{workspace.port}",
        "MESOS_CHECKPOINT": "1" if start.checkpoint else "0",
        "MESOS_HTTP_COMMAND_EXECUTOR": "0",
        "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD": _grace(workspace, start.executor),
    }
    if start.checkpoint:
        variables["MESOS_RECOVERY_TIMEOUT"] = "15mins"
        variables["MESOS_SUBSCRIPTION_BACKOFF_MAX"] = "2secs"
    own = (start.executor["command"].get("environment") or {}).get("variables") or []
    variables.update({one["name"]: one.get("value", "") for one in own})
    return variables


def _grace(workspace: Workspace, executor: Json) -> str:
    given = (executor.get("shutdown_grace_period") or {}).get("nanoseconds")
    if given is None:
        return workspace.shutdown_grace
    return f"{given // 10**9}secs" if given % 10**9 == 0 else f"{given / 10**6:g}ms"


def start_process(workspace: Workspace, start: StartExecutor, sandbox: Path) -> subprocess.Popen[bytes]:
    """Start an executor in its sandbox. Call it in the main thread only. Raises LaunchError."""
    command = start.executor["command"]
    if command.get("shell", True):
        argv = ["/bin/sh", "-c", command.get("value", "")]
    else:
        own = sandbox / command.get("value", "")
        program = str(own) if own.is_file() and os.access(own, os.X_OK) else command.get("value", "")
        argv = [program, *(command.get("arguments") or [program])[1:]]
    with (sandbox / "stdout").open("ab") as out, (sandbox / "stderr").open("ab") as err:
        try:
            return subprocess.Popen(
                argv,
                cwd=sandbox,
                env=environment(workspace, start, sandbox),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=_end_with_parent(os.getpid()),  # noqa: PLW1509 - two system calls, no lock
            )
        except (OSError, ValueError) as failure:
            err.write(f"Failed to execute '{argv[0]}': {failure}\n".encode())
            raise LaunchError(f"Failed to launch container: {failure}") from None


def _end_with_parent(parent: int) -> Callable[[], None]:
    def set_signal() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent ended before the signal was set
            os._exit(1)

    return set_signal


def kill_all(sandbox: Path, leader: int = 0) -> None:
    """Send SIGKILL to the process group of `leader` and to every process with a sandbox in or below `sandbox`."""
    if leader:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)
    for _ in range(_MAX_KILL_SCANS):  # the next scan finds processes that were forked during this scan
        found = list(_processes_of(sandbox))
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)


class Warden:
    """A process that cleans up after the cluster's process has ended, even if a signal killed that process.

    Only the cluster's process holds the other end of a pipe to the warden. When the pipe closes, the warden kills every
    process started below `root` and removes `temporary`. Create the warden before any thread and the event loop.
    """

    def __init__(self, root: Path, temporary: Path | None) -> None:
        watched, self._held = os.pipe()
        self._pid = os.fork()
        if self._pid:
            os.close(watched)
            return
        try:
            self._watch(watched, root, temporary)
        finally:
            os._exit(0)

    def _watch(self, watched: int, root: Path, temporary: Path | None) -> None:
        os.setsid()  # signals to the cluster's terminal or process group must not reach the warden
        os.close(self._held)
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):  # the warden must not keep the cluster's output open
            os.dup2(null, number)
        os.read(watched, 1)
        kill_all(root)
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)

    def finish(self) -> None:
        """Let the warden clean up, and wait until it has ended."""
        os.close(self._held)
        os.waitpid(self._pid, 0)


def _processes_of(sandbox: Path) -> Iterator[int]:
    mark = f"MESOS_DIRECTORY={sandbox}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                for variable in (entry / "environ").read_bytes().split(b"\0"):
                    if variable == mark or variable.startswith(mark + b"/"):
                        yield int(entry.name)
                        break
