"""Timers of systemd: OnCalendar against systemd itself, and the commands of services."""

from __future__ import annotations

import random
import shlex
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.oracles import record_systemd

from jobcloud.client.import_cron import timers
from jobcloud.client.import_cron.on_calendar import CalendarError, convert
from jobcloud.client.import_cron.report import Action, Item, Options, Report
from jobcloud.client.import_cron.units import UnitError, words
from jobcloud.cron import Fold, Gap, Schedule

TABLE = Path(__file__).parents[1] / "data" / "systemd_calendar.tsv"
# Accepted by systemd, refused here.
WITHOUT_COUNTERPART = {"10:00:30.5", "Sun *-*-29..31", "Mon *-*-01..06"}
# systemd 252 leaves out the first time of the first day of a month, if a step of the hours does not end with the day.
LOSES_THE_FIRST = {"*-*-* 00/7:00", "1/10:11"}
END = 1 << 42


def elapses(text: str, start: int, count: int) -> list[int]:
    found = convert(text)
    schedule = Schedule.parse(found.cron, zone=found.zone or "UTC", gap=Gap.SKIP, fold=Fold.ONCE)
    return [at // 1000 for at in schedule.between(start * 1000, END, count)]


def test_calendar_expressions_elapse_as_in_systemd() -> None:
    compared = 0
    for line in TABLE.read_text("ascii").splitlines():
        text, start, answer = line.split("\t")
        if answer == "REFUSED" or text in WITHOUT_COUNTERPART:
            with pytest.raises(CalendarError):
                convert(text)
            continue
        steps = answer.split()
        distances = [int(step) for step in steps if step != "END"]
        recorded = [int(start) + sum(distances[: index + 1]) for index in range(len(distances))]
        found = elapses(text, int(start), record_systemd.COUNT)
        if text in LOSES_THE_FIRST:
            assert set(found) - set(recorded), "systemd no longer loses a time"
            assert set(recorded[:8]) <= set(elapses(text, int(start), 20))
            continue
        assert found[: len(recorded)] == recorded, text
        assert len(found) == len(recorded) or steps[-1] != "END", text
        compared += len(recorded)
    assert compared > 3_500


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_random_calendar_expressions_elapse_as_in_systemd_of_this_machine() -> None:
    dice = random.Random(7)
    for _ in range(40):
        text, start = record_systemd.random_expression(dice), dice.randrange(1_600_000_000, 1_900_000_000)
        there = record_systemd.elapses(text, start, 6)
        if there is None:
            with pytest.raises(CalendarError):
                convert(text)
        elif "/" not in text.rpartition(" ")[2].partition(":")[0]:  # steps of hours: see LOSES_THE_FIRST
            assert elapses(text, start, 6)[: len(there)] == there, text


@pytest.mark.parametrize(
    ("text", "cron"),
    [
        ("daily", "0 0 0 * * ?"),
        ("Mon..Fri 8..18:00/15", "0 0-45/15 8-18 ? * MON,TUE,WED,THU,FRI"),
        ("Sun *-*~07/1 04:00", "0 0 4 ? * SUNL"),
        ("Tue *-*-8..14 6:00", "0 0 6 ? * TUE#2"),
        ("*-*~01", "0 0 0 L * ?"),
        ("*-*~1,3", "0 0 0 L,L-2 * ?"),
        ("2027/2-1-1", "0 0 0 1 1 ? 2027-2099/2"),
    ],
)
def test_calendar_expression_becomes_this_cron_expression(text: str, cron: str) -> None:
    assert convert(text).cron == cron


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not a calendar expression"),
        ("@1234", "is not a date"),
        ("*-*-* 1:2:3.5", "parts of seconds"),
        ("Mon *-*-01..06", "possible only for one week"),
        ("Mon *-*-01..14", "possible only for one week"),
        ("Mon *-*-02..08", "possible only for one week"),
        ("Mon,Tue *-*-01..07", "possible only for one week"),
        ("Mon *-*~8..2", "possible only for one week"),
        ("Mon *-*-01,03,05,07", "possible only for one week"),
        ("Fri..Mon", "run backwards"),
        ("*:0/60", "larger than its range"),
        ("daily Mars/Olympus", "not a known time zone"),
        ("*-*-* 1:2 3:4", "is not a calendar expression"),
        ("x" * 600, "too long"),
    ],
)
def test_calendar_expression_without_a_counterpart_is_refused(text: str, said: str) -> None:
    with pytest.raises(CalendarError, match=said):
        convert(text)


@given(st.one_of(st.text(max_size=60), st.text("0123456789*-~:/.,MonTueUTC ", max_size=40)))
def test_arbitrary_text_gives_an_expression_or_a_calendar_error(text: str) -> None:
    try:
        found = convert(text)
    except CalendarError:
        return
    Schedule.parse(found.cron)


