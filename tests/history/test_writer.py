"""The writing thread and its spool: a database that is slow, away, or refuses rows; crashes; new leaders."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import DataError, OperationalError
from tests.history_kit import START, make_attempt, make_run, played

from jobcloud.history.answers import Wanted
from jobcloud.history.database import Database
from jobcloud.history.queries import Reader
from jobcloud.history.retention import Limits
from jobcloud.history.rows import Batch, of_events, of_state
from jobcloud.history.spool import FORMAT, Spool
from jobcloud.history.tables import attempts, runs
from jobcloud.history.writer import Writer
from jobcloud.messages import RunTraced
from jobcloud.model import Cause, Firing, Outcome, Shard, ShardState, shards_of


class FakeDatabase:
    """Takes batches, unless it is told to fail."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.error: Callable[[Batch], Exception | None] = lambda batch: None
        self.opened = self.closed = 0
        self.newest = 0
        self.may_write = threading.Event()
        self.may_write.set()

    def open(self) -> Any:
        self.opened += 1
        return self

    def upgrade(self) -> None: ...

    def close(self) -> None:
        self.closed += 1

    def newest_ms(self) -> int:
        return self.newest

    def write(self, batch: Batch) -> None:
        self.may_write.wait()
        if error := self.error(batch):
            raise error
        self.batches.append(batch)

    @property
    def tasks(self) -> list[str]:
        return [row[1] for batch in self.batches for row in batch.attempts]


class Clock:
    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds


AWAY = OperationalError("INSERT", {}, Exception("no route to host"))
REFUSED = DataError("INSERT", {}, Exception("too long"))


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = FakeDatabase()
        self.clock = Clock()
        self.writers: list[Writer] = []

    def writer(self, queue: int = 1_000, spool_bytes: int = 1 << 20) -> Writer:
        spool = Spool(self.folder / "spool", spool_bytes)
        made = Writer(self.database.open, spool, Limits(), queue=queue, now_ms=lambda: START, monotonic=self.clock)
        self.writers.append(made)
        made.start()
        return made

    def later(self) -> None:
        """Past every wait before a new attempt."""
        self.clock.seconds += 60


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.database.may_write.set()
    for writer in made.writers:
        writer.stop()


def task_ids(*numbers: int) -> list[str]:
    return [make_attempt(number).task.id for number in numbers]


# ------------------------------------------------------------------------------------------------ the thread


def test_events_reach_the_database_in_batches(world: World) -> None:
    writer = world.writer()
    for number in range(5):
        writer.publish(make_attempt(number))
    assert writer.flush()
    assert world.database.tasks == task_ids(0, 1, 2, 3, 4)
    assert len(world.database.batches) <= 2
    assert (writer.state().written, writer.state().dropped, writer.state().problem) == (5, 0, "")


def test_scheduler_does_not_wait_for_a_database_that_hangs(world: World) -> None:
    world.database.may_write.clear()
    writer = world.writer(queue=10)
    writer.publish(make_attempt(0))
    while writer.state().waiting:  # the thread has taken it, and hangs
        pass
    for number in range(1, 31):
        writer.publish(make_attempt(number))
    assert (writer.state().waiting, writer.state().dropped) == (10, 20)
    world.database.may_write.set()
    assert writer.flush()
    assert world.database.tasks == task_ids(*range(11))


def test_events_wait_on_disk_while_the_database_is_away(world: World) -> None:
    world.database.error = lambda batch: AWAY
    writer = world.writer()
    writer.publish(make_attempt(0))
    assert writer.flush()
    writer.publish(make_attempt(1))
    assert writer.flush()
    state = writer.state()
    assert (state.written, state.dropped, state.waiting) == (2, 0, 0)
    assert "no route" in state.problem
    assert state.since_ms == START
    assert state.spooled_bytes > 0
    world.database.error = lambda batch: None
    world.later()
    assert writer.flush()
    assert sorted(world.database.tasks) == task_ids(0, 1)
    assert (writer.state().problem, writer.state().spooled_bytes) == ("", 0)
    assert not list((world.folder / "spool").iterdir())


def test_database_that_is_away_is_not_asked_for_each_event(world: World) -> None:
    world.database.error = lambda batch: AWAY
    writer = world.writer()
    for number in range(10):
        writer.publish(make_attempt(number))
        assert writer.flush()
    assert world.database.opened == 1


def test_database_that_cannot_be_opened_is_opened_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse() -> Any:
        asked.append(1)
        if len(asked) < 3:
            raise OSError("no such host")
        return world.database

    monkeypatch.setattr(world.database, "open", refuse)
    writer = world.writer()
    writer.publish(make_attempt(0))
    for _ in range(3):
        assert writer.flush()
        world.later()
    assert writer.flush()
    assert world.database.tasks == task_ids(0)


