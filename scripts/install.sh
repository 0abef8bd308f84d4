#!/bin/sh
# Installs the Debian packages that building, testing and the demo need; those that are there are
# left as they are, and nothing is asked of the network when all are.
set -eu

packages="
    cmake ninja-build gcc pkg-config python3
    libdnnl-dev ocl-icd-opencl-dev libjpeg62-turbo-dev|libjpeg-dev libspng-dev zlib1g-dev libjansson-dev
    libprotobuf-c-dev protobuf-c-compiler
    libcmocka-dev
    dataset-fashion-mnist
"

if ! command -v dpkg-query >/dev/null; then
    echo "install.sh: no dpkg here; install the counterparts of:$packages" >&2
    exit 1
fi

# "a|b": either will do, and a is what gets installed.
installed()
{
    for name in $(echo "$1" | tr '|' ' '); do
        # One line for each architecture.
        dpkg-query -W -f '${db:Status-Status}\n' "$name" 2>/dev/null | grep -qx installed && return 0
    done
    return 1
}

missing=
for package in $packages; do
    installed "$package" || missing="$missing ${package%%|*}"
done
[ -n "$missing" ] || exit 0

echo "installing:$missing"
sudo=
[ "$(id -u)" -eq 0 ] || sudo=sudo
$sudo apt-get update -qq
# shellcheck disable=SC2086  # a list of words
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing
