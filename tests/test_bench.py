"""What measures speed: that it runs, counts right, and reports it. Speed itself is not tested."""

from __future__ import annotations

import json
import math
import os
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tinyresnext import Spec
from tinyresnext.bench import bench, inputs, processor
from tinyresnext.cli import main as cli
from tinyresnext.errors import UsageError
from tinyresnext.network import spec
from tinyresnext.network.resnext import forward, parameters
from tinyresnext.network.spec import variants
from tinyresnext.ops import cpu, reference
from tinyresnext.ops.contract import Peak
from tinyresnext.ops.cpu.runtime import peak

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
TINY = Spec((1, 1), 4, 8, 10)
MODEL = "resnext_tiny"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A small architecture that has a name, and short loops for the machine's limits."""
    for module in (spec, variants):
        monkeypatch.setattr(module, "VARIANTS", {MODEL: TINY})
    whole = peak.measure
    monkeypatch.setattr(
        peak, "measure", lambda counts: whole(counts, repeats=2, rounds=1000, size=1 << 16)
    )


@pytest.fixture
def benchmarks(monkeypatch):
    """A function that imports a module from the folder, or from the ladder in it."""
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), str(BENCHMARKS / "ladder"), *sys.path])
    return import_module


@pytest.fixture(scope="module")
def ladder():
    """The program of the ladder; its folder is a program, not a package."""
    from importlib.util import module_from_spec, spec_from_file_location

    before = list(sys.path)
    found = spec_from_file_location("ladder_main", BENCHMARKS / "ladder" / "__main__.py")
    module = module_from_spec(found)
    sys.modules["ladder_main"] = module
    found.loader.exec_module(module)
    yield module
    sys.path[:] = before
    del sys.modules["ladder_main"]


@pytest.mark.slow
def test_a_network_of_8_bits_is_measured(capsys, monkeypatch):
    """Its share of the peak is not said, which is that of float32."""
    monkeypatch.setattr(peak, "measure", lambda counts: [Peak(n, 99.0, 9.0, 9.0) for n in counts])
    words = ["--model", MODEL, "--batch", "1", "--size", "32", "--repeats", "1", "--layers"]
    assert cli.main(["bench", *words, "--threads", "1", "--precision", "int8"]) == 0
    said = capsys.readouterr().out
    assert "computed by the processor, in int8" in said
    assert "conv2d_int8 " in said
    assert "quantise " in said
    assert "%" not in said.partition("conv2d_int8")[2].partition("\n")[0]


def test_limits_are_numbers():
    for limits in peak.measure([1, 2][: len(cpu.thread_count() * "x")]):
        assert all(math.isfinite(value) and value > 0 for value in limits)
    assert processor.processor()
    share = processor.Others().share()
    assert share is None or 0 <= share <= 1


def test_the_chains_multiply_and_add():
    for lanes in peak.LANES:
        out = np.zeros(1, np.float32)
        peak._kernel(lanes)(
            out, np.float32(0.5), 1
        )  # each sum i becomes i/2 + 1/2, and all twelve are added
        assert out[0] == sum(i / 2 + 0.5 for i in range(peak.SUMS))


def test_bench_prints_and_writes(capsys, tmp_path):
    file = tmp_path / "bench.json"
    options = [
        "--model",
        MODEL,
        "--batch",
        "1",
        "2",
        "--size",
        "32",
        "--threads",
        "1",
        "--repeats",
        "2",
        "--layers",
    ]
    file.write_text("kept", "utf-8")
    assert cli.main(["bench", *options, "--json", str(file)]) == 2
    assert "--force to write over it" in capsys.readouterr().err
    assert file.read_text("utf-8") == "kept"
    assert cli.main(["bench", *options, "--json", str(file), "--force"]) == 0
    report, shown = json.loads(file.read_text("utf-8")), capsys.readouterr()
    assert shown.err == ""
    assert [(row["model"], row["batch"], row["size"]) for row in report["models"]] == [
        (MODEL, 1, 32),
        (MODEL, 2, 32),
    ]
    for row in report["models"] + report["layers"]:
        assert 0 < row["min_ms"] <= row["median_ms"]
        assert row["gflops"] == pytest.approx(row["gflop"] / row["median_ms"] * 1e3)
    assert report["machine"][-1]["threads"] == report["threads"] == 1
    assert all(row["layer"] in shown.out for row in report["layers"])
    assert "other" in shown.out.splitlines()[-1]


