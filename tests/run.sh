#!/usr/bin/env bash
# Sets up what the tests need and runs every check, from a fresh clone:
#
#     bash tests/run.sh
#
# For Debian, as root or with sudo. It says what it installs, and leaves alone what is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tests/packages.sh

cache="${XDG_CACHE_HOME:-$HOME/.cache}/flapsam"
# Outside the clone, so that the next clone starts from what this one built.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}"
# The same packages, profile and lock file in every call: with other packages cargo settles on other features of the
# dependencies, and builds the whole tree once more.
everything=(--workspace --release --locked)

# step HEADING COMMAND...: runs the command between its heading and its time.
step() {
    local heading=$1 start=$SECONDS
    shift
    printf '\n== %s\n' "$heading"
    "$@"
    printf -- '-- %s took %d s\n' "$heading" "$((SECONDS - start))"
}

# virtual_environment FOLDER PACKAGE...: makes a Python with these packages, in place of what is there.
virtual_environment() {
    local venv=$1 python=python3
    shift
    # Debian keeps the part of Python that fills a virtual environment in a package of its own.
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        packages python3-venv
        python=/usr/bin/python3
    fi
    echo "Installing Python packages into $venv: $*"
    "$python" -m venv --clear "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}

# A Python with what the tests compare with: nibabel for scans, scipy and Pillow for augmentation, scipy for intervals,
# surface-distance for distances between masks, pydicom and highdicom for DICOM, cryptography for signatures, the
# validators of manifests and of RO-Crates, and a spell checker. rocrate 0.14.0 carries the context of RO-Crate 1.1, which the validator needs
# and which later releases lack.
python_packages() {
    local venv="$cache/python"
    local wanted=(
        cryptography highdicom==0.28.2 mlcroissant nibabel numpy pillow pydicom==3.0.2 roc-validator==0.13.0
        rocrate==0.14.0 safetensors scipy surface-distance==0.1 typos==1.52.0
    )
    local imported="PIL, cryptography, highdicom, mlcroissant, nibabel, numpy, pydicom, rocrate, rocrate_validator"
    imported="$imported, safetensors, scipy, surface_distance"
    export FLAPSAM_PYTHON="$venv/bin/python"
    if [ -x "$venv/bin/typos" ] && "$FLAPSAM_PYTHON" -c "import $imported" 2>/dev/null; then
        echo "Python packages that are there: $venv"
        return
    fi
    virtual_environment "$venv" "${wanted[@]}"
}

# Flower, for the tests across sites; apart from the other packages, since it wants its own versions of some of them.
flower() {
    local venv="$cache/flower" wanted=flwr==1.42.0
    export FLAPSAM_FLOWER="$venv/bin/python"
    if "$FLAPSAM_FLOWER" -c 'import flwr; from importlib.metadata import version; assert version("flwr") == "1.42.0"' 2>/dev/null; then
        echo "Flower that is there: $venv"
        return
    fi
    virtual_environment "$venv" "$wanted"
}

set_up() {
    # A Vulkan driver in software, for the tests on wgpu.
    packages mesa-vulkan-drivers libvulkan1
    # Another processor, emulated, for the test that results do not depend on it.
    packages qemu-user
    # A training step's instructions are counted.
    packages valgrind
    # The viewer's tests run in real browsers.
    packages chromium firefox-esr
    # Other sources' nodejs has npm in it, and Debian's npm does not go with it.
    command -v npm >/dev/null || packages nodejs npm
    python_packages
    # Keys and certificates of the tests across sites.
    packages openssl openssh-client
    flower
    if [ -d ../shared ]; then
        echo "Real scans and more reference cases: ../shared"
    else
        echo "Real scans and more reference cases: none (there is no ../shared); the tests on them are skipped"
    fi
}

step "Set-up" set_up
step "Format" cargo fmt --all --check
step "Spelling" "${FLAPSAM_PYTHON%/*}/typos"
step "Clippy" cargo clippy "${everything[@]}" --all-targets -- -D warnings
step "Documentation" env RUSTDOCFLAGS="-D warnings" cargo doc "${everything[@]}" --no-deps
# Its target directory is its own: the compiler may be another one.
export FLAPSAM_WASM_TARGET="${CARGO_TARGET_DIR%/*}/wasm"
step "Viewer" bash viewer/build.sh
step "Viewer's numbers" bash viewer/test.sh
# The tests run the program itself, which building the tests alone does not build.
step "Build" cargo build "${everything[@]}" --all-targets
step "Examples" cargo test "${everything[@]}" --doc
# Tests that do nothing say so in a file, and fail where the set-up above should have let them do something.
skips=$(mktemp)
log=$(mktemp)
trap 'rm -f "$skips" "$log"' EXIT
export FLAPSAM_SKIPS="$skips"
# The page on a fresh run, in headless Chromium. What npm installs for it has MobileSAM's weights, for the tests after these.
browser_tests() (
    cd tests/browser
    if [ ! node_modules/.package-lock.json -nt package-lock.json ]; then
        npm ci --no-audit --no-fund
    fi
    FLAPSAM="$CARGO_TARGET_DIR/release/flapsam" npm test
)
step "Browser tests" browser_tests

run_tests() {
    if cargo nextest --version >/dev/null 2>&1; then
        cargo nextest run "${everything[@]}" --no-fail-fast
    else
        cargo test "${everything[@]}" --all-targets --no-fail-fast
    fi
}
printf '\n== Tests\n'
status=0
run_tests 2>&1 | tee "$log" || status=${PIPESTATUS[0]}
printf '\n%d times a test was skipped, or a part of it:\n' "$(wc -l <"$skips")"
sort "$skips" | uniq -c
# Once more, as the last word.
grep -E '^ +Summary |^test result: ' "$log" || true
exit "$status"
