#!/usr/bin/env python3
"""Makes the ONNX files of test_onnx.c and what ONNX Runtime computes with them.

    python3 make_onnx.py          needs torch, onnx, onnxruntime, safetensors

Writes <name>.onnx and expected.safetensors (input (2, 3, 16, 16), one (2, 4) of logits for each
name) beside this file, gray.onnx for test_onnx_jobs.c, and the models that have to be refused into
refused/.
"""
import os
import warnings

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file
from torch import nn

warnings.filterwarnings("ignore")
here = os.path.dirname(os.path.abspath(__file__))
random = np.random.default_rng(1)
torch.manual_seed(1)
SIZE, CLASSES = 16, 4
image = random.standard_normal((2, 3, SIZE, SIZE)).astype(np.float32)
expected = {"input": image}


# ---- PyTorch -------------------------------------------------------------------------------------

def conv_bn(c, k, kernel, stride, groups, act):
    layers = [nn.Conv2d(c, k, kernel, stride, kernel // 2, groups=groups, bias=False),
              nn.BatchNorm2d(k)]
    return nn.Sequential(*layers, act()) if act else nn.Sequential(*layers)


class Gate(nn.Module):
    def __init__(self, c, squeezed):
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(c, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, c, 1)
        self.activation = nn.ReLU()
        self.scale_activation = nn.Hardsigmoid()

    def forward(self, x):
        return x * self.scale_activation(self.fc2(self.activation(self.fc1(self.avgpool(x)))))


class Block(nn.Module):
    def __init__(self, c, gate, act):
        super().__init__()
        self.block = nn.Sequential(conv_bn(c, 2 * c, 1, 1, 1, act),
                                   conv_bn(2 * c, 2 * c, 3, 1, 2 * c, act),
                                   *([Gate(2 * c, 8)] if gate else []),
                                   conv_bn(2 * c, c, 1, 1, 1, None))

    def forward(self, x):
        return x + self.block(x)


class Net(nn.Module):
    """View as x.view(x.size(0), -1) writes it."""

    def __init__(self, gate=False, act=nn.ReLU6, view=False, channels=3, classes=CLASSES):
        super().__init__()
        self.features = nn.Sequential(conv_bn(channels, 8, 3, 2, 1, act), Block(8, gate, act),
                                      conv_bn(8, 16, 1, 1, 1, act))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.view = view
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(16, classes))

    def forward(self, x):
        x = self.avgpool(self.features(x))
        x = x.view(x.size(0), -1) if self.view else torch.flatten(x, 1)
        return self.classifier(x)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(8, eps=1e-3, momentum=0.01)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = nn.Sequential(conv_bn(8, 8, 3, 1, 1, nn.ReLU), conv_bn(8, 8, 3, 1, 1, None))
        self.avgpool = nn.AvgPool2d(4)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x):
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        x = torch.relu(x + self.layer1(x))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def randomise(net):
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.bias, 0, 0.3)
            nn.init.normal_(m.running_mean, 0, 0.3)
            nn.init.uniform_(m.running_var, 0.2, 2)
    return net.eval()


def export(name, net, opset, folded, channels=3):
    modes = torch.onnx.TrainingMode
    torch.onnx.export(randomise(net), torch.from_numpy(image[:, :channels]), f"{here}/{name}.onnx", dynamo=False,
                      opset_version=opset, input_names=["image"], output_names=["logits"],
                      training=modes.EVAL if folded else modes.PRESERVE,
                      dynamic_axes={"image": {0: "n"}, "logits": {0: "n"}})
    if channels == 3:
        run(name)


