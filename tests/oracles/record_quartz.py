"""Record tests/data/quartz_firings.tsv from Quartz itself, so that the tests need no Java.

    python tests/oracles/record_quartz.py /usr/share/java/quartz2.jar:/usr/share/java/slf4j-api.jar

The class path is that of Debian's libquartz2-java (Quartz 2.3.2), with a JDK 17. Each line of the table is
"expression TAB zone TAB start TAB steps": the seconds from the start to the first firing, from there to the next, and
so on; END if Quartz has no further firing before 2100, BROKEN if it throws, REFUSED if it does not accept the
expression. Zones with clock changes are recorded in the past, which later versions of the tz database do not change.

    python tests/oracles/record_quartz.py CLASSES lists

records tests/data/quartz25_firings.tsv: lists with L and W, and steps of years, from Quartz 2.5.2. CLASSES is a
directory with its class org.quartz.CronExpression, which needs nothing but the JDK to compile.
"""

from __future__ import annotations

import calendar
import pathlib
import random
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
TABLE = HERE.parent / "data" / "quartz_firings.tsv"
LISTS_TABLE = HERE.parent / "data" / "quartz25_firings.tsv"

FEATURES = (
    """
* * * * * ?|0/5 * * * * ?|*/7 * * * * ?|/20 * * * * ?|5/15 * * * * ?|0 * * * * ?|0 0/5 * * * ?|0 5/15 * * * ?
0 59/15 * * * ?|0 10-50/15 * * * ?|0 5-5 * * * ?|0 0 * * * ?|0 0 0/6 * * ?|0 0 22-2 * * ?|0 0 22-4/2 * * ?
50-10 0 0 * * ?|50-10/5 0 0 * * ?|0 55-5/3 12 * * ?|0 0 12 * * ?|0 15 10 ? * *|0 15 10 * * ? *|0 15 10 * * ? 2027
0 0/5 14,18 * * ?|0 10,44 14 ? 3 WED|0 15 10 ? * MON-FRI|0 15 10 15 * ?|0 15 10 L * ?|0 15 10 L-2 * ?|0 0 0 L-0 * ?
0 0 0 L-3 * ?|0 0 0 L-27 * ?|0 0 0 L-28 * ?|0 0 0 L-30 * ?|0 0 0 LW * ?|0 0 0 L-3W * ?|0 0 0 L-1W * ?|0 30 8 L-2W * ?
0 0 0 15W * ?|0 0 0 1W * ?|0 0 0 30W * ?|0 0 0 31W * ?|0 0 0 28W 2 ?|0 0 0 31W 1,5,10 ?|0 0 9 16w * ?|0 0 0 29W * ?
0 15 10 ? * 6L|0 15 10 ? * FRIL|0 0 0 ? * 1L|0 0 0 ? * 7L|0 15 10 ? * 6#3|0 0 0 ? * FRI#2|0 0 0 ? * 2#1|0 0 0 ? * 4#5
0 0 0 ? 2 2#5|0 0 0 ? * L|0 0 0 ? * 1|0 0 0 ? * 7|0 0 0 ? * 2-6|0 0 0 ? * FRI-MON|0 0 0 ? * 6-2|0 0 0 ? * 1/2
0 0 0 ? * 2/3|0 0 0 ? * */2|0 0 0 ? * SUN,WED|0 0 0 ? * mon,fri|0 0 0 ? NOV-FEB 3|0 0 0 1 11-2/2 ?|0 0 0 1 JAN,jul ?
0 0 0 1 7/6 ?|0 0 0 1 2/4 ?|0 0 0 28-3 * ?|0 0 0 28-3/2 * ?|0 0 0 1/5 * ?|0 0 0 10/7 * ?|0 0 0 */9 * ?|0 0 0 29 2 ?
0 0 0 30 2 ?|0 0 0 31 4 ?|0 0 0 31 * ?|0 0 0 1 1 ? 2099|0 0 0 1 1 ? 2028/4|0 0 0 1 1 ? 2027,2031-2033|0 0 0 1 1 ? 2020
0 0 0 29 2 ? 2027-2029|11 11 11 11 11 ?|0 0 0 ? * 1-1|59 59 23 31 12 ?|0 0 0 ? 12 7#5 2027-2030|0 0 0 L 2 ?
""".replace("\n", "|")
    .strip("|")
    .split("|")
)

