"""One engine in its own process, which loads a case, stores its result, and runs on request.

``python engines.py ENGINE THREADS`` reads lines of JSON and answers each with one line: ``{"load":
FOLDER}`` builds the case and writes ``ENGINE.npy`` beside it; ``{"run": N, "of": FOLDER}`` runs it
once to warm up and then N times, which are timed. A case that is loaded takes the place of those
before it, unless the line has ``"more": true``. Between lines the process waits for its standard
input, which costs nothing unless the engine's threads spin. Every answer includes the processor
time that the waiting took.

A case in another precision than float32 says so in its ``network.json``. The engine ``tinyresnext
float32`` computes it in float32 all the same.

Only the engines of tinyresnext import it here: the others may use another interpreter.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray
# One run; the result is [n, classes], or [n, c, h, w] in the memory layout of the engine.
Run = Callable[[], Array]


def ours(folder: Path, threads: int, *, wide: bool = False) -> Run:
    """Build a plan for a network, or one call for a layer.

    Weights are packed, and memory for results is allocated, before the first run. With ``wide`` it
    computes in float32 whatever the case says.
    """
    if told := _told(folder):
        return _narrow(folder, threads, told | ({"precision": "float32"} if wide else {}))
    import numba

    from tinyresnext.network.plan import Plan, Program
    from tinyresnext.network.rewrite import folded, for_inference
    from tinyresnext.network.tape import Call
    from tinyresnext.ops import cpu

    numba.set_num_threads(threads)
    steps, arrays = _read(folder)
    values: dict[str, Any] = dict(arrays)
    calls = []
    for step in steps:
        out = values[step["out"]] = np.empty(0)
        calls.append(
            Call(
                step["op"],
                tuple(values[name] for name in step["args"]),
                step["attrs"],
                out,
                step["out"],
            )
        )
    x = arrays["x"]
    calls = [folded(call) for call in for_inference(calls)]
    made = {id(call.out) for call in calls} | {id(x)}

    def place(call: Call) -> Call:
        first, *rest = (a if id(a) in made else cpu.upload(a) for a in call.args)
        packed = (
            [cpu.pack(rest[0], call.attrs["groups"]), *rest[1:]] if call.op == "conv2d" else rest
        )
        return Call(call.op, (first, *packed), call.attrs, call.out, call.name, call.fused)

    placed = [place(call) for call in calls]
    if all(call.op == "conv2d" for call in placed):
        return _row(placed, x)
    plan = Plan(Program(x, tuple(placed)), x.shape, cpu, threads=threads)
    return lambda: plan(x)


def _narrow(folder: Path, threads: int, told: dict[str, Any]) -> Run:
    """Build a plan for a network in any precision."""
    from tinyresnext import Spec, ops
    from tinyresnext.network.plan import Plan, program
    from tinyresnext.store import integers

    _, arrays = _read(folder)
    x, spec = arrays.pop("x"), Spec.from_json(told["spec"])
    eight = told["precision"] == "int8"
    backend = ops.backend("cpu", "float32" if eight else told["precision"])
    scales = integers.meaning(told["quantisation"], spec) if eight else None
    plan = Plan(program(arrays, spec, backend, scales), x.shape, backend, threads=threads)
    return lambda: plan(x)


def _row(calls: list[Any], x: Array) -> Run:
    """Bind convolutions, one after the other, to the memory they read and write, as a plan does."""
    from tinyresnext.ops import cpu, shapes

    bound, value = [], cpu.upload(x)
    for call in calls:
        out = cpu.empty(shapes.conv2d(value, *call.args[1:], **call.attrs))
        bound.append(cpu.bind("conv2d", value, *call.args[1:], **call.attrs, out=out))
        value = out
    run_all = cpu.chain(bound)

    def run() -> Array:
        run_all()
        return value.transpose(0, 3, 1, 2)

    return run


def own_quantisation(folder: Path, threads: int) -> Run:
    """Let ONNX Runtime quantise the float32 network itself, as its users do. Needs ``onnx``.

    It also rounds the stem, the poolings, the classifier and what residuals are added to, so that
    all of it is computed with integers. The scales are found on the same images.
    """
    import graph
    from onnxruntime import quantization as q

    images = [{"x": x[None]} for x in _nchw(np.load(folder / "calibration.npy"))]
    with np.load(folder / "arrays.npz") as found:
        count = len(found["x"])
    whole, ready, made = (folder / f"{name}.onnx" for name in ("float32", "folded", "own"))
    graph.write(folder, whole.name)
    q.quant_pre_process(str(whole), str(ready), skip_symbolic_shape=True)  # folds batch norms

    class Images(q.CalibrationDataReader):
        def get_next(self) -> dict[str, Array] | None:
            one = images.pop() if images else None
            return one and {"x": np.repeat(one["x"], count, 0)}

    q.quantize_static(
        str(ready),
        str(made),
        Images(),
        per_channel=True,
        activation_type=q.QuantType.QUInt8,
        weight_type=q.QuantType.QInt8,
    )
    return onnx_runtime(folder, threads, made.name)


def onnx_runtime(folder: Path, threads: int, name: str = "graph.onnx") -> Run:
    """Build a session with all optimisations, its input and output bound to allocated memory."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.graph_optimization_level = (
        threads,
        ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    )
    # Without it, int8 is multiplied by an instruction that cuts off sums of two products where the
    # processor has no VNNI.
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = ort.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
    x = ort.OrtValue.ortvalue_from_numpy(_nchw(_read(folder)[1]["x"]))
    binding, name = session.io_binding(), session.get_outputs()[0].name
    given = session.get_inputs()[0].name
    binding.bind_ortvalue_input(given, x)
    y = session.run(None, {given: x.numpy()})[0]
    kept = ort.OrtValue.ortvalue_from_numpy(y)
    binding.bind_ortvalue_output(name, kept)

    def run() -> Array:
        session.run_with_iobinding(binding)
        return kept.numpy()

    return run


