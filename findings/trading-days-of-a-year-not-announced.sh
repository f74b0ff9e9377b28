#!/bin/sh
# China and India announce their days off year by year. Libraries answer differently for a year that is not announced:
# - pandas_market_calendars 5.5.0: XSHG (Shanghai) and BSE (Bombay) trade on each weekday of 2027, New Year's Day
#   included, without a word. SSE, which is Shanghai by another name, has estimates: 246 days instead of 261. The names
#   agree for 2026;
# - exchange_calendars 4.13.2, from which XSHG comes, refuses 2027 for both;
# - chinesecalendar 1.11.0 knows 2026 and refuses 2027; workalendar 17.0.0 refuses China already for 2026, and Malaysia
#   with a KeyError. Its Hong Kong has 296 working days in 2026, because Saturdays count.
# A job that runs on trading days fires on holidays if its library is older than the announcement. Compare the number of
# days with that of the weekdays, and warn.
# Seen on 2026-12-01 with the output below. The script fails if the behaviour changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install -q pandas_market_calendars==5.5.0 exchange_calendars==4.13.2 pandas==3.1.1 \
    chinesecalendar==1.11.0 workalendar==17.0.0 2>/dev/null
venv/bin/python -W ignore - >seen <<'PYTHON'
from datetime import date, timedelta

import chinese_calendar
import exchange_calendars
import pandas_market_calendars
from workalendar.asia import China, HongKong, Malaysia


def days(year):
    return [date(year, 1, 1) + timedelta(number) for number in range(365)]


def markets(name, year):
    return len(pandas_market_calendars.get_calendar(name).schedule(f"{year}-01-01", f"{year}-12-31"))


def exchanges(name, year):
    calendar = exchange_calendars.get_calendar(name, start=f"{year}-01-01", end=f"{year}-12-31")
    return len(calendar.sessions)


def working(calendar, year):
    return sum(map(calendar().is_working_day, days(year)))


def show(library, name, count, *about):
    try:
        print(library, name, about[-1], count(*about))
    except Exception as error:
        print(library, name, about[-1], type(error).__name__)


for year in (2026, 2027):
    print("weekdays", year, sum(day.weekday() < 5 for day in days(year)))
    for name in ("SSE", "XSHG", "BSE"):
        show("pandas_market_calendars", name, markets, name, year)
    for name in ("XSHG", "XBOM"):
        show("exchange_calendars", name, exchanges, name, year)
    show("chinesecalendar", "China", lambda year: sum(map(chinese_calendar.is_workday, days(year))), year)
    for calendar in (China, Malaysia, HongKong):
        show("workalendar", calendar.__name__, working, calendar, year)
PYTHON
cat seen
diff - seen <<'EXPECTED'
weekdays 2026 261
pandas_market_calendars SSE 2026 242
pandas_market_calendars XSHG 2026 242
pandas_market_calendars BSE 2026 245
exchange_calendars XSHG 2026 242
exchange_calendars XBOM 2026 245
chinesecalendar China 2026 248
workalendar China 2026 CalendarError
workalendar Malaysia 2026 KeyError
workalendar HongKong 2026 296
weekdays 2027 261
pandas_market_calendars SSE 2027 246
pandas_market_calendars XSHG 2027 261
pandas_market_calendars BSE 2027 261
exchange_calendars XSHG 2027 ValueError
exchange_calendars XBOM 2027 ValueError
chinesecalendar China 2027 NotImplementedError
workalendar China 2027 CalendarError
workalendar Malaysia 2027 KeyError
workalendar HongKong 2027 296
EXPECTED
