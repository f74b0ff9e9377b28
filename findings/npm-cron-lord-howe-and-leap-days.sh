#!/bin/sh
# The npm package `cron` 4.4.0 (CronTime, used by node services as their scheduler):
# - a daily job at 02:15 in Australia/Lord_Howe fires twice on the spring day, whose clock moves by half an hour;
# - the search for the next instant ends eight years from now, not from the instant that was asked for, and then an
#   exception replaces all answers: `sendAt(3)` of a leap-day job fails although the first dates are known.
# A plan made with this package can therefore miss or double a run that other schedulers have once.
# Seen on 2026-11-30 with the output below. The script fails if the behaviour changes. It needs node and npm.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >/dev/null 2>&1
npm install --silent --no-fund --no-audit cron@4.4.0 >/dev/null 2>&1
cat >ask.mjs <<'NODE'
import { CronTime } from 'cron';

const zone = 'Australia/Lord_Howe';
const daily = new CronTime('15 2 * * *', zone);
let instant = new Date('2026-10-03T00:00:00Z');
for (let turn = 0; turn < 3; turn++) {
  instant = daily.getNextDateFrom(instant, zone).toJSDate();
  console.log('02:15 on Lord Howe Island:', instant.toISOString());
}

// The first leap day that is more than eight years away, and the instant before it.
const leap = new CronTime('0 0 29 2 *', 'UTC');
let year = new Date().getUTCFullYear() + 9;
while (year % 4 || (year % 100 === 0 && year % 400)) year++;
for (const [label, ask] of [
  ['29 February, asked two months before it', () => leap.getNextDateFrom(new Date(Date.UTC(year, 0, 1)), 'UTC')],
  ['29 February, the next four', () => leap.sendAt(4)],
]) {
  try {
    ask();
    console.log(`${label}: found`);
  } catch (error) {
    console.log(`${label}: ${error.message.split('\n')[0]}`);
  }
}
NODE
node ask.mjs >seen
cat seen
diff - seen <<'EXPECTED'
02:15 on Lord Howe Island: 2026-10-03T15:15:00.000Z
02:15 on Lord Howe Island: 2026-10-03T15:45:00.000Z
02:15 on Lord Howe Island: 2026-10-04T15:15:00.000Z
29 February, asked two months before it: Something went wrong. No execution date was found in the next 8 years.
29 February, the next four: Something went wrong. No execution date was found in the next 8 years.
EXPECTED
