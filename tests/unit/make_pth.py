#!/usr/bin/env python3
"""Writes pth/*.pth: the files of torch.save that test_pth.c reads. Needs PyTorch.

    zip.pth       the tensors below in today's ZIP form
    zip4.pth      the same by pickle protocol 4
    legacy.pth    the same as PyTorch wrote before 1.6
    wrapped.pth   the same behind "module." in "state_dict", beside what trainers save
    system.pth    a pickle that would run a shell command
"""
import argparse
import collections
import os
import sys

import torch

FOLDER = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), "pth")


class Shell:
    def __reduce__(self):
        return os.system, ("true",)


def tensors():
    base = torch.arange(8.0)
    return collections.OrderedDict(
        [
            ("transposed", (torch.arange(6.0).reshape(2, 3) / 2).t()),
            ("half", torch.tensor([1.5, -2.0, 65504.0, 2.0**-24]).half()),
            ("bfloat", torch.tensor([1.5, -2.0**100]).bfloat16()),
            ("double", torch.tensor([0.1, -1e-3], dtype=torch.float64)),
            ("parameter", torch.nn.Parameter(torch.tensor([[3.0, 4.0]]))),
            ("bn.num_batches_tracked", torch.tensor(7)),
            ("shared.a", base[5:]),
            ("shared.b", base[1::3]),
            ("expanded", base[3].expand(2, 2)),
            ("strided", torch.arange(24.0).reshape(2, 3, 4)[:, 1:, ::3]),
            ("empty", torch.zeros(0, 3)),
        ]
    )


def save(name, what, **how):
    torch.save(what, os.path.join(FOLDER, name), **how)


def main():
    os.makedirs(FOLDER, exist_ok=True)
    plain = tensors()
    plain._metadata = collections.OrderedDict([("", {"version": 1})])
    save("zip.pth", plain)
    save("zip4.pth", plain, pickle_protocol=4)
    save("legacy.pth", plain, _use_new_zipfile_serialization=False)
    wrapped = {
        "epoch": 3,
        "best": 71.5,
        "state_dict": collections.OrderedDict(("module." + k, v) for k, v in plain.items()),
        "args": argparse.Namespace(lr=0.1, name="x", seed=2**70),
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]},
        "milestones": collections.Counter([30, 60]),
    }
    save("wrapped.pth", wrapped)
    save("system.pth", {"weight": torch.ones(1), "hook": Shell()})


main()
