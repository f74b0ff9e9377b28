"""The planner as a library: questions and answers."""

from __future__ import annotations

import itertools
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobcloud.cron import Schedule
from jobcloud.errors import ConfigError, NotFound
from jobcloud.match.constraints import Constraint, parse
from jobcloud.planning import mixes, packing, plot
from jobcloud.planning.demand import DAY_MS, ScheduledJob, Span, load, runs, spans
from jobcloud.planning.given import _emptied, fewer_hosts
from jobcloud.planning.jobs import executor, read_run_times, run_times_of, scheduled_job, with_exclusive
from jobcloud.planning.packing import Packing
from jobcloud.planning.plan import Question, _smallest, document, host_names, make_plan, task_jobs
from jobcloud.planning.problem import HostKind, Source, TaskKind, build, join
from jobcloud.planning.rules import Rules, parse_rules
from jobcloud.planning.tables import BadTable
from jobcloud.planning.verify import verify

START = round(datetime(2026, 3, 2, tzinfo=UTC).timestamp() * 1_000)
MINUTE = 60_000
# The search ends as soon as it has found its answer. A busy machine may need long for it.
QUICK = Question(seconds=60)


def hosts(*counts: int, zones: str = "ab") -> list[HostKind]:
    return [
        HostKind(f"h{n}", (8_000, 16_000), {"host": f"h{n}", "zone": zones[n % len(zones)]}, count)
        for n, count in enumerate(counts)
    ]


def test_plan_says_that_tasks_fit_and_how_few_hosts_suffice() -> None:
    problem = build(["cpus", "mem"], hosts(3, 3), [TaskKind("a", (4_000, 1_000), 6), TaskKind("b", (1_000, 6_000), 3)])
    plan = make_plan(problem, QUICK)
    assert plan.fits
    assert plan.placed == 9
    need = plan.needs[0]
    assert (need.hosts, need.found.bound.hosts, need.found.proven) == (4, 4, True)
    assert plan.used.tolist() == problem.demand.tolist()
    assert plan.capacity.tolist() == [48_000, 96_000]


def test_refused_tasks_have_reasons() -> None:
    problem = build(
        ["cpus", "mem"],
        hosts(2),
        [
            TaskKind("large", (9_000, 1), 2),
            TaskKind("elsewhere", (1, 1), 1, Rules(attributes=(_zone("c"),))),
            TaskKind("many", (8_000, 1_000), 5),
        ],
    )
    plan = make_plan(problem, QUICK)
    reasons = {r.job: (r.tasks, r.reason, r.could_ever_fit) for r in plan.refused}
    assert reasons["large"] == (2, "larger than any host: 9 cpus of at most 8", False)
    assert reasons["elsewhere"] == (1, "no host has the required zone", False)
    assert reasons["many"] == (3, "no room on any of 2 hosts: 2 lack cpus", True)
    assert not plan.fits
    assert plan.needs[0].unsuitable == 3


def test_refusals_show_all_digits() -> None:
    problem = build(
        ["mem"], [HostKind("h", (4_398_046_511_103_999,), {}, 1)], [TaskKind("a", (4_398_046_511_104_000,), 1)]
    )
    plan = make_plan(problem, QUICK)
    assert plan.refused[0].reason == "larger than any host: 4,398,046,511,104 mem of at most 4,398,046,511,103.999"


def test_no_legend_covers_data_and_the_tightest_resource_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mpl = pytest.importorskip("matplotlib.figure")
    problem = build(["cpus", "mem_mb"], hosts(2), [TaskKind("a", (1_000, 8_000), 2)])
    kind = problem.task_kinds[0]
    times = load([Span(0, 5, kind), Span(3, 9, kind)], 2)
    boxes: list[tuple[Any, Any]] = []

    def measured(figure: Any, *_: Any, **__: Any) -> None:
        figure.canvas.draw()
        axes = [one for one in figure.axes if one.get_legend()]
        boxes.extend((one.get_window_extent(), one.get_legend().get_window_extent()) for one in axes)
        assert any("tightest: memory" in one.get_title("left") for one in axes)

    monkeypatch.setattr(mpl.Figure, "savefig", measured)
    plot.draw(make_plan(problem, QUICK), tmp_path / "p.png", times)
    assert len(boxes) == 3
    assert all(legend.y1 < data.y0 for data, legend in boxes)


def _zone(value: str) -> Constraint:
    return parse(f"zone == {value}")


