"""Record tests/data/debian_cron.tsv from Debian's cron daemon itself, so that the tests need no cron.

    apt-get download cron && dpkg-deb -x cron_*.deb ROOT
    python tests/oracles/record_cron.py ROOT

The daemon (3.0pl1-162 of Debian 12) runs as root in a mount namespace of its own, with `cron_clock.c` in place of the
clock: a year takes some seconds, and no command runs. Each line of the table is "expression TAB zone TAB start TAB end
TAB steps": the start and the end in seconds, then the seconds from the start to the first firing, from there to the
next, and so on; or REFUSED if `crontab -n` does not accept the expression. A firing counts at the second at which the
daemon starts the command, cut to whole minutes. Zones with clock changes are recorded in the past, which later versions
of the tz database do not change.
"""

from __future__ import annotations

import calendar
import os
import pathlib
import random
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
TABLE = HERE.parent / "data" / "debian_cron.tsv"
MINUTE, DAY = 60, 86_400


def words(text: str) -> list[str]:
    return text.split()


# One field at a time. `crontab -n` decides which of them the daemon sees.
MINUTES = words("""
* 5 007 1,2 1-5 1-5/2 */7 */60 */59 */61 */100,1-7 */100 22-2 30-10,7 50-40/3,7 5-5/3 7-7 0-59/60 1-9/20 10-20/99999 *,5
*/5,*/7 5/15 5/1 ,1 1, 1,,2 60 -5 +5 5- 1/ */0 */ */x 1-5/0 ? L 1-* 10-60 99999999999
""")
# Debian's cron ignores text behind a complete number or star, and numbers wrap around. This program refuses them.
JUNK = words("*5 ** *-5 1-2-3 0~59 */2/3 1-9/2/3 4294967297")
HOURS = words("* 0 23 1,2 8-17 8-17/3 */5 */24 */25 22-2 */30,7 24 20-24 0-23/23")
DAYS = words("* 1 31 1,15 */2 */40 28-3 31-1,4 1-31 0 0-5 32 L 15W ? 10-20/7")
MONTHS = words("* 1 12 JAN jan Dec jan-mar mar-jan 11-2 */13 */5 1-12/20 feb,4 dec-dec 0 0-12 13 january 12/1")
WEEKDAYS = words("""
* 0 7 1 0-7 6-7 5-7 1-7/2 0-7/7 */7 */8 */3 5-1 7-1 6-0 7-7 mon Mon MON,wed mon-fri mon-sun sun-mon sat-sun sun-sat
fri-mon 1-mon mon-5 mon-fri/2 7/2 8 1-8 monday 5L */mon
""")
JUNK_WEEKDAYS = ["mon#1", "5#2"]
EITHER = (
    """
0 0 13 * 5|0 0 */2 * 1|0 0 1-31 * 1|0 0 28-3 * 1|0 0 *,5 * 1|0 0 5 * fri-mon|0 0 5 * */2|0 0 */40 * 1|0 0 1,15 * mon-fri
0 0 31-1 * *|0 0 * 2 1-5/2|0 0 29 2 *
""".strip()
    .replace("\n", "|")
    .split("|")
)
MACROS = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly", "@DAILY", "@every_minute"]

CLOCKS = (
    """
30 2 * * *|0 2 * * *|30 1 * * *|0 1 * * *|0 3 * * *|0 0 * * *|30 0 * * *|0 1-4 * * *|*/30 * * * *|0 * * * *|*/15 2 * * *
5,35 1,2 * * *|0 */2 * * *|30 */1 * * *|*/60 2 * * *|0-59/30 2 * * *|45 1 * * sun|15 2 1-31 * *|@hourly|@daily
59 1 * * *
""".strip()
    .replace("\n", "|")
    .split("|")
)
# A zone, and an instant some hours before a clock change: forward, back, and by half an hour.
CHANGES = [
    ("Europe/Berlin", (2023, 3, 25, 12)),
    ("Europe/Berlin", (2023, 10, 28, 12)),
    ("America/New_York", (2022, 3, 12, 18)),
    ("America/New_York", (2022, 11, 5, 18)),
    ("Australia/Lord_Howe", (2021, 10, 2, 3)),
    ("Australia/Lord_Howe", (2021, 4, 3, 3)),
    ("America/Sao_Paulo", (2018, 11, 3, 15)),
    ("America/Sao_Paulo", (2018, 2, 17, 15)),
    ("Asia/Kolkata", (2022, 11, 5, 18)),
]

_NAMESPACE = """set -e
for path in /run /var/spool /etc/cron.d; do mkdir -p $path; mount -t tmpfs none $path; done
if [ -e /etc/crontab ]; then mount --bind /dev/null /etc/crontab; fi
mkdir -p /var/spool/cron/crontabs
cp "$1" /var/spool/cron/crontabs/root
chmod 600 /var/spool/cron/crontabs/root
LD_PRELOAD="$2" "$3/usr/sbin/cron" -f
"""

