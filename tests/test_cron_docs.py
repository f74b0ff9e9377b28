"""The tables of docs/cron.md say what the dialects do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jobcloud.cron import CronError, Dialect, Schedule

DOC = (Path(__file__).parents[1] / "docs" / "cron.md").read_text()
# 2026-12-01T00:00Z, a Tuesday
START = 1_796_083_200_000
MINUTE = 60_000


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    text = DOC.partition(f"\n{heading}\n")[2]
    table = re.search(r"\n(\|.*?)\n\n", text, re.DOTALL)
    assert table, heading
    lines = [line for line in table[1].splitlines() if not line.startswith("| ---")][1:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def expression(cell: str, code: str) -> str:
    """A field, or a whole expression, as a Unix expression."""
    if " " in code or code.startswith("@"):
        return code
    weekday = "weekday" in cell or re.fullmatch(r"[a-z]{3}[-#].*|5-1|7-1", code)
    if re.fullmatch("nov|dec|oct|nov-feb|jan-mar|12/1", code):
        return f"0 0 1 {code} *"
    if code in ("15W", "L"):
        return f"0 0 {code} * *"
    return f"0 0 * * {code}" if weekday else f"{code} * * * *"


def answer(text: str, dialect: Dialect) -> Schedule | None:
    try:
        return Schedule.parse(text, dialect=dialect)
    except CronError:
        return None


@pytest.mark.parametrize("row", rows("### Differences from Debian's cron"), ids=lambda row: row[0])
def test_differences_from_debian_are_as_the_table_says(row: list[str]) -> None:
    text, _, here, _ = row
    codes = re.findall(r"`([^`]+)`", text.partition(",  ")[0])
    assert codes
    for code in codes:
        # One row names several fields in one cell.
        where = code if "(weekday)" in text and "(month)" in text else text
        found = answer(expression("weekday" if code == "7/2" else where, code), Dialect.UNIX)
        assert (found is None) == (here == "refused"), code
    if "minutes 5, 20, 35 and 50" in here:
        assert found is not None
        times = found.between(START - 1, START + 59 * MINUTE, 9)
        assert [(at - START) // MINUTE for at in times] == [5, 20, 35, 50]


def test_schedules_from_other_programs_are_refused_if_the_table_says_so() -> None:
    checked = 0
    for _, text, _, here in rows("### Schedules from other programs"):
        for code in re.findall(r"`([^`]+)`", text):
            found = answer(expression(text, code), Dialect.UNIX)
            if code != "0,x" or here == "refused":
                assert (found is None) == (here == "refused"), (text, here)
                checked += 1
    assert checked > 12


MEANINGS = {
    "5/15": "5/15 0 0 * * ?", "*/15": "*/15 0 0 * * ?", "/15": "/15 0 0 * * ?", "22-2": "0 0 22-2 * * ?",
    "FRI-MON": "0 0 0 ? * FRI-MON", "NOV-FEB": "0 0 0 1 NOV-FEB ?", "6L": "0 0 0 ? * 6L", "FRIL": "0 0 0 ? * FRIL",
    "6#2": "0 0 0 ? * 6#2", "FRI#2": "0 0 0 ? * FRI#2", "#5": "0 0 0 ? * 6#5",
}  # fmt: skip


def test_texts_of_the_quartz_table_are_accepted() -> None:
    table = re.search(r"\n\| text \| meaning \|\n.*?\n\n", DOC, re.DOTALL)
    assert table
    codes = [code for line in table[0].splitlines()[3:] for code in re.findall(r"`([^`]+)`", line)]
    assert len(codes) > 15
    for code in codes:
        assert answer(MEANINGS.get(code, f"0 0 0 {code} * ?"), Dialect.QUARTZ), code


def test_fields_of_the_quartz_table_have_the_ranges_that_it_says() -> None:
    names = {"seconds": 0, "minutes": 1, "hours": 2, "day of month": 3, "month": 4, "day of week": 5, "year": 6}
    for name, values, _ in rows("## Quartz dialect (the default)"):
        low, high = re.findall(r"\d+", values)[:2]
        for field in name.split(", "):
            place = names[field]
            for value, fits in ((low, True), (high, True), (str(int(low) - 1), False), (str(int(high) + 1), False)):
                parts = ["0", "0", "0", "?" if place == 5 else "1", "1", "1" if place == 5 else "?", "2030"]
                parts[place] = value
                assert bool(answer(" ".join(parts), Dialect.QUARTZ)) is fits, (field, value)


def test_words_of_the_table_are_those_of_the_expressions() -> None:
    from jobcloud.cron_words import describe

    compared = 0
    for text, words in rows("## In words"):
        code = re.match(r"`([^`]+)`", text)
        if not code:
            continue
        dialect = Dialect.UNIX if "(Unix)" in text else Dialect.QUARTZ
        zone = "Europe/Berlin" if "Europe/Berlin" in text else "UTC"
        assert describe(Schedule.parse(code[1], dialect=dialect, zone=zone)) == words
        compared += 1
    assert compared >= 7
