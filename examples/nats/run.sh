#!/usr/bin/env bash
# NATS with certificates of a CA in a folder: see README.md. Usage: run.sh [--seconds N]
set -euo pipefail
# shellcheck source=../common.sh
. "$(dirname "$0")/../common.sh"
here=$(cd "$(dirname "$0")" && pwd)

nats=${NATS_BIN:-$(path_of nats-server nats-server)}

export PORT=${PORT:-$(free_port)} ADMIN_PORT=${ADMIN_PORT:-$(free_port)}
cp "$here/certferry.yaml" "$CERTFERRY_CONFIG"
cp "$here/nats.conf" "$DIR/nats.conf"

say 'the first certificate, before NATS starts'
show validate
show once

say "NATS at 127.0.0.1:$PORT, and the sidecar beside it"
cd "$DIR"
start nats "$nats" -c nats.conf
until_works nats test -s "$DIR/nats.pid"

accompany "127.0.0.1:$PORT" --start-tls nats
linger
