"""Finds out from the files of a package whether it lacks an object that a job names.

An object must never be reported as missing if a worker could load it. A module may also come from a wheel, or be
installed on the agents. Code may also define names while it is imported. Only packages in zip format are read, because
a tar has no directory of its files.
"""

from __future__ import annotations

import re
import sys
import zipfile
import zlib
from pathlib import Path

_MAX_SOURCE_BYTES = 1 << 20
# Code that can add names to a module, or modules to a package, although the source does not contain these names.
_DYNAMIC = re.compile(
    rb"\bimport\s*\(?\s*\*|__getattr__|__path__|__import__|import_module|__dict__|sys\.modules|meta_path|path_hooks"
    rb"|\b(globals|vars|locals|exec|eval|setattr)\b"
)
#: the errors of a package that is no readable zip
UNREADABLE = (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, NotImplementedError, ValueError)
# Modules that the worker itself imports, so a package cannot replace them.
_OF_THE_WORKER = {"jobcloud", *sys.builtin_module_names}


def missing_object(package: Path, name: str) -> str:
    """Why the object `package.module:Name` or `package.module.Name` cannot be in the package; "" if it may exist."""
    module, _, member = name.partition(":") if ":" in name else name.rpartition(".")
    try:
        with zipfile.ZipFile(package) as archive:
            return _missing(archive, frozenset(archive.namelist()), module.split("."), member)
    except UNREADABLE:
        return ""


def _missing(archive: zipfile.ZipFile, files: frozenset[str], module: list[str], member: str) -> str:
    top = module[0]
    if top in _OF_THE_WORKER or not {f"{top}.py", f"{top}/__init__.py"} & files:
        return ""
    for depth in range(1, len(module) + 1):
        path, last = "/".join(module[:depth]), depth == len(module)
        if f"{path}/__init__.py" in files:
            if not last and _is_dynamic(archive, f"{path}/__init__.py"):
                return ""
        elif f"{path}.py" in files:
            if not last:
                return f"{path}.py is not a package"
        elif any(file.startswith((f"{path}.", f"{path}/")) for file in files):
            return ""  # compiled, or a folder without __init__.py
        else:
            return f"there is no {path}.py"
    return _missing_member(archive, files, path, member)


def _missing_member(archive: zipfile.ZipFile, files: frozenset[str], path: str, member: str) -> str:
    file = f"{path}/__init__.py" if f"{path}/__init__.py" in files else f"{path}.py"
    source = _source(archive, file)
    word = rb"\b%s\b" % re.escape(member.encode())
    # Python normalizes names that are not ASCII.
    if not member.isascii() or source is None or _DYNAMIC.search(source) or re.search(word, source):
        return ""
    return f"{file} has no {member}"


def _is_dynamic(archive: zipfile.ZipFile, file: str) -> bool:
    source = _source(archive, file)
    return source is None or _DYNAMIC.search(source) is not None


def _source(archive: zipfile.ZipFile, file: str) -> bytes | None:
    """The content of a file; None if it is too large to be read."""
    with archive.open(file) as opened:
        content = opened.read(_MAX_SOURCE_BYTES + 1)
    return content if len(content) <= _MAX_SOURCE_BYTES else None
