#!/usr/bin/env bash
# nginx with certificates of an ACME server, Pebble, all on this machine: see README.md. Usage: run.sh [--seconds N]
set -euo pipefail
# shellcheck source=../common.sh
. "$(dirname "$0")/../common.sh"
here=$(cd "$(dirname "$0")" && pwd)

find_program NGINX nginx
find_program PEBBLE_BIN pebble
find_program CHALLTESTSRV_BIN pebble-challtestsrv
find_program OPENSSL openssl
export NGINX HTTPS_PORT=${HTTPS_PORT:-$(free_port)} HTTP_PORT=${HTTP_PORT:-$(free_port)}
export ACME_PORT=${ACME_PORT:-$(free_port)}
admin_port=$(free_port) dns_port=$(free_port) dns_admin_port=$(free_port)

# What Pebble tells: pebble PORT/PATH
pebble() {
  NODE_EXTRA_CA_CERTS=$DIR/pebble.pem "$node" -e 'fetch(process.argv[1]).then(async (reply) => process.stdout.write(await reply.text()))' \
    "https://127.0.0.1:$1"
}

say "Pebble at https://127.0.0.1:$ACME_PORT, an ACME server that looks at every challenge; for it, all names lead to 127.0.0.1"
"$OPENSSL" req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj '/CN=Pebble itself' \
  -addext subjectAltName=IP:127.0.0.1 -keyout "$DIR/pebble.key" -out "$DIR/pebble.pem" 2>"$DIR/openssl.log" ||
  { cat "$DIR/openssl.log" >&2; exit 69; }
cat >"$DIR/pebble.json" <<END
{ "pebble": {
  "listenAddress": "127.0.0.1:$ACME_PORT", "managementListenAddress": "127.0.0.1:$admin_port",
  "certificate": "$DIR/pebble.pem", "privateKey": "$DIR/pebble.key",
  "httpPort": $HTTP_PORT, "tlsPort": $HTTPS_PORT, "certificateValidityPeriod": 120
} }
END
start dns "$CHALLTESTSRV_BIN" -dns01 "127.0.0.1:$dns_port" -management "127.0.0.1:$dns_admin_port" \
  -defaultIPv4 127.0.0.1 -defaultIPv6 '' -http01 '' -https01 '' -tlsalpn01 ''
# It forgets what was shown before, and does not wait at random before it looks.
start pebble env PEBBLE_VA_ALWAYS_VALID=0 PEBBLE_AUTHZREUSE=0 PEBBLE_VA_NOSLEEP=1 \
  "$PEBBLE_BIN" -config "$DIR/pebble.json" -dnsserver "127.0.0.1:$dns_port"
until_works pebble pebble "$ACME_PORT/dir"
pebble "$admin_port/roots/0" >"$DIR/root.pem"

cp "$here/certferry.yaml" "$CERTFERRY_CONFIG"
sed "s/127.0.0.1:8443/127.0.0.1:$HTTPS_PORT/" "$here/../nginx/nginx.conf" >"$DIR/nginx.conf"

say 'a rehearsal: the whole challenge, and nothing written'
show validate
show once --dry-run
ls "$DIR"

say 'the first certificate, before nginx starts'
show once
echo 'Pebble asked:'
sed -n 's/.*validate w\/ HTTP: //p' "$DIR/pebble.log" | sort -u

start nginx "$NGINX" -p "$DIR" -c nginx.conf -e error.log
until_works nginx test -s "$DIR/nginx.pid"
serve_and_rotate nginx "$DIR/root.pem"
