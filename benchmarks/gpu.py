"""Everything that a GPU machine should say about this project, in at most eight minutes.

``python benchmarks/gpu.py OUT`` runs each part in a process of its own, with a time limit, the most
important first: what the machine is, all kernels compiled by all its cores, the tests on the GPU,
the speed of whole networks and their layers, a step of training, the same in PyTorch, a run of
training, the rungs of the ladder, and ONNX Runtime. What is not installed is skipped, and named at
the end, below a table of what is expected and what was measured (`gpu_expected`). Whatever a part
has found is in ``OUT/results.json`` at once, so that a part that is stopped, and a machine that is
taken away, have told what they could. What the parts print is in ``OUT/output.txt``.

Without installing anything it runs where numba-cuda, NVIDIA's compiler and the other packages are
there. A part can be run alone: ``--parts speed peer``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from importlib import metadata
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT)]

from gpu_expected import BATCHES, TRAINED, table  # noqa: E402

NETWORK, SIDE = "resnext50_32x4d", 224
REPEATS = 20
CUDA = "CUDAExecutionProvider"
COMPILERS = ("nvidia-nvvm", "nvidia-cuda-nvcc", "nvidia-cuda-nvcc-cu12")
RUN = {"depth": 20, "cardinality": 8, "width": 4, "images": 10_000, "epochs": 4, "device": "cuda"}
LR, MOMENTUM, DECAY = 0.02, 0.9, 5e-4
# The parts, the most important first, and how many seconds each may take.
LIMITS = {
    "machine": 60, "kernels": 45, "tests": 120, "speed": 65, "step": 35, "peer": 75, "run": 35,
    "ladder": 25, "runtime": 20,
}  # fmt: skip
# The files of tests, the most important first, and how many processes run them where pytest-xdist
# is installed; those of whole networks look at the GPU's free memory, so they run alone.
TESTS = {
    "ops": 8, "backward updates": 8, "gpu": 1, "cuda_half": 8, "cuda_integer": 8,
    "adaptive training_step step plan chain excited": 8,
}  # fmt: skip
TESTED = 110  # seconds for all of these
SIDE_BY_SIDE = 640  # images, at least, in calls of a layer that PyTorch starts before it waits


def medians(
    run: Callable[[], Any], wait: Callable[[], Any], repeats: int = REPEATS, calls: int = 1
) -> Any:
    """Return the median and the shortest time of a call in milliseconds, after three warm ones.

    So many calls are made each time before they are waited for.
    """
    for _ in range(3):
        run()
    wait()
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(calls):
            run()
        wait()
        found.append(1e3 * (time.perf_counter() - start) / calls)
    return {"median_ms": median(found), "min_ms": min(found)}


def images(batch: int) -> np.ndarray:
    return np.random.default_rng(batch).standard_normal((batch, SIDE, SIDE, 3), np.float32)


# --- parts ----------------------------------------------------------------------------------------


def machine(folder: Path) -> Any:
    """Say what computes, and which packages compile for it."""
    from tinyresnext.ops import backend

    names = ("numpy", "numba", "numba-cuda", *COMPILERS, "torch", "onnxruntime-gpu", "pytest-xdist")
    query = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.max.sm,power.limit"]
    told = ""
    if shutil.which(query[0]):
        query.append("--format=csv,noheader")
        told = subprocess.run(query, capture_output=True, text=True).stdout.strip()
    found: dict[str, Any] = {
        "nvidia_smi": told,
        "packages": {name: version(name) for name in names},
        "toolkit": os.environ.get("CUDA_HOME"),
    }
    write(folder, "machine", found)
    start = time.perf_counter()
    ops = backend("cuda")
    found |= {
        "device": ops.described(),
        "capability": list(ops.machine.capability),
        "multiprocessors": ops.machine.multiprocessors,
        "free_bytes": ops.machine.free_bytes(),
        "seconds_to_open": time.perf_counter() - start,
        "kernels_are_kept": ops.kernels_problem() or True,
    }
    write(folder, "machine", found)
    return found | {"limits": ops.peak([1])[0]._asdict()}


def version(package: str) -> str | None:
    """Return the version of an installed package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def toolkit() -> dict[str, str]:
    """Return where a CUDA toolkit is, as an environment, if NVIDIA's compiler is no package here.

    Numba's targets look there for NVVM.
    """
    program = shutil.which("nvcc")
    place = Path(program).resolve().parents[1] if program else Path("/usr/local/cuda")
    if any(map(version, COMPILERS)) or "CUDA_HOME" in os.environ or not (place / "nvvm").is_dir():
        return {}
    return {"CUDA_HOME": str(place)}


