"""Start processes in a way that lets the daemon end each of them together with all its descendants.

Every child of the daemon leads a session of its own and carries a mark in its environment. The daemon is a subreaper:
when the parent of a descendant dies, the descendant becomes a child of the daemon. So the daemon finds descendants that
have left their session, and recognizes them by the mark. When the daemon is killed, the kernel kills the daemon's
children (PR_SET_PDEATHSIG). The warden (warden.py) kills the descendants of these children.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from jobcloud.executor.loop import log
from jobcloud.executor.warden import MARK, kill_group, kill_with_group, mark_of, parents, read, scans, stat_of

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
# Source: glibc, malloc.h; the parameter of mallopt(3).
_M_ARENA_MAX = -8
# The daemon needs a few descriptors for each execution. This many are enough.
_MAX_FILES = 65_536
# These errors say that the machine has no room for another process. They say nothing about the program.
_SHORTAGES = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM})

try:
    _prctl: Optional[Callable[..., int]] = ctypes.CDLL(None, use_errno=True).prctl
except (OSError, AttributeError):
    _prctl = None


def own_program(module: str) -> List[str]:
    """The command that calls `main` of an executor module with the daemon's own interpreter.

    The command removes the current directory from the import path before it imports `module`. So a file `json.py` in
    the current directory is harmless.
    """
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return [sys.executable, "-c", f"import sys; sys.path[:1] = [{root!r}]; from {module} import main; main()"]


def become_subreaper() -> None:
    """Make this process the parent of orphaned descendants, instead of init. If the kernel refuses, log this."""
    if _prctl is None or _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        log("cannot become a subreaper; processes that leave their session may survive their task")


def share_one_heap() -> None:
    """Let all threads share one heap. Call this before there is a second thread.

    By default, glibc gives each thread its own heap. Memory that one thread allocates and another thread frees then
    leaves holes, and the daemon grows with every task. With another C library, this function has no effect.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def give_back_memory() -> None:
    """Return free memory of the C library to the kernel. If the C library is not glibc, this function has no effect."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def take_open_files() -> Tuple[int, int]:
    """Increase this process's limit of open files. Returns the previous (soft, hard) limits, for its children."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return soft, hard


def is_shortage(error: Exception) -> bool:
    """Whether a process could not be started because the machine is out of a resource."""
    return isinstance(error, OSError) and error.errno in _SHORTAGES


def _die_with_parent() -> None:
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


@dataclass(frozen=True)
class Rlimits:
    """Kernel limits of each process of an execution: address space, CPU time, open files.

    If a limit is None, the process has the agent's limit. A limit holds for each process: an execution with two
    processes can use twice as much. Source: setrlimit(2).
    """

    memory_mb: Optional[int] = None
    cpu_s: Optional[int] = None
    open_files: Optional[int] = None

    def table(self) -> List[Tuple[int, Tuple[int, int]]]:
        """The arguments of setrlimit: (which, (soft, hard)). No value is above the daemon's own hard limit."""
        wanted = (
            (resource.RLIMIT_AS, self.memory_mb and self.memory_mb << 20, 0),
            # The process gets SIGXCPU at the soft limit, and SIGKILL one second later.
            (resource.RLIMIT_CPU, self.cpu_s, 1),
            (resource.RLIMIT_NOFILE, self.open_files, 0),
        )
        return [(which, _within(which, limit, slack)) for which, limit, slack in wanted if limit]


NO_LIMITS = Rlimits()


def _within(which: int, limit: int, slack: int) -> Tuple[int, int]:
    _, ceiling = resource.getrlimit(which)
    hard = limit + slack if ceiling == resource.RLIM_INFINITY else min(limit + slack, ceiling)
    return min(limit, hard), hard


def _before_exec(limits: List[Tuple[int, Tuple[int, int]]]) -> Callable[[], None]:
    def prepare() -> None:
        _die_with_parent()
        for which, bounds in limits:
            resource.setrlimit(which, bounds)

    return prepare


