"""One time zone database for the scheduler and its executors."""

from __future__ import annotations

import json
import subprocess
import sys
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobcloud import zones
from jobcloud.cron import Schedule
from jobcloud.executor import bundle
from jobcloud.executor.firetimes import FireTimes

# British Columbia keeps UTC-7 in winter, from release 2026a on.
NOON = Schedule.parse("0 0 12 * * ?", zone="America/Vancouver")
BEFORE = round(datetime(2026, 12, 15, tzinfo=UTC).timestamp() * 1000)
EXPECTED = round(datetime(2026, 12, 15, 19, tzinfo=UTC).timestamp() * 1000)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of this machine's own database, which is empty."""
    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath([str(tmp_path)])
    yield tmp_path
    zoneinfo.reset_tzpath(before)


def test_rules_are_those_of_the_package_whatever_the_machine_has(machine: Path) -> None:
    stale = zones.zone("America/Edmonton")
    (machine / "America").mkdir()
    (machine / "America" / "Edmonton").write_bytes(b"not a zone")
    assert zones.version() >= "2026f"
    assert NOON.next_after(BEFORE) == EXPECTED
    assert FireTimes(NOON.table()).next_after(BEFORE) == EXPECTED
    assert stale.utcoffset(datetime(2026, 12, 15)) == zones.zone("America/Denver").utcoffset(datetime(2026, 7, 15))


def test_executor_has_the_rules_of_the_scheduler(tmp_path: Path) -> None:
    program = tmp_path / bundle.FILE_NAME
    program.write_bytes(bundle.build())
    script = (
        f"import sys, json; sys.path.insert(0, {str(program)!r}); from jobcloud import zones;"
        "from jobcloud.executor.firetimes import FireTimes; table = json.loads(sys.argv[1]);"
        "print(zones.version(), FireTimes(table).next_after(int(sys.argv[2])), len(zones.names()))"
    )
    # Without site packages, as on an agent.
    argv = [sys.executable, "-I", "-S", "-c", script, json.dumps(NOON.table()), str(BEFORE)]
    told = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    assert told == [zones.version(), str(EXPECTED), str(len(zones.names()))]


def test_every_zone_is_in_the_copy_for_executors() -> None:
    copy = json.loads(zones.copy_for_executors())
    assert set(copy["zones"]) == set(zones.names()) >= {"UTC", "Europe/Berlin", "US/Pacific"}
    assert len(copy["data"]) < len(copy["zones"])  # zones with equal rules share them
    assert len(zones.copy_for_executors()) < 400_000


@pytest.mark.parametrize(
    "name", ["", "Europe", "../etc/passwd", "Europe/../Europe/Berlin", "localtime", "europe/berlin"]
)
def test_name_that_is_not_in_the_database_is_unknown(name: str) -> None:
    with pytest.raises(LookupError, match="no zone"):
        zones.zone(name)


def test_zone_is_made_once() -> None:
    assert zones.zone("Europe/Berlin") is zones.zone("Europe/Berlin")


@pytest.mark.parametrize(
    ("file", "first_line", "newer"),
    [
        ("tzdata.zi", "# version 2099a\n", "2099a"),
        ("+VERSION", "2099a\n", "2099a"),
        ("tzdata.zi", "# version 2025b\n", ""),
        ("tzdata.zi", "# version unknown\n", ""),
        ("tzdata.zi", "# version 2099a" + "x" * 10_000, ""),
        ("tzdata.zi", "\xff", ""),
    ],
)
def test_newer_database_of_the_machine_is_reported(machine: Path, file: str, first_line: str, newer: str) -> None:
    (machine / file).write_bytes(first_line.encode("latin-1"))
    warning = zones.warning()
    assert bool(warning) == bool(newer)
    if newer:
        assert f"is {zones.version()}, and that of this machine is {newer}" in warning


def test_machine_without_a_database_is_not_reported(machine: Path) -> None:
    assert zones.warning() == ""
