"""Workflows in Python files. Such a file is a program of its user: it runs in a child process, with limits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path, PurePath
from typing import Final

from jobcloud.client import documents
from jobcloud.client.documents import Document
from jobcloud.errors import ConfigError

SUFFIX: Final = ".py"
DEADLINE_S: Final = 60.0
#: bytes of what the file prints that an error shows
_SHOWN: Final = 1_000


def read(path: Path) -> Document:
    """The workflows that a Python file makes, as a document with a list `workflows`.

    Raises ConfigError with the line and the traceback if the file fails, if it takes longer than a minute, or if it
    makes no workflow.
    """
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as printed:
        # -P: import no modules from the current directory. The process adds the directory of the file.
        argv = [sys.executable, "-P", "-m", "jobcloud.client.workflow_process", str(path)]
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=answer, stderr=printed, start_new_session=True)
        try:
            code = child.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            fix = "make the workflows without waiting for anything"
            raise ConfigError(f"ran longer than {DEADLINE_S:g} s", field=str(path), fix=fix) from None
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        answer.seek(0)
        data = answer.read(documents.MAX_BYTES + 1)
        printed.seek(max(0, printed.seek(0, os.SEEK_END) - _SHOWN))
        said = printed.read().decode(errors="replace").strip()
    if code:
        raise ConfigError(f"ended with exit code {code}" + (f":\n{said}" if said else ""), field=str(path))
    return _document(documents.parse(data, str(path), ".json"))


def _document(answer: Document) -> Document:
    found = answer.value
    if "problem" in found:
        where = f"{answer.name}:{found['line']}" if found["line"] else answer.name
        raise ConfigError(f"fails: {found['problem']}\n{found['traceback']}".rstrip(), field=where)
    if not found["workflows"]:
        fix = f"write `with Workflow(…):` and nodes in it, or run the file: python {PurePath(answer.name).name}"
        raise ConfigError("makes no workflow", field=answer.name, fix=fix)
    lines = {documents.place_of(place): line for place, line in found["lines"].items()}
    return Document(answer.name, {"workflows": found["workflows"]}, lines)
