"""Alerts from a dead run to the receiver, and across changes of the leader."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.alert_kit import PATIENCE_S, Receiver, answer, leading, make_channel, run_dead
from tests.api_kit import Health
from tests.core_world import POLICY

from jobcloud.adapters.memory import MemoryServer
from jobcloud.errors import NotFound, Unavailable
from jobcloud.messages import AlertDue, Command, ReportDelivery, ReportProblem
from jobcloud.model import Alert, AlertMessage, Condition
from jobcloud.ports import StoredFault
from jobcloud.scheduler import Policy
from jobcloud.sentences import Told, Words
from jobcloud.server.alerts.channels import Channel, Channels, Heartbeat
from jobcloud.server.alerts.delivery import Result
from jobcloud.server.alerts.service import STORE_PATIENCE_MS, AlertService, Watch, beat

SECRET = base64.b64encode(b"k" * 32).decode()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.close()


@pytest.fixture(autouse=True)
def quiet_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests of the watch call it themselves."""
    monkeypatch.setattr("jobcloud.server.alerts.service._WATCH_S", 3_600.0)


def make_service(*channels: Channel, **options: Any) -> tuple[AlertService, Policy]:
    wanted = Channels.model_construct(channels={each.name: each for each in channels}, heartbeat=None)
    service = AlertService(wanted, "prod", lambda: 1_767_225_600_000, **options)
    return service, replace(
        POLICY, alert_channels=tuple(each.filter for each in channels), alert_wait_ms=0, alert_interval_ms=1
    )


class Channelled:
    """A way to deliver in place of the network. `results` are given one after another, then success."""

    def __init__(self, *results: Result | Exception) -> None:
        self.results = list(results)
        self.got: queue.Queue[tuple[str, AlertMessage]] = queue.Queue()

    def __call__(self, channel: Channel, message_id: str, message: AlertMessage, cluster: str, now_ms: int) -> Result:
        self.got.put((message_id, message))
        result = self.results.pop(0) if self.results else Result()
        if isinstance(result, Exception):
            raise result
        return result

    def take(self) -> tuple[str, AlertMessage]:
        return self.got.get(timeout=PATIENCE_S)


def until(loop: Any, holds: Callable[[Any], bool]) -> None:
    """Ask the scheduler until something holds."""
    for _ in range(2_000):
        if loop.ask(holds):
            return
        threading.Event().wait(0.01)
    raise AssertionError("it does not become true")


def recorded(scheduler: Any) -> bool:
    return bool(scheduler.alerts) and not scheduler.alert_messages


def test_dead_run_reaches_a_signed_webhook(receiver: Receiver) -> None:
    service, policy = make_service(make_channel(url=receiver.url, secret=f"whsec_{SECRET}"))
    with leading(service, policy) as loop:
        run_dead(loop)
        got = receiver.take()
        until(loop, recorded)
    message_id, timestamp = got.headers["webhook-id"], got.headers["webhook-timestamp"]
    signed = hmac.new(b"k" * 32, f"{message_id}.{timestamp}.".encode() + got.body, hashlib.sha256).digest()
    assert got.headers["webhook-signature"] == f"v1,{base64.b64encode(signed).decode()}"
    assert got.json["data"]["cluster"] == "prod"
    (alert,) = got.json["data"]["alerts"]
    assert (alert["condition"], alert["subject"], alert["state"]) == ("run_dead", "report", "open")
    assert receiver.got.empty()


