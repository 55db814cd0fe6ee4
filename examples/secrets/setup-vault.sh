#!/bin/sh
# Prepares Vault: a secret, a key of transit, an SSH CA with a role, a policy, and an approle for certferry.
# Usage: setup-vault.sh FOLDER   with VAULT_ADDR, VAULT_CACERT, VAULT_TOKEN set; role-id, secret-id and the encrypted
# password end up in FOLDER. The engine at secret/ is there already in a Vault of "server -dev".
set -eu
umask 077
folder=$1
vault=${VAULT_BIN:-vault}

"$vault" kv put -mount=secret team/app user=ada password='one "quoted"'
"$vault" secrets enable transit
"$vault" write -f transit/keys/app
"$vault" write -field=ciphertext transit/encrypt/app plaintext="$(printf hunter2 | base64)" >"$folder/smtp-password"
"$vault" secrets enable ssh
"$vault" write ssh/config/ca generate_signing_key=true
echo '{ "key_type": "ca", "allow_user_certificates": true, "allowed_users": "deploy", "ttl": "1h", "default_extensions": { "permit-pty": "" } }' |
  "$vault" write ssh/roles/deploy -

# All that certferry may do.
"$vault" policy write certferry - <<'END'
path "secret/data/team/app" { capabilities = ["read"] }
path "transit/decrypt/app"  { capabilities = ["update"] }
path "ssh/sign/deploy"      { capabilities = ["update"] }
END
"$vault" auth enable approle
"$vault" write auth/approle/role/certferry token_policies=certferry token_ttl=1h token_max_ttl=24h
"$vault" read -field=role_id auth/approle/role/certferry/role-id >"$folder/role-id"
"$vault" write -f -field=secret_id auth/approle/role/certferry/secret-id >"$folder/secret-id"