class Child:
    """A process that was started here. It leads a session and a process group.

    `out_of_memory` is set when the process has ended. It is True if the kernel has probably killed the process because
    memory ran out: the daemon did not send the SIGKILL that ended the process, and the kernel has killed a process of
    the control group for lack of memory since the start of this process.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", mark: str, on_exit: Callable[[int], None]) -> None:
        self.out_of_memory = False
        self.oom_kills_before = oom_kills()
        self.pid = process.pid
        self.mark = mark
        self.killed = False
        self.on_exit = on_exit
        self.process = process


class Children:
    """All processes that were started here.

    Only one thread may call `spawn`. This thread must live as long as the children, because the kernel kills the
    children when the thread ends (PR_SET_PDEATHSIG). When the whole process group of a child is dead, the child's
    `on_exit` is posted with the exit code. If a signal has ended the child, the code is the negative number of the
    signal.
    """

    def __init__(self, post: Callable[..., None], family: str, warden: int, open_files: Tuple[int, int]) -> None:
        self._post, self._family, self._warden = post, family, warden
        self._inherited = [(resource.RLIMIT_NOFILE, open_files)]
        self._lock = threading.Lock()
        self._children: Dict[int, Child] = {}
        self._started = threading.Event()
        self._marks = self._reaped_orphans = 0
        threading.Thread(target=self._reap, name="reaper", daemon=True).start()

    def spawn(
        self,
        argv: Sequence[str],
        *,
        cwd: str,
        env: Mapping[str, str],
        stdout: int,
        stderr: int,
        on_exit: Callable[[int], None],
        pass_fds: Sequence[int] = (),
        limits: Rlimits = NO_LIMITS,
    ) -> Child:
        """Start a program. Raises OSError or SubprocessError if it cannot be started."""
        self._marks += 1
        mark = f"{self._family}.{self._marks}."
        prepare = _before_exec([*self._inherited, *limits.table()])
        # The reaper must not find a child that is not in the table yet.
        with self._lock:
            process = subprocess.Popen(
                argv,
                cwd=cwd,
                env={**env, MARK: mark},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                pass_fds=pass_fds,
                start_new_session=True,
                preexec_fn=prepare,  # noqa: PLW1509 - it makes only system calls and takes no lock
            )
            child = Child(process, mark, on_exit)
            self._children[child.pid] = child
        self._started.set()
        return child

    def signal_group(self, child: Child, number: int) -> None:
        """Send a signal to the child's process group.

        If the child was reaped, do nothing, because another process may have the pid now.
        """
        with self._lock:
            if child.pid in self._children:
                child.killed = child.killed or number == signal.SIGKILL
                kill_group(child.pid, number)

    def kill_all(self) -> None:
        """SIGKILL every descendant that can be found, orphans included."""
        for _ in scans():
            reaped = self._reaped_orphans
            with self._lock:
                for pid in self._children:
                    kill_group(pid, signal.SIGKILL)
                left = [pid for pid in _own_children() if pid != self._warden and _alive(pid)]
                for pid in left:
                    kill_with_group(pid)
            if not left and self._none_reaped_since(reaped):
                return

    def _reap(self) -> None:
        while True:
            self._started.clear()
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            except ChildProcessError:
                self._started.wait()
                continue
            if ended is not None:
                self._reap_child(ended.si_pid)

    def _reap_child(self, pid: int) -> None:
        with self._lock:
            child = self._children.get(pid)
            if child is None:
                # The process is an orphan, or its program could not be started. In the second case, Popen has reaped
                # it.
                self._reap_orphan(pid)
                return
            # The rest of the group must not outlive its leader. Until `waitpid`, the pid cannot be reused.
            kill_group(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            del self._children[pid]
        try:
            self._sweep(child.mark)
        except OSError as error:
            log(f"cannot search for processes that a child left behind: {error}")
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        child.out_of_memory = code == -signal.SIGKILL and not child.killed and oom_kills() > child.oom_kills_before
        child.process.returncode = code  # Popen must not wait for a pid that it no longer owns
        self._post(child.on_exit, code)

    def _sweep(self, mark: str) -> None:
        """Kill the descendants with this mark that left the process group. By now, they are children of this process.

        When such a descendant dies, its own children become children of this process. If this happens during a scan of
        /proc, the scan may miss these children. So the scan is repeated if an orphan was reaped during the scan.
        """
        for _ in scans():
            reaped = self._reaped_orphans
            unknown = [pid for pid in _own_children() if pid not in self._children and pid != self._warden]
            # During exec and shortly before its end, a process has neither arguments nor an environment, and so no
            # mark. The arguments are read first: if a process has arguments, its mark can be read afterwards.
            unsure = {pid for pid in unknown if _without_arguments(pid)}
            marks = {pid: mark_of(pid) for pid in unknown}
            for pid in unknown:
                if marks[pid].startswith(mark):
                    kill_with_group(pid)
            self._collect(unknown)
            left = any(found.startswith(mark) if found else pid in unsure for pid, found in marks.items())
            if not left and self._none_reaped_since(reaped):
                return

    def _none_reaped_since(self, reaped: int) -> bool:
        """Whether no orphan was reaped since the count was `reaped`. Reaping and counting happen under one lock."""
        with self._lock:
            return self._reaped_orphans == reaped

    def _collect(self, pids: List[int]) -> None:
        for pid in pids:
            with self._lock:
                if pid not in self._children and not _alive(pid):
                    self._reap_orphan(pid)

    def _reap_orphan(self, pid: int) -> None:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
            self._reaped_orphans += 1


def _own_children() -> List[int]:
    """The pids of this process's children, including dead ones that were not reaped."""
    if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
        # The kernel has no CONFIG_PROC_CHILDREN, so look up the parent of every process.
        return [pid for pid, parent in parents() if parent == os.getpid()]
    found: List[int] = []
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that just ended
            found.extend(map(int, read(f"/proc/self/task/{thread}/children").split()))
    return found


