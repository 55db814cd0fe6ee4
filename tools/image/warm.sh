#!/bin/sh
# Fills $NODE_COMPILE_CACHE, in the build stage of the Dockerfile: issues a certificate of a development CA into a folder that is thrown away.
set -eu
cli=$1
work=$(mktemp -d)
cat >"$work/config.yaml" <<YAML
certificates:
  - name: warm
    source: { kind: dev-ca, directory: $work/ca, commonName: warm.internal }
    outputs: [{ kind: pem, directory: $work/tls }]
YAML
chmod 600 "$work/config.yaml"
node "$cli" once -c "$work/config.yaml"
rm -rf "$work"
