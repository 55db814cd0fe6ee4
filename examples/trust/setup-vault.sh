#!/bin/sh
# Prepares Vault: an old root and a new one, each in a mount of its own with a role, a policy of two lines, an approle for
# certferry, and a client of either root.
# Usage: setup-vault.sh FOLDER   with VAULT_ADDR, VAULT_CACERT, VAULT_TOKEN set; all files end up in FOLDER.
set -eu
umask 077
folder=$1
vault=${VAULT_BIN:-vault}

for age in old new; do
  "$vault" secrets enable -path="pki_$age" -max-lease-ttl=87600h pki
  "$vault" write "pki_$age/root/generate/internal" common_name="The $age root" key_type=ec key_bits=256 ttl=87600h
  "$vault" write "pki_$age/roles/web" allowed_domains=example.com allow_subdomains=true key_type=ec key_bits=256 max_ttl=72h
  # Certificate and key, one after the other: what curl takes.
  "$vault" write -format=json "pki_$age/issue/web" common_name="$age-client.example.com" ttl=1h |
    sed -n 's/^ *"\(certificate\|private_key\)": "\(.*\)",*$/\2/p' | sed 's/\\n/\n/g' >"$folder/$age-client.pem"
done

# All that certferry may do. Which roots a mount has, everybody may read.
"$vault" policy write certferry - <<'END'
path "pki_old/sign/web" { capabilities = ["update"] }
path "pki_new/sign/web" { capabilities = ["update"] }
END
"$vault" auth enable approle
"$vault" write auth/approle/role/certferry token_policies=certferry token_ttl=1h token_max_ttl=24h
"$vault" read -field=role_id auth/approle/role/certferry/role-id >"$folder/role-id"
"$vault" write -f -field=secret_id auth/approle/role/certferry/secret-id >"$folder/secret-id"