def run(name):
    session = onnxruntime.InferenceSession(f"{here}/{name}.onnx",
                                           providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    x = image.transpose(0, 2, 3, 1) if given.shape[3] == 3 else image
    logits = session.run(None, {given.name: np.ascontiguousarray(x)})[0]
    expected[name] = np.ascontiguousarray(logits.reshape(2, CLASSES))


# ---- by hand -------------------------------------------------------------------------------------

def values(*shape, scale=0.5):
    return (scale * random.standard_normal(shape)).astype(np.float32)


class Model:
    """node() appends a node; weights and whole numbers among its inputs become initializers."""

    def __init__(self, opset, shape=("n", 3, SIZE, SIZE)):
        self.opset, self.shape = opset, shape
        self.nodes, self.constants, self.last = [], [], "image"

    def constant(self, array, raw=True):
        name = f"c{len(self.constants)}"
        array = np.asarray(array)
        if raw:
            self.constants.append(numpy_helper.from_array(array, name))
        else:
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            self.constants.append(helper.make_tensor(name, kind, array.shape, array.flatten()))
        return name

    def node(self, op, *more, start=None, name=None, **attributes):
        inputs = [self.last if start is None else start] if start != "" else []
        inputs += [m if isinstance(m, str) else self.constant(m) for m in more]
        out = name or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [out], out, **attributes))
        self.last = out
        return out

    def conv(self, c, k, kernel=3, stride=2, bias=True, **attributes):
        attributes.setdefault("kernel_shape", [kernel, kernel])
        more = [values(k, c, kernel, kernel)] + ([values(k)] if bias else [])
        return self.node("Conv", *more, strides=[stride, stride], **attributes)

    def batchnorm(self, c, **attributes):
        more = [values(c) + 1, values(c), values(c), values(c) ** 2 + 0.1]
        return self.node("BatchNormalization", *more, **attributes)

    def proto(self):
        info = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes, "g", [info("image", TensorProto.FLOAT, self.shape)],
            [info(self.last, TensorProto.FLOAT, ["n", CLASSES])], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        model.ir_version = 10 if self.opset == 21 else 7
        return model

    def save(self, name):
        model = self.proto()
        onnx.checker.check_model(model)
        onnx.save(model, f"{here}/{name}.onnx")
        run(name)

    def refuse(self, name, change=None):
        model = self.proto()
        if change:
            change(model)
        onnx.save(model, f"{here}/refused/{name}.onnx")


def opset7():
    """Clip and Dropout with attributes, a flattening Reshape of a Shape."""
    m = Model(7)
    m.conv(3, 8, bias=False, pads=[1, 1, 1, 1])
    m.batchnorm(8, momentum=0.75)
    m.node("Clip", min=0.0, max=6.0)
    x = m.node("GlobalAveragePool")
    m.node("Shape")
    m.node("Gather", np.int64(0))
    n = m.node("Unsqueeze", axes=[0])
    shape = m.node("Concat", np.array([-1], np.int64), start=n, axis=0)
    m.node("Reshape", shape, start=x)
    m.node("Dropout", ratio=0.3)
    m.node("Gemm", values(CLASSES, 8), values(CLASSES), transB=1)
    m.save("opset7")


def tensorflow():
    """Channels last, auto_pad, a Pad of its own, folded batch norms, MatMul + Add, Softmax."""
    m = Model(13, ("n", SIZE, SIZE, 3))
    m.node("Transpose", perm=[0, 3, 1, 2])
    m.conv(3, 8, auto_pad="SAME_UPPER")
    m.node("Clip", np.float32(0), np.float32(6))
    m.node("Pad", np.array([0, 0, 0, 0, 0, 0, 1, 1], np.int64), np.float32(0))
    m.node("Conv", values(8, 1, 3, 3), values(8), group=8, strides=[2, 2], auto_pad="VALID")
    a = m.node("Relu")
    m.conv(8, 8, kernel=1, stride=1)
    m.node("Add", a)
    m.node("ReduceMean", axes=[2, 3], keepdims=0)
    m.node("MatMul", values(8, CLASSES))
    m.node("Add", values(CLASSES))
    m.save("tensorflow")
    m.node("Softmax", axis=1)
    onnx.save(m.proto(), f"{here}/softmax.onnx")
    expected["softmax"] = expected["tensorflow"]


def spelled():
    """The four ways to write a hard swish, and a gate of linear layers."""
    m = Model(13)
    m.conv(3, 8, pads=[1, 1, 1, 1])
    x = m.last

    def six(x):
        m.node("Add", np.float32(3), start=x)
        return m.node("Clip", np.float32(0), np.float32(6))
    m.node("Mul", six(x), start=x)
    x = m.node("Div", np.float32(6))
    g = m.node("Div", np.float32(6), start=six(x))
    x = m.node("Mul", x, start=g)
    m.conv(8, 8, kernel=1, stride=1)
    x = m.last
    s = six(x)
    m.node("Mul", np.array([1 / 6], np.float32), start=s)
    x = m.node("Mul", x)
    product = m.node("Mul", six(x), start=x)
    sixth = m.node("Constant", start="", value_float=1 / 6)
    x = m.node("Mul", product, start=sixth)
    m.node("ReduceMean", axes=[-2, -1], keepdims=1)
    m.node("Squeeze", np.array([2, 3], np.int64))
    m.node("Gemm", values(8, 4), values(4))
    m.node("Relu")
    m.node("MatMul", values(4, 8))
    m.node("Add", values(8))
    m.node("Unsqueeze", np.array([2, 3], np.int64))
    m.node("Div", np.float32(6), start=six(m.last))
    m.node("Mul", x)
    m.node("GlobalAveragePool")
    m.node("Flatten")
    m.node("Gemm", values(8, CLASSES), values(CLASSES))
    m.save("spelled")


