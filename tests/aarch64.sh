#!/usr/bin/env bash
# Shows that 64-bit Arm computes the same bytes: builds the program for it and runs the short experiments of
# tests/tests/exactness.rs under qemu, beside this machine's.
#
#     bash tests/aarch64.sh
#
# For Debian on x86-64, as root or with sudo. The build takes half an hour on two cores, the run some minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tests/packages.sh

cache="${XDG_CACHE_HOME:-$HOME/.cache}/flapsam"
arm=aarch64-unknown-linux-gnu

# Debian's compiler, which has the sources of the standard library: that library is built as well. Without --locked,
# which would hold for its own lock file too.
build_for_arm() {
    packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross rustc-web cargo-web rust-web-src
    RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_PROFILE_RELEASE_DEBUG=false CARGO_TARGET_DIR="$cache/aarch64" \
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
        /usr/bin/cargo build --release -p flapsam --target $arm -Zbuild-std=std,panic_unwind
}

build_for_arm
packages qemu-user
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}"
cargo build --workspace --release --locked --all-targets
FLAPSAM_ON_ARM="$cache/aarch64/$arm/release/flapsam" cargo test --workspace --release --locked --test exactness \
    -- --ignored --nocapture on_64_bit_arm
