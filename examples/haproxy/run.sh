#!/usr/bin/env bash
# HAProxy with certificates of a CA in a folder, by its runtime API: see README.md. Usage: run.sh [--seconds N]
set -euo pipefail
# shellcheck source=../common.sh
. "$(dirname "$0")/../common.sh"
here=$(cd "$(dirname "$0")" && pwd)

find_program HAPROXY_BIN haproxy
prepare "$here" haproxy.cfg
start haproxy "$HAPROXY_BIN" -W -db -f "$DIR/haproxy.cfg"
serve_and_rotate haproxy
