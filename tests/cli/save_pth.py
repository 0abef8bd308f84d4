#!/usr/bin/env python3
"""save_pth.py FROM.safetensors TO.pth zip|legacy: the F32 tensors as torch.save writes them.

Python's own pickle and zipfile, without PyTorch; the dict lies in {"state_dict": ...} and its names
begin with "module.", as a trainer's would.
"""
import collections
import io
import json
import pickle
import struct
import sys
import types
import zipfile


def make_module(name, *names):
    module = types.ModuleType(name)
    for n in names:
        function = type(n, (), {"__module__": name})
        setattr(module, n, function)
    sys.modules[name] = module
    return module


torch = make_module("torch", "FloatStorage")
utils = make_module("torch._utils", "_rebuild_tensor_v2")


class Storage:
    def __init__(self, key, data):
        self.key, self.data = key, data


class Tensor:
    def __init__(self, storage, shape):
        self.storage, self.shape = storage, tuple(shape)

    def __reduce__(self):
        stride = [1]
        for n in reversed(self.shape[1:]):
            stride.insert(0, stride[0] * n)
        stride = tuple(stride) if self.shape else ()
        args = (self.storage, 0, self.shape, stride, False, collections.OrderedDict())
        return utils._rebuild_tensor_v2, args


class Pickler(pickle.Pickler):
    tail = ()

    def persistent_id(self, obj):
        if isinstance(obj, Storage):
            n = len(obj.data) // 4
            return ("storage", torch.FloatStorage, obj.key, "cpu", n) + self.tail
        return None


def dumps(obj, tail=()):
    out = io.BytesIO()
    pickler = Pickler(out, 2)
    pickler.tail = tail
    pickler.dump(obj)
    return out.getvalue()


def main(source, target, form):
    with open(source, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = f.read()
    tensors = collections.OrderedDict()
    for name, t in header.items():
        if name != "__metadata__" and t["dtype"] == "F32":
            begin, end = t["data_offsets"]
            storage = Storage(str(len(tensors)), data[begin:end])
            tensors["module." + name] = Tensor(storage, t["shape"])
    content = {"epoch": 1, "state_dict": tensors}
    storages = [t.storage for t in tensors.values()]
    if form == "zip":
        with zipfile.ZipFile(target, "w") as z:
            z.writestr("weights/data.pkl", dumps(content))
            for s in storages:
                z.writestr("weights/data/" + s.key, s.data)
        return
    with open(target, "wb") as f:
        f.write(dumps(0x1950A86A20F9469CFC6C) + dumps(1001) + dumps({"little_endian": True}))
        f.write(dumps(content, (None,)) + dumps([s.key for s in storages]))
        for s in storages:
            f.write(struct.pack("<Q", len(s.data) // 4) + s.data)


main(*sys.argv[1:])