def test_rules_are_a_reason_and_too_few_hosts_are_proven() -> None:
    plan = make_plan(build(["cpus", "mem"], hosts(2), [TaskKind("apart", (1, 1), 3, Rules(1))]), QUICK)
    assert plan.refused[0].reason == "no room on any of 2 hosts: rules about other tasks exclude 2"
    assert (
        plan.bound_broken
        == "no placement can fit: at least 3 hosts are needed (the maximum of tasks of one job on a host), there are 2"
    )


def test_plan_shows_the_effect_of_failures() -> None:
    tasks = [TaskKind("a", (4_000, 1_000), 6)]
    plan = make_plan(build(["cpus", "mem"], hosts(2, 2), tasks), Question(failures=(1, 2), seconds=60))
    found = {f.what: (f.hosts, f.displaced, f.homeless, f.after_moving) for f in plan.failures}
    assert found["the fullest host"] == (1, 2, 0, 0)
    assert found["the 2 fullest hosts"][2:] == (2, 2)
    assert found["zone a"][0] == 2
    assert {"zone a", "zone b"} <= set(found)


def test_moving_other_tasks_may_make_room() -> None:
    """Two half-size tasks on two hosts leave no room for a full-size one until one of them moves."""
    problem = build(["cpus"], [HostKind("h", (10,), {}, 3)], [TaskKind("half", (5,), 2), TaskKind("whole", (10,), 1)])
    from jobcloud.planning.packing import place

    start = Packing(np.zeros(2, dtype=np.int32), np.array([0, 1, -1], dtype=np.int32))
    assert place(problem, start.hosts, start=start, move=False).unplaced == 1
    moved = place(problem, start.hosts, start=start, seconds=60)
    assert moved.unplaced == 0
    verify(problem, moved)


def test_headroom_is_counted() -> None:
    problem = build(
        ["cpus", "mem"], hosts(2), [TaskKind("a", (3_000, 1_000), 2), TaskKind("b", (1_000, 1_000), 1, Rules(2))]
    )
    plan = make_plan(problem, Question(more=("a", "b"), seconds=60))
    a, b = plan.more
    assert a.at_least == 2
    assert a.at_least <= a.at_most <= 3
    assert (b.at_least, b.at_most) == (3, 3)  # two per host
    with pytest.raises(NotFound, match="did you mean 'a'"):
        make_plan(problem, Question(more=("aa",)))


def test_stranded_amounts_are_those_that_no_task_can_use() -> None:
    problem = build(["cpus", "mem"], hosts(1), [TaskKind("a", (5_000, 1_000), 1)])
    assert make_plan(problem, QUICK).stranded.tolist() == [3_000, 15_000]
    problem = build(["cpus", "mem"], hosts(1), [TaskKind("a", (5_000, 1_000), 1), TaskKind("b", (1_000, 1_000), 1)])
    assert make_plan(problem, QUICK).stranded.tolist() == [0, 0]


def test_host_types_differ_by_capacity_and_cost() -> None:
    types = [
        HostKind("small", (4_000, 8_000), {"zone": "a"}, 99, 100.0),
        HostKind("small too", (4_000, 8_000), {"zone": "b"}, 99, 100.0),
        HostKind("large", (16_000, 8_000), {}, 99, 150.0),
    ]
    tasks = [TaskKind("thin", (1_000, 4_000), 10), TaskKind("wide", (8_000, 1_000), 4)]
    plan = make_plan(build(["cpus", "mem"], types, tasks), Question(how_many=True, seconds=60))
    assert [need.name for need in plan.needs] == ["small", "large"]
    assert plan.needs[0].unsuitable == 4
    assert plan.mix is not None
    assert dict(plan.mix.hosts) == {"small": 5, "large": 2}
    assert plan.mix.price == 800.0


def test_mix_is_the_cheapest_and_its_price_is_proven() -> None:
    types = [
        HostKind("a", (32_000, 131_072_000), {"zone": "a"}, 1, 900.0),
        HostKind("c", (64_000, 262_144_000), {"zone": "c"}, 1, 1600.0),
    ]
    tasks = [
        TaskKind("w", (2_000, 8_192_000), 30),
        TaskKind("x", (4_000, 16_384_000), 10, parse_rules("max_per_host=2")),
        TaskKind("y", (1_000, 4_096_000), 12, parse_rules("zone=a|b")),
        TaskKind("z", (48_000, 65_536_000), 2),
    ]
    plan = make_plan(build(["cpus", "mem"], types, tasks), Question(how_many=True, seconds=60))
    assert plan.fits
    assert plan.mix is not None
    assert dict(plan.mix.hosts) == {"a": 3, "c": 2}
    assert (plan.mix.price, plan.mix.at_least, plan.mix.proven) == (5_900.0, 5_900.0, True)
    assert plan.packing is plan.mix.packing
    found = document(plan)["mix"]
    assert (found["price"], found["priceAtLeast"], found["proven"]) == (5_900.0, 5_900.0, True)


