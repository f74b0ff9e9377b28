"""The start of a scheduler process, before it leads."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from jobcloud.errors import StoreError, StoreFull
from jobcloud.server import wiring
from jobcloud.server.settings import load

_Usage = namedtuple("_Usage", ["total", "used", "free"])


def test_too_little_space_at_the_start_is_told_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: _Usage(10**9, 10**9 - 4_194_304, 4_194_304))
    with pytest.raises(StoreFull, match=r"4,194,304 bytes are free, a start needs 8,388,608"):
        wiring._check_room(tmp_path / "data")


def test_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file/data cannot be used: Not a directory"):
        wiring._check_room(tmp_path / "file" / "data")


def test_clock_that_is_ahead_of_the_master_is_doubted_before_anything_fires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = wiring._Process(load(flags={"mesos.master": "10.0.0.1:5050"}), tmp_path)
    before = process._clock.now_ms()
    monkeypatch.setattr(wiring, "master_time", lambda wanted: before - 180 * 86_400_000)
    process._compare_clocks()
    assert process._clock.now_ms() < before - 179 * 86_400_000
    assert any("180 d ahead of that of the Mesos master" in warning for warning in process._warnings())
    process._outputs.close()


def test_master_that_tells_no_time_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = wiring._Process(load(flags={"mesos.master": "10.0.0.1:5050"}), tmp_path)
    monkeypatch.setattr(wiring, "master_time", lambda wanted: None)
    process._compare_clocks()
    assert process._warnings() == ()
    process._outputs.close()
