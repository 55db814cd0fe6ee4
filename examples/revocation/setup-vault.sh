#!/bin/sh
# Prepares Vault: a root, a role, a policy of one line, an approle for certferry, and two clients.
# Usage: setup-vault.sh FOLDER   with VAULT_ADDR, VAULT_CACERT, VAULT_TOKEN set; all files end up in FOLDER.
set -eu
umask 077
folder=$1
vault=${VAULT_BIN:-vault}

"$vault" secrets enable -max-lease-ttl=87600h pki
"$vault" write pki/root/generate/internal common_name='The root' key_type=ec key_bits=256 ttl=87600h
"$vault" write pki/roles/web allowed_domains=example.com allow_subdomains=true key_type=ec key_bits=256 max_ttl=72h
for name in ada grace; do
  # Certificate and key, one after the other: what curl takes.
  "$vault" write -format=json pki/issue/web common_name="$name.example.com" ttl=1h |
    sed -n 's/^ *"\(certificate\|private_key\)": "\(.*\)",*$/\2/p' | sed 's/\\n/\n/g' >"$folder/$name.pem"
done

# All that certferry may do. Whether a certificate was revoked, and the list, everybody may read.
"$vault" policy write certferry - <<'END'
path "pki/sign/web" { capabilities = ["update"] }
END
"$vault" auth enable approle
"$vault" write auth/approle/role/certferry token_policies=certferry token_ttl=1h token_max_ttl=24h
"$vault" read -field=role_id auth/approle/role/certferry/role-id >"$folder/role-id"
"$vault" write -f -field=secret_id auth/approle/role/certferry/secret-id >"$folder/secret-id"