mixed_task = st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(1, 4), st.sampled_from(["", "zone=a"]))


@settings(max_examples=30, deadline=None)
@given(st.lists(mixed_task, min_size=1, max_size=4), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_mix_is_never_dearer_than_single_answers_nor_cheaper_than_the_bound(
    rows: list[tuple[int, int, int, str]], one: int, other: int, solver: bool
) -> None:
    types = [HostKind("a", (8, 10), {"zone": "a"}, 1, float(one)), HostKind("b", (12, 8), {}, 1, float(other))]
    tasks = [TaskKind(f"j{n}", row[:2], row[2], parse_rules(row[3])) for n, row in enumerate(rows)]
    problem = build(["cpus", "mem"], types, tasks)
    with pytest.MonkeyPatch.context() as patch:
        if not solver:
            patch.setattr("jobcloud.planning.mixes.available", lambda: False)
        plan = make_plan(problem, Question(how_many=True, seconds=5))
    mix = plan.mix
    assert mix is not None
    assert mix.unsuitable == 0
    assert mix.at_least <= mix.price <= sum(need.price for need in plan.needs)
    assert all(mix.price <= need.price for need in plan.needs if not need.unsuitable)
    verify(problem, mix.packing)
    room = [n for n in itertools.product(range(7), repeat=2) if n[0] * one + n[1] * other < mix.at_least]
    for a, b in room[:3]:
        assert packing.place(problem, np.repeat(np.array([0, 1], dtype=np.int32), (a, b)), seconds=5).unplaced


def test_executor_is_counted_once_per_host() -> None:
    kinds = [TaskKind("a", (1_000,), 6, shared="app"), TaskKind("b", (1_000,), 6, shared="app")]
    plan = make_plan(build(["cpus"], [HostKind("h", (8_000,), {}, 2)], kinds, {"app": (2_000,)}), QUICK)
    assert plan.fits
    assert plan.used.tolist() == [16_000]


def test_host_and_job_names_follow_the_rows() -> None:
    problem = build(
        ["cpus"],
        [HostKind("x", (4,), {}, 1), HostKind("y", (4,), {}, 2)],
        [TaskKind("b", (2,), 2), TaskKind("a", (2,), 1)],
    )
    plan = make_plan(problem, QUICK)
    assert host_names(problem, plan.packing) == ["x", "y#0", "y#1"]
    assert sorted(task_jobs(problem)) == ["a", "b", "b"]


def test_plan_without_tasks_or_hosts() -> None:
    assert make_plan(build(["cpus"], hosts(1)[:0], []), QUICK).fits
    plan = make_plan(build(["cpus"], [], [TaskKind("a", (1,), 2)]), QUICK)
    assert [r.tasks for r in plan.refused] == [2]
    assert make_plan(build([], [HostKind("h", (), {}, 1)], [TaskKind("a", (), 2)]), QUICK).fits


def test_dimensions_unknown_to_hosts_are_named() -> None:
    with pytest.raises(ConfigError, match=r"hosts.csv does not specify gpus, which tasks.csv requests"):
        join(Source("hosts.csv", ("cpus",)), [], Source("tasks.csv", ("cpus", "gpus")), [TaskKind("a", (1, 1), 1)])
    problem = join(
        Source("h", ("mem", "cpus")),
        [HostKind("h", (1, 2), {}, 1)],
        Source("t", ("cpus", "gpus")),
        [TaskKind("a", (1, 0), 1)],
    )
    assert problem.dimensions == ("cpus",)
    assert problem.capacity.tolist() == [[2]]


def test_document_is_plain_json_with_the_proof() -> None:
    plan = make_plan(build(["cpus"], [HostKind("h", (1_000,), {}, 5)], [TaskKind("a", (400,), 10)]), QUICK)
    found = json.loads(json.dumps(document(plan)))
    need = found["needs"][0]
    assert (need["hosts"], need["atLeast"], need["because"]) == (5, 5, "configuration LP")
    weight = need["proof"]["weights"][0]
    assert weight["jobName"] == "a"
    # The proof by hand: the two tasks on a host are worth at most `most`; all ten are worth `total`.
    assert 2 * weight["weight"] <= need["proof"]["most"]
    assert need["proof"]["total"] == 10 * weight["weight"] > 4 * need["proof"]["most"]


# --------------------------------------------------------------------------------------------------- over time


def job(cron: str, minutes: float, **overlap: Any) -> ScheduledJob:
    kind = TaskKind(cron, (1_000,), 2)
    return ScheduledJob(kind, Schedule.parse(cron) if cron else None, round(minutes * MINUTE), **overlap)


def test_runs_of_a_day_include_those_of_the_evening_before() -> None:
    found = runs(job("0 30 23 * * ?", 60), START, START + DAY_MS)
    assert found == [(START, START + 30 * MINUTE), (START + 1410 * MINUTE, START + DAY_MS)]


def test_runs_of_a_job_do_not_overlap() -> None:
    every = runs(job("0 0/10 * * * ?", 15), START, START + 60 * MINUTE)
    assert len(every) > 2
    assert all(one[1] <= two[0] for one, two in pairwise(every))
    waiting = runs(job("0 0/10 * * * ?", 15, waiting=100), START, START + 60 * MINUTE)
    assert all(one[1] == two[0] for one, two in pairwise(waiting))
    assert sum(b - a for a, b in waiting) > sum(b - a for a, b in every)


def test_burst_waits_up_to_the_limit_of_waiting_runs() -> None:
    """Six firings in six minutes with runs of five minutes take half an hour, or less if fewer may wait."""
    burst = "0 0-5 3 * * ?"
    begin = START + 180 * MINUTE
    at = [begin + n * 5 * MINUTE for n in range(6)]
    assert [begins for begins, _ in runs(job(burst, 5, waiting=100), START, START + DAY_MS)] == at
    # One of the firings of minutes 1 to 4 may wait. It starts at minute 5; the firing of that minute waits next.
    assert [begins for begins, _ in runs(job(burst, 5, waiting=1), START, START + DAY_MS)] == at[:3]
    # A firing that waits since before the window is included.
    assert runs(job(burst, 5, waiting=100), at[4], START + DAY_MS) == [(a, a + 5 * MINUTE) for a in at[4:]]


def test_runs_overlap_up_to_a_limit() -> None:
    burst, day = "0 0-5 3 * * ?", (START, START + DAY_MS)
    for limit, peak in ((1, 1), (3, 3), (10, 4)):
        found = runs(job(burst, 3.5, at_once=limit), *day)
        assert max(load(spans([job(burst, 3.5, at_once=limit)], *day), 1).amounts[:, 0]) == 2_000 * peak
        assert len(found) == (2 if limit == 1 else 5 if limit == 3 else 6)


def test_run_ends_when_the_next_replaces_it() -> None:
    found = runs(job("0 0-5 3 * * ?", 3.5, replaces=True), START, START + DAY_MS)
    lengths = [(until - begins) / MINUTE for begins, until in found]
    assert lengths == [1, 1, 1, 1, 1, 3.5]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["0 0/7 * * * ?", "0 0-9 * * * ?", "0/30 0-3 0/2 * * ?"]),
    st.integers(1, 25),
    st.integers(1, 4),
    st.integers(0, 5),
    st.booleans(),
)
def test_runs_equal_those_of_a_simulation(cron: str, minutes: int, at_once: int, waiting: int, replaces: bool) -> None:
    """A simulation in steps of half a minute: runs end, waiting runs start, firings come due."""
    if replaces:
        at_once, waiting = 1, 0
    one, begin = job(cron, minutes, at_once=at_once, waiting=waiting, replaces=replaces), START + DAY_MS // 2
    assert one.times
    tick, hours = 30_000, 6 * 3_600_000
    first = begin - max(one.run_ms, min(one.run_ms * (1 + waiting), DAY_MS))
    firings = set(one.times.between(first - 1, begin + hours - 1, 10_000))
    under_way, queue, seen = list[int](), 0, dict[int, int]()
    for now in range(first, begin + hours, tick):
        under_way = [end for end in under_way if end > now]
        while queue and len(under_way) < at_once:
            queue -= 1
            under_way.append(now + one.run_ms)
        if now in firings:
            if replaces:
                under_way.clear()
            if len(under_way) < at_once:
                under_way.append(now + one.run_ms)
            else:
                queue = min(waiting, queue + 1)
        seen[now] = len(under_way)
    found = runs(one, begin, begin + hours)
    for now in range(begin, begin + hours, tick):
        assert sum(begins <= now < until for begins, until in found) == seen[now]


