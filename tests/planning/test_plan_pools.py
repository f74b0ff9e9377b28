"""Runs of jobs that name pools, in `jobcloud plan`: against a simulation in steps of time, and by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobcloud.cron import Schedule
from jobcloud.planning.demand import DAY_MS, ScheduledJob, Span, load, spans
from jobcloud.planning.pools import groups, known_slots, never_starts, pooled_spans
from jobcloud.planning.problem import TaskKind

START = 1_772_409_600_000  # 2026-03-02T00:00Z, a Monday
MINUTE = 60_000
HOUR = 60 * MINUTE


def job(name: str, cron: str, minutes: float, shards: int, *slots: tuple[str, int], **overlap: Any) -> ScheduledJob:
    times = Schedule.parse(cron) if cron else None
    return ScheduledJob(TaskKind(name, (1_000,), shards), times, round(minutes * MINUTE), slots=slots, **overlap)


def told(found: list[Span]) -> list[tuple[str, int, float, float]]:
    """(job, shards, begin, end) in minutes after the start, sorted."""
    return sorted(
        (kind.job, kind.copies, (begin - START) / MINUTE, (end - START) / MINUTE) for begin, end, kind in found
    )


def test_shards_wait_for_slots_and_start_in_the_order_of_their_runs() -> None:
    two = [job("a", "0 0 2 * * ?", 60, 4, ("db", 1)), job("b", "0 30 2 * * ?", 30, 2, ("db", 1))]
    found = pooled_spans(two, {"db": 5}, START, START + DAY_MS)
    assert told(found) == [("a", 4, 120, 180), ("b", 1, 150, 180), ("b", 1, 180, 210)]
    # Without the pool, six shards run at once.
    assert max(load(spans(two, START, START + DAY_MS), 1).amounts[:, 0]) == 6_000
    assert max(load(found, 1).amounts[:, 0]) == 5_000


def test_free_slots_are_kept_for_a_shard_that_needs_more() -> None:
    three = [
        job("long", "0 0 2 * * ?", 60, 1, ("db", 2)),
        job("wide", "0 1 2 * * ?", 10, 1, ("db", 3)),
        job("small", "0 2 2 * * ?", 10, 1, ("db", 1)),
    ]
    found = told(pooled_spans(three, {"db": 3}, START, START + DAY_MS))
    assert found == [("long", 1, 120, 180), ("small", 1, 190, 200), ("wide", 1, 180, 190)]


def test_shard_takes_slots_of_several_pools_at_once() -> None:
    two = [job("a", "0 0 2 * * ?", 60, 2, ("db", 1), ("net", 1)), job("b", "0 0 2 * * ?", 60, 3, ("net", 1))]
    found = told(pooled_spans(two, {"db": 1, "net": 2}, START, START + DAY_MS))
    assert found == [("a", 1, 120, 180), ("a", 1, 180, 240), ("b", 1, 120, 180), ("b", 1, 180, 240), ("b", 1, 240, 300)]


def test_waiting_shards_make_a_run_longer() -> None:
    """With one slot, three shards of 20 minutes take an hour, so each second firing is skipped or waits."""
    slow = job("a", "0 0/30 * * * ?", 20, 3, ("db", 1))
    found = told(pooled_spans([slow], {"db": 1}, START, START + 2 * HOUR))
    assert [begin for _, _, begin, _ in found] == [0, 20, 40, 60, 80, 100]
    day_long = job("a", "0 0 2 * * ?", 25 * 60, 1, ("db", 1))
    assert told(pooled_spans([day_long], {"db": 1}, START, START + 4 * HOUR)) == [("a", 1, 0, 180)]


def test_run_that_another_one_replaces_gives_its_slots_back() -> None:
    one = job("a", "0 0,5 2 * * ?", 30, 3, ("db", 1), replaces=True)
    found = told(pooled_spans([one], {"db": 2}, START, START + DAY_MS))
    assert found == [("a", 1, 155, 185), ("a", 2, 120, 125), ("a", 2, 125, 155)]


def test_daemon_shards_keep_their_slots() -> None:
    two = [job("d", "", 1, 2, ("db", 1)), job("a", "0 0 2 * * ?", 60, 2, ("db", 1))]
    found = told(pooled_spans(two, {"db": 3}, START, START + DAY_MS))
    assert found == [("a", 1, 120, 180), ("a", 1, 180, 240), ("d", 2, 0, 1440)]


def test_too_many_runs_count_as_always_running(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobcloud.planning.pools._MAX_STARTS", 10)
    two = [job("a", "0/1 * * * * ?", 0.01, 4, ("db", 1)), job("b", "0 0 2 * * ?", 1, 2, ("db", 1))]
    assert told(pooled_spans(two, {"db": 5}, START, START + HOUR)) == [("a", 4, 0, 60), ("b", 1, 0, 60)]


def test_jobs_that_share_a_pool_are_one_group() -> None:
    jobs = [
        job("a", "", 1, 1, ("p", 1)), job("b", "", 1, 1), job("c", "", 1, 1, ("q", 1)), job("d", "", 1, 1),
        job("e", "", 1, 1, ("q", 1), ("r", 1)), job("f", "", 1, 1, ("p", 1), ("r", 1)),
    ]  # fmt: skip
    assert [[one.kind.job for one in group] for group in groups(jobs)] == [["a", "c", "e", "f"], ["b"], ["d"]]


def test_unknown_pool_limits_nothing_and_a_small_one_admits_nothing() -> None:
    one = job("a", "", 1, 1, ("p", 3), ("q", 1))
    assert known_slots(one, {"p": 3}).slots == (("p", 3),)
    assert not never_starts(known_slots(one, {"p": 3}), {"p": 3})
    assert never_starts(one, {"p": 2, "q": 1})


CRONS = ["0 0/7 * * * ?", "0 0-9 * * * ?", "0/30 0-3 0/2 * * ?", "0 30 * * * ?"]
JOBS = st.tuples(
    st.sampled_from(CRONS), st.integers(1, 25), st.integers(1, 4), st.integers(1, 2),
    st.sampled_from([("p",), ("q",), ("p", "q")]), st.integers(1, 3), st.integers(0, 4), st.booleans(),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.lists(JOBS, min_size=1, max_size=4), st.integers(2, 6), st.integers(2, 6))
def test_spans_equal_those_of_a_simulation_in_steps(drawn: list[Any], p: int, q: int) -> None:
    """In steps of half a minute: shards end, waiting runs begin, firings come due, shards start in order."""
    limits, jobs = {"p": p, "q": q}, []
    for number, (cron, minutes, shards, slots, pools, at_once, waiting, replaces) in enumerate(drawn):
        overlap = {"replaces": True} if replaces else {"at_once": at_once, "waiting": waiting}
        jobs.append(job(f"j{number}", cron, minutes, shards, *((pool, slots) for pool in pools), **overlap))
    first, hours = START - HOUR, 3 * HOUR
    expected = {now: seen for now, seen in steps(jobs, limits, first, START + hours) if now >= START}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobcloud.planning.pools._LEAD_MS", HOUR)
        found = pooled_spans(jobs, limits, START, START + hours)
    for now, seen in expected.items():
        running = dict.fromkeys((one.kind.job for one in jobs), 0)
        for begin, end, kind in found:
            if begin <= now < end:
                running[kind.job] += kind.copies
        assert running == seen, (now - START) / MINUTE


def steps(jobs: list[ScheduledJob], limits: dict[str, int], first: int, end: int) -> Any:
    """(instant, running shards by job), one after the other. A run is [shards that wait, ends of shards]."""
    fires = [set(one.times.between(first - 1, end, 100_000)) if one.times else set() for one in jobs]
    runs: list[list[list[Any]]] = [[] for _ in jobs]
    order: list[tuple[int, list[Any]]] = []
    queued = [0 for _ in jobs]
    for now in range(first, end, 30_000):
        ended = []
        for place, of_job in enumerate(runs):
            for run in list(of_job):
                over = [until for until in run[1] if until <= now]
                run[1] = [until for until in run[1] if until > now]
                if over and not run[0] and not run[1]:
                    of_job.remove(run)
                    ended.append(place)
        begins = []
        for place in ended:
            if queued[place]:
                queued[place] -= 1
                begins.append(place)
        for place in begins:
            run = [jobs[place].kind.copies, []]
            runs[place].append(run)
            order.append((place, run))
        for place, one in enumerate(jobs):
            if now not in fires[place]:
                continue
            if one.replaces:
                for run in runs[place]:
                    run[0], run[1] = 0, []
                runs[place].clear()
            if len(runs[place]) < one.at_once:
                run = [one.kind.copies, []]
                runs[place].append(run)
                order.append((place, run))
            else:
                queued[place] = min(one.waiting, queued[place] + 1)
        used = dict.fromkeys(limits, 0)
        for place, of_job in enumerate(runs):
            for pool, number in jobs[place].slots:
                used[pool] += number * sum(len(run[1]) for run in of_job)
        kept: set[str] = set()
        for place, run in order:
            slots = jobs[place].slots
            while run[0] and all(pool not in kept and used[pool] + number <= limits[pool] for pool, number in slots):
                run[0] -= 1
                run[1].append(now + jobs[place].run_ms)
                for pool, number in slots:
                    used[pool] += number
            if run[0]:
                kept |= {pool for pool, number in slots if used[pool] + number > limits[pool]}
        order = [(place, run) for place, run in order if run[0]]
        yield now, {one.kind.job: sum(len(run[1]) for run in runs[place]) for place, one in enumerate(jobs)}
