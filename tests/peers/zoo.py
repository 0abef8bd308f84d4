#!/usr/bin/env python3
"""Every network of the zoo against torchvision's, in double: logits and one step's gradients.

    zoo.py PEER_ZOO [NETWORK...]

Weights are random (also batch norm's statistics), saved by torchvision as .safetensors and as .pth,
ZIP and legacy.
"""
import copy
import pathlib
import subprocess
import sys
import tempfile

import torch
import torchvision
from safetensors.torch import load_file, save_file

NETWORKS = ("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small",
            "resnet18", "resnet34", "resnet50", "resnet101")
BATCH, SIZE = 8, 128
LOGITS_WITHIN, GRADIENTS_WITHIN = 1e-4, 1e-3
TIE = 2e-6  # some roundings of a value of the stem


def random_network(name):
    """Random weights; batch norm's affine keeps values five deviations away from the kinks of
    ReLU, ReLU6 and h-swish, where rounding would decide over whole gradients, in PyTorch's own
    float32 as in ours. By channel: between h-swish's kinks, below, above, below."""
    torch.manual_seed(1)
    net = getattr(torchvision.models, name)(weights=None)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.2, 0.3)
            module.bias.data = torch.tensor([1.5, -4.5, 4.5, -6.0]).repeat(len(module.bias) // 4)
            torch.nn.init.uniform_(module.running_mean, -0.3, 0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return net


def draw_image(net):
    """Noise in which no window of ResNet's max pool has two largest values so close that rounding
    would choose; PyTorch's own float32 is 2.6e-3 off in conv1's gradient where it does."""
    while True:
        image = torch.randn(BATCH, 3, SIZE, SIZE)
        if not hasattr(net, "maxpool"):
            return image
        stem = copy.deepcopy(torch.nn.Sequential(net.conv1, net.bn1, net.relu)).double().train()
        with torch.no_grad():
            windows = torch.nn.functional.pad(stem(image.double()), (1, 1, 1, 1))
            windows = windows.unfold(2, 3, 2).unfold(3, 3, 2).flatten(4)
            first, second = windows.topk(2).values.unbind(-1)
        if (first - second)[first > 0].min() > TIE:
            return image


def relative(found, expected, floor=0.0):
    """Largest difference over the largest expected value."""
    return float((found.double() - expected).abs().max() / expected.abs().max().clamp(min=floor))


def expected_results(net, image, labels):
    net = net.double().eval()
    logits = net(image.double()).detach()
    net.train()
    loss = torch.nn.functional.cross_entropy(net(image.double()), labels)
    loss.backward()
    return logits, loss.detach(), {n: p.grad for n, p in net.named_parameters()}


def save(net, folder):
    """The same weights in three files."""
    weights = net.state_dict()
    save_file({k: v.contiguous() for k, v in weights.items()}, folder / "w.safetensors")
    torch.save(weights, folder / "w.pth")
    torch.save(weights, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    return [folder / n for n in ("w.safetensors", "w.pth", "legacy.pth")]


def check(peer, name, folder):
    net = random_network(name)
    files = save(net, folder)
    image = draw_image(net)
    labels = torch.randint(0, 1000, (BATCH,))
    save_file({"image": image.permute(0, 2, 3, 1).contiguous(), "labels": labels},
              folder / "batch.safetensors")
    logits, loss, gradients = expected_results(net, image, labels)
    # A bias in front of a batch norm has no gradient at all but for rounding.
    floor = 1e-3 * float(max(g.abs().max() for g in gradients.values()))
    good = True
    for file in files:
        subprocess.run([peer, name, file, folder / "batch.safetensors",
                        folder / "out.safetensors"], check=True)
        out = load_file(folder / "out.safetensors")
        found = {k[5:]: v for k, v in out.items() if k.startswith("grad.")}
        assert found.keys() == gradients.keys(), found.keys() ^ gradients.keys()
        of_logits = relative(out["logits"], logits)
        of_loss = abs(float(out["loss"]) - float(loss)) / float(loss)
        of_gradients, worst = max((relative(found[k], g, floor), k) for k, g in gradients.items())
        ok = of_logits <= LOGITS_WITHIN and of_loss <= LOGITS_WITHIN \
            and of_gradients <= GRADIENTS_WITHIN
        print(f"{name:20} {file.name:14} logits {of_logits:.1e}  loss {of_loss:.1e}  "
              f"gradients {of_gradients:.1e} ({worst}){'' if ok else '  TOO FAR'}", flush=True)
        good = good and ok
    return good


def main(peer, *names):
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}")
    results = []
    for name in names or NETWORKS:
        with tempfile.TemporaryDirectory() as folder:
            results.append(check(peer, name, pathlib.Path(folder)))
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
