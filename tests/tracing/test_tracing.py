"""Traces of runs, as a receiver of OTLP decodes them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk")
pytest.importorskip("opentelemetry.exporter.otlp.proto.http")

from opentelemetry.proto.trace.v1.trace_pb2 import Status
from tests.core_world import POLICY, START, Desk, make_ad_hoc_job, make_app, make_job, make_offer, of, payload_of
from tests.tracing_kit import Receiver, attributes

from jobcloud.config import JobKind
from jobcloud.errors import ConfigError
from jobcloud.messages import AttemptTraced, CancelRun, Publish, Retry, RunAdHoc, RunTraced, Topic, Trigger
from jobcloud.model import Terms
from jobcloud.tracing import service, spans
from jobcloud.tracing.service import Exporter, Tracing, TracingOptions

TRACED = replace(POLICY, traced=True, trace_ratio=1.0)
CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.close()


def test_options_show_no_header() -> None:
    assert "t0ken" not in repr(TracingOptions("http://collector", "prod", headers={"authorization": "t0ken"}))


def sent(receiver: Receiver, desk: Desk, **options: Any) -> list[Any]:
    """Send the traces of all effects of a desk. Returns the spans that the receiver decodes."""
    before = len(receiver.spans)
    tracing = Tracing(TracingOptions(receiver.url, "prod", **options))
    tracing.start()
    for effect in desk.all:
        tracing.publish(effect)
    tracing.stop(60)
    found = receiver.spans[before:]
    assert tracing.counts() == (len(found), 0)
    return found


def run_once(desk: Desk, *states: str) -> None:
    """Launch all waiting shards, and end them in the order of their items."""
    desk.offer(make_offer(f"o{len(desk.all)}", cpus=200, mem=100_000))
    tasks = sorted(desk.scheduler.tasks.values(), key=lambda task: task.item)
    for task in tasks:
        desk.status(task.id, "TASK_RUNNING")
    desk.at += 2_000
    for task, state in zip(tasks, states * len(tasks), strict=False):
        desk.status(task.id, state, message="broke" if state == "TASK_FAILED" else "")


def named(found: Sequence[Any], name: str) -> list[Any]:
    return [span for span in found if span.name == name]


def test_run_is_a_trace_of_its_shards_waits_and_attempts(receiver: Receiver) -> None:
    desk = Desk(make_app(), make_job(shard_count=2), policy=TRACED)
    desk.do(Trigger(desk.at, "report"))
    desk.at += 1_500
    run_once(desk, "TASK_FINISHED", "TASK_FAILED")
    found = sent(receiver, desk)
    assert sorted(span.name for span in found) == [
        "attempt report", "attempt report", "queue", "queue", "run report", "shard", "shard",
    ]  # fmt: skip
    (run,) = named(found, "run report")
    assert len({span.trace_id for span in found}) == 1
    assert run.parent_span_id == b""
    assert {span.parent_span_id for span in named(found, "shard")} == {run.span_id}
    shards = {attributes(span)["jobcloud.shard"]: span for span in named(found, "shard")}
    attempts = {attributes(span)["jobcloud.shard"]: span for span in named(found, "attempt report")}
    for item in (0, 1):
        assert attempts[item].parent_span_id == shards[item].span_id
    for launched in desk.launched(desk.all):
        item = payload_of(launched)["shardingContext"]["shardingItem"]
        trace_id, span_id = attempts[item].trace_id.hex(), attempts[item].span_id.hex()
        assert payload_of(launched)["traceparent"] == f"00-{trace_id}-{span_id}-01"
    second = attributes(attempts[1])
    assert second == {
        "jobcloud.team": "default", "jobcloud.app": "shop", "jobcloud.job": "report",
        "jobcloud.run": desk.firings()[0].id, "jobcloud.cause": "trigger", "jobcloud.shard": 1, "jobcloud.attempt": 1,
        "jobcloud.task.id": second["jobcloud.task.id"], "jobcloud.agent.id": "a1", "host.name": "host-a1",
        "jobcloud.outcome": "FAILED", "error.type": "FAILED",
    }  # fmt: skip
    assert (attempts[1].status.code, attempts[1].status.message) == (Status.STATUS_CODE_ERROR, "broke")
    assert attempts[0].status.code == Status.STATUS_CODE_UNSET
    assert [event.name for event in attempts[0].events] == ["running"]
    of_run = attributes(run)
    assert (of_run["jobcloud.outcome"], of_run["jobcloud.shards.finished"]) == ("FAILED", 1)
    times = [(span.start_time_unix_nano, span.end_time_unix_nano) for span in (run, attempts[0])]
    start = START * 1_000_000
    assert times == [(start, start + 3_500_000_000), (start + 1_500_000_000, start + 3_500_000_000)]
    (wait, _) = named(found, "queue")
    assert wait.end_time_unix_nano - wait.start_time_unix_nano == 1_500_000_000
    assert receiver.resources[0] == {
        "service.name": "jobcloud", "service.version": receiver.resources[0]["service.version"],
        "jobcloud.cluster": "prod",
    }  # fmt: skip


def test_spans_of_two_leaders_are_one_trace_without_doubles(receiver: Receiver) -> None:
    desk = Desk(make_app(), make_job(retry_count=1, retry_delay_ms=1_000, retry_jitter=0), policy=TRACED)
    desk.do(Trigger(desk.at, "report"))
    run_once(desk, "TASK_FAILED")
    first = sent(receiver, desk)
    desk.all.clear()
    desk.restart()
    desk.run_until_idle(1_000)
    run_once(desk, "TASK_FINISHED")
    found = first + sent(receiver, desk)
    assert len({span.trace_id for span in found}) == 1
    assert len({span.span_id for span in found}) == len(found)
    assert [attributes(span)["jobcloud.attempt"] for span in named(found, "attempt report")] == [1, 2]
    (shard,) = named(found, "shard")
    assert {span.parent_span_id for span in named(found, "attempt report")} == {shard.span_id}


def test_run_belongs_to_the_trace_of_its_caller(receiver: Receiver) -> None:
    desk = Desk(make_app(), policy=TRACED)
    desk.do(RunAdHoc(desk.at, make_ad_hoc_job("once"), Terms(trace=CALLER)))
    run_once(desk, "TASK_FINISHED")
    found = sent(receiver, desk, ratio=0.0)
    (run,) = named(found, "run once")
    assert {span.trace_id.hex() for span in found} == {CALLER[3:35]}
    assert run.parent_span_id.hex() == CALLER[36:52]


def test_run_that_its_caller_does_not_sample_has_no_spans(receiver: Receiver) -> None:
    desk = Desk(make_app(), make_job(), policy=TRACED)
    desk.do(Trigger(desk.at, "report", Terms(trace=CALLER[:-2] + "00")))
    run_once(desk, "TASK_FINISHED")
    assert sent(receiver, desk) == []


def test_ratio_samples_whole_runs(receiver: Receiver) -> None:
    desk = Desk(make_app(), make_job(), policy=TRACED)
    for _ in range(40):
        desk.do(Trigger(desk.at, "report"))
        run_once(desk, "TASK_FINISHED")
    found = sent(receiver, desk, ratio=0.5)
    traces = {span.trace_id for span in found}
    assert 5 < len(traces) < 35
    assert len(found) == 3 * len(traces)


def test_wide_run_has_spans_of_its_first_shards_and_of_failed_attempts(receiver: Receiver) -> None:
    desk = Desk(make_app(), make_job(shard_count=150), policy=TRACED)
    desk.do(Trigger(desk.at, "report"))
    run_once(desk, *["TASK_FINISHED"] * 140, *["TASK_FAILED"] * 10)
    found = sent(receiver, desk, shards=20)
    (run,) = named(found, "run report")
    assert sorted(attributes(span)["jobcloud.shard"] for span in named(found, "shard")) == list(range(20))
    items = sorted(attributes(span)["jobcloud.shard"] for span in named(found, "attempt report"))
    assert items == [*range(20), *range(140, 150)]
    ids = {span.span_id for span in found}
    assert all(span.parent_span_id in ids for span in found if span is not run), "no span lacks its parent"
    assert attributes(run)["jobcloud.shards.failed"] == 10


def test_number_of_attempts_with_spans_is_bounded(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "MAX_ATTEMPTS", 7)
    desk = Desk(make_app(), make_job(shard_count=30), policy=TRACED)
    desk.do(Trigger(desk.at, "report"))
    run_once(desk, "TASK_FAILED")
    found = sent(receiver, desk, shards=10)
    assert len(named(found, "attempt report")) == 7
    assert len(named(found, "shard")) == 10
    monkeypatch.setattr(spans, "_MAX_RUNS", 3)
    made = spans.Spans("prod", 1.0, 10)
    for number in range(20):
        made._count(f"run-{number}")
    assert len(made._counts) == 3


def test_attempts_of_a_resident_job_are_traces_of_their_own(receiver: Receiver) -> None:
    desk = Desk(make_app(), make_job(kind=JobKind.DAEMON, shard_count=2), policy=TRACED)
    run_once(desk, "TASK_FAILED")
    found = named(sent(receiver, desk), "attempt report")
    assert len({span.trace_id for span in found}) == 2
    assert {span.parent_span_id for span in found} == {b""}


def test_retried_run_sends_its_span_again_with_its_later_end(receiver: Receiver) -> None:
    desk = Desk(make_app(), make_job(), policy=TRACED)
    desk.do(Trigger(desk.at, "report"))
    run_once(desk, "TASK_FAILED")
    desk.do(Retry(desk.at, desk.firings()[0].id))
    run_once(desk, "TASK_FINISHED")
    first, second = named(sent(receiver, desk), "run report")
    assert first.span_id == second.span_id
    assert first.end_time_unix_nano < second.end_time_unix_nano
    assert [attributes(span)["jobcloud.outcome"] for span in (first, second)] == ["FAILED", "FINISHED"]


def test_listener_of_a_run_has_spans_below_the_run(receiver: Receiver) -> None:
    desk = Desk(make_app(), make_job(firing_listener="shop:Stage"), policy=TRACED)
    desk.do(Trigger(desk.at, "report"))
    for _ in range(3):
        run_once(desk, "TASK_FINISHED")
    found = sent(receiver, desk, shards=0)
    (run,) = named(found, "run report")
    steps = [attributes(span).get("jobcloud.step") for span in named(found, "attempt report")]
    assert steps == ["before", "after"]
    assert {span.parent_span_id for span in found if span is not run} == {run.span_id}


def test_headers_of_the_options_are_sent(receiver: Receiver) -> None:
    desk = Desk(make_app(), make_job(), policy=TRACED)
    desk.do(Trigger(desk.at, "report"))
    run_once(desk, "TASK_FINISHED")
    sent(receiver, desk, headers={"Authorization": "Bearer secret"})
    assert receiver.headers[0]["Authorization"] == "Bearer secret"


def test_spans_that_the_receiver_refuses_are_counted_and_named(receiver: Receiver) -> None:
    desk = Desk(make_app(), make_job(), policy=TRACED)
    desk.do(Trigger(desk.at, "report"))
    run_once(desk, "TASK_FINISHED")
    receiver.status = 400
    tracing = Tracing(TracingOptions(receiver.url, "prod"))
    tracing.start()
    for effect in desk.all:
        tracing.publish(effect)
    tracing.stop(60)
    assert tracing.counts() == (0, 3)
    assert "3 are lost" in tracing.warnings()[0]


class Scripted:
    """An exporter that waits until the test lets it go on."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.gate = threading.Event()
        self.entered = threading.Event()

    def export(self, batch: Sequence[Any]) -> bool:
        self.batches.append(len(batch))
        self.entered.set()
        self.gate.wait()
        return True

    def shutdown(self) -> None: ...


