#!/usr/bin/env bash
# A program with secrets of Vault in its environment, restarted when they change: see README.md. Usage: run.sh [--seconds N]
set -euo pipefail
# shellcheck source=../common.sh
. "$(dirname "$0")/../common.sh"
here=$(cd "$(dirname "$0")" && pwd)

find_vault
start_vault

say 'a secret, a policy of one line, an approle'
as_root sh "$here/setup-vault.sh" "$DIR" >"$DIR/setup.log" 2>&1 || { cat "$DIR/setup.log" >&2; exit 69; }
cp "$here/certferry.yaml" "$CERTFERRY_CONFIG"
show validate

say 'the program, with certferry as its supervisor'
export DATABASE_HOST='vault:secret/data/team/app#host'
export VAULT_TOKEN='a token that the program must not see'
start app "$node" "$repo/bin/certferry.js" exec -c "$CERTFERRY_CONFIG" -- "$here/app.sh"
supervisor=${started[-1]}
unset VAULT_TOKEN DATABASE_HOST
until_works app grep -q 'started as ada' "$DIR/app.log"
show status

say 'a new password in Vault: it is restarted with it'
vault kv put -mount=secret team/app user=grace password=secret host=db.example.com
until_works app grep -q 'started as grace' "$DIR/app.log"
grep '^app:' "$DIR/app.log"

say "it runs as long as you like, as process $supervisor; its output is in $DIR/app.log"
sleep "${seconds:-infinity}" &
started+=($!)
wait -n "$supervisor" $! || true

say 'SIGTERM: the program is asked to end, and certferry ends with its exit code'
kill "$supervisor"
wait "$supervisor" || echo "exit code $?"
