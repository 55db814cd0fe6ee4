#!/usr/bin/env bash
# Builds the Dockerfile and runs the image for real, without a Docker engine and without an image registry:
#   npm run build is not needed; run as root on Debian or Ubuntu:  tools/image-test.sh [FOLDER]
# FOLDER (default: a new temporary one, removed at the end) holds the local base image, image layers and logs; name one to keep them.
# The base is made of Debian packages plus the pinned Node of node_modules, in place of node:24.21.0-bookworm.
set -euo pipefail
cd "$(dirname "$0")/.."

work=${1:-}
if [ -z "$work" ]; then
  work=$(mktemp -d)
  trap 'cleanup; rm -rf "$work"' EXIT
else
  mkdir -p "$work"
  trap 'cleanup' EXIT
fi
started=()
built=
cleanup() {
  [ -z "$built" ] || "${buildah[@]}" rm "$built" >/dev/null 2>&1 || true
  for name in "${started[@]}"; do "${podman[@]}" rm --force --time 1 "$name" >/dev/null 2>&1 || true; done
}
storage=(--storage-driver overlay --root "$work/root" --runroot "$work/run")
buildah=(buildah "${storage[@]}")
podman=(podman "${storage[@]}")
say() { printf '\n== %s\n' "$*"; }
fail() {
  echo "FAILED: $*" >&2
  exit 1
}

main() {
  require buildah podman runc mmdebstrap npm getcap
  [ -x node_modules/.bin/node ] || npm ci --ignore-scripts --no-audit --no-fund
  base_image
  build_image
  write_configuration
  runs_and_stops
  issues_with_everything_taken_away
  echo
  echo 'image: all checks passed'
}

require() {
  for program; do
    command -v "$program" >/dev/null ||
      fail "$program is missing: apt-get install buildah podman runc catatonit conmon uidmap fuse-overlayfs mmdebstrap libcap2-bin"
  done
}

base_image() {
  if "${buildah[@]}" inspect --type image localhost/node:24 >/dev/null 2>&1; then return; fi
  say 'local base image (half a minute, kept in the folder)'
  mmdebstrap --quiet --variant=minbase --include=ca-certificates,binutils bookworm "$work/base.tar"
  mkdir -p "$work/base/npm"
  cp -L node_modules/.bin/node "$work/base/node"
  cp -r "$(npm root --global 2>/dev/null)/npm/." "$work/base/npm"
  # Whoever needs an own CA to reach the package registry has it in this variable; the image that is built never sees it.
  cp "${NODE_EXTRA_CA_CERTS:-/etc/ssl/certs/ca-certificates.crt}" "$work/base/ca.pem"
  mv "$work/base.tar" "$work/base/base.tar"
  cat >"$work/base/Dockerfile" <<'BASE'
FROM scratch
ADD base.tar /
COPY node /usr/local/bin/node
COPY npm /usr/local/lib/node_modules/npm
COPY ca.pem /usr/local/share/local-ca.pem
RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm
ENV NODE_EXTRA_CA_CERTS=/usr/local/share/local-ca.pem
BASE
  "${buildah[@]}" bud --isolation chroot --tag localhost/node:24 "$work/base" >"$work/base.log" 2>&1 || { tail "$work/base.log"; fail 'the base image'; }
  rm -rf "$work/base"
}

build_image() {
  say 'the Dockerfile as it is'
  local begin=$SECONDS
  # HEALTHCHECK exists in Docker's format only.
  "${buildah[@]}" bud --isolation chroot --pull-never --format docker --build-arg NODE_IMAGE=localhost/node:24 \
    --tag localhost/certferry:test . >"$work/build.log" 2>&1 || { tail -20 "$work/build.log"; fail 'the build'; }
  echo "built in $((SECONDS - begin)) s"
  local mount
  built=$("${buildah[@]}" from --pull-never localhost/certferry:test)
  mount=$("${buildah[@]}" mount "$built")
  echo "size: $(du -sk --apparent-size "$mount" | awk '{printf "%.1f MB", $1 * 1024 / 1e6}')," \
    "compressed: $(tar -C "$mount" -cf - . | gzip -6 | wc -c | awk '{printf "%.1f MB", $1 / 1e6}')"
  (cd "$mount" && find . -type f -size +100k -printf '  %k KiB %p\n' | sort -rn | head -12)
  holds_nothing_to_misuse "$mount"
  "${buildah[@]}" rm "$built" >/dev/null
  built=
}