def test_layers_are_the_network():
    report = bench.bench([MODEL], [1], [32], threads=1, repeats=1, every_layer=True)
    one, layers = report["models"][0], report["layers"]
    assert sum(row["count"] * row["gflop"] for row in layers) == pytest.approx(one["gflop"])
    assert len({row["layer"] for row in layers}) == len(layers)
    assert any("groups 4" in row["layer"] and "+relu" in row["layer"] for row in layers)
    assert any("+residual" in row["layer"] for row in layers)


def test_figures_of_layers_are_for_the_mini_batch(monkeypatch):
    """Sections take 1, 2 and 4 of 8 samples; equal layers of different sections stay apart."""
    monkeypatch.setattr(reference, "at_once", lambda n, weights, values: max(1, n // 2))
    monkeypatch.setattr(reference, "peak", lambda counts: [Peak(1, 9.0, 9.0, 9.0)])
    deep = Spec((3, 1), 2, 4, 5, stem="cifar")
    for module in (spec, variants):
        monkeypatch.setattr(module, "VARIANTS", {MODEL: deep})
    report = bench.bench(
        [MODEL], [8], [8], threads=1, repeats=1, every_layer=True, device="reference"
    )
    one, layers = report["models"][0], report["layers"]
    assert sum(row["count"] * row["gflop"] for row in layers) == pytest.approx(one["gflop"])
    assert {row["samples"] for row in layers} == {1, 2, 4}
    for row in layers:
        assert f"{row['samples']} at a time" in row["layer"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model", "resnext5"], "no architecture"),
        (["--model", MODEL, "--threads", "4096"], "threads is 4096"),
        (
            [
                "--model",
                MODEL,
                "--batch",
                "1",
                "--size",
                "32",
                "--repeats",
                "1",
                "--json",
                "no/such/file",
            ],
            "cannot write",
        ),
    ],
)
def test_bench_refuses(capsys, options, words):
    assert cli.main(["bench", *options]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sizes": [32, 50]}, f"{MODEL}, images of 50 x 50: .* sides are multiples of 32"),
        ({"sizes": [32, 2.5]}, "size is 2.5; give a whole number"),
        ({"batches": [1, 0]}, "batch is 0; give a whole number"),
        ({"repeats": 0}, "repeats is 0; give a whole number"),
        ({"models": [MODEL, "resnext5"]}, "no architecture"),
    ],
)
def test_what_cannot_be_measured_is_refused_first(monkeypatch, given, words):
    """Not after minutes of measurements, which would be lost."""
    monkeypatch.setattr(reference, "peak", lambda counts: pytest.fail("it has begun"))
    averaged = Spec((1, 1, 1, 1), 4, 8, 10, stem="deep", avg_down=True, blur_pool="average")
    for module in (spec, variants):
        monkeypatch.setattr(module, "VARIANTS", {MODEL: averaged})
    with pytest.raises(UsageError, match=words):
        bench.bench(
            **{"models": [MODEL], "batches": [1], "sizes": [32], **given}, device="reference"
        )


def test_what_our_own_processes_took_is_not_that_of_others(monkeypatch):
    times = os.times_result((1.0, 2.0, 4.0, 8.0, 16.0))
    monkeypatch.setattr(os, "times", lambda: times)
    assert processor.Others._now()[2] in (15.0, 0.0)  # 0: the system does not report it
    if Path("/proc/stat").exists():
        assert processor.Others._now()[2] == 15


def test_weights_are_plausible_and_always_the_same():
    params = inputs.random_parameters(TINY)
    assert {name: value.shape for name, value in params.items()} == parameters(TINY)
    assert all(
        np.array_equal(value, inputs.random_parameters(TINY)[name])
        for name, value in params.items()
    )
    values = []
    forward(
        params,
        TINY,
        inputs.random_pictures((1, 32, 32, 3)),
        reference,
        at=lambda name, y: values.append(y) or y,
    )
    for y in values:
        assert np.isfinite(y).all()
        assert (np.abs(y[y != 0]) > np.finfo(np.float32).tiny).all()
        assert np.abs(y).max() < 100
    assert np.array_equal(
        inputs.random_pictures((1, 8, 8, 3)), inputs.random_pictures((2, 8, 8, 3))[:1]
    )


