#!/usr/bin/env python3
"""Writes quantizer.safetensors: the fake quantizer and its gradients, as PyTorch computes them.

Outputs are computed in float32, gradients in float64; inputs are such that both have the same codes.
For each case: x, dy (float32), step, y (float32), dx (float64), dstep (float64); for a mixture also
alpha, dalpha. Names: one.KIND.BITS.GRID, weight.BITS.GRID (x is (channels, values)), mixture.KIND.N.
"""
import os

import torch
from safetensors.torch import save_file

from lsq import bounds, fake_quantize, mixture

torch.manual_seed(1)
out = {}


def values(step, bits, kind, count):
    """Uniform values reaching beyond the clip; every tie and bound, its neighbours and zeros."""
    n, p, shift = bounds(bits, kind)
    special = [n, p, n - 0.5, p + 0.5, 0.0, -0.0, n - 1e-3, n + 1e-3, p - 1e-3, p + 1e-3]
    special += [k + 0.5 for k in range(max(n, -12), min(p, 12))] + [p - 0.5, n + 0.5]
    special = torch.tensor(special)[:count]
    spread = (p - n) * 0.15
    v = torch.empty(count - len(special)).uniform_(n - spread, p + spread)
    return (torch.cat([special, v]) * step - shift).float()


def codes(x, step, bits, kind):
    n, p, shift = bounds(bits, kind)
    v = (x + shift) / step
    return torch.round(torch.clamp(v, n, p)), (v >= n) & (v <= p)


def agree(x, step, bits, kind):
    a, b = codes(x, step, bits, kind), codes(x.double(), step.double(), bits, kind)
    return (a[0].double() == b[0]) & (a[1] == b[1])


def settle(x, steps, bits, kind):
    """Moves values whose float32 and float64 codes differ; with a dyadic step there are none."""
    for _ in range(50):
        ok = torch.ones_like(x, dtype=torch.bool)
        for b, s in zip(bits, steps):
            ok &= agree(x, s, b, kind)
        if ok.all():
            return x
        x = torch.where(ok, x, x * 0.97 + 1e-4)
    raise RuntimeError("no agreement")


def record(name, x, step, f, alpha=None):
    """f(x, step[, alpha]) -> y; stores its output in float32 and its gradients in float64."""
    inputs = [x, step] + ([] if alpha is None else [alpha])
    dy = torch.randn_like(x)
    high = [t.double().requires_grad_() for t in inputs]
    f(*high).backward(dy.double())
    tensors = dict(x=x, dy=dy, step=step, y=f(*inputs), dx=high[0].grad, dstep=high[1].grad)
    if alpha is not None:
        tensors.update(alpha=alpha, dalpha=high[2].grad)
    for key, t in tensors.items():
        out[f"{name}.{key}"] = t.detach().contiguous().clone()


for bits in range(2, 9):
    for grid, base in (("dyadic", 2.0**-4), ("odd", 0.0713)):
        for kind in ("signed", "unsigned", "shifted"):
            step = torch.tensor(base)
            x = values(step, bits, kind, 101)
            if grid == "dyadic" and not agree(x, step, bits, kind).all():
                raise RuntimeError("a dyadic step must be exact")
            x = settle(x, [step], [bits], kind)
            record(f"one.{kind}.{bits}.{grid}", x, step,
                   lambda x, s: fake_quantize(x, s, bits, kind))
        step = base * torch.tensor([1.0, 0.5, 4.0])
        x = torch.stack([settle(values(s, bits, "weight", 27), [s], [bits], "weight")
                         for s in step])
        record(f"weight.{bits}.{grid}", x, step,
               lambda x, s: fake_quantize(x, s, bits, "weight"))

for kind in ("signed", "unsigned", "shifted"):
    for candidates in ([2, 3, 4, 8], [2, 3, 4, 5, 6, 7, 8]):
        step = torch.tensor([0.31 * 2.0 / 2**b for b in candidates])
        alpha = torch.randn(len(candidates))
        x = values(step[1], candidates[1], kind, 201)
        x = settle(x, step, candidates, kind)
        record(f"mixture.{kind}.{len(candidates)}", x, step,
               lambda x, s, a: mixture(x, s, a, candidates, kind), alpha)

save_file(out, os.path.join(os.path.dirname(os.path.abspath(__file__)), "quantizer.safetensors"),
          metadata={"made_by": "make_quantizer.py", "torch": torch.__version__})
