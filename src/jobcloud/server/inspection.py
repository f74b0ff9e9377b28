"""Check an archive in a child process with limits of memory, CPU time and duration.

`jobcloud.executor.package` bounds everything that it expands. The libraries that it uses do not: the directory of a
zip, or the dictionary of an xz, may need any amount of memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from jobcloud.executor.package import Limits, PackageError, PackageInfo, inspect

_MEMORY_BYTES = 512 << 20
_CPU_S = 60
_DEADLINE_S = 120.0
_SMALLER = "pack fewer and smaller files, as zip or tar.gz"


def inspect_apart(
    source: Path, *, wheel: bool = False, deadline_s: float = _DEADLINE_S, memory_bytes: int = _MEMORY_BYTES
) -> PackageInfo:
    """Like `jobcloud.executor.package.inspect`. Also raises PackageError if the child exceeds a limit or crashes."""
    # -P: import no modules from the current directory.
    argv = [sys.executable, "-P", "-m", __name__, str(source), "wheel" if wheel else "archive", str(memory_bytes)]
    try:
        child = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=deadline_s, check=False, cwd=source.parent
        )
    except subprocess.TimeoutExpired:
        raise PackageError(f"the check of the package took longer than {deadline_s:g} s: {_SMALLER}") from None
    if child.returncode < 0:
        raise PackageError(f"the check of the package was ended by signal {-child.returncode}: {_SMALLER}")
    try:
        result = json.loads(child.stdout)
    except ValueError:
        shown = child.stderr.decode(errors="replace").strip().rpartition("\n")[2][:200]
        raise PackageError(f"the check of the package crashed ({shown}): {_SMALLER}") from None
    if "error" in result:
        raise PackageError(result["error"])
    return PackageInfo(**{**result, "names": frozenset(result["names"])})


def main() -> None:
    """The child. Arguments: the path, "wheel" if the archive must be a wheel, the limit of memory in bytes."""
    path, kind_of_archive, memory = sys.argv[1:]
    with contextlib.suppress(OSError):  # a systemd unit may forbid it
        os.nice(10)  # the scheduler comes first
    for kind, limit in (
        (resource.RLIMIT_AS, int(memory)),
        (resource.RLIMIT_CPU, _CPU_S),
        (resource.RLIMIT_FSIZE, Limits().bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        _lower(kind, limit)
    try:
        info = inspect(path, wheel=kind_of_archive == "wheel")
        result = {**asdict(info), "names": sorted(info.names)}
    except PackageError as error:
        result = {"error": str(error)}
    except MemoryError:
        result = {"error": f"the check of the package needs more than {int(memory) >> 20} MiB of memory: {_SMALLER}"}
    json.dump(result, sys.stdout)


def _lower(kind: int, limit: int) -> None:
    _, hard = resource.getrlimit(kind)
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(kind, (limit, limit))


if __name__ == "__main__":
    main()
