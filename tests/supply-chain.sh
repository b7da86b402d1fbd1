#!/usr/bin/env bash
# Checks what others wrote of the program: licences, sources and advisories of the crates in Cargo.lock (deny.toml says by
# which rules), and advisories on the npm packages of every package-lock.json:
#
#     bash tests/supply-chain.sh
#
# Installs cargo-deny, in about ten minutes. Advisories come over the network; without it they are not checked, and the last
# lines say so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tests/packages.sh

broken=() unchecked=()

# check WHAT OFFLINE COMMAND..: runs the command. Where it fails and its output matches OFFLINE, it had no network.
check() {
    local what=$1 offline=$2 log
    shift 2
    log=$(mktemp)
    printf '\n== %s\n' "$what"
    if "$@" >"$log" 2>&1; then
        tail -n 3 "$log"
    elif [ -n "$offline" ] && grep -qE "$offline" "$log"; then
        grep -E "$offline" "$log" | head -n 2
        unchecked+=("$what")
    else
        cat "$log"
        broken+=("$what")
    fi
    rm "$log"
}

command -v cargo-deny >/dev/null || cargo install cargo-deny --locked
command -v npm >/dev/null || packages nodejs npm

check "Licences, sources and versions of crates" "" cargo deny --locked check bans licenses sources
check "Advisories on crates" "failed to fetch advisory database|failed to load advisory database" \
    cargo deny --locked check advisories
while read -r lock; do
    check "Advisories on npm packages: $lock" "audit endpoint returned an error|ENOTFOUND|ECONNREFUSED|ETIMEDOUT|EAI_AGAIN" \
        npm audit --prefix "$(dirname "$lock")" --package-lock-only
done < <(git ls-files '*package-lock.json')

printf '\n'
for what in "${unchecked[@]}"; do echo "NOT CHECKED, for want of the network: $what"; done
for what in "${broken[@]}"; do echo "FAILED: $what"; done
[ ${#broken[@]} -eq 0 ]
