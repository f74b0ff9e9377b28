#!/bin/sh
# Celery 5.6.2's crontab schedule looks like cron and differs in silence:
# - only the first three letters of a weekday count: "mon#1" (first Monday elsewhere) is every Monday, and any word that
#   begins with a weekday's three letters is accepted; "6#3" is refused;
# - "*/90" in the minutes is minute 0 of every hour, and "10-5/3" wraps around the hour;
# - in a zone with daylight saving, an interval is silent for the repeated hour of the autumn night: "*/20" in
#   Europe/Berlin fires at 00:40Z and next at 02:00Z.
# A schedule taken over from Celery therefore needs its firings compared, not its text.
# The script asks `is_due` once a minute, as beat does, with a clock of its own. Seen on 2026-11-30 with the output below.
# The script fails if the behaviour changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install -q celery==5.6.2 tzdata==2025.2 2>/dev/null
venv/bin/python - >seen <<'PYTHON'
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from celery import Celery
from celery.schedules import crontab

app = Celery()
app.conf.timezone = "Europe/Berlin"
for text in ("mon#1", "fridge", "6#3"):
    try:
        print(f"day_of_week {text!r}: {sorted(crontab(day_of_week=text).day_of_week)}")
    except ValueError as error:
        print(f"day_of_week {text!r}: {error}")
for text in ("*/90", "10-5/3"):
    print(f"minute {text!r}: {sorted(crontab(minute=text).minute)}")

schedule = crontab(minute="*/20", app=app)
now = datetime(2026, 10, 24, 23, 59, tzinfo=UTC)
last = now.astimezone(ZoneInfo("Europe/Berlin"))
fired = []
while now < datetime(2026, 10, 25, 2, 30, tzinfo=UTC):
    now += timedelta(minutes=1)
    here = now.astimezone(ZoneInfo("Europe/Berlin"))
    schedule.nowfun = lambda here=here: here
    if schedule.is_due(last).is_due:
        fired.append(now.strftime("%H:%MZ"))
        last = here
print("*/20 in the autumn night:", *fired)
PYTHON
cat seen
diff - seen <<'EXPECTED'
day_of_week 'mon#1': [1]
day_of_week 'fridge': [5]
day_of_week '6#3': Invalid weekday literal '6#3'.
minute '*/90': [0]
minute '10-5/3': [1, 4, 10, 13, 16, 19, 22, 25, 28, 31, 34, 37, 40, 43, 46, 49, 52, 55, 58]
*/20 in the autumn night: 00:00Z 00:20Z 00:40Z 02:00Z 02:20Z
EXPECTED
