"""The LSQ fake quantizer in plain torch operations; gradients are autograd's own.

code = round(clip((x + shift) / step, n, p)), value = step * code - shift, straight through the
rounding; a step's gradient is scaled by g = 1 / sqrt(numel * p).
"""
import math

import torch

SHIFT = 0.375


def bounds(bits, kind):
    """(n, p, shift); kind: weight, signed, unsigned, shifted."""
    if kind in ("weight", "signed"):
        p = 2 ** (bits - 1) - 1
        return -p, p, 0.0
    return 0, 2**bits - 1, SHIFT if kind == "shifted" else 0.0


class ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, g):
        ctx.g = g
        return x.view_as(x)

    @staticmethod
    def backward(ctx, dy):
        return dy * ctx.g, None


def fake_quantize(x, step, bits, kind):
    """step: a scalar, or one for each index of x's first dimension."""
    n, p, shift = bounds(bits, kind)
    s = ScaleGradient.apply(step, 1.0 / math.sqrt(x.numel() * p))
    if s.dim():
        s = s.reshape(-1, *[1] * (x.dim() - 1))
    v = (x + shift) / s
    # The gradient passes on the bounds themselves; torch.clamp's does not since PyTorch 2.14.
    v = torch.where(v < n, float(n), torch.where(v > p, float(p), v))
    q = v + (torch.round(v) - v).detach()  # exact: torch.round is half to even
    return s * q - shift


def mixture(x, steps, alpha, candidates, kind):
    w = torch.softmax(alpha, 0)
    return sum(w[i] * fake_quantize(x, steps[i], b, kind) for i, b in enumerate(candidates))


def margin(x, step, bits, kind):
    """How far the values are from where a code or the clip's gradient changes, in steps."""
    n, p, shift = bounds(bits, kind)
    v = ((x.detach() + shift) / step.detach().reshape(-1, *[1] * (x.dim() - 1))).flatten()
    v = v[v != n] if kind == "unsigned" else v  # zeros that ReLU makes are exact
    ties = (v - torch.floor(v) - 0.5).abs()[(v > n) & (v < p)]
    ends = torch.minimum((v - n).abs(), (v - p).abs())
    return min(ties.min().item() if ties.numel() else 1.0, ends.min().item())