GRAMMAR = (
    """
* * * * * *|0 0 0 ? * ?|0 0 0 1 * 1|0 0 0 * * MON|0 0 0 * * *|? * * * * ?|* * * * *||0|0 0 0 1 1|60 * * * * ?
* 60 * * * ?|* * 24 * * ?|* * * 0 * ?|* * * 32 * ?|* * * * 0 ?|* * * * 13 ?|* * * ? * 0|* * * ? * 8|0/60 * * * * ?
* 0/60 * * * ?|* * 0/24 * * ?|* * * 1/32 * ?|* * * * 1/13 ?|* * * ? * 1/8|*/60 * * * * ?|0 0 0 L,15 * ?|0 0 0 1,LW * ?
0 0 0 ? * 6L,2|0 0 0 ? * 6#0|0 0 0 ? * 6#6|0 0 0 ? * 6#1,2#2|0 0 0 ? * FRI#|0 0 0 L-31 * ?|0 0 0 32W * ?|0 0 0 ? * FOO
0 0 0 1 FOO ?|a * * * * ?|-1 * * * * ?|0 0 0 ? * 2-FRI|0 0 0 1 1 ? 2030-2020|0 / * * * ?|0 0/ * * * ?|0 1/x * * * ?
0 W * * * ?|0 L * * * ?|0 0 0 * L ?|0 0 0 W * ?|0 0 0 ? * 8L|0 0 0 ? * #2|0 0 0 ? * MON#2,TUE#1|0 0 0 ? * 6#x
0 0 0 1 JAN-FOO ?|0 0 0 ? * MON-FOO|$ * * * * ?|0 0 0 1 1 ? 20x0
""".replace("\n", "|")
    .strip("|")
    .split("|")
)

CLOCKS = (
    """
0 30 2 * * ?|0 0 2 * * ?|0 30 1 * * ?|0 0 1 * * ?|0 0 3 * * ?|0 0 0 * * ?|0 30 0 * * ?|0 0 1-4 * * ?|0 30 23 * * ?
0 0/30 * * * ?|0 0 * * * ?|0 0/15 2 * * ?|0 5,35 1,2 * * ?|0 0 0/2 * * ?|0 0 12 * * ?|0 15 2 L * ?|0 45 1 ? * SUN
""".replace("\n", "|")
    .strip("|")
    .split("|")
)

# A zone, and an instant within the day before a clock change: forward, back, and unusual ones.
CHANGES = [
    ("Europe/Berlin", (2023, 3, 25, 12)),
    ("Europe/Berlin", (2023, 10, 28, 12)),
    ("America/New_York", (2022, 3, 12, 18)),
    ("America/New_York", (2022, 11, 5, 18)),
    ("America/Sao_Paulo", (2018, 11, 3, 15)),
    ("America/Sao_Paulo", (2018, 2, 17, 15)),
    ("Australia/Lord_Howe", (2021, 10, 2, 3)),
    ("Australia/Lord_Howe", (2021, 4, 3, 3)),
    ("Pacific/Apia", (2011, 12, 29, 22)),
    ("America/St_Johns", (2006, 4, 1, 15)),
    ("America/St_Johns", (2006, 10, 28, 15)),
    ("Asia/Kolkata", (2022, 11, 5, 18)),
    ("Africa/Casablanca", (2022, 3, 26, 12)),
]


def number(dice: random.Random, low: int, high: int) -> str:
    """The text of one field that Quartz interprets as documented."""
    first, second = dice.randint(low, high), dice.randint(low, high)
    limit = min(high, {6: 7}.get(high, high))
    return dice.choice(
        [
            "*",
            str(first),
            f"{first}-{second}",
            f"{first}-{second}/{dice.randint(2, 5)}",
            f"{first}/{dice.randint(1, limit)}",
            f"*/{dice.randint(1, limit)}",
            f"{first},{second},{dice.randint(low, high)}",
        ]
    )


def random_expression(dice: random.Random) -> str:
    """An expression without L, W and #, which FEATURES covers."""
    day, weekday = (number(dice, 1, 31), "?") if dice.random() < 0.5 else ("?", number(dice, 1, 7))
    minute, hour = number(dice, 0, 59), number(dice, 0, 23)
    return (
        f"{dice.choice(['0', str(dice.randint(0, 59)), '*/20'])} {minute} {hour} {day} {number(dice, 1, 12)} {weekday}"
    )