SERVICE = b"[Service]\nType=oneshot\nExecStart=/usr/bin/sync-all --fast\n"
TIMER = b"[Timer]\nOnCalendar=daily\n"


def read(timer: bytes = TIMER, service: bytes = SERVICE, **more: bytes) -> list[Item]:
    files = {"sync.timer": timer, "sync.service": service} | {
        name.replace("__", "."): data for name, data in more.items()
    }
    return list(timers.read("sync.timer", "units/sync.timer", files))


def only(timer: bytes = TIMER, service: bytes = SERVICE) -> Item:
    (item,) = read(timer, service)
    return item


def test_timer_with_its_service_becomes_a_job() -> None:
    item = only()
    assert item.action is Action.TAKEN
    assert item.name == "sync"
    assert item.job == {
        "cron": "0 0 0 * * ?",
        "dstGap": "skip",
        "dstFold": "once",
        "jobType": "SCRIPT",
        "jobExecutionType": "TRANSIENT",
        "scriptCommandLine": "/usr/bin/sync-all --fast",
        "description": "from units/sync.timer",
    }


def test_persistent_timer_catches_up_once_and_zone_and_time_limit_are_kept() -> None:
    item = only(b"[Timer]\nPersistent=yes\nOnCalendar=daily Europe/Rome\n", SERVICE + b"TimeoutStartSec=1h 30min\n")
    assert (item.job["catchUp"], item.job["timeZone"], item.job["timeoutSeconds"]) == ("once", "Europe/Rome", 5400)


def test_calendars_of_one_zone_become_one_job_with_several_triggers() -> None:
    item = only(b"[Timer]\nOnCalendar=daily\nOnCalendar=Mon 12:00\nOnCalendar=daily\nOnCalendar=Tue 12:00\n")
    assert item.job["cron"] == "0 0 0 * * ?"
    assert item.job["triggers"] == ["0 0 12 ? * MON", "0 0 12 ? * TUE"]
    assert (item.action, item.changes) == (Action.TAKEN, [])
    two = read(b"[Timer]\nOnCalendar=daily\nOnCalendar=weekly Europe/Rome\nOnCalendar=monthly\n")
    assert [(one.job["cron"], one.job.get("triggers")) for one in two] == [
        ("0 0 0 * * ?", ["0 0 0 1 * ?"]),
        ("0 0 0 ? * MON", None),
    ]
    assert all(one.changes == ["the timer becomes 2 jobs, which may overlap"] for one in two)
    many = read(b"[Timer]\n" + b"".join(b"OnCalendar=*:%d\n" % minute for minute in range(30)))
    assert [len(one.job["triggers"]) for one in many] == [20, 8]
    assert not [one for one in many if one.action is Action.REFUSED]


def test_interval_is_a_job_of_its_own_and_an_empty_value_removes_schedules_before() -> None:
    items = read(
        b"[Timer]\nOnCalendar=hourly\nOnCalendar=\nOnCalendar=daily\nOnCalendar=*:0/7.5\nOnUnitActiveSec=15min\n"
    )
    assert [item.text for item in items] == [
        "sync.timer: OnCalendar=daily",
        "sync.timer: OnCalendar=*:0/7.5",
        "sync.timer: OnUnitActiveSec=15min",
    ]
    assert [item.action for item in items] == [Action.TAKEN, Action.REFUSED, Action.TAKEN]
    assert items[2].job["cron"] == "0 0/15 * * * ?"
    assert "not from the last start" in items[2].changes[0]


def test_interval_that_divides_nothing_becomes_a_period_and_a_random_delay_a_jitter() -> None:
    item = only(b"[Timer]\nOnUnitActiveSec=7min\nRandomizedDelaySec=90\n")
    assert (item.job["triggers"], item.job["jitterSeconds"], "cron" in item.job) == (["@every 420s"], 90, False)
    assert item.changes == [
        "RandomizedDelaySec: it becomes jitterSeconds: 90",
        "OnUnitActiveSec: it counts from 1970-01-01 00:00 UTC, not from the last start",
    ]


def test_interval_after_the_end_of_the_service_becomes_a_fixed_delay() -> None:
    item = only(b"[Timer]\nOnBootSec=5min\nOnUnitInactiveSec=15min\n")
    assert item.job["triggers"] == ["@after 900s"]
    assert item.changes == [
        "OnBootSec: it is left out; no job fires when a machine starts",
        "OnUnitInactiveSec: the first run fires when the job is registered",
    ]
    (reported,) = Report.of([item], Options("tools")).items
    assert (reported.words, reported.changes) == ("900s after the end of each run", item.changes)


