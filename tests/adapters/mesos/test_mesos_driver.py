# ruff: noqa: SIM117 - the master first, then what talks to it
"""The Mesos driver against a scripted master.

The tests p01 … p19 cover the faults of pymesos 0.3.15 that docs/mesos.md lists by these numbers.
"""

from __future__ import annotations

import base64
import gc
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip(
    "jobcloud.adapters.mesos.driver", reason="the extra [server] with compat/http-parser is not installed"
)

from tests.mesos_kit import (
    AGENT,
    FRAMEWORK,
    FakeMaster,
    Json,
    Receiver,
    Running,
    Stream,
    accept_all,
    frame,
    offer,
    offers,
    settings,
    subscribe_with,
    subscribed,
    until,
    update,
)

from jobcloud.adapters.mesos import driver as mesos_driver
from jobcloud.adapters.mesos import link as mesos_link
from jobcloud.adapters.mesos.driver import MesosDriver, MesosSettings
from jobcloud.adapters.mesos.hardened import Backoff, End
from jobcloud.adapters.mesos.link import Address, CallLine, Dialer, Session
from jobcloud.errors import ConfigError, NotConnected
from jobcloud.messages import (
    Accept,
    AcceptInverseOffers,
    Acknowledge,
    AgentLost,
    Decline,
    DeclineInverseOffers,
    Disconnected,
    ExecutorLost,
    FrameworkRemoved,
    InverseOffersReceived,
    Kill,
    Launch,
    OfferRescinded,
    OffersReceived,
    Reconcile,
    Resubscribe,
    Revive,
    SendFailed,
    ShutdownExecutor,
    StatusReceived,
    Subscribed,
    Suppress,
)
from jobcloud.model import Executor, InverseOffer, Share, Window
from jobcloud.ports import TlsFiles

ACCEPT = Accept(
    AGENT,
    ("offer-1",),
    (Launch("task-1", "job", (Share("cpus", 500),), Executor("ex-1", AGENT, "app", (), '{"command":{}}'), b"{}"),),
)


@pytest.fixture
def master() -> Iterator[FakeMaster]:
    with FakeMaster() as one:
        yield one


# ------------------------------------------------------------------------------------------------------- subscribing


def test_subscription_contains_the_settings(master: FakeMaster) -> None:
    more: dict[str, Any] = {"roles": ("a", "b"), "hostname": "here", "webui_url": "http://here/", "principal": "me"}
    with Running(master.address, framework_id="", **more) as running:
        event = running.wait(Subscribed)
        assert (event.framework_id, event.master) == (FRAMEWORK, master.address)
        assert abs(event.at - time.time() * 1000) < 60_000
    info = master.stream().call["subscribe"]["framework_info"]
    assert info["roles"] == ["a", "b"]
    assert {key: info[key] for key in ("hostname", "webui_url", "principal", "user", "name")} == {
        "hostname": "here",
        "webui_url": "http://here/",
        "principal": "me",
        "user": "nobody",
        "name": "jobcloud",
    }
    assert "framework_id" not in master.stream().call
    assert "id" not in info


def unchangeable(field: str, kept: str) -> Callable[[Stream], None]:
    """The behaviour of Mesos 1.11 if a field of a known framework has changed."""
    text = f"Updating 'FrameworkInfo.{field}' is unsupported; attempted to update from '{kept}' to 'x'"
    return lambda stream: stream.answer("400 Bad Request", f"FrameworkInfo update is not valid: {text}".encode())


@pytest.mark.parametrize(
    ("field", "kept", "told"),
    [("user", "root", "mesos.user: is 'nobody', but Mesos"), ("checkpoint", "false", "mesos.checkpoint: is 'true', ")],
)
def test_known_framework_with_another_identity_is_refused_before_any_event(field: str, kept: str, told: str) -> None:
    with FakeMaster(on_update=unchangeable(field, kept)) as master:
        with Running(master.address, framework_id=FRAMEWORK) as running:
            until(lambda: running.refusals)
        (refusal,) = running.refusals
        assert told in str(refusal)
        assert f"framework {FRAMEWORK} with '{kept}'" in str(refusal)
        assert "jobcloud framework teardown" in refusal.fix
        assert running.receiver.events == []
        assert len(master.streams) == 1  # it does not subscribe again
        (asked,) = master.updates
        assert asked.headers["Mesos-Stream-Id"] == master.streams[0].id
        assert asked.call["update_framework"]["framework_info"] == master.streams[0].call["subscribe"]["framework_info"]


def test_changed_principal_of_a_known_framework_is_refused() -> None:
    error = {"type": "ERROR", "error": {"message": "Changing framework's principal is not allowed."}}
    with FakeMaster(on_subscribe=subscribe_with(error)) as master:
        with Running(master.address, framework_id=FRAMEWORK, principal="me") as running:
            until(lambda: running.refusals)
        assert str(running.refusals[0]).startswith("mesos.principal: is 'me', but Mesos has registered")
        assert running.receiver.events == []
        assert len(master.streams) == 1


@pytest.mark.parametrize("answer", ["500 Internal Server Error", "307 Temporary Redirect", "503 Service Unavailable"])
def test_subscription_begins_again_if_the_identity_is_not_compared(answer: str) -> None:
    def begin(stream: Stream) -> None:
        stream.answer(answer if stream.number < 2 else "200 OK")

    with FakeMaster(on_update=begin) as master, Running(master.address, framework_id=FRAMEWORK) as running:
        running.wait(Subscribed)
        assert len(master.streams) == 3
        assert running.refusals == []


