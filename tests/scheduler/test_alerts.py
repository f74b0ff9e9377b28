"""Alerts: when they open and close, how they become messages, and that a crash loses none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.core_world import POLICY, Desk, copy_of, make_ad_hoc_job, make_app, make_job, make_offer, make_status, of

from jobcloud.config import CatchUp, JobKind
from jobcloud.errors import ConfigError, Conflict, NotFound
from jobcloud.messages import (
    AgentLost,
    AlertDue,
    Kind,
    OffersReceived,
    Publish,
    PutApp,
    PutJob,
    PutSilence,
    RemoveJob,
    RemoveSilence,
    ReportDelivery,
    ReportProblem,
    Retry,
    RunAdHoc,
    Save,
    SetJobEnabled,
    SetPaused,
    StatusReceived,
    Tick,
    Trigger,
)
from jobcloud.model import Alert, AlertMessage, Condition, Silence, alert_key
from jobcloud.ports import MAX_RECORD_BYTES
from jobcloud.scheduler import alerts
from jobcloud.scheduler.state import AlertChannel, Policy
from jobcloud.scheduler.timetable import rfc3339
from jobcloud.sentences import Told, Words
from jobcloud.server.records import encode

OPS = AlertChannel("ops")
ALERTING = replace(POLICY, alert_channels=(OPS,))
WAIT, INTERVAL = POLICY.alert_wait_ms, POLICY.alert_interval_ms
EVERY_MINUTE = "0 * * * * ?"


def make_desk(*objects: Any, policy: Policy = ALERTING) -> Desk:
    return Desk(make_app(), *(objects or (make_job(retry_count=1, retry_delay_ms=100, retry_jitter=0),)), policy=policy)


def end_run(desk: Desk, job: str = "report", state: str = "TASK_FAILED", message: str = "broke") -> None:
    """Trigger the job, and let all attempts of all its shards end in a state."""
    desk.do(Trigger(desk.at, job))
    finish(desk, job, state, message)


def finish(desk: Desk, job: str = "report", state: str = "TASK_FAILED", message: str = "broke") -> None:
    for _ in range(10):
        desk.offer(make_offer(f"o{len(desk.all)}", cpus=64, mem=100_000))
        running = desk.running(job)
        if not running:
            return
        for task_id in running:
            desk.status(task_id, state, message=message)
        desk.at += 1_000
    raise AssertionError("the run does not end")


def known(desk: Desk, condition: Condition, subject: str = "report") -> Alert | None:
    return desk.stored.alerts.get(alert_key(condition, subject))


def sent(desk: Desk, after_ms: int = 0) -> list[AlertDue]:
    """The messages that are to be sent within a time."""
    return of(AlertDue, desk.run_until_idle(after_ms))


def taken(desk: Desk, after_ms: int = 0) -> list[list[str]]:
    """As `sent`, and the channels take the messages. Each alert is given as CONDITION/SUBJECT, + if it is closed."""
    found = list({due.id: due for due in sent(desk, after_ms)}.values())
    for due in found:
        desk.do(ReportDelivery(desk.at, due.id))
    return [
        [alert_key(one.condition, one.subject) + "+" * bool(one.closed_ms) for one in due.message.alerts]
        for due in found
    ]


# ------------------------------------------------------------------------------------------------- dead runs


def test_dead_run_opens_one_alert_in_the_write_of_its_end() -> None:
    desk = make_desk()
    end_run(desk)
    saves = [save for save in of(Save, desk.all) if any(write.kind is Kind.ALERT for write in save.writes)]
    (firing,) = [write for write in saves[0].writes if write.kind is Kind.FIRING]
    assert getattr(firing.record, "ended_ms", 0)
    alert = known(desk, Condition.RUN_DEAD)
    assert alert is not None
    assert alert.text.endswith("1 DEAD; shard 0: broke")
    assert alert.words == Words(
        "run_ended",
        {"run": alert.run, "states": "1 × DEAD", "item": 0, "step": "", "cause": "", "message": "broke"},
    )
    assert (alert.run, alert.untold) == (desk.firings()[0].id, ("ops",))


def test_alerts_gather_and_become_one_message() -> None:
    desk = make_desk(make_job(), make_job("other"))
    end_run(desk)
    end_run(desk, "other")
    assert taken(desk, WAIT) == [["run_failed/report", "run_failed/other"]]
    assert desk.stored.alert_messages == {}
    assert sent(desk, 3_600_000) == []


def test_5000_failed_shards_are_one_alert() -> None:
    desk = Desk(make_app(), make_job(shard_count=5_000), policy=ALERTING)
    desk.do(Trigger(desk.at, "report"))
    desk.offer(*(make_offer(f"o{n}", f"a{n}", cpus=1_100, mem=300_000) for n in range(6)))
    assert len(desk.running()) == 5_000
    writes = []
    # The desk would check all invariants after each event.
    for task_id in desk.running():
        for save in of(Save, desk.scheduler.handle(StatusReceived(desk.at, make_status(task_id, "TASK_FAILED")))):
            writes += [write for write in save.writes if write.kind is Kind.ALERT]
    assert len(writes) == 1
    assert "5000 FAILED" in getattr(writes[0].record, "text", "")


def test_success_closes_the_alert_and_is_told() -> None:
    desk = make_desk()
    end_run(desk)
    assert taken(desk, WAIT) == [["run_dead/report"]]
    end_run(desk, state="TASK_FINISHED")
    assert taken(desk, INTERVAL + WAIT) == [["run_dead/report+"]]
    assert desk.stored.alerts == {}


def test_alert_that_closes_before_its_message_is_told_as_closed() -> None:
    desk = make_desk()
    end_run(desk)
    desk.do(Retry(desk.at, desk.firings()[0].id))
    finish(desk, state="TASK_FINISHED")
    assert taken(desk, WAIT) == [["run_dead/report+"]]


@pytest.mark.parametrize(("history", "told"), [(1, ["run_failed/once~1-1"]), (0, ["run_failed/once~1-1+"])])
def test_failed_ad_hoc_run_is_told_even_if_it_is_forgotten_at_once(history: int, told: list[str]) -> None:
    desk = make_desk(policy=replace(ALERTING, history=history))
    desk.do(RunAdHoc(desk.at, make_ad_hoc_job("once")))
    finish(desk, "once~1-1")
    assert taken(desk, WAIT) == [told]
    # The record of another run takes the place of the first one.
    desk.do(RunAdHoc(desk.at, make_ad_hoc_job("once")))
    (second,) = [job for job in desk.scheduler.ad_hoc if job != "once~1-1"]
    finish(desk, second, "TASK_FINISHED")
    assert taken(desk, INTERVAL) == ([["run_failed/once~1-1+"]] if history else [])
    assert not desk.stored.alerts


def test_further_failure_changes_the_open_alert_and_sends_nothing() -> None:
    desk = make_desk()
    end_run(desk)
    taken(desk, WAIT)
    end_run(desk, message="again")
    alert = known(desk, Condition.RUN_DEAD)
    assert alert is not None
    assert alert.count == 2
    assert not alert.untold
    assert "again" in alert.text
    assert taken(desk, 3_600_000) == []


def test_nothing_is_recorded_without_a_channel() -> None:
    desk = make_desk(policy=POLICY)
    end_run(desk)
    desk.do(ReportProblem(desk.at, Condition.CLOCK, "wrong"))
    desk.do(ReportDelivery(desk.at, "ops-1-1"))
    assert not [write for save in of(Save, desk.all) for write in save.writes if write.kind is Kind.ALERT]
    with pytest.raises(Conflict, match="no channel"):
        desk.do(PutSilence(desk.at, "s", Silence(desk.at, desk.at + 1)))


# ------------------------------------------------------------------------------------------------- messages


def test_message_that_was_not_taken_is_sent_again_with_its_id() -> None:
    desk = make_desk()
    end_run(desk)
    (first,) = sent(desk, WAIT)
    desk.do(ReportDelivery(desk.at, first.id, "503 from the server"))
    assert sent(desk, alerts.FIRST_RETRY_MS - 1) == []
    (second,) = sent(desk, 1)
    assert (second.id, second.message.alerts, second.message.attempts) == (first.id, first.message.alerts, 1)
    desk.do(ReportDelivery(desk.at, first.id, "429", retry_ms=300_000))
    assert sent(desk, 299_999) == []
    assert len(sent(desk, 1)) == 1
    assert not desk.scheduler.warnings
    desk.do(ReportDelivery(desk.at, first.id, "503 from the server"))
    assert desk.scheduler.warnings == ("the alert channel ops does not take messages: 503 from the server",)


def test_message_is_given_up_after_many_attempts() -> None:
    desk = make_desk()
    end_run(desk)
    begun = desk.at
    for attempt in range(alerts.MAX_ATTEMPTS):
        (due,) = sent(desk, 3_700_000)[:1]
        assert due.message.attempts == attempt
        desk.do(ReportDelivery(desk.at, due.id, "away"))
    assert desk.stored.alert_messages == {}
    assert "given up: away" in of(Publish, desk.last)[0].text
    assert desk.at - begun > 86_400_000 / 2


def test_effect_is_repeated_if_no_result_comes() -> None:
    desk = make_desk()
    end_run(desk)
    (first,) = sent(desk, WAIT)
    assert sent(desk, alerts.RESEND_MS - WAIT) == []
    (second,) = sent(desk, WAIT)
    assert second == first


def test_channel_has_one_message_at_a_time_and_a_pause_between_two() -> None:
    desk = make_desk(make_job(), *(make_job(f"j{n}") for n in range(40)))
    end_run(desk)
    (first,) = sent(desk, WAIT)
    for number in range(40):
        end_run(desk, f"j{number}")
    assert [due.id for due in sent(desk, 3_600_000)] == [first.id] * (3_600_000 // alerts.RESEND_MS)
    desk.do(ReportDelivery(desk.at, first.id))
    assert sent(desk, INTERVAL - 1) == []
    (second,) = sent(desk, 1)
    assert (len(second.message.alerts), second.message.more) == (alerts.MAX_LINES, 40 - alerts.MAX_LINES)


def test_channel_gets_the_alerts_that_its_filters_admit() -> None:
    channels = (
        AlertChannel("all"),
        AlertChannel("dead", conditions=frozenset({Condition.RUN_DEAD})),
        AlertChannel("billing", teams=frozenset({"billing"})),
        AlertChannel("alice", owners=("ali*",)),
    )
    desk = make_desk(make_job(labels="tier=gold, owner=alice"), policy=replace(POLICY, alert_channels=channels))
    end_run(desk)
    desk.do(AgentLost(desk.at, "a9"))
    found = {due.message.channel: [alert.condition for alert in due.message.alerts] for due in sent(desk, WAIT)}
    assert found == {"all": [Condition.RUN_FAILED, Condition.AGENT_LOST], "alice": [Condition.RUN_FAILED]}
    alert = known(desk, Condition.RUN_FAILED)
    assert alert is not None
    assert alert.owner == "alice"


def test_channel_that_is_no_longer_configured_is_forgotten() -> None:
    desk = make_desk(policy=replace(POLICY, alert_channels=(OPS, AlertChannel("old"))))
    end_run(desk)
    assert {due.message.channel for due in sent(desk, WAIT)} == {"ops", "old"}
    end_run(desk, state="TASK_FINISHED")
    desk.policy = ALERTING
    desk.restart()
    assert [message.channel for message in desk.stored.alert_messages.values()] == ["ops"]
    (alert,) = desk.stored.alerts.values()
    assert (alert.channels, alert.untold) == (("ops",), ("ops",))


def test_number_of_alerts_is_bounded_and_none_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "MAX_ALERTS", 2)
    policy = replace(ALERTING, alert_wait_ms=60_000)
    desk = make_desk(*(make_job(f"j{n}") for n in range(5)), policy=policy)
    for number in range(5):
        end_run(desk, f"j{number}")
    assert sorted(desk.stored.alerts) == ["run_failed/", "run_failed/j0", "run_failed/j1"]
    beyond = desk.stored.alerts["run_failed/"]
    assert beyond.count == 3
    assert beyond.words is not None
    assert (beyond.words.code, beyond.words.parameters["of"]) == ("run_ended", "j4")
    assert taken(desk, 60_000) == [["run_failed/j0", "run_failed/j1", "run_failed/+"]]
    assert sorted(desk.stored.alerts) == ["run_failed/j0", "run_failed/j1"]
    end_run(desk, "j4")
    assert taken(desk, 120_000) == [["run_failed/+"]]


def test_words_of_an_alert_are_bounded_and_go_to_no_channel() -> None:
    desk = make_desk()
    desk.do(ReportProblem(desk.at, Condition.STORE, Told("x" * 900, "records", path="p" * 900, records=2, problem="")))
    alert = desk.stored.alerts["store/"]
    assert alert.words == Words("records", {"path": "p" * 700, "records": 2, "problem": ""})
    taken(desk, WAIT)
    assert [one.words for due in of(AlertDue, desk.all) for one in due.message.alerts] == [None]


def test_largest_records_fit_every_store() -> None:
    text = '"' * 700
    alert = Alert(Condition.RUN_DEAD, "x" * 255, 2**53, text, 2**53, 2**53, 2**62, "r" * 255, "o" * 100)
    message = AlertMessage("c" * 32, 2**53, (alert,) * alerts.MAX_LINES, 2**62, 30, 2**53, text)
    assert len(encode(Kind.ALERT_MESSAGE, message)) < MAX_RECORD_BYTES


# ------------------------------------------------------------------------------------------------- crashes


def dead_run(desk: Desk, crash: Callable[[Desk], None]) -> None:
    """A run that ends DEAD. `crash` is called after each event."""
    desk.do(Trigger(desk.at, "report"))
    crash(desk)
    for _ in range(2):
        desk.do(OffersReceived(desk.at, (make_offer(f"o{desk.at}", cpus=64),)))
        desk.do(Tick(desk.at))
        crash(desk)
        for task_id in desk.running():
            desk.status(task_id, "TASK_FAILED", message="broke")
            crash(desk)
        desk.at += 1_000


class Receiver:
    """A channel that takes each message. `got` has the ids in the order of their arrival."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.dead = 0

    def take(self, due: AlertDue) -> None:
        if due.id not in self.got:
            self.dead += sum(alert.condition is Condition.RUN_DEAD for alert in due.message.alerts)
        self.got.append(due.id)


