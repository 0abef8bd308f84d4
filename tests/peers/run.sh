#!/bin/sh
# run.sh PYTHON SCRIPT ARGUMENT... - runs a comparison, or says that it was skipped; with
# PEERS_MUST_RUN set that is a failure.
if ! "$1" -c 'import torch, torchvision, safetensors, onnx, onnxruntime' 2>/dev/null; then
    echo "skipped: $1 lacks torch, torchvision, safetensors, onnx or onnxruntime, which"
    echo "scripts/peers.sh installs"
    [ -z "$PEERS_MUST_RUN" ] || exit 1
    exit 77
fi
exec "$@"
