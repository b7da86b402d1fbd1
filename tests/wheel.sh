#!/usr/bin/env bash
# Builds the wheel and tries it in a clean virtual environment, away from the sources:
#
#     bash tests/wheel.sh
#
# Needs Python 3 with venv. The wheel stays in target/wheels.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

data=target/wheel-data
shared="$data/data/share/flapsam"
rm -rf "$data" target/wheels
mkdir -p "$shared"
cp -R golden data-manifests "$shared/"
if [ -f viewer/web/dist/index.html ]; then
    mkdir -p "$shared/viewer/web"
    cp -R viewer/web/dist "$shared/viewer/web/"
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/tools"
"$scratch/tools/bin/pip" install --quiet "maturin>=1.9,<2"
"$scratch/tools/bin/maturin" build --release --out target/wheels

python3 -m venv "$scratch/clean"
"$scratch/clean/bin/pip" install --quiet target/wheels/flapsam-*.whl
cd "$scratch"
export PATH="$scratch/clean/bin:$PATH"
flapsam --version
flapsam doctor --data "$scratch/data"
flapsam verify --suite phantom/quick --dry-run --device cpu --data "$scratch/data" --out "$scratch/runs"
