#!/usr/bin/env bash
# Certificates that are revoked, that of the server and that of a client, all on this machine: see README.md. Usage: run.sh [--seconds N]
set -euo pipefail
# shellcheck source=../common.sh
. "$(dirname "$0")/../common.sh"
here=$(cd "$(dirname "$0")" && pwd)

find_program NGINX nginx
find_program OPENSSL openssl
find_program CURL curl
find_vault
export HTTPS_PORT=${HTTPS_PORT:-$(free_port)}

# As Vault wants it: 1d:e8:…
serial_of() { "$OPENSSL" x509 -in "$1" -noout -serial | sed 's/serial=//; s/../&:/g; s/:$//'; }

# What nginx says to a client: ask NAME
ask() {
  "$CURL" -sS --cacert "$DIR/trust/ca.crt" --cert "$DIR/$1.pem" --resolve "web.example.com:$HTTPS_PORT:127.0.0.1" \
    "https://web.example.com:$HTTPS_PORT" | grep -m1 -Eo 'hello.*|400 [^<]*'
}
# By every worker: one of before the reload may still answer.
is_refused() {
  local attempt
  for attempt in 1 2 3; do ask "$1" | grep -q ^400 || return 1; done
}
says() { certferry status | grep -Eq "$1"; }
# Whether another certificate than this is proven to be served.
is_replaced() { [ "$(serial_of "$DIR/certs/tls.crt")" != "$1" ] && says '^web +ACTIVE .*✓'; }

start_vault
say 'a root, a role, a policy of one line, an approle; two clients, ada and grace'
as_root sh "$here/setup-vault.sh" "$DIR" >"$DIR/setup.log" 2>&1 || { cat "$DIR/setup.log" >&2; exit 69; }
cp "$here/certferry.yaml" "$CERTFERRY_CONFIG"
sed "s/127.0.0.1:8443/127.0.0.1:$HTTPS_PORT/" "$here/nginx.conf" >"$DIR/nginx.conf"

say 'certificate, root and list, before nginx starts'
show validate
show once

say "nginx at https://127.0.0.1:$HTTPS_PORT, which demands client certificates, and the sidecar beside it"
start nginx "$NGINX" -p "$DIR" -c nginx.conf -e error.log
start_certferry run
show wait --timeout 30s
until_works nginx says '^clients .*verified'
until_works nginx says '^web .*✓'
show status
for name in ada grace; do echo "$name: $(ask $name)"; done

say 'our certificate is revoked: it is replaced at once'
serial=$(serial_of "$DIR/certs/tls.crt")
vault write pki/revoke serial_number="$serial"
until_works nginx is_replaced "$serial"
show status

say 'the certificate of ada is revoked: nginx gets the new list, and refuses her'
vault write pki/revoke serial_number="$(serial_of "$DIR/ada.pem")"
until_works nginx is_refused ada
for name in ada grace; do echo "$name: $(ask $name)"; done
"$OPENSSL" crl -in "$DIR/trust/crl.pem" -noout -text | grep 'Serial Number'
show status

say "in service. Ctrl-C ends it, and removes $DIR"
echo "$OPENSSL crl -in $DIR/trust/crl.pem -noout -text"
linger
