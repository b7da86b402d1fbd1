#!/usr/bin/env bash
# Runs the engine's numerical tests in headless Chromium, on the CPU and on WebGPU:
#
#     bash viewer/test.sh
#
# webdriver.json says how the browser is started. What is missing is installed, as by build.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tests/packages.sh
source viewer/toolchain.sh

packages chromium chromium-driver
wasm_bindgen
export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER="$bindgen/wasm-bindgen-test-runner"
export CHROMEDRIVER="${CHROMEDRIVER:-$(command -v chromedriver)}"
# Seconds; a software adapter translates the network's kernels for minutes.
export WASM_BINDGEN_TEST_TIMEOUT="${WASM_BINDGEN_TEST_TIMEOUT:-900}"
wasm_cargo test --test parity
