#!/usr/bin/env bash
# Certificates that cert-manager issues, delivered and proven by certferry; no cluster: see README.md. Usage: run.sh [--seconds N]
set -euo pipefail
# shellcheck source=../common.sh
. "$(dirname "$0")/../common.sh"
here=$(cd "$(dirname "$0")" && pwd)

export HTTPS_PORT=${HTTPS_PORT:-$(free_port)}
issue() { sh "$here/issue.sh" "$DIR" "$@" >"$DIR/issue.log" 2>&1 || { cat "$DIR/issue.log" >&2; exit 69; }; }
# Whether the status says that what cert-manager wrote is served.
is_served() {
  local serial
  serial=$(openssl x509 -in "$DIR/mounted/tls.crt" -noout -serial)
  serial=${serial#serial=}
  certferry status | grep -Eqi "^web +[A-Z]+ +${serial:0:4}.*✓"
}
is_refused() { certferry status | grep -q input_incomplete; }
cp "$here/certferry.yaml" "$CERTFERRY_CONFIG"

say 'cert-manager issues, the kubelet mounts'
issue
ls -l "$DIR/mounted/"

say 'the first set, before the server starts'
show validate
show once

say "the server at https://localhost:$HTTPS_PORT, and the sidecar beside it"
# In this repository `certferry/client` is the source; an installed package has it built, and needs no condition.
start server env TLS_DIR="$DIR/tls" PORT="$HTTPS_PORT" "$node" --conditions=certferry-source "$here/../node-server/server.mjs"
until_works server grep -q https "$DIR/server.log"
start_certferry run
show wait --timeout 30s
show check "localhost:$HTTPS_PORT" --ca-file "$DIR/issuer/ca.crt" --warn 2h --critical 1h

say 'cert-manager renews: the new one is served, without anybody asking for it'
issue
until_works server is_served
show status

say 'a pair that does not fit is not taken: the last good set stays, and the status says why'
issue --key-of-another
until_works server is_refused
show status
show check "localhost:$HTTPS_PORT" --ca-file "$DIR/issuer/ca.crt" --warn 2h --critical 1h

say 'mended'
issue
until_works server is_served
show status

say "in service. Ctrl-C ends it, and removes $DIR"
echo "sh $here/issue.sh $DIR"
linger