def deliver(desk: Desk, receiver: Receiver, crash: Callable[[str], bool]) -> None:
    """Send what is due until nothing is left. `crash(point)` tells whether the leader dies at a point."""
    for _ in range(30):
        wake = desk.scheduler.next_wake(desk.at)
        if wake is None:
            return
        desk.at = max(desk.at, wake)
        before = copy_of(desk.stored)
        effects = desk.do(Tick(desk.at))
        if crash("before the write"):
            desk.stored = before
            desk.restart()
            continue
        if crash("after the write"):
            desk.restart()
            continue
        for due in of(AlertDue, effects):
            receiver.take(due)
            if crash("after the send"):
                desk.restart()
                break
            before = copy_of(desk.stored)
            desk.do(ReportDelivery(desk.at, due.id))
            if crash("before the record"):
                desk.stored = before
                desk.restart()
                break
            if crash("after the record"):
                desk.restart()
                break


@pytest.mark.parametrize("nth", range(12))
def test_alert_of_a_dead_run_survives_a_crash_at_any_point(nth: int) -> None:
    """It is sent once, except after a crash between the sending and its record. Then it is sent again with its id."""
    desk, receiver = make_desk(), Receiver()
    points: list[str] = []

    def crash(point: str) -> bool:
        points.append(point)
        return len(points) == nth + 1

    dead_run(desk, lambda desk: desk.restart() if crash("an event") else None)
    deliver(desk, receiver, crash)
    assert desk.stored.alert_messages == {}
    assert receiver.dead == 1
    repeated = nth < len(points) and points[nth] in ("after the send", "before the record")
    assert len(receiver.got) == 1 + repeated
    assert len(set(receiver.got)) == 1