SMALL = {
    "pointwise": [(20, 70, 9, 1, 1, 1), (7, 64, 5, 1, 2, 1)],
    "grouped": [
        (32, 32, 9, 3, 1, 8),
        (64, 64, 7, 3, 2, 4),
        (6, 6, 5, 3, 1, 2),
        (128, 128, 5, 3, 2, 4),
    ],
    "bits": [(21, 70, 9, 1, 1, 1), (7, 33, 5, 1, 2, 1)],
}


@pytest.mark.slow
@pytest.mark.parametrize("which", SMALL)
def test_every_rung_agrees_with_the_definition(ladder, benchmarks, which):
    for shape in SMALL[which]:
        layer = ladder.Layer(*shape)
        w = ladder.work(layer)
        for name in ladder.LAYERS[which][0]:
            ladder.check(benchmarks(name), layer, w)
    assert len(ladder.seconds(benchmarks("both_last_cpu"), layer, w, 2)) == 2


def test_a_wrong_rung_is_found(ladder, benchmarks):
    layer = ladder.Layer(20, 70, 9)
    w = ladder.work(layer)
    w.weight[3, 4] += 0.001
    with pytest.raises(AssertionError, match="both_1_loops is wrong"):
        ladder.check(benchmarks("both_1_loops"), layer, w)


def test_seven_products_are_the_eight(benchmarks):
    strassen, random = benchmarks("pointwise_8_strassen"), np.random.default_rng(0)
    a, b = random.integers(-9, 10, (2, 6, 6))
    parts, found = [strassen.quarters(matrix, 3, 3) for matrix in (a, b)], np.zeros((4, 3, 3), int)
    for left, right, result in strassen.PRODUCTS:
        product = strassen.combined(parts[0], left) @ strassen.combined(parts[1], right)
        found += np.multiply.outer(result, product)
    assert np.array_equal(found, strassen.quarters(a @ b, 3, 3))


def test_the_widths_are_those_of_the_tables(benchmarks):
    widths = benchmarks("widths")
    found = {case.name: case for case in widths.cases(8, 14)}
    assert len(found) == 11
    assert found["8 x 14, 56, stride 1"].arrays["weight0"].shape == (112, 14, 3, 3)
    row = found["8 x 56, 28, stride 2, 6 layers"]
    assert [s["attrs"]["stride"] for s in row.steps if s["op"] == "conv2d"] == [2, 1, 1, 1, 1, 1]
    assert all(case.kind.startswith("grouped") for case in widths.cases(1, 64))


def test_every_file_of_the_ladder_is_a_rung(ladder):
    files = {path.stem for path in (BENCHMARKS / "ladder").glob("*_*.py")} - {"__main__"}
    assert files == {*ladder.POINTWISE, *ladder.GROUPED, *ladder.BITS}


REPORT = {
    "processor": "A processor",
    "device": "the processor",
    "threads": 2,
    "date": "2020-02-02",
    "versions": {"numba": "1", "openvino": "2"},
    "cases": [
        {
            "case": "net batch 1",
            "kind": "model",
            "ratio": 0.5,
            "engines": {
                "tinyresnext": {"agrees": True, "median_ms": 10.04},
                "openvino": {"agrees": True, "median_ms": 20.08},
                "onnx runtime": {"agrees": False, "median_ms": 1.0},
                "pytorch eager": {"agrees": True, "median_ms": 40.0},
                "pytorch compile": {"error": "no compiler"},
            },
        },
        {"case": "nobody", "kind": "grouped", "engines": {}},
    ],
}


