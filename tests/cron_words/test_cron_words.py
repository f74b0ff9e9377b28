"""The words of cron expressions: a table that was checked by hand, and comparisons with the firings."""

from __future__ import annotations

import datetime
import itertools
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobcloud import zones
from jobcloud.cron import CronError, Dialect, Fold, Gap, Schedule
from jobcloud.cron_words import Language, describe

SEED = os.environ.get("JOBCLOUD_SEED", "2026")
PAIRS = int(os.environ.get("JOBCLOUD_CRON_WORDS", "3000"))
TABLE = Path(__file__).parents[1] / "data" / "cron_words.tsv"
ROWS = [tuple(line.split("\t")) for line in TABLE.read_text().splitlines() if not line.startswith("#")]
# 2026-10-23, two days before the clock goes back in Europe/Berlin.
START = 1_792_713_600_000
END = 1 << 45
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def test_table_has_enough_rows() -> None:
    assert len(ROWS) >= 60


@pytest.mark.parametrize(("dialect", "text", "zone", "english", "chinese"), ROWS, ids=[row[1] for row in ROWS])
def test_words_are_those_of_the_table(dialect: str, text: str, zone: str, english: str, chinese: str) -> None:
    schedule = Schedule.parse(text, zone=zone, dialect=Dialect(dialect))
    assert describe(schedule) == english
    assert describe(schedule, Language.ZH) == chinese


@pytest.mark.parametrize(
    ("text", "policy", "note"),
    [
        ("0 30 2 * * ?", {}, ""),
        ("0 30 2 * * ?", {"gap": Gap.SKIP}, "; times that the clock skips do not fire"),
        ("0 30 2 * * ?", {"fold": Fold.BOTH}, "; times that the clock repeats fire twice"),
        ("0 0/5 * * * ?", {}, ""),
        ("0 0/5 * * * ?", {"gap": Gap.SKIP}, ""),  # the firings are the same
        ("0 0/5 * * * ?", {"fold": Fold.ONCE}, "; times that the clock repeats fire once"),
    ],
)
def test_words_name_the_policy_that_the_times_do_not_tell(text: str, policy: dict[str, object], note: str) -> None:
    schedule = Schedule.parse(text, zone="Europe/Berlin", **policy)  # type: ignore[arg-type]
    assert describe(schedule).endswith(f"(Europe/Berlin{note})")


def test_words_of_utc_name_no_policy() -> None:
    assert describe(Schedule.parse("0 30 2 * * ?", gap=Gap.SKIP, fold=Fold.BOTH)) == "at 02:30 every day (UTC)"


def spans(dice: random.Random, low: int, high: int, *, wraps: bool) -> str:
    """A field without special days. Few values are preferred, so that equal words are frequent."""
    items = []
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        first, last = dice.choice((low, high, dice.randint(low, high))), dice.randint(low, high)
        if last < first and not wraps:
            first, last = last, first
        step = dice.choice((1, 2, 3, 4, 5, 7, 10, 15, 20, 30))
        step = min(step, high - low)
        items.append(dice.choice(("*", f"*/{step}", f"{first}", f"{first}-{last}", f"{first}/{step}")))
    return ",".join(items)


def expression(dice: random.Random) -> tuple[str, Dialect]:
    simple = dice.random() < 0.5

    def field(low: int, high: int, wraps: bool, usual: str) -> str:
        return usual if dice.random() < 0.45 else str(low) if simple else spans(dice, low, high, wraps=wraps)

    if dice.random() < 0.4:
        parts = [field(0, 59, False, "0"), field(0, 23, False, "*"), field(1, 31, False, "*")]
        return " ".join((*parts, field(1, 12, False, "*"), field(0, 7, False, "*"))), Dialect.UNIX
    days, weekdays = dice.choice(
        (
            (field(1, 31, True, "*"), "?"),
            ("?", field(1, 7, True, "*")),
            (dice.choice(("L", "LW", f"L-{dice.randint(1, 30)}", f"L-{dice.randint(1, 30)}W")), "?"),
            (f"{dice.randint(1, 31)}W", "?"),
            (",".join(dice.choices(("1", "15", "L", "LW", "L-1", "1W"), k=2)), "?"),
            ("?", dice.choice(("L", f"{dice.randint(1, 7)}L", f"{dice.randint(1, 7)}#{dice.randint(1, 5)}"))),
        )
    )
    years = field(2026, 2040, False, "*")
    clock = [field(0, 59, True, "0"), field(0, 59, True, "*"), field(0, 23, True, "*")]
    return " ".join((*clock, days, field(1, 12, True, "*"), weekdays, years)), Dialect.QUARTZ


def schedules(name: str, count: int) -> Iterator[Schedule]:
    dice = random.Random(f"{name} {SEED}")
    for _ in range(count):
        text, dialect = expression(dice)
        zone = dice.choice(("UTC", "Europe/Berlin"))
        gap, fold = dice.choice(list(Gap)), dice.choice(list(Fold))
        try:
            yield Schedule.parse(text, zone=zone, dialect=dialect, gap=gap, fold=fold)
        except CronError:
            continue


