#!/usr/bin/env python3
"""Training steps of one torchvision network with LSQ fake quantization; train.py starts it.

    torch_step.py VARIANT NETWORK SIZE BATCH THREADS

VARIANT: plain, bf16, compile, compile-bf16. It prints PyTorch's version and the peak memory (MB) so
far, then for each line `KIND STEPS` on its standard input the least of so many steps' seconds.
KIND: float; weights (4-bit weights, mixed activation bits); meta (float weights, one forward and
backward pass for each candidate).
"""
import contextlib
import math
import resource
import sys
import time

import torch
import torchvision
from torch import nn
from torch.nn import functional

CANDIDATES, WEIGHT_BITS, FIXED_BITS = (3, 4, 8), 4, 8
SWISH_SHIFT = 0.375  # h-swish's least value is -3/8


def flat(x):
    """A view as a vector for the layouts that occur."""
    return (x.permute(0, 2, 3, 1) if x.dim() == 4 else x).reshape(-1)


class Lsq(torch.autograd.Function):
    """value = step * round(clip(x / step, n, p)), straight through, in as few passes over memory as
    PyTorch's operations allow. Input and result are all it keeps: their neighbours keep them too.
    A step's gradient is g * (sum(dy * q) - sum(dx * x / step))."""

    @staticmethod
    def forward(ctx, x, step, n, p, shift):
        ctx.bounds = n, p, shift
        y = ((x + shift).div_(step) if shift else x / step).clamp_(n, p).round_().mul_(step)
        if shift:
            y.sub_(shift)
        ctx.save_for_backward(x, y, step)
        return y

    @staticmethod
    def backward(ctx, dy):
        x, y, step = ctx.saved_tensors
        n, p, shift = ctx.bounds
        g = 1.0 / math.sqrt(x.numel() * p)
        low, high = n * step - shift, p * step - shift
        if step.dim():  # weights
            dx = torch.where((x >= low) & (x <= high), dy, 0.0)
            ds = (y * dy - x * dx).sum_to_size(step.shape)
            return dx, ds * g / step, None, None, None
        # A value on a bound gets no gradient here; ReLU would take it anyway.
        dx = torch.ops.aten.hardtanh_backward(dy, x, float(low), float(high))
        if x.dtype == torch.float32:
            ds = torch.dot(flat(y), flat(dy)) - torch.dot(flat(x), flat(dx))
            if shift:
                ds += shift * (dy.sum() - dx.sum())
        else:  # the difference of two sums in bf16 would be all rounding
            clipped = dy - dx
            ds = torch.dot(flat(y - x), flat(dx)) + torch.dot(flat(y), flat(clipped))
            if shift:
                ds += shift * clipped.sum()
        return dx, ds * g / step, None, None, None


def lsq_plain(x, step, n, p, shift):
    """The same in differentiable operations for torch.compile, which fuses them; n and p are
    tensors, so that one compiled network serves all bits."""
    g = 1.0 / torch.sqrt(x.numel() * p)
    step = step * g + (step - step * g).detach()
    v = (x + shift) / step
    v = torch.where(v < n, n, torch.where(v > p, p, v))
    y = (v + (v.round() - v).detach()) * step
    return (y - shift).to(x.dtype)


class Quantizer(nn.Module):
    """One learned step for each of the candidate bits."""

    def __init__(self, bits, compiled):
        super().__init__()
        self.bits, self.compiled = bits, compiled
        self.choice, self.shift = 0, 0.0

    def calibrate(self, x, weights=False):
        """Which kind of tensor it is, and the first steps: one, for weights one per channel."""
        least = float(x.min())
        signed = weights or least < -SWISH_SHIFT - 1e-3
        self.shift = SWISH_SHIFT if least < 0 and not signed else 0.0
        self.p = [2 ** (b - 1) - 1 if signed else 2**b - 1 for b in self.bits]
        self.n = [-p if signed else 0 for p in self.p]
        mean = x.abs().mean(list(range(1, x.dim())), keepdim=True) if weights else x.abs().mean()
        steps = [2 * mean.clamp(min=1e-6) / math.sqrt(p) for p in self.p]
        self.steps = nn.ParameterList(steps)
        self.register_buffer("onehot", torch.eye(len(self.bits))[0])
        self.register_buffer("all_n", torch.tensor(self.n, dtype=torch.float32))
        self.register_buffer("all_p", torch.tensor(self.p, dtype=torch.float32))

    def select(self, choice):
        choice = min(choice, len(self.bits) - 1)
        if self.compiled:
            self.onehot.zero_()[choice] = 1.0
        else:
            self.choice = choice

    def forward(self, x):
        if not self.compiled:
            i = self.choice
            return Lsq.apply(x, self.steps[i], self.n[i], self.p[i], self.shift)
        step = sum(self.onehot[i] * s for i, s in enumerate(self.steps))
        return lsq_plain(x, step, (self.all_n * self.onehot).sum(),
                         (self.all_p * self.onehot).sum(), self.shift)