# Told by what is there, not by a list of what must not be: nothing but Node and the libraries it is linked to can be executed.
holds_nothing_to_misuse() {
  say 'what can be executed, changed or used to become somebody else'
  local executables writable foreign user
  executables=$(cd "$1" && find . -type f \( -perm /111 -o -name '*.so*' \) | sort)
  echo "$executables"
  ! grep -vE '^\./usr/local/bin/node$|^\./(usr/)?lib(64)?(/[a-z0-9_-]+-linux-gnu)?/(ld-linux[a-z0-9_.-]*|lib[a-z_+]+)\.so[.0-9]*$' <<<"$executables" ||
    fail 'more than Node can be executed: a shell, a package manager, a tool'
  ! find "$1" -type l -o -type p -o -type s -o -type b -o -type c | grep . || fail 'there is what is neither a file nor a folder'
  # npm is JavaScript, which needs no permission to be executed.
  ! find "$1" \( -name 'npm*' -o -name 'npx*' -o -name 'corepack*' -o -name 'yarn*' -o -name node_modules \) | grep . || fail 'there is a package manager'
  ! find "$1" -perm /6000 | grep . || fail 'there is a setuid or setgid file'
  ! getcap -r "$1" | grep . || fail 'a file has capabilities'
  writable=$(cd "$1" && find . -perm /022 -printf '%p %m\n')
  foreign=$(cd "$1" && find . ! -uid 0)
  [ "$writable" = './tmp 1777' ] || fail "others than root may write: $writable"
  [ -z "$foreign" ] || fail "does not belong to root: $foreign"
  echo 'only /tmp can be written by others than root'
  user=$("${buildah[@]}" inspect --type image --format '{{.OCIv1.Config.User}}' localhost/certferry:test)
  echo "user $user"
  [ "$user" = 65532:65532 ] || fail 'the user of the image'
  local listed wanted
  listed=$(components <"$1/app/sbom.cdx.json")
  wanted=$(node_modules/.bin/node tools/sbom.ts | components)
  [ "$listed" = "$wanted" ] || fail 'the SBOM in the image is not the one of this lockfile'
  echo "SBOM: $(wc -l <<<"$listed") packages"
}

# One line for each package; fails when there is none.
components() {
  node_modules/.bin/node -e '
    const { components } = JSON.parse(require("fs").readFileSync(0, "utf8"))
    if (!(components.length > 0)) throw new Error("an SBOM of nothing")
    for (const component of components) console.log(JSON.stringify(component))'
}

