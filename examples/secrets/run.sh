#!/usr/bin/env bash
# Secrets of Vault as files, with a reload at each change, all on this machine: see README.md. Usage: run.sh [--seconds N]
set -euo pipefail
# shellcheck source=../common.sh
. "$(dirname "$0")/../common.sh"
here=$(cd "$(dirname "$0")" && pwd)

# Whether the status tells of trouble.
failed() { certferry status | grep -q failed; }

find_vault
start_vault

say 'a secret, a key of transit, an SSH CA, a policy of three lines, an approle'
as_root sh "$here/setup-vault.sh" "$DIR" >"$DIR/setup.log" 2>&1 || { cat "$DIR/setup.log" >&2; exit 69; }
SMTP_PASSWORD=$(cat "$DIR/smtp-password")
export SMTP_PASSWORD
cp "$here/certferry.yaml" "$CERTFERRY_CONFIG"

say 'the files, before the program starts'
show validate
show once
cat "$DIR/secrets/app.toml"

say 'the program, and the sidecar beside it'
start app env SECRETS_DIR="$DIR/secrets" PID_FILE="$DIR/app.pid" "$node" "$here/app.mjs"
until_works app test -s "$DIR/app.pid"
start_certferry run
show wait --timeout 30s

say 'a new version in Vault is delivered, and the program told'
vault kv put -mount=secret team/app user=grace password=two
until_works app grep -q grace "$DIR/app.log"
cat "$DIR/app.log"

say 'a version without the password is not: the last good files stay, and the status says why'
vault kv put -mount=secret team/app user=hedy
until_works app failed
show status
cat "$DIR/secrets/app.toml"

say 'mended'
vault kv put -mount=secret team/app user=hedy password=three
show rotate --all --wait
until_works app grep -q hedy "$DIR/app.log"
show status

say "in service. Ctrl-C ends it, and removes $DIR"
echo "ls -l $DIR/secrets"
linger
