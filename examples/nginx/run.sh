#!/usr/bin/env bash
# nginx with certificates of Vault PKI, all on this machine: see README.md. Usage: run.sh [--seconds N]
set -euo pipefail
# shellcheck source=../common.sh
. "$(dirname "$0")/../common.sh"
here=$(cd "$(dirname "$0")" && pwd)

export NGINX=${NGINX_BIN:-$(PATH=$PATH:/usr/sbin:/usr/local/sbin command -v nginx || true)}
[ -n "$NGINX" ] || { echo 'nginx is missing; on Debian: apt-get install nginx-light' >&2; exit 69; }
find_vault

export HTTPS_PORT=${HTTPS_PORT:-$(free_port)} ADMIN_PORT=${ADMIN_PORT:-$(free_port)}
start_vault

say 'root and intermediate CA, role "web", a policy of one line, an approle'
as_root sh "$here/setup-vault.sh" "$DIR" >"$DIR/setup.log" 2>&1 || { cat "$DIR/setup.log" >&2; exit 69; }

cp "$here/certferry.yaml" "$CERTFERRY_CONFIG"
sed "s/127.0.0.1:8443/127.0.0.1:$HTTPS_PORT/" "$here/nginx.conf" >"$DIR/nginx.conf"

say 'the first certificate, before nginx starts'
show validate
show once

say "nginx at https://127.0.0.1:$HTTPS_PORT, and the sidecar beside it"
start nginx "$NGINX" -p "$DIR" -c nginx.conf -e error.log
start_certferry run
until_works nginx test -s "$DIR/nginx.pid"
show wait --timeout 30s

check=(check "127.0.0.1:$HTTPS_PORT" --server-name web.example.com --ca-file "$DIR/root.pem" --warn 30s --critical 5s)
show status
show "${check[@]}"

say 'rotate now, and wait until five fresh connections have shown only the new certificate'
show rotate web --wait
show "${check[@]}"
show status

say "in service; renewed every minute or so. Ctrl-C ends it, and removes $DIR"
echo "curl --cacert $DIR/root.pem --resolve web.example.com:$HTTPS_PORT:127.0.0.1 https://web.example.com:$HTTPS_PORT"
echo "curl http://127.0.0.1:$ADMIN_PORT/metrics"
linger