def test_daemon_and_continuous_jobs_always_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert runs(job("", 1), START, START + DAY_MS) == [(START, START + DAY_MS)]
    monkeypatch.setattr("jobcloud.planning.demand._MAX_RUNS", 10)
    assert runs(job("0/1 * * * * ?", 0.01), START, START + DAY_MS) == [(START, START + DAY_MS)]


def test_peak_is_the_moment_of_highest_demand() -> None:
    found = load(spans([job("0 0 2 * * ?", 60), job("0 30 2 * * ?", 60), job("", 1)], START, START + DAY_MS), 1)
    peak = found.peak([1_000])
    assert peak == START + 150 * MINUTE
    assert sum(kind.copies for kind in found.at(peak)) == 6
    assert found.amounts[-1].tolist() == [0]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20), st.integers(0, 9), st.integers(1, 5)), max_size=12))
def test_load_is_the_sum_of_running_tasks(rows: list[tuple[int, int, int, int]]) -> None:
    found = load(
        [Span(begin, begin + length, TaskKind("a", (amount,), copies)) for begin, length, amount, copies in rows], 1
    )
    for at, amounts in zip(found.times.tolist(), found.amounts, strict=True):
        assert amounts[0] == sum(kind.request[0] * kind.copies for kind in found.at(at))


