"""Files that the dev agent fetches into sandboxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobcloud.dev.protocol import StartExecutor
from jobcloud.dev.sandbox import LaunchError, Workspace, prepare


def fetch(workspace: Workspace, container_id: str, source: Path) -> Path:
    """Prepare a sandbox with one cached file. Returns the file."""
    uri = {"value": str(source), "cache": True, "extract": False, "output_file": "fetched"}
    executor: dict[str, Any] = {"executor_id": {"value": "e"}, "command": {"uris": [uri]}}
    return prepare(workspace, StartExecutor(container_id, "S0", "f", executor, False)) / "fetched"


def test_cached_file_is_downloaded_once(tmp_path: Path) -> None:
    workspace, source = Workspace(tmp_path / "agent", 1), tmp_path / "source"
    source.write_text("old")
    assert fetch(workspace, "c1", source).read_text() == "old"
    source.write_text("new")
    assert fetch(workspace, "c2", source).read_text() == "old"


def test_failed_download_leaves_no_cached_file(tmp_path: Path) -> None:
    workspace, source = Workspace(tmp_path / "agent", 1), tmp_path / "source"
    with pytest.raises(LaunchError):
        fetch(workspace, "c1", source)
    assert list((tmp_path / "agent" / "fetch-cache").iterdir()) == []
    source.write_text("text")
    assert fetch(workspace, "c2", source).read_text() == "text"


def test_cached_files_with_long_equal_endings_differ(tmp_path: Path) -> None:
    workspace, ending = Workspace(tmp_path / "agent", 1), Path("x" * 120)
    for name in ("one", "two"):
        (tmp_path / name / ending).parent.mkdir()
        (tmp_path / name / ending).write_text(name)
    found = [fetch(workspace, name, tmp_path / name / ending).read_text() for name in ("one", "two")]
    assert found == ["one", "two"]
