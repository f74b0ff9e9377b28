"""The contract of stores of the archive, on a directory and on an S3-compatible server."""

from __future__ import annotations

import errno
import os
import stat
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from tests.archive_kit import ended

from jobcloud.archive.form import Stream, pack, read
from jobcloud.archive.s3 import S3LogStore, S3Options
from jobcloud.archive.stores import Away, DirectoryStore, LogStore

NAME = ended().name


def test_object_is_stored_replaced_and_read(store: LogStore) -> None:
    store.put(NAME, b"old")
    store.put(NAME, b"newer")
    with store.open(NAME) as file:
        assert file.read() == b"newer"
    (stored,) = store.list()
    assert (stored.name, stored.size) == (NAME, 5)
    assert stored.ms > 1_600_000_000_000


def test_missing_object_is_not_found_and_deleted_without_an_error(store: LogStore) -> None:
    with pytest.raises(FileNotFoundError):
        store.open(NAME)
    store.delete([NAME])
    store.put(NAME, b"x")
    store.delete([NAME, ended(1).name])
    assert list(store.list()) == []


def test_mark_is_stored_beside_the_logs(store: LogStore) -> None:
    store.put("mark.json", b"{}")
    with store.open("mark.json") as file:
        assert file.read() == b"{}"


def test_more_objects_than_a_page_are_listed_and_deleted_at_once(
    store: LogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # slow, and of no use here
    names = [ended(number).name for number in range(1_010)]
    for name in names:
        store.put(name, b"")
    assert {stored.name for stored in store.list()} == set(names)
    store.delete(names[:1_000])
    assert {stored.name for stored in store.list()} == set(names[1_000:])


def test_long_log_is_read_by_parts(store: LogStore) -> None:
    data = os.urandom(1 << 20)  # does not shrink, so that the object is longer than its first read
    store.put(NAME, pack(ended(), {"stdout": Stream(len(data), ((0, data),)), "stderr": Stream(3, ((0, b"err"),))}))
    for offset, limit in ((0, 10), (500_000, 300_000), (len(data) - 5, 100), (-7, 7), (262_143, 2)):
        with store.open(NAME) as file:
            start = offset if offset >= 0 else len(data) + offset
            assert read(file, "stdout", offset, limit)[:3] == (data[start : start + limit], start, len(data))
    with store.open(NAME) as file:
        assert read(file, "stderr", 0, 10).data == b"err"


# ---------------------------------------------------------------------------------------------------- a directory


def make_directory(tmp_path: Path) -> DirectoryStore:
    store = DirectoryStore(tmp_path / "archive", "jobcloud-logs-1/test")
    store.prepare()
    return store


def test_files_and_folders_are_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_directory(tmp_path).put(NAME, b"x")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "archive").rglob("*") if path.is_file()}
    assert modes == {0o600}
    folders = [tmp_path / "archive", *(path for path in (tmp_path / "archive").rglob("*") if path.is_dir())]
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in folders[:1] + folders[3:]} == {0}


def test_directory_open_to_others_is_closed(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive").chmod(0o777)
    make_directory(tmp_path)
    assert stat.S_IMODE((tmp_path / "archive").stat().st_mode) == 0o770


def test_directory_that_others_can_write_and_that_cannot_be_closed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    (tmp_path / "archive").mkdir()
    (tmp_path / "archive").chmod(0o777)
    monkeypatch.setattr(Path, "chmod", refuse)
    with pytest.raises(Away, match="Operation not permitted"):
        make_directory(tmp_path)


def test_failed_write_leaves_the_old_object_and_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store = make_directory(tmp_path)
    store.put(NAME, b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Away, match="No space left"):
        store.put(NAME, b"new")
    files = [path for path in (tmp_path / "archive").rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in files] == [b"old"]


def test_unfinished_file_of_a_crash_is_not_listed_and_removed_after_an_hour(tmp_path: Path) -> None:
    store = make_directory(tmp_path)
    store.put(NAME, b"x")
    folder = tmp_path / "archive/jobcloud-logs-1/test" / NAME[:2]
    young, old = folder / ".a.new", folder / ".b.new"
    young.touch()
    old.touch()
    os.utime(old, (0, 0))
    assert [stored.name for stored in store.list()] == [NAME]
    assert young.exists()
    assert not old.exists()


def test_directory_that_is_gone_is_no_missing_object(tmp_path: Path) -> None:
    store = make_directory(tmp_path)
    (tmp_path / "archive").rename(tmp_path / "elsewhere")
    with pytest.raises(Away, match="is gone"):
        store.open(NAME)
    with pytest.raises(Away, match="is gone"):
        store.put(NAME, b"x")


# ---------------------------------------------------------------------------------------------------- a bucket


def test_missing_bucket_is_no_missing_object(s3_server: str) -> None:
    store = S3LogStore(S3Options("no-such-bucket", "", s3_server, "us-east-1", "AK", "SK"), "root")
    store.prepare()
    for attempt in (lambda: store.open(NAME), lambda: store.put(NAME, b"x"), lambda: list(store.list())):
        with pytest.raises(Away, match="NoSuchBucket"):
            attempt()


class _Refusing(BaseHTTPRequestHandler):
    """Answers as S3 does for a wrong secret."""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b"<Error><Code>SignatureDoesNotMatch</Code><Message>no</Message></Error>"
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


def test_wrong_credentials_are_named_and_never_shown() -> None:
    pytest.importorskip("obstore")
    server = HTTPServer(("127.0.0.1", 0), _Refusing)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    options = S3Options(
        "bucket", "", f"http://127.0.0.1:{server.server_port}", "us-east-1", "AKIDEXAMPLE", "top-secret"
    )
    store = S3LogStore(options, "root")
    store.prepare()
    for attempt in (lambda: store.open(NAME), lambda: store.put(NAME, b"x"), lambda: list(store.list())):
        with pytest.raises(Away, match="SignatureDoesNotMatch") as error:
            attempt()
        assert "top-secret" not in str(error.value)
    server.shutdown()
    server.server_close()
    assert "top-secret" not in repr(options) + str(store)


def test_server_that_is_away_is_named() -> None:
    pytest.importorskip("obstore")
    store = S3LogStore(S3Options("bucket", "p", "http://127.0.0.1:1", "us-east-1", "AK", "SK"), "root")
    store.prepare()
    with pytest.raises(Away, match="s3://bucket/p: "):
        store.put(NAME, b"x")


def test_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Away, match=r"jobcloud\[s3\]"):
        S3LogStore(S3Options("bucket"), "root").prepare()
