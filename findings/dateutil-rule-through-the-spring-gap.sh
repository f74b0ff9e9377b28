#!/bin/sh
# dateutil 4.0.0: a recurrence rule that starts in a zone with daylight saving counts wall-clock time.
# - In the spring night, a rule of every 30 minutes gives two times that do not exist and then the two that do. They are
#   the same instants, so each of two runs is planned twice, and the instants go back in time.
# - In the autumn night it is silent for the second 02:00 hour. A rule "count 5" therefore lasts an hour longer.
# Convert to UTC, drop duplicates and sort before you plan with such a rule.
# Seen on 2026-11-30 with the output below. The script fails if the behaviour changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install -q python-dateutil==4.0.0 tzdata==2025.2 2>/dev/null
venv/bin/python - >seen <<'PYTHON'
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from dateutil.rrule import MINUTELY, rrule

zone = ZoneInfo("Europe/Berlin")
for start in (datetime(2026, 3, 29, 1, 30, tzinfo=zone), datetime(2026, 10, 25, 2, 0, tzinfo=zone)):
    times = list(rrule(MINUTELY, interval=30, dtstart=start, count=5))
    print(*(f"{time.astimezone(UTC):%H:%MZ}" for time in times))
PYTHON
cat seen
diff - seen <<'EXPECTED'
00:30Z 01:00Z 01:30Z 01:00Z 01:30Z
00:00Z 00:30Z 02:00Z 02:30Z 03:00Z
EXPECTED