Question = tuple[str, str, int, int]


def random_field(dice: random.Random, low: int, high: int) -> str:
    """The text of one field that crontab(5) describes, steps larger than the field included."""
    first, second = sorted((dice.randint(low, high), dice.randint(low, high)))
    step = dice.randint(1, high + 5)
    one = ["*", str(first), f"{first}-{second}", f"{first}-{second}/{step}", f"*/{step}", f"{first},{second}"]
    return dice.choice([*one, f"{second},{first}-{second}/{step}", f"*/{step},{first}"])


def random_expression(dice: random.Random) -> str:
    """At most two times a day, so that the table stays small."""
    minute, hour = str(dice.randint(0, 59)), dice.choice([str(dice.randint(0, 23)), "1,13", "*/30", "*/15"])
    day, month, weekday = random_field(dice, 1, 31), random_field(dice, 1, 12), random_field(dice, 0, 7)
    return f"{minute} {hour} {dice.choice(['*', day])} {dice.choice(['*', month])} {dice.choice(['*', weekday])}"


def questions() -> list[Question]:
    """All questions: expression, zone, start, end."""
    dice = random.Random(1)
    start = calendar.timegm((2026, 1, 31, 22, 59, 30))
    asked = [(f"{text} * * * *", "UTC", start, start + 3_600) for text in (*MINUTES, *JUNK)]
    asked += [(f"0 {text} * * *", "UTC", start, start + DAY) for text in HOURS]
    asked += [(f"0 0 {text} * *", "UTC", start, start + 61 * DAY) for text in DAYS]
    asked += [(f"0 0 1 {text} *", "UTC", start, start + 366 * DAY) for text in MONTHS]
    asked += [(f"0 0 * * {text}", "UTC", start, start + 10 * DAY) for text in (*WEEKDAYS, *JUNK_WEEKDAYS)]
    asked += [(text, "UTC", start, start + 61 * DAY) for text in EITHER]
    asked += [(text, "UTC", start, start + 3 * DAY) for text in MACROS]
    asked += [(random_expression(dice), "UTC", start, start + 366 * DAY) for _ in range(120)]
    for zone, at in CHANGES:
        begin = calendar.timegm((*at, 0, 30))
        asked += [(text, zone, begin, begin + 2 * DAY) for text in CLOCKS]
    return asked


class Daemon:
    """Debian's cron and crontab below a directory."""

    def __init__(self, root: str, folder: pathlib.Path) -> None:
        self.root, self.folder = root, folder
        self.clock = folder / "clock.so"
        compiler = ["gcc", "-O1", "-Wall", "-shared", "-fPIC", "-o", str(self.clock), str(HERE / "cron_clock.c")]
        subprocess.run(compiler, check=True)

    def accepts(self, text: str) -> bool:
        """Whether `crontab -n`, which only checks, accepts a line with this expression."""
        table = self.folder / "one"
        table.write_text(f"{text} /bin/true\n")
        checked = subprocess.run([f"{self.root}/usr/bin/crontab", "-n", str(table)], check=False, capture_output=True)
        return checked.returncode == 0

    def firings(self, texts: list[str], zone: str, start: int, end: int) -> list[list[int]]:
        """The firings of each expression, in seconds."""
        table, log = self.folder / "table", self.folder / "log"
        table.write_text("".join(f"{text} line{number}\n" for number, text in enumerate(texts)))
        log.unlink(missing_ok=True)
        clock = {"CRON_CLOCK_START": str(start), "CRON_CLOCK_END": str(end), "CRON_CLOCK_LOG": str(log), "TZ": zone}
        command = ["unshare", "-m", "sh", "-c", _NAMESPACE, "sh", str(table), str(self.clock), self.root]
        subprocess.run(command, check=True, env={**os.environ, **clock})
        found: list[list[int]] = [[] for _ in texts]
        for line in log.read_text().splitlines():
            second, _, said = line.partition("\t")
            if "(line" not in said:
                raise RuntimeError(said)
            found[int(said.partition("(line")[2].rstrip(")"))].append(int(second) // MINUTE * MINUTE)
        return found


def steps(firings: list[int], start: int) -> str:
    return " ".join(str(firing - before) for before, firing in zip([start, *firings], firings, strict=False))


def main(root: str) -> None:
    """Ask the daemon once for each zone and period, and write the table."""
    asked = questions()
    answers: dict[Question, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        daemon = Daemon(root, pathlib.Path(folder))
        answers = {question: "REFUSED" for question in asked if not daemon.accepts(question[0])}
        for period in sorted({question[1:] for question in asked}):
            texts = [question[0] for question in asked if question[1:] == period and question not in answers]
            found = daemon.firings(texts, *period)
            answers |= {(text, *period): steps(firings, period[1]) for text, firings in zip(texts, found, strict=True)}
    with TABLE.open("w") as table:
        for question in asked:
            table.write("\t".join([*map(str, question), answers[question]]) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
