#!/bin/sh
# The schedules of two Python task queues:
# - huey 3.5.4: an entry of a list that is no number is ignored (`0,x` is minute 0), while `mon` alone is refused; a day
#   of month and a weekday must both match, so the 13th and Friday is the 13th only if it is a Friday; `58-2` wraps;
# - arq 0.28.0: a cron job is due 123,456 microseconds after the second, so its time never equals another scheduler's;
#   a date that never comes (31 February) is accepted, and fails with "year 10000 is out of range" when it is asked for.
# Seen on 2026-11-30 with the output below. The script fails if the behaviour changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install -q huey==3.5.4 arq==0.28.0 2>/dev/null
venv/bin/python - >seen <<'PYTHON'
from datetime import datetime, timedelta

from arq import cron
from arq.cron import next_cron
from huey import crontab

for fields in ({"minute": "0,x"}, {"minute": "58-2"}, {"day_of_week": "mon"}):
    try:
        due = crontab(**fields)
        print("huey", fields, [minute for minute in range(60) if due(datetime(2026, 12, 7, 0, minute))])
    except ValueError as error:
        print("huey", fields, error)
both = crontab(minute="0", hour="0", day="13", day_of_week="5")
first = datetime(2026, 1, 1)
days = [first + timedelta(days=number) for number in range(365)]
print("huey, the 13th and Friday, 2026:", *(f"{day:%m-%d}" for day in days if both(day)))
print("arq, each hour:", next_cron(datetime(2026, 12, 1, 10), minute=0))


async def job(context):
    pass


cron(job, month=2, day=31)
try:
    print("arq, 31 February:", next_cron(datetime(2026, 12, 1, 10), month=2, day=31))
except ValueError as error:
    print("arq, 31 February: accepted, then", error)
PYTHON
cat seen
diff - seen <<'EXPECTED'
huey {'minute': '0,x'} [0]
huey {'minute': '58-2'} [0, 1, 2, 58, 59]
huey {'day_of_week': 'mon'} mon matches no values
huey, the 13th and Friday, 2026: 02-13 03-13 11-13
arq, each hour: 2026-12-01 11:00:00.123456
arq, 31 February: accepted, then year 10000 is out of range
EXPECTED
