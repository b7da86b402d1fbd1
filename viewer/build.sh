#!/usr/bin/env bash
# Builds the page that `flapsam view` serves, into viewer/web/dist:
#
#     bash viewer/build.sh
#
# Needs Node.js 20.19 or later with npm. It installs what else is missing (and says what), outside the repository.
# FLAPSAM_WASM_TARGET is cargo's target directory for it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tests/packages.sh
source viewer/toolchain.sh

# What a browser downloads at most, bytes.
most=3000000

# The engine with its bindings to JavaScript.
engine() {
    wasm_cargo build
    wasm_bindgen
    "$bindgen/wasm-bindgen" --target web --remove-name-section --remove-producers-section \
        --out-dir viewer/web/wasm "$CARGO_TARGET_DIR/$target/wasm/flapsam_viewer.wasm"
}

# Without wasm-opt: it made the file 15 % smaller and its gzip 5 % larger, and took three minutes.
weigh() {
    local wasm=viewer/web/wasm/flapsam_viewer_bg.wasm size
    size=$(gzip -9 -c $wasm | wc -c)
    echo "WebAssembly: $(wc -c <$wasm) bytes, $size gzipped (at most $most)"
    [ "$size" -le $most ] || {
        echo "That is too much for a page to download; cut features or code" >&2
        return 1
    }
}

page() {
    command -v npm >/dev/null || packages nodejs npm
    cd viewer/web
    if [ ! node_modules/.package-lock.json -nt package-lock.json ]; then
        npm ci --no-audit --no-fund
    fi
    npm run build
}

engine
weigh
page
