#!/bin/sh
# Fuzz targets for FUZZ_SECONDS each (default 60), optimised; `sh tests/fuzz.sh wire` for those whose name contains `wire`.
# A failure prints the seed that repeats it. Where cargo-bolero is installed, `cargo bolero test -p tests NAME` drives a target by coverage.
set -eu
cd "$(dirname "$0")/.."
seconds=${FUZZ_SECONDS:-60}
export BOLERO_RANDOM_TEST_TIME_MS=$((seconds * 1000))
# The time ends a run, not the count.
export BOLERO_RANDOM_ITERATIONS=1000000000000
exec cargo test --profile "${FUZZ_PROFILE:-release}" --locked -p tests --test fuzz -- "$@" --nocapture
