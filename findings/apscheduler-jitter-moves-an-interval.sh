#!/bin/sh
# APScheduler 3.11.3. `jitter` adds a random delay to each run. With CronTrigger the delays do not add up: an hourly job
# with a jitter of 10 minutes fires 168 times a week. IntervalTrigger counts the next hour from the delayed run, so each
# delay stays in all later times: the job fires about every 65 minutes, 12 times less a week, and moves over the hour.
# `end_date` differs too: CronTrigger moves a delayed time back to it, IntervalTrigger gives no time, and the job ends.
# To spread the load of many jobs, give the first run of each an offset of its own, not an interval with jitter.
# Seen on 2026-12-02 with the output below. The script fails if the behaviour changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install -q apscheduler==3.11.3 tzdata==2025.2 2>/dev/null
venv/bin/python - >seen <<'PYTHON'
import random
from datetime import UTC, datetime, timedelta

from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

start = datetime(2026, 12, 1, tzinfo=UTC)
end = start + timedelta(days=7)
hourly = {
    "cron": CronTrigger(minute=0, jitter=600, timezone=UTC),
    "interval": IntervalTrigger(hours=1, start_date=start, jitter=600, timezone=UTC),
}
for name, trigger in hourly.items():
    counts = []
    for seed in range(10):
        random.seed(seed)
        fired, previous, now = 0, None, start
        while (now := trigger.get_next_fire_time(previous, now)) < end:
            fired += 1
            previous = now
        counts.append(fired)
    print(f"{name}, hourly with jitter 600: about {round(sum(counts) / len(counts))} firings in 168 hours")

nine, half_past = start + timedelta(hours=9), start + timedelta(hours=9, minutes=30)
ending = {
    "cron": CronTrigger(hour=9, end_date=half_past, jitter=7200, timezone=UTC),
    "interval": IntervalTrigger(days=1, start_date=nine, end_date=half_past, jitter=7200, timezone=UTC),
}
for name, trigger in ending.items():
    random.seed(1)
    lost = sum(trigger.get_next_fire_time(None, start) is None for _ in range(1000))
    print(f"{name} at 09:00, jitter 7200, end 09:30: without any firing {round(lost / 1000, 1):.0%}")
PYTHON
cat seen
diff - seen <<'EXPECTED'
cron, hourly with jitter 600: about 168 firings in 168 hours
interval, hourly with jitter 600: about 156 firings in 168 hours
cron at 09:00, jitter 7200, end 09:30: without any firing 0%
interval at 09:00, jitter 7200, end 09:30: without any firing 80%
EXPECTED