def _alive(pid: int) -> bool:
    return stat_of(pid)[:1] not in ([], [b"Z"], [b"X"])


def _without_arguments(pid: int) -> bool:
    """Whether the process is in the middle of exec, is ending, or has ended.

    In these states, a process has neither arguments nor an environment. A process that cleared its environment still
    has arguments. Source: Linux, fs/proc/base.c, `environ_read` and `get_mm_cmdline`.
    """
    try:
        return not read(f"/proc/{pid}/cmdline")
    except (FileNotFoundError, ProcessLookupError):
        return True


def oom_kills(proc: str = "/proc", groups: str = "/sys/fs/cgroup") -> int:
    """How many processes the kernel has killed because memory ran out. 0 if unknown.

    The count is that of this process's control group (memory.events of version 2, memory.oom_control of version 1), if
    the group has such a file. Otherwise the count is that of the whole machine.

    Source: Linux, Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst; oom_kill in /proc/vmstat.
    """
    for path in (*_memory_groups(proc, groups), f"{proc}/vmstat"):
        with contextlib.suppress(OSError, ValueError):
            for line in read(path).splitlines():
                if line.startswith(b"oom_kill "):
                    return int(line.split()[1])
    return 0


def _memory_groups(proc: str, groups: str) -> Iterator[str]:
    with contextlib.suppress(OSError, ValueError):
        for line in read(f"{proc}/self/cgroup").decode("utf-8", "replace").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                yield f"{groups}{path}/memory.events"
            elif "memory" in controllers.split(","):
                yield f"{groups}/memory{path}/memory.oom_control"


def describe_exit(code: int) -> str:
    """An exit code in words. A negative code is a signal."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"signal {-code}"
