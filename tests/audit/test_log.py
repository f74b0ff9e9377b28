"""The chain of the audit log: crashes at each step, a full disk, limits, and every way to falsify it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from errno import EIO
from itertools import pairwise
from pathlib import Path

import pytest
from tests.audit_kit import CHAIN, START, Clock, Crash, FakeDisk, auditing, make_entry, make_log

from jobcloud.audit.entries import GENESIS, MAX_LINE, Change, Head, Kind, parse, seal
from jobcloud.audit.folder import DiskFolder, files_in
from jobcloud.audit.log import Limits
from jobcloud.audit.verify import Report, read_heads, verify
from jobcloud.errors import ConfigError, StoreError, StoreFull

SMALL = Limits(file_bytes=600)


def check(disk: FakeDisk, folder: Path, exported: list[Head] | None = None) -> Report:
    return verify(disk.write_to(folder), exported or [])


def test_lines_form_a_chain_over_files_and_processes(tmp_path: Path) -> None:
    disk = FakeDisk()
    for start in (0, 5):
        log = make_log(disk, SMALL)
        for number in range(start, start + 5):
            log.append([make_entry(number)])
    entries = disk.entries()
    assert len(disk.files) > 2
    assert [entry["seq"] for entry in entries] == list(range(1, 11))
    assert entries[0]["prev"] == GENESIS
    assert all(later["prev"] == entry["hash"] for entry, later in pairwise(entries))
    report = check(disk, tmp_path)
    assert (report.fault, report.lines, report.heads) == (None, 10, [log.head])


def test_text_from_outside_stays_in_its_line() -> None:
    hostile = 'a\nb\r\x00\x1b[2J\u2028\x85\ud800"}{'
    line, _ = seal(make_entry(subject=hostile, target=hostile), Head(CHAIN))
    assert line.count(b"\n") == 1
    assert line[:-1].decode("ascii").isprintable()
    assert json.loads(line)["subject"] == hostile
    assert parse(line[:-1]) is not None


def test_long_entry_loses_the_content_of_its_changes() -> None:
    changes = tuple(Change("PutJob", f"job{number}", {"a": "\x00" * 3_000}, {"a": "b"}) for number in range(300))
    line, _ = seal(make_entry(changes=changes), Head(CHAIN))
    found = json.loads(line)
    assert len(line) <= MAX_LINE
    assert found["changes"][0] == {"command": "PutJob", "key": "job0", "cut": True}
    assert (len(found["changes"]), found["more_changes"]) == (200, 100)


def _steps() -> int:
    disk = FakeDisk()
    log = make_log(disk, SMALL)
    for number in range(8):
        log.append([make_entry(number), make_entry(number)])
    return next(disk.operations)


@pytest.mark.parametrize("kept", [0, 1, 100, 100_000])
@pytest.mark.parametrize("step", range(_steps()))
def test_crash_at_any_step_loses_no_entry_that_was_confirmed(tmp_path: Path, step: int, kept: int) -> None:
    disk = FakeDisk(crash_at=step, kept=kept)
    confirmed = 0
    log = make_log(disk, SMALL)
    try:
        for number in range(8):
            log.append([make_entry(number), make_entry(number)])
            confirmed += 2
    except Crash:
        after = disk.after_crash()
    assert confirmed < 16
    log = make_log(after, SMALL)
    log.append([make_entry(99)])
    report = check(after, tmp_path)
    assert report.fault is None
    assert not report.torn
    assert confirmed <= report.lines - 1 <= confirmed + 2
    if log.found:
        assert log.found["torn_bytes"]


@pytest.mark.parametrize("operation", ["append", "sync"])
@pytest.mark.parametrize("also_truncate", [False, True])
def test_failed_write_leaves_nothing_behind(tmp_path: Path, operation: str, also_truncate: bool) -> None:
    disk = FakeDisk()
    log = make_log(disk)
    log.append([make_entry(1)])
    failing = {operation, "truncate"} if also_truncate else {operation}
    disk.failing = lambda name: OSError(EIO, "Input/output error") if name in failing else None
    with pytest.raises(StoreError, match="the audit log cannot be written: Input/output error"):
        log.append([make_entry(2)])
    disk.failing = lambda name: None
    log.append([make_entry(3)])
    assert [entry["subject"] for entry in disk.entries()] == ["user:u1", "user:u3"]
    assert check(disk, tmp_path).fault is None


def test_full_disk_is_told_apart(tmp_path: Path) -> None:
    disk = FakeDisk()
    log = make_log(disk)
    log.append([make_entry(1)])
    disk.room = log.size + 20
    with pytest.raises(StoreFull):
        log.append([make_entry(2)])
    assert check(disk, tmp_path).lines == 1


def test_damaged_end_begins_a_new_chain_and_is_found(tmp_path: Path) -> None:
    disk = FakeDisk()
    make_log(disk).append([make_entry(1), make_entry(2)])
    disk.files[1] = disk.files[1].replace(b"user:u2", b"user:u9")
    log = make_log(disk)
    log.append([make_entry(3)])
    assert log.found == {"damaged": "audit-000001.jsonl"}
    report = check(disk, tmp_path)
    assert report.fault is not None
    assert report.fault.line == 2


# ------------------------------------------------------------------------------------------------------- limits


def test_old_files_are_removed_and_an_entry_says_so(tmp_path: Path) -> None:
    disk, clock = FakeDisk(), Clock()
    limits = Limits(file_bytes=600, keep_ms=3_600_000)
    log = make_log(disk, limits, clock)
    for number in range(10):
        log.append([make_entry(number)])
    files = len(disk.files)
    clock.now += 7_200_000
    log.append([make_entry(7_200_000)])
    assert len(disk.files) == 1
    removal = disk.entries()[-2]
    assert removal["kind"] == "removed"
    assert removal["details"]["files"] == list(range(1, files))
    assert check(disk, tmp_path).fault is None


@pytest.mark.parametrize("step", range(4))
def test_crash_while_files_are_removed_is_harmless(tmp_path: Path, step: int) -> None:
    disk, clock = FakeDisk(), Clock()
    limits = Limits(file_bytes=600, keep_ms=3_600_000)
    log = make_log(disk, limits, clock)
    for number in range(6):
        log.append([make_entry(number)])
    clock.now += 7_200_000
    disk.crash_at = next(disk.operations) + 1 + step
    with pytest.raises(Crash):
        log.append([make_entry(7_200_000)])
    after = disk.after_crash()
    make_log(after, limits, clock).append([make_entry(7_200_001)])
    assert check(after, tmp_path).fault is None


def test_log_at_its_size_is_full_or_removes_the_oldest_file() -> None:
    disk = FakeDisk()
    log = make_log(disk, Limits(file_bytes=600, keep_bytes=2_000))
    while not log.full:
        log.append([make_entry()])
    log = make_log(disk, Limits(file_bytes=600, keep_bytes=2_000, delete=True))
    for _ in range(20):
        log.append([make_entry()])
    assert not log.full
    assert log.size < 3_000
    assert disk.entries()[0]["seq"] > 1


def test_order_does_not_depend_on_the_clock(tmp_path: Path) -> None:
    disk = FakeDisk()
    log = make_log(disk)
    log.append([make_entry(at=START), make_entry(at=START - 86_400_000), make_entry(at=START - 1)])
    assert [entry["seq"] for entry in disk.entries()] == [1, 2, 3]
    assert check(disk, tmp_path).fault is None


def test_second_process_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    first = DiskFolder(tmp_path / "audit")
    with pytest.raises(ConfigError, match="another process writes the audit log"):
        DiskFolder(tmp_path / "audit")
    first.close()
    DiskFolder(tmp_path / "audit").close()


def test_files_on_a_disk_are_private_and_complete(tmp_path: Path) -> None:
    disk = DiskFolder(tmp_path / "audit")
    log = make_log(disk, SMALL)
    for number in range(9):
        log.append([make_entry(number)])
    log.close()
    paths = files_in(tmp_path / "audit")
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o600}
    assert (tmp_path / "audit").stat().st_mode & 0o777 == 0o700
    assert verify(paths).lines == 9


# --------------------------------------------------------------------------------------------------- falsified


def _lines() -> list[bytes]:
    disk = FakeDisk()
    make_log(disk).append([make_entry(number) for number in range(1, 10)])
    return disk.files[1].splitlines(keepends=True)


def _forged(lines: list[bytes], place: int) -> bytes:
    """The line at a place with another content and a hash that fits."""
    before = parse(lines[place - 1][:-1])
    assert before is not None
    return seal(make_entry(subject="user:other"), before.head)[0]


def _changed(lines: list[bytes]) -> None:
    lines[4] = lines[4].replace(b"user:u5", b"user:u6")


def _changed_with_hash(lines: list[bytes]) -> None:
    lines[4] = _forged(lines, 4)


def _without_one(lines: list[bytes]) -> None:
    del lines[4]


def _with_one_more(lines: list[bytes]) -> None:
    lines.insert(4, _forged(lines, 4))


def _doubled(lines: list[bytes]) -> None:
    lines.insert(5, lines[4])


def _swapped(lines: list[bytes]) -> None:
    lines[4], lines[5] = lines[5], lines[4]


def _without_the_beginning(lines: list[bytes]) -> None:
    del lines[:2]


def _split(lines: list[bytes]) -> None:
    lines[4] = lines[4].replace(b'"kind"', b'\n"kind"')


def _of_another_chain(lines: list[bytes]) -> None:
    lines[4] = seal(make_entry(), Head("0123456789abcdef", 4, "0" * 64))[0]


@pytest.mark.parametrize(
    ("falsify", "line", "problem"),
    [
        (_changed, 5, "the line was changed: its hash does not fit its content (entry 5)"),
        (_changed_with_hash, 6, "the entry 5 before this line was changed, with a new hash"),
        (_without_one, 5, "removed or reordered: the entry 5 is missing before the entry 6"),
        (_with_one_more, 6, "inserted or reordered: the entry 5 follows the entry 5"),
        (_doubled, 6, "inserted or reordered: the entry 5 follows the entry 5"),
        (_swapped, 5, "removed or reordered: the entry 5 is missing before the entry 6"),
        (_without_the_beginning, 0, "the entries before 3 are missing, and no entry says that they were removed"),
        (_split, 5, "the line was changed: it has not the form of an entry"),
        (_of_another_chain, 5, "inserted: the line belongs to another chain, 0123456789abcdef"),
    ],
)
def test_first_wrong_line_is_named(
    tmp_path: Path, falsify: Callable[[list[bytes]], None], line: int, problem: str
) -> None:
    lines = _lines()
    falsify(lines)
    (path := tmp_path / "audit-000001.jsonl").write_bytes(b"".join(lines))
    fault = verify([path]).fault
    assert fault is not None
    assert (fault.problem, fault.line) == (problem, line)


def test_every_changed_byte_is_found(tmp_path: Path) -> None:
    lines = _lines()[:3]
    content = b"".join(lines)
    head = parse(lines[-1][:-1])
    assert head is not None
    path = tmp_path / "audit-000001.jsonl"
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert verify([path], [head.head]).fault is not None, place


def test_cut_end_is_found_by_an_exported_head(tmp_path: Path) -> None:
    lines = _lines()
    heads = [found.head for line in lines if (found := parse(line[:-1]))]
    path = tmp_path / "audit-000001.jsonl"
    path.write_bytes(b"".join(lines[:7]))
    assert verify([path]).fault is None
    fault = verify([path], heads).fault
    assert fault is not None
    assert fault.problem == f"truncated: the chain {CHAIN} ends at entry 7, and a head of entry 9 was exported"
    path.write_bytes(b"".join(lines))
    report = verify([path], heads)
    assert (report.fault, report.compared) == (None, 9)
    assert "is missing" in str(verify([], heads).fault)


def test_log_that_was_written_anew_is_found_by_an_exported_head(tmp_path: Path) -> None:
    lines = _lines()
    head = parse(lines[6][:-1])
    assert head is not None
    disk = FakeDisk()
    make_log(disk).append([make_entry(number, via="forged") for number in range(1, 10)])
    assert "is not the one of the exported head" in str(check(disk, tmp_path, [head.head]).fault)
    assert "contradict" in str(verify([], [head.head, Head(CHAIN, 7, "0" * 64)]).fault)


def test_unfinished_line_at_the_end_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "audit-000001.jsonl"
    path.write_bytes(b"".join(_lines())[:-10])
    report = verify([path])
    assert (report.fault, report.torn, report.lines) == (None, True, 8)
    (later := tmp_path / "audit-000002.jsonl").write_bytes(b"")
    assert verify([path, later]).fault is not None


def test_chains_of_several_schedulers_are_checked_together(tmp_path: Path) -> None:
    paths = []
    for chain in ("a" * 16, "b" * 16):
        head = Head(chain)
        (path := tmp_path / chain).write_bytes(b"")
        for number in range(3):
            line, head = seal(make_entry(number), head)
            path.write_bytes(path.read_bytes() + line)
        paths.append(path)
    report = verify(paths)
    assert report.fault is None
    assert [head.chain[0] for head in report.heads] == ["a", "b"]


def test_heads_are_read_from_the_log_of_a_syslog_server(tmp_path: Path) -> None:
    head = Head(CHAIN, 12, "ab" * 32)
    (path := tmp_path / "syslog").write_text(f"Dec  1 12:00:00 host kernel: x\n<109>1 - h jobcloud 1 - - {head}\nx\n")
    assert list(read_heads([path])) == [head]


def test_entries_of_concurrent_writers_are_all_there(tmp_path: Path) -> None:
    disk = FakeDisk()
    with auditing(disk) as audit:

        def write(name: int) -> None:
            for number in range(50):
                audit.intend(make_entry(number, kind=Kind.INTENT, subject=f"{name}")).result(30)

        threads = [threading.Thread(target=write, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert check(disk, tmp_path).lines == 401