# ------------------------------------------------------------------------------------------------- the clock


@pytest.mark.parametrize("restarted", [False, True])
def test_alert_and_message_of_a_clock_that_was_ahead_do_not_wait_for_it(restarted: bool) -> None:
    desk = make_desk(make_job(), make_job("other"))
    start = desk.at
    desk.at += 30 * 86_400_000
    end_run(desk)
    (first,) = sent(desk, WAIT)
    desk.do(ReportDelivery(desk.at, first.id, "away"))
    end_run(desk, "other")
    desk.at = start + 3_600_000
    if restarted:
        desk.restart()
    (again,) = sent(desk)
    assert again.id == first.id
    desk.do(ReportDelivery(desk.at, first.id))
    assert taken(desk, INTERVAL) == [["run_failed/other"]]


@pytest.mark.parametrize("restarted", [False, True])
def test_silence_that_ends_after_the_clock_was_set_back_lets_alerts_out(restarted: bool) -> None:
    desk = make_desk(make_job())
    start = desk.at
    desk.at += 30 * 86_400_000
    silence(desk)
    end_run(desk)
    desk.at = start
    if restarted:
        desk.restart()
    desk.tick()
    desk.do(RemoveSilence(desk.at, "s1"))
    assert taken(desk, WAIT) == [["run_failed/report"]]


