"""The secrets of a task: fetched once from a scheduler, and handed to the run as values or files.

Files are in a directory of this executor outside the sandbox, because the agent's HTTP API serves the sandbox. Only the
executor's user can read the directory. It is in memory (/dev/shm) if the machine has such a place.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import http.client
import ipaddress
import json
import os
import shutil
import tempfile
import time
from typing import TYPE_CHECKING, Callable, Dict, Mapping, Optional, Tuple
from urllib.parse import SplitResult, urlsplit

from jobcloud.executor.payload import SecretAccess, SecretUse

if TYPE_CHECKING:
    import ssl

# Source of the limits: docs/executor.md, "Secrets".
MAX_VALUE_BYTES = 65_536
_MAX_ANSWER_BYTES = 1 << 20
_CONNECT_S, _ANSWER_S = 5.0, 20.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
_MEMORY = "/dev/shm"  # noqa: S108 - a private directory is made in it
_PREFIX = "jobcloud-secrets."


class SecretsError(Exception):
    """The task gets no secrets. The text names the secret or the reason, and contains no value."""


def fetch(
    access: SecretAccess, *, clock: Callable[[], float] = time.monotonic, pause: Callable[[float], object] = time.sleep
) -> Dict[str, bytes]:
    """The values of a task's secrets by name. Raises SecretsError.

    The schedulers are asked in turn until one leads, for as long as the access is valid.
    """
    until = clock() + access.seconds
    wait_s = _FIRST_PAUSE_S
    while True:
        problem = ""
        for url in access.urls:
            left_s = until - clock()
            if left_s <= 0:
                break
            try:
                status, body = _ask(url, access, left_s)
            except (OSError, http.client.HTTPException) as error:
                problem = f"{urlsplit(url).netloc} gave no answer: {type(error).__name__}: {error}"
                continue
            if status == 200:
                return _values(body)
            problem = _problem(status, body)
            if status != 503:
                raise SecretsError(problem)
        if until - clock() <= wait_s:
            raise SecretsError(f"no scheduler gave them within {access.seconds:g} s: {problem or 'no time was left'}")
        pause(wait_s)
        wait_s = min(2 * wait_s, _LONGEST_PAUSE_S)


def _ask(url: str, access: SecretAccess, left_s: float) -> Tuple[int, bytes]:
    """POST the token. Returns (status, body). Raises OSError, HTTPException, or SecretsError if TLS is missing."""
    # Imported only for tasks with secrets: it imports ssl.
    from jobcloud.executor import http_job

    parts = urlsplit(url)
    trust = _trust(access.ca) if parts.scheme == "https" else None

    def check(host: str, address: str) -> None:
        _check_address(parts, address)

    connection = http_job.connect(parts, min(left_s, _CONNECT_S), check, trust=trust)
    try:
        connection.sock.settimeout(min(left_s, _ANSWER_S))
        headers = {"Authorization": f"Bearer {access.token}", "Content-Length": "0"}
        connection.request("POST", http_job.target(parts), headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(_MAX_ANSWER_BYTES)
    finally:
        connection.close()


def _check_address(url: SplitResult, address: str) -> None:
    if url.scheme != "https" and not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        raise SecretsError(f"{url.netloc} does not use TLS, and it is not this machine")


def _trust(ca: str) -> "ssl.SSLContext":
    import ssl

    try:
        return ssl.create_default_context(cadata=ca or None)
    except (ssl.SSLError, ValueError) as error:
        raise SecretsError(f"the certificates of the scheduler's authority cannot be read: {error}") from error


def _values(body: bytes) -> Dict[str, bytes]:
    try:
        return {str(name): base64.b64decode(text, validate=True) for name, text in json.loads(body)["secrets"].items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        # Without the original error, whose text may contain a part of the answer.
        raise SecretsError("the answer of the scheduler cannot be read") from None


def _problem(status: int, body: bytes) -> str:
    try:
        return f"{json.loads(body)['problem']:.1000}"
    except (ValueError, LookupError, TypeError, RecursionError):
        return f"the scheduler answered with status {status}"


class SecretFiles:
    """The directory of this executor for secrets. It is made for the first file, and removed by `close`.

    A lock on the directory shows that its executor lives. A directory that a killed executor has left is removed when
    another executor of the same user makes its own on this machine.
    """

    def __init__(self, base: str = "") -> None:
        self._base = base
        self._root = ""
        self._lock = -1
        self._of_tasks: Dict[str, str] = {}

    def hand_over(self, task_id: str, uses: Tuple[SecretUse, ...], values: Mapping[str, bytes]) -> Dict[str, str]:
        """The secrets of a task by key: the value, or the path of a file that contains it.

        Raises SecretsError for a secret that is missing, or that cannot be a value, and OSError.
        """
        given: Dict[str, str] = {}
        if sum(len(values.get(use.name, b"")) for use in uses) > MAX_VALUE_BYTES:
            raise SecretsError(f"they have more than {MAX_VALUE_BYTES:,} bytes together")
        for use in uses:
            if use.name not in values:
                raise SecretsError(f"the scheduler did not send {use.name}")
            given[use.key] = self._write(task_id, use.key, values[use.name]) if use.file else _text(use, values)
        return given

    def _write(self, task_id: str, key: str, value: bytes) -> str:
        if task_id not in self._of_tasks:
            self._of_tasks[task_id] = tempfile.mkdtemp(dir=self._open_root())
        path = os.path.join(self._of_tasks[task_id], key)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(value)
        return path

    def directory(self, task_id: str) -> str:
        """The directory with the files of a task, or "" if it has none."""
        return self._of_tasks.get(task_id, "")

    def remove(self, task_id: str) -> None:
        path = self._of_tasks.pop(task_id, "")
        if path:
            shutil.rmtree(path, ignore_errors=True)

    def close(self) -> None:
        if self._root:
            shutil.rmtree(self._root, ignore_errors=True)
            os.close(self._lock)
            self._root = ""

    def _open_root(self) -> str:
        if not self._root:
            base = self._base or (_MEMORY if _in_memory(_MEMORY) else tempfile.gettempdir())
            prefix = f"{_PREFIX}{os.getuid()}."
            _remove_left(base, prefix)
            while not self._root:
                path = tempfile.mkdtemp(prefix=prefix, dir=base)
                lock = _locked(path)
                if lock is not None:
                    self._root, self._lock = path, lock
        return self._root


def _text(use: SecretUse, values: Mapping[str, bytes]) -> str:
    """A value as text, without the line end at its end."""
    value = values[use.name]
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise SecretsError(f"{use.name} is not text: use {use.key}=secret-file:{use.name}")
    return text[: -2 if text.endswith("\r\n") else -1 if text.endswith("\n") else None]


def _in_memory(path: str) -> bool:
    """Whether `path` is the root of a file system in memory in which this user may make directories."""
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="replace") as mounts:
            kinds = [line.split()[2] for line in mounts if line.split()[1] == path]
    except (OSError, IndexError):
        return False
    return kinds[-1:] in (["tmpfs"], ["ramfs"]) and os.access(path, os.W_OK | os.X_OK)


def _locked(path: str) -> Optional[int]:
    """A descriptor that locks a directory of this user; None if another executor has locked or removed it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        about = os.fstat(descriptor)
        if about.st_nlink and about.st_uid == os.getuid():
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _remove_left(base: str, prefix: str) -> None:
    """Remove the directories of executors that were killed."""
    with contextlib.suppress(OSError):
        for name in os.listdir(base):
            path = os.path.join(base, name)
            lock = _locked(path) if name.startswith(prefix) else None
            if lock is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)