CONFIG = {
    "jobName": "j", "appName": "a", "jobExecutionType": "TRANSIENT", "cron": "0 0 2 * * ?", "shardingTotalCount": 3,
    "cpuCount": 0.5, "memoryMB": 64,
}  # fmt: skip


def test_job_is_read_from_its_configuration() -> None:
    found = scheduled_job(CONFIG, 60)
    assert found.kind.request == (500, 64_000, 0, 0, 0)
    assert (found.kind.copies, found.kind.shared, found.run_ms) == (3, "a", 60_000)
    assert (found.at_once, found.waiting, found.replaces) == (1, 0, False)
    assert scheduled_job({**CONFIG, "misfire": True}, 60).waiting == 100
    assert scheduled_job({**CONFIG, "misfire": True, "misfireLimit": 3}, 60).waiting == 3
    overlapping = scheduled_job({**CONFIG, "concurrency": "allow", "concurrencyLimit": 4}, 60)
    assert (overlapping.at_once, overlapping.replaces) == (4, False)
    instead = scheduled_job({**CONFIG, "concurrency": "replace", "misfire": True}, 60)
    assert (instead.at_once, instead.waiting, instead.replaces) == (1, 0, True)
    assert scheduled_job({**CONFIG, "timeoutSeconds": 1.5}, 60).run_ms == 1_500
    assert scheduled_job({**CONFIG, "timeoutSeconds": 90}, 60).run_ms == 60_000
    assert scheduled_job({**CONFIG, "jobExecutionType": "DAEMON"}, 1).times is None
    limited = scheduled_job({**CONFIG, "constraints": ["zone == a"]}, 60, {"constraints": ["host !~ db-*"]})
    assert limited.kind.rules.attributes == (parse("host !~ db-*"), parse("zone == a"))
    with pytest.raises(ConfigError, match="job j, constraints: 'zone' is not a constraint"):
        scheduled_job({**CONFIG, "constraints": ["zone"]}, 60)
    assert executor({}) == (1_000, 128_000, 0, 0, 0)
    assert executor({"cpuCount": 0.25, "memoryMB": 1}) == (250, 1_000, 0, 0, 0)


def test_job_with_a_host_of_its_own_shares_it_with_no_other_job() -> None:
    alone = {**CONFIG, "jobName": "alone", "constraints": ["exclusive host"], "shardingTotalCount": 2}
    configs = [alone, {**CONFIG, "shardingTotalCount": 1}]
    jobs = with_exclusive([scheduled_job(config, 60) for config in configs], configs)
    assert jobs[0].kind.rules == Rules(1, {"j": 0})
    assert jobs[1].kind.rules == Rules()
    needed = [HostKind("h", (10_000, 1_000_000, 0, 0, 0), {}, 5)]
    kinds = [job.kind for job in jobs]
    plan = make_plan(build(["cpus", "mem", "disk", "gpus", "ports"], needed, kinds, {"a": (0,) * 5}), QUICK)
    assert plan.fits
    assert plan.needs[0].hosts == 3


