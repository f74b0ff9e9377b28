"""The soak's checker finds lost, doubled, early, overlapping and silent shards, and what a leader did when cut off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.soak.checker import check, seconds_due

MINUTE = 1_767_225_600  # the seconds since the epoch of a full minute
GONE = {"event": "agent gone", "agent": "a1", "at": MINUTE + 70}


def line(event: str, at: float, attempt: int = 1, item: int = 0, due: int = MINUTE + 60, **more: Any) -> dict[str, Any]:
    run = {"job": "work", "fire_ms": due * 1000, "run": f"work.{due}", "pid": 1, "agent": f"a{attempt}", **more}
    task = f"{run['job']}@-@{item}@-@READY@-@{run['agent']}@-@1-{due}{attempt}"
    return {"task": task, "event": event, "at": at, "item": item, "attempt": attempt, **run}


def whole(due: int = MINUTE + 60, **more: Any) -> list[dict[str, Any]]:
    return [line("start", due + 0.1, due=due, **more), line("end", due + 50, due=due, **more)]


def resident(due: int, **more: Any) -> dict[str, Any]:
    return line("start", due + 0.1, due=due, job="resident", **more)


def second(number: int) -> list[dict[str, Any]]:
    due = MINUTE + number
    return [line(event, due + 0.1, due=due, job="every-second") for event in ("start", "end")]


SECONDS = [one for number in range(5) for one in second(number)]
GOOD = [*whole(), *whole(item=1), resident(MINUTE + 120), *SECONDS]


def judged(folder: Path, lines: list[dict[str, Any]], *faults: dict[str, Any], skipped: int = 0) -> dict[str, int]:
    """The number of violations of each kind."""
    jobs = [
        {"name": "work", "kind": "TRANSIENT", "cron": "0 * * * * ?", "shards": 2, "complete": True},
        {"name": "resident", "kind": "DAEMON", "cron": "0 * * * * ?", "shards": 1, "complete": False},
        {"name": "every-second", "kind": "TRANSIENT", "cron": "* * * * * ?", "shards": 1, "complete": False},
    ]
    accounts = [{"fire_s": MINUTE, "skipped": 2}, {"fire_s": MINUTE + 4, "skipped": 2 + skipped}]
    span, calm = (MINUTE + 30, MINUTE + 110), (MINUTE + 110, MINUTE + 170)
    (folder / "plan.json").write_text(json.dumps({"jobs": jobs, "span": span, "calm": calm, "accounts": accounts}))
    (folder / "faults.json").write_text(json.dumps(faults))
    (folder / "log").mkdir()
    (folder / "log" / "1.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    found = check(folder)
    kinds = ("lost", "doubled", "early", "explained", "unexplained", "silent", "cut_off")
    return {kind: len(getattr(found, kind)) for kind in kinds if getattr(found, kind)}


def test_run_without_faults_passes(tmp_path: Path) -> None:
    assert judged(tmp_path, GOOD) == {}


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([one for one in GOOD if one["item"] == 0], {"lost": 1}),
        ([one for one in GOOD if (one["event"], one["item"]) != ("end", 1)], {"lost": 1}),
        ([*GOOD, line("start", MINUTE + 61)], {"doubled": 1}),
        ([*GOOD, line("start", MINUTE + 115, task="another")], {"doubled": 1}),
        ([*GOOD, line("start", MINUTE + 55, due=MINUTE + 180)], {"early": 1}),
        ([*GOOD, line("start", MINUTE + 80, attempt=2), line("end", MINUTE + 90, attempt=2)], {"unexplained": 1}),
        ([one for one in GOOD if one["job"] != "resident"], {"silent": 1}),
        ([one for one in GOOD if one not in second(3)], {"lost": 1}),
        ([one for one in GOOD if one != second(3)[1]], {"lost": 1}),
        ([*GOOD, resident(MINUTE + 120, agent="a2")], {"doubled": 1}),
    ],
)
def test_violation_is_found(tmp_path: Path, lines: list[dict[str, Any]], found: dict[str, int]) -> None:
    assert judged(tmp_path, lines) == found


def test_overlap_is_explained_by_earlier_loss_of_agent(tmp_path: Path) -> None:
    again = [line("start", MINUTE + 80, attempt=2), line("end", MINUTE + 90, attempt=2)]
    assert judged(tmp_path, [*GOOD, *again], GONE) == {"explained": 1}


def test_skipped_firings_are_accounted_for(tmp_path: Path) -> None:
    assert judged(tmp_path, [one for one in GOOD if one not in second(3)], skipped=1) == {}


def test_firing_that_was_skipped_and_ran_is_found(tmp_path: Path) -> None:
    assert judged(tmp_path, GOOD, skipped=1) == {"lost": 1}


@pytest.mark.parametrize(("at", "found"), [(MINUTE + 2.5, {"cut_off": 4}), (MINUTE + 70, {})])
def test_decision_of_leader_that_was_cut_off_is_found(tmp_path: Path, at: float, found: dict[str, int]) -> None:
    assert judged(tmp_path, GOOD, {"event": "leader partitioned", "at": at}) == found


def test_later_leader_decides_after_partition(tmp_path: Path) -> None:
    later = [one | {"task": one["task"].replace("@-@1-", "@-@2-")} if one["at"] > MINUTE + 2.5 else one for one in GOOD]
    assert judged(tmp_path, later, {"event": "leader partitioned", "at": MINUTE + 2.5}) == {}


def test_cron_is_evaluated_independently() -> None:
    assert seconds_due("5,7 * * * * ?", MINUTE, MINUTE + 66) == [MINUTE + 5, MINUTE + 7, MINUTE + 65]
    assert len(seconds_due("* * * * * ?", MINUTE, MINUTE + 59)) == 60
    with pytest.raises(ValueError, match="is not supported by this checker"):
        seconds_due("0 0/5 * * * ?", MINUTE, MINUTE + 60)