def test_message_is_repeated_with_the_same_id_until_it_is_taken(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobcloud.scheduler.alerts.FIRST_RETRY_MS", 1)
    receiver.answers = [answer(503), answer(429)]
    service, policy = make_service(make_channel(url=receiver.url))
    with leading(service, policy) as loop:
        run_dead(loop)
        got = [receiver.take() for _ in range(3)]
        until(loop, recorded)
    assert len({one.headers["webhook-id"] for one in got}) == 1
    assert len({one.body for one in got}) == 1


def test_message_whose_sending_was_cut_short_is_sent_by_the_next_leader() -> None:
    server, released = MemoryServer(), threading.Event()
    stuck: queue.Queue[str] = queue.Queue()

    def hang(channel: Channel, message_id: str, *_: Any) -> Result:
        stuck.put(message_id)
        released.wait(PATIENCE_S)
        return Result("it came to nothing")

    service, policy = make_service(make_channel(), deliver=hang)
    with leading(service, policy, server) as loop:
        run_dead(loop)
        first = stuck.get(timeout=PATIENCE_S)
    working = Channelled()
    service, policy = make_service(make_channel(), deliver=working)
    with leading(service, policy, server) as loop:
        message_id, message = working.take()
        until(loop, recorded)
    released.set()
    assert message_id == first
    assert [alert.condition for alert in message.alerts] == [Condition.RUN_DEAD]


def test_recorded_message_is_not_sent_again_by_the_next_leader() -> None:
    server, deliver = MemoryServer(), Channelled()
    service, policy = make_service(make_channel(), deliver=deliver)
    with leading(service, policy, server) as loop:
        run_dead(loop)
        deliver.take()
        until(loop, recorded)
    service, policy = make_service(make_channel(), deliver=deliver)
    with leading(service, policy, server) as loop:
        run_dead(loop, "other")
        _, message = deliver.take()
        assert [alert.subject for alert in message.alerts] == ["other"]


class Refusing:
    """A loop that refuses the first commands."""

    def __init__(self, refusals: int = 0, leading: bool = True) -> None:
        self.refusals = refusals
        self.state = Health(leading, leading)
        self.commands: queue.Queue[Command] = queue.Queue()
        self.refused: queue.Queue[Command] = queue.Queue()

    def command(self, make: Callable[[int], Command], timeout: float = 10) -> None:
        if self.refusals:
            self.refusals -= 1
            self.refused.put(make(1))
            raise Unavailable("not now")
        self.commands.put(make(1))

    def health(self) -> Health:
        return self.state


DUE = AlertDue("ops-1-1", AlertMessage("ops", 1, (Alert(Condition.RUN_DEAD, "report", 1, "broke"),)))


def test_message_is_not_sent_again_if_only_its_report_was_refused() -> None:
    deliver, loop = Channelled(), Refusing(refusals=1)
    service, _ = make_service(make_channel(), deliver=deliver)
    service.start(loop)
    service.publish(DUE)
    loop.refused.get(timeout=PATIENCE_S)
    service.publish(DUE)
    assert loop.commands.get(timeout=PATIENCE_S) == ReportDelivery(1, DUE.id)
    assert deliver.got.qsize() == 1
    service.stop()


def test_repeated_request_for_a_message_that_is_being_sent_is_ignored() -> None:
    begun, released, loop = threading.Event(), threading.Event(), Refusing()
    sent: list[str] = []

    def slow(channel: Channel, message_id: str, *_: Any) -> Result:
        sent.append(message_id)
        begun.set()
        released.wait(PATIENCE_S)
        return Result()

    service, _ = make_service(make_channel(), deliver=slow)
    service.start(loop)
    service.publish(DUE)
    assert begun.wait(PATIENCE_S)
    service.publish(DUE)
    released.set()
    loop.commands.get(timeout=PATIENCE_S)
    assert sent == [DUE.id]
    service.stop()


def test_slow_channel_delays_no_other() -> None:
    begun, released, loop = threading.Event(), threading.Event(), Refusing()

    def deliver(channel: Channel, *_: Any) -> Result:
        if channel.name == "slow":
            begun.set()
            released.wait(PATIENCE_S)
        return Result()

    service, _ = make_service(make_channel("slow"), make_channel("ops"), deliver=deliver)
    service.start(loop)
    service.publish(AlertDue("slow-1-1", AlertMessage("slow", 1, DUE.message.alerts)))
    assert begun.wait(PATIENCE_S)
    service.publish(DUE)
    assert loop.commands.get(timeout=PATIENCE_S) == ReportDelivery(1, DUE.id)
    released.set()
    assert loop.commands.get(timeout=PATIENCE_S) == ReportDelivery(1, "slow-1-1")
    service.stop()


def test_scheduler_that_does_not_lead_sends_nothing() -> None:
    deliver, loop = Channelled(), Refusing(leading=False)
    service, _ = make_service(make_channel(), deliver=deliver)
    service.start(loop)
    service.publish(DUE)
    assert service.test("ops") == ""  # the channel's thread has handled the message before
    assert deliver.got.qsize() == 1
    service.stop()


def test_test_message_tells_the_problem_and_needs_no_leader() -> None:
    service, _ = make_service(make_channel(), deliver=Channelled(Result("it answered 404: no such robot")))
    service.start(Refusing(leading=False))
    assert service.test("ops") == "it answered 404: no such robot"
    assert service.test("ops") == ""
    with pytest.raises(NotFound, match="no channel pager"):
        service.test("pager")
    service.stop()


def test_exception_of_a_delivery_ends_no_thread() -> None:
    deliver, loop = Channelled(RuntimeError("a defect")), Refusing()
    service, _ = make_service(make_channel(), deliver=deliver)
    service.start(loop)
    service.publish(DUE)
    deliver.take()
    service.publish(AlertDue("ops-1-2", DUE.message))
    assert loop.commands.get(timeout=PATIENCE_S) == ReportDelivery(1, "ops-1-2")
    service.stop()


# ------------------------------------------------------------------------------------------------- the watch


def test_store_that_does_not_work_is_told_and_its_recovery_too() -> None:
    told: list[tuple[str, AlertMessage]] = []
    now = [1_000_000]
    watch = Watch(lambda message_id, message: told.append((message_id, message)), lambda: now[0])
    away = Health(False, False, "no answer from etcd", since_ms=1_000_000)
    watch.observe_store(away)
    now[0] += STORE_PATIENCE_MS
    watch.observe_store(away)
    watch.observe_store(away)
    watch.observe_store(Health(True, True))
    watch.observe_store(Health(True, True))
    assert [message_id for message_id, _ in told] == ["store-1000000-open", "store-1000000-ended"]
    assert "no answer from etcd" in told[0][1].alerts[0].text
    assert [bool(message.alerts[0].closed_ms) for _, message in told] == [False, True]


def test_change_of_a_problem_is_reported_once_and_again_to_a_new_leader() -> None:
    reported: list[Command] = []
    accepts = [True]

    def command(make: Callable[[int], Command]) -> bool:
        if accepts[0]:
            reported.append(make(7))
        return accepts[0]

    watch = Watch(lambda *_: None, lambda: 7)
    for text in ("", "", "ahead by 1 h", "ahead by 2 h", ""):
        watch.report(Health(True, True), {Condition.CLOCK: text}, command)
    expected = [ReportProblem(7, Condition.CLOCK, text) for text in ("", "ahead by 1 h", "")]
    assert reported == expected
    accepts[0] = False
    watch.report(Health(True, True), {Condition.CLOCK: "ahead"}, command)
    accepts[0] = True
    watch.report(Health(True, True, epoch=2), {Condition.CLOCK: "ahead"}, command)
    assert reported == [*expected, ReportProblem(7, Condition.CLOCK, "ahead")]


def test_message_about_the_store_is_repeated_until_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobcloud.server.alerts.service.FIRST_RETRY_MS", 1)
    deliver = Channelled(Result("away"), Result("away"))
    late = make_channel("late", conditions=["late"])
    service, _ = make_service(make_channel(), late, deliver=deliver)
    service.start(Refusing(leading=False))
    service.tell("store-1-open", AlertMessage("", 1, (Alert(Condition.STORE, "", 1, "away"),)))
    assert [deliver.take()[0] for _ in range(3)] == ["store-1-open-ops"] * 3
    assert service.test("ops") == ""
    assert deliver.got.qsize() == 1
    service.stop()


def test_unreadable_records_are_a_problem_of_the_store() -> None:
    from jobcloud.server.alerts.service import _faults

    assert _faults(Health(True, True)) == ""
    found = _faults(Health(True, True, faults=(StoredFault("job/report", "is damaged"),)))
    assert found == "1 records cannot be read or written, such as job/report: is damaged"
    assert isinstance(found, Told)
    assert found.words == Words("records", {"records": 1, "path": "job/report", "problem": "is damaged"})


def test_several_problems_of_the_clock_are_one_alert_with_the_words_of_the_first() -> None:
    from jobcloud.server.alerts.service import _together

    assert _together([]) == ""
    first, second = Told("it is ahead of db", "clock_ahead", whose="db"), Told("of zk", "clock_ahead", whose="zk")
    assert _together([first]) is first
    both = _together([first, second])
    assert both == "it is ahead of db; of zk"
    assert isinstance(both, Told)
    assert both.words == Words("clock_ahead", {"whose": "db", "others": 1})


def test_heartbeat_calls_its_url(receiver: Receiver) -> None:
    heartbeat = Heartbeat.model_validate({"url": receiver.url, "every": "1s"})
    assert beat(heartbeat) == ""
    assert receiver.take().path == "/hook"
    receiver.answers = [answer(500)]
    assert beat(heartbeat) == "it answered 500"
    receiver.close()
    assert "Refused" in beat(heartbeat)


@pytest.mark.parametrize("well", [True, False])
def test_leader_that_is_not_well_sends_no_heartbeat(receiver: Receiver, well: bool) -> None:
    heartbeat = Heartbeat.model_validate({"url": receiver.url, "every": "1s"})
    service, _ = make_service()
    loop = Refusing()
    loop.state = Health(True, True, "" if well else "the store is away")
    service.start(loop)
    assert service.should_beat() is well
    service.stop()
    assert json.dumps(heartbeat.model_dump(mode="json")).count("hook") == 0
