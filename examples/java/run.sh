#!/usr/bin/env bash
# A Java server with certificates of a CA in a folder: see README.md. Usage: run.sh [--seconds N]
set -euo pipefail
# shellcheck source=../common.sh
. "$(dirname "$0")/../common.sh"
here=$(cd "$(dirname "$0")" && pwd)
java=${JAVA_BIN:-$(path_of java openjdk-17-jdk-headless)}

export PORT=${PORT:-$(free_port)} ADMIN_PORT=${ADMIN_PORT:-$(free_port)}
cp "$here/certferry.yaml" "$CERTFERRY_CONFIG"
"$node" -p 'crypto.randomUUID()' >"$DIR/password"

say 'the first certificate, before the server starts'
show validate
show once

say "the server at https://localhost:$PORT, and the sidecar beside it"
start java env KEY_STORE="$DIR/tls/keystore.p12" PASSWORD_FILE="$DIR/password" "$java" -Xmx64m -XX:TieredStopAtLevel=1 "$here/Main.java"
until_works java grep -q '^listening' "$DIR/java.log"

accompany "127.0.0.1:$PORT"
echo "curl --cacert $DIR/ca/ca.crt https://localhost:$PORT"
linger