write_configuration() {
  mkdir -p "$work/etc"
  cat >"$work/etc/config.yaml" <<'YAML'
admin: { listen: '127.0.0.1:0', socket: /state/control.sock }
certificates:
  - name: web
    source: { kind: dev-ca, directory: /state/ca, commonName: web.internal }
    outputs: [{ kind: pem, directory: /tls }]
YAML
  chmod 755 "$work/etc"
  chmod 644 "$work/etc/config.yaml"
  # Machines without CAP_SYS_RESOURCE or with a hybrid cgroup tree need each of these.
  cat >"$work/containers.conf" <<'CONF'
[containers]
netns = "host"
default_ulimits = ["nofile=20000:20000", "nproc=30000:30000"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
CONF
  export CONTAINERS_CONF="$work/containers.conf"
}

# start NAME ARGUMENT…: as a hardened pod would run it.
start() {
  local name="certferry-test-$$-$1"
  shift
  "${podman[@]}" run --detach --name "$name" --pull=never --no-healthcheck --network=none \
    --read-only --read-only-tmpfs=false --cap-drop=ALL --security-opt no-new-privileges \
    --tmpfs /state:size=1m,mode=1777 --tmpfs /tls:size=64k,mode=1777 --volume "$work/etc:/etc/certferry:ro" "$@" >/dev/null
  started+=("$name")
  container=$name
}

inside() { "${podman[@]}" exec "$container" /usr/local/bin/node "$@"; }

# What process 1 may do, told by the kernel, and whether anything but the volumes can be written.
CONFINED='
const { accessSync, constants, readdirSync, readFileSync, writeFileSync } = require("node:fs")
const status = Object.fromEntries(readFileSync("/proc/1/status", "utf8").split("\n").map((line) => line.split(":\t")))
const troubles = []
const expect = (what, found, wanted) => {
  console.log(`${what}: ${found}`)
  if (found !== wanted) troubles.push(what)
}
expect("uid", status.Uid.split("\t").join(" "), "65532 65532 65532 65532")
expect("gid", status.Gid.split("\t").join(" "), "65532 65532 65532 65532")
expect("groups", status.Groups.trim(), "65532")
for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]) expect(set, status[set], "0000000000000000")
expect("NoNewPrivs", status.NoNewPrivs, "1")
const VOLUMES = ["/state", "/tls", "/proc", "/sys", "/dev"]
const writable = []
const look = (path) => {
  if (VOLUMES.includes(path)) return
  try {
    accessSync(path, constants.W_OK)
    writable.push(path)
  } catch {}
  let entries = []
  try {
    entries = readdirSync(path, { withFileTypes: true })
  } catch {}
  for (const entry of entries) if (!entry.isSymbolicLink()) look(`${path === "/" ? "" : path}/${entry.name}`)
}
look("/")
expect("writable besides the volumes", writable.join(" "), "")
let code = "written"
try {
  writeFileSync("/app/dist/cli.cjs", "")
} catch (error) {
  code = error.code
}
expect("writing to its own code", code, "EROFS")
process.exitCode = troubles.length > 0 ? 1 : 0
'

runs_and_stops() {
  say 'read-only, no capabilities, no network: becomes ready'
  start run localhost/certferry:test
  healthcheck || { "${podman[@]}" logs "$container"; fail 'it does not become ready'; }
  echo 'ready'
  inside -e 'console.log("files", require("fs").readdirSync("/tls").join(" "))'
  inside -e 'console.log(require("fs").readFileSync("/proc/1/status", "utf8").match(/^(VmRSS|RssAnon|Seccomp):.*/gm).join("; "))'
  inside -e "$CONFINED" || fail 'it is not confined'
  say 'ends on SIGTERM with 0'
  local begin=$SECONDS
  "${podman[@]}" stop --time 20 "$container" >/dev/null
  local code
  code=$("${podman[@]}" inspect --format '{{.State.ExitCode}}' "$container")
  echo "exit code $code after $((SECONDS - begin)) s"
  [ "$code" = 0 ] || { "${podman[@]}" logs "$container"; fail "exit code $code"; }
}

# The HEALTHCHECK of the image, word by word, until it succeeds.
healthcheck() {
  local check
  mapfile -t check < <("${podman[@]}" image inspect --format '{{range $i, $word := .HealthCheck.Test}}{{if $i}}{{println $word}}{{end}}{{end}}' localhost/certferry:test | sed '/^$/d')
  echo "healthcheck: ${check[*]}"
  for _ in 1 2 3 4 5; do
    if "${podman[@]}" exec "$container" "${check[@]}" >"$work/health.log" 2>&1; then return 0; fi
  done
  cat "$work/health.log"
  return 1
}

issues_with_everything_taken_away() {
  say 'any other uid, 64 MB of memory: once'
  start once --user 12345:12345 --memory 64m localhost/certferry:test once -c /etc/certferry/config.yaml
  local code
  code=$("${podman[@]}" wait "$container")
  "${podman[@]}" logs "$container" 2>&1 | tail -3
  [ "$code" = 0 ] || fail "exit code $code"
}

main