def test_too_many_exclusive_jobs_are_refused_by_the_planner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobcloud.planning.jobs._MAX_PAIRS", 1)
    configs = [{**CONFIG, "jobName": name, "constraints": ["exclusive host"]} for name in "ab"]
    with pytest.raises(ConfigError, match="2 of 2 jobs have `exclusive host`"):
        with_exclusive([scheduled_job(config, 60) for config in configs], configs)


def test_trigger_after_runs_is_planned_as_the_period_of_a_run_and_the_delay() -> None:
    found = scheduled_job({**CONFIG, "cron": "", "triggers": ["@after 10m"], "timeoutSeconds": 90}, 4_000)
    assert found.times is not None
    assert found.times.between(0, 3_600_000, 3) == (690_000, 1_380_000, 2_070_000)
    long = scheduled_job({**CONFIG, "cron": "", "triggers": ["@after 366d"]}, 4_000)
    assert long.times is not None
    assert long.times.next_after(0) == 366 * 86_400_000


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("shardingTotalCount", "3"),
        ("shardingTotalCount", True),
        ("shardingTotalCount", 0),
        ("cpuCount", float("nan")),
        ("cpuCount", -1),
        ("memoryMB", None),
        ("memoryMB", "x"),
        ("cron", "nonsense"),
        ("cron", None),
        ("timeZone", "Mars/Olympus"),
        ("jobExecutionType", "SOMETIMES"),
        ("misfire", "yes"),
        ("misfireLimit", 0),
        ("concurrency", "perhaps"),
        ("concurrencyLimit", 101),
        ("timeoutSeconds", "long"),
    ],
)
def test_bad_configuration_is_named(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"job j, (timeZone|cron|{field})") as caught:
        scheduled_job({**CONFIG, field: value}, 60)
    assert caught.value.field
    with pytest.raises(ConfigError, match="jobName"):
        scheduled_job({}, 60)


def test_run_times_are_read_from_a_table(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("job,seconds\na,1.5\nb,600\n")
    assert read_run_times(path) == {"a": 1.5, "b": 600.0}
    for text, what in (("a,0", "column seconds"), ("a,x", "column seconds"), ("a,1\na,2", "line 3, column job")):
        path.write_text(f"job,seconds\n{text}\n")
        with pytest.raises(BadTable, match=what):
            read_run_times(path)
    path.write_text("job,minutes\na,1\n")
    with pytest.raises(BadTable, match="column seconds: is missing"):
        read_run_times(path)
    ended = {"jobName": "a", "firedAt": "2026-03-02T02:00:00.000Z", "endedAt": "2026-03-02T02:05:00.000Z"}
    assert run_times_of([ended, {**ended, "endedAt": "2026-03-02T02:01:00.000Z"}, {**ended, "endedAt": None}]) == {
        "a": 300.0
    }


# ---------------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("ending", ["png", "svg", "html"])
def test_pictures_are_drawn(tmp_path: Path, ending: str) -> None:
    pytest.importorskip("matplotlib")
    found = load(spans([job("0 0 2 * * ?", 60), job("", 1)], START, START + DAY_MS), 1)
    names = HostKind("$x^{<b>&", (4_000,), {}, 9)
    plan = make_plan(build(["cpus"], [names], found.at(found.peak([1]))), Question(how_many=True, seconds=60))
    path = tmp_path / f"out.{ending}"
    plot.draw(plan, path, found)
    data = path.read_bytes()
    assert data.startswith({"png": b"\x89PNG", "svg": b"<?xml", "html": b"<!doctype html>"}[ending])
    if ending != "png":
        assert b"How full the hosts are" in data
        assert b"over time" in data
        assert b"<b>" not in data
    plot.draw(plan, tmp_path / f"again.{ending}", found)
    assert (tmp_path / f"again.{ending}").read_bytes() == data


def test_hosts_in_a_picture_are_grouped_by_type(tmp_path: Path) -> None:
    """Named are the types of which there are most hosts; the others share a group. Names are cut to their group."""
    pytest.importorskip("matplotlib")
    kinds = [HostKind(f"kind-{n}" + "x" * 80, (8_000 + n,), {}, 10 - n) for n in range(9)]
    named = [HostKind(name, (1_000,), {}, 10) for name in ("p", "q")]
    plan = make_plan(build(["cpus"], [*kinds, *named], [TaskKind("a", (1_000,), 9)]), QUICK)
    groups = plot._groups(plan)
    assert [(name[:6], len(hosts)) for name, hosts in groups] == [
        ("p", 20), ("kind-0", 10), ("kind-1", 9), ("kind-2", 8), ("kind-3", 7), ("others", 20),
    ]  # fmt: skip
    assert sorted(host for _, hosts in groups for host in hosts.tolist()) == list(range(74))
    plot.draw(plan, tmp_path / "p.svg")
    picture = (tmp_path / "p.svg").read_text()
    assert "20 × p<" in picture
    assert re.search(r"10 × kin[^<]*…<", picture)
    assert "hosts by type" in picture


def test_impossible_picture_is_refused_before_any_computation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="unknown ending"):
        plot.check_path(tmp_path / "out.gif")
    with pytest.raises(ConfigError, match="no directory"):
        plot.check_path(tmp_path / "none" / "out.png")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="matplotlib is not installed"):
        plot.check_path(tmp_path / "out.png")