# ------------------------------------------------------------------------------------------------- other conditions


def test_unfinished_run_becomes_late() -> None:
    desk = make_desk(make_job(cron=EVERY_MINUTE, misfire=True, late_after_ms=90_000))
    desk.run_until_idle(60_000)
    assert taken(desk, 89_999) == []
    assert taken(desk, 1 + WAIT) == [["late/report"]]
    desk.restart()
    desk.run_until_idle(WAIT)
    alert = known(desk, Condition.LATE)
    assert alert is not None
    assert alert.count == 1
    desk.offer(make_offer("o1"))
    desk.status(desk.running()[0], "TASK_FINISHED")
    assert known(desk, Condition.LATE) is not None  # the next run is late by now
    finish(desk, state="TASK_FINISHED")
    assert taken(desk, INTERVAL)[0][0] == "late/report+"


def test_late_run_is_closed_if_the_limit_is_taken_away() -> None:
    job = make_job(cron=EVERY_MINUTE, late_after_ms=1_000)
    desk = make_desk(job)
    desk.run_until_idle(62_000)
    late = known(desk, Condition.LATE)
    assert late is not None
    assert late.words == Words("late", {"run": late.run, "due": rfc3339(desk.firings()[0].fire_ms), "shards": 1})
    desk.do(PutJob(desk.at, replace(job, late_after_ms=0), replace=True))
    desk.tick()
    alert = known(desk, Condition.LATE)
    assert alert is not None
    assert alert.closed_ms


