#!/bin/sh
# Lays out the final image below $1, in the build stage of the Dockerfile: Node, the libraries it is linked to, the bundle, its SBOM,
# an account, the licences. Needs a glibc system with Node.
set -eu
root=$1
node=$(command -v node)

install -D -m 755 "$node" "$root/usr/local/bin/node"
# Symbols for debuggers are a seventh of the file.
if command -v strip >/dev/null; then strip --strip-all "$root/usr/local/bin/node"; fi

# Each library under the very path the linker looks at, as a plain file.
ldd "$node" | grep -o '/[^ ]*' | while read -r library; do
  install -D -m 755 "$(readlink -f "$library")" "$root$library"
done

install -d -m 755 "$root/etc" "$root/app"
install -d -m 1777 "$root/tmp"
echo 'certferry:x:65532:65532:certferry:/:/nonexistent' >"$root/etc/passwd"
echo 'certferry:x:65532:' >"$root/etc/group"
# Without it glibc asks DNS before /etc/hosts.
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
cp -r dist "$root/app/dist"
install -m 644 sbom.cdx.json "$root/app/sbom.cdx.json"

install -D -m 644 LICENSE "$root/licenses/certferry"
for package in libc6 libgcc-s1 libstdc++6; do
  if [ -e "/usr/share/doc/$package/copyright" ]; then install -m 644 "/usr/share/doc/$package/copyright" "$root/licenses/$package"; fi
done
for file in "$(dirname "$node")/../LICENSE" /usr/share/doc/nodejs/copyright; do
  if [ -e "$file" ]; then install -m 644 "$file" "$root/licenses/node"; fi
done
