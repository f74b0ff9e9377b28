"""Wheels: read a wheel, place its files, and choose the wheels for this interpreter. Standard library only.

Sources: the specifications "Binary distribution format" (PEP 427), "Recording installed projects" (RECORD) and
"Platform compatibility tags" (PEP 425, 600, 656) of the Python Packaging User Guide.
"""

from __future__ import annotations

import base64
import binascii
import csv
import hashlib
import os
import platform
import re
import sys
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple

_FILE = re.compile(r"(?P<dist>[^-]+)-(?P<version>[^-]+)(-\d[^-]*)?-(?P<tags>[^-]+-[^-]+-[^-]+)\.whl")
_INFO = re.compile(r"([^/]+)\.dist-info/WHEEL")
# RECORD contains no hash of itself or of its signatures.
_UNHASHED = ("RECORD", "RECORD.jws", "RECORD.p7s")
_HASHES = ("sha256", "sha384", "sha512")
# Destination of each part of `*.data`, below the folder that the wheel is unpacked into.
_SCHEMES = {"purelib": "", "platlib": "", "data": "", "scripts": "bin/", "headers": "include/"}
_OLD_MANYLINUX = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}


class WheelError(Exception):
    """A file is not a valid wheel, or there is no suitable wheel for this interpreter. The text gives the reason."""


@dataclass(frozen=True)
class Wheel:
    """`stem`: the text before `.dist-info`, "name-version". `hashes`: the algorithm and hash of each RECORD entry."""

    stem: str
    hashes: Mapping[str, Tuple[str, bytes]]

    def place(self, entry: str) -> str:
        """The destination of an entry, below the folder that the wheel is unpacked into. Raises WheelError."""
        data = f"{self.stem}.data/"
        if not entry.startswith(data):
            return "" if entry + "/" == data else entry
        scheme, _, rest = entry[len(data) :].partition("/")
        if scheme not in _SCHEMES:
            raise WheelError(f"'{entry}' does not belong to any part of a wheel: build it again")
        return _SCHEMES[scheme] + rest if rest else ""

    def digest(self, entry: str) -> Optional[bytes]:
        known = self.hashes.get(entry)
        return known[1] if known else None

    def open(self, entry: str, opened: Callable[[], Any]) -> Any:
        """Open an entry with `opened`.

        At the end of the entry, `read` raises ValueError if the content does not have the hash in RECORD.
        """
        return _Checked(opened(), *self.hashes[entry]) if entry in self.hashes else opened()


class _Checked:
    def __init__(self, file: Any, algorithm: str, digest: bytes) -> None:
        self._file, self._hash, self._digest = file, hashlib.new(algorithm), digest

    def __enter__(self) -> _Checked:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        chunk: bytes = self._file.read(size)
        self._hash.update(chunk)
        if not chunk and self._hash.digest() != self._digest:
            raise ValueError("it differs from the wheel's RECORD")
        return chunk


def read_wheel(names: Iterable[str], read: Callable[[str], bytes]) -> Wheel:
    """Describe a wheel with the entries `names`. `read` returns the content of an entry. Raises WheelError."""
    files = {name for name in names if not name.endswith("/")}
    stems = [found[1] for name in files if (found := _INFO.fullmatch(name))]
    if len(stems) != 1:
        raise WheelError("it has no *.dist-info/WHEEL, or more than one")
    info = f"{stems[0]}.dist-info/"
    if info + "RECORD" not in files:
        raise WheelError(f"it has no {info}RECORD")
    version = re.search(rb"^Wheel-Version:\s*(\d+)\.", read(info + "WHEEL"), re.MULTILINE)
    if version is None or version[1] != b"1":
        raise WheelError("it has an unknown Wheel-Version: build it with a current tool")
    unhashed = {info + name for name in _UNHASHED}
    hashes = _record(read(info + "RECORD"), unhashed)
    if different := sorted((files - unhashed) ^ hashes.keys()):
        where = "in RECORD and not in the wheel" if different[0] in hashes else "in the wheel and not in RECORD"
        raise WheelError(f"'{different[0][:200]}' is {where}: build it again")
    return Wheel(stems[0], hashes)


def _record(text: bytes, unhashed: Iterable[str]) -> Dict[str, Tuple[str, bytes]]:
    hashes: Dict[str, Tuple[str, bytes]] = {}
    try:
        for row in csv.reader(text.decode().splitlines()):
            if not row or row[0] in unhashed:
                continue
            algorithm, _, digest = row[1].partition("=")
            if algorithm not in _HASHES:
                raise WheelError(f"RECORD has no SHA-2 hash of '{row[0][:200]}': build it again")
            hashes[row[0]] = algorithm, base64.b64decode(digest + "=" * (-len(digest) % 4), b"-_", validate=True)
    except (UnicodeDecodeError, csv.Error, IndexError, binascii.Error) as error:
        raise WheelError(f"its RECORD cannot be read ({error}): build it again") from error
    return hashes


