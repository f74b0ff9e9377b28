#!/bin/sh
# Celery 5.6.2, `schedule(timedelta(...), relative=True)`, also `relative` of an entry of beat. Its docstring says that
# the time of the run is rounded to the resolution of the interval. The rounding is down, and to a minute, hour or day,
# not to the interval: every 90 minutes becomes every hour, every 36 hours every day, and every 90 seconds every minute.
# Without `relative` the same intervals are exact. A job therefore runs up to twice as often as it says.
# When you take an entry over, look at `relative`, and take the interval that it really has.
# The script asks `is_due` with a clock of its own. Seen on 2026-12-02 with the output below. The script fails if the
# behaviour changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install -q celery==5.6.2 tzdata==2025.2 2>/dev/null
venv/bin/python - >seen <<'PYTHON'
from datetime import UTC, datetime, timedelta

from celery import Celery
from celery.schedules import schedule

app = Celery()
app.conf.timezone = "UTC"
for interval in (timedelta(seconds=90), timedelta(minutes=90), timedelta(hours=36)):
    for relative in (False, True):
        now = last = datetime(2026, 12, 1, 0, 10, tzinfo=UTC)
        beat = schedule(interval, relative=relative, app=app, nowfun=lambda: now)
        step = timedelta(seconds=10) if interval < timedelta(hours=1) else timedelta(minutes=1)
        fired = []
        while len(fired) < 4:
            now += step
            if beat.is_due(last).is_due:
                fired.append(f"{now:%dT%H:%M:%S}")
                last = now
        print(f"{interval} relative={relative}:", *fired)
PYTHON
cat seen
diff - seen <<'EXPECTED'
0:01:30 relative=False: 01T00:11:30 01T00:13:00 01T00:14:30 01T00:16:00
0:01:30 relative=True: 01T00:11:00 01T00:12:00 01T00:13:00 01T00:14:00
1:30:00 relative=False: 01T01:40:00 01T03:10:00 01T04:40:00 01T06:10:00
1:30:00 relative=True: 01T01:00:00 01T02:00:00 01T03:00:00 01T04:00:00
1 day, 12:00:00 relative=False: 02T12:10:00 04T00:10:00 05T12:10:00 07T00:10:00
1 day, 12:00:00 relative=True: 02T00:00:00 03T00:00:00 04T00:00:00 05T00:00:00
EXPECTED