def test_skipped_firings_open_an_alert_until_the_next_one_is_queued() -> None:
    desk = make_desk(make_job(cron=EVERY_MINUTE))
    desk.run_until_idle(180_000)
    alert = known(desk, Condition.SKIPPED)
    assert alert is not None
    assert alert.count == 2
    first = rfc3339(desk.firings()[0].fire_ms + 120_000)
    assert alert.words == Words("skipped", {"firings": 1, "first": first, "why": "misfire"})
    assert desk.stored.job_states["report"].skipped_words == Words("misfire")
    assert known(desk, Condition.MISSED) is None
    desk.offer(make_offer("o1"))
    desk.status(desk.running()[0], "TASK_FINISHED")
    desk.run_until_idle(60_000)
    alert = known(desk, Condition.SKIPPED)
    assert alert is not None
    assert alert.closed_ms == desk.at


@pytest.mark.parametrize(
    ("catch_up", "number", "why"), [(CatchUp.SKIP, 10, "missed"), (CatchUp.ONCE, 9, "missed_once")]
)
def test_missed_firings_open_an_alert(catch_up: CatchUp, number: int, why: str) -> None:
    desk = make_desk(make_job(cron=EVERY_MINUTE, catch_up=catch_up))
    desk.at += 610_000
    desk.restart()
    desk.tick()
    alert = known(desk, Condition.MISSED)
    assert alert is not None
    assert alert.count == number
    assert alert.words is not None
    assert (alert.words.parameters["firings"], alert.words.parameters["why"]) == (number, why)


def test_job_without_success_opens_an_alert_once_for_each_period() -> None:
    desk = make_desk(make_job(no_success_ms=3_600_000))
    desk.tick()
    desk.run_until_idle(1_800_000)
    end_run(desk, state="TASK_FINISHED")
    ended = desk.at
    desk.run_until_idle(3_590_000)
    desk.restart()
    assert known(desk, Condition.NO_SUCCESS) is None
    assert taken(desk, ended + 3_600_000 - desk.at + WAIT) == [["no_success/report"]]
    end_run(desk, state="TASK_FINISHED")
    assert taken(desk, INTERVAL) == [["no_success/report+"]]


