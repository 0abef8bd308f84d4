#!/bin/sh
# run.sh PYTHON SCRIPT ARGUMENT... - runs a comparison, or says that it was skipped.
if ! "$1" -c 'import torch, torchvision, safetensors' 2>/dev/null; then
    echo "skipped: $1 has no torch, torchvision and safetensors; scripts/peers.sh installs them"
    exit 77
fi
exec "$@"