@pytest.fixture
def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each search has time for its first step only."""
    monkeypatch.setattr("jobcloud.planning.packing._SURE_LOOKS", 0)


@pytest.mark.usefixtures("no_time")
def test_tasks_not_tried_in_time_are_not_refused() -> None:
    kinds = [TaskKind("huge", (9_000, 1), 1), TaskKind("large", (8_000, 1), 2), TaskKind("small", (1_000, 1), 3)]
    problem = build(["cpus", "mem"], hosts(1, 1), kinds)
    plan = make_plan(problem, Question(seconds=0))
    assert not plan.fits
    assert [(r.job, r.tasks) for r in plan.refused] == [("huge", 1)]
    assert [(u.job, u.tasks) for u in plan.untried] == [("small", 3), ("large", 2)]
    assert plan.placed == 0
    found = document(plan)
    why = "no host was searched in time"
    assert found["untried"] == [
        {"jobName": "small", "tasks": 3, "reason": why},
        {"jobName": "large", "tasks": 2, "reason": why},
    ]
    assert not found["needs"][0]["proven"]
    assert found["needs"][0]["untriedTasks"] > 0
    assert found["needs"][0]["unsuitableTasks"] == 1


@pytest.mark.usefixtures("no_time")
def test_last_jobs_are_untried_among_equal_tasks() -> None:
    """Two equal jobs are one kind, which is tried first and completely; the other tasks are not reported as refused."""
    kinds = [TaskKind("a", (4_000, 1), 2), TaskKind("b", (4_000, 1), 1), *(TaskKind(n, (1_000, 1), 2) for n in "cd")]
    plan = make_plan(build(["cpus", "mem"], hosts(1, 1, zones="aa"), kinds), Question(seconds=0, more=("c",)))
    assert plan.placed == 3
    assert [(u.job, u.tasks) for u in plan.untried] == [("c", 2), ("d", 2)]
    assert [(f.what, f.displaced, f.homeless, f.untried) for f in plan.failures] == [("the fullest host", 2, 1, 0)]
    assert [(m.job, m.at_least) for m in plan.more] == [("c", 4)]


def test_tasks_are_refused_only_if_it_is_proven_or_the_search_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the two hosts has room for one task, but no total and no bound proves this."""
    types = [HostKind("h", (10,), {}, 1), HostKind("i", (11,), {}, 1)]
    problem = build(["cpus"], types, [TaskKind("a", (6,), 3)])
    assert [(r.job, r.tasks) for r in make_plan(problem, QUICK).refused] == [("a", 1)]
    monkeypatch.setattr("jobcloud.planning.packing._Clock.end", 0.0)
    plan = make_plan(problem, QUICK)
    assert plan.refused == ()
    assert [(u.job, u.tasks, u.reason) for u in plan.untried] == [("a", 1, "the search for a host did not end in time")]
    larger = make_plan(build(["cpus"], types, [TaskKind("a", (6,), 4)]), QUICK)
    assert larger.bound_broken == "no placement can fit: the tasks need 0.024 cpus, all hosts have 0.021"
    assert [r.tasks for r in larger.refused] == [2]


