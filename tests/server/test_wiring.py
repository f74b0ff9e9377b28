"""The start of a scheduler process."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from jobcloud.errors import ConfigError
from jobcloud.server.wiring import _prepare_data


@pytest.mark.parametrize(("mode", "mended"), [(0o755, 0o750), (0o777, 0o770), (0o701, 0o700)])
def test_data_directory_open_to_others_is_closed_with_a_warning(tmp_path: Path, mode: int, mended: int) -> None:
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(mode)
    with capture_logs() as lines:
        _prepare_data(data)
    assert data.stat().st_mode & 0o777 == mended
    assert [line["log_level"] for line in lines] == ["warning"]
    with capture_logs() as lines:
        _prepare_data(data)
    assert lines == []


def test_new_data_directory_is_private(tmp_path: Path) -> None:
    _prepare_data(tmp_path / "a" / "data")
    assert (tmp_path / "a" / "data").stat().st_mode & 0o777 == 0o700


def test_data_directory_that_cannot_be_closed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    tmp_path.chmod(0o755)
    monkeypatch.setattr(Path, "chmod", refuse)
    with pytest.raises(ConfigError, match="Operation not permitted") as error:
        _prepare_data(tmp_path)
    assert error.value.field == "data"
    with pytest.raises(ConfigError):
        _prepare_data(Path("/proc/nothing"))
