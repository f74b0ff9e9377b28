"""What an agent does on its machine: directories, fetched files, executor processes and their end.

Every executor leads a session of its own and is killed with everything it started when it or the cluster ends: it gets
SIGKILL when the cluster's process dies however that happens (PR_SET_PDEATHSIG, which belongs to the thread that forks,
so executors are started by the main thread only), and what it left running is found by the sandbox in its environment,
by the cluster's process or, if that one was killed, by its warden.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
_KILL_ROUNDS = 100
_libc = ctypes.CDLL(None, use_errno=True)


class LaunchError(Exception):
    """An executor that could not be started; the text is the message of its tasks' updates."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where an agent works and what executors are told of it."""

    work_dir: Path
    port: int
    shutdown_grace: str = "5secs"

    def sandbox(self, start: StartExecutor) -> Path:
        executor_id = str(start.executor["executor_id"]["value"])
        executor = self.executors(start.agent_id, start.framework_id) / executor_id
        return executor / "runs" / start.container_id

    def executors(self, agent_id: str, framework_id: str) -> Path:
        return self.work_dir / "slaves" / agent_id / "frameworks" / framework_id / "executors"


def prepare(machine: Machine, start: StartExecutor) -> Path:
    """A new sandbox with everything the command wants fetched. Slow: not for the main thread. Raises LaunchError."""
    sandbox = machine.sandbox(start)
    sandbox.mkdir(parents=True)
    latest = sandbox.parent / "latest"
    latest.unlink(missing_ok=True)
    latest.symlink_to(sandbox)
    for uri in start.executor["command"].get("uris") or []:
        try:
            _fetch(uri, sandbox, machine.work_dir / "fetch-cache")
        except (OSError, ValueError, EOFError, shutil.Error, zipfile.BadZipFile) as failure:
            (sandbox / "stderr").write_text(f"Failed to fetch '{uri['value']}': {failure}\n")
            text = f"Failed to fetch all URIs for container '{start.container_id}': exited with status 1"
            raise LaunchError(f"Failed to launch container: {text}") from None
    return sandbox


def _fetch(uri: Json, sandbox: Path, cache: Path) -> None:
    where = uri["value"].strip()
    target = (sandbox / (uri.get("output_file") or where.rpartition("/")[2])).resolve()
    if not target.is_relative_to(sandbox.resolve()) or target == sandbox.resolve():
        raise ValueError("its name leads out of the sandbox")
    target.parent.mkdir(parents=True, exist_ok=True)
    if uri.get("cache"):
        cached = cache / where.encode().hex()[-200:]
        if not cached.exists():
            cache.mkdir(parents=True, exist_ok=True)
            _download(where, cached)
        shutil.copyfile(cached, target)
    else:
        _download(where, target)
    if uri.get("executable"):
        target.chmod(0o755)
    elif uri.get("extract", True):
        _extract(target, sandbox)


def _download(where: str, target: Path) -> None:
    url = urlsplit(where)
    if url.scheme in ("http", "https"):
        with urllib.request.urlopen(where, timeout=_FETCH_SECONDS) as answer, target.open("wb") as out:  # noqa: S310
            shutil.copyfileobj(answer, out)
        return
    path = where.removeprefix("file://").removeprefix("localhost")
    if url.scheme not in ("", "file") or not path.startswith("/"):
        raise ValueError("the fetcher knows http, https, file and absolute paths")
    shutil.copyfile(path, target)


def _extract(path: Path, sandbox: Path) -> None:
    for ending, kind in sorted(_ARCHIVES.items(), key=lambda item: -len(item[0])):
        if path.name.endswith(ending):
            if kind == "zip":
                shutil.unpack_archive(path, sandbox, kind)
            else:
                shutil.unpack_archive(path, sandbox, kind, filter="data")
            return


def environment(machine: Machine, start: StartExecutor, sandbox: Path) -> dict[str, str]:
    """What Mesos' agent tells an executor of the v1 API; the command's own variables come last."""
    made = {
        "PATH": _DEFAULT_PATH,
        "LIBPROCESS_PORT": "0",
        "LIBPROCESS_IP": "127.0.0.1",
        "MESOS_FRAMEWORK_ID": start.framework_id,
        "MESOS_EXECUTOR_ID": start.executor["executor_id"]["value"],
        "MESOS_DIRECTORY": str(sandbox),
        "MESOS_SANDBOX": str(sandbox),
        "MESOS_SLAVE_ID": start.agent_id,
        "MESOS_SLAVE_PID": f"slave(1)@127.0.0.1:{machine.port}",
        "MESOS_AGENT_ENDPOINT": f"127.0.0.1:{machine.port}",
        "MESOS_CHECKPOINT": "1" if start.checkpoint else "0",
        "MESOS_HTTP_COMMAND_EXECUTOR": "0",
        "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD": _grace(machine, start.executor),
    }
    if start.checkpoint:
        made["MESOS_RECOVERY_TIMEOUT"] = "15mins"
        made["MESOS_SUBSCRIPTION_BACKOFF_MAX"] = "2secs"
    variables = (start.executor["command"].get("environment") or {}).get("variables") or []
    made.update({one["name"]: one.get("value", "") for one in variables})
    return made


def _grace(machine: Machine, executor: Json) -> str:
    given = (executor.get("shutdown_grace_period") or {}).get("nanoseconds")
    if given is None:
        return machine.shutdown_grace
    return f"{given // 10**9}secs" if given % 10**9 == 0 else f"{given / 10**6:g}ms"


def start_process(machine: Machine, start: StartExecutor, sandbox: Path) -> subprocess.Popen[bytes]:
    """Start an executor in its sandbox; from the main thread only. Raises LaunchError."""
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
                env=environment(machine, start, sandbox),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509 - two system calls, no lock
            )
        except (OSError, ValueError) as failure:
            err.write(f"Failed to execute '{argv[0]}': {failure}\n".encode())
            raise LaunchError(f"Failed to launch container: {failure}") from None


def _die_with(parent: int) -> Callable[[], None]:
    def ask() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return ask


def kill_all(sandbox: Path, leader: int = 0) -> None:
    """SIGKILL to the session's leader, its group and every process that was started in (or below) a sandbox."""
    if leader:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)
    for _ in range(_KILL_ROUNDS):  # what forks while it is looked for is found in the next round
        found = list(_processes_of(sandbox))
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)


class Warden:
    """A process that outlives the cluster's by a moment, to kill what that one left if it was killed itself.

    It waits for the end of a pipe that the cluster's process holds and nobody else, then kills everything that was
    started below `root` and, if it is to, removes `temporary`. Make it before there are threads or an event loop.
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
        os.setsid()  # no signal meant for the cluster's terminal or group
        os.close(self._held)
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):  # who reads the cluster's output must see its end
            os.dup2(nothing, number)
        os.read(watched, 1)
        kill_all(root)
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)

    def dismiss(self) -> None:
        """The cluster has ended in order."""
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
