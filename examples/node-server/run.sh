#!/usr/bin/env bash
# A plain Node server with certificates of a CA in a folder; no Vault: see README.md. Usage: run.sh [--seconds N]
set -euo pipefail
# shellcheck source=../common.sh
. "$(dirname "$0")/../common.sh"
here=$(cd "$(dirname "$0")" && pwd)

export HTTPS_PORT=${HTTPS_PORT:-$(free_port)} ADMIN_PORT=${ADMIN_PORT:-$(free_port)}
cp "$here/certferry.yaml" "$CERTFERRY_CONFIG"

say 'the first certificate, before the server starts'
show validate
show once

say "the server at https://localhost:$HTTPS_PORT, and the sidecar beside it"
# In this repository `certferry/client` is the source; an installed package has it built, and needs no condition.
start server env TLS_DIR="$DIR/tls" PORT="$HTTPS_PORT" "$node" --conditions=certferry-source "$here/server.mjs"
until_works server grep -q https "$DIR/server.log"
start_certferry run
show wait --timeout 30s

check=(check "localhost:$HTTPS_PORT" --ca-file "$DIR/ca/ca.crt" --warn 10s --critical 5s)
show status
show "${check[@]}"

say 'rotate now, and wait until five fresh connections have shown only the new certificate'
show rotate web --wait
show "${check[@]}"
show status

say "in service; renewed every half minute or so. Ctrl-C ends it, and removes $DIR"
echo "curl --cacert $DIR/ca/ca.crt https://localhost:$HTTPS_PORT"
echo "curl http://127.0.0.1:$ADMIN_PORT/metrics"
linger
