#!/bin/sh
# Builds the worker and out/lib/shop.jar with a JDK only. `out` is then the directory of an app.
set -eu
out=$(realpath -m "${1:-$(dirname "$0")/out}")
cd "$(dirname "$0")"
sh build-worker.sh "$out"
mkdir -p "$out/shop" "$out/lib"
javac --release 8 -Xlint:-options -cp "$out/worker.jar" -d "$out/shop" $(find app -name '*.java')
jar --create --file "$out/lib/shop.jar" -C "$out/shop" .
rm -r "$out/shop"
cp jobcloud.toml "$out/"
