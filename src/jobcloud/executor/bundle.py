"""Builds the zip file of the executor, and the command line that starts the zip on an agent.

The scheduler uses this module. The zip does not contain it.
"""

from __future__ import annotations

import io
import os
import shlex
import zipfile
from typing import Iterator, Tuple

from jobcloud import zones

FILE_NAME = "jobcloud-executor.zip"
_TOP_LEVEL = ("__init__.py", "job.py", "wire.py", "zones.py")
_SERVER_SIDE = ("bundle.py",)
_EPOCH = (1980, 1, 1, 0, 0, 0)
_MAIN = b"""\
import sys

from jobcloud.executor.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
"""
# Old versions of Python, including Python 2, must be able to compile this whole program. Otherwise they would report a
# syntax error before the version check.
_CHECK = """\
import sys
if sys.version_info < (3, 9):
    sys.exit("jobcloud: this agent has Python %d.%d as python3; the executor needs 3.9 or newer" % sys.version_info[:2])
import hashlib
name, wanted = sys.argv[1:]
try:
    found = hashlib.sha256(open(name, "rb").read()).hexdigest()
except OSError as error:
    sys.exit("jobcloud: the executor was not fetched: %s" % error)
if found != wanted:
    sys.exit("jobcloud: %s has sha256 %s, expected %s; it was altered on its way" % (name, found, wanted))
"""
_NO_PYTHON = "jobcloud: this agent has no python3 in its PATH; the executor needs CPython 3.9 or newer"
_MISSING = f"command -v python3 >/dev/null 2>&1 || {{ echo '{_NO_PYTHON}' >&2; exit 127; }}; "
# The certificate authorities stay in the sandbox, for later requests to the scheduler.
_FETCH = """\
import http.client, shutil, ssl, sys, urllib.request
authorities, files = sys.argv[1], sys.argv[2:]
with open("%(file)s", "w") as out:
    out.write(authorities)
context = ssl.create_default_context(cadata=authorities)
for url, name in zip(files[::2], files[1::2]):
    try:
        with urllib.request.urlopen(url, timeout=60, context=context) as answer, open(name, "wb") as out:
            shutil.copyfileobj(answer, out)
    except (OSError, ValueError, http.client.HTTPException) as error:
        sys.exit("jobcloud: cannot fetch %%s: %%s" %% (url, error))
"""
AUTHORITIES_FILE = "jobcloud-ca.pem"


def build() -> bytes:
    """Build the zip. The same sources give the same bytes: names are sorted, times are fixed, nothing is compressed."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(_members()):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.create_system = 3
            info.external_attr = 0o100644 << 16
            archive.writestr(info, content)
    return out.getvalue()


def command(sha256: str, file: str = FILE_NAME) -> str:
    """The shell command for an ExecutorInfo. Mesos fetches the zip into the sandbox under the name `file`.

    The exit code is 127 if there is no python3. It is 1 if python3 is too old, or if the zip is missing or does not
    have the hash `sha256`. In each of these cases, a message on stderr gives the reason.
    """
    name = shlex.quote(file)
    return f"{_MISSING}python3 -c {shlex.quote(_CHECK)} {name} {shlex.quote(sha256)} || exit 1; exec python3 -I {name}"


def fetch(authorities: str) -> str:
    """The beginning of a shell command that fetches files by https. Pairs of a URL and the name of a file follow it.

    The server's certificate must come from one of the `authorities`, in PEM. They are written to AUTHORITIES_FILE.
    """
    program = _FETCH % {"file": AUTHORITIES_FILE}
    return f"{_MISSING}python3 -I -c {shlex.quote(program)} {shlex.quote(authorities)}"


def _members() -> Iterator[Tuple[str, bytes]]:
    yield "__main__.py", _MAIN
    yield f"jobcloud/{zones.FILE}", zones.copy_for_executors()
    here = os.path.dirname(os.path.abspath(__file__))
    for name in _TOP_LEVEL:
        yield f"jobcloud/{name}", _content(os.path.join(os.path.dirname(here), name))
    for name in os.listdir(here):
        if name.endswith(".py") and name not in _SERVER_SIDE:
            yield f"jobcloud/executor/{name}", _content(os.path.join(here, name))


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
