"""The check of archives in a child process: nothing that an archive holds harms the server."""

from __future__ import annotations

import io
import signal
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tests.api_kit import package_bytes
from tests.attack_kit import dictionary_bomb

from jobcloud.executor.package import PackageError, inspect, unpack
from jobcloud.server.inspection import inspect_apart


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def compressed(method: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr("a.py", "print()\n" * 100)
    return out.getvalue()


def test_check_in_a_child_process_gives_the_same_result(tmp_path: Path) -> None:
    path = written(tmp_path / "p", package_bytes({"a.py": "1", "b/ü.py": "2"}))
    assert inspect_apart(path) == inspect(path)
    with pytest.raises(PackageError, match="not a zip"):
        inspect_apart(written(path, b"nothing"))
    with pytest.raises(PackageError, match="wheel"):
        inspect_apart(written(path, package_bytes()), wheel=True)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_rare_compression_in_a_new_zip_is_refused_and_stored_packages_still_unpack(tmp_path: Path, method: int) -> None:
    data = compressed(method)
    with pytest.raises(PackageError, match=rf"'a\.py' .* method {method}: use deflate"):
        inspect(data)
    unpack(data, tmp_path / "into")
    inspect(compressed(zipfile.ZIP_DEFLATED))


def test_unknown_compression_is_refused_before_an_entry_is_opened() -> None:
    data = bytearray(compressed(zipfile.ZIP_DEFLATED))
    at = data.index(b"PK\x01\x02")
    data[at + 10 : at + 12] = struct.pack("<H", 99)
    with pytest.raises(PackageError, match="method 99"):
        inspect(bytes(data))


def test_dictionary_larger_than_the_memory_of_the_check_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="512 MiB of memory"):
        inspect_apart(written(tmp_path / "p", dictionary_bomb()))


def test_directory_of_a_zip_larger_than_the_memory_of_the_check_is_refused(tmp_path: Path) -> None:
    name = b"x"
    entry = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + name
    count = 400_000
    directory = entry * count
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(directory), 4)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 4 + len(directory), 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path = written(tmp_path / "p", b"PK\x03\x04" + directory + end64 + locator + end)
    with pytest.raises(PackageError, match="95 MiB of memory"):
        inspect_apart(path, memory_bytes=100_000_000)


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("kill -SEGV $$", f"signal {signal.SIGSEGV:d}"),
        ("exec sleep 3600", "longer than 0.05 s"),
        ("echo broken >&2; exit 3", "crashed .broken."),
        ("echo '{'", "crashed"),
    ],
)
def test_child_that_crashes_or_hangs_refuses_the_package_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, problem: str
) -> None:
    monkeypatch.setattr(sys, "executable", script(tmp_path / "python", text))
    with pytest.raises(PackageError, match=problem):
        inspect_apart(tmp_path / "p", deadline_s=0.05 if "sleep" in text else 60)


def test_child_lowers_its_limits_and_its_priority() -> None:
    program = """if True:
        import os, resource, sys
        from jobcloud.server import inspection
        sys.argv[1:] = ["/nowhere", "archive", "500000000"]
        inspection.main()
        limits = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_CORE))
        print(f"\\n{os.nice(0)}", *limits)
    """
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    nice, memory, core = map(int, child.stdout.splitlines()[-1].split())
    assert nice >= 10
    assert (memory, core) == (500_000_000, 0)
