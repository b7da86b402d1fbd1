#!/usr/bin/env bash
# Fuzzes what the program does with bytes from anybody (tests/src/hostile.rs), ten minutes a target or so many seconds:
#
#     bash tests/fuzz.sh                  # all targets
#     bash tests/fuzz.sh 60 scan pth      # a minute each
#
# Needs rustup's nightly compiler, and installs cargo-fuzz. An input that panics, takes more than a second or more than a
# gibibyte stays in fuzz/artifacts, where the message says how to run it again; mend the reader, and put the input into
# fuzz/corpus/TARGET, which tests/tests/fuzz_corpus.rs replays. What the fuzzer learned stays in fuzz/found, for its next run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${1:-600}
shift || true
targets=("$@")
# As cargo builds otherwise: cargo-fuzz has one unit, whose time is all of a core's.
options=(--codegen-units 16)
cache="${XDG_CACHE_HOME:-$HOME/.cache}/flapsam"
# Its own: another compiler, and a sanitizer in everything.
export CARGO_TARGET_DIR="$cache/fuzz"
# Some targets write files, thousands in a second.
if [ -w /dev/shm ]; then export TMPDIR=/dev/shm; fi

set_up() {
    cargo +nightly --version >/dev/null 2>&1 || {
        echo "There is no nightly compiler; install it: rustup toolchain install nightly" >&2
        return 2
    }
    cargo fuzz --version 2>/dev/null || cargo install cargo-fuzz --locked
    # The versions of the main tree.
    cp Cargo.lock fuzz/Cargo.lock
    cargo +nightly fuzz build "${options[@]}"
    [ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(cargo fuzz list)
}

# fuzz TARGET: what libFuzzer says goes into a file.
fuzz() {
    mkdir -p "fuzz/found/$1"
    cargo +nightly fuzz run "${options[@]}" "$1" "fuzz/found/$1" "fuzz/corpus/$1" -- \
        -max_total_time="$seconds" -timeout=1 -rss_limit_mb=1024 -print_final_stats=1 >"fuzz/found/$1.log" 2>&1
}

# What a log says: how often the target ran, how much of the code that reached, and how much memory that took.
summary() {
    local runs covered peak
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$1")
    covered=$(grep -oE 'cov: [0-9]+' "$1" | tail -n 1)
    peak=$(sed -n 's/^stat::peak_rss_mb: *//p' "$1")
    echo "${runs:-no} runs, ${covered:-cov: none}, ${peak:-?} MiB at most"
}

set_up
found=0
for target in "${targets[@]}"; do
    start=$SECONDS
    status=0
    fuzz "$target" || status=$?
    printf '%-12s%s in %d s\n' "$target" "$(summary "fuzz/found/$target.log")" "$((SECONDS - start))"
    if [ "$status" -ne 0 ]; then
        found=$((found + 1))
        grep -E '^(==[0-9]+== *ERROR|SUMMARY|thread .* panicked|Error|error|.*Test unit written to)' \
            "fuzz/found/$target.log" | head -n 5 | sed 's/^/    /'
    fi
done
echo "$found of ${#targets[@]} targets broke"
[ "$found" -eq 0 ]
