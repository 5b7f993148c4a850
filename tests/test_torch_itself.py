"""Against PyTorch, if it is installed: its own files, files of the tests, damaged files."""

from __future__ import annotations

import argparse
import pickle
from collections import OrderedDict

import numpy as np
import pytest
from test_hostile_checkpoints import mutations, variety
from torch_files import Raw, glob, legacy_file, marked, small_state, text, zip_file

from tinyresnext.checkpoints.readers.container import read as read_file
from tinyresnext.errors import FormatError, WeightsError


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture(params=["legacy", "zip"])
def container(request):
    return request.param


@pytest.fixture
def save(torch, tmp_path, container):
    """``torch.save`` in one of the formats; the path."""

    def go(value, **options):
        path = tmp_path / "saved by torch.pth"
        torch.save(value, path, _use_new_zipfile_serialization=container == "zip", **options)
        return path

    return go


@pytest.fixture
def network(torch):
    """A few layers trained for one step, so that no parameter has its first value."""
    torch.manual_seed(0)
    layers = (
        torch.nn.Conv2d(3, 8, 3, groups=1),
        torch.nn.BatchNorm2d(8),
        torch.nn.Flatten(),
        torch.nn.Linear(8 * 36, 5),
    )
    net = torch.nn.Sequential(*layers)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.randn(4, 3, 8, 8)).square().sum().backward()
    optimizer.step()
    return net, optimizer


def same(found, expected):
    """Equal to torch's tensors, float32 for every floating type."""
    assert list(found) == list(expected)
    for name, value in expected.items():
        array = (
            (value.float() if value.is_floating_point() else value).detach().contiguous().numpy()
        )
        if array.dtype == bool:
            array = array.view(np.uint8) != 0  # torch keeps whatever byte was stored
        assert found[name].dtype == array.dtype, name
        assert found[name].shape == array.shape, name
        assert found[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_state_dict(save, network, container, protocol):
    state = network[0].state_dict()
    found = read_file(save(state, pickle_protocol=protocol))
    same(found.tensors, state)
    assert found.container == container


def test_types_and_layouts(torch, save):
    base = torch.randn(4, 6, 2)
    state = OrderedDict(
        half=base.half(),
        bfloat16=base.bfloat16(),
        double=base.double(),
        transposed=base.permute(2, 1, 0),
        view=base[1:3, 1:4],
        last=torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        expanded=torch.randn(3, 1).expand(3, 4),
        parameter=torch.nn.Parameter(torch.randn(3)),
        scalar=torch.tensor(3),
        empty=torch.empty(0, 3),
        flags=torch.tensor([True, False]),
        bytes=torch.arange(5, dtype=torch.uint8),
        short=torch.arange(-2, 3, dtype=torch.int16),
    )
    same(read_file(save(state)).tensors, state)


def test_a_training_checkpoint(torch, save, network):
    net, optimizer = network
    average = torch.optim.swa_utils.AveragedModel(net)
    value = {
        "model": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": torch.optim.lr_scheduler.MultiStepLR(optimizer, [30, 60]).state_dict(),
        "epoch": 3,
        "args": argparse.Namespace(
            device=torch.device("cpu"), lr=0.1, names={"a", "b"}, shape=torch.Size([1, 2])
        ),
        "best": np.float64(77.6),
        "model_ema": average.state_dict(),
    }
    path = save(value)
    found = read_file(path)
    same(found.tensors, net.state_dict())
    assert (found.wrapper, found.others) == ("model", ("model_ema",))
    found = read_file(path, ema=True)
    same(found.tensors, average.module.state_dict())
    assert (found.prefix, found.skipped) == ("module.", ("n_averaged",))


def test_whole_models_are_refused(torch, save, network):
    with pytest.raises(FormatError, match=r"torch\.nn\.modules\.container\.Sequential.*state_dict"):
        read_file(save(network[0]))


@pytest.mark.parametrize("build", [legacy_file, zip_file])
def test_the_tests_own_writer(torch, tmp_path, build):
    """``torch.load`` reads what `torch_files` writes, metadata included."""
    path = tmp_path / "written.pth"
    path.write_bytes(build(small_state()))
    loaded = torch.load(path, weights_only=True)
    assert isinstance(loaded, OrderedDict)
    assert loaded._metadata["bn1"] == {"version": 2}
    same(
        {name: view.storage.values.reshape(view.size) for name, view in small_state().items()},
        loaded,
    )


def test_mutated_legacy_files_mean_the_same_to_torch(torch, tmp_path):
    """If both accept a damaged file they read the same bits.

    What only we accept, torch refuses for the name of a device, which we ignore, for a gradient
    that integers cannot have, or for a name that neither knows: we leave out what is made by it.
    """
    path = tmp_path / "model.pth"
    both = 0
    for index, value in enumerate(variety()):
        path.write_bytes(legacy_file(value))
        whole = read_file(path).tensors
        for changed in mutations(legacy_file(value), 200, seed=200 + index):
            path.write_bytes(changed)
            try:
                found = read_file(path)
            except WeightsError:
                continue
            try:
                top = _torch_load(torch, path)
            except pickle.UnpicklingError as error:
                assert "was not an allowed global" in str(error)  # noqa: PT017
                for name, array in found.tensors.items():
                    assert array.tobytes() == whole[name].tobytes()
                continue
            if top is not None:
                both += 1
                mapping = top[found.wrapper] if found.wrapper else top
                mapping = {
                    name: value for name, value in mapping.items() if name not in found.skipped
                }
                same(
                    found.tensors,
                    {name.removeprefix(found.prefix): value for name, value in mapping.items()},
                )
    assert both > 40


def _torch_load(torch, path):
    """What torch reads, or None if it does not know the device."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, weights_only=True)
    except RuntimeError as error:
        assert "data location" in str(error) or "gradients" in str(error)  # noqa: PT017
        return None


def test_attacks_that_torch_refuses_too(torch, tmp_path):
    """Python's unpickler would run these attacks; torch's safe unpickler refuses them too."""
    path = tmp_path / "attack.pth"
    for module, name in (("os", "system"), ("builtins", "eval"), ("subprocess", "Popen")):
        path.write_bytes(zip_file({"x": Raw(glob(module, name) + marked(text("1")) + b"R")}))
        for reader in (read_file, lambda p: torch.load(p, weights_only=True)):
            with pytest.raises(Exception, match=name):
                reader(path)
