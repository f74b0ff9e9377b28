#!/bin/sh
# Builds out/worker.jar and out/lib/shop.jar with a JDK 17 only. `out` is then the directory of an app.
set -eu
cd "$(dirname "$0")"
out=${1:-out}
mkdir -p "$out/worker" "$out/shop" "$out/lib"
javac --release 17 -d "$out/worker" $(find worker -name '*.java')
javac --release 17 -cp "$out/worker" -d "$out/shop" $(find app -name '*.java')
jar --create --file "$out/worker.jar" --main-class jobcloud.worker.Main -C "$out/worker" .
jar --create --file "$out/lib/shop.jar" -C "$out/shop" .
rm -r "$out/worker" "$out/shop"
cp jobcloud.toml "$out/"
