#!/bin/sh
# Prepares Vault: a secret, a policy of one line, and an approle for certferry.
# Usage: setup-vault.sh FOLDER   with VAULT_ADDR, VAULT_CACERT, VAULT_TOKEN set; role-id and secret-id end up in FOLDER.
# The engine at secret/ is there already in a Vault of "server -dev".
set -eu
umask 077
folder=$1
vault=${VAULT_BIN:-vault}

"$vault" kv put -mount=secret team/app user=ada password=one host=db.example.com

# All that certferry may do.
"$vault" policy write certferry - <<'END'
path "secret/data/team/app" { capabilities = ["read"] }
END
"$vault" auth enable approle
"$vault" write auth/approle/role/certferry token_policies=certferry token_ttl=1h token_max_ttl=24h
"$vault" read -field=role_id auth/approle/role/certferry/role-id >"$folder/role-id"
"$vault" write -f -field=secret_id auth/approle/role/certferry/secret-id >"$folder/secret-id"
