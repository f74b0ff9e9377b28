#!/bin/sh
# Units sold per product in all regions. The last argument is the sharding context as JSON; the environment holds
# the same values.
set -eu
mkdir -p "$JOBCLOUD_JOB_PARAMETER"
out="$JOBCLOUD_JOB_PARAMETER/stock.txt"
awk -F, 'FNR > 1 { units[$2] += $3 } END { for (product in units) print product, units[product] }' data/*.csv |
    sort >"$out.$$"
mv "$out.$$" "$out"
cat "$out"
printf '{"run":"%s","item":%s,"attempt":%s,"task":"%s"}\n' "$JOBCLOUD_RUN_ID" "$JOBCLOUD_SHARDING_ITEM" \
    "$JOBCLOUD_ATTEMPT" "$JOBCLOUD_TASK_ID" >>"$JOBCLOUD_JOB_PARAMETER/stock.jsonl"
