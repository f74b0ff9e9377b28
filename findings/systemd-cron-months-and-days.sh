#!/bin/sh
# systemd-cron 1.15.19 (Debian 12's replacement for cron) turns crontab lines into systemd timers that fire at other
# times than cron's:
# - its list of month names has no "oct": "oct" makes no timer, "nov" fires in October, "dec" in November;
# - a day of the month and a weekday together mean both (AND); cron means either (OR);
# - "5/15" is minute 5 alone; Debian's cron refuses the line.
# An importer must read the crontab itself and must not take the generated timers for the author's intention.
# Seen on 2026-11-30 with the output below. The script fails if the behaviour changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -q systemd-cron=1.15.19-5 >/dev/null 2>&1
dpkg-deb -x systemd-cron_1.15.19-5_*.deb package
python3 - package/lib/systemd/system-generators/systemd-crontab-generator >seen <<'PYTHON'
import importlib.machinery
import importlib.util
import itertools
import pathlib
import shutil
import sys

sys.dont_write_bytecode = True
loader = importlib.machinery.SourceFileLoader("generator", sys.argv[1])
generator = importlib.util.module_from_spec(importlib.util.spec_from_loader("generator", loader))
loader.exec_module(generator)
generator.log = lambda level, message: None  # it would write to the kernel's log
generator.TARGET_DIR = generator.TIMERS_DIR = "units"
for when in ("0 6 1 sep *", "0 6 1 oct *", "0 6 1 nov *", "0 6 1 dec *", "0 6 13 * 5", "5/15 * * * *"):
    shutil.rmtree("units", ignore_errors=True)
    pathlib.Path("units").mkdir()
    pathlib.Path("crontab").write_text(when + " /bin/true\n")
    for job in generator.parse_crontab("crontab", withuser=False):
        job.setdefault("u", "nobody")
        generator.generate_timer_unit(job, seq=itertools.count())
    lines = [line for path in pathlib.Path("units").glob("*.timer*") for line in path.read_text().splitlines()]
    found = [line for line in lines if line.startswith("OnCalendar")]
    print(f"{when:14} -> {found[0] if found else 'no timer'}")
PYTHON
cat seen
diff - seen <<'EXPECTED'
0 6 1 sep *    -> OnCalendar=*-9-1 6:0:00
0 6 1 oct *    -> no timer
0 6 1 nov *    -> OnCalendar=*-10-1 6:0:00
0 6 1 dec *    -> OnCalendar=*-11-1 6:0:00
0 6 13 * 5     -> OnCalendar=Fri *-*-13 6:0:00
5/15 * * * *   -> OnCalendar=*-*-* *:5:00
EXPECTED
