"""The architecture against the numbers of the paper and of other projects."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import recipe

from tinyresnext import VARIANTS, Spec, cifar, list_models, random_model, variant
from tinyresnext.errors import FormatError, UsageError
from tinyresnext.network import count
from tinyresnext.network.resnext import blocks, forward, parameters
from tinyresnext.ops import reference

# Name, image size, parameters, GMACs, GMACs with two operations for each normalised value,
# activations (M), norms, entries of a state dict with the counters of batch norms: counted by
# torchvision's own code on its own models, or by timm's.
COSTS = [
    ("resnext50_32x4d", 224, 25_028_904, 4.230, 4.259, 14.40, 53, 320),
    ("resnext50d_32x4d", 224, 25_048_136, 4.470, 4.501, 15.20, 55, 332),
    ("resnext101_32x4d", 224, 44_177_704, 7.970, 8.012, 21.23, 104, 626),
    ("resnext101_64x4d", 224, 83_455_272, 15.460, 15.523, 31.21, 104, 626),
    ("resnext101_32x8d", 224, 88_791_336, 16.414, 16.476, 31.21, 104, 626),
    ("resnext101_32x16d", 224, 194_026_792, 36.163, 36.266, 51.18, 104, 626),
    ("resnext101_32x32d", 224, 468_530_472, 87.107, 87.289, 91.12, 104, 626),
    ("resnext101_32x48d", 224, 828_411_176, 153.310, 153.572, 131.06, 104, 626),
    ("resnext152_32x4d", 224, 59_951_400, 11.710, 11.769, 29.66, 155, 932),
    ("resnext29_8x64d", 32, 34_426_698, 5.387, 5.404, 8.59, 31, 188),
    ("resnext29_16x64d", 32, 68_155_210, 10.689, 10.719, 15.27, 31, 188),
    ("resnext29_1x64d", 32, 4_914_250, 0.748, 0.754, 2.74, 31, 188),
    ("resnext29_32x4d", 32, 4_775_754, 0.774, 0.781, 3.57, 31, 188),
]


@pytest.mark.parametrize(
    ("name", "size", "params", "gmac", "with_norms", "activations", "norms", "entries"), COSTS
)
def test_published_costs(name, size, params, gmac, with_norms, activations, norms, entries):
    sums = count.totals(count.layers(variant(name), size, size))
    assert sums["params"] == params
    assert round(sums["macs"] / 1e9, 3) == gmac
    assert round(sums["macs_with_norms"] / 1e9, 3) == with_norms
    assert round(sums["activations"] / 1e6, 2) == activations
    assert sums["norms"] == norms
    assert len(parameters(variant(name))) + norms == entries


@pytest.mark.parametrize(("size", "gmac"), [(160, 2.159), (176, 2.690), (224, 4.230), (288, 6.992)])
def test_cost_follows_the_picture(size, gmac):
    assert round(count.totals(count.layers(Spec(), size, size))["macs"] / 1e9, 3) == gmac


@pytest.mark.parametrize(
    ("name", "params", "gmac"),  # Table 3, and twice the cost, Table 4, in exact numbers
    [
        ("resnet50", 25_557_032, 4.089),
        ("resnext50_2x40d", 25_425_000, 4.125),
        ("resnext50_4x24d", 25_292_968, 4.160),
        ("resnext50_8x14d", 25_603_016, 4.267),
        ("resnet101", 44_549_160, 7.801),
        ("resnext101_2x40d", 44_456_296, 7.844),
        ("resnext101_4x24d", 44_363_432, 7.886),
        ("resnext101_8x14d", 45_104_328, 8.077),
        ("resnext101_1x100d", 85_611_336, 15.273),
        ("resnext101_2x64d", 84_198_184, 15.123),
    ],
)
def test_cardinality_against_width_at_equal_cost(name, params, gmac):
    sums = count.totals(count.layers(variant(name)))
    assert (sums["params"], round(sums["macs"] / 1e9, 3)) == (params, gmac)


@pytest.mark.parametrize(
    ("paths", "d", "params"),
    [(1, 64, 69_632), (2, 40, 69_760), (4, 24, 69_888), (8, 14, 71_456), (32, 4, 70_144)],
)
def test_equation_4_and_table_2(paths, d, params):
    """The second block of conv2 has C (256 d + 9 d d + 256 d) weights in its three convolutions."""
    shapes = parameters(Spec((2,), paths, d))
    weights = [int(np.prod(shapes[f"layer1.1.conv{i}.weight"])) for i in (1, 2, 3)]
    assert sum(weights) == paths * (256 * d + 3 * 3 * d * d + d * 256) == params
    assert count.block_parameters(256, paths, d, 256) == params


def test_table_1():
    """Check each stage: side, width of the grouped convolution, output channels, blocks."""
    stages = {}
    for b in blocks(variant("resnext50_32x4d")):
        stages.setdefault(b.name[:6], []).append((b.channels, b.c_out))
    assert {stage: (len(members), *members[-1]) for stage, members in stages.items()} == {
        "layer1": (3, 128, 256),
        "layer2": (4, 256, 512),
        "layer3": (6, 512, 1024),
        "layer4": (3, 1024, 2048),
    }
    sides = {layer.name: layer.result[0] for layer in count.layers(variant("resnext50_32x4d"))}
    last = ("conv1", "layer1.2.conv3", "layer2.3.conv3", "layer3.5.conv3", "layer4.2.conv3")
    assert [sides[name] for name in last] == [112, 56, 28, 14, 7]


def weights(spec: Spec, dtype=np.float64) -> dict[str, np.ndarray]:
    """Return weights made from their names."""
    return {
        name: recipe.tensor(name, shape).astype(dtype) for name, shape in parameters(spec).items()
    }


def test_shortcut_a_subsamples_and_pads_with_zeros():
    """Compare with the same network whose type B shortcuts have weights that copy channels."""
    a = Spec((1, 1), 2, 4, 5, stem="cifar", shortcut="A")
    b = replace(a, shortcut="B")
    x = recipe.pictures("shortcut", (2, 3, 9, 8)).astype(np.float64)
    told = weights(b)
    for name, shape in parameters(b).items():
        if ".downsample.0." in name:
            told[name] = np.eye(*shape[:2])[:, :, None, None]
        elif ".downsample.1." in name:
            told[name] = np.full(
                shape, 1.0 - 1e-5 if name.endswith("var") else float(name.endswith("weight"))
            )
    assert not [name for name in parameters(a) if "downsample" in name]
    np.testing.assert_allclose(
        forward(weights(a), a, x, reference), forward(told, b, x, reference), rtol=1e-12
    )


def test_the_pooled_stem_is_that_of_cifar_and_a_pooling():
    spec = Spec((1, 1), 2, 4, 5, stem="pooled")
    x, seen = recipe.pictures("pooled", (2, 3, 9, 8)).astype(np.float64), {}
    forward(weights(spec), spec, x, reference, at=lambda name, value: seen.setdefault(name, value))
    cifars = {}
    forward(
        weights(spec),
        replace(spec, stem="cifar"),
        x,
        reference,
        at=lambda name, value: cifars.setdefault(name, value),
    )
    assert parameters(spec) == parameters(replace(spec, stem="cifar"))
    assert (seen["relu"] == cifars["stem"]).all()
    assert (seen["stem"] == reference.max_pool2d(cifars["stem"], size=3, stride=2, padding=1)).all()
    assert [seen[stage].shape[1:3] for stage in ("stem", "layer1", "layer2")] == [
        (5, 4),
        (5, 4),
        (3, 2),
    ]


def test_shortcut_c_projects_everywhere():
    c = Spec((2, 3), 2, 4, shortcut="C")
    assert sum(name.endswith("downsample.0.weight") for name in parameters(c)) == 5
    assert forward(
        weights(c), c, recipe.pictures("c", (1, 3, 32, 32)).astype(np.float64), reference
    ).shape == (1, 1000)


def test_striding_on_the_first_convolution_halves_the_map_earlier():
    """A 1x1 convolution with stride 2 reads only every other pixel of every other row."""
    spec = Spec((1, 1), 2, 4, 5, stem="cifar", stride_on=1)
    seen = {}
    x = recipe.pictures("caffe", (1, 3, 8, 8)).astype(np.float64)
    forward(weights(spec), spec, x, reference, at=lambda name, value: seen.setdefault(name, value))
    assert seen["layer2.0.conv1"].shape[1:3] == (4, 4)
    shown = seen["layer1"][:, ::2, ::2] @ weights(spec)["layer2.0.conv1.weight"][:, :, 0, 0].T
    np.testing.assert_allclose(seen["layer2.0.conv1"], shown, rtol=1e-12)


@pytest.mark.parametrize("side", [(1, 1), (32, 32), (33, 47), (224, 7)])
@pytest.mark.parametrize(
    "spec",
    [Spec((1, 1, 1, 1), 4, 4), Spec((1, 1), 4, 4, stem="deep", avg_down=True), cifar(11, 2, 8)],
)
def test_any_picture_that_leaves_something(spec, side, ops):
    x = recipe.pictures("any", (1, 3, *side))
    assert np.isfinite(forward(weights(spec, np.float32), spec, x, ops)).all()


@pytest.mark.parametrize("channels", [1, 4, 13])
def test_any_number_of_channels_and_classes(channels, ops):
    spec = Spec((1,), 2, 8, classes=3, channels=channels)
    x = recipe.pictures("channels", (2, channels, 40, 40))
    assert forward(weights(spec, np.float32), spec, x, ops).shape == (2, 3)


def test_names_of_values_are_torchvisions():
    spec, seen = Spec((1, 2), 2, 8, 4), []
    forward(
        weights(spec),
        spec,
        recipe.pictures("n", (1, 3, 32, 32)).astype(float),
        reference,
        at=lambda n, v: seen.append(n) or v,
    )
    block = ["conv1", "bn1", "relu", "conv2", "bn2", "relu_1", "conv3", "bn3"]
    assert seen == [
        *["conv1", "bn1", "relu", "maxpool", "stem"],
        *[f"layer1.0.{part}" for part in [*block, "downsample.0", "downsample.1", "add", "relu_2"]],
        "layer1",
        *[f"layer2.0.{part}" for part in [*block, "downsample.0", "downsample.1", "add", "relu_2"]],
        *[f"layer2.1.{part}" for part in [*block, "add", "relu_2"]],
        *["layer2", "avgpool", "pooled", "fc"],
    ]


def test_our_small_networks_have_the_same_channels_outside_their_paths():
    """Four times the paths of half the width: kernels of half the channels, for twice as many.

    Twice the paths of half the width again, with twice the channels between blocks, cost the same.
    """
    names = "resnext20_2x64d", "resnext20_8x32d"
    few, many = (parameters(variant(name)) for name in names)
    assert few.keys() == many.keys()
    for name, (c_out, *others) in few.items():
        if name.endswith("conv2.weight"):
            assert many[name] == (2 * c_out, others[0] // 2, *others[1:]), name
        elif not re.search(r"layer\d\.\d\.(conv|bn)", name):
            assert many[name] == few[name], name
    sums = [count.totals(count.layers(variant(name), 32, 32)) for name in names]
    assert [one["params"] for one in sums] == [3_757_898, 4_371_274]
    assert [one["macs"] for one in sums] == [145_426_944, 174_787_072]
    most = count.totals(count.layers(variant("resnext20_16x16d"), 32, 32))
    assert (most["params"], most["macs"]) == (4_155_466, 177_935_360)


def test_every_variant_has_its_own_name():
    assert all(spec.name == name for name, spec in VARIANTS.items())
    assert replace(variant("resnext50_32x4d"), classes=7).name == "resnext50_32x4d"
    assert Spec((1, 1, 1, 1), 32, 4).name == "resnext14_32x4d"
    for name, spec in VARIANTS.items():
        assert replace(spec, eps=2.0**-17).name == name
    assert replace(variant("resnet50"), stride_on=1, eps=1.001e-5).name == "resnet50"  # Keras'


@pytest.mark.parametrize(
    "spec",
    [
        Spec(),
        cifar(29, 8, 64, widen_factor=2),
        Spec((2,), 3, 5, shortcut="A", avg_down=True, eps=1.001e-5),
    ],
)
def test_json_round_trip(spec):
    assert Spec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    "change",
    [
        {"blocks": []}, {"blocks": [0]}, {"blocks": [1] * 9}, {"blocks": [1.0]},
        {"blocks": "1234"}, {"blocks": [10**9]},
        {"cardinality": 0}, {"cardinality": True}, {"cardinality": "32"},
        {"width": -1}, {"width": 10**7}, {"classes": -1}, {"channels": None},
        {"stem": "imagenet "}, {"stem": ["deep"]}, {"shortcut": "D"}, {"avg_down": 1},
        {"stride_on": 3}, {"expansion": 65}, {"eps": 0.0}, {"eps": float("nan")}, {"eps": 1},
        {"extra": 1},
    ],
    ids=str,
)  # fmt: skip
def test_impossible_networks_are_refused(change):
    with pytest.raises(FormatError):
        Spec.from_json(Spec().to_json() | change)
    if "extra" not in change and change.get("blocks") != "1234":
        with pytest.raises(UsageError, match=next(iter(change))):
            Spec(**change)


def test_missing_field_and_wrong_kind_are_refused():
    values = Spec().to_json()
    del values["eps"]
    for wrong in (values, [], None, "resnext50_32x4d"):
        with pytest.raises(FormatError, match="fields"):
            Spec.from_json(wrong)


@pytest.mark.parametrize("size", [(0, 5), (-3, 5), (1.5, 3), (True, "7")])
def test_costs_of_no_picture(size):
    with pytest.raises(UsageError, match="image is"):
        count.layers(Spec(), *size)


def test_unknown_names_come_with_near_ones():
    with pytest.raises(UsageError, match="resnext50_32x4d"):
        variant("resnext50-32x4d")
    with pytest.raises(UsageError, match="9 n"):
        cifar(30, 8, 64)


def test_a_join_takes_the_place_of_equation_3():
    """Here it adds nothing: the last block's own result goes on, without its ReLU."""
    spec, seen = Spec((2,), 2, 8, 5, stem="cifar"), {}
    params = {name: recipe.tensor(name, shape) for name, shape in parameters(spec).items()}
    x = recipe.pictures("join", (1, 3, 8, 8))
    forward(
        params,
        spec,
        x,
        reference,
        at=lambda name, value: seen.setdefault(name, value),
        join=lambda walk, block, y, shortcut: y,
    )
    assert np.array_equal(seen["layer1"], seen["layer1.1.bn3"])
    assert (seen["layer1"] < 0).any()


