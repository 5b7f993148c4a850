"""The published models: each row whole, its costs the network's, its images its system's."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import test_image

import tinyresnext
from tinyresnext import Preprocess, list_models
from tinyresnext.checkpoints.names.layouts import FOLDED_EPSILON
from tinyresnext.cli import main as cli
from tinyresnext.cli.output import report
from tinyresnext.errors import FormatError, UsageError
from tinyresnext.hub import catalogue
from tinyresnext.hub.bundled import manifest
from tinyresnext.hub.catalogue import entries, find
from tinyresnext.hub.manifest import parse
from tinyresnext.images.preprocess import CIFAR
from tinyresnext.network.count import layers, totals
from tinyresnext.network.resnext import parameters
from tinyresnext.network.spec import VARIANTS, Spec, other, variant
from tinyresnext.network.tape import stand_in
from tinyresnext.network.trace import trace

TEXT = manifest().read_text("utf-8")
PIPELINES = parse(TEXT)[1]
# Parameters, and GMACs of convolutions and classifier at 224: torchvision's own numbers, and the
# same count for the others.
COSTS = {
    "resnext50_32x4d": (25_028_904, 4.230),
    "resnext50d_32x4d": (25_048_136, 4.470),
    "resnext101_32x4d": (44_177_704, 7.970),
    "resnext101_64x4d": (83_455_272, 15.460),
    "resnext101_32x8d": (88_791_336, 16.414),
    "resnext101_32x16d": (194_026_792, 36.163),
    "resnext101_32x32d": (468_530_472, 87.107),
    "resnext101_32x48d": (828_411_176, 153.310),
    "resnext152_32x4d": (59_951_400, 11.710),
    "resnext50_64x4d": (45_192_488, 7.981),
    "resnext152_64x4d": (114_971_944, 22.939),
    "resnext50d_64x4d": (45_211_720, 8.221),
    "resnext101d_32x4d": (44_196_936, 8.210),
    "resnext101d_64x4d": (83_474_504, 15.700),
    "resnext152d_32x4d": (59_970_632, 11.949),
    "resnext152d_64x4d": (114_991_176, 23.179),
    "seresnext26d_32x4d": (16_809_512, 2.712),
    "seresnext26t_32x4d": (16_806_976, 2.680),
    "seresnext50_32x4d": (27_559_896, 4.233),
    "seresnext50vd_32x4d": (27_687_768, 5.601),
    "seresnext101_32x4d": (48_955_416, 7.975),
    "seresnext101_64x4d": (88_232_984, 15.465),
    "seresnext101_32x8d": (93_569_048, 16.419),
    "seresnext101d_32x8d": (93_588_280, 16.658),
    "seresnextaa101d_32x8d": (93_588_280, 17.179),
    "seresnextaa201d_32x8d": (149_394_904, 34.276),
    "legacy_seresnext26_32x4d": (16_790_280, 2.472),
    "legacy_seresnext50_32x4d": (27_559_896, 4.233),
    "legacy_seresnext101_32x4d": (48_955_416, 7.975),
    "resnext29_8x64d": (34_426_698, 5.387),
}
# mmpretrain's GFLOPs are of the backbone: convolutions, two for each value of a norm, one for each
# of a ReLU.
MMPRETRAIN = {
    "resnext50_32x4d": 4.27,
    "resnext101_32x4d": 8.03,
    "resnext101_32x8d": 16.50,
    "resnext152_32x4d": 11.80,
}
# How many each system has published, by the tables of their own repositories.
PUBLISHED = {
    "torchvision": 8,
    "facebook": 15,
    "cadene": 6,
    "mmpretrain": 8,
    "timm": 27,
    "prlz77": 2,
    "keras": 4,
    "classification_models": 8,
    "paddle": 25,
    "onnx": 8,
}
# Of the norms, where it is not 1e-5; torchvision's quantised networks have none any more, and those
# that stand for them are the identity with this one.
EPSILON = {"keras": 1.001e-5, "classification_models": 2e-5}
SE_EPSILON = 9.999999747378752e-06  # of classification_models: 1e-5 in float32


def test_all_systems_are_there():
    counts = {system: sum(entry.system == system for entry in entries()) for system in PUBLISHED}
    assert counts == PUBLISHED
    assert len(entries()) == sum(PUBLISHED.values())


def test_the_readme_counts_them():
    readme = Path(__file__).parents[1] / "README.md"
    assert f"`tinyresnext models` lists {len(entries())} of them" in " ".join(
        readme.read_text("utf-8").split()
    )


# All networks with ResNeXt in their names in timm 1.0.31, by its list_models(); those with
# weights have their tags.
TIMM = """
bat_resnext26ts.ch_in1k cspresnext50.ra_in1k eca_resnext26ts.ch_in1k gcresnext26ts.ch_in1k
gcresnext50ts.ch_in1k legacy_seresnext101_32x4d.in1k legacy_seresnext26_32x4d.in1k
legacy_seresnext50_32x4d.in1k resnext101_32x16d.fb_ssl_yfcc100m_ft_in1k
resnext101_32x16d.fb_swsl_ig1b_ft_in1k resnext101_32x16d.fb_wsl_ig1b_ft_in1k
resnext101_32x32d.fb_wsl_ig1b_ft_in1k resnext101_32x4d.fb_ssl_yfcc100m_ft_in1k
resnext101_32x4d.fb_swsl_ig1b_ft_in1k resnext101_32x4d.gluon_in1k
resnext101_32x8d.fb_ssl_yfcc100m_ft_in1k resnext101_32x8d.fb_swsl_ig1b_ft_in1k
resnext101_32x8d.fb_wsl_ig1b_ft_in1k resnext101_32x8d.tv2_in1k resnext101_32x8d.tv_in1k
resnext101_64x4d.c1_in1k resnext101_64x4d.gluon_in1k resnext101_64x4d.tv_in1k resnext26ts.ra2_in1k
resnext50_32x4d.a1_in1k resnext50_32x4d.a1h_in1k resnext50_32x4d.a2_in1k resnext50_32x4d.a3_in1k
resnext50_32x4d.fb_ssl_yfcc100m_ft_in1k resnext50_32x4d.fb_swsl_ig1b_ft_in1k
resnext50_32x4d.gluon_in1k resnext50_32x4d.ra_in1k resnext50_32x4d.tv2_in1k resnext50_32x4d.tv_in1k
resnext50d_32x4d.bt_in1k seresnext101_32x4d.gluon_in1k seresnext101_32x8d.ah_in1k
seresnext101_64x4d.gluon_in1k seresnext101d_32x8d.ah_in1k seresnext26d_32x4d.bt_in1k
seresnext26t_32x4d.bt_in1k seresnext26ts.ch_in1k seresnext50_32x4d.gluon_in1k
seresnext50_32x4d.racm_in1k seresnextaa101d_32x8d.ah_in1k seresnextaa101d_32x8d.sw_in12k
seresnextaa101d_32x8d.sw_in12k_ft_in1k seresnextaa101d_32x8d.sw_in12k_ft_in1k_288
seresnextaa201d_32x8d.sw_in12k seresnextaa201d_32x8d.sw_in12k_ft_in1k_384
skresnext50_32x4d.ra_in1k ecaresnext26t_32x4d ecaresnext50t_32x4d
"""


@pytest.mark.parametrize("name", TIMM.split())
def test_each_of_timms_is_a_row_or_refused_with_the_reason(name):
    row = name in {entry.name for entry in entries()}
    assert row != bool(other(name))
    if not row:
        with pytest.raises(UsageError, match=rf"'{name}' is another network .* it has [a-zA-Z]"):
            find(name)
        with pytest.raises(UsageError, match=r"is another network .* it has [a-zA-Z]"):
            variant(name.partition(".")[0])


def cost(spec: Spec) -> dict[str, int]:
    size = report.usual_size(spec)
    return totals(layers(spec, size, size))


@pytest.fixture(scope="module")
def costs() -> dict[Spec, dict[str, int]]:
    return {spec: cost(spec) for spec in {entry.spec for entry in entries()}}


def test_parameters_and_multiply_adds(costs):
    for entry in entries():
        found = costs[entry.spec]
        params, gmacs = COSTS[entry.architecture]
        if entry.labels is not None:  # the classifier has other classes
            params += (entry.spec.classes - 10) * 1025
            assert found["macs"] / 1e9 == pytest.approx(gmacs, abs=2e-3)
        else:
            assert round(found["macs"] / 1e9, 3) == gmacs, entry.name
        assert found["params"] == params, entry.name
        if entry.millions:
            digits = len(str(entry.millions).partition(".")[2])
            assert round(params / 1e6, digits) == entry.millions, entry.name
        if entry.gmacs:
            assert (
                round(found["macs"] / 1e9, len(str(entry.gmacs).partition(".")[2])) == entry.gmacs
            ), entry.name


@pytest.mark.parametrize("name", MMPRETRAIN)
def test_mmpretrains_own_count(name, costs):
    spec = VARIANTS[name]
    weights = {key: stand_in(shape) for key, shape in parameters(spec).items()}
    calls = trace(weights, spec, (1, 224, 224, 3)).calls
    rectified = sum(math.prod(call.out.shape) for call in calls if call.op == "relu")
    count = costs[spec]["macs_with_norms"] - 2048 * 1000 + rectified
    assert count / 1e9 == pytest.approx(
        MMPRETRAIN[name], abs=0.0051
    )  # rounded, the last one to 11.80 from 11.7949


def test_every_row():
    for entry in entries():
        assert entry.urls or entry.note, entry.name
        assert all(re.fullmatch(r"https://[^\s]+", url) for url in (*entry.urls, entry.page))
        assert len({url.rpartition("/")[2] for url in entry.urls}) <= 1  # mirrors are of one file
        if published := re.search(
            r"[-_]([0-9a-f]{8})\.pth$", entry.file
        ):  # by convention the digest is in the name
            assert entry.sha256.startswith(published[1]), entry.name
        assert (
            entry.sha256
            or entry.md5
            or "no digest" in entry.note
            or "without a digest" in entry.note
        ), entry.name
        if entry.bytes:  # the tensors, their names, and the counters of batch norms
            tensors = sum(4 * math.prod(shape) for shape in parameters(entry.spec).values())
            assert tensors < entry.bytes < tensors + 200_000, entry.name
        if entry.scores:
            assert entry.scores[0].pipeline == entry.pipeline, (
                "a model is known by what its own pipeline gives"
            )
        # their own, and what was converted from it
        own = entry.system in ("facebook", "cadene", "keras") and not entry.spec.se_reduction
        facebook = own or "_wsl_" in entry.name
        assert entry.licence == "CC-BY-NC-4.0" if facebook else entry.free, entry.name
        folded = "_fbgemm_" in entry.name
        usual = EPSILON.get(entry.system, 1e-5)
        if entry.system == "classification_models" and entry.spec.se_reduction:
            usual = SE_EPSILON
        assert entry.spec.eps == (2.0**-17 if folded else usual)
        assert folded == (entry.spec.eps == FOLDED_EPSILON)
        assert len(entry.labels or range(1000)) == entry.spec.classes
        if entry.hub:
            assert entry.hub == f"timm/{entry.name}"


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline(name):
    """Compared with its system's pictures; or timm's, whose names say the numbers; or said here."""
    preprocess, picture, _ = PIPELINES[name]
    if picture:
        assert preprocess == test_image.PIPELINES[picture]
    elif timm := re.fullmatch(r"timm_(\d)(\d*)_(bilinear|bicubic)_?(\d*)", name):
        side, part = int(timm[4] or 224), float(f"{timm[1]}.{timm[2] or 0}")
        assert preprocess == Preprocess(math.floor(side / part), side, timm[3])
    else:
        said = {
            "cadene": Preprocess(),
            "classification_models": Preprocess(),  # its mean and deviation are in the file
            "paddle": Preprocess(),
            "facebook": Preprocess(
                interpolation="torch7"
            ),  # held to its definition in test_torch7_resize
            "keras": Preprocess(224, 224, "keras"),  # held to Pillow in test_image
            "prlz77": CIFAR,
        }
        assert preprocess == said[name]


def test_the_four_compared_pipelines_are_all_used():
    assert {pipeline.picture for pipeline in PIPELINES.values()} - {""} == set(test_image.PIPELINES)
    assert all(
        any(name in (e.pipeline, *(s.pipeline for s in e.scores)) for e in entries())
        for name in PIPELINES
    )


def test_scores_of_other_images_say_so(capsys):
    """Their makers' own code resizes otherwise, or they do not say how; all others do as here."""
    scores = [(entry.system, score) for entry in entries() for score in entry.scores]
    others = {system for system, score in scores if score.measured}
    assert others == {"keras", "paddle", "classification_models"}
    assert all(score.measured for system, score in scores if system in others)
    assert find("resnext50_32x4d.keras_in1k").score.top1 == 77.74
    assert cli.main(["info", "resnext50_32x4d.keras_in1k"]) == 0
    out = capsys.readouterr().out
    assert "by keras, images after a resize to 256 by OpenCV's INTER_CUBIC and a centre" in out


