#!/usr/bin/env python3
"""Exported ONNX files in ONNX Runtime, and QONNX in its own executor, against the integer runtime.

    export.py METAMIX PEER_NETS

Networks of every kind with random weights, 2 to 8 bits. Native types: the same logits, but for an
average pool's order of additions. 8-bit types: the same top-1 for 99.5% of all images; a float sum
on the edge of a code is what may differ, and networks with random weights amplify it. At up to 4
bits ONNX Runtime must make integer convolutions of nearly all layers between two quantizers. QONNX
sums values, not codes.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy
import onnx
import onnxruntime
from safetensors.numpy import save_file

IMAGES, SIZE = 8, 32
STYLES = {"native": ("onnx", "--onnx-types", "native"), "int8": ("onnx", "--onnx-types", "int8"),
          "qonnx": ("qonnx",)}
# Largest difference of logits over the largest logit; qonnx: for 8-bit networks.
WITHIN = {"native": 1e-5, "int8": 0.05, "qonnx": 0.05}
SAME_TOP1 = 0.995
FUSED, FUSED_OF = 0.9, 10


def run_onnxruntime(model, images, level, optimized=""):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.optimized_model_filepath = str(optimized)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, {"image": images})[0]


def check_fused(model, optimized, bits):
    """Layers with an int32 bias become integer convolutions; of few bits, nearly all have one."""
    names = [node.output[0] for node in model.graph.node if node.op_type == "Conv"]
    constants = {tensor.name for tensor in model.graph.initializer}
    whole = sum(name + ".bias.codes" in constants for name in names)
    added = sum(name.endswith(".sum") for name in names)
    fused = sum(node.op_type == "QLinearConv" for node in onnx.load(optimized).graph.node)
    assert fused == whole, f"{fused} integer convolutions of {whole} layers with an int32 bias"
    few = bits > 4 or whole + added < FUSED_OF
    assert few or whole >= FUSED * (whole + added), f"int32 biases: {whole}, others: {added}"
    return f"{fused}/{whole + added}"


def run_qonnx(path, images):
    """None: the package is not installed."""
    try:
        from qonnx.core.modelwrapper import ModelWrapper
        from qonnx.core.onnx_exec import execute_onnx
        from qonnx.transformation.infer_shapes import InferShapes
    except ImportError:
        return None
    model = ModelWrapper(str(path))
    model.set_tensor_shape("image", list(images.shape))
    return execute_onnx(model.transform(InferShapes()), {"image": images})["logits"]


def check_qonnx_structure(model, layers):
    quants = [node for node in model.graph.node if node.op_type == "Quant"]
    assert len(quants) == 2 * layers, f"{len(quants)} Quant nodes for {layers} layers"
    for node in quants:
        names = {attribute.name for attribute in node.attribute}
        assert names == {"signed", "narrow", "rounding_mode"}, names
        assert node.domain == "qonnx.custom_op.general" and len(node.input) == 4


def verify(metamix, mix, folder, images, logits):
    """The integer runtime on the same images: (same top-1, largest relative difference)."""
    trace = folder / "trace.safetensors"
    save_file({"image": numpy.ascontiguousarray(images.transpose(0, 2, 3, 1)),
               "logits": numpy.ascontiguousarray(logits, dtype=numpy.float32)}, trace)
    done = subprocess.run([metamix, "verify", mix, "--against", trace, "--images", str(IMAGES),
                           "--json", "--quiet"], capture_output=True, text=True)
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert found["images"] == IMAGES
    return found["same_top1"], found["logits_difference"]


def export(metamix, mix, style, out):
    subprocess.run([metamix, "export", "--from", mix, "--format", *STYLES[style], "--out", out,
                    "--quiet"], check=True, stdout=subprocess.DEVNULL)
    model = onnx.load(out)
    onnx.checker.check_model(model, full_check=style != "qonnx")
    return model


def check(metamix, mix, style, folder, images):
    """Images of the same top-1, and what to print."""
    out, optimized = folder / "model.onnx", folder / "optimized.onnx"
    model = export(metamix, mix, style, out)
    bits = int(mix.stem[-1])
    if style == "qonnx":
        convs = sum(node.op_type == "Conv" for node in model.graph.node)
        check_qonnx_structure(model, convs)
        runs = [run_qonnx(out, images)]
    else:
        levels = onnxruntime.GraphOptimizationLevel
        runs = [run_onnxruntime(model, images, levels.ORT_DISABLE_ALL),
                run_onnxruntime(model, images, levels.ORT_ENABLE_ALL, optimized)]
    least, worst = IMAGES, 0.0
    for logits in runs:
        if logits is None:
            return IMAGES, "not run"
        same, apart = verify(metamix, mix, folder, images, logits)
        least, worst = min(least, same), max(worst, apart)
    exact = style != "qonnx" or bits == 8
    assert not exact or worst <= WITHIN[style], f"{mix.stem} {style}: logits off by {worst}"
    fused = check_fused(model, optimized, bits) if style == "int8" else ""
    return least, f"{least}/{IMAGES} {worst:.1e} {fused}"


def main():
    metamix, peer_nets = sys.argv[1:]
    images = numpy.random.default_rng(1).standard_normal((IMAGES, 3, SIZE, SIZE))
    images = images.astype(numpy.float32)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        subprocess.run([peer_nets, name], check=True)
        print(f"{'same top-1, logits apart':28}" + "".join(f"{style:>22}" for style in STYLES))
        total, same = 0, dict.fromkeys(STYLES, 0)
        for mix in sorted(folder.glob("*.mix")):
            cells = {style: check(metamix, mix, style, folder, images) for style in STYLES}
            print(f"{mix.stem:28}" + "".join(f"{cell:>22}" for _, cell in cells.values()),
                  flush=True)
            total += IMAGES
            for style, (images_same, _) in cells.items():
                same[style] += images_same
    print(f"of {total} images:", same)
    for style in ("native", "int8"):
        assert same[style] >= SAME_TOP1 * total, f"{style}: {same[style]} of {total}"


if __name__ == "__main__":
    main()
