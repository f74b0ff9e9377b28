"""Fire times on the agent: valid tables only, standard library only, and the same instants as cron.py."""

from __future__ import annotations

import ast
import json
import pathlib
import sys
from typing import Any

import pytest

import jobcloud.executor.firetimes
from jobcloud.cron import Fold, Gap, Schedule
from jobcloud.executor.firetimes import FireTimes

MARCH_28 = 1_774_656_000_000  # 2026-03-28T00:00Z


def table(**changes: Any) -> dict[str, Any]:
    return {**Schedule.parse("0 30 2 * * ?", zone="Europe/Berlin").table(), **changes}


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        ("0/5 * * * * ?", "UTC"),
        ("0 30 2 * * ?", "Europe/Berlin"),
        ("0 0/30 * * * ?", "Europe/Berlin"),
        ("0 0 0 LW * ?", "America/Sao_Paulo"),
        ("0 0 9 L-3 * ?", "Asia/Kolkata"),
        ("0 0 9 15W 1/2 ? 2026-2030", "UTC"),
        ("0 0 0 ? * FRI#2", "Pacific/Apia"),
        ("0 15 10 ? * 6L", "Australia/Lord_Howe"),
        ("0 0 0 29 2 ?", "UTC"),
    ],
)
def test_fire_times_agree_with_the_scheduler(text: str, zone: str) -> None:
    schedule = Schedule.parse(text, zone=zone)
    agent = FireTimes(json.loads(json.dumps(schedule.table())))
    at: int | None = MARCH_28
    for _ in range(15):
        assert at is not None
        following = schedule.next_after(at)
        assert agent.next_after(at) == following
        at = following


@pytest.mark.parametrize("gap", Gap)
@pytest.mark.parametrize("fold", Fold)
def test_fire_times_follow_the_policy_for_clock_changes(gap: Gap, fold: Fold) -> None:
    for text in ("0 30 2 * * ?", "0 0/20 2 * * ?"):
        schedule = Schedule.parse(text, zone="Europe/Berlin", gap=gap, fold=fold)
        agent = FireTimes(schedule.table())
        for start in (1_774_742_400_000, 1_792_886_400_000):  # the days of the change in 2026
            at: int | None = start
            for _ in range(8):
                assert at is not None
                following = schedule.next_after(at)
                assert agent.next_after(at) == following
                at = following


@pytest.mark.parametrize(
    "changes",
    [
        {"special_days": []},
        {"special_days": None},
        {"special_days": [5]},
        {"special_days": [{"kind": "last", "n": 31, "weekday": 0}]},
        {"special_day": {"kind": "last", "n": 0, "weekday": 0}},
        {"month_days": [0]},
    ],
)
def test_damaged_list_of_special_days_is_refused(changes: dict[str, object]) -> None:
    good = Schedule.parse("0 0 0 1,L * ?").table()
    FireTimes(good)
    with pytest.raises(ValueError, match=r"fire table: .*(special_day|month_days)"):
        FireTimes(good | changes)


def test_table_without_future_firings_gives_none() -> None:
    assert FireTimes(Schedule.parse("0 0 0 1 1 ? 2020").table()).next_after(MARCH_28) is None
    assert FireTimes(Schedule.parse("0 0 0 30 2 ?").table()).next_after(MARCH_28) is None
    assert FireTimes(table()).next_after(10**16) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 2),
        ("version", 3),
        ("seconds", []),
        ("seconds", [60]),
        ("minutes", [5, 4]),
        ("minutes", [1, 1]),
        ("hours", "2"),
        ("hours", [True]),
        ("hours", [2.0]),
        ("months", None),
        ("month_days", [0]),
        ("weekdays", [7]),
        ("years", [1969]),
        ("years", []),
        ("either_day", 1),
        ("run_after_gap", None),
        ("repeat_in_fold", "no"),
        ("special_day", 5),
        ("special_day", {"kind": "first", "n": 0, "weekday": 0}),
        ("special_day", {"kind": [], "n": 0, "weekday": 0}),
        ("special_day", {"kind": "nth_weekday", "n": 6, "weekday": 0}),
        ("special_day", {"kind": "nth_weekday", "n": 1, "weekday": 7}),
        ("zone", "Mars/Olympus"),
        ("zone", "../../etc/passwd"),
        ("zone", 7),
        ("zone", None),
    ],
)
def test_damaged_table_is_refused_by_the_name_of_its_field(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        FireTimes(table(**{field: value}))


def test_missing_field_is_refused_by_name() -> None:
    for field in table():
        damaged = table()
        del damaged[field]
        with pytest.raises(ValueError, match=field):
            FireTimes(damaged)
    with pytest.raises(ValueError, match="version"):
        FireTimes([])  # type: ignore[arg-type]


def test_firetimes_imports_only_the_standard_library_and_parses_as_python_3_9() -> None:
    source = pathlib.Path(jobcloud.executor.firetimes.__file__).read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 9))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert modules <= {*sys.stdlib_module_names, "jobcloud"}