def test_what_the_traps_are():
    assert find("resnext50_32x4d.tv2_in1k").preprocess.resize == 232  # and not 256
    assert find("resnext50_32x4d.a1h_in1k").preprocess == Preprocess(235, 224, "bicubic")
    assert find("resnext50_32x4d.a3_in1k").preprocess.crop == 160
    assert "not on whole images squeezed" in find("resnext50_32x4d.keras_in1k").note
    assert (
        find("resnext29_8x64d.prlz77_cifar100").preprocess == CIFAR
    )  # CIFAR-10's statistics, as it was trained


def test_an_architecture_alone_is_the_best_that_is_free():
    assert find("resnext50_32x4d").name == "resnext50_32x4d.tv2_in1k"
    assert find("resnext101_32x4d").name == "resnext101_32x4d.gluon_in1k"
    assert (
        find("resnext101_32x8d").name == "resnext101_32x8d.tv2_in1k"
    )  # SWSL is better, and not free
    with pytest.raises(
        UsageError, match=r"no weights of resnext101_32x48d have a free licence; there is .*wsl"
    ):
        find("resnext101_32x48d")
    with pytest.raises(UsageError, match="no weights of it are in the catalogue"):
        find("resnet50")
    with pytest.raises(UsageError, match=r"did you mean resnext50_32x4d\.a1h_in1k"):
        find("resnext50_32x4d.a1h_in1")


