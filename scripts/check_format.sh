#!/bin/sh
# Fails when clang-format would change a tracked source file; `make format` changes them.
set -eu
cd "$(dirname "$0")/.."
files=$(git ls-files '*.c' '*.h')
[ -n "$files" ] || { echo "check_format.sh: git tracks no source file here" >&2; exit 1; }
# shellcheck disable=SC2086  # a list of names without spaces
clang-format --dry-run -Werror $files
