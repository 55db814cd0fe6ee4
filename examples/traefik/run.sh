#!/usr/bin/env bash
# Traefik with certificates of a CA in a folder: see README.md. Usage: run.sh [--seconds N]
set -euo pipefail
# shellcheck source=../common.sh
. "$(dirname "$0")/../common.sh"
here=$(cd "$(dirname "$0")" && pwd)

find_program TRAEFIK_BIN traefik
prepare "$here" traefik.yaml dynamic.yaml
start traefik "$TRAEFIK_BIN" --configFile="$DIR/traefik.yaml"
serve_and_rotate traefik