def questions() -> list[str]:
    """All questions: expression, zone, start, number of firings."""
    dice = random.Random(1)
    starts = [calendar.timegm((2026, 1, 30, 22, 59, 31)), calendar.timegm((2027, 12, 31, 23, 59, 59))]
    asked = [(text, "UTC", start, 14) for text in FEATURES for start in starts]
    asked += [(text, "UTC", starts[0], 4) for text in GRAMMAR]
    asked += [(random_expression(dice), "UTC", dice.randrange(1_600_000_000, 2_500_000_000), 10) for _ in range(1500)]
    asked += [(text, zone, calendar.timegm((*at, 0, 0)), 40) for zone, at in CHANGES for text in CLOCKS]
    return ["\t".join(map(str, line)) for line in asked]


LISTS = (
    """
0 0 0 1,L * ?|0 0 0 L,1 * ?|0 0 0 L-1W,L-1 * ?|0 0 0 1W,15W * ?|0 0 0 LW,15 * ?|0 0 0 L,LW * ?|0 0 0 31W,1 * ?
0 0 0 L-28W,5 * ?|0 0 0 L-30,5 * ?|0 0 0 10-20/5,L-2W * ?|0 0 0 *,L * ?|0 0 0 1W,1W * ?|0 0 0 1,L-3,15W,LW * ?
0 0 0 29W,1 2 ?|0 0 0 30W,31 2 ?|0 0 0 l,lw,3w 4 ?|0 0 0 28-3,L * ?|0 0 0 1,L * ? 2028/4|0 0 0 1 1 ? /2|0 0 0 1 1 ? */3
0 0 0 1 1 ? /1|0 0 0 29 2 ? /3|0 0 0 L,? * ?|0 0 0 L3,1 * ?|0 0 0 1,32W * ?|0 0 0 L-31,1 * ?|0 0 0 ? * 2,6L
0 0 0 ? * 6#3,2|0 0 0 ? * MON#2,TUE|0 0 0 1,L * 2|0 0 0 1 1 ? /
""".strip()
    .replace("\n", "|")
    .split("|")
)


def random_list(dice: random.Random) -> str:
    """Two to four items, at least one of them with L or W."""
    signs = ["L", "LW", f"L-{dice.randint(0, 30)}", f"L-{dice.randint(0, 27)}W", f"{dice.randint(1, 31)}W"]
    plain = [str(dice.randint(1, 31)), f"{dice.randint(1, 31)}-{dice.randint(1, 31)}/7", f"{dice.randint(20, 31)}/4"]
    items = [dice.choice(signs), *dice.sample(signs + plain, dice.randint(1, 3))]
    dice.shuffle(items)
    return f"0 0 {dice.randint(0, 23)} {','.join(items)} {dice.choice(['*', '2', '4', '1-12/5'])} ?"


def list_questions() -> list[str]:
    dice = random.Random(1)
    start = calendar.timegm((2026, 1, 30, 22, 59, 31))
    asked = [*LISTS, *(random_list(dice) for _ in range(250))]
    return [f"{text}\tUTC\t{start}\t16" for text in asked]


def steps(answer: str, start: int) -> str:
    """The firings as distances, which halves the size of the table."""
    distances: list[str] = []
    for firing in answer.split():
        if not firing.isdigit():
            return " ".join([*distances, firing])
        distances.append(str(int(firing) - start))
        start = int(firing)
    return " ".join(distances)


def main(class_path: str, lists: bool) -> None:
    """Compile the recorder, ask Quartz, and write the table."""
    asked, path = (list_questions(), LISTS_TABLE) if lists else (questions(), TABLE)
    with tempfile.TemporaryDirectory() as out:
        subprocess.run(["javac", "-cp", class_path, "-d", out, str(HERE / "QuartzRecorder.java")], check=True)
        command = ["java", "-cp", f"{class_path}:{out}", "QuartzRecorder"]
        answers = subprocess.run(command, input="\n".join(asked), check=True, capture_output=True, text=True)
    with path.open("w") as table:
        for line in answers.stdout.splitlines():
            expression, zone, start, _, answer = line.split("\t")
            table.write(f"{expression}\t{zone}\t{start}\t{steps(answer, int(start))}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:] == ["lists"])