def kernels(folder: Path) -> Any:
    """Compile every kernel of ResNeXts for this GPU, on all cores; the other parts find them."""
    from tinyresnext.ops.cpu.runtime.cores import cores

    started, count = time.perf_counter(), cores()
    work = partial(compiled, among=count)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context) as pool:
        seconds = list(pool.map(work, range(count)))
    return {
        "processes": count,
        "kernels": sum(len(one) for one in seconds),
        "seconds": time.perf_counter() - started,
        "slowest": max((found, name) for one in seconds for name, found in one.items()),
    }


def compiled(place: int, among: int) -> dict[str, float]:
    """Compile the kernels of one process among some, and return how long each took.

    The driver loads them, too, so that it keeps what its own compiler has made.
    """
    from tinyresnext.ops import backend

    sys.path.append(str(ROOT / "tests"))
    import assembled

    load, found = backend("cuda").machine.function, {}
    for kernel in assembled.kernels()[place::among]:
        start = time.perf_counter()
        load(kernel)
        found[kernel.name] = time.perf_counter() - start
    return found


def tests(folder: Path) -> Any:
    """Run the tests that need a GPU; each file gets at most half of the time that is left."""
    started, found = time.perf_counter(), {}
    for name, processes in TESTS.items():
        left = TESTED - (time.perf_counter() - started)
        last = name == list(TESTS)[-1]
        found[name] = tested(name, processes, left if last else left / 2)
        write(folder, "tests", found)
    return found


def tested(name: str, processes: int, seconds: float) -> Any:
    """Run files of tests; when the time is over, they are interrupted and say what they had."""
    from tinyresnext.system.home import home

    # Packages of other versions may warn of what the suite makes an error.
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-rf", "-W", "default"]
    command += ["-p", "no:cacheprovider", *(f"tests/test_{one}.py" for one in name.split())]
    if processes > 1 and importlib.util.find_spec("xdist"):
        command += ["-n", str(processes)]
    needed = {**os.environ, "TINYRESNEXT_GPU": "needed"}
    if (kept := home()) is not None:  # what `kernels` has compiled is there
        needed["TINYRESNEXT_HOME"] = str(kept)
    started, interrupted = time.perf_counter(), False
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file, env=needed)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            interrupted = True
            process.send_signal(signal.SIGINT)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        file.seek(0)
        text = file.read()
    print(text, flush=True)
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)(?: - (.*))?$", text, re.MULTILINE)
    return {
        "exit": process.returncode,
        "interrupted": interrupted,
        "seconds": time.perf_counter() - started,
        "summary": text.strip().splitlines()[-1] if text.strip() else "",
        "failed": [{"test": test, "why": why} for test, why in failed],
    }


def speed(folder: Path) -> Any:
    """Time whole networks and their steps, in float32 and then in float16."""
    from tinyresnext.bench.inputs import random_parameters
    from tinyresnext.network.count import macs
    from tinyresnext.network.plan import Plan, program
    from tinyresnext.network.spec import variant
    from tinyresnext.ops import backend

    spec, rows = variant(NETWORK), []
    params = random_parameters(spec)
    for precision in ("float32", "float16"):
        ops, start = backend("cuda", precision), time.perf_counter()
        made = program(params, spec, ops)
        for batch in BATCHES:
            x, plan = images(batch), Plan(made, (batch, SIDE, SIDE, 3), ops)
            plan(x)
            row: dict[str, Any] = {"precision": precision, "batch": batch}
            rows.append(row | {"at_once": plan.at_once, "bytes": plan.bytes})
            row = rows[-1]
            if batch == BATCHES[0]:
                row["seconds_to_first_result"] = time.perf_counter() - start
            row["network"] = medians(plan._run, ops.wait)
            row["with_copies"] = medians(partial(plan, x), ops.wait)
            write(folder, "speed", {"model": NETWORK, "rows": rows})
            times = plan.profile(x, 5).seconds
            row["layers"] = [
                {
                    "name": call.name, "op": call.op, "shape": list(shape), "min_ms": 1e3 * one,
                    "gflops": 2e-9 * macs(call, shape) / one,
                }
                for call, shape, one in zip(plan.calls, plan.shapes, times, strict=True)
            ]  # fmt: skip
            write(folder, "speed", {"model": NETWORK, "rows": rows})
    return {"model": NETWORK, "rows": rows}