def test_searches_share_the_time_by_the_types_that_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that stands still, no search uses its time, so the last one gets all of it."""
    seconds = list[float]()

    def noted(search: Callable[..., Any]) -> Callable[..., Any]:
        def noting(*args: Any, **named: Any) -> Any:
            seconds.append(named["seconds"])
            return search(*args, **named)

        return noting

    monkeypatch.setattr("jobcloud.planning.plan.fewest", noted(packing.fewest))
    monkeypatch.setattr("jobcloud.planning.plan.place", noted(packing.place))
    monkeypatch.setattr("jobcloud.planning.plan.cheapest", noted(mixes.cheapest))
    monkeypatch.setattr("jobcloud.planning.plan.fewer_hosts", noted(fewer_hosts))
    monkeypatch.setattr("time.monotonic", lambda: 0.0)
    types = [HostKind(f"h{n}", (1_000 + n,), {}, 1) for n in range(500)]
    make_plan(build(["cpus"], types, [TaskKind("a", (1_000,), 500)]), Question(seconds=19, failures=()))
    assert seconds[0] == pytest.approx(6)
    assert min(seconds) >= 1
    assert seconds[8] == pytest.approx(19)


def test_as_few_of_the_given_hosts_as_possible_are_used() -> None:
    """The answer for one type, or for the mix, is taken if so many hosts exist, otherwise the largest hosts are."""
    tasks = [TaskKind("a", (1_000, 1_000), 60), TaskKind("b", (3_000, 2_000), 20)]  # 120 cpus, 100 of memory
    for small, large, used in ((40, 20, 8), (40, 3, 21), (0, 40, 8), (40, 0, 30)):
        kinds = [HostKind("small", (4_000, 8_000), {}, small), HostKind("large", (16_000, 32_000), {}, large)]
        plan = make_plan(build(["cpus", "mem"], [kind for kind in kinds if kind.copies], tasks), QUICK)
        assert (plan.fits, plan.packing.used, len(plan.packing.hosts)) == (True, used, small + large)


def test_answer_for_a_type_is_used_if_so_many_hosts_exist() -> None:
    problem = build(
        ["cpus"], [HostKind("a", (4_000,), {}, 4), HostKind("b", (4_000,), {}, 4)], [TaskKind("t", (1_000,), 8)]
    )
    spread = Packing(problem.host_list(), np.arange(8, dtype=np.int32))
    kinds = np.zeros(8, dtype=np.int32)
    for members, used in (({0: [0, 1]}, 2), ({0: [0]}, 2), ({0: []}, 8)):
        found = fewer_hosts(problem, spread, [Packing(kinds, np.arange(8, dtype=np.int32) // 4)], members, seconds=0)
        verify(problem, found)
        assert (found.used, found.hosts.tolist()) == (used, spread.hosts.tolist())


def test_hosts_are_emptied_one_by_one() -> None:
    kinds = [HostKind("a", (4_000,), {"zone": "a"}, 10), HostKind("b", (8_000,), {"zone": "b"}, 10)]
    tasks = [TaskKind("t", (1_000,), 6, parse_rules("zone=a")), TaskKind("u", (1_000,), 6)]
    problem = build(["cpus"], kinds, tasks)
    spread = Packing(problem.host_list(), np.array([*range(6), *range(10, 16)], dtype=np.int32))
    found = _emptied(problem, spread, 1, math.inf, 1, None)
    verify(problem, found)
    assert (found.used, found.unplaced) == (3, 0)


def test_refused_tasks_do_not_change_with_the_number_of_hosts_in_use() -> None:
    problem = build(["cpus", "mem"], hosts(10, 4), [TaskKind("a", (1_000, 1), 4), TaskKind("b", (90_000, 1), 2)])
    plan = make_plan(problem, QUICK)
    assert [(r.job, r.tasks) for r in plan.refused] == [("b", 2)]
    assert plan.packing.used == 1


def test_small_problems_are_tried_completely_in_any_time() -> None:
    problem = build(["cpus", "mem"], hosts(3, 3), [TaskKind("a", (4_000, 1_000), 6), TaskKind("b", (1_000, 6_000), 3)])
    plan = make_plan(problem, Question(seconds=0))
    assert plan.fits
    assert plan.untried == ()


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), max_size=12), st.tuples(*[st.integers(0, 4)] * 3))
def test_no_task_fits_if_the_smallest_does_not(requests: list[tuple[int, ...]], free: tuple[int, ...]) -> None:
    rows = np.array(requests, dtype=np.int64).reshape(-1, 3)
    some = any((need <= np.array(free)).all() for need in _smallest(rows))
    assert some == any((row <= np.array(free)).all() for row in rows)


def test_example_of_the_documentation_runs(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "planning.md").read_text()
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