def openvino(folder: Path, threads: int) -> Run:
    """Build a request for low latency, in the precision of the case like all engines.

    By default OpenVINO uses bfloat16 where the processor has it. Next to int8, it computes in
    float32.
    """
    import openvino as ov

    core = ov.Core()
    bits = _told(folder).get("precision") == "bfloat16"
    hints = {
        "INFERENCE_PRECISION_HINT": "bf16" if bits else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = core.compile_model(core.read_model(str(folder / "graph.onnx")), "CPU", hints)
    request = compiled.create_infer_request()
    tensor = ov.Tensor(_nchw(_read(folder)[1]["x"]))  # a copy
    request.set_input_tensor(tensor)

    def run() -> Array:
        request.infer()
        return request.get_output_tensor().data

    return run


def torch(folder: Path, threads: int, mode: str, channels_last: bool) -> Run:
    """Build a PyTorch module: eager, a frozen TorchScript, or compiled with freezing.

    A case in bfloat16 runs under autocast, which casts what convolutions and the classifier read.
    """
    from contextlib import nullcontext

    import torch as pt
    from torch_module import Network

    bits = _told(folder).get("precision") == "bfloat16"

    def cast() -> Any:
        if not bits:
            return nullcontext()
        return pt.autocast("cpu", pt.bfloat16, cache_enabled=mode != "frozen")

    pt.set_num_threads(threads)
    steps, arrays = _read(folder)
    x = pt.from_numpy(_nchw(arrays["x"]))
    network = Network(steps, arrays).eval()
    if channels_last:
        x, network = (
            x.to(memory_format=pt.channels_last),
            network.to(memory_format=pt.channels_last),
        )
    with pt.no_grad(), cast():
        if mode == "frozen":
            network = pt.jit.optimize_for_inference(pt.jit.freeze(pt.jit.trace(network, x)))
        elif mode == "compile":
            from torch import _dynamo
            from torch._inductor import config

            _dynamo.reset()
            config.freezing = True
            network = pt.compile(network)
    without_gradients = pt.no_grad if mode == "compile" else pt.inference_mode

    def run() -> Array:
        with without_gradients(), cast():
            return network(x).float().numpy()

    return run


# For each engine, the package it needs and the function that builds it.
ENGINES: dict[str, tuple[str, Callable[[Path, int], Run]]] = {
    "tinyresnext": ("numba", ours),
    "tinyresnext float32": ("numba", lambda folder, threads: ours(folder, threads, wide=True)),
    "pytorch eager": ("torch", lambda folder, threads: torch(folder, threads, "eager", False)),
    "pytorch eager, channels last": (
        "torch",
        lambda folder, threads: torch(folder, threads, "eager", True),
    ),
    "pytorch frozen": ("torch", lambda folder, threads: torch(folder, threads, "frozen", False)),
    "pytorch frozen, channels last": (
        "torch",
        lambda folder, threads: torch(folder, threads, "frozen", True),
    ),
    "pytorch compile": ("torch", lambda folder, threads: torch(folder, threads, "compile", False)),
    "onnx runtime": ("onnxruntime", onnx_runtime),
    "onnx runtime, own quantisation": ("onnxruntime", own_quantisation),
    "openvino": ("openvino", openvino),
}


# Those that compute in each precision
TORCH = [name for name in ENGINES if name.startswith("pytorch")]
OWN = ["tinyresnext", "tinyresnext float32"]
BY_PRECISION = {
    "float32": ["tinyresnext", *TORCH, "onnx runtime", "openvino"],
    "bfloat16": [*OWN, *TORCH, "openvino"],
    "int8": [*OWN, "onnx runtime", "onnx runtime, own quantisation", "openvino"],
}


def _told(folder: Path) -> dict[str, Any]:
    """Read what a case says of its network; nothing in float32."""
    file = folder / "network.json"
    return json.loads(file.read_text("utf-8")) if file.exists() else {}


def _read(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Array]]:
    """Read the steps and the arrays of a case."""
    with np.load(folder / "arrays.npz") as found:
        return json.loads((folder / "steps.json").read_text("utf-8")), dict(found)


def _nchw(x: Array) -> Array:
    """Return the input in the layout of the other engines."""
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def serve(engine: str, threads: int) -> None:
    """Answer requests until the input ends."""
    runs: dict[str, Run] = {}
    answers, sys.stdout = (
        sys.stdout,
        sys.stderr,
    )  # the output of an engine must not mix with answers
    idle = time.process_time()
    for line in sys.stdin:
        asleep = {"burned": time.process_time() - idle}
        asked, answer = json.loads(line), {}
        try:
            if "load" in asked:
                if not asked.get("more"):
                    runs.clear()  # releases the memory of the cases before
                run = runs[asked["load"]] = ENGINES[engine][1](Path(asked["load"]), threads)
                run()
                start = time.perf_counter()
                y = run()
                answer = {"seconds": time.perf_counter() - start}
                np.save(Path(asked["load"]) / f"{engine}.npy", np.asarray(y))
            else:
                run = runs[asked["of"]]
                run()
                answer["times"] = []
                for _ in range(asked["run"]):
                    start = time.perf_counter()
                    run()
                    answer["times"].append(time.perf_counter() - start)
        except Exception as error:  # an engine that fails is reported and left out
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        idle = time.process_time()
        print(json.dumps(answer | asleep), file=answers, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
