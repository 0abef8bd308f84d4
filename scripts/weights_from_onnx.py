#!/usr/bin/env python3
"""A folded MobileNet v2 in ONNX -> .safetensors with torchvision's names, for train --weights.

Every folded convolution gets a batch norm that is the identity on the given images: its running
statistics are those of the convolution's output, gamma = sqrt(var + eps), beta = mean + bias.
The input changes from x / 127.5 - 1 to ImageNet's mean and deviation. The network runs as the
small stem does (first stride 1). The classifier (other classes) is left out.

    python3 weights_from_onnx.py MODEL.onnx IMAGES/train OUT.safetensors
"""
import pathlib
import sys

import numpy
import onnx
import torch
from onnx import numpy_helper
from PIL import Image
from safetensors.torch import save_file

EPS = 1e-5
MEAN = torch.tensor([0.485, 0.456, 0.406])
DEVIATION = torch.tensor([0.229, 0.224, 0.225])


def names():
    """(convolution, batch norm) of the 52 convolutions, in the order in which they run."""
    yield "features.0.0", "features.0.1"
    yield "features.1.conv.0.0", "features.1.conv.0.1"
    yield "features.1.conv.1", "features.1.conv.2"
    for i in range(2, 18):
        yield f"features.{i}.conv.0.0", f"features.{i}.conv.0.1"
        yield f"features.{i}.conv.1.0", f"features.{i}.conv.1.1"
        yield f"features.{i}.conv.2", f"features.{i}.conv.3"
    yield "features.18.0", "features.18.1"


def images(folder, count=1000):
    files = sorted(pathlib.Path(folder).glob("*/*"))
    chosen = [files[i * len(files) // count] for i in range(count)]
    pixels = numpy.stack([numpy.asarray(Image.open(f).convert("RGB")) for f in chosen])
    x = torch.from_numpy(pixels).float() / 255
    return ((x - MEAN) / DEVIATION).permute(0, 3, 1, 2).contiguous()


def main(model_path, folder, out_path):
    graph = onnx.load(model_path).graph
    constant = {i.name: torch.from_numpy(numpy_helper.to_array(i).copy())
                for i in graph.initializer}
    value = {graph.input[0].name: images(folder)}
    todo, out = names(), {}
    for node in graph.node:
        if node.op_type == "Conv":
            x, weight, bias = value[node.input[0]], constant[node.input[1]], constant[node.input[2]]
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            first = not out
            if first:  # 2 p - 1 with p = deviation x + mean
                bias = bias + (weight * (2 * MEAN - 1).view(1, 3, 1, 1)).sum((1, 2, 3))
                weight = weight * (2 * DEVIATION).view(1, 3, 1, 1)
            y = torch.nn.functional.conv2d(x, weight, None,
                                           1 if first else attributes["strides"][0],
                                           weight.shape[2] // 2, 1, attributes["group"])
            mean, var = y.mean((0, 2, 3)), y.var((0, 2, 3), unbiased=False)
            conv, norm = next(todo)
            out[f"{conv}.weight"] = weight
            out[f"{norm}.weight"] = (var + EPS).sqrt()
            out[f"{norm}.bias"] = mean + bias
            out[f"{norm}.running_mean"], out[f"{norm}.running_var"] = mean, var
            value[node.output[0]] = y + bias.view(1, -1, 1, 1)
        elif node.op_type == "Clip":
            value[node.output[0]] = value[node.input[0]].clip(0, 6)
        elif node.op_type == "Add" and node.input[0] in value and node.input[1] in value:
            value[node.output[0]] = value[node.input[0]] + value[node.input[1]]
        elif node.op_type == "ReduceMean":
            break
    assert next(todo, None) is None, "expected the 52 convolutions of MobileNet v2"
    save_file({k: v.contiguous() for k, v in out.items()}, out_path)
    print(f"{out_path}: {len(out)} tensors")


if __name__ == "__main__":
    with torch.no_grad():
        main(*sys.argv[1:4])
