# Installs Debian packages; for scripts to source.

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# packages NAME...: installs the Debian packages that are missing.
packages() {
    local name missing=()
    if ! command -v apt-get >/dev/null; then
        echo "This is not Debian: if a step fails, install what these packages hold: $*"
        return
    fi
    for name; do
        if [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$name" 2>/dev/null)" != installed ]; then
            missing+=("$name")
        fi
    done
    if [ ${#missing[@]} -eq 0 ]; then
        echo "Debian packages that are there: $*"
        return
    fi
    echo "Installing Debian packages: ${missing[*]}"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "${missing[@]}"
}
