#!/bin/sh
# rt_alone.sh PROGRAM: it runs, and needs libc, libm and the loader, nothing else.
set -eu
"$1"
needed=$(ldd "$1")
others=$(echo "$needed" | grep -Ev '^[[:space:]]*(linux-vdso|linux-gate|lib[cm]\.so|/lib[^ ]*/ld-|ld-linux)' || true)
echo "$needed" | grep -q 'libc\.so' || { echo "no libc in: $needed"; exit 1; }
[ -z "$others" ] || { echo "libmetamix_rt needs more than libc and libm: $others"; exit 1; }
