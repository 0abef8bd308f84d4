#!/bin/sh
# Installs what tests/peers and bench/peers compare with into build/peers, from PyPI.
set -eu
cd "$(dirname "$0")/.."
python3 -m venv build/peers
build/peers/bin/pip install -q torch torchvision pillow numpy safetensors onnx onnxruntime qonnx
