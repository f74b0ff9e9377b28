"""The ids of traces and spans, and the `traceparent` of attempts."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from tests.core_world import POLICY, Desk, make_ad_hoc_job, make_app, make_job, make_offer, of, payload_of

from jobcloud.config import JobKind
from jobcloud.messages import AttemptTraced, RunAdHoc, Trigger
from jobcloud.model import Terms
from jobcloud.scheduler import trace_context
from jobcloud.scheduler.trace_context import Context

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACED = replace(POLICY, traced=True, trace_ratio=1.0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        CALLER.upper(),
        CALLER + "-more",
        CALLER[:-1],
        CALLER.replace("00-4", "ff-4"),
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        CALLER + "\n",
        "01" + CALLER[2:] + "-" + "x" * 300,
    ],
)
def test_malformed_header_is_ignored(text: str) -> None:
    assert trace_context.parse(text) is None


def test_header_of_a_later_version_is_read_as_the_first_one() -> None:
    assert str(trace_context.parse("cc" + CALLER[2:] + "-what-comes")) == CALLER
    assert trace_context.parse(CALLER[:-2] + "02") == Context(TRACE_ID, "00f067aa0ba902b7", False)


def test_trace_of_a_run_is_derived_from_its_id_and_sampled_by_ratio() -> None:
    assert trace_context.of_run("a.1", None, 1) == trace_context.of_run("a.1", None, 1)
    ids = [f"report.{number}" for number in range(2_000)]
    half = {run for run in ids if trace_context.of_run(run, None, 0.5).sampled}
    assert 800 < len(half) < 1_200
    assert {run for run in ids if trace_context.of_run(run, None, 0.1).sampled} < half
    assert not any(trace_context.of_run(run, None, 0).sampled for run in ids)
    assert all(trace_context.of_run(run, None, 1).sampled for run in ids)
    assert len({trace_context.of_run(run, None, 1).trace_id for run in ids}) == len(ids)


def test_caller_decides_whether_its_run_is_sampled() -> None:
    unsampled = trace_context.parse(CALLER[:-2] + "00")
    assert not trace_context.of_run("a.1", unsampled, 1).sampled
    assert trace_context.of_run("a.1", trace_context.parse(CALLER), 0).sampled


def traceparents(desk: Desk) -> list[str]:
    return [payload_of(one).get("traceparent", "") for one in desk.launched(desk.all)]


@pytest.mark.parametrize("ratio", [None, 1.0])
def test_attempts_get_a_traceparent_of_their_own_trace(ratio: float | None) -> None:
    desk = Desk(make_app(), make_job(shard_count=2), policy=replace(POLICY, trace_ratio=ratio))
    desk.do(Trigger(desk.at, "report"))
    desk.offer(make_offer("o1"))
    found = traceparents(desk)
    if ratio is None:
        assert found == ["", ""]
        return
    (run,) = desk.firings()
    trace_id = trace_context.of_run(run.id, None, 1).trace_id
    assert found == [f"00-{trace_id}-{trace_context.span_id(run.id, item, 1)}-01" for item in (0, 1)]


def test_caller_of_a_trigger_is_kept_through_repeats_and_leaders() -> None:
    desk = Desk(make_app(), make_job(retry_count=1, retry_delay_ms=1_000, retry_jitter=0), policy=TRACED)
    desk.do(Trigger(desk.at, "report", Terms(trace=CALLER)))
    desk.offer(make_offer("o1"))
    desk.status(desk.running()[0], "TASK_FAILED")
    desk.restart()
    desk.run_until_idle(1_000)
    desk.offer(make_offer("o2"))
    first, second = traceparents(desk)
    assert first[:35] == second[:35] == CALLER[:35]
    assert first != second
    assert {trace.trace for trace in of(AttemptTraced, desk.all)} == {CALLER}


def test_caller_is_passed_on_if_no_spans_are_made() -> None:
    desk = Desk(make_app())
    desk.do(RunAdHoc(desk.at, make_ad_hoc_job(), Terms(trace=CALLER)))
    desk.offer(make_offer("o1"))
    assert traceparents(desk) == [CALLER]


def test_each_attempt_of_a_resident_job_has_a_trace_of_its_own() -> None:
    desk = Desk(make_app(), make_job(kind=JobKind.DAEMON, shard_count=2), policy=TRACED)
    desk.offer(make_offer("o1"))
    first, second = traceparents(desk)
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", first)
    assert first[:35] != second[:35]


@pytest.mark.parametrize("ad_hoc", [False, True])
def test_repeated_request_with_a_key_may_come_from_another_span(ad_hoc: bool) -> None:
    desk = Desk(make_app(), make_job())

    def start(**terms: Any) -> None:
        given = Terms(key="k", **terms)
        desk.do(RunAdHoc(desk.at, make_ad_hoc_job(), given) if ad_hoc else Trigger(desk.at, "report", given))

    start(trace=CALLER)
    start()
    start(trace=CALLER.replace("b7-01", "b8-01"))
    (run,) = desk.scheduler.firings.values()
    assert run.terms.trace == CALLER
