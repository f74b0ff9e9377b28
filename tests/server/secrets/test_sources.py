"""Sources of secrets: a directory, and the environment of the scheduler."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from jobcloud.server.secrets.sources import (
    MAX_BYTES,
    DirectorySource,
    EnvironmentSource,
    Missing,
    SourceFailed,
    value_of,
)


def write(path: Path, value: bytes, mode: int = 0o600) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(value)
    path.chmod(mode)


def make_pipe(path: Path) -> None:
    path.parent.mkdir()
    os.mkfifo(path)


def test_directory_gives_the_present_value_of_a_secret_of_the_team(tmp_path: Path) -> None:
    source = DirectorySource(tmp_path)
    write(tmp_path / "shop" / "db-password", b"one")
    assert source.read("shop", "db-password") == b"one"
    write(tmp_path / "shop" / "db-password", b"two")
    assert source.read("shop", "db-password") == b"two"


def test_secret_of_another_team_does_not_exist_unless_it_is_shared(tmp_path: Path) -> None:
    source = DirectorySource(tmp_path)
    write(tmp_path / "shop" / "db-password", b"of the shop")
    with pytest.raises(Missing):
        value_of(source, "bank", "db-password")
    write(tmp_path / "_shared" / "db-password", b"of all")
    assert value_of(source, "bank", "db-password") == b"of all"
    assert value_of(source, "shop", "db-password") == b"of the shop", "the team's own secret comes first"
    (tmp_path / "bank").symlink_to(tmp_path / "shop")
    assert value_of(source, "bank", "db-password") == b"of the shop"


@pytest.mark.parametrize(
    ("prepare", "problem"),
    [
        (lambda path: write(path, b"x", 0o604), "can be read by every user"),
        (lambda path: path.mkdir(parents=True), "cannot be read: Is a directory|is not a regular file"),
        (make_pipe, "is not a regular file"),
        (lambda path: write(path, b"x" * (MAX_BYTES + 1)), "has more than 65,536 bytes"),
    ],
)
def test_unusable_file_is_a_failure_of_the_source_with_a_reason(
    tmp_path: Path, prepare: Callable[[Path], None], problem: str
) -> None:
    prepare(tmp_path / "shop" / "db-password")
    with pytest.raises(SourceFailed, match=problem):
        DirectorySource(tmp_path).read("shop", "db-password")


def test_missing_directory_is_a_failure_and_not_a_missing_secret(tmp_path: Path) -> None:
    with pytest.raises(SourceFailed, match="No such file"):
        value_of(DirectorySource(tmp_path / "absent"), "shop", "db-password")


def test_environment_gives_secrets_by_team_and_name() -> None:
    variables = {"APP_SHOP__DB_PASSWORD": "é", "APP__SHARED__MAIL": "all", "OTHER_SHOP__X": "no"}
    source = EnvironmentSource("APP_", variables)
    assert source.read("shop", "db-password") == "é".encode()
    assert value_of(source, "bank", "mail") == b"all"
    for team, name in (("bank", "db-password"), ("shop", "x")):
        with pytest.raises(Missing):
            value_of(source, team, name)


def test_names_that_would_share_a_variable_have_none() -> None:
    source = EnvironmentSource("APP_", {"APP_A__B__C": "v", "APP_A___B": "v"})
    for team, name in (("a", "b--c"), ("a--b", "c"), ("a-", "b")):
        with pytest.raises(Missing):
            source.read(team, name)
