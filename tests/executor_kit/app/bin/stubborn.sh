#!/bin/sh
trap '' TERM
setsid sleep "$JOBCLOUD_SHARDING_PARAMETER" &
echo ready
while true; do sleep 0.05; done
