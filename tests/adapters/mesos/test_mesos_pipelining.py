"""Pipelined calls: order, limits, and the outcome of each call when the connection breaks between two answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

pytest.importorskip(
    "jobcloud.adapters.mesos.driver", reason="the extra [server] with compat/http-parser is not installed"
)

from tests.mesos_kit import AGENT, FakeMaster, Running, Stream, until

from jobcloud.adapters.mesos import driver as mesos_driver
from jobcloud.adapters.mesos.link import Address, CallFailed, CallLine, CallUnanswered, Dialer
from jobcloud.messages import Acknowledge, Disconnected, Kill, Revive, SendFailed, Subscribed

COUNT = 40


@contextmanager
def pipelined(
    master: FakeMaster, then: Callable[[Running, list[Stream]], None], count: int = COUNT
) -> Iterator[Running]:
    """A driver whose first call is answered. The next `count` calls arrive without an answer; then `then` is called."""

    def on_call(stream: Stream) -> None:
        if stream.number == 0:
            stream.answer("202 Accepted")
        elif stream.number == count:
            then(running, master.calls[1:])
        elif stream.number > count:
            stream.answer("202 Accepted")

    master.on_call = on_call
    with Running(master.address) as running:
        running.wait(Subscribed)
        running.driver.send(Revive())
        master.call(0)
        for number in range(count):
            running.driver.send(Kill(f"task-{number}", AGENT))
        until(lambda: len(master.calls) > count, f"{count} calls at once; there were {len(master.calls)}")
        yield running


def accept(_: Running, streams: list[Stream]) -> None:
    for stream in streams:
        stream.answer("202 Accepted")


def failures(running: Running) -> dict[str, SendFailed]:
    return {one.call.task_id: one for one in running.receiver.all(SendFailed) if isinstance(one.call, Kill)}


def tasks(master: FakeMaster) -> list[str]:
    return [one.call["kill"]["task_id"]["value"] for one in master.calls if one.call["type"] == "KILL"]


def test_calls_are_sent_in_order_without_waiting_for_answers() -> None:
    with FakeMaster() as master:
        with pipelined(master, accept) as running:
            running.driver.send(Kill("last", AGENT))
            until(lambda: "last" in tasks(master))
        assert tasks(master) == [*(f"task-{number}" for number in range(COUNT)), "last"]
        assert len({id(one.connection) for one in master.calls}) == 1
        assert running.receiver.all(SendFailed) == []


def test_each_answer_belongs_to_its_own_call() -> None:
    def refuse_some(_: Running, streams: list[Stream]) -> None:
        for number, stream in enumerate(streams):
            status = {3: "400 Bad Request", 5: "500 Internal Server Error"}.get(number, "202 Accepted")
            stream.answer(status, f"as for {number}".encode())

    with FakeMaster() as master:
        with pipelined(master, refuse_some) as running:
            running.wait(SendFailed, 2)
            running.driver.send(Kill("last", AGENT))
            until(lambda: "last" in tasks(master))
        failed = failures(running)
        assert {task: (one.certain, one.reason) for task, one in failed.items()} == {
            "task-3": (True, "HTTP 400: as for 3"),
            "task-5": (False, "HTTP 500: as for 5"),
        }
        assert running.receiver.all(Disconnected) == []


@pytest.mark.parametrize("answered", [0, 1, 17, COUNT - 1])
@pytest.mark.parametrize("end", ["close", "reset", "garbage", "cut"])
def test_connection_lost_between_two_answers_makes_only_unanswered_calls_uncertain(answered: int, end: str) -> None:
    def cut(running: Running, streams: list[Stream]) -> None:
        accept(running, streams[:answered])
        connection = streams[0].connection
        if end == "garbage":
            connection.sendall(b"What do you mean?\r\n\r\n")
        elif end == "cut":
            connection.sendall(b"HTTP/1.1 202 Acc")
        if end == "reset":
            # A reset discards answers that have not been read.
            until(lambda: len(running.driver._in_flight) <= COUNT - answered)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()
        else:
            streams[0].close()

    with FakeMaster() as master:
        with pipelined(master, cut) as running:
            until(lambda: len(failures(running)) == COUNT - answered)
            running.driver.send(Kill("after", AGENT))
            until(lambda: "after" in tasks(master))
        failed = failures(running)
        assert list(failed) == [f"task-{number}" for number in range(answered, COUNT)]
        assert not any(one.certain for one in failed.values())
        # No call is repeated, and the session continues.
        assert tasks(master) == [*(f"task-{number}" for number in range(COUNT)), "after"]
        assert master.calls[-1].connection is not master.calls[0].connection
        assert running.receiver.all(Disconnected) == []


def test_lost_acknowledgements_are_dropped_and_other_calls_of_the_connection_are_returned() -> None:
    with FakeMaster() as master:
        master.on_call = lambda stream: stream.answer("202 Accepted") if stream.number == 0 else None
        with Running(master.address) as running:
            running.wait(Subscribed)
            running.driver.send(Revive())
            master.call(0)
            for number in range(10):
                running.driver.send(Acknowledge(f"task-{number}", AGENT, "dXVpZA=="))
            running.driver.send(Kill("task", AGENT))
            master.call(11).close()
            failed = running.wait(SendFailed)
            assert (failed.call, failed.certain) == (Kill("task", AGENT), False)
        assert len(running.receiver.all(SendFailed)) == 1


def test_number_of_calls_in_flight_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesos_driver, "_MAX_IN_FLIGHT", 5)
    seen = []

    def on_call(stream: Stream) -> None:
        # One call at a time is read here. The others wait in the socket or at the sender.
        seen.append(len(running.driver._in_flight))
        stream.answer("202 Accepted")

    with FakeMaster(on_call=on_call) as master:
        with Running(master.address) as running:
            running.wait(Subscribed)
            for number in range(100):
                running.driver.send(Kill(f"task-{number}", AGENT))
            master.call(99)
        assert max(seen) <= 5
        assert running.receiver.all(SendFailed) == []


def test_master_that_closes_after_each_answer_gets_one_call_at_a_time() -> None:
    def on_call(stream: Stream) -> None:
        stream.answer("202 Accepted", b"", "Connection: close")
        stream.close()

    with FakeMaster(on_call=on_call) as master:
        with Running(master.address) as running:
            running.wait(Subscribed)
            for number in range(20):
                running.driver.send(Kill(f"task-{number}", AGENT))
            master.call(19)
        assert tasks(master) == [f"task-{number}" for number in range(20)]
        assert running.receiver.all(SendFailed) == []


def test_calls_without_answers_are_all_uncertain_and_end_the_session() -> None:
    with FakeMaster() as master:
        master.on_call = lambda stream: stream.answer("202 Accepted") if stream.number == 0 else None
        with Running(master.address, answer_timeout_s=0.3) as running:
            running.wait(Subscribed)
            running.driver.send(Revive())
            master.call(0)
            for number in range(10):
                running.driver.send(Kill(f"task-{number}", AGENT))
            running.wait(SendFailed, 10)
            assert not any(one.certain for task, one in failures(running).items() if task in tasks(master))
            assert "not answered" in running.wait(Disconnected).reason
            running.wait(Subscribed, 2)


def test_calls_in_flight_at_the_end_of_the_stream_get_their_answers() -> None:
    def end_and_answer(running: Running, streams: list[Stream]) -> None:
        master.stream(0).close()
        until(lambda: running.driver._driver.session is None)
        accept(running, streams)

    with FakeMaster() as master:
        with pipelined(master, end_and_answer) as running:
            running.wait(Subscribed, 2)
            until(lambda: not running.driver._in_flight)
        assert [one for one in running.receiver.all(SendFailed) if not one.certain] == []


# ----------------------------------------------------------------------------------------- the connection for calls


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def line_to(listener: socket.socket, timeout_s: float = 30.0) -> CallLine:
    return CallLine(Address(*listener.getsockname()), Dialer(timeout_s=timeout_s))


def test_truncated_call_fails_certainly_and_calls_before_it_are_uncertain(listener: socket.socket) -> None:
    line = line_to(listener)
    huge = b"x" * (64 << 20)  # more than the socket buffers hold

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
            received = b""
            while b"second" not in received:
                received += connection.recv(1 << 16)

    server = threading.Thread(target=serve)
    server.start()
    line.add(b"first", "id")
    line.add(b"second", "id")
    line.add(huge, "id")
    line.add(b"fourth", "id")
    assert line.exchange() == [None]
    second, third = line.exchange()
    server.join()
    assert isinstance(second, CallFailed)
    assert not second.certain
    assert isinstance(third, CallFailed)
    assert third.certain
    listener.close()
    (fourth,) = line.exchange()
    assert isinstance(fourth, CallFailed)
    assert fourth.certain
    line.close()


def test_answer_that_ends_with_its_connection_counts(listener: socket.socket) -> None:
    line = line_to(listener)

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\nnot you")

    server = threading.Thread(target=serve)
    server.start()
    line.add(b"call", "id")
    (failed,) = line.exchange()
    server.join()
    assert isinstance(failed, CallFailed)
    assert (failed.reason, failed.certain) == ("HTTP 403: not you", True)
    line.close()


def test_interim_and_surplus_answers_belong_to_no_call(listener: socket.socket) -> None:
    line = line_to(listener)
    ok = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"

    def serve() -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" + ok + ok)
                connection.recv(1 << 16)

    server = threading.Thread(target=serve)
    server.start()
    line.add(b"first", "id")
    assert line.exchange() == [None]
    line.add(b"second", "id")
    assert line.exchange() == [None]
    line.close()
    server.join()


def test_unanswered_call_differs_from_a_lost_one(listener: socket.socket) -> None:
    line = line_to(listener, timeout_s=0.1)
    line.add(b"call", "id")
    (failed,) = line.exchange()
    assert isinstance(failed, CallUnanswered)
    assert not failed.certain
    line.close()