def test_the_readme_is_written_between_its_markers(benchmarks, monkeypatch, tmp_path):
    readme = benchmarks("readme")
    pages = {name: tmp_path / f"{name}.md" for name in ("README", "PERFORMANCE")}
    for name, page in pages.items():
        page.write_text("before\n<!-- bench -->\nold\n<!-- /bench -->\nafter\n", "utf-8")
        monkeypatch.setattr(readme, name, page)
    source = tmp_path / "results.json"
    layer = REPORT["cases"][0] | {"case": "16 x 4, 8", "kind": "grouped"}
    source.write_text(json.dumps(REPORT | {"cases": [*REPORT["cases"], layer]}), "utf-8")
    assert readme.main([str(source)]) == readme.main([str(source)]) == 0
    for name, page in pages.items():
        text = page.read_text("utf-8")
        assert text.startswith("before\n<!-- bench -->\nA processor, 2 threads, 2020-02-02")
        assert text.endswith("\n<!-- /bench -->\nafter\n")
        assert "| net batch 1 | **10** (0.50) | 20.1 | 40 | 40 |" in text
        assert ("| 3x3, 16 x 4, 8 | **10** (0.50) |" in text) == (name == "PERFORMANCE")
        assert "old" not in text
        assert "nobody" not in text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<!-- bench -->",
        "<!-- /bench --><!-- bench -->",
        "<!-- bench -->" * 2 + "<!-- /bench -->",
    ],
)
def test_markers_must_be_there(benchmarks, text):
    with pytest.raises(ValueError, match="once each"):
        benchmarks("readme").put(text, "table")


def test_the_table_of_sizes(benchmarks, monkeypatch, tmp_path):
    readme = benchmarks("readme")
    target, source = tmp_path / "performance.md", tmp_path / "bench.json"
    target.write_text("before\n<!-- sizes -->\nold\n<!-- /sizes -->\nafter\n", "utf-8")
    rows = [("net", 1, 160, 10.04, 0.5), ("net", 1, 224, 20.0, 0.625), ("net", 8, 160, 80.0, 0.75)]
    models = [
        dict(zip(("model", "batch", "size", "median_ms", "peak"), row, strict=True)) for row in rows
    ]
    report = {
        "processor": "A processor",
        "device": "the processor",
        "threads": 2,
        "date": "2020-02-02",
        "machine": [{"gflops": 236.4}],
        "others": 0.04,
    }
    source.write_text(json.dumps(report | {"models": models}), "utf-8")
    monkeypatch.setattr(readme, "PERFORMANCE", target)
    assert readme.main([str(source)]) == 0
    written = target.read_text("utf-8")
    assert "| net batch 1 | 10 (50%) | 20 (62%) |" in written
    assert "| net batch 8 | 80 (75%) |  |" in written
    assert "236 GFLOP/s" in written
    assert "4% of the cores" in written
    assert written.startswith("before\n")
    assert written.endswith("after\n")


@pytest.mark.parametrize(("name", "kind"), [("networks", "model"), ("widths", "grouped in a row")])
def test_tables_of_one_page(benchmarks, monkeypatch, tmp_path, name, kind):
    readme = benchmarks("readme")
    page, source = tmp_path / "performance.md", tmp_path / f"2020-02-02-{name}.json"
    page.write_text(f"before\n<!-- {name} -->\nold\n<!-- /{name} -->\nafter\n", "utf-8")
    row = REPORT["cases"][0] | {"kind": kind}
    source.write_text(json.dumps(REPORT | {"cases": [row]}), "utf-8")
    monkeypatch.setattr(readme, "PERFORMANCE", page)
    monkeypatch.setattr(readme, "README", tmp_path / "missing.md")
    assert readme.main([str(source)]) == 0
    text = page.read_text("utf-8")
    assert "net batch 1 | **10** (0.50) | 20.1 |" in text
    assert "old" not in text


def test_the_projects_pages_have_markers(benchmarks):
    readme = benchmarks("readme")
    assert "table" in readme.put(readme.README.read_text("utf-8"), "table")
    text = readme.PERFORMANCE.read_text("utf-8")
    assert "table" in readme.put(text, "table")
    for name in ("sizes", "networks", "widths"):
        assert "table" in readme.put(text, "table", name)


