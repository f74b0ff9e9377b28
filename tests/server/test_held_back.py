"""Records that cannot be stored: only the request or the record itself is affected, never its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.server.test_loop import NOW, FakeCore, RecordingDriver, RecordingStore, World, enabling, ordered, status
from tests.server.test_records import APP, JOB

from jobcloud.config import LONGEST_AD_HOC, NEW_AD_HOC, Resources
from jobcloud.errors import ConfigError, RecordTooLarge, StoreFull, Unavailable
from jobcloud.messages import (
    Accept,
    Acknowledge,
    Apply,
    Decline,
    DrainAgent,
    Effect,
    Event,
    Kind,
    Launch,
    OfferRescinded,
    PutApp,
    PutJob,
    RunAdHoc,
    Save,
    SendFailed,
    StatusReceived,
    Write,
)
from jobcloud.model import AppVersion, Execution, Executor, JobState, Task, changed
from jobcloud.ports import StoredFault, StoredWrite
from jobcloud.server import records
from jobcloud.server.batch import Arrived, BatchProcessor, Order
from jobcloud.server.records import check_size, encode


@dataclass
class LaunchingCore(FakeCore):
    """Launches the tasks "small" and "large" on one agent when an offer is rescinded."""

    def handle(self, event: Event) -> list[Effect]:
        if not isinstance(event, OfferRescinded):
            return super().handle(event)
        executor = Executor("e", "agent", "app", (), "{}")
        launches = tuple(Launch(name, name, (), executor, b"") for name in ("small", "large"))
        tasks = [
            Task(launch.task_id, "f", "j", 0, 1, Execution.READY, "agent", "host", "app", "e", Resources(), NOW)
            for launch in launches
        ]
        writes = [Write(Kind.TASK, task.id, task) for task in tasks]
        return [Save(tuple(writes)), Accept("agent", ("offer",), launches)]


@dataclass
class LimitedStore(RecordingStore):
    """Refuses the records with these keys."""

    world: World
    refused: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__(self.world)

    def write(self, epoch: int, batch: Sequence[StoredWrite]) -> None:
        problems = {
            (str(write.kind), write.key): f"{write.key} is too large" for write in batch if write.key in self.refused
        }
        if problems:
            raise RecordTooLarge(problems)
        super().write(epoch, batch)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def store(world: World) -> LimitedStore:
    return LimitedStore(world)


@pytest.fixture
def processor(world: World, store: LimitedStore) -> BatchProcessor[FakeCore]:
    made: BatchProcessor[FakeCore] = BatchProcessor(
        store,
        lambda: RecordingDriver(world),
        lambda restored, epoch, at: LaunchingCore(world, restored, epoch),
        world.done.append,
        now_ms=lambda: world.now,
    )
    made.acquire()
    made.reload()
    made.connect(lambda session, event: world.done.append(event))
    made.process([])
    return made


def acknowledged(world: World) -> list[str]:
    return [done.task_id for done in world.done if isinstance(done, Acknowledge)]


def stored_keys(world: World) -> list[str]:
    return sorted(key for _, key in world.server.entries)


# ----------------------------------------------------------------------------- records that the scheduler writes itself


def test_record_that_the_store_refuses_is_held_back_and_the_rest_of_the_batch_proceeds(
    processor: BatchProcessor[FakeCore], store: LimitedStore, world: World
) -> None:
    store.refused = {"large"}
    order = enabling("j")
    with capture_logs() as logs:
        processor.process([Arrived(status("a")), Arrived(status("large")), order, Arrived(status("b"))])
    assert stored_keys(world) == ["a", "b", "j"]
    assert acknowledged(world) == ["a", "b"]
    assert [call.offer_ids for call in world.done if isinstance(call, Decline)] == [("a",), ("large",), ("b",)]
    assert order.reply.result(0) is None
    assert [entry["problem"] for entry in logs] == ["large is too large"]


def test_update_stays_unacknowledged_until_its_record_fits(
    processor: BatchProcessor[FakeCore], store: LimitedStore, world: World
) -> None:
    store.refused = {"large"}
    with capture_logs() as logs:
        for _ in range(3):
            processor.process([Arrived(status("large")), Arrived(status("a"))])
    assert acknowledged(world) == ["a"] * 3
    assert len(logs) == 1, "each record is logged once"
    assert list(processor.faults) == [StoredFault("job_state/large", "cannot be stored: large is too large")]
    store.refused = set()
    processor.process([Arrived(status("large"))])
    assert acknowledged(world)[3:] == ["large"]
    assert not processor.faults


def test_record_that_cannot_be_encoded_is_held_back(processor: BatchProcessor[FakeCore], world: World) -> None:
    """Half of a surrogate pair cannot be written as JSON."""

    class Surrogates(LaunchingCore):
        def handle(self, event: Event) -> list[Effect]:
            if not isinstance(event, OfferRescinded):
                return super().handle(event)
            return [
                Save((Write(Kind.JOB_STATE, "bad", JobState(NOW, skipped_reason="\ud800")),)),
                Acknowledge("bad", "agent", "u"),
            ]

    processor.core = Surrogates(world, processor.core.restored, processor.epoch)
    processor.process([Arrived(OfferRescinded(NOW, "o")), Arrived(status("a"))])
    assert stored_keys(world) == ["a"]
    assert acknowledged(world) == ["a"]


def test_task_without_a_stored_record_is_not_launched(
    processor: BatchProcessor[FakeCore], store: LimitedStore, world: World
) -> None:
    store.refused = {"large"}
    processor.process([Arrived(OfferRescinded(NOW, "o"))])
    assert [launch.task_id for done in world.done if isinstance(done, Accept) for launch in done.launches] == ["small"]
    (failed,) = [done for done in world.done if isinstance(done, SendFailed)]
    assert isinstance(failed.call, Accept)
    assert ([launch.task_id for launch in failed.call.launches], failed.certain) == (["large"], True)


def test_caller_whose_record_is_held_back_learns_it_and_others_do_not(
    processor: BatchProcessor[FakeCore], store: LimitedStore, world: World
) -> None:
    store.refused = {"large"}
    first, large, last = enabling("a"), enabling("large"), enabling("b")
    processor.process([first, large, last])
    assert (first.reply.result(0), last.reply.result(0)) == (None, None)
    with pytest.raises(Unavailable, match="the next leader will not know it: large is too large"):
        large.reply.result(0)
    assert stored_keys(world) == ["a", "b"]


def test_recovery_forgets_held_back_records_because_mesos_sends_their_updates_again(
    processor: BatchProcessor[FakeCore], store: LimitedStore, world: World
) -> None:
    store.refused = {"large"}
    processor.process([Arrived(status("large"))])
    processor.disconnect()
    processor.reload()
    processor.connect(lambda session, event: None)
    assert not processor.faults
    store.refused = set()
    processor.process([Arrived(status("large"))])
    assert acknowledged(world) == ["large"]


def test_full_store_is_reported_to_every_caller(processor: BatchProcessor[FakeCore], world: World) -> None:
    """The API answers 507 then: nothing was changed."""
    world.fail_before = [StoreFull("no space left")]
    orders = [enabling("a"), enabling("b")]
    with pytest.raises(StoreFull):
        processor.process(orders)
    for order in orders:
        with pytest.raises(StoreFull, match="no space left"):
            order.reply.result(0)


# ------------------------------------------------------------------------------------------------------ commands

LIMIT = 4_000
# Each character takes 6 bytes in JSON.
LONG = "\x01" * 700


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (PutApp(NOW, replace(APP, description=LONG)), "description"),
        (PutJob(NOW, replace(JOB, description="short", parameter=LONG)), "jobParameter"),
        (Apply(NOW, (APP,), (JOB, replace(JOB, name="other", parameter=LONG))), "jobParameter"),
        (DrainAgent(NOW, "agent", 0, LONG), "reason"),
    ],
    ids=["app", "job", "apply", "drain"],
)
def test_command_with_a_record_over_the_limit_is_refused_before_the_core_handles_it(
    processor: BatchProcessor[FakeCore], world: World, monkeypatch: pytest.MonkeyPatch, command: Any, name: str
) -> None:
    monkeypatch.setattr(records, "MAX_RECORD_BYTES", LIMIT)
    order: Order = Order(lambda at: command, Future())
    other = enabling("j")
    processor.process([order, other, Arrived(status("a"))])
    with pytest.raises(ConfigError) as caught:
        order.reply.result(0)
    assert caught.value.field == name
    assert caught.value.problem.startswith("takes 4202 of the ")
    assert caught.value.problem.endswith("may have at most 4000")
    assert "shorten it" in caught.value.fix
    assert command not in processor.core.handled
    assert (other.reply.result(0), acknowledged(world)) == (None, ["a"])


def test_command_with_a_record_that_has_no_json_form_affects_no_neighbour(
    processor: BatchProcessor[FakeCore], world: World
) -> None:
    order: Order = Order(lambda at: PutJob(at, replace(JOB, description="\ud800")), Future())
    other = enabling("j")
    processor.process([Arrived(status("a")), order, other])
    with pytest.raises(UnicodeEncodeError):
        order.reply.result(0)
    assert (other.reply.result(0), acknowledged(world)) == (None, ["a"])


def test_record_of_exactly_the_limit_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_RECORD_BYTES", len(encode(Kind.APP_VERSION, AppVersion(2**62, 2**53, APP))))
    check_size(PutApp(NOW, APP))
    with pytest.raises(ConfigError, match="packageSha256"):
        check_size(PutApp(NOW, replace(APP, description="x")))
    for command in (PutApp(NOW, APP, author="user:ann"), Apply(NOW, (APP,), (), author="user:ann")):
        with pytest.raises(ConfigError, match="packageSha256"):
            check_size(command)


def test_job_of_an_ad_hoc_run_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    job = replace(JOB, cron="", ad_hoc=NEW_AD_HOC)
    stored = replace(job, ad_hoc=LONGEST_AD_HOC)
    monkeypatch.setattr(records, "MAX_RECORD_BYTES", len(encode(Kind.AD_HOC, stored)))
    check_size(RunAdHoc(NOW, job))
    with pytest.raises(ConfigError, match="stored record"):
        check_size(RunAdHoc(NOW, replace(job, parameter="x")))


def test_command_without_a_record_is_not_measured(processor: BatchProcessor[FakeCore]) -> None:
    order = ordered(lambda at: enabling("j").make(at))
    processor.process([order])
    assert order.reply.result(0) is None


# ------------------------------------------------------------------------------------------ ends of tasks


class EndingCore(LaunchingCore):
    """Ends the task of a status update: the task's record is deleted, and the record of its run changes."""

    def handle(self, event: Event) -> list[Effect]:
        if not isinstance(event, StatusReceived):
            return super().handle(event)
        task_id, agent_id = event.status.task_id, event.status.agent_id
        acknowledge = [Acknowledge(task_id, agent_id, event.status.uuid)] if event.status.uuid else []
        if (task_id, "ended") in self.world.done:
            return [*acknowledge]
        self.world.done.append((task_id, "ended"))
        run = Write(Kind.JOB_STATE, "run", JobState(event.at))
        return [Save((Write(Kind.TASK, task_id, None), run)), *acknowledge]


@pytest.fixture
def ending(processor: BatchProcessor[FakeCore], store: LimitedStore, world: World) -> BatchProcessor[FakeCore]:
    """A processor with two stored tasks, whose store refuses the record of their run."""
    processor.process([Arrived(OfferRescinded(NOW, "o"))])
    processor.core = EndingCore(world, processor.core.restored, processor.epoch)
    store.refused = {"run"}
    return processor


def test_end_of_a_task_is_stored_only_together_with_the_record_of_its_run(
    ending: BatchProcessor[FakeCore], store: LimitedStore, world: World
) -> None:
    ending.process([Arrived(status("small")), Arrived(status("large"))])
    assert stored_keys(world) == ["large", "small"]
    store.refused = set()
    world.done.clear()
    ending.process([Arrived(status("small"))])
    assert stored_keys(world) == ["run"], "both ends are stored with the run"


def test_end_that_a_reconciliation_reported_is_not_acknowledged_while_it_is_held_back(
    ending: BatchProcessor[FakeCore], world: World
) -> None:
    reconciled = changed(status("small"), status=changed(status("small").status, uuid=""))
    ending.process([Arrived(reconciled)])
    ending.process([Arrived(status("small"))])
    assert acknowledged(world) == []
