"""Packing an app: deterministic, complete, and without files that do not belong to it."""

from __future__ import annotations

import os
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

from jobcloud.client.pack import pack, read_manifest
from jobcloud.errors import ConfigError
from jobcloud.executor.package import inspect, unpack


def write(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}")


def test_same_content_gives_same_package_at_any_place_and_time(tmp_path: Path) -> None:
    names = ["b.py", "a.py", "sub/c.txt"]
    write(tmp_path / "one", *names)
    write(tmp_path / "two", *reversed(names))
    for path in (tmp_path / "two").rglob("*"):
        os.utime(path, (time.time() - 10**6,) * 2)
    assert pack(tmp_path / "one", tmp_path / "1.zip") == pack(tmp_path / "two", tmp_path / "2.zip")
    (tmp_path / "two" / "a.py").chmod(0o755)
    assert pack(tmp_path / "one", tmp_path / "1.zip") != pack(tmp_path / "two", tmp_path / "2.zip")


def test_packed_app_is_unpacked_by_the_executor(tmp_path: Path) -> None:
    write(tmp_path / "app", "run.sh", "pkg/mod.py")
    (tmp_path / "app" / "run.sh").chmod(0o750)
    sha256 = pack(tmp_path / "app", tmp_path / "app.zip")
    assert inspect(tmp_path / "app.zip").sha256 == sha256
    unpack(tmp_path / "app.zip", tmp_path / "out")
    assert (tmp_path / "out" / "pkg" / "mod.py").read_text() == "content of pkg/mod.py"
    assert os.access(tmp_path / "out" / "run.sh", os.X_OK)
    assert not os.access(tmp_path / "out" / "pkg" / "mod.py", os.X_OK)


def test_manifest_caches_and_repositories_are_not_packed(tmp_path: Path) -> None:
    write(
        tmp_path,
        "a.py",
        "jobcloud.toml",
        "__pycache__/a.pyc",
        ".git/config",
        "b.pyc",
        ".venv/x",
        "sub/jobcloud.toml",
        ".env",
    )
    pack(tmp_path, tmp_path.parent / "out.zip")
    with zipfile.ZipFile(tmp_path.parent / "out.zip") as archive:
        assert archive.namelist() == [".env", "a.py", "sub/jobcloud.toml"]


def test_links_within_the_app_are_packed_as_files_and_others_refused(tmp_path: Path) -> None:
    app = tmp_path / "app"
    write(app, "a.py")
    (app / "b.py").symlink_to("a.py")
    pack(app, tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.read("b.py") == b"content of a.py"
    write(tmp_path, "secret")
    (app / "c.py").symlink_to("../secret")
    with pytest.raises(ConfigError, match=r"c\.py links to a file outside of the app"):
        pack(app, tmp_path / "out.zip")


def test_pipes_and_empty_directories_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "app", "a.py")
    os.mkfifo(tmp_path / "app" / "pipe")
    with pytest.raises(ConfigError, match="pipe is neither a file nor a directory"):
        pack(tmp_path / "app", tmp_path / "out.zip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no files"):
        pack(tmp_path / "empty", tmp_path / "out.zip")


def test_file_whose_name_is_not_utf8_is_named_and_refused(tmp_path: Path) -> None:
    write(tmp_path / "app", "a.py")
    (tmp_path / "app" / "caf\udce9.txt").touch()
    with pytest.raises(ConfigError, match=r"'caf\\udce9\.txt' is not UTF-8") as caught:
        pack(tmp_path / "app", tmp_path / "out.zip")
    assert caught.value.fix == "rename the file"


def test_manifest_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    manifest = b"\xef\xbb\xbf[app]\r\nappName = 'shop'\r\n"
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "jobcloud.toml").write_bytes(manifest)
    with zipfile.ZipFile(tmp_path / "app.zip", "w") as archive:
        archive.writestr("jobcloud.toml", manifest)
    assert read_manifest(tmp_path / "app").app == read_manifest(tmp_path / "app.zip").app == {"appName": "shop"}


def test_manifest_is_found_in_directories_and_archives(tmp_path: Path) -> None:
    manifest = '[app]\nname = "x"\ncpuCount = 0.5\n[[jobs]]\njobName = "j"\n'
    (tmp_path / "app").mkdir()
    path = tmp_path / "app" / "jobcloud.toml"
    path.write_text(manifest)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(path, "jobcloud.toml")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.add(path, "jobcloud.toml")
    for app in (tmp_path / "app", tmp_path / "a.zip", tmp_path / "a.tar.gz"):
        found = read_manifest(app)
        assert found.app == {"appName": "x", "cpuCount": 0.5}
        assert found.jobs == ({"jobName": "j"},)


def test_app_needs_no_manifest(tmp_path: Path) -> None:
    write(tmp_path / "app", "a.py")
    pack(tmp_path / "app", tmp_path / "a.zip")
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04")
    for app in (tmp_path / "app", tmp_path / "a.zip", tmp_path / "broken.zip"):
        assert read_manifest(app).jobs == ()
