#!/bin/sh
# Six Python parsers of durations read the same text differently, mostly without an error:
# - pytimeparse 1.1.8: "1:30" is 90 seconds; "1M" is a minute; "90", "10ms" and all that it cannot read are None;
# - humanfriendly 10.0: a year has 364 days (52 weeks); "1h30m" is refused;
# - pydantic 2.14.4: "1d" is a day, but "1h" and "1m" are refused; "1:30:00" is 90 minutes, but "1:30" is refused;
#   "P1M" is 30 days and "P0.5Y" 182.5 days;
# - isodate 0.7.2: "P1M" is a calendar month, which ends on 28 February after 31 January; the repr of "P0.5Y" is that of
#   an empty duration, and to add it to a date fails;
# - msgspec 0.23.0: weeks, months and years are refused, "P1D" is read;
# - durationpy 0.11 (Go's form): "1d" and "1y" are read, which Go refuses; "1h1h" is two hours.
# A configuration that moves from one program to another needs its durations compared as numbers.
# Seen on 2026-12-01 with the output below. The script fails if the behaviour changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install -q pytimeparse==1.1.8 humanfriendly==10.0 pydantic==2.14.4 isodate==0.7.2 \
    msgspec==0.23.0 durationpy==0.11 2>/dev/null
venv/bin/python - >seen <<'PYTHON'
from datetime import date, timedelta

import durationpy
import humanfriendly
import isodate
import msgspec
import pydantic
import pytimeparse

PARSERS = {
    "pytimeparse": pytimeparse.parse,
    "humanfriendly": humanfriendly.parse_timespan,
    "pydantic": pydantic.TypeAdapter(timedelta).validate_python,
    "isodate": isodate.parse_duration,
    "msgspec": lambda text: msgspec.convert(text, timedelta),
    "durationpy": durationpy.from_str,
}


def read(parse, text):
    try:
        found = parse(text)
    except Exception:
        return "refused"
    if isinstance(found, timedelta):
        found = found.total_seconds()
    return f"{found:.10g}" if isinstance(found, int | float) else repr(found)


for text in ("90", "1:30", "1:30:00", "10ms", "1M", "1h", "1h30m", "1h1h", "1d", "1y", "P1D", "P1W", "P1M", "P0.5Y"):
    found = {name: read(parse, text) for name, parse in PARSERS.items()}
    print(text, *(f"{name}={value}" for name, value in found.items() if value != "refused"))
print("a month after 31 January:", date(2027, 1, 31) + isodate.parse_duration("P1M"))
try:
    print(date(2027, 1, 1) + isodate.parse_duration("P0.5Y"))
except ValueError as error:
    print("half a year:", error)
PYTHON
cat seen
diff - seen <<'EXPECTED'
90 pytimeparse=None humanfriendly=90
1:30 pytimeparse=90
1:30:00 pytimeparse=5400 pydantic=5400
10ms pytimeparse=None humanfriendly=0.01 durationpy=0.01
1M pytimeparse=60 humanfriendly=60
1h pytimeparse=3600 humanfriendly=3600 durationpy=3600
1h30m pytimeparse=5400 durationpy=5400
1h1h pytimeparse=None durationpy=7200
1d pytimeparse=86400 humanfriendly=86400 pydantic=86400 durationpy=86400
1y pytimeparse=None humanfriendly=31449600 durationpy=31536000
P1D pytimeparse=None pydantic=86400 isodate=86400 msgspec=86400
P1W pytimeparse=None pydantic=604800 isodate=604800
P1M pytimeparse=None pydantic=2592000 isodate=isodate.duration.Duration(0, 0, 0, years=0, months=1)
P0.5Y pytimeparse=None pydantic=15768000 isodate=isodate.duration.Duration(0, 0, 0, years=0, months=0)
a month after 31 January: 2027-02-28
half a year: fractional years or months not supported for date calculations
EXPECTED