def test_what_is_not_here_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYRESNEXT_HOME", str(tmp_path))
    for name in ("resnext101_64x4d", "resnext101_64x4d.tv_in1k"):
        with pytest.raises(
            UsageError,
            match=rf"resnext101_64x4d\.tv_in1k is not on this computer; `tinyresnext pull {name}`",
        ):
            tinyresnext.load(name)


def test_lists(capsys):
    assert "resnext50_32x4d.a1h_in1k" in list_models("resnext50*")
    assert cli.main(["models", "*wsl*"]) == 0
    out = capsys.readouterr().out
    assert out.count("CC-BY-NC-4.0") == 12
    assert "828,411,176  153.310 224 x 224  85.40" in out
    assert cli.main(["models", "*.c1_*"]) == 0
    assert "64 x 4" in capsys.readouterr().out
    assert cli.main(["models", "*_ft_in1k_*"]) == 0  # among them the longest name
    lines = capsys.readouterr().out.splitlines()
    assert len({line.index("x 8") for line in lines[1:] if "x 8" in line}) == 1
    assert cli.main(["info", "resnext50_32x4d.fb_in1k"]) == 0
    out = capsys.readouterr().out
    assert "25,028,904" in out
    assert "resized to 256 (torch7), cropped to 224" in out


@pytest.mark.parametrize(
    ("name", "size"), [("resnext50_32x4d.a3_in1k", 160), ("seresnext50_32x4d.racm_in1k", 288)]
)
def test_a_list_has_the_work_for_the_images_that_the_model_sees(name, size, capsys):
    """Its top-1 is that of these images; `info` says the same."""
    assert cli.main(["info", name]) == 0
    out = capsys.readouterr().out
    assert f"for {size} x {size}\n" in out
    work = re.search(r"multiply-adds ([\d.]+) G", out)[1]
    assert cli.main(["models", name]) == 0
    row = capsys.readouterr().out.splitlines()[1]
    assert f" {work} {size} x {size}  {find(name).top1:.2f}  " in row


