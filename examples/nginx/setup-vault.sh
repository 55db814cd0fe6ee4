#!/bin/sh
# Prepares Vault: a root CA, an intermediate CA, a role, a policy of one line, and an approle for certferry.
# Usage: setup-vault.sh FOLDER   with VAULT_ADDR, VAULT_CACERT, VAULT_TOKEN set; role-id and secret-id end up in FOLDER.
set -eu
umask 077
folder=$1
vault=${VAULT_BIN:-vault}

if "$vault" policy read certferry >/dev/null 2>&1; then
  echo 'this Vault is set up already'
  exit 0
fi

"$vault" secrets enable -path=pki_root -max-lease-ttl=87600h pki
"$vault" secrets enable -path=pki_int -max-lease-ttl=43800h pki
"$vault" write -field=certificate pki_root/root/generate/internal common_name='Example root CA' ttl=87600h >"$folder/root.pem"
"$vault" write -field=csr pki_int/intermediate/generate/internal common_name='Example intermediate CA' >"$folder/intermediate.csr"
"$vault" write -field=certificate pki_root/root/sign-intermediate csr=@"$folder/intermediate.csr" ttl=43800h >"$folder/intermediate.pem"
# With its root, so that Vault hands out the whole chain.
{ cat "$folder/intermediate.pem" && echo && cat "$folder/root.pem"; } >"$folder/chain.pem"
"$vault" write pki_int/intermediate/set-signed certificate=@"$folder/chain.pem"
"$vault" write pki_int/roles/web allowed_domains=example.com allow_subdomains=true key_type=any max_ttl=72h

# All that certferry may do. (For "certferry doctor" to compare your wishes with the role, add: read on pki_int/roles/web.)
"$vault" policy write certferry - <<'END'
path "pki_int/sign/web" { capabilities = ["update"] }
END
"$vault" auth enable approle
"$vault" write auth/approle/role/certferry token_policies=certferry token_ttl=1h token_max_ttl=24h
"$vault" read -field=role_id auth/approle/role/certferry/role-id >"$folder/role-id"
"$vault" write -f -field=secret_id auth/approle/role/certferry/secret-id >"$folder/secret-id"
