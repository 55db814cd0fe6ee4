# shellcheck shell=bash
# For the run.sh of the examples: finds the programs, keeps every file in one temporary folder, and at the end stops
# what was started and removes the folder. It sets: $repo, $node, $DIR (the folder), $seconds (of --seconds, or empty);
# certferry finds its config, $DIR/certferry.yaml, by CERTFERRY_CONFIG.

usage() {
  echo "usage: ${0##*/} [--seconds N]   N: end after so many seconds; without it, Ctrl-C ends it"
}

seconds=
while [ $# -gt 0 ]; do
  case $1 in
    --seconds) seconds=${2:?--seconds needs a number}; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 64 ;;
  esac
done

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
node=$repo/node_modules/.bin/node
[ -x "$node" ] || { echo "first run \"npm ci\" in $repo" >&2; exit 69; }

# Nobody else may read keys or change the config; certferry refuses a config that others can write.
umask 077
DIR=$(mktemp -d "${TMPDIR:-/tmp}/certferry-example.XXXXXX")
export DIR CERTFERRY_CONFIG=$DIR/certferry.yaml

started=()

# The last one started is the first to end.
cleanup() {
  local index
  trap '' INT TERM
  for ((index = ${#started[@]} - 1; index >= 0; index--)); do
    kill "${started[index]}" 2>/dev/null || true
    wait "${started[index]}" 2>/dev/null || true
  done
  rm -rf "$DIR"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf '\n==> %s\n' "$*"; }

# Runs a command and shows it first.
show() {
  printf '\n$ certferry %s\n' "$*"
  certferry "$@"
}

certferry() { "$node" "$repo/bin/certferry.js" "$@"; }

# Starts a program that runs until the end; its output goes to $DIR/NAME.log.
start() {
  local name=$1
  shift
  "$@" >"$DIR/$name.log" 2>&1 &
  started+=($!)
}

# The sidecar; its log is worth seeing.
start_certferry() {
  "$node" "$repo/bin/certferry.js" "$@" &
  started+=($!)
}

# Tries a command until it works; gives up after 30 s and shows the log of NAME.
until_works() {
  local name=$1 attempt
  shift
  for ((attempt = 0; attempt < 300; attempt++)); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.1
  done
  echo "$name did not start:" >&2
  tail -n 20 "$DIR/$name.log" >&2
  return 1
}

# Beside a server that takes its certificate from certferry: the sidecar, a proof, one rotation under proof. Words go to "check".
accompany() {
  local look=(check "$@" --server-name localhost --ca-file "$DIR/ca/ca.crt" --warn 10s --critical 5s)
  start_certferry run
  show wait --timeout 30s
  show status
  show "${look[@]}"
  say 'rotate now, and wait until fresh connections have shown only the new certificate'
  show rotate --all --wait
  show "${look[@]}"
  show status
  say "in service, and renewed again and again. Ctrl-C ends it, and removes $DIR"
}

# The path of a program that not every PATH has, or the package that brings it.
path_of() {
  PATH=$PATH:/usr/sbin:/usr/local/sbin type -P "$1" || { echo "$1 is missing; on Debian: apt-get install $2" >&2; exit 69; }
}

free_port() {
  "$node" -e 'require("node:net").createServer().listen(0, "127.0.0.1", function () { console.log(this.address().port); this.close() })'
}

# Sets VAULT_BIN: as given, or from PATH, or from ~/.cache/certferry, where it is built in 8 to 10 minutes when it is nowhere.
find_vault() {
  # -P: a program, not the function below.
  VAULT_BIN=${VAULT_BIN:-$(type -P vault || true)}
  if [ -z "$VAULT_BIN" ]; then
    VAULT_BIN=$("$node" "$repo/tools/components.ts" vault)
    VAULT_BIN=${VAULT_BIN#vault: }
  fi
  export VAULT_BIN
}

# A Vault in memory, with TLS; sets VAULT_ADDR and VAULT_CACERT. Only as_root has its root token.
start_vault() {
  local port=${VAULT_PORT:-$(free_port)}
  export VAULT_ADDR=https://127.0.0.1:$port VAULT_CACERT=$DIR/vault-ca.pem
  say "Vault, in memory, at $VAULT_ADDR"
  root_token=$("$node" -p 'crypto.randomUUID()')
  VAULT_DEV_ROOT_TOKEN_ID=$root_token start vault "$VAULT_BIN" server -dev -dev-tls -dev-tls-cert-dir="$DIR" \
    -dev-listen-address="127.0.0.1:$port" -dev-no-store-token
  until_works vault "$VAULT_BIN" status
}

# Runs a command with the root token of that Vault.
as_root() { VAULT_TOKEN=$root_token "$@"; }

# What somebody does to Vault; shown first.
vault() {
  printf '\n$ vault %s\n' "$*"
  as_root "$VAULT_BIN" "$@" >/dev/null
}

# Sets the variable to the first of the programs that is there, unless it is set already. find_program VARIABLE NAME…
find_program() {
  local variable=$1 name path
  shift
  [ -z "${!variable:-}" ] || return 0
  for name in "$@"; do
    path=$(PATH=$PATH:/usr/sbin:/usr/local/sbin type -P "$name" || true)
    if [ -n "$path" ]; then printf -v "$variable" %s "$path"; return; fi
  done
  echo "$1 is missing: install it, or set $variable" >&2
  exit 69
}

# A file of an example, ${NAME} replaced by what is exported under that name; for servers that know no variables.
fill() {
  local name script=
  for name in DIR HTTPS_PORT ADMIN_PORT; do script+="s|\${$name}|${!name}|g;"; done
  sed "$script" "$1"
}

# For the examples without Vault: free ports, the files of the example in $DIR, and the first certificate. prepare FOLDER FILE…
prepare() {
  local here=$1 file
  shift
  export HTTPS_PORT=${HTTPS_PORT:-$(free_port)} ADMIN_PORT=${ADMIN_PORT:-$(free_port)}
  for file in "$@"; do fill "$here/$file" >"$DIR/$file"; done
  cp "$here/certferry.yaml" "$CERTFERRY_CONFIG"
  say 'the first certificate, before the server starts'
  show validate
  show once
}

# The sidecar beside a server that was started: proof, a rotation, proof; then in service. serve_and_rotate NAME [FILE OF THE ROOT]
serve_and_rotate() {
  local root=${2:-$DIR/ca/ca.crt}
  say "$1 at https://127.0.0.1:$HTTPS_PORT, and the sidecar beside it"
  start_certferry run
  show wait --timeout 30s || { tail -n 20 "$DIR/$1.log" >&2; return 1; }
  local check=(check "127.0.0.1:$HTTPS_PORT" --server-name web.example.com --ca-file "$root" --warn 30s --critical 5s)
  show status
  show "${check[@]}"
  say 'rotate now, and wait until fresh connections have shown only the new certificate'
  show rotate web --wait
  show "${check[@]}"
  show status
  say "in service; renewed every minute or so. Ctrl-C ends it, and removes $DIR"
  echo "curl --cacert $root --resolve web.example.com:$HTTPS_PORT:127.0.0.1 https://web.example.com:$HTTPS_PORT"
  linger
}

# Until --seconds are over, or Ctrl-C; fails when one of the programs ends before.
linger() {
  sleep "${seconds:-infinity}" &
  started+=($!)
  wait -n "${started[@]}" || { echo 'one of the programs ended by itself' >&2; return 1; }
}
