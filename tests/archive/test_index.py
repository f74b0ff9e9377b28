"""The index of an archive: which logs are known, and which are deleted."""

from __future__ import annotations

from typing import Any

import pytest
from tests.archive_kit import ended

from jobcloud.archive.index import Index, Limits
from jobcloud.archive.names import Ended, parts_of
from jobcloud.archive.stores import Stored

ALL = [ended(number, job="report" if number % 2 else "sales") for number in range(10)]


def stored(one: Ended, size: int = 10) -> Stored:
    return Stored(one.name, size, one.ended_ms)


def places(*numbers: int) -> list[str]:
    return [ALL[number].place for number in numbers]


def test_logs_are_found_by_attempt_and_by_task() -> None:
    index = Index(Limits(), map(stored, ALL))
    assert [index.name(one.place) for one in ALL] == [one.name for one in ALL]
    assert [index.name_of_task(one.task_id) for one in ALL] == [one.name for one in ALL]
    assert index.name(ended(99).place) == index.name_of_task("nope") == ""
    assert (len(index), index.bytes) == (10, 100)
    index.remove(ALL[3].place)
    index.remove(ALL[3].place)
    assert index.name(ALL[3].place) == index.name_of_task(ALL[3].task_id) == ""
    assert (len(index), index.bytes) == (9, 90)


def test_log_that_is_stored_again_counts_once() -> None:
    index = Index(Limits(logs=10), map(stored, ALL))
    index.add(stored(ALL[0], 15))
    assert (len(index), index.bytes) == (10, 105)


@pytest.mark.parametrize(
    ("limits", "deleted"),
    [
        (Limits(), []),
        (Limits(logs=7), [0, 1, 2]),
        (Limits(bytes=75), [0, 1, 2]),
        (Limits(age_ms=7_000), [0, 1]),
        (Limits(logs_per_job=3), [0, 2, 1, 3]),
        (Limits(logs=9, logs_per_job=3), [0, 2, 1, 3]),
    ],
)
def test_oldest_logs_over_the_limits_are_deleted(limits: Limits, deleted: list[int]) -> None:
    index = Index(limits, map(stored, reversed(ALL)))
    now = ALL[9].ended_ms
    assert index.over(now, 100) == places(*deleted)
    assert index.over(now, 2) == places(*deleted[:2])
    for place in index.over(now, 100):
        index.remove(place)
    assert index.over(now, 100) == []


@pytest.mark.parametrize(
    "name",
    [
        "mark.json",
        "../" + ALL[0].name,
        ALL[0].name + "/x",
        ALL[0].name.replace(".zip", ".txt"),
        "zz" + ALL[0].name[2:],
        ("ab" if ALL[0].name[:2] != "ab" else "cd") + ALL[0].name[2:],
        ALL[0].name.replace("-1-", "-١-"),
        ALL[0].name + "\n",
    ],
)
def test_objects_of_others_are_left_alone(name: str) -> None:
    index = Index(Limits(logs=1, age_ms=1), [Stored(name, 10, 0)])
    assert (len(index), index.over(10**15, 100)) == (0, [])


@pytest.mark.parametrize(
    "changes",
    [
        {"run_id": "../../etc/passwd"},
        {"run_id": "r" * 100_000},
        {"run_id": "\0\n/\udc80"},
        {"job": "../x", "item": 999_999_999, "attempt": 999_999_999},
    ],
)
def test_name_of_any_attempt_is_a_short_plain_path(changes: dict[str, Any]) -> None:
    one = ended()._replace(**changes)
    assert len(one.name) < 100
    parts = parts_of(one.name)
    assert parts is not None
    assert parts.place == one.place
    assert ".." not in one.name


def test_attempts_of_different_runs_shards_and_numbers_have_different_names() -> None:
    one = ended()
    others = [one, one._replace(run_id="x"), one._replace(item=1), one._replace(attempt=2)]
    assert len({other.place for other in others}) == len({other.name for other in others}) == 4