def test_full_spool_counts_what_it_drops(world: World) -> None:
    world.database.error = lambda batch: AWAY
    writer = world.writer(spool_bytes=3_000)
    for number in range(20):
        writer.publish(make_attempt(number))
        assert writer.flush()
    state = writer.state()
    assert state.spooled_bytes <= 3_000
    assert state.dropped > 0
    assert state.written + state.dropped == 20


def test_row_that_the_database_refuses_does_not_stop_the_others(world: World) -> None:
    bad = make_attempt(1, message="bad", state="FAILED")

    def refuse(batch: Batch) -> Exception | None:
        return REFUSED if any("bad" in row for rows in (batch.attempts, batch.executions) for row in rows) else None

    world.database.error = refuse
    writer = world.writer()
    for event in (make_attempt(0), bad, make_attempt(2)):
        writer.publish(event)
    assert writer.flush()
    assert world.database.tasks == task_ids(0, 2)
    assert writer.state().dropped == 2  # the rows of two tables
    assert writer.state().problem == ""


def test_stop_writes_what_waits(world: World) -> None:
    writer = world.writer()
    writer.publish(make_attempt(0))
    writer.stop()
    assert world.database.tasks == task_ids(0)
    assert world.database.closed == 1


def test_events_survive_a_restart_while_the_database_is_away(world: World) -> None:
    world.database.error = lambda batch: AWAY
    first = world.writer()
    first.publish(make_attempt(0))
    first.stop()
    world.database.error = lambda batch: None
    world.later()
    second = world.writer()
    second.publish(make_attempt(1))
    assert second.flush()
    assert second.flush()
    assert sorted(world.database.tasks) == task_ids(0, 1)


def test_faulty_event_does_not_end_the_thread(world: World) -> None:
    writer = world.writer()
    writer.publish(None)  # type: ignore[arg-type]
    assert writer.flush()
    writer.publish(make_attempt(0))
    assert writer.flush()
    assert world.database.tasks == task_ids(0)
    assert writer.state().dropped == 1


# ------------------------------------------------------------------------------------------------ a new leader


def firing(number: int, *shards: Shard) -> Firing:
    ended = max(shard.ended_ms for shard in shards)
    return Firing(f"report.{number}@test", "report", 1, Cause.CRON, ended - 5_000, shards_of(*shards), ended_ms=ended)


def ended_shard(number: int, ended_ms: int, state: ShardState = ShardState.FINISHED) -> Shard:
    return Shard(
        state=state, attempt=2, task_id=f"t{number}", agent_id="a1", hostname="host-a1", executor_id="e1",
        started_ms=ended_ms - 3_000, ended_ms=ended_ms, message="m", outcome=Outcome("exception"),
    )  # fmt: skip


def test_new_leader_writes_what_the_killed_one_had_only_stored(world: World) -> None:
    world.database.newest = START
    old = firing(1, ended_shard(1, START - 3_600_000))
    lost = firing(2, ended_shard(2, START + 10), ended_shard(3, START + 20, ShardState.DEAD))
    cancelled = firing(3, Shard(state=ShardState.CANCELLED, ended_ms=START + 30))
    running = Firing("report.4@test", "report", 1, Cause.CRON, START, shards_of(Shard()))
    writer = world.writer()
    writer.fill([old, lost, cancelled, running], {"report": "shop"})
    assert writer.flush()
    assert world.database.tasks == ["t2", "t3"]
    assert [row[1] for batch in world.database.batches for row in batch.runs] == ["report.2@test", "report.3@test"]
    (dead,) = [row for batch in world.database.batches for row in batch.attempts if row[1] == "t3"]
    assert {"FAILED", "exception", "m", "host-a1"} <= set(map(str, dead))


def test_row_of_the_state_is_the_row_of_the_event(tmp_path: Path) -> None:
    """So what the state tells cannot appear twice, and does not replace what the event told."""
    database = Database(f"sqlite:///{tmp_path / 'history.db'}")
    database.upgrade()
    events = played()
    database.write(of_events(events))
    (run,) = [event for event in events if isinstance(event, RunTraced)]
    with database.engine.connect() as connection:
        before = connection.execute(select(attempts)).all(), connection.execute(select(runs)).all()
    database.write(of_state([run.firing], {"report": "shop"}, 0))
    with database.engine.connect() as connection:
        assert (connection.execute(select(attempts)).all(), connection.execute(select(runs)).all()) == before
    database.close()


