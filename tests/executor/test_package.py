"""App packages: valid ones are unpacked unchanged, all others are refused and leave nothing behind."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobcloud.executor.package import Limits, PackageError, inspect, unpack, verify

Entry = tuple[str, bytes | None, int]


def zipped(*entries: Entry) -> bytes:
    """An entry is its name, its content (None for a directory) and its Unix mode with the file type."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content, mode in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content or b"")
    return out.getvalue()


TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


def tarred(*entries: Entry, mode: str = "w") -> bytes:
    """The same entries as a tar archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content, bits in entries:
            info = tarfile.TarInfo(name)
            info.type = TYPES[stat.S_IFMT(bits) or stat.S_IFREG]
            info.mode = stat.S_IMODE(bits)
            if info.type == tarfile.SYMTYPE:
                info.linkname = (content or b"").decode()
                archive.addfile(info)
            else:
                info.size = len(content or b"")
                archive.addfile(info, io.BytesIO(content or b""))
    return out.getvalue()


def tar_gz(*entries: Entry) -> bytes:
    return tarred(*entries, mode="w:gz")


PACKERS = pytest.mark.parametrize("pack", [zipped, tarred, tar_gz])
Packer = Callable[..., bytes]

FILE, RUN, LINK, DIRECTORY = stat.S_IFREG | 0o640, stat.S_IFREG | 0o755, stat.S_IFLNK | 0o777, stat.S_IFDIR | 0o755


@PACKERS
def test_files_directories_links_and_modes_are_unpacked_unchanged(pack: Packer, tmp_path: Path) -> None:
    package = pack(
        ("empty/", None, DIRECTORY),
        ("shop/jobs.py", b"pass\n", FILE),
        ("./bin/run", b"#!/bin/sh\n", RUN),
        ("bin/again", b"run", LINK),
        ("lib", b"shop/../shop", LINK),
    )
    info = inspect(package)
    assert info.names == {"shop/jobs.py", "bin/run", "bin/again", "lib"}
    assert info.unpacked_bytes == 15
    assert info.sha256 == hashlib.sha256(package).hexdigest()
    unpack(package, tmp_path / "app")
    assert (tmp_path / "app" / "empty").is_dir()
    assert (tmp_path / "app" / "lib" / "jobs.py").read_bytes() == b"pass\n"
    assert os.access(tmp_path / "app" / "bin" / "again", os.X_OK)
    assert stat.S_IMODE((tmp_path / "app" / "shop" / "jobs.py").stat().st_mode) == 0o644


def test_hard_link_in_a_tar_is_an_earlier_file(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        first = tarfile.TarInfo("a")
        first.size = 1
        archive.addfile(first, io.BytesIO(b"x"))
        second = tarfile.TarInfo("b")
        second.type, second.linkname = tarfile.LNKTYPE, "a"
        archive.addfile(second)
    unpack(out.getvalue(), tmp_path / "app")
    assert (tmp_path / "app" / "b").read_bytes() == b"x"


BAD = {
    "/etc/cron.d/x": [("/etc/cron.d/x", b"", FILE)],
    "../x": [("../x", b"", FILE)],
    "a/../../x": [("a/../../x", b"", FILE)],
    "up": [("up", b"../outside", LINK)],
    "root": [("root", b"/etc", LINK)],
    "b": [("a", b".", LINK), ("b", b"a/../x", LINK)],
    "loop": [("loop", b"loop", LINK)],
    "d/x": [("d", b"elsewhere", LINK), ("d/x", b"", FILE)],
    "f/x": [("f", b"", FILE), ("f/x", b"", FILE)],
    "twice": [("twice", b"1", FILE), ("twice", b"2", FILE)],
    "dev": [("dev", b"", stat.S_IFCHR | 0o666)],
    "fifo": [("fifo", b"", stat.S_IFIFO | 0o666)],
    "bin\\\\run.py": [("bin\\run.py", b"", FILE)],
    "line\\nbreak": [("line\nbreak", b"", FILE)],
    "nnn": [("n" * 300, b"", FILE)],
}


@PACKERS
@pytest.mark.parametrize("named", BAD)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_unsafe_entry_is_refused_by_name_and_leaves_nothing(pack: Packer, named: str, tmp_path: Path) -> None:
    package = pack(("first", b"x", FILE), *BAD[named])
    for attempt in (lambda: inspect(package), lambda: unpack(package, tmp_path / "app")):
        with pytest.raises(PackageError) as refusal:
            attempt()
        assert named in str(refusal.value)
        assert ": " in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "package",
    [b"", b"hello, I am no archive", b"PK\x03\x04" + bytes(100), b"\x1f\x8b" + bytes(30), bytes(1024)],
    ids=["empty", "text", "zip magic", "gzip magic", "zeros"],
)
def test_bytes_that_are_no_archive_are_refused(package: bytes, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="package"):
        inspect(package)
    with pytest.raises(PackageError, match="package"):
        unpack(package, tmp_path / "app")
    assert list(tmp_path.iterdir()) == []


@PACKERS
def test_truncated_or_altered_archive_is_refused_or_unpacks_the_same(pack: Packer, tmp_path: Path) -> None:
    content = os.urandom(5000)
    package = pack(("data", content, FILE), ("more", b"x" * 5000, FILE))
    # A tar's first block of zeros is followed by padding to 10,240 bytes.
    for length in range(0, len(package) - 10_000 if pack is tarred else len(package) - 200, 97):
        with pytest.raises(PackageError):
            inspect(package[:length])


def test_wrong_checksum_inside_a_zip_is_found(tmp_path: Path) -> None:
    package = bytearray(zipped(("data", b"0123456789" * 100, FILE)))
    package[45] ^= 0xFF
    with pytest.raises(PackageError, match="damaged"):
        unpack(bytes(package), tmp_path / "app")
    assert list(tmp_path.iterdir()) == []


def test_encrypted_zip_is_refused() -> None:
    package = bytearray(zipped(("secret", b"x", FILE)))
    central = package.index(b"PK\x01\x02")
    package[central + 8] |= 1
    with pytest.raises(PackageError, match="password"):
        inspect(bytes(package))


@PACKERS
def test_too_many_entries_and_too_many_bytes_are_refused(pack: Packer, tmp_path: Path) -> None:
    package = pack(*((f"f{number}", b"x" * 100, FILE) for number in range(20)))
    with pytest.raises(PackageError, match="more than 19 entries"):
        unpack(package, tmp_path / "app", Limits(files=19))
    with pytest.raises(PackageError, match="over 1999 bytes"):
        inspect(package, Limits(bytes=1999))
    assert inspect(package, Limits(files=20, bytes=2000)).unpacked_bytes == 2000


@pytest.mark.parametrize("pack", [zipped, tar_gz])
def test_bomb_is_refused_before_it_is_unpacked(pack: Packer, tmp_path: Path) -> None:
    package = pack(("bomb", bytes(80 << 20), FILE))
    with pytest.raises(PackageError, match="bomb"):
        unpack(package, tmp_path / "app")
    assert list(tmp_path.iterdir()) == []


def test_tar_header_that_announces_gigabytes_is_not_read_into_memory() -> None:
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 3 << 30
    with pytest.raises(PackageError, match="tar header"):
        inspect(gzip.compress(header.tobuf(tarfile.USTAR_FORMAT) + bytes(4096)))


def test_hash_is_checked_on_files_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / "package.zip"
    path.write_bytes(zipped(("a", b"x", FILE)))
    good = hashlib.sha256(path.read_bytes()).hexdigest()
    verify(path, good)
    verify(path.read_bytes(), good)
    with pytest.raises(PackageError, match=good):
        verify(path, "0" * 64)
    with pytest.raises(PackageError, match="cannot read the package"):
        verify(tmp_path / "missing", good)


def test_existing_directory_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "mine").touch()
    with pytest.raises(PackageError, match="cannot unpack into"):
        unpack(zipped(("a", b"x", FILE)), tmp_path / "app")
    assert [path.name for path in tmp_path.rglob("*")] == ["app", "mine"]


@given(st.data())
def test_altered_archives_are_either_unpacked_or_refused(data: st.DataObject) -> None:
    pack = data.draw(st.sampled_from([zipped, tarred, tar_gz]))
    package = bytearray(pack(("a/b", b"content" * 20, FILE), ("l", b"a/b", LINK), ("d/", None, DIRECTORY)))
    for _ in range(data.draw(st.integers(1, 4))):
        package[data.draw(st.integers(0, len(package) - 1))] = data.draw(st.integers(0, 255))
    try:
        info = inspect(bytes(package), Limits(files=50, bytes=1 << 20))
    except PackageError:
        return
    assert info.unpacked_bytes <= 1 << 20
