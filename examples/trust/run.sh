#!/usr/bin/env bash
# A root CA rolls over, under client certificates, all on this machine: see README.md. Usage: run.sh [--seconds N]
set -euo pipefail
# shellcheck source=../common.sh
. "$(dirname "$0")/../common.sh"
here=$(cd "$(dirname "$0")" && pwd)

find_program NGINX nginx
find_program OPENSSL openssl
find_program CURL curl
find_vault
export HTTPS_PORT=${HTTPS_PORT:-$(free_port)}

# What is published, and what nginx says to clients that trust what is published.
show_trust() {
  show status
  echo
  echo "the bundle, $DIR/trust/ca.crt:"
  "$OPENSSL" crl2pkcs7 -nocrl -certfile "$DIR/trust/ca.crt" | "$OPENSSL" pkcs7 -print_certs -noout | grep subject
  for age in old new; do
    printf '%s client: ' "$age"
    "$CURL" -sS --cacert "$DIR/trust/ca.crt" --cert "$DIR/$age-client.pem" --resolve "web.example.com:$HTTPS_PORT:127.0.0.1" \
      "https://web.example.com:$HTTPS_PORT" | grep -m1 -Eo 'hello.*|400 [^<]*'
  done
}

# Edits the config as somebody does, and shows it; certferry takes it by itself.
edit() {
  cp "$CERTFERRY_CONFIG" "$DIR/before.yaml"
  sed "$1" "$DIR/before.yaml" >"$DIR/after.yaml"
  diff "$DIR/before.yaml" "$DIR/after.yaml" | grep '^[<>]' || true
  mv "$DIR/after.yaml" "$CERTFERRY_CONFIG"
}

says() { certferry status | grep -Eq "$1"; }
is_of() { "$OPENSSL" x509 -in "$DIR/certs/tls.crt" -noout -issuer | grep -q "$1" && says '^web +ACTIVE .*✓'; }

start_vault
say 'two mounts, each with a root and a role; a policy of two lines, an approle; a client of either root'
as_root sh "$here/setup-vault.sh" "$DIR" >"$DIR/setup.log" 2>&1 || { cat "$DIR/setup.log" >&2; exit 69; }
cp "$here/certferry.yaml" "$CERTFERRY_CONFIG"
sed "s/127.0.0.1:8443/127.0.0.1:$HTTPS_PORT/" "$here/nginx.conf" >"$DIR/nginx.conf"

say 'roots and certificate, before nginx starts'
show validate
show once

say "nginx at https://127.0.0.1:$HTTPS_PORT, which takes clients of the old root, and the sidecar beside it"
start nginx "$NGINX" -p "$DIR" -c nginx.conf -e error.log
start_certferry run
show wait --timeout 30s
until_works nginx says '^peers .*verified'
show_trust

say 'the new root is published beside the old one; the certificate is to come from it, and waits until both are in force'
edit '/^    anchors:/a\      - { kind: vault-pki, mount: pki_new }
s/mount: pki_old, role/mount: pki_new, role/'
until_works nginx says '^peers .*verified +2 CAs$'
show_trust

until_works nginx is_of 'new root'
say 'the certificate has moved; clients of either root pass'
show_trust

say 'nobody names the old root any more: it goes'
edit '/mount: pki_old }/d'
until_works nginx says '^peers .*verified +1 CA$'
show_trust

say "in service. Ctrl-C ends it, and removes $DIR"
echo "$OPENSSL crl2pkcs7 -nocrl -certfile $DIR/trust/ca.crt | $OPENSSL pkcs7 -print_certs -noout"
linger
