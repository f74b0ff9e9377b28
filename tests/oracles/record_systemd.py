"""Record tests/data/systemd_calendar.tsv from `systemd-analyze calendar`, so that the tests need no systemd.

    python tests/oracles/record_systemd.py

Each line of the table is "expression TAB start TAB steps": the seconds from the start to the next elapse, from there to
the one after it, and so on; END if there is none; or REFUSED. systemd is that of Debian 12, 252. Expressions with clock
changes are recorded in the past, which later versions of the tz database do not change.
"""

from __future__ import annotations

import calendar
import datetime
import pathlib
import random
import re
import subprocess

TABLE = pathlib.Path(__file__).parent.parent / "data" / "systemd_calendar.tsv"
COUNT = 12

GIVEN = (
    """
minutely|hourly|daily|weekly|monthly|quarterly|semiannually|yearly|annually|Daily|*-*-* 00/7:00|Mon *-*~07/1|*:0/15
*-*-1,15 3:00|Mon..Fri 9..17:30|Mon-Fri|2027/2-1-1|*-*-*/5|*/2:00|*-*~01|*-*~03|*-02~01..03|10:00:30.5|*-*-* *:*:0/20
Sat,Sun|*-1..6/2-1|12-25|Mon,Wed..Fri 10:00|*-*-31|5:0/7..30|*:10..50/15|Fri..Mon|20..22:00|22..2:00|0/0:00|*:*|*:00/60
2027-01-01|mon|MONDAY 12:00|*-*-* 24:00|*-*-*~2|Mon *-*-01..07|Tue *-*-8..14 6:00|Sun *-*-29..31|Mon *-*-01..06|*-*-32
Fri *-*-22..28 1:02:03|*-13-01|*-*-0|foo|Mon foo|1:2:3:4|25:00|12:60|*-*-*|*-02-29|2028-02-29 12:00|*-*-1..31/10
*-*~07/1|*-*~01,03|Mon..Sun|Mon,Tue,Wed,Thu,Fri,Sat,Sun 8:00|2030..2032-*-1|Sun *-*~07/1 04:00|*-01,04-1/7 0:0
*-*-28..31 23:59:59
""".strip()
    .replace("\n", "|")
    .split("|")
)
CLOCKS = (
    """
*-*-* 02:30:00|*-*-* *:0/30|*-*-* 2:0/15|*-*-* 01..03:00|hourly|daily|*-*-* 03:00|*-*-* 00:30|Sun 02:00|*-*-* 0/2:15
""".strip()
    .replace("\n", "|")
    .split("|")
)
CHANGES = [
    ("Europe/Berlin", (2023, 3, 25, 22)),
    ("Europe/Berlin", (2023, 10, 28, 21)),
    ("America/New_York", (2022, 11, 6, 2)),
    ("Asia/Kolkata", (2022, 11, 5, 18)),
]
_ELAPSE = re.compile(r"(?:Next elapse|Iter\. #\d+): (?:\w+ )?(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC")


def component(dice: random.Random, low: int, high: int) -> str:
    first, last = sorted((dice.randint(low, high), dice.randint(low, high)))
    step = dice.randint(1, max(1, (high - low) // 2))
    one = ["*", str(first), f"{first}..{last}", f"{first}/{step}", f"{first}..{last}/{step}", f"{first},{last}"]
    return dice.choice(one)


def random_expression(dice: random.Random) -> str:
    """An expression that systemd accepts nearly always."""
    weekdays = dice.choice(["", "", "", "Mon ", "Mon..Fri ", "Sat,Sun ", "Tue,Thu..Sat "])
    day = "*" if weekdays else component(dice, 1, 31)
    date = dice.choice(["", f"*-{component(dice, 1, 12)}-{day} ", f"{dice.choice(['*', '2027/3'])}-*-{day} "])
    if not weekdays and dice.random() < 0.15:
        date = f"*-{component(dice, 1, 12)}~{dice.choice(['1', '02', '1..5', '7/1', '1,4'])} "
    time = f"{component(dice, 0, 23)}:{component(dice, 0, 59)}"
    return f"{weekdays}{date}{dice.choice([time, f'{time}:{component(dice, 0, 59)}'])}"


def questions() -> list[tuple[str, int]]:
    """All questions: expression, start."""
    dice = random.Random(1)
    start = calendar.timegm((2026, 1, 30, 22, 59, 31))
    asked = [(text, start) for text in GIVEN] + [(random_expression(dice), start) for _ in range(250)]
    asked += [(f"{text} {zone}", calendar.timegm((*at, 0, 0))) for zone, at in CHANGES for text in CLOCKS]
    return list(dict.fromkeys(asked))


def elapses(text: str, start: int, count: int = COUNT) -> list[int] | None:
    """The next elapses, in seconds; None if systemd refuses the expression."""
    base = datetime.datetime.fromtimestamp(start, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    command = ["systemd-analyze", "calendar", f"--iterations={count}", f"--base-time={base}", text]
    answer = subprocess.run(command, check=False, capture_output=True, text=True, env={"TZ": "UTC", "PATH": "/usr/bin"})
    if answer.returncode:
        return None
    found = [datetime.datetime.fromisoformat(f"{at}+00:00") for at in _ELAPSE.findall(answer.stdout)]
    # An elapse is shown twice: as local time, and "(in UTC)" if they differ.
    return sorted({round(at.timestamp()) for at in found})


def main() -> None:
    """Ask systemd-analyze, and write the table."""
    lines = []
    for text, start in questions():
        found = elapses(text, start)
        steps = "REFUSED"
        if found is not None:
            distances = [str(at - before) for before, at in zip([start, *found], found, strict=False)]
            steps = " ".join(distances + ["END"] * (len(found) < COUNT))
        lines.append(f"{text}\t{start}\t{steps}\n")
    TABLE.write_text("".join(lines), "ascii")


if __name__ == "__main__":
    main()
