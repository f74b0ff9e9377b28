#!/bin/sh
# systemd 252 (Debian 12), calendar timers:
# - `00/7:00`: a step of hours that does not divide 24. The timer does not fire at 00:00 on the first day of a month. The
#   same times as a list (0,7,14,21:00) or as a range (0..21/7:00) do;
# - `*:0/30 Europe/Berlin`: an interval pauses for an hour when the clock goes back, and no time of the repeated hour fires;
# - `*:53/6` is accepted and `*:53/7` is refused, because 53 + 7 is beyond the field; `*:0..1/7` is accepted.
# An importer must fire at the first of a month too, and must not copy the refusal of a range with a large step.
# Seen on 2026-12-01 with the output below. The script fails if the behaviour changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
elapses() {
	printf '%s:' "$2"
	TZ=UTC systemd-analyze calendar --iterations="$3" --base-time="$1" "$2" |
		sed -nE 's/.*(Next elapse|Iter. #[0-9]+): [A-Z][a-z]+ [0-9]+-([0-9]+-[0-9]+ [0-9]+:[0-9]+):00 UTC/ \2/p' | tr -d '\n'
	echo
}
{
	for text in 00/7:00 0,7,14,21:00 0..21/7:00; do elapses '2026-01-31 13:00:00 UTC' "$text" 4; done
	elapses '2026-10-24 23:10:00 UTC' '*:0/30 Europe/Berlin' 5
	for text in '*:53/6' '*:53/7' '*:0..1/7'; do
		systemd-analyze calendar "$text" >/dev/null 2>&1 && echo "$text accepted" || echo "$text refused"
	done
} >"$folder/seen"
cat "$folder/seen"
diff - "$folder/seen" <<'EXPECTED'
00/7:00: 01-31 14:00 01-31 21:00 02-01 07:00 02-01 14:00
0,7,14,21:00: 01-31 14:00 01-31 21:00 02-01 00:00 02-01 07:00
0..21/7:00: 01-31 14:00 01-31 21:00 02-01 00:00 02-01 07:00
*:0/30 Europe/Berlin: 10-24 23:30 10-25 00:00 10-25 00:30 10-25 02:00 10-25 02:30
*:53/6 accepted
*:53/7 refused
*:0..1/7 accepted
EXPECTED
