#!/bin/sh
# Plays cert-manager and the kubelet: issues a certificate and swaps it into the volume as the kubelet does.
# Usage: issue.sh FOLDER [--key-of-another]   The CA is made at the first call, in FOLDER/issuer; the volume is FOLDER/mounted.
set -eu
umask 077
folder=$1 ca=$1/issuer volume=$1/mounted
key='ec -pkeyopt ec_paramgen_curve:P-256'

if [ ! -d "$ca" ]; then
  mkdir -p "$ca" "$volume"
  openssl req -x509 -newkey $key -noenc -days 30 -subj '/CN=Example Root' \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign -keyout "$ca/ca.key" -out "$ca/ca.crt"
fi

# As pkg/volume/util/atomic_writer.go of Kubernetes: a new directory, and one rename of the link ..data.
new=..$(date +%Y_%m_%d_%H_%M_%S).$$
mkdir "$volume/$new"
openssl req -newkey $key -noenc -subj /CN=localhost -keyout "$volume/$new/tls.key" -out "$ca/csr"
printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n' >"$ca/extensions"
openssl x509 -req -in "$ca/csr" -days 1 -CA "$ca/ca.crt" -CAkey "$ca/ca.key" -extfile "$ca/extensions" -out "$volume/$new/tls.crt"
cp "$ca/ca.crt" "$volume/$new/"
[ "${2:-}" != --key-of-another ] || openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$volume/$new/tls.key"
old=$(readlink "$volume/..data" || true)
ln -s "$new" "$volume/..data_tmp"
mv -T "$volume/..data_tmp" "$volume/..data"
for name in tls.crt tls.key ca.crt; do [ -L "$volume/$name" ] || ln -s "..data/$name" "$volume/$name"; done
[ -z "$old" ] || rm -r "${volume:?}/$old"
