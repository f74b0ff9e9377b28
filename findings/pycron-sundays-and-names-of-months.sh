#!/bin/sh
# pycron 3.3.0 (PyPI) accepts these crontab fields and matches other minutes than cron:
# - weekday 7 (Sunday) matches no day, `5-7` lacks Sunday, and `1-7/2` too;
# - names of months never match (`jan-mar`), names of weekdays do; `mon-fri/2` matches nothing;
# - `*,5` is minute 5 alone.
# oncalendar 1.1 (PyPI), for expressions of systemd: `*:0:15..15/23` also elapses at second 38, and steps beyond the field
# (`*:53/7`) are accepted, which systemd 252 refuses.
# Seen on 2026-12-01 with the output below. The script fails if the behaviour changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pycron==3.3.0 oncalendar==1.1 2>/dev/null
"$folder/venv/bin/python" - >"$folder/seen" <<'PYTHON'
import datetime

import pycron
from oncalendar import OnCalendar

start = datetime.datetime(2026, 2, 1)  # a Sunday
for text in ("0 0 * * 7", "0 0 * * 5-7", "0 0 * * 1-7/2", "0 0 * * mon-fri", "0 0 * * mon-fri/2"):
    days = [start + datetime.timedelta(day) for day in range(7)]
    print(f"{text}:", " ".join(f"{day:%a}" for day in days if pycron.is_now(text, day)) or "never")
months = [datetime.datetime(2026, month, 1) for month in range(1, 13)]
for text in ("0 0 1 jan-mar *", "0 0 1 1-3 *"):
    print(f"{text}:", " ".join(f"{day:%b}" for day in months if pycron.is_now(text, day)) or "never")
hour = [start + datetime.timedelta(minutes=minute) for minute in range(60)]
print("*,5 * * * *:", [at.minute for at in hour if pycron.is_now("*,5 * * * *", at)])
for text in ("*:0:15..15/23", "*:53/7"):
    found = OnCalendar(text, start.replace(tzinfo=datetime.timezone.utc))
    print(f"{text}:", " ".join(f"{next(found):%H:%M:%S}" for _ in range(3)))
PYTHON
cat "$folder/seen"
diff - "$folder/seen" <<'EXPECTED'
0 0 * * 7: never
0 0 * * 5-7: Fri Sat
0 0 * * 1-7/2: Mon Wed Fri
0 0 * * mon-fri: Mon Tue Wed Thu Fri
0 0 * * mon-fri/2: never
0 0 1 jan-mar *: never
0 0 1 1-3 *: Jan Feb Mar
*,5 * * * *: [5]
*:0:15..15/23: 00:00:15 00:00:38 01:00:15
*:53/7: 00:53:00 01:53:00 02:53:00
EXPECTED
