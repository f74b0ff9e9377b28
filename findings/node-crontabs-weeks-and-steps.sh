#!/bin/sh
# Three libraries of npm read valid crontab lines in another way than cron, without a word:
# - cronosjs 1.7.1: weekday `0-7`, the whole week, is Sunday alone; a range that runs backwards goes around the end;
# - @datasert/cronjs-matcher 1.4.0: `5-7` lacks Sunday, and `1-7/2` (weekday) never fires. Both take `*/2` in the day of
#   month as a restriction, so with a weekday either of them is enough;
# - cron-to-quartz 1.4.15: weekday 7 becomes 8 and `5-7` becomes `6-8`, which Quartz refuses; the step of `*/2` (weekday)
#   becomes `*/3`, so Sunday, Tuesday, Thursday, Saturday become Sunday, Wednesday, Saturday.
# Seen on 2026-12-01 with the output below. The script fails if the behaviour changes. It needs node and npm.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >/dev/null 2>&1
npm install --silent --no-fund --no-audit cronosjs@1.7.1 @datasert/cronjs-matcher@1.4.0 cron-to-quartz@1.4.15 >/dev/null 2>&1
cat >ask.mjs <<'NODE'
import { CronosExpression } from 'cronosjs';
import { getFutureMatches } from '@datasert/cronjs-matcher';
import toQuartz from 'cron-to-quartz';

const start = '2026-02-01T12:00:00Z'; // a Sunday
const days = (dates) => dates.map((date) => new Date(date).toUTCString().slice(0, 7).replace(',', '')).join(' ') || 'never';
for (const text of ['0 0 * * 0-7', '0 0 * * 0-6', '0 0 * * 5-1', '0 0 */2 * 1'])
  console.log('cronosjs', text, '=', days(CronosExpression.parse(text, { timezone: 'UTC' }).nextNDates(new Date(start), 4)));
for (const text of ['0 0 * * 5-7', '0 0 * * 1-7/2', '0 0 * * 1-6/2', '0 0 */2 * 1'])
  console.log('cronjs-matcher', text, '=', days(getFutureMatches(text, { startAt: start, matchCount: 4, timezone: 'UTC' })));
for (const text of ['0 0 * * 7', '0 0 * * 5-7', '0 0 * * */2', '0 0 13 * 5'])
  console.log('cron-to-quartz', text, '=', toQuartz.getQuartz(text).map((fields) => fields.join(' ')).join(' and '));
NODE
TZ=UTC node ask.mjs >seen
cat seen
diff - seen <<'EXPECTED'
cronosjs 0 0 * * 0-7 = Sun 08 Sun 15 Sun 22 Sun 01
cronosjs 0 0 * * 0-6 = Mon 02 Tue 03 Wed 04 Thu 05
cronosjs 0 0 * * 5-1 = Mon 02 Fri 06 Sat 07 Sun 08
cronosjs 0 0 */2 * 1 = Mon 02 Tue 03 Thu 05 Sat 07
cronjs-matcher 0 0 * * 5-7 = Fri 06 Sat 07 Fri 13 Sat 14
cronjs-matcher 0 0 * * 1-7/2 = never
cronjs-matcher 0 0 * * 1-6/2 = Mon 02 Wed 04 Fri 06 Mon 09
cronjs-matcher 0 0 */2 * 1 = Mon 02 Tue 03 Thu 05 Sat 07
cron-to-quartz 0 0 * * 7 = 0 0 0 ? * 8 *
cron-to-quartz 0 0 * * 5-7 = 0 0 0 ? * 6-8 *
cron-to-quartz 0 0 * * */2 = 0 0 0 ? * */3 *
cron-to-quartz 0 0 13 * 5 = 0 0 0 13 * ? * and 0 0 0 ? * 6 *
EXPECTED
