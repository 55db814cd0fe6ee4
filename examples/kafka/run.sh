#!/usr/bin/env bash
# Kafka with certificates of a CA in a folder: see README.md. Usage: run.sh [--seconds N]
set -euo pipefail
# shellcheck source=../common.sh
. "$(dirname "$0")/../common.sh"
here=$(cd "$(dirname "$0")" && pwd)

path_of java openjdk-17-jdk-headless >/dev/null
export KAFKA_LIB=${KAFKA_LIB:-${XDG_CACHE_HOME:-$HOME/.cache}/certferry/bin/kafka-4.1.0}
if [ ! -d "$KAFKA_LIB" ]; then
  echo "fetching Kafka into $KAFKA_LIB (43 MB, once)"
  cp "$here/pom.xml" "$DIR/pom.xml"
  mvn -q -B -f "$DIR/pom.xml" dependency:copy-dependencies -DoutputDirectory="$DIR/lib"
  mkdir -p "$(dirname "$KAFKA_LIB")"
  mv "$DIR/lib" "$KAFKA_LIB"
fi

export PORT=${PORT:-$(free_port)} ADMIN_PORT=${ADMIN_PORT:-$(free_port)}
export ADMIN_LISTENER_PORT=${ADMIN_LISTENER_PORT:-$(free_port)} CONTROLLER_PORT=${CONTROLLER_PORT:-$(free_port)}
cp "$here/certferry.yaml" "$CERTFERRY_CONFIG"
cp "$here/admin.properties" "$DIR"
sed "s#\${DIR}#$DIR#; s/\${PORT}/$PORT/; s/\${ADMIN_LISTENER_PORT}/$ADMIN_LISTENER_PORT/; s/\${CONTROLLER_PORT}/$CONTROLLER_PORT/" \
  "$here/server.properties" >"$DIR/server.properties"
kafka=(java -Xmx1g -XX:TieredStopAtLevel=1 -cp "$KAFKA_LIB/*")

say 'the first certificate, before Kafka starts'
show validate
show once

say "Kafka at localhost:$PORT, and the sidecar beside it"
"${kafka[@]}" kafka.tools.StorageTool format -t "$("$node" -p 'crypto.randomBytes(16).toString("base64url")')" \
  -c "$DIR/server.properties" >"$DIR/format.log" 2>&1
start kafka "${kafka[@]}" kafka.Kafka "$DIR/server.properties"
until_works kafka certferry check "127.0.0.1:$PORT" --server-name localhost --ca-file "$DIR/ca/ca.crt" --warn 10s --critical 5s

accompany "127.0.0.1:$PORT"
linger
