#!/usr/bin/env bash
# Caddy with certificates of a CA in a folder: see README.md. Usage: run.sh [--seconds N]
set -euo pipefail
# shellcheck source=../common.sh
. "$(dirname "$0")/../common.sh"
here=$(cd "$(dirname "$0")" && pwd)

find_program CADDY_BIN caddy
find_program ACTIVATE_BIN systemd-socket-activate
prepare "$here" Caddyfile
# The socket is there before Caddy, which starts at the first connection. It keeps a folder in its HOME.
start caddy env HOME="$DIR" "$ACTIVATE_BIN" -l "127.0.0.1:$HTTPS_PORT" -E HOME "$CADDY_BIN" run --adapter caddyfile --config "$DIR/Caddyfile"
serve_and_rotate caddy