@pytest.mark.parametrize("off", [SetPaused(0, True), SetJobEnabled(0, "report", False)])
def test_time_of_a_pause_does_not_count_as_time_without_success(off: Any) -> None:
    desk = make_desk(make_job(no_success_ms=3_600_000))
    desk.tick()
    desk.do(type(off)(desk.at, *(getattr(off, name) for name in off.__struct_fields__[1:])))
    desk.run_until_idle(10 * 3_600_000)
    assert known(desk, Condition.NO_SUCCESS) is None


@pytest.mark.parametrize("off", [SetPaused(0, True), SetPaused(0, True, app="shop"), SetJobEnabled(0, "report", False)])
def test_time_without_success_begins_at_the_end_of_a_pause(off: Any) -> None:
    desk = make_desk(make_job(no_success_ms=3_600_000))
    desk.tick()
    fields = {name: getattr(off, name) for name in off.__struct_fields__}
    desk.run_until_idle(60_000)
    desk.do(type(off)(**fields | {"at": desk.at}))
    desk.run_until_idle(3_480_000)
    on = {"paused": False} if isinstance(off, SetPaused) else {"enabled": True}
    desk.do(type(off)(**fields | on | {"at": desk.at}))
    resumed = desk.at
    desk.run_until_idle(3_599_000)
    assert known(desk, Condition.NO_SUCCESS) is None
    desk.run_until_idle(resumed + 3_600_000 - desk.at)
    alert = known(desk, Condition.NO_SUCCESS)
    assert alert is not None
    assert alert.words == Words("no_success", {"since": rfc3339(resumed)})


def test_stopped_roll_out_opens_an_alert_until_it_goes_on() -> None:
    desk = make_desk(make_job(kind=JobKind.DAEMON, shard_count=3))
    desk.offer(make_offer("o1", cpus=20, mem=100_000))
    for task_id in desk.running():
        desk.status(task_id, "TASK_RUNNING")
    desk.at += 120_000
    desk.do(PutApp(desk.at, make_app(version=2), replace=True))
    desk.run_until_idle()
    (killed,) = [task.id for task in desk.scheduler.tasks.values() if task.kill_ms]
    desk.status(killed, "TASK_KILLED")
    desk.offer(make_offer("o2", cpus=20, mem=100_000))
    (new,) = [task.id for task in desk.scheduler.tasks.values() if task.state == "STORED"]
    assert known(desk, Condition.ROLLOUT_STOPPED) is None
    desk.status(new, "TASK_FAILED", message="the new version is broken")
    desk.run_until_idle()
    alert = known(desk, Condition.ROLLOUT_STOPPED)
    assert alert is not None
    assert "the new version is broken" in alert.text
    assert alert.words is not None
    assert alert.words.code == "rollout_stopped"
    assert "the new version is broken" in str(alert.words.parameters["message"])
    desk.do(PutApp(desk.at, make_app(version=1), replace=True))
    desk.at += 60_000
    desk.offer(make_offer("o3", cpus=20, mem=100_000))
    (old,) = [task.id for task in desk.scheduler.tasks.values() if task.state == "STORED"]
    desk.status(old, "TASK_RUNNING")
    desk.run_until_idle()
    alert = known(desk, Condition.ROLLOUT_STOPPED)
    assert alert is None or alert.closed_ms


def test_lost_agent_opens_an_alert_until_it_offers_again() -> None:
    desk = make_desk()
    desk.offer(make_offer("o1", "a7"))
    desk.do(AgentLost(desk.at, "a7"))
    alert = known(desk, Condition.AGENT_LOST, "a7")
    assert alert is not None
    assert alert.text == "agent host-a7 is unreachable or gone; 0 tasks were on it"
    assert alert.words == Words("agent_lost", {"agent": "host-a7", "tasks": 0})
    assert taken(desk, WAIT) == [["agent_lost/a7"]]
    desk.offer(make_offer("o2", "a7"))
    desk.tick(60_000)
    assert taken(desk, INTERVAL) == [["agent_lost/a7+"]]


def test_problem_of_the_server_opens_and_closes_an_alert() -> None:
    desk = make_desk()
    for _ in range(3):
        desk.do(ReportProblem(desk.at, Condition.CLOCK, "the clock is wrong"))
    assert taken(desk, WAIT) == [["clock/"]]
    desk.do(ReportProblem(desk.at, Condition.CLOCK, ""))
    assert taken(desk, INTERVAL) == [["clock/+"]]