class Layer(nn.Module):
    """A convolution or linear layer with quantizers on its input and its weights."""

    def __init__(self, layer, fixed, compiled):
        super().__init__()
        self.layer, self.kind = layer, "float"
        self.input = Quantizer((FIXED_BITS,) if fixed else CANDIDATES, compiled)
        self.weight = Quantizer((FIXED_BITS if fixed else WEIGHT_BITS,), compiled)
        self.weight.calibrate(layer.weight.detach(), weights=True)

    def forward(self, x):
        weight = self.layer.weight
        if self.kind != "float":
            x = self.input(x)
        if self.kind == "weights":
            weight = self.weight(weight)
        if isinstance(self.layer, nn.Linear):
            return functional.linear(x, weight, self.layer.bias)
        return self.layer._conv_forward(x, weight, self.layer.bias)


def build(name, size, compiled):
    """The network and its layers in order."""
    net = getattr(torchvision.models, name)(weights=None).train()
    if size <= 64:
        stem = net.conv1 if hasattr(net, "conv1") else net.features[0][0]
        stem.stride = (1, 1)
    found = [n for n, m in net.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    layers = []
    for path in found:
        parent, _, leaf = path.rpartition(".")
        parent = net.get_submodule(parent)
        layers.append(Layer(getattr(parent, leaf), path in (found[0], found[-1]), compiled))
        setattr(parent, leaf, layers[-1])
    return net.to(memory_format=torch.channels_last), layers


class Trainer:
    def __init__(self, variant, name, size, batch):
        compiled = variant.startswith("compile")
        self.bf16 = variant.endswith("bf16")
        torch.manual_seed(1)
        self.net, self.layers = build(name, size, compiled)
        self.image = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)
        self.labels = torch.arange(batch) % 1000
        hooks = [layer.register_forward_pre_hook(lambda m, x: m.input.calibrate(x[0]))
                 for layer in self.layers]
        with torch.no_grad():
            self.net(self.image)
        for hook in hooks:
            hook.remove()
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-6, weight_decay=5e-6,
                                          fused=True)
        self.forward = torch.compile(self.net) if compiled else self.net

    def branch(self, scale):
        cast = torch.autocast("cpu", torch.bfloat16) if self.bf16 else contextlib.nullcontext()
        with cast:
            logits = self.forward(self.image)
        (functional.cross_entropy(logits.float(), self.labels) * scale).backward()

    def step(self, kind):
        n = len(CANDIDATES)
        self.optimizer.zero_grad()
        for layer in self.layers:
            layer.kind = kind
        if kind == "meta":
            for b in range(n):
                for layer in self.layers:
                    layer.input.select(b)
                self.branch(1.0 / n)
        else:
            for i, layer in enumerate(self.layers):
                layer.input.select(i % n)
            self.branch(1.0)
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 10.0)
        self.optimizer.step()


def main():
    variant, name, size, batch, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    trainer = Trainer(variant, name, int(size), int(batch))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024e-6
    print(torch.__version__, round(peak), flush=True)
    for line in sys.stdin:
        kind, steps = line.split()
        seconds = []
        for _ in range(int(steps)):
            began = time.perf_counter()
            trainer.step(kind)
            seconds.append(time.perf_counter() - began)
        print(min(seconds), flush=True)


if __name__ == "__main__":
    main()
