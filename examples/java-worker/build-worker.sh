#!/bin/sh
# Builds OUT/worker.jar and OUT/jobcloud-worker.json. Needs only a JDK of version 9 or newer. The classes run on Java 8.
set -eu
out=$(realpath -m "${1:?}")
cd "$(dirname "$0")"
mkdir -p "$out/worker"
javac --release 8 -Xlint:-options -d "$out/worker" $(find worker -name '*.java')
jar --create --file "$out/worker.jar" --main-class jobcloud.worker.Main -C "$out/worker" .
rm -r "$out/worker"
cp jobcloud-worker.json "$out/"