# ------------------------------------------------------------------------------------------------- choosing


class Interpreter(NamedTuple):
    """The facts that wheel tags are compared with. `libc`: name ("glibc", "musl", "" if unknown) and version."""

    minor: int
    machine: str
    libc: Tuple[str, Tuple[int, int]]
    system: str = "linux"
    abi_suffix: str = ""

    def __str__(self) -> str:
        return f"CPython 3.{self.minor} on {self.system} {self.machine}"


def this_interpreter() -> Interpreter:
    suffix = "t" if "t" in getattr(sys, "abiflags", "") else ""
    return Interpreter(sys.version_info[1], platform.machine(), _libc(), sys.platform, suffix)


def _libc() -> Tuple[str, Tuple[int, int]]:
    try:
        name, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
    except (ValueError, OSError, AttributeError):
        return ("musl", (1, 2)) if os.path.exists(f"/lib/ld-musl-{platform.machine()}.so.1") else ("", (0, 0))
    major, minor = version.split(".")[:2]
    return name, (int(major), int(minor))


def distribution(file: str) -> str:
    """The name of the project in the name of a wheel; "" if `file` is not named as a wheel."""
    found = _FILE.fullmatch(file)
    return found["dist"] if found else ""


def choose(files: Iterable[str], interpreter: Interpreter) -> List[str]:
    """For each project, the wheel that fits the interpreter best.

    Raises WheelError if no wheel of a project fits, or if wheels of several versions fit.
    """
    by_project: Dict[str, List[str]] = {}
    for file in sorted(files):
        project = distribution(file)
        if not project:
            raise WheelError(f"{file[:200]} is not named as a wheel: name-version-python-abi-platform.whl")
        by_project.setdefault(re.sub(r"[-_.]+", "-", project).lower(), []).append(file)
    chosen = []
    for found in by_project.values():
        fitting = [file for file in found if fits(file, interpreter)]
        if not fitting:
            raise WheelError(
                f"{found[0]} is not for {interpreter}: ship a wheel for this interpreter or for any (py3-none-any)"
            )
        versions = {_FILE.fullmatch(file)["version"] for file in fitting}  # type: ignore[index]
        if len(versions) > 1:
            raise WheelError(f"{fitting[0]} and {fitting[-1]} are two versions of one project: ship one")
        # Prefer a wheel for this platform, with an extension module, to a wheel for any platform.
        chosen.append(max(fitting, key=lambda file: (not file.endswith("-any.whl"), file)))
    return chosen


def fits(file: str, interpreter: Interpreter) -> bool:
    """Whether any tag in a wheel's file name fits the interpreter."""
    found = _FILE.fullmatch(file)
    if found is None:
        return False
    pythons, abis, platforms = (part.split(".") for part in found["tags"].split("-"))
    return any(_platform_fits(tag, interpreter) for tag in platforms) and any(
        _python_fits(python, abi, interpreter) for python in pythons for abi in abis
    )


def _python_fits(python: str, abi: str, interpreter: Interpreter) -> bool:
    found = re.fullmatch(r"(py|cp)3(\d*)", python)
    if found is None:
        return False
    kind, minor = found[1], int(found[2] or 0)
    if abi == "none":
        return minor <= interpreter.minor if kind == "py" else minor == interpreter.minor
    if abi == "abi3":
        return kind == "cp" and minor <= interpreter.minor and not interpreter.abi_suffix
    return kind == "cp" and minor == interpreter.minor and abi == f"cp3{minor}{interpreter.abi_suffix}"


def _platform_fits(tag: str, interpreter: Interpreter) -> bool:
    if tag == "any":
        return True
    found = re.fullmatch(r"(linux|manylinux\d+|(?:many|musl)linux_\d+_\d+)_(.+)", tag)
    if found is None or interpreter.system != "linux" or found[2] != interpreter.machine:
        return False
    kind, (libc, version) = found[1], interpreter.libc
    if kind == "linux":
        return True
    if kind in _OLD_MANYLINUX:
        return libc == "glibc" and _OLD_MANYLINUX[kind] <= version
    family, major, minor = kind.split("_") if "_" in kind else (kind, "0", "0")
    wanted = {"manylinux": "glibc", "musllinux": "musl"}.get(family)
    return libc == wanted and (int(major), int(minor)) <= version
