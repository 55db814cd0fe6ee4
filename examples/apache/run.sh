#!/usr/bin/env bash
# Apache httpd with certificates of a CA in a folder: see README.md. Usage: run.sh [--seconds N]
set -euo pipefail
# shellcheck source=../common.sh
. "$(dirname "$0")/../common.sh"
here=$(cd "$(dirname "$0")" && pwd)

find_program APACHE_BIN apache2 httpd
export APACHE=$APACHE_BIN
prepare "$here" httpd.conf
start apache "$APACHE" -f "$DIR/httpd.conf" -DFOREGROUND
serve_and_rotate apache