def ladder(folder: Path) -> Any:
    """Time each rung of a matrix product, as a share of the measured peak."""
    module = runpy.run_path(str(HERE / "ladder_cuda" / "__main__.py"))
    layer, rows = module["Layer"](*module["LARGE"]), []
    for row in module["measure"]("cuda", layer):
        rows.append(row)
        write(folder, "ladder", {"layer": layer._asdict(), "rows": rows})
    return {"layer": layer._asdict(), "rows": rows}


def step(folder: Path) -> Any:
    """Time a step of training: loss, gradients, SGD, running statistics."""
    from tinyresnext.network.spec import variant
    from tinyresnext.network.step import Step
    from tinyresnext.ops import backend
    from tinyresnext.training.initial import initialise
    from tinyresnext.training.optimisers.sgd import sgd
    from tinyresnext.training.optimisers.statistics import update_statistics
    from tinyresnext.training.recipes.optimiser import Optimiser
    from tinyresnext.training.recipes.parts import Start
    from tinyresnext.training.weights import size, upload, views

    ops, spec = backend("cuda"), variant(NETWORK)
    values = np.zeros(size(spec), np.float32)
    initialise(views(values, spec), Start(), 0)
    there = upload(ops, spec, values, np.zeros_like(values), None)
    compute = Step(there.params, spec, (TRAINED, SIDE, SIDE, 3), ops)
    how = Optimiser(nesterov=True, momentum=MOMENTUM, weight_decay=DECAY)
    x, labels, losses = images(TRAINED), np.arange(TRAINED) % spec.classes, []

    def run() -> None:
        loss, _ = compute(x, labels)
        sgd(ops, there.params, compute.gradients, there.velocities, how, LR)
        update_statistics(ops, there.params, compute.statistics, compute.positions)
        losses.append(float(loss))

    start = time.perf_counter()
    run()
    ops.wait()
    found = {
        "model": NETWORK, "batch": TRAINED, "bytes": compute.bytes, "losses": losses,
        "seconds_of_the_first": time.perf_counter() - start,
    }  # fmt: skip
    write(folder, "step", found)
    found |= medians(run, ops.wait, 8)
    return found | {"images_per_second": 1e3 * TRAINED / found["median_ms"]}


def peer(folder: Path) -> Any:
    """Time the same in PyTorch: the network and its grouped layers, without and with TF32."""
    try:
        import torch
        from torchvision.models import resnext50_32x4d
    except (ImportError, RuntimeError) as error:  # torchvision of another PyTorch's is the second
        return {"absent": f"PyTorch or torchvision is not there: {error}"}
    if not torch.cuda.is_available():
        return {"absent": "this PyTorch has no CUDA"}
    torch.backends.cudnn.benchmark = True
    rows: list[dict[str, Any]] = []
    for tf32, last in product((False, True), (False, True)):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        layout = torch.channels_last if last else torch.contiguous_format
        for row in in_torch(torch, resnext50_32x4d(), layout):
            rows.append({"tf32": tf32, "channels_last": last, **row})
            write(folder, "peer", {"torch": torch.__version__, "rows": rows})
    return {"torch": torch.__version__, "rows": rows}