@pytest.mark.parametrize("answer", ["400 Bad Request", "403 Forbidden", "501 Not Implemented"])
def test_master_that_does_not_compare_the_identity_is_subscribed(answer: str, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(stream: Stream) -> None:
        stream.answer(answer, b"Failed to validate scheduler::Call: Expecting 'type' to be present")

    with FakeMaster(on_update=refuse) as master, Running(master.address, framework_id=FRAMEWORK) as running:
        running.wait(Subscribed)
        assert "did not compare this framework" in caplog.text
        assert len(master.streams) == 1


def test_identity_is_compared_once_for_a_known_framework_only() -> None:
    with FakeMaster() as master, Running(master.address) as running:
        running.wait(Subscribed)
        master.stream().close()
        running.wait(Subscribed, 2)
        assert master.updates == []


def test_known_framework_id_is_used_to_subscribe(master: FakeMaster) -> None:
    with Running(master.address, framework_id=FRAMEWORK) as running:
        running.wait(Subscribed)
        master.stream().close()
        running.wait(Subscribed, 2)
    for number in (0, 1):
        call = master.stream(number).call
        assert call["framework_id"] == call["subscribe"]["framework_info"]["id"] == {"value": FRAMEWORK}


def test_events_are_delivered_in_order_as_our_values(master: FakeMaster) -> None:
    with Running(master.address) as running:
        master.stream().send(
            offers(offer(1), offer(2)),
            {"type": "RESCIND", "rescind": {"offer_id": {"value": "offer-1"}}},
            update(message="well"),
            {"type": "FAILURE", "failure": {"agent_id": {"value": AGENT}, "executor_id": {"value": "ex-1"}}},
            {"type": "FAILURE", "failure": {"agent_id": {"value": AGENT}}},
        )
        running.wait(AgentLost)
        kinds = [type(event) for event in running.receiver.events]
        assert kinds == [Subscribed, OffersReceived, OfferRescinded, StatusReceived, ExecutorLost, AgentLost]
        assert [one.id for one in running.wait(OffersReceived).offers] == ["offer-1", "offer-2"]
        assert running.wait(OfferRescinded).offer_id == "offer-1"
        status = running.wait(StatusReceived).status
        assert (status.task_id, status.agent_id, status.state) == ("task-1", AGENT, "TASK_RUNNING")
        assert (running.wait(ExecutorLost).executor_id, running.wait(AgentLost).agent_id) == ("ex-1", AGENT)


def test_end_of_the_stream_is_delivered_once_with_its_reason(master: FakeMaster) -> None:
    with Running(master.address) as running:
        running.wait(Subscribed)
        master.stream().raw(b"0\r\n\r\n")
        assert "closed" in running.wait(Disconnected).reason
        running.wait(Subscribed, 2)
    assert len(running.receiver.all(Disconnected)) == 1


def test_latest_framework_id_of_the_master_is_used(master: FakeMaster) -> None:
    with Running(master.address, framework_id="old") as running:
        assert running.wait(Subscribed).framework_id == FRAMEWORK
        running.driver.send(Revive())
        assert master.call().call["framework_id"] == {"value": FRAMEWORK}


# ------------------------------------------------------------------------------------------------------------- calls


def test_calls_reach_the_master_in_order_on_one_separate_connection(master: FakeMaster) -> None:
    sent = (
        ACCEPT,
        Decline(("offer-2", "offer-3"), 5500),
        Kill("task-1", AGENT),
        ShutdownExecutor("ex-1", AGENT),
        Reconcile((("task-1", AGENT), ("task-2", ""))),
        Reconcile(),
        Suppress(),
        Revive(),
        Acknowledge("task-1", AGENT, "dXVpZA=="),
    )
    with Running(master.address) as running:
        running.wait(Subscribed)
        for call in sent:
            running.driver.send(call)
        master.call(len(sent) - 1)
    kinds = ["ACCEPT", "DECLINE", "KILL", "SHUTDOWN", "RECONCILE", "RECONCILE", "SUPPRESS", "REVIVE", "ACKNOWLEDGE"]
    assert master.kinds == kinds
    assert len({id(one.connection) for one in master.calls}) == 1
    assert {one.headers["Mesos-Stream-Id"] for one in master.calls} == {"stream-0"}
    assert all(one.call["framework_id"] == {"value": FRAMEWORK} for one in master.calls)
    bodies = [one.call.get(one.call["type"].lower()) for one in master.calls]
    assert bodies[1] == {
        "offer_ids": [{"value": "offer-2"}, {"value": "offer-3"}],
        "filters": {"refuse_seconds": 5.5},
    }
    assert bodies[3] == {"executor_id": {"value": "ex-1"}, "agent_id": {"value": AGENT}}
    assert bodies[8] == {"task_id": {"value": "task-1"}, "agent_id": {"value": AGENT}, "uuid": "dXVpZA=="}
    assert running.receiver.all(SendFailed) == []


def test_accept_launches_all_tasks_and_gets_the_remainder_back_at_once(master: FakeMaster) -> None:
    with Running(master.address) as running:
        running.wait(Subscribed)
        running.driver.send(ACCEPT)
        accept = master.call().call["accept"]
    assert accept["offer_ids"] == [{"value": "offer-1"}]
    assert accept["filters"] == {"refuse_seconds": 0.0}
    (operation,) = accept["operations"]
    assert operation["type"] == "LAUNCH"
    (task,) = operation["launch"]["task_infos"]
    assert task["executor"]["framework_id"] == {"value": FRAMEWORK}


def test_inverse_offers_are_delivered_and_answered(master: FakeMaster) -> None:
    with Running(master.address) as running:
        start = {"start": {"nanoseconds": 5 * 10**9}}
        inverse = {"id": {"value": "inverse-1"}, "agent_id": {"value": AGENT}, "unavailability": start}
        endless = {**inverse, "id": {"value": "inverse-2"}, "unavailability": {}}  # malformed
        master.stream().send({"type": "INVERSE_OFFERS", "inverse_offers": {"inverse_offers": [endless, inverse]}})
        received = running.wait(InverseOffersReceived)
        assert received.inverse_offers == (InverseOffer("inverse-1", AGENT, Window(5_000)),)
        running.driver.send(AcceptInverseOffers(("inverse-1",), 60_000))
        running.driver.send(DeclineInverseOffers(("inverse-2",), 500))
        yes, no = master.call(0).call, master.call(1).call
    assert yes["type"] == "ACCEPT_INVERSE_OFFERS"
    body = {"inverse_offer_ids": [{"value": "inverse-1"}], "filters": {"refuse_seconds": 60.0}}
    assert yes["accept_inverse_offers"] == body
    assert no["type"] == "DECLINE_INVERSE_OFFERS"
    body = {"inverse_offer_ids": [{"value": "inverse-2"}], "filters": {"refuse_seconds": 0.5}}
    assert no["decline_inverse_offers"] == body


@pytest.mark.parametrize(
    ("status", "certain"),
    [
        ("400 Bad Request", True),
        ("401 Unauthorized", True),
        ("403 Forbidden", True),
        ("307 Temporary Redirect", True),
        ("503 Service Unavailable", True),
        ("500 Internal Server Error", False),
    ],
)
def test_refused_call_is_returned_with_the_text_of_the_master(master: FakeMaster, status: str, certain: bool) -> None:
    master.on_call = lambda stream: stream.answer(status, b"because of this")
    with Running(master.address) as running:
        running.wait(Subscribed)
        running.driver.send(ACCEPT)
        failed = running.wait(SendFailed)
        assert (failed.call, failed.certain) == (ACCEPT, certain)
        assert "because of this" in failed.reason
        master.on_call = lambda stream: stream.answer("202 Accepted")
        running.driver.send(Revive())
        master.call(1)
    assert running.receiver.all(Disconnected) == []


def test_call_that_was_refused_for_its_size_is_returned_as_too_large(master: FakeMaster) -> None:
    answers = iter(("413 Request Entity Too Large", "400 Bad Request"))
    master.on_call = lambda stream: stream.answer(next(answers), b"no")
    with Running(master.address) as running:
        running.wait(Subscribed)
        running.driver.send(ACCEPT)
        failed = running.wait(SendFailed)
        assert (failed.call, failed.certain, failed.too_large) == (ACCEPT, True, True)
        running.driver.send(ACCEPT)
        assert not running.wait(SendFailed, 2).too_large


def test_calls_are_encoded_only_until_enough_bytes_wait_to_be_sent(
    master: FakeMaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mesos_link, "_MAX_WAITING_BYTES", 100_000)
    unsent: list[int] = []
    add = CallLine.add

    def watch(line: CallLine, call: bytes, stream_id: str) -> None:
        add(line, call, stream_id)
        unsent.append(sum(map(len, line._waiting)))

    monkeypatch.setattr(CallLine, "add", watch)
    large = ACCEPT.launches[0]
    large = Launch(large.task_id, large.name, large.shares, large.executor, b"x" * 30_000)
    with Running(master.address) as running:
        running.wait(Subscribed)
        for _ in range(30):
            running.driver.send(Accept(AGENT, ("offer-1",), (large,)))
        master.call(29)
    assert len(unsent) == 30
    assert max(unsent) < 100_000 + 41_000


def test_call_without_an_answer_on_a_lost_connection_is_uncertain_and_not_repeated(
    master: FakeMaster,
) -> None:
    master.on_call = lambda stream: stream.close()
    with Running(master.address) as running:
        running.wait(Subscribed)
        running.driver.send(ACCEPT)
        assert not running.wait(SendFailed).certain
        master.on_call = lambda stream: stream.answer("202 Accepted")
        running.driver.send(Revive())
        master.call(1)
    assert master.kinds == ["ACCEPT", "REVIVE"]


def test_call_without_an_answer_in_time_is_uncertain_and_ends_the_session(master: FakeMaster) -> None:
    master.on_call = lambda stream: None
    with Running(master.address, answer_timeout_s=0.5) as running:
        running.wait(Subscribed)
        running.driver.send(ACCEPT)
        running.driver.send(Kill("task-1", AGENT))
        assert not running.wait(SendFailed).certain
        after = running.wait(SendFailed, 2)
        assert isinstance(after.call, Kill)
        assert after.certain
        assert "not answered" in running.wait(Disconnected).reason
        running.wait(Subscribed, 2)
    assert master.kinds == ["ACCEPT"]


def test_idle_connection_closed_by_the_master_is_replaced_before_the_next_call(master: FakeMaster) -> None:
    def answer_and_close(stream: Stream) -> None:
        stream.answer("202 Accepted")
        stream.close()

    master.on_call = answer_and_close
    with Running(master.address) as running:
        running.wait(Subscribed)
        running.driver.send(Revive())
        closed = master.call().connection
        until(lambda: closed.fileno() < 0)
        running.driver.send(Suppress())
        master.call(1)
    assert running.receiver.all(SendFailed) == []


def test_lost_acknowledgement_is_dropped_because_mesos_resends_the_update(master: FakeMaster) -> None:
    master.on_call = lambda stream: stream.answer("400 Bad Request")
    with Running(master.address) as running:
        running.wait(Subscribed)
        running.driver.send(Acknowledge("task-1", AGENT, "dXVpZA=="))
        running.driver.send(Kill("task-1", AGENT))
        assert isinstance(running.wait(SendFailed).call, Kill)
    assert master.kinds == ["ACKNOWLEDGE", "KILL"]


def test_calls_queued_in_a_session_are_never_sent_in_a_later_one(master: FakeMaster) -> None:
    held = threading.Event()

    def hold(stream: Stream) -> None:
        held.wait(10)
        stream.answer("202 Accepted")

    master.on_call = hold
    with Running(master.address) as running:
        running.wait(Subscribed)
        running.driver.send(Revive())
        master.call()
        running.driver.send(ACCEPT)
        master.stream(0).close()
        running.wait(Subscribed, 2)
        held.set()
        running.driver.send(Suppress())
        failed = next(one for one in (running.wait(SendFailed), running.wait(SendFailed, 2)) if one.call == ACCEPT)
        assert failed.certain
        until(lambda: "SUPPRESS" in master.kinds)
    assert "ACCEPT" not in master.kinds
    assert master.calls[-1].headers["Mesos-Stream-Id"] == "stream-1"


def test_calls_beyond_the_queue_limit_are_returned(master: FakeMaster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesos_driver, "MAX_WAITING_CALLS", 3)
    held = threading.Event()

    def hold(stream: Stream) -> None:
        held.wait(10)
        stream.answer("202 Accepted")

    master.on_call = hold
    with Running(master.address) as running:
        running.wait(Subscribed)
        for number in range(10):
            running.driver.send(Kill(f"task-{number}", AGENT))
        master.call()
        held.set()
        failed = running.wait(SendFailed)
        assert failed.certain
        assert "calls are waiting" in failed.reason
        master.call(3)


def test_launch_that_cannot_be_encoded_is_returned_and_affects_no_other(master: FakeMaster) -> None:
    broken = Executor("ex-1", AGENT, "app", (), "no json")
    with Running(master.address) as running:
        running.wait(Subscribed)
        call = Accept(AGENT, ("offer-1",), (Launch("task-1", "job", (), broken, b""),))
        running.driver.send(call)
        running.driver.send(Revive())
        failed = running.wait(SendFailed)
        assert (failed.call, failed.certain) == (call, True)
        assert "ex-1" in failed.reason
        master.call()
    assert master.kinds == ["REVIVE"]


# -------------------------------------------------------------------------------------------------- stop and teardown


def test_stop_sends_queued_calls_and_keeps_the_framework(master: FakeMaster) -> None:
    with Running(master.address) as running:
        running.wait(Subscribed)
        for number in range(20):
            running.driver.send(Kill(f"task-{number}", AGENT))
    running.driver.stop()
    assert master.kinds == ["KILL"] * 20
    assert len(master.streams) == 1
    assert running.receiver.all(Disconnected) == []


def test_stop_ends_in_time_while_the_master_hangs(master: FakeMaster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesos_driver, "_STOP_S", 1.0)
    master.on_call = lambda stream: None
    with Running(master.address, answer_timeout_s=60.0) as running:
        running.wait(Subscribed)
        running.driver.send(Revive())
        master.call()
        began = time.monotonic()
        running.driver.stop()
        assert time.monotonic() - began < 15
    names = {thread.name for thread in threading.enumerate()}
    until(lambda: "mesos-calls" not in {thread.name for thread in threading.enumerate()}, str(names))


def test_stop_works_inside_an_event_and_before_start(master: FakeMaster) -> None:
    MesosDriver(settings(master.address)).stop()
    done = threading.Event()

    class Stopper(Receiver):
        def __call__(self, event: Any) -> None:
            super().__call__(event)
            running.driver.stop()
            done.set()

    running = Running(master.address, Stopper())
    with running:
        assert done.wait(10)


def test_teardown_alone_removes_the_framework_and_prevents_new_subscriptions(master: FakeMaster) -> None:
    with Running(master.address) as running:
        running.wait(Subscribed)

        def end(stream: Stream) -> None:
            master.stream().close()
            time.sleep(0.05)
            stream.answer("202 Accepted")

        master.on_call = end
        running.driver.teardown()
        running.wait(Disconnected)
        assert running.receiver.all(FrameworkRemoved) == []
        master.on_call = lambda stream: stream.answer("202 Accepted")
        time.sleep(0.2)
        assert len(master.streams) == 1
        running.driver.send(Resubscribe())
        assert "framework_id" not in master.stream(1).call
    assert master.kinds == ["TEARDOWN"]


def test_refused_teardown_raises_and_the_driver_continues(master: FakeMaster) -> None:
    master.on_call = lambda stream: stream.answer("403 Forbidden", b"not yours")
    with Running(master.address) as running:
        running.wait(Subscribed)
        with pytest.raises(NotConnected, match="not yours"):
            running.driver.teardown()
        master.stream().close()
        running.wait(Subscribed, 2)


def test_teardown_without_a_master_raises() -> None:
    with FakeMaster(on_subscribe=lambda stream: None) as master, Running(master.address) as running:
        with pytest.raises(NotConnected):
            running.driver.teardown()
    with pytest.raises(NotConnected):
        running.driver.teardown()


# ------------------------------------------------------------------------------------------ the faults of pymesos: P


@pytest.mark.parametrize("kind", [Subscribed, OffersReceived, StatusReceived, Disconnected])
def test_p01_exception_in_the_receiver_does_not_remove_the_framework(master: FakeMaster, kind: type) -> None:
    with Running(master.address, Receiver(kind)) as running:
        stream = master.stream()
        stream.send(offers(offer()), update(), {"type": "FAILURE", "failure": {"agent_id": {"value": AGENT}}})
        running.wait(AgentLost)
        stream.close()
        running.wait(Subscribed, 2)
        running.driver.send(Revive())
        master.call()
    assert master.kinds == ["REVIVE"]


def test_p01_exception_for_a_failed_call_does_not_affect_later_calls(master: FakeMaster) -> None:
    master.on_call = lambda stream: stream.answer("400 Bad Request")
    with Running(master.address, Receiver(SendFailed)) as running:
        running.wait(Subscribed)
        running.driver.send(Revive())
        running.driver.send(Suppress())
        running.wait(SendFailed, 2)
    assert master.kinds == ["REVIVE", "SUPPRESS"]


@pytest.mark.parametrize(
    "event",
    [
        {"type": "UPDATE", "update": {}},
        {"type": "UPDATE"},
        {"type": "OFFERS", "offers": {"offers": [{"id": 5}, None, offer(7)]}},
        {"type": "OFFERS", "offers": []},
        {"type": "FAILURE", "failure": {}},
        {"type": "MESSAGE", "message": {"data": 1}},
        {"type": "EVENT", "event": {"type": "CLOSE"}},
        {"type": "CLOSE", "close": {}},
        {"type": "SOMETHING_NEW", "something_new": {}},
        {"type": 5},
        {"type": None},
        ["no object"],
        "text",
        None,
    ],
)
def test_p01_malformed_event_is_only_dropped(master: FakeMaster, event: object) -> None:
    with Running(master.address) as running:
        master.stream().send(event, update())
        running.wait(StatusReceived)
        read = [one.id for received in running.receiver.all(OffersReceived) for one in received.offers]
        assert read in ([], ["offer-7"])
    assert running.receiver.all(Disconnected) == []
    assert len(master.streams) == 1


def test_p02_failed_acknowledgement_is_dropped_and_none_is_implicit(master: FakeMaster) -> None:
    master.on_call = lambda stream: stream.answer("503 Service Unavailable")
    with Running(master.address) as running:
        master.stream().send(update())
        running.wait(StatusReceived)
        assert master.calls == []
        running.driver.send(Acknowledge("task-1", AGENT, "dXVpZA=="))
        master.call()
        master.stream().send(update("task-2"))
        running.wait(StatusReceived, 2)
    assert master.kinds == ["ACKNOWLEDGE"]


def _error(message: str) -> Json:
    return {"type": "ERROR", "error": {"message": message}}


@pytest.mark.parametrize(
    "behaviour",
    [
        lambda stream: stream.answer("503 Service Unavailable"),
        lambda stream: stream.answer("500 Internal Server Error", b"what"),
        lambda stream: stream.close(),
        lambda stream: (stream.begin().send(_error("Invalid role")), stream.close()),
        lambda stream: (stream.begin().send(subscribed()), stream.close()),
        lambda stream: (stream.begin().raw(b"0\r\n\r\n"), stream.close()),
    ],
    ids=["503", "500", "closed", "ERROR", "closed after SUBSCRIBED", "empty"],
)
def test_p03_failed_attempts_never_cause_a_busy_loop(behaviour: Any) -> None:
    with FakeMaster(on_subscribe=behaviour) as master:
        began = time.monotonic()
        with Running(master.address, backoff_first_s=0.1, backoff_max_s=15.0) as running:
            master.stream(3)
            # The waits are at least 0.05, 0.1 and 0.2 s, on a loaded machine longer.
            assert time.monotonic() - began >= 0.35
        subscriptions = len(running.receiver.all(Subscribed))
        # The stop may have ended the last one.
        assert len(running.receiver.all(Disconnected)) in (subscriptions, max(subscriptions - 1, 0))


def test_p03_waits_double_up_to_fifteen_seconds_with_jitter() -> None:
    backoff = Backoff(0.25, 15.0, 60.0)
    waits = [backoff.next(End.LOST) for _ in range(5000)]
    for number, wait in enumerate(waits[:6]):
        assert 0.125 * 2**number <= wait <= 0.25 * 2**number
    assert 7.5 <= min(waits[10:]) < max(waits[10:]) <= 15.0
    assert len(set(waits[10:])) > 100
    assert 30 <= backoff.next(End.REFUSED) <= 60
    backoff.reset()
    assert backoff.next(End.REDIRECTED) == 0
    assert backoff.next(End.REDIRECTED) > 0


def test_p04_stream_without_heartbeats_is_ended() -> None:
    with FakeMaster(on_subscribe=subscribe_with(subscribed(heartbeat_s=0.05))) as master:
        with Running(master.address) as running:
            assert "no heartbeat for 0.25 s" in running.wait(Disconnected).reason
            running.wait(Subscribed, 2)


def test_p04_heartbeats_keep_a_stream_alive() -> None:
    with FakeMaster(on_subscribe=subscribe_with(subscribed(heartbeat_s=0.4))) as master:
        with Running(master.address) as running:
            running.wait(Subscribed)
            # For longer than the limit of 2 s.
            for _ in range(25):
                master.stream().send({"type": "HEARTBEAT"})
                time.sleep(0.1)
        assert running.receiver.all(Disconnected) == []


def test_p04_slow_receiver_does_not_count_as_silence_of_the_master() -> None:
    class Slow(Receiver):
        def __call__(self, event: Any) -> None:
            super().__call__(event)
            if isinstance(event, OffersReceived):
                time.sleep(2.5)

    # The limit is 2 s. The update arrives while the receiver is busy for longer.
    with FakeMaster(on_subscribe=subscribe_with(subscribed(heartbeat_s=0.4))) as master:
        with Running(master.address, Slow()) as running:
            master.stream().send(offers(offer()))
            running.wait(OffersReceived)
            master.stream().send(update())
            running.wait(StatusReceived)
        assert len(master.streams) == 1


def test_p04_master_that_never_answers_subscribe_is_given_up() -> None:
    with FakeMaster(on_subscribe=lambda stream: None) as master, Running(master.address, answer_timeout_s=0.1):
        master.stream(2)


def test_p04_master_that_never_sends_subscribed_is_given_up() -> None:
    def mute(stream: Stream) -> None:
        stream.begin()

    with FakeMaster(on_subscribe=mute) as master, Running(master.address, answer_timeout_s=0.1) as running:
        master.stream(2)
    assert running.receiver.events == []


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_p05_refused_credentials_are_retried_slowly_and_logged(status: str, caplog: pytest.LogCaptureFixture) -> None:
    def refuse_twice(stream: Stream) -> None:
        if stream.number < 2:
            # A truncated body, which causes a TypeError in pymesos.
            stream.raw(f"HTTP/1.1 {status}\r\nContent-Length: 1000\r\n\r\nnot you".encode())
            stream.close()
        else:
            accept_all(stream)

    with FakeMaster(on_subscribe=refuse_twice) as master, Running(master.address) as running:
        running.wait(Subscribed)
    assert "check principal" in caplog.text


def test_p06_unresolvable_name_is_retried(monkeypatch: pytest.MonkeyPatch, master: FakeMaster) -> None:
    real = socket.getaddrinfo
    asked = []

    def resolve(host: str, *rest: Any, **more: Any) -> Any:
        if host != "mesos.example":
            return real(host, *rest, **more)
        asked.append(host)
        if len(asked) < 4:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real("127.0.0.1", *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with Running(f"mesos.example:{master.port}") as running:
        running.wait(Subscribed)
    assert len(asked) >= 4


@pytest.mark.parametrize(
    "error", [OSError(101, "Network is unreachable"), UnicodeError("label too long"), ValueError()]
)
def test_p06_every_error_of_connecting_is_survived(
    monkeypatch: pytest.MonkeyPatch, master: FakeMaster, error: Exception
) -> None:
    real = socket.create_connection
    tried = []

    def connect(*rest: Any, **more: Any) -> Any:
        tried.append(1)
        if len(tried) < 4:
            raise error
        return real(*rest, **more)

    monkeypatch.setattr(socket, "create_connection", connect)
    with Running(master.address) as running:
        running.wait(Subscribed)


def test_p06_refused_connections_are_retried_with_the_next_master_of_the_list(master: FakeMaster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with Running(f"127.0.0.1:{port}, {master.address}") as running:
        assert running.wait(Subscribed).master == master.address


def test_p07_descriptors_above_1023_work(master: FakeMaster) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1200:
        pytest.skip(f"the limit on open files is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    gc.collect()
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1030)]
    try:
        with Running(master.address) as running:
            running.wait(Subscribed)
            running.driver.send(Revive())
            running.driver.send(Suppress())
            master.call(1)
            session = running.driver._driver.session
            assert session is not None
            connection = session._calls._connection
            assert session._socket is not None
            assert connection is not None
            assert session._socket.fileno() > 1023
            assert connection.sock.fileno() > 1023
            assert running.receiver.all(SendFailed) == []
    finally:
        for one in held:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_p08_calls_while_disconnected_are_returned() -> None:
    calls = (
        ACCEPT,
        Decline(("o",), 0),
        Kill("t", AGENT),
        Reconcile(),
        Revive(),
        Suppress(),
        ShutdownExecutor("e", AGENT),
    )
    with FakeMaster(on_subscribe=lambda stream: None) as master, Running(master.address) as running:
        for call in calls:
            running.driver.send(call)
        running.wait(SendFailed, len(calls))
    failed = running.receiver.all(SendFailed)
    assert [one.call for one in failed] == list(calls)
    assert all(one.certain and "not connected" in one.reason for one in failed)


def test_p08_pymesos_own_calls_raise_without_a_session() -> None:
    driver = MesosDriver(settings("127.0.0.1:1"))._driver
    for call in (driver.reviveOffers, driver.suppressOffers, lambda: driver.killTask({"value": "t"})):
        with pytest.raises(NotConnected):
            call()


def test_p09_reconciliation_carries_agent_ids(master: FakeMaster) -> None:
    with Running(master.address) as running:
        running.wait(Subscribed)
        running.driver.send(Reconcile((("task-1", AGENT), ("task-2", ""))))
        tasks = master.call().call["reconcile"]["tasks"]
    assert tasks == [{"task_id": {"value": "task-1"}, "agent_id": {"value": AGENT}}, {"task_id": {"value": "task-2"}}]


def test_p10_kill_carries_the_agent_id(master: FakeMaster) -> None:
    with Running(master.address) as running:
        running.wait(Subscribed)
        running.driver.send(Kill("task-1", AGENT))
        kill = master.call().call["kill"]
    assert kill == {"task_id": {"value": "task-1"}, "agent_id": {"value": AGENT}}


def test_p11_capabilities_and_failover_timeout_are_as_configured(master: FakeMaster) -> None:
    with Running(master.address, gpus=False) as without, Running(master.address) as with_gpus:
        without.wait(Subscribed)
        with_gpus.wait(Subscribed)
    infos = [one.call["subscribe"]["framework_info"] for one in master.streams]
    named = [{one["type"] for one in info["capabilities"]} for info in infos]
    base = {"MULTI_ROLE", "PARTITION_AWARE", "RESERVATION_REFINEMENT", "TASK_KILLING_STATE"}
    assert sorted(named, key=len) == [base, base | {"GPU_RESOURCES"}]
    assert all((info["failover_timeout"], info["checkpoint"]) == (604_800.0, True) for info in infos)


@pytest.mark.parametrize("info", [*({"version": one} for one in ("1.12.0-rc1", "", "banana", 5, None)), {}, 5, None])
def test_p12_version_of_the_master_is_ignored(info: object) -> None:
    event = subscribed()
    event["subscribed"]["master_info"] = info
    with FakeMaster(on_subscribe=subscribe_with(event)) as master:
        with Running(master.address) as running:
            master.stream().send(offers(offer()))
            running.wait(OffersReceived)


def test_p13_drivers_do_not_share_credentials_or_stream_ids() -> None:
    with FakeMaster() as one, FakeMaster() as other:
        with Running(one.address, principal="me", secret="sösecret:x") as known, Running(other.address) as unknown:
            for running in (known, unknown):
                running.wait(Subscribed)
                running.driver.send(Revive())
            token = base64.b64encode("me:sösecret:x".encode()).decode()
            for seen in (one.stream(), one.call()):
                assert seen.headers["Authorization"] == f"Basic {token}"
            for seen in (other.stream(), other.call()):
                assert "Authorization" not in seen.headers
            assert "Mesos-Stream-Id" not in other.stream().headers


def test_p13_secret_is_not_shown() -> None:
    assert "hidden" not in repr(MesosSettings("a:1", principal="me", secret="hidden", zookeeper_auth="u:hidden"))


def test_p14_slow_call_delays_neither_events_nor_senders(master: FakeMaster) -> None:
    held = threading.Event()

    def hold(stream: Stream) -> None:
        held.wait(10)
        stream.answer("202 Accepted")

    master.on_call = hold
    with Running(master.address) as running:
        running.wait(Subscribed)
        running.driver.send(Revive())
        master.call()
        master.stream().send(update())
        running.wait(StatusReceived)
        running.driver.send(Suppress())
        assert master.kinds == ["REVIVE"]
        held.set()
        master.call(1)


def test_p15_ipv6_works() -> None:
    try:
        master = FakeMaster(family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 on loopback here")
    with master, Running(master.address) as running:
        assert running.wait(Subscribed).master == master.address
        running.driver.send(Revive())
        assert master.call().headers["Host"] == master.address


@pytest.mark.parametrize(
    "garbage",
    [
        b"hello\nworld",
        b"-5\n",
        b"99999999999999999999\n",
        b"9999999999\n",
        b"5 \nhello",
        b"\n\n\n",
        b"\xff\xfe\x00" * 10,
    ],
)
def test_p16_stream_that_is_not_recordio_is_ended_and_subscribed_again(garbage: bytes) -> None:
    def begin(stream: Stream) -> None:
        accept_all(stream)
        if stream.number == 0:
            stream.chunk(garbage)

    with FakeMaster(on_subscribe=begin) as master, Running(master.address) as running:
        running.wait(Disconnected)
        running.wait(Subscribed, 2)
        master.stream(1).send(update())
        running.wait(StatusReceived)


@pytest.mark.parametrize("record", [b"", b"{{{{", b"\xff\xfe\xfd", b'{"type":"UPDATE","update":' + b"[" * 100_000])
def test_p16_record_that_is_not_json_costs_this_record_alone(record: bytes) -> None:
    def begin(stream: Stream) -> None:
        accept_all(stream)
        stream.chunk(b"%d\n%s" % (len(record), record))
        stream.send(update())

    with FakeMaster(on_subscribe=begin) as master, Running(master.address) as running:
        running.wait(StatusReceived)
        assert not running.receiver.all(Disconnected)


def test_p16_first_record_that_is_not_json_ends_the_session() -> None:
    def begin(stream: Stream) -> None:
        if stream.number == 0:
            stream.begin().chunk(b"4\n{{{{")
        else:
            accept_all(stream)

    with FakeMaster(on_subscribe=begin) as master, Running(master.address) as running:
        running.wait(Subscribed)


def test_p16_events_before_malformed_chunks_are_delivered() -> None:
    def begin(stream: Stream) -> None:
        accept_all(stream)
        if stream.number == 0:
            stream.raw(b"".join(b"%x\r\n%s\r\n" % (len(one), one) for one in [frame(update())] * 3) + b"no length\r\n")

    with FakeMaster(on_subscribe=begin) as master, Running(master.address) as running:
        running.wait(StatusReceived, 3)
        assert "malformed" in running.wait(Disconnected).reason
        running.wait(Subscribed, 2)


def test_p16_trickling_record_does_not_keep_the_stream_alive() -> None:
    def trickle(stream: Stream) -> None:
        stream.begin().send(subscribed(heartbeat_s=0.05))
        stream.chunk(b"1000000\n")
        while stream.number == 0:
            stream.chunk(frame({"type": "HEARTBEAT"}))
            time.sleep(0.02)

    with FakeMaster(on_subscribe=trickle) as master, Running(master.address) as running:
        assert "no heartbeat" in running.wait(Disconnected).reason


@pytest.mark.parametrize("garbage", [b"RTSP/1.0 200\r\n\r\n", b"\x00" * 100, b"HTTP/1.1 200 OK\r\n" + b"a" * 70_000])
def test_p16_answer_that_is_not_http_is_survived(garbage: bytes) -> None:
    def begin(stream: Stream) -> None:
        if stream.number:
            accept_all(stream)
        else:
            stream.raw(garbage)
            stream.close()

    with FakeMaster(on_subscribe=begin) as master, Running(master.address) as running:
        running.wait(Subscribed)


def test_p16_records_may_be_split_anywhere(master: FakeMaster) -> None:
    with Running(master.address) as running:
        whole = frame(update("täsk-1")) + frame(update("task-2"))
        for byte in whole:
            master.stream().chunk(bytes([byte]))
        running.wait(StatusReceived, 2)
        assert [one.status.task_id for one in running.receiver.all(StatusReceived)] == ["täsk-1", "task-2"]


def test_p16_offers_event_of_fifteen_megabytes_arrives(master: FakeMaster) -> None:
    count = 5000
    many = [offer(n, f"agent-{n}", attributes=[_text("rack", "x" * 2500)]) for n in range(count)]
    data = frame(offers(*many))
    assert len(data) > 14 << 20
    with Running(master.address) as running:
        stream = master.stream()
        for start in range(0, len(data), 1 << 20):
            stream.chunk(data[start : start + (1 << 20)])
        assert len(running.wait(OffersReceived).offers) == count


def _text(name: str, value: str) -> Json:
    return {"name": name, "type": "TEXT", "text": {"value": value}}


_IMPORT = """
import logging, signal, threading
before = signal.getsignal(signal.SIGINT)
problems = []
def load():
    try:
        import jobcloud.adapters.mesos.driver
    except BaseException as error:
        problems.append(error)
{how}
assert not problems, problems
assert signal.getsignal(signal.SIGINT) is before
assert logging.getLogger("pymesos").handlers == []
assert logging.getLogger("pymesos").level == logging.NOTSET
assert signal.signal.__module__ == "signal"
"""


@pytest.mark.parametrize(
    "how", ["load()", "thread = threading.Thread(target=load); thread.start(); thread.join()"], ids=["main", "thread"]
)
def test_p17_import_does_not_change_signals_or_logging_on_any_thread(how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _IMPORT.format(how=how)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_descriptors_do_not_leak_over_many_sessions(master: FakeMaster) -> None:
    def twice(stream: Stream) -> None:
        accept_all(stream)
        if stream.number < 30:
            until(lambda: len(running.receiver.all(Subscribed)) > stream.number)
            running.driver.send(Revive())
            until(lambda: len(master.calls) > stream.number)
            stream.close()

    master.on_subscribe = twice
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    running = Running(master.address)
    with running:
        running.wait(Subscribed, 31)
        until(lambda: len(os.listdir("/proc/self/fd")) <= before + 8, "descriptors given back")


# ------------------------------------------------------------------------------------- redirects, errors, replacement


def test_redirect_is_followed_at_once(master: FakeMaster) -> None:
    to = f"Location: //{master.address}/api/v1/scheduler"
    with FakeMaster(on_subscribe=lambda stream: stream.answer("307 Temporary Redirect", b"", to)) as follower:
        with Running(follower.address, backoff_first_s=30.0, backoff_max_s=30.0) as running:
            assert running.wait(Subscribed).master == master.address
            running.driver.send(Revive())
            master.call()
    assert follower.calls == []


def redirect_to(master: FakeMaster) -> Callable[[Stream], None]:
    to = f"Location: http://{master.address}/api/v1/scheduler"
    return lambda stream: stream.answer("307 Temporary Redirect", b"", to)


def test_masters_that_redirect_in_a_circle_are_retried_with_growing_waits() -> None:
    with FakeMaster() as one, FakeMaster() as other:
        for here, there in ((one, other), (other, one)):
            here.on_subscribe = redirect_to(there)
        began = time.monotonic()
        with Running(one.address, backoff_first_s=0.1, backoff_max_s=0.5) as running:
            one.stream(2)
            # The first redirect is followed at once. The next waits are at least 0.1, 0.2 and 0.25 s.
            assert time.monotonic() - began >= 0.55
            other.on_subscribe = one.on_subscribe = accept_all
            running.wait(Subscribed)


@pytest.mark.parametrize(
    "location", ["Location: ", "Location: //", "Location: //:::/x", "Location: //a:99999/", "X: y"]
)
def test_invalid_redirect_is_survived(location: str) -> None:
    def begin(stream: Stream) -> None:
        if stream.number < 2:
            stream.answer("307 Temporary Redirect", b"", location)
        else:
            accept_all(stream)

    with FakeMaster(on_subscribe=begin) as master, Running(master.address) as running:
        running.wait(Subscribed)


@pytest.mark.parametrize("message", ["Framework has been removed", "Completed framework attempted to re-subscribe"])
def test_removed_framework_is_reported_and_subscribes_only_as_a_new_one(message: str) -> None:
    def begin(stream: Stream) -> None:
        if "framework_id" in stream.call:
            stream.begin().send(_error(message))
            stream.close()
        else:
            stream.begin().send(subscribed("framework-2"))

    with FakeMaster(on_subscribe=begin) as master, Running(master.address, framework_id="removed") as running:
        assert running.wait(FrameworkRemoved).reason == message
        time.sleep(0.3)
        assert len(master.streams) == 1
        running.driver.send(Resubscribe())
        assert running.wait(Subscribed).framework_id == "framework-2"
    assert running.receiver.all(Disconnected) == []


def test_framework_removed_while_subscribed_ends_the_session(master: FakeMaster) -> None:
    with Running(master.address) as running:
        running.wait(Subscribed)
        master.stream().send(_error("Framework has been removed"))
        running.wait(Disconnected)
        kinds = [type(event) for event in running.receiver.events]
        assert kinds == [Subscribed, FrameworkRemoved, Disconnected]
        running.driver.send(Kill("task-1", AGENT))
        assert running.wait(SendFailed).certain
        running.driver.send(Resubscribe())
        running.wait(Subscribed, 2)
        assert "framework_id" not in master.stream(1).call


def test_receiver_may_resubscribe_inside_the_event(master: FakeMaster) -> None:
    class Eager(Receiver):
        def __call__(self, event: Any) -> None:
            super().__call__(event)
            if isinstance(event, FrameworkRemoved):
                running.driver.send(Resubscribe())

    running = Running(master.address, Eager(), framework_id="removed")
    with running:
        running.wait(Subscribed)
        master.stream().send(_error("Framework has been removed"))
        running.wait(Subscribed, 2)
    assert "framework_id" not in master.stream(1).call


def test_replaced_scheduler_does_not_replace_its_successor(master: FakeMaster) -> None:
    with Running(master.address, refused_retry_s=60.0) as running:
        running.wait(Subscribed)
        master.stream().send(_error("Framework failed over"))
        assert "failed over" in running.wait(Disconnected).reason
        time.sleep(0.3)
        assert len(master.streams) == 1
    assert running.receiver.all(FrameworkRemoved) == []


def test_events_before_subscribed_are_ignored(master: FakeMaster) -> None:
    master.on_subscribe = subscribe_with(update("early"), subscribed(), update("late"))
    with Running(master.address) as running:
        assert running.wait(StatusReceived).status.task_id == "late"


@pytest.mark.parametrize("heartbeat_s", [0, -1, 1e12, 0.0, None])
def test_p04_absurd_heartbeat_interval_is_limited(heartbeat_s: float | None) -> None:
    with FakeMaster(on_subscribe=subscribe_with(subscribed(heartbeat_s=heartbeat_s))) as master:
        with Running(master.address) as running:
            master.stream().send(update())
            running.wait(StatusReceived)
            session = running.driver._driver.session
            assert session is not None
            assert 75 <= session.silence_limit_s <= 5 * 3600


@pytest.mark.parametrize("info", [{}, {"framework_id": {}}, {"framework_id": {"value": 7}}, None, 5])
def test_malformed_subscribed_event_is_not_a_subscription(info: object) -> None:
    def begin(stream: Stream) -> None:
        if stream.number:
            accept_all(stream)
        else:
            stream.begin().send({"type": "SUBSCRIBED", "subscribed": info})

    with FakeMaster(on_subscribe=begin) as master, Running(master.address) as running:
        running.wait(Subscribed)
        assert len(master.streams) == 2


def test_subscribed_event_after_the_end_of_its_session_is_ignored() -> None:
    driver = MesosDriver(settings("127.0.0.1:1"))._driver
    driver._attempt = Session(Address("127.0.0.1", 1), Dialer())
    driver.framework_id = "old"
    driver.renew()
    driver.on_subscribed(subscribed("old")["subscribed"])
    assert [driver.framework_id, driver.session] == [None, None]


def test_second_subscribed_event_is_delivered(master: FakeMaster) -> None:
    with Running(master.address) as running:
        master.stream().send(subscribed("framework-9"))
        assert running.wait(Subscribed, 2).framework_id == "framework-9"


def test_events_are_dated_by_the_given_clock(master: FakeMaster) -> None:
    """Not by the clock of the machine, which may have jumped ahead."""
    receiver = Receiver()
    driver = MesosDriver(settings(master.address), now_ms=lambda: 5)
    driver.start(receiver, "")
    try:
        assert receiver.wait(Subscribed).at == 5
    finally:
        driver.stop()


# ---------------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"master": ""}, "mesos.master"),
        ({"master": "http://a:5050"}, "mesos.master"),
        ({"master": "a:b"}, "mesos.master"),
        ({"master": "a:70000"}, "mesos.master"),
        ({"master": "a:5050,,b"}, "mesos.master"),
        ({"master": "me:secret@a:5050"}, "mesos.master"),
        ({"master": "::1"}, "mesos.master"),
        ({"master": "zk://"}, "mesos.master"),
        ({"master": "zk://a:2181"}, "mesos.master"),
        ({"master": "zk://a,,b/mesos"}, "mesos.master"),
        ({"master": "zk://user:pass@a:2181/mesos"}, "mesos.master"),
        ({"roles": ()}, "mesos.roles"),
        ({"roles": ("",)}, "mesos.roles"),
        ({"secret": "x"}, "mesos.principal"),
        ({"principal": "a:b", "secret": "x"}, "mesos.principal"),
        ({"tls": TlsFiles(ca_file="/nowhere.pem")}, "mesos.tls.ca_file"),
        ({"tls": TlsFiles(cert_file="/nowhere.pem")}, "mesos.tls.cert_file"),
    ],
)
def test_wrong_setting_is_refused_by_name(change: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as refused:
        MesosDriver(MesosSettings(**{"master": "a:5050", **change}))
    assert refused.value.field == field
    assert refused.value.fix
    assert "pass" not in str(refused.value) or "password" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("a", Address("a", 5050)),
        ("a:1", Address("a", 1)),
        ("[::1]", Address("::1", 5050)),
        ("[::1]:7", Address("::1", 7)),
        ("//a:1/path", Address("a", 1)),
        ("http://a:1/path", Address("a", 1)),
    ],
)
def test_addresses_are_parsed(text: str, address: Address) -> None:
    assert Address.parse(text) == address
    assert Address.parse(str(address)) == address
