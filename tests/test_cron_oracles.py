"""cron.py and firetimes.py against oracles that share no code with them.

The oracles: a slow stepper in this file, which follows the real clock minute by minute; Quartz itself, recorded in
data/quartz_firings.tsv and data/quartz25_firings.tsv; and for the Unix dialect cronsim and Debian's cron daemon,
recorded in data/debian_cron.tsv. JOBCLOUD_CRON_TRIPLES sets the number of (expression, zone, start) triples;
JOBCLOUD_SEED selects other ones.
"""

from __future__ import annotations

import bisect
import calendar
import datetime
import functools
import os
import pathlib
import random
import re
import subprocess
from collections.abc import Iterator

import pytest
from cronsim import CronSim

from jobcloud import zones
from jobcloud.cron import CronError, Dialect, Fold, Gap, Schedule
from jobcloud.executor.firetimes import FireTimes

TRIPLES = int(os.environ.get("JOBCLOUD_CRON_TRIPLES", "50000"))
SEED = os.environ.get("JOBCLOUD_SEED", "2026")
STARTS = 100  # start instants per expression and zone
AGENT_STARTS = 4  # of these, checked with the agent's stepper too
ODD_ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "America/St_Johns",
    "Africa/Casablanca",
    "Asia/Kolkata",
    "America/Havana",
    "Antarctica/Troll",
    "Asia/Gaza",
    "Europe/Dublin",
    "Pacific/Kwajalein",
]
# Refused: they differ between machines or count leap seconds.
NO_ZONES = ("posix/", "right/", "localtime", "posixrules", "Factory")
ALL_ZONES = [zone for zone in zones.names() if not zone.startswith(NO_ZONES)]
MINUTE, DAY = 60, 86_400
MONTHS = {name.upper(): number for number, name in enumerate(calendar.month_abbr) if name}
WEEKDAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]


def local(instant: int, zone: str) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(instant, zones.zone(zone))


# The slow stepper checks every value against the text of its field.


def names(word: str, first_weekday: int) -> int:
    if word in WEEKDAYS:
        return WEEKDAYS.index(word) + first_weekday
    return MONTHS[word] if word in MONTHS else int(word)


@functools.lru_cache(maxsize=100_000)
def says(text: str, value: int, low: int, high: int, first_weekday: int = 1) -> bool:
    """Whether the text of a field names a value. Counts each item up from its start, with wrapping."""
    for item in text.split(","):
        span, _, step = item.partition("/")
        start, _, stop = span.partition("-")
        if start in ("*", "?", ""):
            start, stop = str(low), str(high)
        first = names(start, first_weekday)
        last = names(stop, first_weekday) if stop else high if step else first
        distance = (last - first) % (high - low + 1)
        if any(
            low + (first - low + walked) % (high - low + 1) == value
            for walked in range(0, distance + 1, int(step or 1))
        ):
            return True
    return False


def last_of_month(day: datetime.date) -> datetime.date:
    while (day + datetime.timedelta(1)).month == day.month:
        day += datetime.timedelta(1)
    return day


def is_nearest_workday(day: datetime.date, target: datetime.date) -> bool:
    same_month = [target + datetime.timedelta(shift) for shift in range(-2, 3)]
    workdays = [near for near in same_month if near.month == target.month and near.weekday() < 5]
    return day == min(workdays, key=lambda near: (abs(near - target), near))


def says_day(text: str, day: datetime.date) -> bool:
    """The day-of-month field of Quartz."""
    if "," in text:
        return any(says_day(item, day) for item in text.split(","))
    if text[0] != "L" and text[-1] != "W":
        return says(text, day.day, 1, 31)
    try:
        target = day.replace(day=int(text[:-1])) if text[0] != "L" else last_of_month(day)
    except ValueError:
        return False
    target -= datetime.timedelta(int(text.strip("LW").lstrip("-") or 0) if text[0] == "L" else 0)
    if target.month != day.month:
        return False
    return is_nearest_workday(day, target) if text[-1] == "W" else day == target


