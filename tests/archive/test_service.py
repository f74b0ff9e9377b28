"""The archive: which logs it copies, faults of stores and agents, crashes at each step, and reads."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import pytest
from tests.archive_kit import Bench, FakeAgents, FaultyStore, ended
from tests.core_world import Desk, make_app, make_job, make_offer
from tests.history_kit import START, TRACED, make_attempt

from jobcloud.archive import service
from jobcloud.archive.form import Piece
from jobcloud.archive.index import Limits
from jobcloud.archive.names import Ended
from jobcloud.archive.service import Archive, ArchiveOptions
from jobcloud.archive.stores import Away, DirectoryStore
from jobcloud.errors import NotFound, Unavailable
from jobcloud.messages import Trigger
from jobcloud.model import End


def text_of(bench: Bench, one: Ended, stream: str = "stdout") -> bytes:
    name = bench.archive.find(one.run_id, one.item, one.attempt)
    return asyncio.run(bench.archive.read(name, stream, 0, 1 << 20)).data if name else b""


def why(bench: Bench, one: Ended) -> str:
    return bench.archive.why_missing(one.run_id, one.item, one.attempt)


def counts(bench: Bench) -> dict[str, int]:
    return {str(outcome): number for outcome, number in bench.archive.state().counts.items() if number}


# ---------------------------------------------------------------------------------------------------- which logs


def test_ended_attempt_is_archived_with_both_streams(bench: Bench) -> None:
    one = ended()
    bench.end(one)
    assert why(bench, one) == "it waits to be archived"
    bench.run()
    assert (text_of(bench, one), text_of(bench, one, "stderr")) == (b"done\n", b"oops\n")
    assert bench.archive.find_task(one.task_id) == one.name
    state = bench.archive.state()
    assert (state.waiting, state.logs, state.copied, state.problem) == (0, 1, 10, "")
    assert counts(bench) == {"archived": 1}


def test_only_traces_of_ends_are_taken(bench: Bench) -> None:
    for trace in (make_attempt(ended=False, state="RUNNING"), object(), make_attempt(state="NOT_STARTED")):
        bench.archive.publish(trace)
    assert bench.archive.state().waiting == 0
    bench.archive.publish(make_attempt())
    assert bench.archive.state().waiting == 1


def test_only_attempts_that_did_not_succeed_are_archived_on_request(bench: Bench) -> None:
    bench.options = replace(bench.options, which="failed")
    bench.lead().fill([], {})
    attempts = {end: ended(number, state=end) for number, end in enumerate(End)}
    bench.end(*attempts.values())
    bench.run()
    kept = {end for end, one in attempts.items() if text_of(bench, one)}
    assert kept == {End.FAILED, End.KILLED, End.LOST, End.REPLACED}
    assert "only attempts that did not succeed" in why(bench, attempts[End.SUCCEEDED])


def test_attempt_without_output_has_no_log(bench: Bench) -> None:
    silent, empty = ended(0), ended(1)
    bench.archive._offer(silent)
    bench.end(empty, output=b"")
    bench.agents.write(empty.task_id, b"")
    bench.run()
    assert counts(bench) == {"no_output": 2}
    assert not any(call == "put" and name != "mark.json" for call, name in bench.store.calls)
    assert "no output" in why(bench, silent)


def test_long_stream_keeps_its_beginning_and_its_end(bench: Bench) -> None:
    bench.options = replace(bench.options, stream_bytes=100)
    bench.lead().fill([], {})
    one, data = ended(), bytes(range(250)) * 2
    bench.end(one, output=data)
    bench.run()
    name = bench.archive.find(one.run_id, one.item, one.attempt)

    def read(offset: int) -> Piece:
        return asyncio.run(bench.archive.read(name, "stdout", offset, 1_000))

    assert read(0)[:3] == (data[:50], 0, 500)
    assert read(50)[:3] == (data[450:], 450, 500)
    assert read(-10)[:3] == (data[490:], 490, 500)
    assert bench.archive.state().copied == 105


def test_earlier_executors_are_searched_only_if_the_executor_may_have_ended(bench: Bench) -> None:
    for number, state in enumerate(("SUCCEEDED", "LOST")):
        bench.end(ended(number, state=state))
    bench.run()
    late = ended(2)
    bench.end(late)
    bench.seconds += 61
    bench.run()
    earlier = {task: flag for task, _, flag in bench.agents.asked}
    assert [earlier[ended(number).task_id] for number in range(3)] == [False, True, True]


# ---------------------------------------------------------------------------------------------------- retention


def test_logs_over_the_limit_are_deleted_from_the_store(bench: Bench) -> None:
    bench.options = replace(bench.options, limits=Limits(logs=2, age_ms=3_600_000))
    bench.lead().fill([], {})
    attempts = [ended(number) for number in range(4)]
    for one in attempts:
        bench.end(one)
        bench.run()
    bench.seconds += 61
    bench.run()
    assert bench.store.names() == {one.name for one in attempts[2:]}
    assert "was deleted" in why(bench, attempts[0])
    bench.seconds += 3_700
    bench.run()
    assert bench.store.names() == set()


def test_failed_deletion_is_repeated(bench: Bench) -> None:
    bench.options = replace(bench.options, limits=Limits(logs=1))
    bench.lead().fill([], {})
    bench.end(ended(0), ended(1))
    bench.store.broken = {"delete"}
    bench.run()
    bench.seconds += 61
    bench.run()
    assert "delete failed" in bench.archive.state().problem
    bench.store.broken = set()
    bench.seconds += 61
    bench.run()
    assert len(bench.store.names()) == bench.archive.state().logs == 1


# ---------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize("call", ["prepare", "list", "open", "put"])
def test_logs_wait_while_the_store_is_away(bench: Bench, call: str) -> None:
    bench.lead().fill([], {})
    bench.store.broken = {call}
    one = ended()
    bench.end(one)
    for _ in range(5):
        bench.run()
        bench.seconds += 100
    state = bench.archive.state()
    assert (state.waiting, state.logs) == (1, 0)
    assert f"{call} failed" in state.problem
    assert state.failures == 5, "it waits between two attempts"
    (warning,) = bench.archive.warnings()
    assert "1 logs wait" in warning
    bench.store.broken = set()
    bench.seconds += 100
    bench.run()
    assert text_of(bench, one) == b"done\n"
    assert bench.archive.warnings() == ()


def test_waits_for_a_store_that_is_away_become_longer(bench: Bench) -> None:
    bench.store.broken = {"put"}
    bench.end(ended())
    calls = []
    for second in range(200):
        bench.seconds += 1
        before = bench.archive.state().failures
        bench.run(5)
        if bench.archive.state().failures > before:
            calls.append(second)
    waits = [after - before for before, after in pairwise(calls)]
    assert waits == sorted(waits)
    assert waits[-1] == 60


def test_full_backlog_drops_and_counts(bench: Bench) -> None:
    bench.options = replace(bench.options, queue=2)
    bench.lead().fill([], {})
    bench.store.broken = {"put"}
    attempts = [ended(number) for number in range(5)]
    bench.end(*attempts)
    bench.end(attempts[0])
    assert counts(bench) == {"queue_full": 3}
    assert "too many" in why(bench, attempts[4])
    assert any("3 logs were not archived" in warning for warning in bench.archive.warnings())


def test_silent_agent_delays_no_other_agent(bench: Bench) -> None:
    dead = [ended(number)._replace(agent_id="dead") for number in range(20)]
    alive = [ended(number) for number in range(20, 40)]
    bench.agents.silent = {"dead"}
    bench.end(*dead, *alive)
    bench.run(60)
    assert counts(bench) == {"archived": 20}
    assert Counter(task for task, _, _ in bench.agents.asked)[dead[0].task_id] == 1
    assert sum(one.task_id == task for task, _, _ in bench.agents.asked for one in dead) == 1, "one asks for all"
    bench.agents.silent = set()
    bench.seconds += 10
    bench.run()
    assert counts(bench) == {"archived": 40}


def test_attempt_is_given_up_if_its_agent_stays_silent(bench: Bench) -> None:
    bench.agents.silent = {"agent-1"}
    one = ended()
    bench.end(one)
    for _ in range(30):
        bench.run()
        bench.seconds += 300
    assert counts(bench) == {"agent_away": 1}
    assert bench.archive.state().waiting == 0
    assert len(bench.agents.asked) < 20
    assert "agent did not answer" in why(bench, one)


def test_unexpected_error_costs_one_log(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        bench.agents.before_read = lambda: None
        raise RuntimeError("a bug")

    bench.agents.before_read = fail
    bench.end(ended(0), ended(1))
    bench.run()
    assert counts(bench) == {"archived": 1, "failed": 1}
    assert "a log cannot be archived" in caplog.text


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"format":2,"handledMs":1}', b'{"format":1,"handledMs":"x"}', b"\xff"]
)
def test_unreadable_mark_is_told_and_left_alone(bench: Bench, content: bytes) -> None:
    bench.store.put("mark.json", content)
    bench.lead().fill([], {})
    bench.run()
    assert "mark.json" in bench.archive.state().problem
    with bench.store.open("mark.json") as file:
        assert file.read() == content


# ---------------------------------------------------------------------------------------------------- fail-over


class Life:
    """A core whose job fails twice and then succeeds. Its attempts end at known instants."""

    def __init__(self) -> None:
        self.desk = Desk(make_app(), make_job(retry_count=3), policy=TRACED)
        self.attempts: list[Ended] = []

    def play(self, bench: Bench, *, heard: bool) -> None:
        """Play the attempts. The archive hears of their ends, if it is told."""
        desk = self.desk
        desk.do(Trigger(desk.at, "report"))
        for number, state in enumerate(("TASK_FAILED", "TASK_FAILED", "TASK_FINISHED")):
            (launch,) = desk.launched(desk.offer(make_offer(f"o{number}")))
            desk.status(launch.task_id, "TASK_RUNNING")
            desk.at += 1_000
            bench.agents.write(launch.task_id, f"attempt {number}".encode())
            done = len(desk.all)
            desk.status(launch.task_id, state)
            for notice in desk.all[done:]:
                if heard:
                    bench.archive.publish(notice)
            desk.at += 600_000

    def hand_over(self, bench: Bench) -> None:
        """Another leader with the state."""
        bench.seconds = max(bench.seconds, (self.desk.at - START) / 1_000)
        core = self.desk.scheduler
        bench.lead().fill(core.firings.values(), core.attempts)


def test_new_leader_archives_attempts_that_ended_before_it_led(bench: Bench) -> None:
    life = Life()
    life.play(bench, heard=False)
    life.hand_over(bench)
    bench.run()
    assert counts(bench) == {"archived": 3}, "earlier attempts of the shard, too"
    puts = [name for call, name in bench.store.calls if call == "put" and name != "mark.json"]
    life.hand_over(bench)
    bench.run()
    assert counts(bench) == {}
    assert [name for call, name in bench.store.calls if call == "put" and name != "mark.json"] == puts, "no double"


@pytest.mark.parametrize("restored", [False, True])
def test_attempt_that_a_restored_state_repeats_replaces_the_log_of_the_lost_one(bench: Bench, restored: bool) -> None:
    """After `jobcloud restore`, an attempt may run again with its number. Its task has another id."""
    lost = ended()
    bench.end(lost, output=b"lost\n")
    bench.run()
    again = lost._replace(task_id=f"{lost.task_id}-again")
    assert bench.archive.find(again.run_id, again.item, again.attempt, again.task_id) == ""
    bench.agents.write(again.task_id, b"again\n")
    bench.archive._offer(again, restored=restored)
    bench.run()
    assert text_of(bench, again) == b"again\n"
    assert bench.archive.find(again.run_id, again.item, again.attempt, again.task_id) == again.name
    assert bench.archive.find_task(lost.task_id) == ""
    assert bench.store.names() == {again.name}


def test_first_leader_with_an_archive_leaves_the_past_alone(tmp_path: Path, bench: Bench) -> None:
    bench.store.inner = DirectoryStore(tmp_path / "other", "root")
    life = Life()
    life.play(bench, heard=False)
    bench.seconds = 1e6
    life.hand_over(bench)
    bench.run()
    assert counts(bench) == {}


def test_mark_moves_only_past_attempts_that_are_archived(bench: Bench) -> None:
    def mark() -> int:
        with bench.store.open("mark.json") as file:
            found: int = json.load(file)["handledMs"]
            return found

    one = ended()._replace(agent_id="dead")
    bench.agents.silent = {"dead"}
    bench.end(one)
    bench.seconds = 1_000
    bench.run()
    assert mark() == one.ended_ms
    bench.agents.silent = set()
    bench.seconds = 2_000
    bench.run()
    bench.seconds = 3_000
    bench.run()
    assert mark() == bench.now_ms()


class _Crash(BaseException):
    """Stands for the death of the process."""


class CrashingStore(FaultyStore):
    """Dies at the n-th call: before it, or after it has taken effect."""

    left, after = -1, False

    def _dies(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise _Crash

    def _called(self, call: str, name: str = "") -> None:
        super()._called(call, name)
        if not self.after:
            self._dies()

    def put(self, name: str, content: bytes) -> None:
        super().put(name, content)
        if self.after:
            self._dies()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", range(1, 14))
def test_crash_at_any_call_of_the_store_loses_and_doubles_no_log(tmp_path: Path, step: int, after: bool) -> None:
    store = CrashingStore(DirectoryStore(tmp_path / "archive", "root"))
    bench = Bench(store, FakeAgents(), ArchiveOptions(tmp_path / "archive", "test", threads=0))
    bench.archive.fill([], {})
    bench.run()  # the mark of the first leader
    life = Life()
    store.left, store.after = step, after
    try:
        life.play(bench, heard=True)
        bench.run()
        bench.seconds = 1_000
        bench.run()
        life.hand_over(bench)
        bench.run()
    except _Crash:
        pass
    store.left = -1
    life.hand_over(bench)
    bench.run()
    assert len(store.names()) == bench.archive.state().logs == 3
    puts = Counter(name for call, name in store.calls if call == "put" and name != "mark.json")
    assert sum(puts.values()) <= 4, "only the log that was being stored may be stored again"


# ---------------------------------------------------------------------------------------------------- reads


def test_deleted_log_is_missing_and_forgotten(bench: Bench) -> None:
    one = ended()
    bench.end(one)
    bench.run()
    name = bench.archive.find(one.run_id, one.item, one.attempt)
    bench.store.inner.delete([name])
    with pytest.raises(NotFound):
        asyncio.run(bench.archive.read(name, "stdout", 0, 10))
    assert bench.archive.find(one.run_id, one.item, one.attempt) == ""


def test_store_that_is_away_is_told_to_readers(bench: Bench) -> None:
    one = ended()
    bench.end(one)
    bench.run()
    bench.store.broken = {"open"}
    with pytest.raises(Unavailable, match="open failed"):
        asyncio.run(bench.archive.read(one.name, "stdout", 0, 10))
    assert bench.archive.find(one.run_id, one.item, one.attempt) == one.name


def test_damaged_log_is_told_to_readers(bench: Bench) -> None:
    one = ended()
    bench.end(one)
    bench.run()
    bench.store.inner.put(one.name, b"damaged")
    with pytest.raises(Unavailable, match="damaged"):
        asyncio.run(bench.archive.read(one.name, "stdout", 0, 10))


def test_reads_of_a_hanging_store_are_given_up_and_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def hang(name: str) -> BinaryIO:
        released.wait(60)
        raise Away("never mind")

    async def read() -> str:
        with pytest.raises(Unavailable) as error:
            await bench.archive.read(ended().name, "stdout", 0, 10)
        return error.value.problem

    async def read_until_refused() -> None:
        while "did not answer" in await read():
            pass
        assert "too many readers" in await read()
        released.set()

    monkeypatch.setattr(service, "_READ_S", 0.02)
    monkeypatch.setattr(bench.store, "open", hang)
    asyncio.run(read_until_refused())


def test_hanging_store_delays_neither_publish_nor_stop(tmp_path: Path) -> None:
    entered, released = threading.Event(), threading.Event()

    class Hanging(FaultyStore):
        def prepare(self) -> None:
            entered.set()
            released.wait(60)
            raise Away("never mind")

    agents = FakeAgents()
    store = Hanging(DirectoryStore(tmp_path, "root"))
    archive = Archive(ArchiveOptions(tmp_path, "test"), lambda: agents, lambda: START, store=store)
    archive.fill([], {})
    assert entered.wait(60)
    for number in range(100):
        archive.publish(make_attempt(number, run=f"r{number}"))
    assert archive.state().waiting == 100
    assert archive.find("r", 0, 1) == ""
    archive.stop(timeout=0.01)
    released.set()
    archive.stop(timeout=60)


def test_threads_copy_what_ends(tmp_path: Path) -> None:
    agents = FakeAgents()
    archive = Archive(ArchiveOptions(tmp_path / "a", "test", threads=4), lambda: agents, lambda: START)
    archive.fill([], {})
    traces = [make_attempt(number, run=f"r{number}") for number in range(50)]
    for trace in traces:
        agents.write(trace.task.id, b"text")
        archive.publish(trace)
    archived = threading.Event()
    while archive.state().counts["archived"] < 50:
        archived.wait(0.01)
    archive.stop()
    assert archive.state().logs == 50
