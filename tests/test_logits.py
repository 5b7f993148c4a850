"""Logits and stages against those of other systems' own code, within 3 times PyTorch's error.

The systems are torchvision, timm, mmpretrain, Cadene and prlz77, each with its own names and
wrapping.
"""

from __future__ import annotations

import cases
import foreign_files
import key_schemes
import numpy as np
import pytest
from on_device import by_fibers

import tinyresnext
from tinyresnext import Spec
from tinyresnext.checkpoints.infer import epsilon, infer
from tinyresnext.checkpoints.names import schemes as names
from tinyresnext.images.preprocess import Preprocess
from tinyresnext.inference.model import Model
from tinyresnext.network import plan, resnext
from tinyresnext.ops import backend, cuda, reference
from tinyresnext.store import store

SMALL = [
    f"torchvision.resnext14_{paths}" for paths in ("1x64d", "2x40d", "4x24d", "8x14d", "32x4d")
]
LARGE = ["torchvision.resnext50_32x4d", "torchvision.resnext50_32x4d-odd", "timm.resnext50d_32x4d"]
FULL_SIZE = [
    *LARGE,
    "timm.resnext50_32x4d",
    "torchvision.resnext101_32x8d",
    "mmpretrain.resnext50-32x4d_8xb32_in1k",
    "mmpretrain.resnext152-32x4d_8xb32_in1k",
    "cadene.resnext101_32x4d",
    "prlz77.cifar10_resnext29_8x64d_w4",
    "prlz77.cifar100_resnext20_4x16d_w2",
]


def model_of(case: cases.Case, ops) -> Model:
    """Return the case as a model; its architecture is inferred from names and shapes alone."""
    named = names.recognise(case.tensors)
    params = named.tensors(case.tensors)
    spec = infer({key: value.shape for key, value in params.items()}, epsilon(named.scheme))
    return Model(spec, params, Preprocess(), tuple(map(str, range(spec.classes))), {}, ops)


def check(model: Model, case: cases.Case) -> None:
    """Compare logits and stage means, computed eagerly and by a plan.

    NumPy takes seconds for a large network. There the means are those of the eager pass; a plan of
    stages makes the calls of the whole plan, and is compared on small networks and other backends.
    """
    bound = 3 * case.torch_float32_error
    eager = model.trace(case.x)
    assert cases.relative_error(eager["fc"], case.logits) <= bound
    assert cases.relative_error(model(case.x), case.logits) <= bound
    if model.ops is reference and model.spec.depth > 20:
        features = {name: last_of(eager, name) for name in case.stages}
    else:
        features = model.features(case.x)
    for name, wanted in case.stages.items():
        assert (
            cases.relative_error(features[name][0].mean((0, 1), dtype=np.float64), wanted) <= bound
        ), name


def last_of(values: dict[str, np.ndarray], stage: str) -> np.ndarray:
    """Return the last value of a stage, such as ``layer1.2.relu_2`` of ``layer1``."""
    return [y for name, y in values.items() if name == stage or name.startswith(f"{stage}.")][-1]


@pytest.mark.parametrize("name", SMALL + LARGE)
def test_logits(name, ops):
    case = cases.load(name)
    check(model_of(case, ops), case)


def test_cifar_network_of_widen_factor_2(ops):
    case = cases.load("prlz77.cifar100_resnext20_4x16d_w2")
    model = model_of(case, ops)
    assert model.spec == tinyresnext.cifar(20, 4, 16, widen_factor=2, classes=100)
    check(model, case)


@pytest.mark.parametrize(
    "write",
    [
        key_schemes.torch7_flat,
        key_schemes.torch7_nested,
        key_schemes.torch7_paths,
        key_schemes.cadene,
        key_schemes.keras,
    ],
)
def test_other_schemes_of_the_same_weights(write):
    """Keras' epsilon, 1e-8 larger, changes a value by less than a fifth of a float32 rounding."""
    case = cases.load("torchvision.resnext14_8x14d")
    written = write(case.tensors, Spec((1, 1, 1, 1), 8, 14, 10))
    check(model_of(case._replace(tensors=written), reference), case)


@pytest.mark.parametrize("legacy", [True, False], ids=["legacy", "zip"])
@pytest.mark.parametrize("name", SMALL)
def test_checkpoint_converts_and_gives_the_logits(name, legacy, tmp_path):
    case = cases.load(name)
    (tmp_path / "in.pth").write_bytes(cases.checkpoint(case.tensors, legacy=legacy))
    store.write(tmp_path / "out.h5", cases.read_checkpoint(tmp_path / "in.pth").stored)
    assert (
        cases.relative_error(tinyresnext.load(tmp_path / "out.h5")(case.x), case.logits)
        <= 3 * case.torch_float32_error
    )


