#!/usr/bin/env bash
# PostgreSQL with certificates of a CA in a folder: see README.md. Usage: run.sh [--seconds N]
set -euo pipefail
# shellcheck source=../common.sh
. "$(dirname "$0")/../common.sh"
here=$(cd "$(dirname "$0")" && pwd)

bin=${POSTGRES_BIN:-$(printf '%s\n' /usr/lib/postgresql/*/bin/postgres | sort -V | tail -n 1)}
[ -x "$bin" ] || { echo 'postgres is missing; on Debian: apt-get install postgresql' >&2; exit 69; }
programs=$(dirname "$bin")

# It refuses to be run by root: then it gets a namespace in which its user is nobody, and outside is still the owner of the files.
as_user() {
  if [ "$(id -u)" = 0 ]; then exec unshare --user --map-user=65534 --map-group=65534 -- "$@"; else exec "$@"; fi
}

export PORT=${PORT:-$(free_port)} ADMIN_PORT=${ADMIN_PORT:-$(free_port)}
cp "$here/certferry.yaml" "$CERTFERRY_CONFIG"

say 'the first certificate, and a database cluster'
show validate
show once
(as_user "$programs/initdb" --pgdata="$DIR/data" --username=app --auth=trust --no-sync --locale=C --encoding=UTF8) >"$DIR/initdb.log"
cat "$here/postgresql.conf" >>"$DIR/data/postgresql.conf"

say "PostgreSQL at 127.0.0.1:$PORT, and the sidecar beside it"
start postgres as_user "$programs/postgres" -D "$DIR/data" -p "$PORT"
until_works postgres "$programs/pg_isready" -h 127.0.0.1 -p "$PORT"

accompany "127.0.0.1:$PORT" --start-tls postgres
url="postgresql://app@localhost:$PORT/postgres?sslmode=verify-full&sslrootcert=$DIR/ca/ca.crt"
"$programs/psql" "$url" -XAtc 'select version from pg_stat_ssl where pid = pg_backend_pid()'
echo "psql '$url'"
linger
