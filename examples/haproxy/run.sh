#!/usr/bin/env bash
# HAProxy with certificates of a CA in a folder, by its runtime API: see README.md. Usage: run.sh [--seconds N]
set -euo pipefail
# shellcheck source=../common.sh
. "$(dirname "$0")/../common.sh"
here=$(cd "$(dirname "$0")" && pwd)

haproxy=${HAPROXY_BIN:-$(PATH=$PATH:/usr/sbin:/usr/local/sbin command -v haproxy || true)}
[ -n "$haproxy" ] || { echo 'haproxy is missing; on Debian: apt-get install haproxy' >&2; exit 69; }
prepare "$here" haproxy.cfg
start haproxy "$haproxy" -W -db -f "$DIR/haproxy.cfg"
serve_and_rotate haproxy