DAMAGE = {
    "no TOML": ("format = 1", "format = = 1"),
    "another format": ("format = 1", "format = 2"),
    "unknown field": ("\nmillions =", "\nmillion ="),
    "unknown in a score": ("by =", "of ="),
    "unknown pipeline": ('pipeline = "cadene"\n', 'pipeline = "cadena"\n'),
    "unknown in a pipeline": ("resize = 232", "rezise = 232"),
    "impossible pipeline": ("resize = 232", "resize = 0"),
    "unknown architecture": ("resnext152_32x4d.", "resnext153_32x4d."),
    "no licence": ('licence = "MIT"\n', ""),
    "http": ("https://data.lip6.fr", "http://data.lip6.fr"),
    "file": ('"https://data.lip6.fr/', '"file:///data/'),
    "no hexadecimal": ('"7cdf4587"', '"7cdf458g"'),
    "short digest": ('"7cdf4587"', '"7cdf"'),
    "negative bytes": ("bytes = 100_441_675", "bytes = -1"),
    "bytes as text": ("bytes = 100_441_675", 'bytes = "many"'),
    "percent": ("top1 = 77.618", "top1 = 177.618"),
    "top-1 above top-5": ("top1 = 77.618", "top1 = 99.9"),
    "two of a name": ("resnext101_32x8d.tv2_in1k", "resnext101_32x8d.tv_in1k"),
    "path as file": ('file = "model.pytorch"', 'file = "../model.pytorch"'),
    "path as name": ('name = "resnext101_32x8d.tv_in1k"', 'name = "../resnext101_32x8d"'),
    "path as hub": ('hub = "timm/resnext101_32x8d.tv_in1k"', 'hub = "../../x"'),
    "unknown labels": ('labels = "cifar100"', 'labels = "cifar1000"'),
    "models are no list": ("[[model]]", "[model]"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_manifest(case):
    before, after = DAMAGE[case]
    assert before in TEXT
    with pytest.raises(FormatError, match=r"manifest|model '|pipeline"):
        parse(
            TEXT.replace(before, after, 1)
            if case != "models are no list"
            else TEXT.replace(before, after)
        )


@pytest.mark.parametrize("installed", ["checkout", "wheel"])
def test_it_is_found_wherever_the_package_is(installed, tmp_path):
    shutil.copytree(
        Path(tinyresnext.__file__).parent,
        tmp_path / "tinyresnext",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    weights = (
        tmp_path / "weights" if installed == "checkout" else tmp_path / "tinyresnext" / "weights"
    )
    weights.mkdir(exist_ok=True)
    shutil.copy(manifest(), weights)
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "tinyresnext", "models", "*.a1h_*"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    (weights / "manifest.toml").unlink()
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1)
    assert "install tinyresnext again" in done.stderr
    assert catalogue.entries()
