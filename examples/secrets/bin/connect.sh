#!/bin/sh
# A script gets `secret:` in a variable, and `secret-file:` in a file of the directory $JOBCLOUD_SECRET_FILES.
# It must not print them: its output is a log.
set -eu
test -n "$DB_PASSWORD"
mode=$(stat -c %a "$JOBCLOUD_SECRET_FILES/client.key")
echo "password of ${#DB_PASSWORD} characters, key of $(wc -c < "$JOBCLOUD_SECRET_FILES/client.key") bytes with mode $mode"