def test_leader_that_was_killed_loses_no_ended_run(tmp_path: Path) -> None:
    """The traces of the killed leader never reached the database. Its state did."""
    database = Database(f"sqlite:///{tmp_path / 'history.db'}")
    database.upgrade()
    (run,) = [event for event in played() if isinstance(event, RunTraced)]
    writer = Writer(lambda: database, Spool(tmp_path / "spool", 1 << 20), Limits(), now_ms=lambda: START)
    writer.start()
    writer.fill([run.firing], {"report": "shop"})
    assert writer.flush()
    writer.stop()
    reader = Reader(lambda: Database(f"sqlite:///{tmp_path / 'history.db'}", reading=True))
    (found,), _ = reader.runs(Wanted(job="report"), 10)
    assert (found["state"], found["app"]) == ("FINISHED", "shop")
    ((attempt,), _) = reader.attempts(Wanted(run=found["run_id"]), 10)
    assert (attempt["attempt"], attempt["outcome"], attempt["duration_ms"]) == (2, "SUCCEEDED", 2_500)
    assert attempt["queued_ms"] is None
    reader.close()


@pytest.mark.parametrize("leads", [True, False])
def test_only_a_leader_deletes_old_rows(tmp_path: Path, leads: bool) -> None:
    database = Database(f"sqlite:///{tmp_path / 'history.db'}")
    database.upgrade()
    database.write(of_events([make_attempt(0)]))
    limits = Limits(age_ms=1_000)
    writer = Writer(lambda: database, Spool(tmp_path / "spool", 1 << 20), limits, now_ms=lambda: START + 10**9)
    if leads:
        writer.fill([], {})
    writer.start()
    assert writer.flush()
    with database.engine.connect() as connection:
        assert len(connection.execute(select(attempts)).all()) == (not leads)
    writer.stop()


# ------------------------------------------------------------------------------------------------ the spool


def batch_of(number: int) -> Batch:
    return of_events([make_attempt(number)])


def replayed(spool: Spool) -> list[Batch]:
    found: list[Batch] = []
    while spool.replay(found.append):
        pass
    return found


def test_spool_gives_batches_back_in_their_order(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 1 << 20)
    batches = [of_events([make_run(number), make_attempt(number, message="é☃")]) for number in range(3)]
    for batch in batches:
        assert spool.append(batch)
    assert replayed(Spool(tmp_path / "spool", 1 << 20)) == []  # this process still writes it
    spool.close()
    assert replayed(Spool(tmp_path / "spool", 1 << 20)) == batches
    assert replayed(Spool(tmp_path / "spool", 1 << 20)) == []


def test_spool_keeps_a_segment_until_all_of_it_is_written(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 1 << 20)
    for number in range(3):
        spool.append(batch_of(number))
    found: list[Batch] = []

    def fail(batch: Batch) -> None:
        if len(found) == 2:
            raise AWAY
        found.append(batch)

    with pytest.raises(OperationalError):
        spool.replay(fail)
    assert replayed(spool) == [batch_of(0), batch_of(1), batch_of(2)]


@pytest.mark.parametrize("cut", [1, 7, 20])
def test_torn_batch_is_left_out(tmp_path: Path, cut: int) -> None:
    spool = Spool(tmp_path / "spool", 1 << 20)
    for number in range(3):
        spool.append(batch_of(number))
    spool.close()
    (segment,) = (tmp_path / "spool").iterdir()
    segment.write_bytes(segment.read_bytes()[:-cut])
    assert replayed(Spool(tmp_path / "spool", 1 << 20)) == [batch_of(0), batch_of(1)]


def test_damaged_batch_is_left_out_with_those_behind_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 1 << 20)
    spool.append(batch_of(0))
    (segment,) = (tmp_path / "spool").iterdir()
    whole = segment.stat().st_size
    spool.append(batch_of(1))
    spool.close()
    content = bytearray(segment.read_bytes())
    content[whole + 30] ^= 1
    segment.write_bytes(content)
    assert replayed(Spool(tmp_path / "spool", 1 << 20)) == [batch_of(0)]


def test_crash_at_the_first_line_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "0-1.spool").write_bytes(FORMAT[:5])
    assert replayed(Spool(tmp_path, 1 << 20)) == []
    assert not list(tmp_path.iterdir())


def test_segment_of_another_format_is_kept(tmp_path: Path) -> None:
    (tmp_path / "0-1.spool").write_bytes(b"jobcloud history 9\nabc")
    spool = Spool(tmp_path, 1 << 20)
    spool.append(batch_of(0))
    assert replayed(spool) == [batch_of(0)]
    assert [path.name for path in tmp_path.iterdir()] == ["0-1.unreadable"]
    assert spool.size == 0


def test_full_disk_is_a_refusal(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("not a folder")
    assert not Spool(tmp_path / "spool", 1 << 20).append(batch_of(0))
