#!/bin/sh
# Lets libFuzzer look for input that breaks a reader: scripts/fuzz.sh [SECONDS [TARGET...]]
# Needs clang with its sanitizers (Debian: clang libclang-rt-14-dev). What breaks one stays in
# build/fuzz; a small version of it belongs into tests/fuzz/corpus/TARGET.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-60}
[ $# -gt 0 ] && shift
CC=clang cmake --preset asan -B build/fuzz -DMIX_FUZZ=ON -DMIX_WERROR=OFF >/dev/null
cmake --build build/fuzz --target fuzzers
for target in ${*:-mix onnx weights checkpoint bits settings image idx pack run}; do
    found=build/fuzz/found/$target
    mkdir -p "$found"
    seeds=tests/fuzz/corpus/$target
    case $target in
    onnx) seeds='tests/onnx tests/onnx/refused' ;;
    weights) seeds="$seeds tests/unit/pth" ;;
    esac
    absolute=
    for folder in $seeds; do absolute="$absolute $PWD/$folder"; done
    echo "== $target, $seconds seconds"
    # shellcheck disable=SC2086
    (cd build/fuzz && "tests/fuzz/libfuzzer_$target" -max_total_time="$seconds" -max_len=20000 \
        -timeout=20 -verbosity=0 -print_final_stats=1 -artifact_prefix="$PWD/found/$target-" \
        "$PWD/found/$target" $absolute)
done