def test_ours_agrees_with_the_definition_when_served(benchmarks, tmp_path):
    workloads, engines = benchmarks("workloads"), benchmarks("engines")
    for i, case in enumerate(
        [workloads.model(MODEL, 2, 32), workloads.layer(16, 16, 6, 3, 1, 4, times=2)]
    ):
        workloads.write(case, tmp_path / str(i))
        y, wanted = engines.ours(tmp_path / str(i), 1)(), workloads.exact(case, slice(None))
        wanted = wanted.transpose(0, 3, 1, 2) if wanted.ndim == 4 else wanted
        assert y.shape == wanted.shape
        assert np.abs(y - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_ours_agrees_in_fewer_bits(benchmarks, tmp_path, precision):
    """By the rule of `peers.check`: an error of at most three times that of the definition."""
    workloads, engines, peers = map(benchmarks, ("workloads", "engines", "peers"))
    case, folder = workloads.model(MODEL, 2, 32, precision), tmp_path / "case"
    workloads.write(case, folder)
    row = {"engines": {name: {} for name in engines.OWN}}
    for name in engines.OWN:
        y = engines.ENGINES[name][1](folder, 1)()
        assert y.shape == (2, 10)
        np.save(folder / f"{name}.npy", y)
    peers.check(case, folder, row)
    ours, wide = (row["engines"][name] for name in engines.OWN)
    assert ours["agrees"]
    assert wide["error_of_logits"] < 1e-5 < ours["error_of_logits"] < 0.3
    assert (folder / "graph.onnx").exists() == (precision == "int8")
    with pytest.raises(SystemExit):
        peers.arguments(["--precision", "int8", "--engine", "pytorch eager"])
    assert "onnx runtime" not in peers.arguments(["--precision", "bfloat16"]).engine


def test_crops_are_the_same_ones_in_every_run(benchmarks, tmp_path):
    agreement = benchmarks("agreement")
    files = agreement.photographs([str(Path(__file__).parent / "data" / "chelsea.jpg")])
    first, again, other = (
        [np.asarray(crop) for crop in agreement.crops(files, 6, seed)] for seed in (0, 0, 1)
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(a.shape == b.shape for a, b in zip(first, other, strict=True))
    assert len({crop.tobytes() for crop in first}) == 6
    wide = np.eye(4, dtype=np.float32)
    narrow = np.where(np.arange(4)[:, None] == 2, wide[::-1], wide)
    found = agreement.agreement(wide, narrow)
    assert (found["same"], found["count"], found["error_of_logits"]) == (3, 4, 1.0)
    assert agreement.margin(wide) == {
        "margin": pytest.approx(1 / wide[0].std()),
        "first_classes": 4,
    }
    Image.new("RGB", (1, 1)).save(tmp_path / "small.png")
    with pytest.raises(ValueError, match=r"small\.png has no more crops"):
        list(agreement.crops([tmp_path / "small.png"], 3, 0))


@pytest.mark.slow  # a process that compiles all kernels anew
def test_engines_in_turn(benchmarks, capsys, tmp_path):
    peers = benchmarks("peers")
    file = tmp_path / "results.json"
    options = [
        "--model",
        MODEL,
        "--batch",
        "1",
        "--size",
        "32",
        "--no-layers",
        "--engine",
        "tinyresnext",
        "--threads",
        "1",
    ]
    assert peers.main([*options, "--rounds", "2", "--seconds", "0.001", "--json", str(file)]) == 0
    report = json.loads(file.read_text("utf-8"))
    found = report["cases"][0]["engines"]["tinyresnext"]
    assert found["agrees"]
    assert found["runs"] >= 2
    assert "median" in capsys.readouterr().out


def test_ratios_are_of_the_fastest_that_agrees(benchmarks):
    engines = REPORT["cases"][0]["engines"]
    wanted = {"fastest_peer": "openvino", "ratio": 0.5, "ratio_to_eager": 0.251}
    assert benchmarks("peers").ratios(engines) == pytest.approx(wanted)
    assert benchmarks("peers").ratios({"openvino": engines["openvino"]}) == {}
    wide = {"tinyresnext float32": {"agrees": True, "median_ms": 5.02}}
    found = benchmarks("peers").ratios(engines | wide)
    assert found == pytest.approx(wanted | {"ratio_to_float32": 2.0})


@pytest.mark.parametrize(("system", "unit"), [("darwin", 1), ("freebsd", 2**10)])
def test_the_peak_of_memory_is_in_bytes_on_macos_and_in_kib_elsewhere(
    benchmarks, monkeypatch, system, unit
):
    pytest.importorskip("resource")
    folder, usage = benchmarks("folder"), SimpleNamespace(ru_maxrss=64 * 2**20 // unit)
    monkeypatch.setattr(folder, "Path", lambda name: Path("/missing") / name.strip("/"))
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(folder.resource, "getrusage", lambda who: usage)
    assert folder.resident() == 64
