#!/usr/bin/env bash
# Redis with certificates of a CA in a folder: see README.md. Usage: run.sh [--seconds N]
set -euo pipefail
# shellcheck source=../common.sh
. "$(dirname "$0")/../common.sh"
here=$(cd "$(dirname "$0")" && pwd)

redis=${REDIS_BIN:-$(path_of redis-server redis-server)}

export PORT=${PORT:-$(free_port)} ADMIN_PORT=${ADMIN_PORT:-$(free_port)}
REDIS_PASSWORD=$("$node" -p 'crypto.randomUUID()')
export REDIS_PASSWORD
cp "$here/certferry.yaml" "$CERTFERRY_CONFIG"
{ cat "$here/redis.conf"; printf 'tls-port %s\nrequirepass %s\n' "$PORT" "$REDIS_PASSWORD"; } >"$DIR/redis.conf"

say 'the first certificate, before Redis starts'
show validate
show once

say "Redis at 127.0.0.1:$PORT, and the sidecar beside it"
cd "$DIR"
start redis "$redis" "$DIR/redis.conf"
until_works redis test -S "$DIR/redis.sock"

accompany "127.0.0.1:$PORT"
REDISCLI_AUTH=$REDIS_PASSWORD redis-cli --tls --cacert "$DIR/ca/ca.crt" -h localhost -p "$PORT" ping
linger