def test_publisher_never_waits_and_traces_without_room_are_counted() -> None:
    exporter = Scripted()
    make: Callable[[TracingOptions], Exporter] = lambda options: exporter  # noqa: E731
    tracing = Tracing(TracingOptions("", "prod", queue=service.BATCH), make)
    desk = Desk(make_app(), make_job(), policy=TRACED)
    desk.do(Trigger(desk.at, "report"))
    run_once(desk, "TASK_FINISHED")
    (run,) = of(RunTraced, desk.all)
    tracing.start()
    tracing.publish(run)
    assert exporter.entered.wait(60)
    for _ in range(service.BATCH + 3):
        tracing.publish(run)
    assert tracing.counts() == (0, 3)
    exporter.gate.set()
    tracing.stop(60)
    assert exporter.batches == [2, service.BATCH, service.BATCH], "a run of one shard has two spans"
    assert tracing.counts() == (2 + 2 * service.BATCH, 3)


def test_trace_of_a_wide_run_takes_the_room_of_many() -> None:
    exporter = Scripted()
    tracing = Tracing(TracingOptions("", "prod", queue=100), lambda options: exporter)
    desk = Desk(make_app(), make_job(shard_count=500), policy=TRACED)
    desk.do(Trigger(desk.at, "report"))
    desk.do(CancelRun(desk.at, desk.firings()[0].id))
    (run,) = of(RunTraced, desk.all)
    for _ in range(5):
        tracing.publish(run)
    assert tracing.counts().dropped == 3
    exporter.gate.set()
    tracing.start()
    tracing.stop(60)
    tracing.publish(run)
    assert tracing.counts().dropped == 3, "there is room again"


def test_other_notices_and_attempts_that_have_not_ended_are_ignored() -> None:
    exporter = Scripted()
    exporter.gate.set()
    tracing = Tracing(TracingOptions("", "prod"), lambda options: exporter)
    desk = Desk(make_app(), make_job(), policy=TRACED)
    desk.do(Trigger(desk.at, "report"))
    desk.offer(make_offer("o1"))
    for effect in (*of(AttemptTraced, desk.all), Publish(1, Topic.FIRED, "x")):
        tracing.publish(effect)
    tracing.start()
    tracing.stop(60)
    assert exporter.batches == []


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_MODULES", ("opentelemetry.absent.sdk",))
    assert not service.installed()
    with pytest.raises(ConfigError, match=r"pip install 'jobcloud\[server,tracing\]'") as caught:
        Tracing(TracingOptions("http://127.0.0.1:1/v1/traces", "prod"))
    assert caught.value.field == "tracing.endpoint"
