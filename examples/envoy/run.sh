#!/usr/bin/env bash
# Envoy with certificates of a CA in a folder: see README.md. Usage: run.sh [--seconds N]
set -euo pipefail
# shellcheck source=../common.sh
. "$(dirname "$0")/../common.sh"
here=$(cd "$(dirname "$0")" && pwd)

find_program ENVOY_BIN envoy
prepare "$here" envoy.yaml sds.yaml
start envoy "$ENVOY_BIN" -c "$DIR/envoy.yaml" --disable-hot-restart --concurrency 2 -l warning
serve_and_rotate envoy