def in_torch(torch: Any, net: Any, layout: Any) -> Iterator[dict[str, Any]]:
    """Yield the time of mini-batches, of a step of training, and of each grouped layer."""
    net = net.cuda().eval().to(memory_format=layout)
    # The grouped convolutions, each of its kind once, with the shapes of what they are given.
    seen: dict[str, tuple[Any, Any]] = {}

    def look(name: str, module: Any, given: tuple[Any, ...]) -> None:
        kinds = {(tuple(shape[1:]), one.stride) for one, shape in seen.values()}
        if (tuple(given[0].shape[1:]), module.stride) not in kinds:
            seen[name] = module, given[0].shape

    hooks = [
        module.register_forward_pre_hook(partial(look, name))
        for name, module in net.named_modules()
        if getattr(module, "groups", 1) > 1
    ]
    for batch in BATCHES:
        x = torch.randn(batch, 3, SIDE, SIDE, device="cuda").to(memory_format=layout)
        with torch.inference_mode():
            found = medians(partial(net, x), torch.cuda.synchronize, 10)
        for hook in hooks:
            hook.remove()
        yield {"batch": batch, **found}
    net.train()
    x = torch.randn(TRAINED, 3, SIDE, SIDE, device="cuda").to(memory_format=layout)
    labels = torch.arange(TRAINED, device="cuda") % 1000
    optimiser = torch.optim.SGD(
        net.parameters(), LR, momentum=MOMENTUM, weight_decay=DECAY, nesterov=True
    )

    def train() -> None:
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(net(x), labels).backward()
        optimiser.step()

    found = medians(train, torch.cuda.synchronize, 8)
    yield {"training": TRAINED, "images_per_second": 1e3 * TRAINED / found["median_ms"], **found}
    for name, (module, shape) in seen.items():
        for batch in BATCHES:
            x = torch.randn(batch, *shape[1:], device="cuda").to(memory_format=layout)
            with torch.inference_mode():
                calls = -(-SIDE_BY_SIDE // batch)
                found = medians(partial(module, x), torch.cuda.synchronize, 5, calls)
                if batch == BATCHES[0]:  # to start so short a call takes longer than the call
                    found |= as_a_graph(torch, partial(module, x), calls)
            yield {"layer": name, "batch": batch, **found}


def as_a_graph(torch: Any, call: Callable[[], Any], calls: int) -> dict[str, Any]:
    """Return the time of a call among many that a CUDA graph starts at once, as our own are."""
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(calls):
                call()
        found = medians(graph.replay, torch.cuda.synchronize, 5)
    except RuntimeError as error:
        return {"no_graph": str(error)}
    return {"graph_ms": found["min_ms"] / calls}


def runtime(folder: Path) -> Any:
    """Time a network with the same weights in ONNX Runtime, without and with TensorFloat-32."""
    try:
        import onnxruntime
    except ImportError:
        return {"absent": "ONNX Runtime is not installed"}
    getattr(onnxruntime, "preload_dlls", lambda: None)()  # where cuDNN is a package
    if CUDA not in onnxruntime.get_available_providers():
        return {"absent": "this ONNX Runtime has no CUDA: onnxruntime-gpu has"}
    from tinyresnext.bench.inputs import random_parameters
    from tinyresnext.network.plan import Plan, program
    from tinyresnext.network.spec import variant
    from tinyresnext.ops import backend

    ops, spec = backend("cuda"), variant(NETWORK)
    params, shape = random_parameters(spec), (BATCHES[0], SIDE, SIDE, 3)
    own = Plan(program(params, spec, ops), shape, ops)(images(BATCHES[0]))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as room:
        graph = Path(room) / "network.onnx"
        write_graph(graph, spec, params)
        for tf32 in (False, True):
            chosen = [(CUDA, {"use_tf32": int(tf32), "cudnn_conv_algo_search": "EXHAUSTIVE"})]
            for row in sessions(onnxruntime, graph, chosen, "cuda", own):
                rows.append({"tf32": tf32, **row})
                write(folder, "runtime", {"onnxruntime": onnxruntime.__version__, "rows": rows})
    return {"onnxruntime": onnxruntime.__version__, "rows": rows}


def write_graph(path: Path, spec: Any, params: Any) -> None:
    """Export a network as an ONNX graph, with its batch norms folded as in a plan."""
    from tinyresnext.checkpoints.onnx.write import write_onnx
    from tinyresnext.images.preprocess import Preprocess
    from tinyresnext.store.contents import Stored

    labels = tuple(map(str, range(spec.classes)))
    write_onnx(path, Stored(spec, params, Preprocess(crop=SIDE), labels, {}), fold=True)


def sessions(
    package: Any, graph: Path, providers: list[Any], device: str, own: np.ndarray
) -> Iterator[dict[str, Any]]:
    """Yield the time of each mini-batch, and how far the logits of one are from ``own``."""
    session = package.InferenceSession(str(graph), providers=providers)
    first = providers[0] if isinstance(providers[0], str) else providers[0][0]
    if session.get_providers()[0] != first:  # it goes on with the processor, and only warns
        yield {"absent": f"{first} does not start; output.txt has its warning"}
        return
    for batch in BATCHES:
        x = np.ascontiguousarray(images(batch).transpose(0, 3, 1, 2))
        binding = session.io_binding()
        binding.bind_ortvalue_input("images", package.OrtValue.ortvalue_from_numpy(x, device, 0))
        binding.bind_output("logits", device)

        def compute(binding: Any = binding) -> None:
            session.run_with_iobinding(binding)

        row: dict[str, Any] = {"batch": batch}
        row |= medians(compute, binding.synchronize_outputs, 10)
        if batch == BATCHES[0]:
            found = binding.copy_outputs_to_cpu()[0]
            row["relative_difference"] = float(np.abs(found - own).max() / np.abs(own).max())
        yield row


def run(folder: Path) -> Any:
    """Train a small network on images that are made here, and say how far it came."""
    from tinyresnext import cifar, recipe
    from tinyresnext.data.dataset import Dataset
    from tinyresnext.training.train import train

    rng, count = np.random.default_rng(0), RUN["images"]
    labels = rng.integers(0, 10, count)
    marks = rng.integers(0, 256, (10, 8, 8, 3))  # of each class, somewhere in an image of noise
    pixels = rng.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
    for image, label, (y, x) in zip(pixels, labels, rng.integers(0, 25, (count, 2)), strict=True):
        image[y : y + 8, x : x + 8] = marks[label]
    names, classes = [f"{i}.png" for i in range(count)], tuple("abcdefghij")
    half = count // 2

    def part(first: int, last: int) -> Dataset:
        return Dataset(
            classes, labels[first:last], names[first:last],
            lambda i: pixels[first + i], pixels=pixels[first:last],
        )  # fmt: skip

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as room:
        out = Path(room) / "trained"
        train(
            cifar(RUN["depth"], RUN["cardinality"], RUN["width"]),
            part(0, half),
            recipe("fast-cifar", epochs=RUN["epochs"]),
            out,
            validation=part(half, half + count // 10),
            device=RUN["device"],
        )
        lines = (out / "log.jsonl").read_text("utf-8").splitlines()
    return {"seconds": time.perf_counter() - started, "epochs": [json.loads(one) for one in lines]}


# --- all of them ----------------------------------------------------------------------------------


def results(folder: Path) -> dict[str, Any]:
    """Return what was found so far."""
    path = folder / "results.json"
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return found


def write(folder: Path, name: str, found: Any) -> None:
    """Put what a part has found to the rest; the file is whole at every moment."""
    text = json.dumps(results(folder) | {name: found}, indent=1) + "\n"
    new = folder / "results.new"
    new.write_text(text, "utf-8")
    new.replace(folder / "results.json")


def all_parts(folder: Path, parts: list[str]) -> int:
    """Run parts, each in its own process; return 1 if one failed."""
    failed = results(folder).get("failed", {})
    for name in parts:
        print(f"{time.strftime('%X')} {name}", flush=True)
        started = time.perf_counter()
        with open(folder / "output.txt", "a", encoding="utf-8") as said:
            said.write(f"\n=== {name}\n")
            said.flush()
            before = said.tell()
            if name == "machine":  # another run may have found a GPU
                write(folder, name, {})
            code = limited([sys.executable, __file__, str(folder), "--only", name], name, said)
        failed.pop(name, None)
        if code:
            failed[name] = (
                f"stopped after {LIMITS[name]} s" if code is LATE else f"exit code {code}"
            )
            end = (folder / "output.txt").read_bytes()[before:][-1500:]
            # The last line of an error says what to do.
            print(failed[name], end.decode("utf-8", "replace"), sep="\n", flush=True)
        write(folder, "failed", failed)
        write(folder, "seconds", {**results(folder).get("seconds", {}), name: since(started)})
        if name == "tests":
            for files in cut(results(folder).get(name, {})):
                print(f"the time was over before all tests had run: {files}", flush=True)
        if name == "machine" and "device" not in results(folder)[name]:
            break  # all the others need the GPU, too
    print(table(results(folder)), flush=True)
    return int(any(name in failed for name in parts))


def cut(found: dict[str, Any]) -> list[str]:
    """Return the files of tests that were interrupted, and said what they had."""
    return [name for name, one in found.items() if one["interrupted"] and one["exit"] == 2]


LATE = -999  # not the exit code of any process


def limited(command: list[str], name: str, said: Any) -> int:
    """Run a part; return its exit code, or `LATE` where it had to be ended, with all it started."""
    paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = os.environ | toolkit() | {"PYTHONUNBUFFERED": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    process = subprocess.Popen(
        command, stdout=said, stderr=said, env=environment, start_new_session=True
    )
    try:
        return process.wait(LIMITS[name])
    except BaseException as why:  # of Ctrl-C the part, in a session of its own, would not know
        if hasattr(os, "killpg"):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
        if not isinstance(why, subprocess.TimeoutExpired):
            raise
        return LATE


def since(started: float) -> float:
    return round(time.perf_counter() - started, 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="the folder for the results")
    parser.add_argument("--only", choices=LIMITS, help="one part, in this process")
    parser.add_argument("--parts", nargs="+", choices=LIMITS, default=list(LIMITS))
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    if a.only is None:
        return all_parts(a.out, a.parts)
    found = globals()[a.only](a.out)
    write(a.out, a.only, found)
    if a.only != "tests":
        return 0
    # Nothing was collected: 5. The time was over: pytest was interrupted, 2.
    excused = cut(found)
    return int(any(one["exit"] not in (0, 5) for name, one in found.items() if name not in excused))


if __name__ == "__main__":
    sys.exit(main())
