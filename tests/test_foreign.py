"""Checkpoints of other systems than PyTorch: every tensor, bit for bit, under its own name."""

from __future__ import annotations

import hashlib
import io
import lzma
import re
import struct
import tracemalloc
from dataclasses import replace
from pathlib import Path

import cases
import foreign_files as ff
import h5py
import key_schemes
import numpy as np
import pytest
from torch_files import Entry, Zip, legacy_file, numbers, small_state, zip_file

from tinyresnext.checkpoints.export import write_npz, write_safetensors
from tinyresnext.checkpoints.readers import container
from tinyresnext.errors import FormatError, IntegrityError, ShapeError, UsageError
from tinyresnext.network.spec import Spec, variant

ARRAYS = {
    "conv1.weight": numbers((4, 3, 3, 3)),
    "bn1.weight": numbers(4, 1, np.float16),
    "bn1.running_var": numbers(4, 2, np.float64),
    "bn1.num_batches_tracked": np.array(7, np.int64),
    "fc.weight": numbers((5, 4), 3),
    "flags": np.array([True, False]),
    "small": np.arange(-3, 3, dtype=np.int8),
    "none": np.zeros((0, 3), np.float32),
}


@pytest.fixture
def read(tmp_path):
    """Write bytes under a name that says nothing, and read them."""
    path = tmp_path / "weights"

    def go(data, **options):
        path.write_bytes(data)
        return container.read(path, **options)

    return go


def same(found, expected):
    """Same names in the same order, shapes and bits, floats as float32."""
    assert list(found) == list(expected)
    for name, array in expected.items():
        wanted = np.asarray(array)
        wanted = wanted.astype(np.float32) if wanted.dtype.kind == "f" else wanted
        assert found[name].dtype == wanted.dtype, name
        assert found[name].shape == wanted.shape, name
        assert found[name].tobytes() == wanted.tobytes(), name
        assert found[name].flags.c_contiguous
        assert found[name].flags.writeable


