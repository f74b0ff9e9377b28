"""Epochs that never go back: above the stored epoch, above the file beside the data, and above the clock."""

from __future__ import annotations

import json
import os
import shutil
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobcloud.adapters.memory import MemoryServer, MemoryStore
from jobcloud.adapters.sqlite import SqliteStore
from jobcloud.errors import StoreError, StoreFull, StoreUnusable
from jobcloud.messages import Kind
from jobcloud.ports import StoredWrite
from jobcloud.server import epochs
from jobcloud.server.epochs import MAX_EPOCH, LastingEpochs, Recorded

JOB = StoredWrite(Kind.JOB, "a", b"1")


def instant(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1_000)


NOW = instant("2026-11-30T15:00:00")
OF_NOW = 363_690


def lasting(server: MemoryServer, path: Path, now: int = NOW, state: str = "here") -> LastingEpochs:
    return LastingEpochs(MemoryStore(server), path, state=state, now_ms=lambda: now)


def test_first_epoch_comes_from_the_clock_and_restarts_add_one(tmp_path: Path) -> None:
    server, path = MemoryServer(), tmp_path / "epoch"
    assert [lasting(server, path).acquire() for _ in range(3)] == [OF_NOW, OF_NOW + 1, OF_NOW + 2]
    assert epochs.read(path) == Recorded(OF_NOW + 2, "here")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_epoch_of_a_small_stored_state_is_raised_at_a_takeover(tmp_path: Path) -> None:
    server = MemoryServer(epoch=17)
    assert lasting(server, tmp_path / "epoch").acquire() == OF_NOW


def test_state_that_went_back_gets_an_epoch_above_the_file(tmp_path: Path) -> None:
    path = tmp_path / "epoch"
    used = [lasting(MemoryServer(epoch=5), path).acquire() for _ in range(4)]
    assert len(set(used)) == 4


def test_state_that_went_back_without_its_file_gets_an_epoch_above_the_clock(tmp_path: Path) -> None:
    before = lasting(MemoryServer(epoch=5), tmp_path / "a").acquire()
    assert lasting(MemoryServer(epoch=5), tmp_path / "b", NOW + 600_000).acquire() == before + 1


def test_clock_that_went_back_does_not_lower_the_epoch(tmp_path: Path) -> None:
    server, path = MemoryServer(), tmp_path / "epoch"
    first = lasting(server, path).acquire()
    assert lasting(server, path, instant("2001-01-01")).acquire() == first + 1


@pytest.mark.parametrize("year", [2097, 2500, 9000])
def test_clock_that_is_far_ahead_leaves_half_of_the_range(tmp_path: Path, year: int) -> None:
    server, path = MemoryServer(), tmp_path / "epoch"
    used = [lasting(server, path, instant(f"{year}-01-01")).acquire() for _ in range(3)]
    assert used == [4_000_000, 4_000_001, 4_000_002]


def test_clock_before_its_beginning_counts_as_zero() -> None:
    assert epochs.of_clock(0) == epochs.of_clock(instant("2019-12-31")) == 0


def test_fence_tokens_of_the_whole_range_are_exact_in_a_double() -> None:
    for epoch in (OF_NOW, 4_000_000, MAX_EPOCH):
        last = epoch * 1_000_000_000 + 999_999_999
        assert int(float(last)) == last
        assert float(last) < float(last + 1)


@pytest.mark.parametrize(
    "content",
    [b"", b"7", b"{}", b"[]", b"\xff", b'{"v":1}', b'{"v":1,"epoch":-1,"state":"here"}',
     b'{"v":1,"epoch":true,"state":"here"}', b'{"v":1,"epoch":9000001,"state":"here"}',
     b'{"v":1,"epoch":1e30,"state":"here"}', b'{"v":1,"epoch":1,"state":7}', b"[" * 900],
)  # fmt: skip
def test_damaged_file_is_refused_with_a_fix_and_left_unchanged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "epoch"
    path.write_bytes(content)
    server = MemoryServer(epoch=3)
    with pytest.raises(StoreUnusable, match=r"epoch is damaged.*delete it"):
        lasting(server, path).acquire()
    assert (path.read_bytes(), server.epoch) == (content, 3)


def test_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "epoch"
    path.write_text('{"v":2,"epoch":1,"state":"here"}')
    with pytest.raises(StoreUnusable, match="newer"):
        lasting(MemoryServer(), path).acquire()


def test_epoch_that_cannot_be_recorded_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreFull, match="epoch cannot be written"):
        lasting(MemoryServer(), tmp_path / "epoch").acquire()
    assert list(tmp_path.iterdir()) == []


def test_superseded_scheduler_does_not_lower_a_shared_file(tmp_path: Path) -> None:
    path = tmp_path / "epoch"
    epochs.record(path, Recorded(900, "here"))
    epochs.record(path, Recorded(899, "here"))
    assert epochs.read(path).epoch == 900


def test_file_keeps_the_greatest_epoch_when_the_place_of_the_state_changes(tmp_path: Path) -> None:
    path = tmp_path / "epoch"
    epochs.record(path, Recorded(900_000, "zookeeper"))
    assert lasting(MemoryServer(), path).acquire() == 900_001
    assert json.loads(path.read_text()) == {"v": 1, "epoch": 900_001, "state": "here"}


def test_deleted_state_is_refused_at_the_next_start(tmp_path: Path) -> None:
    """Without this, a supervisor would restart the scheduler at once with no jobs."""
    path = tmp_path / "epoch"
    first = lasting(MemoryServer(), path).acquire()
    with pytest.raises(StoreUnusable, match=rf"is empty.*epoch {first}.*jobcloud restore"):
        lasting(MemoryServer(), path).acquire()
    path.unlink()
    assert lasting(MemoryServer(), path, NOW + 600_000).acquire() == first + 1


def test_copy_of_the_sqlite_file_put_back_by_hand_reuses_no_epoch(tmp_path: Path) -> None:
    """The former procedure: stop, copy the backup over the file, start. 85 fence tokens were issued twice."""
    state, saved = tmp_path / "jobcloud.db", tmp_path / "saved.db"

    def lead() -> int:
        store = LastingEpochs(SqliteStore(state), tmp_path / "epoch", state="sqlite", now_ms=lambda: NOW)
        epoch = store.acquire()
        store.write(epoch, [JOB])
        store.close()
        return epoch

    first = lead()
    shutil.copy(state, saved)
    later = [lead() for _ in range(3)]
    shutil.copy(saved, state)
    assert lead() > max(first, *later)


def test_unreadable_file_is_an_error_of_the_store(tmp_path: Path) -> None:
    (tmp_path / "epoch").mkdir()
    with pytest.raises(StoreError, match="cannot be read"):
        lasting(MemoryServer(), tmp_path / "epoch").acquire()
