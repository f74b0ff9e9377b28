"""`jobcloud pool` and its commands."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.client.test_apply import Shell

from jobcloud.model import Pool


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    return Shell(tmp_path, monkeypatch, capsys)


def test_pool_is_set_listed_and_removed(shell: Shell) -> None:
    assert shell("pool", "list")[1].strip() == "there is no pool"
    code, out, _ = shell("pool", "set", "orders-db", "5", "--description", "the database of orders")
    assert (code, out.strip()) == (0, "pool orders-db has 5 slots, 0 of them are used")
    assert shell("pool", "set", "orders-db", "3")[0] == 0
    assert shell.loop.scheduler.pools == {"orders-db": Pool(3, "the database of orders")}
    lines = shell("pool", "list")[1].splitlines()
    assert lines[0].split() == ["POOL", "USED", "SLOTS", "WAITING", "JOBS", "DESCRIPTION"]
    assert lines[1].split()[:5] == ["orders-db", "0", "3", "0", "0"]
    assert shell("pool", "rm", "orders-db")[1].strip() == "pool orders-db is removed"
    assert shell.loop.scheduler.pools == {}


def test_team_of_the_command_is_that_of_the_pool(shell: Shell) -> None:
    assert shell("--team", "billing", "pool", "set", "db", "1")[0] == 0
    assert shell("pool", "set", "*:db", "2")[0] == 0
    assert set(shell.loop.scheduler.pools) == {"billing:db", "*:db"}


def test_unknown_pool_is_a_clear_error(shell: Shell) -> None:
    code, _, err = shell("pool", "rm", "nothing")
    assert code != 0
    assert "there is no pool nothing" in err
