#!/usr/bin/env python3
"""Training steps: metamix (bench/train_step) against PyTorch with LSQ fake quantization.

    train.py TRAIN_STEP [--arch NAME...] [--size 224|32 ...] [--variants NAME...] [--rounds N]
             [--steps N] [--threads N] [-- OPTIONS OF TRAIN_STEP]

Networks: mobilenet_v2, mobilenet_v3_large, resnet18, at 224 x 224 (batch 32) and 32 x 32 (batch
128). Variants of PyTorch (torch_step.py), each in a process of its own: plain (float32), bf16
(autocast), compile (torch.compile), compile-bf16. In every round train_step runs once and then
every variant; each turn counts its fastest step of a kind, the table has the medians of the rounds.
Peak memory is a process's over all kinds of step; PyTorch's before the first step stands beside it.
The bit-meta step has three candidates. PyTorch's processes keep freed memory (glibc's MALLOC_
variables), without which page faults take up to half of a step. torch.compile takes minutes once
for each network and size; start it once before a run that matters, its results are kept.

Before each round the speed of copies in memory is measured, in all threads, and its range printed:
on a shared machine it can change by half from minute to minute, and PyTorch's steps, which read and
write more, change with it more than metamix's.
"""
import argparse
import os
import re
import statistics
import subprocess
import sys

KINDS = {"float": "float", "weights": "weight training", "meta": "bit-meta"}
BATCH, BRANCHES = {224: 32, 32: 128}, 3
ROW = re.compile(r"^  (float|weight training|bit-meta).*? {2,}([\d.]+) +[\d.]+", re.M)
COPIES = re.compile(r" MB at ([\d.]+) GB/s")
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
               "MALLOC_TOP_PAD_": str(64 << 20)}


def finish(process):
    """Peak memory in MB of a process that is about to end."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{process.args[0]} failed")
    return usage.ru_maxrss * 1024e-6


def copies(options):
    """The speed of copies in memory, GB/s, as train_step measures it, by a run that takes no time."""
    command = [options.program, "--size", "32", "--batch", "1", "--branches", "1", "--seconds", "0.1",
               "--threads", str(options.threads)]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return float(COPIES.search(output)[1])


class Metamix:
    def __init__(self, program, arch, size, options):
        self.command = [program, "--arch", arch, "--size", str(size), "--batch", str(BATCH[size]),
                        "--branches", str(BRANCHES), "--threads", str(options.threads),
                        "--seconds", "0.1", "--floor", "0", *options.rest]
        self.memory, self.seconds = 0.0, {k: [] for k in KINDS}

    def turn(self):
        process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        rows = dict(ROW.findall(process.stdout.read()))
        self.memory = max(self.memory, finish(process))
        for kind, name in KINDS.items():
            self.seconds[kind].append(1e-3 * float(rows[name]))

    def end(self):
        pass


class Torch:
    def __init__(self, variant, arch, size, options):
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "torch_step.py")
        command = [sys.executable, script, variant, arch, str(size), str(BATCH[size]),
                   str(options.threads)]
        environment = {**KEEP_MEMORY, **os.environ, "OMP_NUM_THREADS": str(options.threads)}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, env=environment)
        self.steps, self.memory, self.seconds = options.steps, 0.0, {k: [] for k in KINDS}
        self.version, self.before = self.read().split()
        for kind in KINDS:
            self.run(kind, 1)

    def read(self):
        return self.process.stdout.readline() or sys.exit("torch_step.py failed")

    def run(self, kind, steps):
        print(kind, steps, file=self.process.stdin, flush=True)
        return float(self.read())

    def turn(self):
        for kind, seconds in self.seconds.items():
            seconds.append(self.run(kind, self.steps))

    def end(self):
        self.process.stdin.close()
        self.memory = finish(self.process)


def compare(arch, size, options):
    ours = Metamix(options.program, arch, size, options)
    rivals = {"metamix": ours}
    for variant in options.variants:
        rivals[f"PyTorch {variant}"] = Torch(variant, arch, size, options)
    speeds = []
    for _ in range(options.rounds):
        speeds.append(copies(options))
        for rival in rivals.values():
            rival.turn()
    for rival in rivals.values():
        rival.end()
    version = "".join(f", PyTorch {r.version}" for r in list(rivals.values())[1:2])
    print(f"{arch}, {size} x {size}, batch {BATCH[size]}, {options.threads} threads, medians of "
          f"{options.rounds} round{'s' * (options.rounds > 1)}{version}, copies at "
          f"{min(speeds):.0f} to {max(speeds):.0f} GB/s")
    print(f"  {'step':18} {'program':22}{'ms':>10}{'images/s':>10}{'PyTorch / metamix':>19}"
          f"{'peak MB':>9}")
    for kind, name in KINDS.items():
        base = statistics.median(ours.seconds[kind])
        for label, rival in rivals.items():
            median = statistics.median(rival.seconds[kind])
            print(f"  {name:18} {label:22}{1e3 * median:10.1f}{BATCH[size] / median:10.1f}"
                  f"{median / base:19.2f}{rival.memory:9.0f}")
            name = ""
    for label, rival in list(rivals.items())[1:]:
        print(f"  {label}: {rival.before} MB before the first step")
    sys.stdout.flush()


def main():
    arguments = sys.argv[1:]
    split = arguments.index("--") if "--" in arguments else len(arguments)
    variants = ["plain", "bf16", "compile", "compile-bf16"]
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("program")
    parser.add_argument("--arch", nargs="+",
                        default=["mobilenet_v2", "mobilenet_v3_large", "resnet18"])
    parser.add_argument("--size", nargs="+", type=int, choices=BATCH, default=list(BATCH))
    parser.add_argument("--variants", nargs="*", default=variants, choices=variants)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="of a kind in one turn")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments[:split])
    options.rest = arguments[split + 1:]
    for arch in options.arch:
        for size in options.size:
            compare(arch, size, options)


if __name__ == "__main__":
    main()
