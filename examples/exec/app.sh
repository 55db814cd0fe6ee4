#!/bin/sh
# A program that knows nothing of Vault: its secrets are in its environment.
echo "app: started as $DB_USER, with a password of ${#DB_PASSWORD} letters, for $DATABASE_HOST; VAULT_TOKEN=${VAULT_TOKEN:-not here}"
trap 'echo "app: asked to end"; exit 7' TERM
while :; do sleep 0.2; done