def says_weekday(text: str, day: datetime.date) -> bool:
    """The day-of-week field of Quartz, 1 = SUN."""
    weekday = day.isoweekday() % 7 + 1
    if text == "L":
        return weekday == 7
    if text[-1] == "L":
        return weekday == names(text[:-1], 1) and (day + datetime.timedelta(7)).month != day.month
    if "#" in text:
        name, nth = text.split("#")
        return weekday == names(name, 1) and (day.day + 6) // 7 == int(nth)
    return says(text, weekday, 1, 7)


def offset(wall: datetime.datetime) -> datetime.timedelta:
    found = wall.utcoffset()
    assert found is not None
    return found


class SlowStepper:
    """One expression in one zone, checked minute by minute."""

    def __init__(self, text: str, zone: str, dialect: Dialect, gap: Gap, fold: Fold) -> None:
        self.dialect, self.zone = dialect, zones.zone(zone)
        fields = text.upper().split()
        self.unix = dialect is Dialect.UNIX
        if self.unix:
            fields = ["0", *fields]
        self.second, self.minute, self.hour, self.day, self.month, self.weekday = fields[:6]
        self.year = fields[6] if len(fields) > 6 else "*"
        if self.unix:
            interval = self.minute[0] == "*" or self.hour[0] == "*"
        else:
            interval = bool({"*", "/"} & set(self.minute + self.hour))
        self.make_up = gap is Gap.RUN_AFTER and not interval
        self.repeat = fold is Fold.BOTH or (fold is Fold.AUTO and interval)
        self.matching_day = functools.lru_cache(maxsize=4096)(self.matches_day)

    def matches_day(self, day: datetime.date) -> bool:
        if not says(self.month, day.month, 1, 12) or not says(self.year, day.year, 1970, 2099):
            return False
        if not self.unix:
            return says_day(self.day, day) and says_weekday(self.weekday, day)
        of_month = says(self.day, day.day, 1, 31)
        of_week = any(
            says(self.weekday, day.isoweekday() % 7 + week, 0, 7, 0)
            for week in (0, 7)
            if day.isoweekday() % 7 + week < 8
        )
        starred = self.day[0] == "*" or self.weekday[0] == "*"
        return of_month and of_week if starred else of_month or of_week

    def matches(self, wall: datetime.datetime) -> bool:
        return (
            says(self.minute, wall.minute, 0, 59)
            and says(self.hour, wall.hour, 0, 23)
            and self.matching_day(wall.date())
        )

    def local(self, instant: int) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(instant, self.zone)

    def firings(self, start: int, end: int, days: int) -> tuple[list[int], int]:
        """All firings from `start` to a returned instant: until `days` days have matched, or `end`."""
        found: list[int] = []
        instant = start
        while instant < end and days:
            today, tomorrow = self.local(instant - DAY // 2).date(), self.local(instant + DAY + DAY // 2).date()
            span = range((tomorrow - today).days + 1)
            if any(self.matching_day(today + datetime.timedelta(later)) for later in span):
                for minute in range(instant, instant + DAY, MINUTE):
                    found.extend(self.firings_of(minute))
                days -= 1
            instant += DAY
        return found, instant

    def firings_of(self, minute: int) -> Iterator[int]:
        wall, before = self.local(minute), self.local(minute - MINUTE)
        jump = round((offset(wall) - offset(before)) / datetime.timedelta(minutes=1))
        if self.make_up and jump > 0:
            skipped = (wall.replace(tzinfo=None) - datetime.timedelta(minutes=back) for back in range(1, jump + 1))
            if any(map(self.matches, skipped)):
                yield minute
                if self.matches(wall) and says(self.second, 0, 0, 59):
                    yield from (minute + second for second in range(1, 60) if says(self.second, second, 0, 59))
                    return
        if self.matches(wall) and (self.repeat or not wall.fold):
            yield from (minute + second for second in range(60) if says(self.second, second, 0, 59))


# Random (expression, zone, start) triples.


def field(dice: random.Random, low: int, high: int, *, wraps: bool) -> str:
    first, second = dice.randint(low, high), dice.randint(low, high)
    if not wraps:
        first, second = sorted((first, second))
        # cronsim reads 2-2/3 as 2/3; crontab(5) and we read it as 2.
        second += first == second < high
        first -= first == second
    step = dice.randint(1, min(high, 7 if high < 10 else 23))
    choices = ["*", str(first), f"{first}-{second}", f"{first}-{second}/{step}", f"*/{step}", f"{first},{second}"]
    return dice.choice([*choices, f"{first}/{step}"]) if low < 1000 else dice.choice(["*", str(first)])


def quartz_expression(dice: random.Random) -> str:
    day, weekday = field(dice, 1, 31, wraps=True), "?"
    kind = dice.random()
    if kind < 0.2:
        n = dice.randint(0, 30)
        signs = ["L", "LW", f"L-{n}", f"L-{n}W", f"{n + 1}W"]
        day = dice.choice(signs)
        if dice.random() < 0.5:
            items = [day, *dice.sample(signs, dice.randint(0, 2)), str(dice.randint(1, 31)), f"{n + 1}-31/9"]
            day = ",".join(dice.sample(items, dice.randint(2, len(items))))
    elif kind < 0.6:
        named = dice.choice([str(dice.randint(1, 7)), dice.choice(WEEKDAYS)])
        day = "?"
        weekday = dice.choice(
            [
                field(dice, 1, 7, wraps=True),
                "L",
                f"{named}L",
                f"{named}#{dice.randint(1, 5)}",
                "FRI-MON",
                "mon-fri",
                named,
            ]
        )
    second = dice.choice(["0", "0", "0/30", field(dice, 0, 59, wraps=True)])
    hour = dice.choice([field(dice, 0, 23, wraps=True), "*", "0", "1", "2", "3", "1,2", "23-3", "0/2"])
    month = dice.choice(["*", "*", field(dice, 1, 12, wraps=True), "NOV-MAR"])
    year = dice.choice(["", "", "", " *", " 1990-2030", " 2000/2", " /3"])
    return f"{second} {field(dice, 0, 59, wraps=True)} {hour} {day} {month} {weekday}{year}"


def unix_expression(dice: random.Random, *, large: bool = False) -> str:
    """`large`: with steps larger than the field, which cronsim does not know."""
    hour = dice.choice([field(dice, 0, 23, wraps=False), "*", "0", "1", "2", "3", "1,2", "*/2"])
    day, month = (field(dice, low, high, wraps=False) for low, high in ((1, 31), (1, 12)))
    if large:
        hour, day = dice.choice([hour, f"*/{dice.randint(2, 99)}"]), dice.choice([day, f"*/{dice.randint(2, 99)}"])
    weekday = dice.choice([field(dice, 0, 7, wraps=False), "*", "mon-fri", "SUN", "FRI"])
    return f"{field(dice, 0, 59, wraps=False)} {hour} {dice.choice(['*', day])} {dice.choice(['*', month])} {weekday}"


def change_near(dice: random.Random, zone: str) -> int:
    """An instant within two days before a clock change of the zone; any instant if the year has none."""
    start = dice.randrange(3 * 366 * DAY, 67 * 365 * DAY)
    for day in range(start, start + 366 * DAY, DAY):
        if local(day, zone).utcoffset() != local(day + DAY, zone).utcoffset():
            return day - dice.randrange(DAY)
    return start


def pairs(dice: random.Random) -> Iterator[tuple[str, int]]:
    """Endless zones and start instants, many of them shortly before a clock change."""
    while True:
        zone = dice.choice(ODD_ZONES) if dice.random() < 0.6 else dice.choice(ALL_ZONES)
        begin = change_near(dice, zone) if dice.random() < 0.6 else dice.randrange(3 * 366 * DAY, 67 * 365 * DAY)
        yield zone, begin - begin % MINUTE


def starts(dice: random.Random, begin: int, firings: list[int], end: int) -> list[int]:
    """Instants in milliseconds, some at or next to a firing."""
    chosen = [dice.randrange(begin * 1000, end * 1000) for _ in range(STARTS // 2)]
    for _ in range(STARTS - len(chosen)):
        near = dice.choice(firings) if firings else dice.randrange(begin, end)
        chosen.append(max(near * 1000 + dice.choice([0, -1, 1, -1000, 999]), begin * 1000))
    return chosen


def expected_next(firings: list[int], start_ms: int) -> int | None:
    index = bisect.bisect_right(firings, start_ms // 1000)
    return firings[index] * 1000 if index < len(firings) else None


def judged(dice: random.Random, text: str, zone: str, begin: int, dialect: Dialect) -> tuple[Schedule, list[int]]:
    """Compare with the slow stepper at many start instants, and the agent's stepper at some. Returns the starts."""
    gap, fold = dice.choice(list(Gap)), dice.choice(list(Fold))
    schedule = Schedule.parse(text, zone=zone, dialect=dialect, gap=gap, fold=fold)
    agent = FireTimes(schedule.table())
    firings, end = SlowStepper(text, zone, dialect, gap, fold).firings(begin, begin + 400 * DAY, days=4)
    chosen = starts(dice, begin, firings, end)
    for index, start in enumerate(chosen):
        expected, answer = expected_next(firings, start), schedule.next_after(start)
        beyond = expected is None and (answer is None or answer >= end * 1000)
        assert beyond or answer == expected, (text, zone, dialect, gap, fold, start)
        if index < AGENT_STARTS:
            assert agent.next_after(start) == answer, (text, zone, dialect, gap, fold, start)
    return schedule, chosen


def test_quartz_expressions_fire_as_in_the_slow_stepper() -> None:
    dice = random.Random(f"quartz {SEED}")
    print(f"JOBCLOUD_SEED={SEED}")
    for _, (zone, begin) in zip(range(TRIPLES * 6 // 10 // STARTS), pairs(dice), strict=False):
        judged(dice, quartz_expression(dice), zone, begin, Dialect.QUARTZ)


def test_unix_expressions_fire_as_in_the_slow_stepper() -> None:
    dice = random.Random(f"unix {SEED}")
    print(f"JOBCLOUD_SEED={SEED}")
    for _, (zone, begin) in zip(range(TRIPLES * 2 // 10 // STARTS), pairs(dice), strict=False):
        judged(dice, unix_expression(dice, large=True), zone, begin, Dialect.UNIX)


# Quartz itself.

TABLE = pathlib.Path(__file__).parent / "data" / "quartz_firings.tsv"
RECORDED = [line.split("\t") for line in TABLE.read_text(encoding="ascii").splitlines()]
# Quartz accepts these expressions and computes nonsense or fails. We refuse them.
ONLY_QUARTZ_ACCEPTS = {
    "0 L * * * ?": "L in a field without a last value: Quartz throws",
    "0 0 0 * L ?": "the same in the month",
    "0 0 0 1 1 ? 20x0": "Quartz reads year 20 and drops the rest",
    "0 0 0 ? * 6#3,2": "Quartz takes the third of both weekdays",
    "0 0 0 ? * MON#2,TUE": "the same",
}
ONLY_WE_ACCEPT = {
    "0 0 0 ? * 2-FRI": "a range from a number to a name is clear; Quartz cannot parse it",
    "0 0 0 L,15 * ?": "Quartz 2.5 accepts it, Quartz 2.3.2 does not",
    "0 0 0 1,LW * ?": "the same",
}
# Quartz reads the 31st of a month of 30 days as the 1st of the next one. If that is a Saturday, it fires on the 30th.
FALSE_31W = {("0 0 0 31W * ?", "2027-04-30"), ("0 0 0 31W * ?", "2028-06-30")}
# The clock went from 00:01 to 01:01. Quartz skips firings in the rest of that hour, although it exists.
LOST = {
    ("America/St_Johns", "0 30 1 * * ?", "2006-04-02 01:30"),
    ("America/St_Johns", "0 5,35 1,2 * * ?", "2006-04-02 01:05"),
    ("America/St_Johns", "0 5,35 1,2 * * ?", "2006-04-02 01:35"),
    ("America/St_Johns", "0 45 1 ? * SUN", "2006-04-02 01:45"),
}


def recorded_firings(start: int, steps: str) -> tuple[list[int], bool]:
    """The instants of a line in seconds, and whether no further ones follow."""
    words = steps.split()
    distances = [int(word) for word in words if word != "END"]
    return [start + sum(distances[: index + 1]) for index in range(len(distances))], words[-1:] == ["END"]


def ours(schedule: Schedule, start: int, recorded: list[int], ended: bool) -> list[int]:
    until = 4_102_444_800 if ended else recorded[-1]
    return [firing // 1000 for firing in schedule.between(start * 1000, until * 1000, 1000)]


def comes_again(instant: int, zone: str) -> bool:
    """Whether the wall time of this instant occurs a second time."""
    wall = local(instant, zone)
    return wall.fold == 0 and wall.replace(fold=1).timestamp() != instant


def ends_a_gap(instant: int, zone: str) -> bool:
    return offset(local(instant, zone)) > offset(local(instant - 1, zone))


def answered(lines: list[list[str]] = RECORDED) -> Iterator[tuple[str, str, int, list[int], bool]]:
    for text, zone, start, steps in lines:
        if steps not in ("REFUSED", "BROKEN") and text not in ONLY_QUARTZ_ACCEPTS:
            yield text, zone, int(start), *recorded_firings(int(start), steps)


def test_refused_expressions_are_those_of_quartz() -> None:
    for text, _, _, steps in RECORDED:
        refused_by_quartz = steps == "REFUSED"
        try:
            Schedule.parse(text)
        except CronError:
            assert refused_by_quartz or text in ONLY_QUARTZ_ACCEPTS, text
        else:
            assert not refused_by_quartz or text in ONLY_WE_ACCEPT, text


def is_lost(text: str, instant: int, zone: str) -> bool:
    return (zone, text, f"{local(instant, zone):%Y-%m-%d %H:%M}") in LOST


def test_firings_without_the_clock_policy_are_those_of_quartz() -> None:
    # Quartz skips times in a gap and takes the second of two equal wall times, for every expression.
    compared = 0
    for text, zone, start, recorded, ended in answered():
        schedule = Schedule.parse(text, zone=zone, gap=Gap.SKIP, fold=Fold.BOTH)
        every = ours(schedule, start, recorded, ended)
        firings = [firing for firing in every if not comes_again(firing, zone) and not is_lost(text, firing, zone)]
        true = [firing for firing in recorded if (text, f"{local(firing, zone):%Y-%m-%d}") not in FALSE_31W]
        assert firings == true, (text, zone, start)
        compared += len(firings)
    assert compared > 20_000


def test_default_policy_differs_from_quartz_only_at_clock_changes() -> None:
    made_up_for = first_of_two = second_of_two = 0
    for text, zone, start, recorded, ended in answered():
        firings = ours(Schedule.parse(text, zone=zone), start, recorded, ended)
        for firing in set(firings) - set(recorded):
            assert comes_again(firing, zone) or ends_a_gap(firing, zone) or is_lost(text, firing, zone), (
                text,
                zone,
                firing,
            )
            made_up_for += ends_a_gap(firing, zone)
            first_of_two += comes_again(firing, zone)
        for firing in set(recorded) - set(firings):
            again = local(firing, zone).fold == 1  # we take the first of two equal wall times
            assert again or (text, f"{local(firing, zone):%Y-%m-%d}") in FALSE_31W, (text, zone, firing)
            second_of_two += again
    assert made_up_for > 20
    assert first_of_two > second_of_two > 10, "fixed times fire the first time, interval-like ones both times"


RECORDED_25 = [line.split("\t") for line in (TABLE.parent / "quartz25_firings.tsv").read_text("ascii").splitlines()]


def test_lists_with_special_days_and_steps_of_years_fire_as_in_quartz_2_5() -> None:
    for text, _, _, steps in RECORDED_25:
        if steps == "REFUSED" or text in ONLY_QUARTZ_ACCEPTS:
            with pytest.raises(CronError):
                Schedule.parse(text)
    compared = lost = 0
    for text, zone, start, recorded, ended in answered(RECORDED_25):
        schedule = Schedule.parse(text, zone=zone, gap=Gap.SKIP)
        firings = ours(schedule, start, recorded, ended)
        agent, at = FireTimes(schedule.table()), start * 1000
        for firing in firings:
            found = agent.next_after(at)
            assert found == firing * 1000, (text, start)
            at = found
        # If two items of a list lie close together, Quartz 2.5.2 loses one of them in some months.
        assert set(recorded) <= set(firings), (text, start)
        stepper, more = SlowStepper(text, zone, Dialect.QUARTZ, Gap.SKIP, Fold.AUTO), set(firings) - set(recorded)
        assert all(stepper.matches_day(local(firing, zone).date()) for firing in more)
        assert not more or ("," in text and len(more) <= 5), (text, more)
        compared += len(recorded)
        lost += len(more)
    assert compared > 3_000
    assert lost < 50


def test_table_of_a_schedule_has_the_form_that_older_executors_know_unless_it_needs_the_new_one() -> None:
    texts = "0 0 0 L * ?", "0 0 0 ? * FRI#2", "0 0 0 1,15 * ?", "0 0 0 1,L * ?", "0 0 0 L,LW * ?"
    tables = [Schedule.parse(text).table() for text in texts]
    assert [table["version"] for table in tables] == [1, 1, 1, 2, 2]
    assert [table["special_day"] and table["special_day"]["kind"] for table in tables[:2]] == ["last", "nth_weekday"]
    assert tables[0]["month_days"] == list(range(1, 32))
    assert ["special_days" in table for table in tables] == [False, False, False, True, True]


# Debian's cron, the Unix dialect.

DEBIAN = [line.split("\t") for line in (TABLE.parent / "debian_cron.tsv").read_text("ascii").splitlines()]
# Debian's cron reads a complete beginning and ignores the rest of the field.
IGNORED_REST = {"*5", "**", "*-5", "1-2-3", "0~59", "*/2/3", "1-9/2/3", "4294967297", "mon#1", "5#2"}
# Debian's cron accepts these ranges. They select nothing.
BACKWARDS = re.compile(r"(?i)(22-2|30-10|50-40|28-3|31-1|mar-jan|11-2|5-1|7-1|6-0|mon-sun|sat-sun|fri-mon)\b")
# Accepted here, because other crons have the value and stored jobs use it.
ONLY_HERE = {"5/15", "5/1", "7/2", "12/1", "@DAILY"}


def is_backwards(text: str) -> bool:
    return any(BACKWARDS.match(item) for field in text.split() for item in field.split(","))


def test_refused_unix_expressions_are_those_of_debian() -> None:
    for text, _, _, _, steps in DEBIAN:
        refused_there = steps == "REFUSED"
        try:
            Schedule.parse(text, dialect=Dialect.UNIX)
        except CronError:
            assert refused_there or is_backwards(text) or not IGNORED_REST.isdisjoint(text.split()), text
        else:
            assert not refused_there or not ONLY_HERE.isdisjoint(text.split()), text


def test_ranges_that_run_backwards_select_nothing_in_debian() -> None:
    alone = {text: steps for text, _, _, _, steps in DEBIAN if is_backwards(text)}
    assert len(alone) > 15
    never = {text for text, steps in alone.items() if not steps}
    other = {"30-10,7 * * * *", "50-40/3,7 * * * *", "0 */30,7 * * *", "0 0 31-1,4 * *", "0 0 28-3 * 1"}
    assert set(alone) - never == (other | {"0 0 5 * fri-mon"}) - {"0 */30,7 * * *"}


def minutes_of(start: int, steps: str) -> list[int]:
    return recorded_firings(start, steps)[0]


def test_unix_expressions_fire_as_in_debians_daemon() -> None:
    compared = 0
    for text, zone, start, end, steps in DEBIAN:
        if steps == "REFUSED" or is_backwards(text) or not IGNORED_REST.isdisjoint(text.split()):
            continue
        recorded = minutes_of(int(start), steps)
        schedule = Schedule.parse(text, zone=zone, dialect=Dialect.UNIX)
        firings = [at // 1000 for at in schedule.between(int(start) * 1000, int(end) * 1000, 100_000)]
        # Debian runs each time of a gap once, in the first minute after it. It then runs the times of this minute one
        # minute late. We run all of them together, at the end of the gap.
        there = {at - MINUTE if ends_a_gap(at - MINUTE, zone) and late(schedule, at) else at for at in recorded}
        assert firings == sorted(there), (text, zone, start)
        compared += len(firings)
    assert compared > 15_000


def late(schedule: Schedule, at: int) -> bool:
    """Whether the wall time of an instant is no time of the schedule."""
    wall = at * 1000 + round(offset(local(at, schedule.zone)).total_seconds()) * 1000
    plain = Schedule.parse(schedule.text, dialect=schedule.dialect)
    return plain.next_after(wall - 1) != wall


@pytest.mark.skipif(not pathlib.Path("/usr/bin/crontab").exists(), reason="the package cron is not installed")
def test_crontab_of_this_machine_accepts_the_recorded_expressions(tmp_path: pathlib.Path) -> None:
    for text, answer in {text: steps for text, _, _, _, steps in DEBIAN[:250]}.items():
        table = tmp_path / "table"
        table.write_text(f"{text} /bin/true\n")
        checked = subprocess.run(["/usr/bin/crontab", "-n", str(table)], check=False, capture_output=True)
        assert (checked.returncode == 0) == (answer != "REFUSED"), text


# cronsim, the Unix dialect.


def is_beyond_cronsim(change: int, zone: str) -> bool:
    """Whether cronsim 2.8 has a wrong result, or an endless loop, at a clock change.

    It steps in real hours and to midnights, even if these do not exist: half-hour changes (Lord Howe), changes at 00:01
    (St. John's), and gaps at midnight (Havana, São Paulo).
    """
    before, after = local(change - 1, zone), local(change, zone)
    return after.minute != 0 or (before + datetime.timedelta(seconds=1)).minute != 0 or before.date() != after.date()


@functools.lru_cache(maxsize=100_000)
def change_within(hour: int, zone: str) -> int | None:
    """The minute within an hour at which the zone's offset changes, in seconds; None if it does not."""
    for minute in range(hour, hour + 3600, MINUTE):
        if local(minute, zone).utcoffset() != local(minute - MINUTE, zone).utcoffset():
            return minute
    return None


@functools.lru_cache(maxsize=100_000)
def day_is_beyond_cronsim(day: int, zone: str) -> bool:
    if local(day - MINUTE, zone).utcoffset() == local(day + DAY, zone).utcoffset():
        return False
    changes = (change_within(hour, zone) for hour in range(day, day + DAY, 3600))
    return any(change is not None and is_beyond_cronsim(change, zone) for change in changes)


def cronsim_next(text: str, zone: str, start_ms: int) -> int | None:
    try:
        return round(next(CronSim(text, local(start_ms // 1000, zone))).timestamp()) * 1000
    except StopIteration:
        return None


def test_unix_expressions_fire_as_in_cronsim() -> None:
    dice = random.Random(f"cronsim {SEED}")
    print(f"JOBCLOUD_SEED={SEED}")
    wanted, compared = TRIPLES * 2 // 10, 0
    for zone, begin in pairs(dice):
        text = unix_expression(dice)
        schedule = Schedule.parse(text, zone=zone, dialect=Dialect.UNIX)
        for start in starts(dice, begin, [], begin + 4 * DAY):
            answer = schedule.next_after(start)
            days = range(start // 1000 // DAY * DAY, (answer or start) // 1000 + DAY, DAY)
            # For a start in the second of two equal hours, cronsim returns an instant of the past.
            if local(start // 1000, zone).fold or any(day_is_beyond_cronsim(day, zone) for day in days):
                continue
            assert answer == cronsim_next(text, zone, start), (text, zone, start)
            compared += 1
        if compared >= wanted:
            return