def test_removed_job_closes_its_alerts() -> None:
    desk = make_desk(make_job(no_success_ms=1_000, late_after_ms=1_000, cron=EVERY_MINUTE))
    end_run(desk)
    desk.run_until_idle(61_500)
    desk.do(RemoveJob(desk.at, "report"))
    desk.tick()
    assert len(desk.stored.alerts) >= 2
    assert all(alert.closed_ms for alert in desk.stored.alerts.values())
    taken(desk, 2 * INTERVAL)
    desk.tick(60_000)
    assert desk.stored.alerts == {}
    indexes = desk.scheduler.indexes()
    assert not any(indexes[name] for name in ("late", "checked", "changed", "removed"))


def test_job_that_is_registered_again_is_awaited_from_then_on() -> None:
    job = make_job(no_success_ms=3_600_000)
    desk = make_desk(job)
    desk.run_until_idle(1_800_000)
    desk.do(RemoveJob(desk.at, "report"))
    desk.do(PutJob(desk.at, job))
    desk.run_until_idle(3_599_999)
    assert known(desk, Condition.NO_SUCCESS) is None
    desk.run_until_idle(1)
    assert known(desk, Condition.NO_SUCCESS) is not None


@pytest.mark.parametrize("labels", ["owner", "Owner=x", "owner=a b", "owner=a,owner=b", "=x", ",", "a=" + "x" * 101])
def test_wrong_labels_are_refused(labels: str) -> None:
    with pytest.raises(ConfigError) as refused:
        make_job(labels=labels)
    assert refused.value.field == "labels"
    assert refused.value.fix


# ------------------------------------------------------------------------------------------------- silences


def silence(desk: Desk, for_ms: int = 3_600_000, **about: Any) -> None:
    desk.do(PutSilence(desk.at, "s1", Silence(desk.at, desk.at + for_ms, **about)))


@pytest.mark.parametrize(
    ("about", "silent"),
    [
        ({}, True),
        ({"subject": "rep*"}, True),
        ({"subject": "other"}, False),
        ({"condition": Condition.RUN_FAILED}, True),
        ({"condition": Condition.LATE}, False),
        ({"team": "default"}, True),
        ({"team": "billing"}, False),
        ({"owner": "a*"}, True),
        ({"owner": "b*"}, False),
    ],
)
def test_silence_holds_back_the_alerts_that_it_matches(about: dict[str, Any], silent: bool) -> None:
    desk = make_desk(make_job(labels="owner=alice"))
    silence(desk, **about)
    end_run(desk)
    assert taken(desk, WAIT) == ([] if silent else [["run_failed/report"]])


@pytest.mark.parametrize("ends", ["it expires", "it is removed"])
def test_open_alert_is_told_after_the_end_of_its_silence(ends: str) -> None:
    desk = make_desk(make_job())
    silence(desk)
    end_run(desk)
    desk.restart()
    assert taken(desk, 600_000) == []
    if ends == "it is removed":
        desk.do(RemoveSilence(desk.at, "s1"))
        assert taken(desk) == [["run_failed/report"]]
    else:
        assert taken(desk, 3_600_000) == [["run_failed/report"]]
    assert desk.stored.silences == {}


def test_alert_that_opens_and_closes_in_a_silence_is_never_told() -> None:
    desk = make_desk(make_job())
    silence(desk)
    end_run(desk)
    end_run(desk, state="TASK_FINISHED")
    assert desk.stored.alerts == {}
    assert taken(desk, 7_200_000) == []


def test_end_of_an_alert_that_people_know_is_told_after_the_silence() -> None:
    desk = make_desk(make_job())
    end_run(desk)
    assert taken(desk, WAIT) == [["run_failed/report"]]
    silence(desk)
    end_run(desk, state="TASK_FINISHED")
    assert taken(desk, 600_000) == []
    assert taken(desk, 3_600_000) == [["run_failed/report+"]]


def test_number_of_silences_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "MAX_SILENCES", 1)
    desk = make_desk()
    silence(desk)
    with pytest.raises(Conflict):
        desk.do(PutSilence(desk.at, "s2", Silence(desk.at, desk.at + 1)))
    with pytest.raises(NotFound):
        desk.do(RemoveSilence(desk.at, "s2"))