def test_drop_ins_change_the_timer() -> None:
    files = {
        "sync.timer": TIMER,
        "sync.service": SERVICE,
        "sync.timer.d/10.conf": b"[Timer]\nOnCalendar=\n",
        "sync.timer.d/20.conf": b"[Timer]\nOnCalendar=weekly\n",
    }
    (item,) = timers.read("sync.timer", "sync.timer", files)
    assert item.job["cron"] == "0 0 0 ? * MON"


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (b"RandomizedDelaySec=5m\n", "RandomizedDelaySec: it becomes jitterSeconds: 300"),
        (b"AccuracySec=1h\n", "AccuracySec"),
        (b"OnBootSec=5m\n", "OnBootSec: it is left out; no job fires when a machine starts"),
        (b"WakeSystem=true\n", "WakeSystem"),
        (b"Foo=1\n", "Foo: it is unknown"),
    ],
)
def test_difference_of_a_timer_is_named(extra: bytes, said: str) -> None:
    item = only(TIMER + extra)
    assert any(said in change for change in item.changes)


@pytest.mark.parametrize(
    ("service", "line"),
    [
        (b"ExecStart=/bin/a 'b c' \"d\\x41\" e\\tf\n", "/bin/a 'b c' dA 'e\tf'"),
        (b"ExecStart=/bin/a 50%%\n", "/bin/a 50%"),
        (b"ExecStart=/bin/a $$HOME\n", "/bin/a '$HOME'"),
        (b"ExecStart=:/bin/a $HOME\n", "/bin/a '$HOME'"),
        (b"ExecStart=/bin/a \\\n  b\n", "/bin/a b"),
        (b'Environment=A=1 "B=x y"\nExecStart=/bin/a\n', "env A=1 'B=x y' /bin/a"),
        (b"ExecStart=/bin/a\nExecStart=-/bin/b\n", "/bin/sh -ec '/bin/a\n/bin/b || true'"),
        (b"WorkingDirectory=/srv\nExecStart=/bin/a\n", "/bin/sh -ec 'cd /srv\n/bin/a'"),
    ],
)
def test_command_of_a_service_becomes_a_command_line(service: bytes, line: str) -> None:
    item = only(service=b"[Service]\n" + service)
    assert item.job["scriptCommandLine"] == line
    assert shlex.split(line)


@pytest.mark.parametrize(
    ("service", "said"),
    [
        (b"[Service]\nType=oneshot\n", "has no ExecStart"),
        (b"[Service]\nExecStart=/bin/a $HOME\n", "systemd replaces variables"),
        (b"[Service]\nExecStart=/bin/a %i\n", "the specifier %i"),
        (b"[Service]\nExecStartPre=/bin/b\nExecStart=/bin/a\n", "has ExecStartPre"),
        (b"[Service]\nEnvironmentFile=/etc/x\nExecStart=/bin/a\n", "EnvironmentFile"),
        (b"[Service]\nExecStart=/bin/a ; /bin/b\n", "several commands"),
        (b"[Service]\nExecStart=/bin/a 'b\n", "a quote is not closed"),
        (b"[Service]\nExecStart=/bin/a b'c'\n", "a quote inside a word"),
        (b"[Service]\nExecStart=/bin/a \\q\n", "the escape"),
        (b"[Service]\nfoo\n", "line 2: 'foo' is no section"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_service_without_a_counterpart_is_refused(service: bytes, said: str) -> None:
    item = only(service=service)
    assert item.action is Action.REFUSED
    assert said in item.reason


@pytest.mark.parametrize(
    ("timer", "said"),
    [
        (b"[Timer]\nOnBootSec=5m\n", "OnBootSec fires after a start of the machine"),
        (b"[Timer]\nPersistent=true\n", "it has no OnCalendar"),
        (b"[Timer]\nOnUnitInactiveSec=soon\n", "is no whole number of seconds"),
        (b"[Timer]\nOnUnitActiveSec=1fortnight\n", "is no whole number of seconds"),
        (b"[Timer]\nOnCalendar=daily\nUnit=x.target\n", "which is no service"),
        (b"[Timer]\nOnCalendar=daily\nUnit=other.service\n", "other.service is not among the given files"),
        (b"OnCalendar=daily\n", "line 1"),
        (b"[Timer]\n" + b"OnCalendar=daily\n" * 101, "101 schedules, more than 100"),
    ],
)
def test_timer_without_a_counterpart_is_refused(timer: bytes, said: str) -> None:
    item = only(timer)
    assert item.action is Action.REFUSED
    assert said in item.reason


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_arbitrary_bytes_give_at_least_one_item(timer: bytes, service: bytes) -> None:
    assert read(timer, service)
    assert read(TIMER, b"[Service]\nExecStart=" + service)


@given(st.text(max_size=40))
def test_arbitrary_words_are_read_or_refused(text: str) -> None:
    try:
        found = words(text)
    except UnitError:
        return
    assert all(isinstance(word, str) for word in found)
