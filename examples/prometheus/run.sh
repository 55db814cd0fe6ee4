#!/usr/bin/env bash
# Prometheus with certificates of a CA in a folder: see README.md. Usage: run.sh [--seconds N]
set -euo pipefail
# shellcheck source=../common.sh
. "$(dirname "$0")/../common.sh"
here=$(cd "$(dirname "$0")" && pwd)

prometheus=${PROMETHEUS_BIN:-$(path_of prometheus prometheus)}

export PORT=${PORT:-$(free_port)} ADMIN_PORT=${ADMIN_PORT:-$(free_port)}
cp "$here/certferry.yaml" "$CERTFERRY_CONFIG"
cp "$here/web.yml" "$DIR/web.yml"
sed "s/9090/$PORT/" "$here/prometheus.yml" >"$DIR/prometheus.yml"

say 'the first certificate, before Prometheus starts'
show validate
show once

ask() { curl -sSf --cacert "$DIR/ca/ca.crt" --cert "$DIR/tls/tls.crt" --key "$DIR/tls/tls.key" "https://localhost:$PORT$1"; }

say "Prometheus at https://localhost:$PORT, and the sidecar beside it"
start prometheus "$prometheus" --config.file="$DIR/prometheus.yml" --web.config.file="$DIR/web.yml" \
  --web.listen-address="127.0.0.1:$PORT" --storage.tsdb.path="$DIR/data"
until_works prometheus ask /-/ready

accompany "127.0.0.1:$PORT"
until_works prometheus eval 'ask "/api/v1/query?query=up" | grep -q "\"1\"\]"'
ask '/api/v1/query?query=up' && echo
linger
