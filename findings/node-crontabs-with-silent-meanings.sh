#!/bin/sh
# Two parsers of npm accept crontab lines of other dialects and give them another meaning, without a word:
# - cron-schedule 6.0.0 reads digits and ignores the rest of a field: `5#2` (second Friday) is every Friday, `1L` (last
#   Monday) is every Monday, `15W` is the 15th, and `5/20` in the minutes is minute 5 alone;
# - @breejs/later 4.2.0: weekday 7 is Saturday, `5-7` lacks Sunday, `6-1` is Saturday alone, a day of month and a weekday
#   must both match, and `H` is every minute. The 31st of February is the 1st of March, for ever the same one.
# Seen on 2026-11-30 with the output below. The script fails if the behaviour changes. It needs node and npm.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >/dev/null 2>&1
npm install --silent --no-fund --no-audit cron-schedule@6.0.0 @breejs/later@4.2.0 >/dev/null 2>&1
cat >ask.mjs <<'NODE'
import { parseCronExpression } from 'cron-schedule';
import later from '@breejs/later';

const start = new Date('2026-12-01T00:00:00Z');
const show = (dates) => dates.map((date) => date.toISOString().slice(5, 16)).join(' ');
for (const text of ['0 0 * * 5#2', '0 0 * * 1L', '0 0 15W * *', '5/20 * * * *'])
  console.log('cron-schedule', text, '=', show(parseCronExpression(text).getNextDates(3, start)));
for (const text of ['0 0 * * 7', '0 0 * * 5-7', '0 0 * * 6-1', '0 0 */2 * 1', 'H * * * *', '0 0 31 2 *'])
  console.log('later', text, '=', show(later.schedule(later.parse.cron(text)).next(3, start)));
NODE
TZ=UTC node ask.mjs >seen
cat seen
diff - seen <<'EXPECTED'
cron-schedule 0 0 * * 5#2 = 12-04T00:00 12-11T00:00 12-18T00:00
cron-schedule 0 0 * * 1L = 12-07T00:00 12-14T00:00 12-21T00:00
cron-schedule 0 0 15W * * = 12-15T00:00 01-15T00:00 02-15T00:00
cron-schedule 5/20 * * * * = 12-01T00:05 12-01T01:05 12-01T02:05
later 0 0 * * 7 = 12-05T00:00 12-12T00:00 12-19T00:00
later 0 0 * * 5-7 = 12-04T00:00 12-05T00:00 12-11T00:00
later 0 0 * * 6-1 = 12-05T00:00 12-12T00:00 12-19T00:00
later 0 0 */2 * 1 = 12-07T00:00 12-21T00:00 01-11T00:00
later H * * * * = 12-01T00:01 12-01T00:02 12-01T00:03
later 0 0 31 2 * = 03-01T00:00 03-01T00:00 03-01T00:00
EXPECTED
