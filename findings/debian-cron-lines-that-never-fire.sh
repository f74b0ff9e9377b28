#!/bin/sh
# Debian's cron 3.0pl1-162. `crontab -n` accepts these lines without a word:
# - a range that runs backwards selects nothing: `22-2`, `mon-sun` (sun is 0), `fri-mon`, `nov-feb` never fire;
# - behind a complete number, range or star, the rest of a field is ignored: `0~59` is minute 0, `1-2-3` is 1-2, `*5` is
#   `*`, and `mon#1` is every Monday;
# - on the day on which daylight saving begins, the times of the skipped hour start from 03:00 on, one every 10 s, also two
#   of one job. The jobs of 03:00 come after them: with eight such times, a minute late;
# - the blanks at the end of a value in quotes are cut (A="  b  " is "  b"), although crontab(5) says that quotes keep them.
# The daemon itself runs here, with tests/oracles/cron_clock.c in place of the clock. It needs root and a C compiler.
# Seen on 2026-12-01 with the output below. The script fails if the behaviour changes.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -q cron=3.0pl1-162 >/dev/null 2>&1
dpkg-deb -x cron_3.0pl1-162_*.deb root
PYTHONDONTWRITEBYTECODE=1 python3 - "$here/../tests/oracles" "$folder/root" >seen <<'PYTHON'
import calendar
import collections
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, sys.argv[1])
from record_cron import Daemon

weekly = ["0 0 * * mon-fri", "0 0 * * mon-sun", "0 0 * * fri-mon", "0 22-2 * * *", "0~59 0 * * *", "1-2-3 0 * * *", "0 0 * * mon#1"]
spring = ["0 3 * * *", "5,35 2 * * *", "0 4 * * *", *(f"{minute} 2 * * *" for minute in range(0, 60, 10))]
with tempfile.TemporaryDirectory() as folder:
    daemon = Daemon(sys.argv[2], pathlib.Path(folder))
    start = calendar.timegm((2026, 2, 1, 23, 59, 30))
    for text, found in zip(weekly, daemon.firings(weekly, "UTC", start, start + 7 * 86400)):
        names = collections.Counter(time.strftime("%a %H:%M", time.gmtime(at)) for at in found)
        print(f"{text:16} accepted: {daemon.accepts(text)}; in a week: {' '.join(names) or 'never'}")
    start = calendar.timegm((2022, 3, 13, 4, 0, 30))
    for text, found in zip(spring[:3], daemon.firings(spring, "America/New_York", start, start + 6 * 3600)):
        print(f"{text:16} in New York on 2022-03-13: {' '.join(time.strftime('%H:%M', time.gmtime(at - 4 * 3600)) for at in found)}")
PYTHON
cat seen
diff - seen <<'EXPECTED'
0 0 * * mon-fri  accepted: True; in a week: Mon 00:00 Tue 00:00 Wed 00:00 Thu 00:00 Fri 00:00
0 0 * * mon-sun  accepted: True; in a week: never
0 0 * * fri-mon  accepted: True; in a week: never
0 22-2 * * *     accepted: True; in a week: never
0~59 0 * * *     accepted: True; in a week: Mon 00:00 Tue 00:00 Wed 00:00 Thu 00:00 Fri 00:00 Sat 00:00 Sun 00:00
1-2-3 0 * * *    accepted: True; in a week: Mon 00:01 Mon 00:02 Tue 00:01 Tue 00:02 Wed 00:01 Wed 00:02 Thu 00:01 Thu 00:02 Fri 00:01 Fri 00:02 Sat 00:01 Sat 00:02 Sun 00:01 Sun 00:02
0 0 * * mon#1    accepted: True; in a week: Mon 00:00
0 3 * * *        in New York on 2022-03-13: 03:01
5,35 2 * * *     in New York on 2022-03-13: 03:00 03:00
0 4 * * *        in New York on 2022-03-13: 04:00
EXPECTED