# -- telling them apart


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (legacy_file(small_state()), "legacy"),
        (zip_file(small_state()), "zip"),
        (ff.safe_file(ARRAYS), "safetensors"),
        (ff.npz_file(ARRAYS), "npz"),
        (ff.npz_file(ARRAYS, squeeze=True), "npz"),
        (ff.torch7_file(), "torch7"),
        (ff.keras_file(), "keras"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_told_by_content(read, data, expected):
    found = read(data)
    assert found.container == expected
    assert found.sha256 == hashlib.sha256(data).hexdigest()
    assert found.tensors
    if expected not in ("legacy", "zip"):
        with pytest.raises(UsageError, match="averaged"):
            read(data, ema=True)


@pytest.mark.parametrize(
    "data", [b"", b"\x80", b"4\n1\n3\nV 1\n", b"<html>  {}", b"\x89HDF", bytes(600), b"weights"]
)
def test_nothing_of_these(read, data):
    with pytest.raises(FormatError):
        read(data)


@pytest.mark.parametrize(
    "data", [ff.safe_file(ARRAYS), ff.npz_file(ARRAYS), ff.torch7_file(), ff.keras_file()]
)
def test_names_and_shapes_are_judged_before_numbers(read, data):
    def no(shapes, carried, graph):
        assert all(type(n) is int for shape in shapes.values() for n in shape)
        raise ShapeError("other weights")

    with pytest.raises(ShapeError, match="weights: other weights"):
        read(data, check=no)


# -- safetensors and npz


@pytest.mark.parametrize(
    "data", [ff.safe_file(ARRAYS), ff.npz_file(ARRAYS), ff.npz_file(ARRAYS, squeeze=True)]
)
def test_arrays(read, data):
    same(read(data).tensors, ARRAYS)


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_npz_of_numpy(tmp_path, write):
    path = tmp_path / "a.npz"
    arrays = ARRAYS | {
        "turned": np.asfortranarray(numbers((3, 4, 5))),
        "one": numbers(1),
        "large": numbers((700, 800)),
    }
    write(path, **arrays)
    same(container.read(path).tensors, arrays)


@pytest.mark.parametrize("signature", [True, False])
def test_npz_of_a_stream(tmp_path, signature):
    """Sizes stand behind the data then, and the local header has zeros in 64-bit fields."""
    out = Stream()
    np.savez(out, x=numbers((3, 4)))
    data = out.getvalue()
    if not signature:  # which may be left out
        end = struct.unpack_from("<I", data, len(data) - 6)[0]
        data = data.replace(b"PK\7\x08", b"")[:-6] + struct.pack("<I", end - 4) + data[-2:]
    (tmp_path / "a.npz").write_bytes(data)
    same(container.read(tmp_path / "a.npz").tensors, {"x": numbers((3, 4))})
    (tmp_path / "a.npz").write_bytes(data.replace(b"PK\1\2", b"\0PK\1\2"))
    with pytest.raises(FormatError):
        container.read(tmp_path / "a.npz")


class Stream(io.BytesIO):
    """A stream that only goes on, like a pipe."""

    def seek(self, *_):
        raise OSError

    tell = seek


def test_what_we_export(tmp_path):
    arrays = {name: array for name, array in ARRAYS.items() if array.dtype != np.float64}
    for write, name in ((write_safetensors, "a.safetensors"), (write_npz, "a.npz")):
        write(tmp_path / name, arrays)
        found = container.read(tmp_path / name).tensors
        same({key: found[key] for key in arrays}, arrays)


def test_safetensors_of_its_library(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    library.save_file(ARRAYS, tmp_path / "a", metadata={"format": "pt"})
    found = container.read(tmp_path / "a").tensors
    same({key: found[key] for key in ARRAYS}, ARRAYS)
    (tmp_path / "a").write_bytes(ff.safe_file(ARRAYS))
    assert {name: array.tobytes() for name, array in library.load_file(tmp_path / "a").items()} == {
        name: array.tobytes() for name, array in ARRAYS.items()
    }


def test_every_half_and_bfloat16_widens_exactly(read):
    codes = np.arange(1 << 16, dtype=np.uint16)
    head = {"half": {"dtype": "F16", "shape": [1 << 16], "data_offsets": [0, 1 << 17]}}
    head["brain"] = {"dtype": "BF16", "shape": [256, 256], "data_offsets": [1 << 17, 1 << 18]}
    found = read(ff.safetensors(head, codes.tobytes() * 2)).tensors
    half = np.array([struct.unpack("<e", struct.pack("<H", code))[0] for code in codes])
    brain = np.array([struct.unpack("<f", struct.pack("<I", int(code) << 16))[0] for code in codes])
    for row, expected in ((found["half"], half), (found["brain"].ravel(), brain)):
        known = ~np.isnan(expected)
        np.testing.assert_array_equal(row[known], expected[known])
        assert np.isnan(row[~known]).all()


def test_prefixes_are_removed(read):
    wrapped = {f"module.{name}": array for name, array in ARRAYS.items()}
    for build in (ff.safe_file, ff.npz_file):
        found = read(build(wrapped))
        same(found.tensors, ARRAYS)
        assert found.prefix == "module."


def test_deflated_over_many_pieces(read):
    """Members much longer than what is read at once, and one whose compressed form is."""
    arrays = {
        "zeros": np.zeros(1 << 19, np.float32),
        "noise": numbers((3, 500_001), 1),
        "odd": np.ones(1_100_003, np.uint8),
    }
    same(read(ff.npz_file(arrays, squeeze=True)).tensors, arrays)


# -- Torch7


def test_torch7(read):
    same(read(ff.torch7_file()).tensors, ff.torch7_state())


def test_torch7_says_the_epsilon(tmp_path):
    spec = Spec((1, 1), 4, 8, 10)
    tensors = key_schemes.torch7_flat(cases.weights(spec), spec)
    path = tmp_path / "w.t7"
    for eps, found in (((), 1e-5), ((1e-3,), 1e-3)):
        path.write_bytes(ff.torch7_tree(tensors, eps))
        for arch in (None, replace(spec, eps=found)):
            stored, notes = cases.read_checkpoint(path, arch=arch)
            assert stored.spec.eps == found
            assert ("found: batch norm epsilon 0.001" in notes) == (eps != ())
            assert any("assumed" in note and "epsilon" in note for note in notes) == (eps == ())
    with pytest.raises(ShapeError, match=r"epsilon 0\.001, and those of the architecture 1e-05"):
        cases.read_checkpoint(path, arch=spec)
    for eps, says in (
        ((1e-3, 1e-5), r"several epsilons: 0\.001 \(.*\), 1e-05"),
        ((0.0,), "0 and 1"),
    ):
        path.write_bytes(ff.torch7_tree(tensors, eps))
        with pytest.raises(FormatError, match=says):
            cases.read_checkpoint(path)


class Sliding:
    """What Torch7 writes beside the weights of a network: how its convolutions and pooling slide.

    ``changed`` gives other fields by torchvision's name of a module, or by the class of another.
    """

    def __init__(self, spec, write, changed=()):
        self.spec, self.changed = spec, dict(changed)
        tensors = cases.weights(spec)
        written = write({name: np.array([name] * spec.cardinality) for name in tensors}, spec)
        self.names = {at.rpartition(".")[0]: str(names[0]) for at, names in written.items()}
        self.data = ff.torch7_tree(write(tensors, spec), (1e-5,), self.fields)

    def fields(self, path, kind):
        name = self.names.get(path, kind).removesuffix(".weight")
        found = {}
        if kind == "nn.SpatialMaxPooling":
            found = dict.fromkeys(("kW", "kH"), 3.0) | {"dW": 2.0, "dH": 2.0, "ceil_mode": False}
            found |= {"padW": 1.0, "padH": 1.0}
        elif kind == "cudnn.SpatialConvolution":
            size = 1 if re.search(r"conv[13]$|downsample", name) and "layer" in name else 3
            size = 7 if name == "conv1" and self.spec.stem == "imagenet" else size
            strides = re.fullmatch(r"layer[2-9]\.0\.(conv2|downsample\.0)", name) or size == 7
            found = dict.fromkeys(("kW", "kH"), float(size)) | {"dW": 1.0, "dH": 1.0}
            found |= {"dW": 2.0, "dH": 2.0} if strides else {}
            found |= {"padW": float(size // 2), "padH": float(size // 2)} if size > 1 else {}
        found |= self.changed.get(name, {})
        return {key: value if key == "" else lua_value(value) for key, value in found.items()}


def lua_value(value):
    if isinstance(value, str):
        return ff.text(value)
    return ff.integer(5) + ff.integer(int(value)) if isinstance(value, bool) else ff.number(value)


BRANCHES = [key_schemes.torch7_flat, key_schemes.torch7_nested, key_schemes.torch7_paths]


@pytest.mark.parametrize("write", BRANCHES)
@pytest.mark.parametrize("spec", [Spec((1, 1), 4, 8, 10), Spec((1, 2), 4, 8, 3, stem="cifar")])
def test_torch7_says_how_it_slides(tmp_path, write, spec):
    path = tmp_path / "w.t7"
    path.write_bytes(Sliding(spec, write).data)
    stored, notes = cases.read_checkpoint(path)
    assert stored.spec == spec
    assert any(note.endswith("how convolutions and max poolings slide") for note in notes)
    assert "assumed: ReLU, and a mean over all positions" in notes
    assert not any("convolutions stride" in note for note in notes)
    other = {"layer2.0.conv2": {"dW": 1.0, "dH": 1.0}}
    path.write_bytes(Sliding(spec, write, other).data)
    with pytest.raises(ShapeError, match=r"size 3 x 3, stride 1 x 1.*expected .* stride 2 x 2"):
        cases.read_checkpoint(path)


OTHER_MODULES = {
    "a stride": ({"layer1.0.conv1": {"dW": 2.0, "dH": 2.0}}, ShapeError, "stride 2 x 2"),
    "a stride along the width": ({"layer2.0.conv2": {"dW": 1.0}}, ShapeError, "stride 2 x 1"),
    "a padding": ({"conv1": {"padH": 0.0, "padW": 0.0}}, ShapeError, "padding 0 x 0.*3 x 3"),
    "an older padding": ({"layer1.0.conv3": {"padding": 1.0}}, ShapeError, "padding 1 x 1"),
    "a dilation": (
        {"layer2.0.conv2": {"dilationH": 2.0, "dilationW": 2.0}}, ShapeError, "--output-stride",
    ),
    "a pooling": ({"nn.SpatialMaxPooling": {"padH": 0.0}}, ShapeError, "max pooling 3 has"),
    "another rounding": ({"nn.SpatialMaxPooling": {"ceil_mode": True}}, ShapeError, "ceil_mode"),
    "no pooling": ({"nn.SpatialMaxPooling": {"": "nn.Identity"}}, ShapeError, "has 0 max"),
    "a stride of text": ({"conv1": {"dW": "2"}}, FormatError, "dW of 0 .* is no number"),
    "an activation": ({"nn.ReLU": {"": "nn.Tanh"}}, FormatError, "of the class 'nn.Tanh'"),
    "another layer": ({"conv1": {"": "nn.SpatialFullConvolution"}}, FormatError, "FullConvolution"),
    "a scale": (
        {"nn.ReLU": {"": "nn.MulConstant", "constant_scalar": 0.1}}, FormatError, "than 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER_MODULES)
def test_torch7_of_another_network(tmp_path, name):
    """It has the tensors of a ResNeXt, and says itself that it computes something else."""
    changed, error, says = OTHER_MODULES[name]
    data = Sliding(Spec((1, 1), 4, 8, 10), key_schemes.torch7_flat, changed).data
    (tmp_path / "w.t7").write_bytes(data)
    with pytest.raises(error, match=says):
        cases.read_checkpoint(tmp_path / "w.t7")


def test_torch7_of_other_number_types(read):
    for dtype in (np.float64, np.float16):
        state = {name: array.astype(dtype) for name, array in ff.torch7_state().items()}
        same(read(ff.torch7_file(state)).tensors, state)
    for kind in ("Cuda", "Float"):
        lua = ff.Lua()
        made = lua.module(
            "nn.Linear", {"weight": lua.tensor(numbers(6), kind=f"torch.{kind}Tensor")}
        )
        same(read(made).tensors, {"weight": numbers(6)})


def test_torch7_in_a_table_and_in_replicas(read):
    def plain(lua, network):
        return lua.table(
            (ff.text("epoch"), ff.number(3)),
            (ff.text("model"), lua.module("nn.DataParallelTable", {}, [network])),
        )

    found = read(ff.torch7_file(root=plain))
    same(found.tensors, ff.torch7_state())
    assert found.wrapper == "model"


def test_torch7_views_of_one_storage(read):
    """What getParameters leaves: all tensors in one storage, written with the first."""
    row = numbers(40)
    lua = ff.Lua()
    first = lua.tensor(row, size=(2, 3), stride=(3, 1), offset=5)
    storage = ff.again(4, lua.last)
    turned = lua.tensor(row, size=(4, 3), stride=(1, 4), offset=11, storage=storage)
    wide = lua.tensor(row, size=(2, 1, 2), stride=(20, 7, 1), storage=storage)
    spread = lua.tensor(row, size=(3,), stride=(0,), offset=40, storage=storage)
    fields = {"weight": first, "bias": turned, "running_mean": wide, "running_var": spread}
    found = read(lua.module("nn.Linear", fields)).tensors
    expected = {"weight": row[4:10].reshape(2, 3), "bias": row[10:22].reshape(3, 4).T}
    expected |= {"running_mean": row[[0, 1, 20, 21]].reshape(2, 1, 2), "running_var": row[[39] * 3]}
    same(found, expected)


def test_torch7_against_torchfile(tmp_path, read):
    """The package reads Torch7's files in Python; its tree of objects has the same tensors."""
    torchfile = pytest.importorskip("torchfile")
    (tmp_path / "a.t7").write_bytes(ff.torch7_file())
    top = torchfile.load(str(tmp_path / "a.t7"), force_8bytes_long=False)
    found = {}

    def walk(module, path):
        for name in (b"weight", b"bias", b"running_mean", b"running_var"):
            if isinstance(module._obj.get(name), np.ndarray):
                found[".".join([*path, name.decode()])] = module._obj[name]
        for i, child in enumerate(module._obj.get(b"modules") or []):
            walk(child, [*path, str(i)])

    walk(top, [])
    assert len(found) == 8
    same(read(ff.torch7_file()).tensors, found)


# -- Keras


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("top", ["", "model_weights"])
def test_keras(read, fixed, top):
    expected = {
        name: array for weights in ff.keras_state().values() for name, array in weights.items()
    }
    found = read(ff.keras_file(fixed=fixed, top=top))
    same(found.tensors, expected)
    assert found.wrapper == top


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_keras_of_other_precision(read, dtype):
    state = {
        layer: {n: a.astype(dtype) for n, a in weights.items()}
        for layer, weights in ff.keras_state().items()
    }
    same(
        read(ff.keras_file(state)).tensors,
        {n: a for weights in state.values() for n, a in weights.items()},
    )


@pytest.mark.parametrize("fixed", [True, False])
def test_keras_with_many_layers(read, fixed):
    """Read B-trees of several levels, continued headers, several heaps, a list in parts."""
    state = {
        f"conv{i}_block{i % 7}_{'x' * (i % 30)}": {f"conv{i}/kernel:0": numbers((2, i % 5), i)}
        for i in range(400)
    }
    expected = {name: array for weights in state.values() for name, array in weights.items()}
    same(read(ff.keras_file(state, fixed=fixed)).tensors, expected)

    def cut(group):
        names = list(group.attrs["layer_names"])
        del group.attrs["layer_names"]
        for i in range(4):
            group.attrs[f"layer_names{i}"] = np.array(names[100 * i : 100 * i + 100], "S")

    same(read(ff.keras_file(state, change=cut)).tensors, expected)


@pytest.mark.parametrize("top", ["", "model_weights"])
@pytest.mark.parametrize("where", ["/", "model_weights"])
@pytest.mark.parametrize("value", [b"theano", "theano", [b"tensorflow"], 7])
def test_keras_under_another_backend(read, top, where, value):
    """Theano's convolutions turn their kernels, so the same numbers are another network."""

    def change(group):
        (group.file["/"] if where == "/" else group).attrs["backend"] = value

    with pytest.raises(FormatError, match=r"backend Theano|backend of .* is (a list|not a list)"):
        read(ff.keras_file(top=top, change=change))


@pytest.mark.parametrize("value", [b"jax", "tensorflow", "mxnet", None])
def test_keras_under_a_usual_backend(read, value):
    def change(group):
        del group.attrs["backend"]
        if value is not None:
            group.attrs["backend"] = value

    assert len(read(ff.keras_file(change=change)).tensors) == 8


def test_keras_of_its_time(read):
    """A file that Keras 2.2.4 wrote with h5py 2.9, whose attributes have a flag of then."""
    packed = (Path(__file__).parent / "data" / "keras-2.2.4.h5.xz").read_bytes()
    found = read(lzma.decompress(packed))
    assert len(found.shapes) == 214
    assert found.shapes["conv0/kernel:0"] == (7, 7, 3, 64)
    assert found.shapes["stage1_unit1_conv1/kernel:0"] == (1, 1, 64, 128)
    assert found.shapes["fc1/bias:0"] == (10,)


@pytest.mark.parametrize(
    ("name", "order"),
    {
        "keras-2.1.6": [
            "conv1_conv/kernel:0",
            *(f"conv1_bn/{part}:0" for part in ("gamma", "beta", "moving_mean", "moving_variance")),
            *(
                f"{layer}/{part}:0"
                for layer in ("conv2d_1", "probs")
                for part in ("kernel", "bias")
            ),
        ],
        "h5py-2.6.0": [
            "conv1_conv/kernel:0",
            *(f"probs/{part}:0" for part in ("kernel", "bias")),
            *(f"block{i}_conv/kernel:0" for i in range(20)),
        ],
    }.items(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_keras_values_of_files_of_the_time(read, name, order):
    """Eighths that were given to the weights in this order."""
    path = Path(__file__).parent / "data" / "old-keras" / f"{name}.h5.xz"
    found = read(lzma.decompress(path.read_bytes())).tensors
    assert sorted(found) == sorted(order)
    for i, weight in enumerate(order):
        values = (np.arange(found[weight].size) * 7 + i) % 61 / 8
        np.testing.assert_array_equal(found[weight].reshape(-1), values)


def test_keras_attributes_that_must_not_be_shared(read):
    """HDF5 before 1.12.2 set this flag for each; any other that is not 0 or 1 is refused."""
    attribute = re.compile(rb"(\x0c\x00.\x00)\x00(\x00{3}\x01\x00)", re.DOTALL)
    data = ff.keras_file()
    old, count = attribute.subn(lambda found: found[1] + b"\4" + found[2], data)
    assert count > 4
    expected = read(data).tensors
    same(read(old).tensors, expected)
    with pytest.raises(FormatError, match="shared or repeated"):
        read(attribute.sub(lambda found: found[1] + b"\2" + found[2], data))


def test_keras_with_long_names(read):
    """The heap of the root's names has more than 64 KiB."""

    def more(group):
        for i in range(1500):
            group.create_group(f"layer{i:04}_{'x' * 60}")

    assert len(read(ff.keras_file(change=more)).tensors) == 8


def test_keras_names_of_the_second_model_of_a_session(read):
    state = {
        layer: {name.replace(layer, f"{layer}_1", 1): array for name, array in weights.items()}
        for layer, weights in ff.keras_state().items()
    }
    expected = [name for weights in ff.keras_state().values() for name in weights]
    assert list(read(ff.keras_file(state)).tensors) == expected


def test_keras_with_dates_and_an_optimiser(read):
    def change(group):
        group.attrs["training_config"] = "{}"
        group.create_group("optimizer_weights").create_dataset("iteration", data=3)
        group["act"].create_dataset("more", data=numbers(3), track_times=True)

    state = ff.keras_state()
    state["act"] = {"act/dated:0": numbers(4)}
    found = read(
        ff.keras_file(
            state, change=lambda g: (change(g), g["act"]["act"].create_dataset("x", data=1.0))
        )
    )
    same(found.tensors, {n: a for weights in state.values() for n, a in weights.items()})


def test_other_hdf5(tmp_path):
    with h5py.File(tmp_path / "a", "w") as file:
        file["x"] = 1.0
    with pytest.raises(FormatError, match="list of layers"):
        container.read(tmp_path / "a")
    (tmp_path / "b").write_bytes(ff.keras_file(libver="latest"))
    with pytest.raises(FormatError, match="libver='earliest'"):
        container.read(tmp_path / "b")


# -- numbers and memory


@pytest.mark.parametrize("build", [ff.safe_file, ff.npz_file])
def test_doubles_beyond_float32(read, build):
    with pytest.raises(IntegrityError, match="float32"):
        read(build({"w": np.array([1.0, 1e300])}))
    assert np.isinf(read(build({"w": np.array([1.0, np.inf])})).tensors["w"][1])


def sparse(path, form, numel):
    """A file of mostly nothing: two tensors that together have that many float32, as holes."""
    first, last = numel // 4, numel - numel // 4
    shapes = {"a.weight": [first], "b.weight": [2, last // 2]}
    if form == "safetensors":
        head, at = {}, 0
        for name, shape in shapes.items():
            size = 4 * int(np.prod(shape))
            head[name], at = (
                {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]},
                at + size,
            )
        path.write_bytes(ff.safetensors(head, b""))
        with path.open("ab") as file:
            file.truncate(file.tell() + at)
        return
    with path.open("wb") as file:  # a Torch7 module whose fields are the two tensors
        body = (
            ff.integer(4)
            + ff.integer(1)
            + ff.lua_text("V 1")
            + ff.lua_text("nn.Linear")
            + ff.integer(3)
            + ff.integer(2)
            + ff.integer(2)
        )
        file.write(body)
        for i, (name, shape) in enumerate(zip(("weight", "bias"), shapes.values(), strict=True)):
            size, n = int(np.prod(shape)), len(shape)
            stride = [int(np.prod(shape[axis + 1 :])) for axis in range(n)]
            file.write(
                ff.text(name)
                + ff.integer(4)
                + ff.integer(3 + 2 * i)
                + ff.lua_text("V 1")
                + ff.lua_text("torch.FloatTensor")
            )
            file.write(
                ff.integer(n) + ff.longs(*shape, *stride, 1) + ff.integer(4) + ff.integer(4 + 2 * i)
            )
            file.write(ff.lua_text("V 1") + ff.lua_text("torch.FloatStorage") + ff.longs(size))
            file.truncate(file.tell() + 4 * size)
            file.seek(0, 2)


@pytest.mark.parametrize("form", ["safetensors", "torch7"])
@pytest.mark.parametrize(
    "numel",
    [
        pytest.param(20_000_000, id="20M"),
        pytest.param(800_000_000, marks=pytest.mark.slow, id="800M"),
    ],
)
def test_read_tensor_by_tensor(tmp_path, form, numel):
    """What is in memory at any time: the result, and some mebibytes."""
    sparse(tmp_path / "w", form, numel)
    assert (tmp_path / "w").stat().st_size > 4 * numel
    tracemalloc.start()
    try:
        found = container.read(tmp_path / "w")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(array.size for array in found.tensors.values()) == numel
    assert peak < 4 * numel + (16 << 20)


@pytest.mark.parametrize("fault", ["double", "truth"])
def test_refused_for_its_last_number(tmp_path, fault):
    """Widened halves would take twice the file; the last tensor is looked at before that."""
    count, path = 60_000_000, tmp_path / "w"
    kind, tail = ("F64", struct.pack("<d", 1e300)) if fault == "double" else ("BOOL", b"\2")
    head = {"a": {"dtype": "F16", "shape": [count], "data_offsets": [0, 2 * count]}}
    head["z"] = {"dtype": kind, "shape": [1], "data_offsets": [2 * count, 2 * count + len(tail)]}
    path.write_bytes(ff.safetensors(head, b""))
    with path.open("r+b") as file:
        end = file.seek(0, 2) + 2 * count
        file.truncate(end)
        file.seek(end)
        file.write(tail)
    tracemalloc.start()
    try:
        with pytest.raises(IntegrityError):
            container.read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20


@pytest.mark.parametrize("build", [ff.safe_file, ff.npz_file])
def test_converted_like_a_pth(tmp_path, build):
    """The same network, whatever it came in."""
    spec = replace(variant("resnext50_32x4d"), blocks=(1, 1, 1, 1), classes=3)
    weights = cases.weights(spec)
    (tmp_path / "a").write_bytes(cases.checkpoint(weights, legacy=True))
    (tmp_path / "b").write_bytes(build(weights))
    one, other = (cases.read_checkpoint(tmp_path / name).stored for name in "ab")
    assert one.spec == other.spec
    assert all(np.array_equal(one.params[name], other.params[name]) for name in one.params)


def test_one_member_of_another_kind(read):
    with pytest.raises(FormatError, match=r"no \.npy"):
        read(
            Zip(
                [Entry("a.npy", ff.npy(numbers(3)), flags=0), Entry("readme.txt", b"x", flags=0)]
            ).build()
        )
