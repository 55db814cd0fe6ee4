#!/usr/bin/env bash
# Mosquitto with certificates of a CA in a folder: see README.md. Usage: run.sh [--seconds N]
set -euo pipefail
# shellcheck source=../common.sh
. "$(dirname "$0")/../common.sh"
here=$(cd "$(dirname "$0")" && pwd)

mosquitto=${MOSQUITTO_BIN:-$(path_of mosquitto mosquitto)}

export PORT=${PORT:-$(free_port)} ADMIN_PORT=${ADMIN_PORT:-$(free_port)}
cp "$here/certferry.yaml" "$CERTFERRY_CONFIG"
sed "s/8883/$PORT/" "$here/mosquitto.conf" >"$DIR/mosquitto.conf"
# Otherwise it becomes another user, who may not read the folder.
if [ "$(id -u)" = 0 ]; then echo 'user root' >>"$DIR/mosquitto.conf"; fi

say 'the first certificate, before Mosquitto starts'
show validate
show once

say "Mosquitto at 127.0.0.1:$PORT, and the sidecar beside it"
cd "$DIR"
start mosquitto "$mosquitto" -c mosquitto.conf
until_works mosquitto test -s "$DIR/mosquitto.pid"

accompany "127.0.0.1:$PORT"
echo "mosquitto_sub --cafile $DIR/ca/ca.crt -h localhost -p $PORT -t '#'"
linger
