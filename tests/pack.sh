#!/usr/bin/env bash
# Packs the built program with all that comes with it, and a checksum, into target/packed:
#
#     bash tests/pack.sh NAME
#
# The viewer's page goes in if it is built. The program finds all of it in share/flapsam beside it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

name=$1
target="${CARGO_TARGET_DIR:-target}"
program=flapsam
if [ -f "$target/release/flapsam.exe" ]; then program=flapsam.exe; fi
packed=target/packed
rm -rf "${packed:?}/$name"
mkdir -p "$packed/$name/share/flapsam"
cp "$target/release/$program" "$packed/$name/"
cp README.md CHANGELOG.md LICENSE-APACHE LICENSE-MIT CITATION.cff SECURITY.md "$packed/$name/"
cp -R golden data-manifests "$packed/$name/share/flapsam/"
if [ -f viewer/web/dist/index.html ]; then
    mkdir -p "$packed/$name/share/flapsam/viewer/web"
    cp -R viewer/web/dist "$packed/$name/share/flapsam/viewer/web/"
else
    echo "Without the page: bash viewer/build.sh builds it" >&2
fi
if command -v strip >/dev/null && [ "$program" = flapsam ]; then strip "$packed/$name/flapsam"; fi
tar -C "$packed" -czf "$packed/$name.tar.gz" "$name"
rm -rf "${packed:?}/$name"
cd "$packed"
if command -v sha256sum >/dev/null; then sha256sum "$name.tar.gz"; else shasum -a 256 "$name.tar.gz"; fi >"$name.tar.gz.sha256"
cat "$name.tar.gz.sha256"
