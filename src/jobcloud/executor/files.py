"""The field `files` of an app and its jobs: each attempt gets a folder of its own with these files, in the sandbox."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from typing import Dict, Mapping

#: the variable that gives the path of the folder to a script, and to a worker with one shard
FILES = "JOBCLOUD_FILES"
_ROOT = "files"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def variable_of(folder: str) -> Dict[str, str]:
    """The variable of a process that has the path of its folder. Empty if `folder` is "", because it has no files."""
    return {FILES: folder} if folder else {}


def merged(of_app: Mapping[str, str], of_job: Mapping[str, str]) -> Dict[str, str]:
    """The files of an attempt. A file of the job replaces each file of the app that cannot exist together with it."""
    taken = {folder for path in of_job for folder in _folders(path)}
    kept = {
        path: text
        for path, text in of_app.items()
        if path not in taken and not any(folder in of_job for folder in _folders(path))
    }
    return {**kept, **of_job}


def _folders(path: str) -> "list[str]":
    parts = path.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]


def write_files(folder: int, files: Mapping[str, str]) -> None:
    """Write files below a new folder, which is open as `folder`. No link is followed. Raises OSError and ValueError."""
    for path, text in files.items():
        *parents, name = path.split("/")
        with contextlib.ExitStack() as opened:
            inside = folder
            for parent in parents:
                inside = _enter(parent, inside)
                opened.callback(os.close, inside)
            with open(os.open(name, _NEW_FILE, 0o600, dir_fd=inside), "wb") as file:
                file.write(text.encode())


def _enter(name: str, inside: int) -> int:
    """Open a folder below another one, and make it if it is missing. Raises OSError, also if it is a link."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=inside)
    return os.open(name, _FOLDER, dir_fd=inside)


class JobFiles:
    """The folders with the files of the attempts that run, in the folder `files` of the sandbox."""

    def __init__(self, sandbox: str) -> None:
        self._sandbox = sandbox
        self._of_tasks: Dict[str, str] = {}

    def write(self, task_id: str, of_app: Mapping[str, str], of_job: Mapping[str, str]) -> None:
        """Write the files of a task to a new folder, if it has any.

        Raises OSError and ValueError. Then nothing is left of the folder.
        """
        files = merged(of_app, of_job)
        if not files:
            return
        with contextlib.ExitStack() as opened:
            sandbox = os.open(self._sandbox, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(os.close, sandbox)
            root = _enter(_ROOT, sandbox)
            opened.callback(os.close, root)
            name = uuid.uuid4().hex
            os.mkdir(name, 0o700, dir_fd=root)
            self._of_tasks[task_id] = os.path.join(self._sandbox, _ROOT, name)
            try:
                folder = os.open(name, _FOLDER, dir_fd=root)
                opened.callback(os.close, folder)
                write_files(folder, files)
            except (OSError, ValueError):
                self.remove(task_id)
                raise

    def folder(self, task_id: str) -> str:
        """The folder of a task, or "" if it has no files."""
        return self._of_tasks.get(task_id, "")

    def remove(self, task_id: str) -> None:
        """Remove the folder of a task with all that is in it. Links in it are removed, but not followed."""
        path = self._of_tasks.pop(task_id, "")
        if path:
            shutil.rmtree(path, ignore_errors=True)
