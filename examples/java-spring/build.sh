#!/bin/sh
# Builds an app with Spring in `out`, from a JDK and these packages of Debian:
#   apt-get install default-jdk-headless libspring-context-java libgeronimo-annotation-1.3-spec-java
set -eu
out=$(realpath -m "${1:-$(dirname "$0")/out}")
cd "$(dirname "$0")"
sh ../java-worker/build-worker.sh "$out"
mkdir -p "$out/bank" "$out/lib"
for name in spring3-aop spring3-beans spring3-context spring3-core spring3-expression commons-logging asm \
    geronimo-annotation-1.3-spec; do
    cp "/usr/share/java/$name.jar" "$out/lib/"
done
javac --release 8 -Xlint:-options -cp "$out/worker.jar:$out/lib/*" -d "$out/bank" $(find app -name '*.java')
cp -r app/META-INF "$out/bank/"
jar --create --file "$out/lib/bank.jar" -C "$out/bank" .
rm -r "$out/bank"
cp jobcloud.toml "$out/"