OTHER_CONTAINERS = {
    "torch7-flat": (key_schemes.torch7_flat, foreign_files.torch7_tree),
    "torch7-nested": (key_schemes.torch7_nested, foreign_files.torch7_tree),
    "torch7-paths": (key_schemes.torch7_paths, foreign_files.torch7_tree),
    "keras": (
        key_schemes.keras,
        lambda tensors: foreign_files.keras_file(foreign_files.keras_layers(tensors)),
    ),
    "safetensors": (key_schemes.cadene, foreign_files.safe_file),
    "npz": (key_schemes.prlz77, foreign_files.npz_file),
}


@pytest.mark.parametrize(("write", "pack"), OTHER_CONTAINERS.values(), ids=OTHER_CONTAINERS)
def test_other_containers_of_the_same_weights(write, pack, tmp_path):
    """Compare the logits of the model in the file with the stored ones."""
    case = cases.load("torchvision.resnext14_8x14d")
    (tmp_path / "in").write_bytes(pack(write(case.tensors, Spec((1, 1, 1, 1), 8, 14, 10))))
    stored = cases.read_checkpoint(tmp_path / "in").stored
    check(Model(*stored, reference), case)


@pytest.mark.parametrize("name", FULL_SIZE)
def test_full_size_checkpoint(name, reference_dir, tmp_path):
    case = cases.load(name, reference_dir / "reference")
    legacy, zipped = tmp_path / "legacy.pth", tmp_path / "zip.pth"
    legacy.write_bytes(cases.wrapped(case, legacy=True))
    zipped.write_bytes(cases.wrapped(case, legacy=False))
    stored = cases.read_checkpoint(legacy).stored
    store.write(tmp_path / "legacy.h5", stored)
    store.write(tmp_path / "zip.h5", cases.read_checkpoint(zipped).stored)
    ours, theirs = store.digests(tmp_path / "legacy.h5"), store.digests(tmp_path / "zip.h5")
    assert (ours.model, ours.tensors) == (theirs.model, theirs.tensors)
    for device in ("reference", "cpu"):
        check(tinyresnext.load(tmp_path / "legacy.h5", device), case)


@by_fibers
@pytest.mark.parametrize("order", ["ascending", "descending"])
def test_the_whole_network_of_the_paper_on_an_emulated_gpu(order, reference_dir):
    """All kernels of ResNeXt-50 at 224 px, compiled for a GPU, in two orders of their threads."""
    fibers = pytest.importorskip("tinyresnext.emulator.fibers")
    case = cases.load("torchvision.resnext50_32x4d", reference_dir / "reference")
    machine = fibers.FiberMachine(order, copies="late" if order == "ascending" else "early")
    found = model_of(case, cuda.backend(machine))(case.x)
    assert cases.relative_error(found, case.logits) <= 3 * case.torch_float32_error


def test_no_full_size_case_is_left_out(reference_dir):
    assert {path.stem for path in (reference_dir / "reference").glob("*.json")} == {
        *SMALL,
        *FULL_SIZE,
    }


@pytest.mark.parametrize("form", [resnext.concatenated, resnext.summed], ids=["3b", "3a"])
@pytest.mark.parametrize("name", SMALL)
def test_figure_3_forms_are_equal(name, form):
    """In float64 the three forms differ by rounding only, which stays below 1e-12.

    A value has 2,000 products and the network 5 blocks.
    """
    case = cases.load(name)
    model = model_of(case, reference)
    params = {key: value.astype(np.float64) for key, value in model.params.items()}
    grouped = resnext.forward(params, model.spec, case.x.astype(np.float64), reference)
    other = resnext.forward(params, model.spec, case.x.astype(np.float64), reference, block=form)
    assert cases.relative_error(other, grouped) < 1e-12
    assert (
        cases.relative_error(grouped, case.logits) < 2.0**-23
    )  # the file's logits are rounded to float32


@pytest.mark.parametrize("form", [resnext.concatenated, resnext.summed], ids=["3b", "3a"])
def test_figure_3_forms_are_near_in_bfloat16(form):
    """Each value is rounded to 8 bits, and the sum of the paths after each of them in form (a)."""
    case = cases.load("torchvision.resnext14_32x4d")
    model, ops = model_of(case, reference), backend("reference", "bfloat16")
    x = ops.upload(case.x, out=ops.empty(case.x.shape, "bfloat16"))
    grouped, other = (
        ops.download(resnext.forward(model.params, model.spec, x, ops, block=block))
        for block in (resnext.grouped, form)
    )
    assert cases.relative_error(other.astype(np.float64), grouped) < 0.1


def test_a_plan_is_float64_when_its_weights_are(tmp_path):
    case = cases.load(SMALL[-1])
    model = model_of(case, reference)
    params = {key: value.astype(np.float64) for key, value in model.params.items()}
    made = plan.Plan(
        plan.program(params, model.spec, reference), case.x.shape, reference, np.float64
    )
    assert cases.relative_error(made(case.x.astype(np.float64)), case.logits) < 2.0**-23