def opset21():
    """Axes as inputs, constants of other types, a shape by Slice."""
    m = Model(21)
    half = m.node("Cast", values(8, 3, 3, 3).astype(np.float16), start="", to=TensorProto.FLOAT)
    m.node("Conv", half, m.constant(values(8), raw=False), start="image", strides=[2, 2],
           pads=[0, 0, 1, 1])
    m.node("Clip", m.constant(np.float32(0), raw=False))
    m.node("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    x = m.node("ReduceMean", np.array([3, 2], np.int64), keepdims=1)
    m.node("Shape")
    m.node("Slice", np.array([0], np.int64), np.array([1], np.int64), np.array([0], np.int64))
    shape = m.node("Concat", np.array([8], np.int64), axis=0)
    flat = m.node("Reshape", shape, start=x)
    wide = m.node("Cast", values(CLASSES, 8).astype(np.float64), start="", to=TensorProto.FLOAT)
    brain = helper.make_tensor("b", TensorProto.BFLOAT16, [CLASSES], [0.5, -1.25, 3.0, 0.0])
    m.constants.append(brain)
    bias = m.node("Cast", start="b", to=TensorProto.FLOAT)
    m.node("Gemm", wide, bias, start=flat, transB=1)
    m.save("opset21")


def names():
    """Two nodes of one name, and a third that is called what the second would be."""
    m = Model(13)
    for _ in range(3):
        m.conv(3 if not m.nodes else 4, 4, pads=[1, 1, 1, 1])
    m.node("GlobalAveragePool")
    m.node("Flatten")
    m.node("Gemm", values(4, CLASSES), values(CLASSES), name="fc")
    for node, name in zip(m.nodes, ["a", "a.2", "a"]):
        node.name = name
    onnx.checker.check_model(m.proto())
    onnx.save(m.proto(), f"{here}/names.onnx")


# ---- what has to be refused ----------------------------------------------------------------------

def plain(**attributes):
    """conv0 - relu_1 - pool - flatten - fc, to be spoilt."""
    m = Model(13)
    attributes.setdefault("pads", [1, 1, 1, 1])
    m.conv(3, 4, name="conv0", **attributes)
    m.node("Relu")
    return m


def tail(m, c=4):
    m.node("GlobalAveragePool", name="pool")
    m.node("Flatten", name="flatten")
    m.node("Gemm", values(c, CLASSES), values(CLASSES), name="fc")
    return m


def refused():
    os.makedirs(f"{here}/refused", exist_ok=True)

    def spoilt(name, op, *more, **attributes):
        m = plain()
        m.node(op, *more, name="bad", **attributes)
        tail(m).refuse(name)
    spoilt("sigmoid", "Sigmoid")
    spoilt("clip", "Clip", np.float32(0), np.float32(1))
    spoilt("hard_sigmoid", "HardSigmoid", alpha=0.2)
    spoilt("transpose", "Transpose", perm=[0, 2, 3, 1])
    spoilt("cast", "Cast", to=TensorProto.INT32)
    spoilt("average", "AveragePool", kernel_shape=[2, 2])
    spoilt("max_pool", "MaxPool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    spoilt("add_constant", "Add", np.float32(2))
    spoilt("half_swish", "Add", np.float32(3))
    spoilt("domain", "Relu", domain="com.example")
    spoilt("softmax", "Softmax", axis=1)
    spoilt("concat", "Concat", "relu_1", axis=1)
    spoilt("add_itself", "Add", "relu_1")
    spoilt("mul_pictures", "Mul", "conv0")
    spoilt("groups", "Conv", values(4, 3, 1, 1), group=2)
    spoilt("epsilon", "BatchNormalization", values(4), values(4), values(4), values(4) ** 2,
           epsilon=-1.0)
    spoilt("variance", "BatchNormalization", values(4), values(4), values(4), -values(4) ** 2)
    spoilt("channels", "BatchNormalization", values(5), values(5), values(5), values(5) ** 2)
    spoilt("identity_weights", "Conv", "image")
    for name, attributes in {"dilations": {"dilations": [2, 2]},
                             "pads": {"pads": [1, 0, 1, 0]},
                             "pads_above": {"pads": [1, 1, 0, 0]},
                             "pads_wide": {"pads": [3, 3, 3, 3]}}.items():
        tail(plain(**attributes)).refuse(name)
    m = Model(13)
    m.node("Conv", values(4, 3, 3, 1), name="conv0")
    tail(m).refuse("kernel")
    m = plain()
    m.node("Flatten", name="flatten")
    m.node("Gemm", values(256, CLASSES), values(CLASSES), name="fc")
    m.refuse("flatten")
    m = plain()
    m.node("GlobalAveragePool", name="pool")
    m.node("Reshape", np.array([-1, 2], np.int64), name="reshape")
    m.refuse("reshape")
    m = plain()
    tail(m, 5).refuse("inputs")
    m = plain()
    m.node("GlobalAveragePool")
    m.node("Flatten")
    m.node("Gemm", values(4, CLASSES), values(CLASSES), name="fc", alpha=0.5)
    m.refuse("gemm")

    def change(name, do):
        tail(plain()).refuse(name, do)

    def weights(model, name="c0"):
        return [t for t in model.graph.initializer if t.name == name][0]

    def not_finite(model):
        array = numpy_helper.to_array(weights(model)).copy()
        array[1, 1, 1, 1] = np.nan
        weights(model).CopyFrom(numpy_helper.from_array(array, "c0"))

    def external(model):
        t = weights(model)
        t.data_location = TensorProto.EXTERNAL
        t.external_data.add(key="location", value="../weights.bin")
        t.ClearField("raw_data")

    def reverse(model):
        nodes = list(model.graph.node)
        del model.graph.node[:]
        model.graph.node.extend([nodes[1], nodes[0]] + nodes[2:])

    def cycle(model):
        model.graph.node[0].input[0] = "relu_1"

    def huge(model):
        del weights(model).dims[:]
        weights(model).dims.extend([2 ** 20, 2 ** 20, 3, 3])

    def overflow(model):
        del weights(model).dims[:]
        weights(model).dims.extend([2 ** 62, 2 ** 62, 3, 3])

    def negative(model):
        weights(model).dims[0] = -4
    change("not_finite", not_finite)
    change("external", external)
    change("reverse", reverse)
    change("cycle", cycle)
    change("huge", huge)
    change("overflow", overflow)
    change("negative", negative)
    change("int_weights", lambda m: setattr(weights(m), "data_type", TensorProto.INT64))
    change("short", lambda m: setattr(weights(m), "raw_data", weights(m).raw_data[:-4]))
    change("undefined", lambda m: m.graph.node[1].input.__setitem__(0, "nowhere"))
    change("twice", lambda m: m.graph.node[1].output.__setitem__(0, "conv0"))
    change("opset6", lambda m: setattr(m.opset_import[0], "version", 6))
    change("opset99", lambda m: setattr(m.opset_import[0], "version", 99))
    change("outputs", lambda m: m.graph.output.append(m.graph.output[0]))
    change("no_output", lambda m: setattr(m.graph.output[0], "name", "nowhere"))
    change("no_nodes", lambda m: m.graph.ClearField("node"))
    change("no_inputs", lambda m: m.graph.node[1].ClearField("input"))
    change("no_outputs", lambda m: m.graph.node[0].ClearField("output"))
    change("rank3", lambda m: m.graph.input[0].type.tensor_type.shape.dim.pop())
    change("wide", lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[3], "dim_value", 8))
    change("bytes", lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type",
                                      TensorProto.UINT8))
    change("no_shape", lambda m: m.graph.input[0].type.tensor_type.ClearField("shape"))


os.makedirs(f"{here}/refused", exist_ok=True)
export("torch_bn", Net(view=True), 11, False)
export("torch_folded", Net(), 13, True)
export("torch_v3", Net(gate=True, act=nn.Hardswish), 17, False)
export("torch_v3_old", Net(gate=True, act=nn.Hardswish), 11, True)
export("torch_residual", Residual(), 9, False)
export("gray", Net(gate=True, act=nn.Hardswish, channels=1, classes=6), 13, True, channels=1)
opset7()
tensorflow()
spelled()
opset21()
refused()
names()
save_file(expected, f"{here}/expected.safetensors")
