"""The package store: packages are complete, never change, and are removed when unused."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from tests.api_kit import FakeLoop, app_body, client_of, make_api, package_bytes

from jobcloud.errors import ConfigError, StoreError, StoreFull
from jobcloud.executor.package import PackageError
from jobcloud.server.packages import PackageStore, StoredPackage, referenced


def put(store: PackageStore, data: bytes, chunk: int = 7) -> StoredPackage:
    with store.receive() as upload:
        for start in range(0, len(data), chunk):
            upload.write(data[start : start + chunk])
        return upload.commit()


def leftovers(root: Path) -> list[str]:
    return [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]


def test_package_is_stored_under_the_hash_of_its_content(tmp_path: Path) -> None:
    store, data = PackageStore(tmp_path), package_bytes({"a.py": "1", "b/c.py": "2"})
    stored = put(store, data)
    assert stored == StoredPackage(hashlib.sha256(data).hexdigest(), len(data), 2, "package.zip")
    path = store.find(stored.sha256)
    assert path == tmp_path / stored.sha256 / "package.zip"
    assert path.read_bytes() == data
    assert path.stat().st_mode & 0o777 == 0o644
    assert store.stored() == [stored.sha256]


def test_tar_is_accepted_as_a_package(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        entry = tarfile.TarInfo("a.py")
        entry.size = 1
        tar.addfile(entry, io.BytesIO(b"1"))
    assert put(PackageStore(tmp_path), out.getvalue()).file == "package.tar"


def test_same_content_twice_is_one_package(tmp_path: Path) -> None:
    store = PackageStore(tmp_path)
    assert put(store, package_bytes()) == put(store, package_bytes())
    assert store.usage() == (1, len(package_bytes()))
    assert len(leftovers(tmp_path)) == 1


def test_invalid_package_leaves_no_files(tmp_path: Path) -> None:
    store = PackageStore(tmp_path, max_bytes=1000)
    for data in (b"", b"no archive", package_bytes()[:-5], package_bytes({"/etc/passwd": "x"}), b"x" * 1001):
        with pytest.raises(ConfigError) as error:
            put(store, data)
        assert error.value.field == "package"
        assert error.value.fix
    assert leftovers(tmp_path) == []


def test_aborted_upload_leaves_no_files(tmp_path: Path) -> None:
    store = PackageStore(tmp_path)
    with store.receive() as upload:
        upload.write(package_bytes())
    assert leftovers(tmp_path) == []


def test_start_removes_incomplete_uploads_of_a_crash(tmp_path: Path) -> None:
    store = PackageStore(tmp_path)
    stored = put(store, package_bytes())
    half = tmp_path / ".incoming" / "half"
    half.write_bytes(b"x")
    os.utime(half, (1, 1))
    (tmp_path / ("0" * 64)).mkdir()
    (tmp_path / "stray").mkdir()
    again = PackageStore(tmp_path)
    assert again.stored() == [stored.sha256]
    assert len(leftovers(tmp_path)) == 1


def test_upload_survives_start_of_another_scheduler(tmp_path: Path) -> None:
    store, data = PackageStore(tmp_path), package_bytes()
    with store.receive() as upload:
        upload.write(data)
        another = PackageStore(tmp_path)
        stored = upload.commit()
    assert another.stored() == [stored.sha256]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_full_or_broken_disk_is_reported_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    store = PackageStore(tmp_path)
    first = put(store, package_bytes())

    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError) as error:
        put(store, package_bytes({"other.py": ""}))
    assert isinstance(error.value, StoreFull) == (code != errno.EIO)
    assert store.stored() == [first.sha256]
    assert len(leftovers(tmp_path)) == 1


def test_bad_hash_finds_nothing(tmp_path: Path) -> None:
    store = PackageStore(tmp_path)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "package.zip").write_bytes(b"")
    for name in ("x", "..", "", "../" + "0" * 61, "A" * 64, ".incoming"):
        assert store.find(name) is None


def test_only_old_unreferenced_packages_are_collected(tmp_path: Path) -> None:
    now = [1_700_000_000.0]
    store = PackageStore(tmp_path, grace_seconds=60, clock=lambda: now[0])
    kept, unused, young = (package_bytes({name: ""}) for name in "abc")
    kept_sha, unused_sha = put(store, kept).sha256, put(store, unused).sha256
    now[0] += 61
    young_sha = put(store, young).sha256
    assert store.collect({kept_sha}) == [unused_sha]
    assert store.stored() == sorted([kept_sha, young_sha])
    put(store, kept)
    now[0] += 59
    assert store.collect(()) == [], "uploaded again, it is young again"
    now[0] += 2
    assert store.collect(()) == sorted([kept_sha, young_sha])


def test_packages_of_apps_and_live_executors_are_referenced() -> None:
    a, b, c = ("a" * 64, "b" * 64, "c" * 64)
    assert referenced([a], [f'{{"uri": "http://x/{b}/package.zip"}}'], [a, b, c]) == {a, b}


def test_error_of_the_package_check_keeps_its_text(tmp_path: Path) -> None:
    def check(path: Path, *, wheel: bool) -> Any:
        raise PackageError("entry ../x leaves the package")

    with pytest.raises(ConfigError, match=r"entry \.\./x"):
        put(PackageStore(tmp_path, check=check), b"x")


def test_old_package_is_collected_when_its_app_is_replaced_or_removed(tmp_path: Path) -> None:
    now = [0.0]
    store = PackageStore(tmp_path / "p", grace_seconds=10, clock=lambda: now[0])
    api = client_of(make_api(tmp_path, FakeLoop(), packages=store))
    old, new = (
        api.post("packages", content=package_bytes({name: ""})).json()["sha256"] for name in ("old.py", "new.py")
    )
    assert api.post("apps", json=app_body(old)).status_code == 201
    now[0] = 100
    assert api.put("apps/demo", json=app_body(new)).status_code == 200
    assert store.stored() == sorted([old, new]), "an earlier version needs it"
    store.earlier_bytes = 0
    assert api.put("apps/demo", json=app_body(new, description="x")).status_code == 200
    assert store.stored() == [new]
    assert api.delete("apps/demo").status_code == 204
    assert store.stored() == []


def test_packages_of_earlier_versions_are_kept_up_to_their_limit(tmp_path: Path) -> None:
    now = [0.0]
    store = PackageStore(tmp_path / "p", grace_seconds=10, clock=lambda: now[0])
    found = [put(store, package_bytes({f"{letter}.py": ""})) for letter in "abcd"]
    used, newest, older, oldest = (package.sha256 for package in found)
    store.earlier_bytes = 2 * found[0].size
    now[0] = 100
    assert store.collect([used], [used, newest, older, oldest]) == [oldest]
    assert store.collect([used], [newest, newest]) == [older]


def test_upload_collects_older_packages_that_were_never_registered(tmp_path: Path) -> None:
    now = [0.0]
    store = PackageStore(tmp_path / "p", grace_seconds=10, clock=lambda: now[0])
    loop = FakeLoop()
    api = client_of(make_api(tmp_path, loop, packages=store))
    api.post("packages", content=package_bytes({"forgotten.py": ""}))
    now[0] = 100
    fresh = api.post("packages", content=package_bytes({"fresh.py": ""})).json()["sha256"]
    assert store.stored() == [fresh]
    now[0], loop.ask = 200, lambda fn, timeout=5: (_ for _ in ()).throw(TimeoutError())  # type: ignore[method-assign]
    again = api.post("packages", content=package_bytes({"again.py": ""}))
    assert again.status_code == 201, "what cannot be collected now is no reason to refuse"
    assert len(store.stored()) == 2
