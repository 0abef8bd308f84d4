#!/usr/bin/env python3
"""Latency of one image: the integer runtime against ONNX Runtime and OpenVINO, same threads.

    infer.py METAMIX FLOAT.onnx W8A8.mix [W4.mix ...]

FLOAT.onnx is quantized by onnxruntime's own quantize_static (QDQ, u8 activations, s8 weights by
channel; calibrated on noise, which does not matter for speed); W8A8.mix is also exported with 8-bit
types and run by both peers. Rounds alternate between all of them; medians are compared.
"""
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

ROUNDS, SECONDS = 5, 1.0


class Noise(CalibrationDataReader):
    def __init__(self, name, shape):
        random = numpy.random.default_rng(1)
        self.batches = [{name: random.standard_normal(shape).astype(numpy.float32)}
                        for _ in range(4)]

    def get_next(self):
        return self.batches.pop() if self.batches else None


def input_of(path):
    """Name and shape for one image."""
    tensor = onnx.load(path).graph.input[0]
    dims = [d.dim_value or 1 for d in tensor.type.tensor_type.shape.dim]
    return tensor.name, dims


def quantized(path, folder):
    ready, out = folder / "ready.onnx", folder / "static.onnx"
    quant_pre_process(str(path), str(ready))
    quantize_static(str(ready), str(out), Noise(*input_of(ready)), quant_format=QuantFormat.QDQ,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                    per_channel=True)
    return out


def time_calls(call):
    """Median seconds of one call, after two to warm up."""
    call(), call()
    times, end = [], time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def with_onnxruntime(path, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options)
    name, shape = input_of(path)
    image = numpy.random.default_rng(2).standard_normal(shape).astype(numpy.float32)
    return lambda: time_calls(lambda: session.run(None, {name: image}))


def with_openvino(path, threads):
    import openvino
    model = openvino.Core().read_model(str(path))
    name, shape = input_of(path)
    model.reshape(shape)
    compiled = openvino.Core().compile_model(model, "CPU", {
        "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_HYPER_THREADING": True, "ENABLE_CPU_PINNING": False})
    request = compiled.create_infer_request()
    image = numpy.random.default_rng(2).standard_normal(shape).astype(numpy.float32)
    return lambda: time_calls(lambda: request.infer({0: image}))


def with_metamix(metamix, path, threads):
    def run():
        done = subprocess.run([metamix, "bench", path, "--threads", str(threads), "--seconds",
                               str(SECONDS), "--json", "--quiet"], capture_output=True, check=True)
        rows = json.loads(done.stdout)["batches"]
        return next(row["median_ms"] for row in rows if row["batch"] == 1) * 1e-3
    return run


def main():
    metamix, float_onnx, w8, *others = sys.argv[1:]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        static, exported = quantized(float_onnx, folder), folder / "exported.onnx"
        subprocess.run([metamix, "export", "--from", w8, "--format", "onnx", "--onnx-types",
                        "int8", "--out", exported, "--quiet"], check=True,
                       stdout=subprocess.DEVNULL)
        for threads in (1, 2):
            rivals = {"ONNX Runtime, float": with_onnxruntime(float_onnx, threads),
                      "ONNX Runtime, quantize_static": with_onnxruntime(static, threads),
                      "ONNX Runtime, exported int8": with_onnxruntime(exported, threads)}
            try:
                rivals["OpenVINO, quantize_static"] = with_openvino(static, threads)
                rivals["OpenVINO, exported int8"] = with_openvino(exported, threads)
            except ImportError:
                print("OpenVINO is not installed")
            for path in (w8, *others):
                rivals["metamix, " + pathlib.Path(path).stem] = with_metamix(metamix, path, threads)
            times = {rival: [] for rival in rivals}
            for _ in range(ROUNDS):
                for rival, run in rivals.items():
                    times[rival].append(run())
            base = statistics.median(times["ONNX Runtime, quantize_static"])
            print(f"{threads} thread{'s' if threads > 1 else ''}"
                  f"{'median ms':>34}{'times ONNX Runtime int8':>26}")
            for rival, values in times.items():
                median = statistics.median(values)
                print(f"    {rival:32}{1e3 * median:8.2f}{median / base:20.2f}", flush=True)


if __name__ == "__main__":
    main()