def next_50(schedule: Schedule) -> tuple[int, ...]:
    return schedule.between(START, END, 50)


@pytest.mark.parametrize("language", list(Language), ids=lambda language: language.value)
def test_schedules_with_equal_words_have_equal_firings(language: Language) -> None:
    by_words: dict[str, dict[str, Schedule]] = {}
    for schedule in schedules("equal words", PAIRS):
        same = by_words.setdefault(describe(schedule, language), {})
        same.setdefault(f"{schedule.text} {schedule.dialect} {schedule.gap} {schedule.fold}", schedule)
    compared = 0
    for words, same in by_words.items():
        first, *others = same.values()
        for other in others[:20]:
            compared += 1
            assert next_50(other) == next_50(first), f"{first} and {other}: {words}"
    assert compared > 50


def test_every_n_means_evenly_spaced_firings_from_midnight() -> None:
    units = {"second": 1_000, "minute": 60_000, "hour": 3_600_000}
    plain = [
        *(f"{first}/{step} * * * * ?" for step in range(1, 60) for first in (0, 1)),
        *(f"0 {first}/{step} * * * ?" for step in range(1, 60) for first in (0, 1)),
        *(f"0 0 {first}/{step} * * ?" for step in range(1, 24) for first in (0, 1)),
    ]
    seen = 0
    for text in plain:
        schedule = Schedule.parse(text)
        found = re.fullmatch(r"every (?:(\d+) )?(second|minute|hour)s? \(UTC\)", describe(schedule))
        times = schedule.between(START - 1, END, 100)
        gaps = {later - earlier for earlier, later in itertools.pairwise(times)}
        even = len(gaps) == 1 and times[0] == START and max(gaps) <= 3_600_000
        assert bool(found) is even, f"{text}: {describe(schedule)}, gaps of {gaps}"
        if found:
            seen += 1
            assert gaps == {int(found[1] or 1) * units[found[2]]}, text
    assert seen > 20


def test_every_n_between_two_times_names_evenly_spaced_firings_of_a_day() -> None:
    seen = 0
    for step in range(1, 60):
        for first in range(step):
            schedule = Schedule.parse(f"0 {first}/{step} 8-10 * * ?")
            pattern = r"every (?:(\d+) )?minutes? from (\d+):(\d+) to (\d+):(\d+) every day \(UTC\)"
            if found := re.fullmatch(pattern, describe(schedule)):
                seen += 1
                n, begin_h, begin, end_h, end = (int(group or 1) for group in found.groups())
                times = [(at - START) // 60_000 for at in schedule.between(START - 1, START + 86_399_000, 1000)]
                assert times == list(range(60 * begin_h + begin, 60 * end_h + end + 1, n)), schedule.text
    assert seen > 50


def named_weekdays(words: str) -> set[str]:
    """The weekdays in an English sentence, with those between the ends of a span."""
    words = words.replace(" (Monday to Friday)", "")
    span = re.search(rf"({'|'.join(WEEKDAYS)}) to ({'|'.join(WEEKDAYS)})", words)
    if span is None:
        return {day for day in WEEKDAYS if day in words}
    first, last = WEEKDAYS.index(span[1]), WEEKDAYS.index(span[2])
    return {WEEKDAYS[(first + n) % 7] for n in range((last - first) % 7 + 1)}


def test_words_name_the_weekdays_and_times_that_fire() -> None:
    dice = random.Random(f"weekdays {SEED}")
    for _ in range(400):
        days = dice.choice((spans(dice, 1, 7, wraps=True), f"{dice.randint(1, 7)}L", f"{dice.randint(1, 7)}#2"))
        hours = ",".join(str(dice.randint(3, 23)) for _ in range(3))
        schedule = Schedule.parse(f"0 {dice.randint(0, 59)} {hours} ? * {days}", zone="Europe/Berlin")
        words = describe(schedule)
        fired = [
            datetime.datetime.fromtimestamp(instant / 1000, zones.zone("Europe/Berlin"))
            for instant in schedule.between(START, START + 70 * 86_400_000, 300)
        ]
        assert {f"{moment:%H:%M}" for moment in fired} == set(re.findall(r"\d\d:\d\d", words)), words
        named = named_weekdays(words) or set(WEEKDAYS)
        assert {f"{moment:%A}" for moment in fired} == named, f"{schedule.text}: {words}"


def test_words_of_a_long_expression_are_bounded() -> None:
    """Each field names at most its own values, so the words of the longest expressions have a limit."""
    longest = max(len(describe(schedule, language)) for schedule in schedules("long", 2000) for language in Language)
    seconds = ",".join(str(n) for n in range(60) if n % 3 and n % 7)
    hours = "0,1,3,4,6,7,9,10,12,13"
    years = "2026,2027,2029,2030,2032"
    schedule = Schedule.parse(f"{seconds} 0,1,3,4,6,7,9,11,12 {hours} 1,2,4,5,7,8 1,2,4,5,7 ? {years}")
    assert max(longest, len(describe(schedule))) < 1000
