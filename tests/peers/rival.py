#!/usr/bin/env python3
"""The quantizers of bench/peers/torch_step.py against tests/golden/lsq.py, in double: what is timed
there must be the same function with the same gradients. No value lies on a bound, where the fast
one differs."""
import pathlib
import sys

import torch

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path += [str(TESTS / "golden"), str(TESTS.parent / "bench" / "peers")]
import lsq  # noqa: E402
import torch_step  # noqa: E402

BITS, SHAPE, WITHIN = (2, 3, 4, 8), (6, 16, 9, 9), 1e-6


def tensor(kind):
    x = torch.randn(SHAPE, dtype=torch.float64)
    if kind == "unsigned":
        x = x.abs()
    if kind == "shifted":
        x = x.abs() - lsq.SHIFT
    return x.to(memory_format=torch.channels_last)


def results(function, x, step, dy):
    x, step = x.clone().requires_grad_(), step.clone().requires_grad_()
    y = function(x, step)
    y.backward(dy)
    return y.detach(), x.grad, step.grad


def check(kind, bits):
    torch.manual_seed(bits)
    n, p, shift = lsq.bounds(bits, kind)
    x, dy = tensor(kind), tensor("weight")
    step = torch.tensor(1.5 / p, dtype=torch.float64)
    if kind == "weight":
        step = step * torch.rand(SHAPE[0], 1, 1, 1, dtype=torch.float64).add(0.5)
    expected = results(lambda x, s: lsq.fake_quantize(x, s.flatten() if s.dim() else s, bits, kind),
                       x, step, dy)
    rivals = {"Lsq": lambda x, s: torch_step.Lsq.apply(x, s, n, p, shift),
              "lsq_plain": lambda x, s: torch_step.lsq_plain(
                  x, s, torch.tensor(float(n)), torch.tensor(float(p)), shift)}
    good = True
    for name, function in rivals.items():
        worst = max(float((a - b).abs().max() / b.abs().max())
                    for a, b in zip(results(function, x, step, dy), expected))
        good = good and worst <= WITHIN
        print(f"{name:10} {kind:9} {bits} bits: {worst:.1e}{'' if worst <= WITHIN else '  TOO FAR'}")
    return good


if __name__ == "__main__":
    kinds = ("weight", "signed", "unsigned", "shifted")
    sys.exit(0 if all([check(kind, bits) for kind in kinds for bits in BITS]) else 1)