@pytest.mark.parametrize("spec", ["resnext50_32x4d", 50, None, random_model(cifar(11, 2, 8))])
def test_what_is_no_spec_is_refused_with_what_has_one(spec):
    for what in (parameters, count.layers):
        with pytest.raises(UsageError, match=r"a Spec was expected, .*variant.*model\.spec"):
            what(spec)
    if not isinstance(spec, str):
        with pytest.raises(UsageError, match="a Spec was expected"):
            random_model(spec)


def test_a_named_network_has_as_many_classes_as_are_asked_for():
    name = "resnext50_32x4d"
    assert variant(name) == variant(name, 1000) == VARIANTS[name]
    assert variant(name, classes=10) == replace(VARIANTS[name], classes=10)
    assert "fc.weight" not in parameters(variant(name, classes=0))
    for wrong in (-1, "10", 2.5):
        with pytest.raises(UsageError, match="classes is"):
            variant(name, classes=wrong)


@pytest.mark.parametrize("seed", [-1, 1.5, "0", None])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(UsageError, match=r"seed is .*; give a whole number of at least 0"):
        random_model(cifar(11, 2, 8), seed=seed)


@pytest.mark.parametrize("pattern", [5, None, ["resnext50"]])
def test_models_are_listed_by_part_of_a_name(pattern):
    with pytest.raises(UsageError, match=r"the pattern is .*; give part of a name"):
        list_models(pattern)
