#!/usr/bin/env python3
"""Exported ONNX files in ONNX Runtime, and QONNX in its own executor, against the integer runtime.

    export.py METAMIX PEER_NETS

Networks of every kind with random weights, 2 to 8 bits. Native types: the same logits, but for an
average pool's order of additions. 8-bit types round each bias to a unit of its sums, and networks
with random weights amplify what that changes: the first convolution must be within that rounding,
logits are printed and loosely bounded for 8-bit networks. QONNX sums values, not codes.
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
# Largest difference of logits over the largest logit, for 8-bit networks; native: for all.
WITHIN = {"native": 1e-5, "int8": 0.3, "qonnx": 0.05}


def run_onnxruntime(model, images, level, output="logits"):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run([output], {"image": images})[0]


def check_first_conv(int8, native, images):
    """Its sums have biases that are whole numbers of units: at most half a unit off."""
    name = next(node.output[0] for node in int8.graph.node if node.op_type == "Conv")
    found = []
    for model in (int8, native):
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, None))
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        found.append(run_onnxruntime(model, images, level, name))
    unit = next(onnx.numpy_helper.to_array(tensor) for tensor in int8.graph.initializer
                if tensor.name == name + ".bias.step")
    off = numpy.abs(found[0] - found[1]).max(axis=(0, 2, 3))
    assert (off <= 0.5 * unit + 1e-5 * numpy.abs(found[1]).max()).all(), f"{name}: off by {off}"


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
    out = folder / "model.onnx"
    model = export(metamix, mix, style, out)
    if style == "qonnx":
        convs = sum(node.op_type == "Conv" for node in model.graph.node)
        check_qonnx_structure(model, convs)
        runs = [run_qonnx(out, images)]
    else:
        levels = onnxruntime.GraphOptimizationLevel
        runs = [run_onnxruntime(model, images, level)
                for level in (levels.ORT_DISABLE_ALL, levels.ORT_ENABLE_ALL)]
    worst = (IMAGES, 0.0)
    for logits in runs:
        if logits is None:
            return "not run"
        same, apart = verify(metamix, mix, folder, images, logits)
        worst = (min(worst[0], same), max(worst[1], apart))
    exact = style == "native" or mix.stem.endswith("a8")
    assert not exact or worst[1] <= WITHIN[style], f"{mix.stem} {style}: logits off by {worst[1]}"
    if style == "int8":
        check_first_conv(model, export(metamix, mix, "native", out), images)
    return f"{worst[0]}/{IMAGES} {worst[1]:.1e}"


def main():
    metamix, peer_nets = sys.argv[1:]
    images = numpy.random.default_rng(1).standard_normal((IMAGES, 3, SIZE, SIZE))
    images = images.astype(numpy.float32)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        subprocess.run([peer_nets, name], check=True)
        print(f"{'same top-1, logits apart':28}" + "".join(f"{style:>16}" for style in STYLES))
        for mix in sorted(folder.glob("*.mix")):
            cells = [check(metamix, mix, style, folder, images) for style in STYLES]
            print(f"{mix.stem:28}" + "".join(f"{cell:>16}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
