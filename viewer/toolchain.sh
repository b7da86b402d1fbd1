# What compiles for WebAssembly; for scripts to source, at the repository's root.

cache="${XDG_CACHE_HOME:-$HOME/.cache}/flapsam"
# Its own: the compiler may be another one than for native builds.
export CARGO_TARGET_DIR="${FLAPSAM_WASM_TARGET:-$cache/wasm}"
target=wasm32-unknown-unknown

has_target() {
    [ -d "$(rustc --print target-libdir --target $target 2>/dev/null)" ]
}

# wasm_cargo VERB [OPTION...]: compiles the viewer, by the user's own compiler if it has the target, else by Debian's.
wasm_cargo() {
    local verb=$1
    local options=(--profile wasm -p flapsam-viewer --target $target "${@:2}")
    if ! has_target && command -v rustup >/dev/null; then
        echo "Installing the Rust target $target"
        timeout 60 rustup target add $target || echo "rustup cannot fetch it; Debian's compiler can build it"
    fi
    if has_target; then
        cargo "$verb" "${options[@]}" --locked
        return
    fi
    packages rustc-web cargo-web rust-web-src lld
    # Builds the standard library from Debian's sources. Without --locked, which would hold for that library's own
    # lock file too; native builds hold ours.
    RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-ld \
        /usr/bin/cargo "$verb" "${options[@]}" -Zbuild-std=std,panic_abort,test
}

# Installs wasm-bindgen's tools, of the release that the engine was compiled with, into $bindgen.
wasm_bindgen() {
    local version root
    version=$(sed -n '/^name = "wasm-bindgen"$/{n;s/^version = "\(.*\)"$/\1/p}' Cargo.lock)
    root="$cache/wasm-bindgen-$version"
    bindgen="$root/bin"
    if [ ! -x "$bindgen/wasm-bindgen" ]; then
        echo "Installing wasm-bindgen $version into $root"
        local install=(cargo install wasm-bindgen-cli --version "$version" --root "$root")
        # A registry's mirror may lag behind the releases that its lock file names.
        env -u CARGO_TARGET_DIR "${install[@]}" --locked || env -u CARGO_TARGET_DIR "${install[@]}"
    fi
}
