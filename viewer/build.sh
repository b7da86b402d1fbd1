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

cache="${XDG_CACHE_HOME:-$HOME/.cache}/flapsam"
# Its own: the compiler may be another one than for native builds.
export CARGO_TARGET_DIR="${FLAPSAM_WASM_TARGET:-$cache/wasm}"
target=wasm32-unknown-unknown
# What a browser downloads at most, bytes.
most=3000000

has_target() {
    [ -d "$(rustc --print target-libdir --target $target 2>/dev/null)" ]
}

# The engine, by the user's own compiler if it has the target, else by Debian's.
compile() {
    local build=(build --profile wasm -p flapsam-viewer --target $target)
    if ! has_target && command -v rustup >/dev/null; then
        echo "Installing the Rust target $target"
        timeout 60 rustup target add $target || echo "rustup cannot fetch it; Debian's compiler can build it"
    fi
    if has_target; then
        cargo "${build[@]}" --locked
        return
    fi
    packages rustc-web cargo-web rust-web-src lld
    # Builds the standard library from Debian's sources. Without --locked, which would hold for that library's own
    # lock file too; native builds hold ours.
    RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-ld \
        /usr/bin/cargo "${build[@]}" -Zbuild-std=std,panic_abort
}

# The engine's bindings to JavaScript, by the release of wasm-bindgen that it was compiled with.
bind() {
    local version root
    version=$(sed -n '/^name = "wasm-bindgen"$/{n;s/^version = "\(.*\)"$/\1/p}' Cargo.lock)
    root="$cache/wasm-bindgen-$version"
    if [ ! -x "$root/bin/wasm-bindgen" ]; then
        echo "Installing wasm-bindgen $version into $root"
        local install=(cargo install wasm-bindgen-cli --version "$version" --root "$root")
        # A registry's mirror may lag behind the releases that its lock file names.
        env -u CARGO_TARGET_DIR "${install[@]}" --locked || env -u CARGO_TARGET_DIR "${install[@]}"
    fi
    "$root/bin/wasm-bindgen" --target web --remove-name-section --remove-producers-section \
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

compile
bind
weigh
page
