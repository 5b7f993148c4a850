"""Folders of transformers: names of classes, and how images are prepared, as far as it can be."""

from __future__ import annotations

import json

import cases
import foreign_files as ff
import pytest

from tinyresnext import Preprocess, Spec, load_checkpoint
from tinyresnext.errors import FormatError, ShapeError

TINY = Spec((1, 1), 8, 4, 3, expansion=1)
WEIGHTS = cases.weights(TINY)
CONFIG = {
    "architectures": ["ResNetForImageClassification"],
    "model_type": "resnet",
    "hidden_act": "relu",
    "id2label": {"1": "dog", "0": "cat", "2": "eel"},
}
BIT = {
    "image_processor_type": "BitImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 72},
    "do_center_crop": True,
    "crop_size": {"height": 64, "width": 64},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.1, 0.2, 0.3],
    "image_std": [0.5, 0.6, 0.7],
}
CONVNEXT = {
    "feature_extractor_type": "ConvNextFeatureExtractor",
    "crop_pct": 0.875,
    "size": 224,
    "resample": 3,
    "image_mean": [0.1, 0.2, 0.3],
    "image_std": [0.5, 0.6, 0.7],
}
PREPARED = Preprocess(72, 64, "bicubic", (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))


@pytest.fixture
def hub(tmp_path):
    """Return a function that writes a folder of these files, and returns it."""

    def make(config=CONFIG, processor=BIT, weights=WEIGHTS):
        (tmp_path / "model.safetensors").write_bytes(ff.safe_file(weights))
        for name, values in (("config", config), ("preprocessor_config", processor)):
            if values is not None:
                (tmp_path / f"{name}.json").write_text(json.dumps(values))
        return tmp_path

    return make


def converted(path, **options):
    stored, notes = cases.read_checkpoint(path, **options)
    return stored, "\n".join(notes)


@pytest.mark.parametrize("named", ["", "config.json", "model.safetensors"])
def test_labels_and_preprocessing_go_into_the_model(hub, named):
    stored, notes = converted(hub() / named)
    assert stored.labels == ("cat", "dog", "eel")
    assert stored.preprocess == PREPARED
    assert "found in config.json: 3 labels; in preprocessor_config.json: preprocessing" in notes
    assert "assumed: the 3x3 convolutions stride" in notes  # this file does not tell
    said: list[str] = []
    load_checkpoint(hub(), device="reference", warn=said.append)
    assert not any("resized" in line for line in said)


def test_beside_what_timm_says(hub):
    timm = {"architecture": "resnext8_8x4d", "pretrained_cfg": None, "id2label": CONFIG["id2label"]}
    stored, notes = converted(hub(timm))
    assert (stored.labels, stored.preprocess) == (("cat", "dog", "eel"), PREPARED)
    assert "config.json: architecture resnext8_8x4d, 3 labels; in preprocessor_" in notes
    own = {"input_size": [3, 32, 32], "crop_pct": 1, "interpolation": "bilinear"}
    stored, notes = converted(hub(timm | {"pretrained_cfg": own, "label_names": list("abc")}))
    assert stored.labels == ("a", "b", "c")
    assert stored.preprocess == Preprocess(32, 32)
    assert "preprocessor_config" not in notes


def test_the_processor_alone(hub):
    assert converted(hub(config=None))[0].preprocess == PREPARED


def test_options_win(hub):
    stored, _ = converted(hub(), labels=("x", "y", "z"), preprocess=Preprocess())
    assert (stored.labels, stored.preprocess) == (("x", "y", "z"), Preprocess())


FORMS = {
    "no type": ({k: v for k, v in BIT.items() if k != "image_processor_type"}, PREPARED),
    "int crop": (BIT | {"crop_size": 64}, PREPARED),
    "not normalised": (
        BIT | {"do_normalize": False},
        Preprocess(72, 64, "bicubic", (0.0,) * 3, (1.0,) * 3),
    ),
    "convnext": (CONVNEXT, Preprocess(256, 224, "bicubic", (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))),
    "convnext, new": (
        CONVNEXT | {"size": {"shortest_edge": 64}, "resample": 2},
        Preprocess(73, 64, "bilinear", (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_preprocessing(hub, form):
    processor, expected = FORMS[form]
    assert converted(hub(processor=processor))[0].preprocess == expected


NOT_TAKEN = {
    "size": ({"height": 64, "width": 64}, "expected the shortest_edge"),
    "do_center_crop": (False, "no square is cut"),
    "crop_size": ({"height": 64, "width": 32}, "no square is cut"),
    "resample": (0, "resample 0"),
    "do_rescale": (False, "do_rescale False"),
    "rescale_factor": (1 / 127.5, "rescale_factor 0.0078"),
    "do_resize": (False, "do_resize False"),
    "do_pad": (True, "do_pad True"),
    "do_flip_channel_order": (True, "do_flip_channel_order True"),
    "image_mean": (0.5, "image_mean 0.5"),
    "image_std": ([0.5, 0.5], "std is"),
    "image_processor_type": ("LevitImageProcessor", "'LevitImageProcessor': it is not known"),
}


@pytest.mark.parametrize("name", NOT_TAKEN)
def test_what_cannot_be_done_is_said_and_not_taken(hub, name):
    value, words = NOT_TAKEN[name]
    stored, notes = converted(hub(processor=BIT | {name: value}))
    assert stored.preprocess == Preprocess()
    assert "not taken from preprocessor_config.json: all of it, because of" in notes
    assert words in notes
    assert stored.labels == ("cat", "dog", "eel")


def test_images_that_are_squeezed_or_no_object(hub):
    assert "squeezed" in converted(hub(processor=CONVNEXT | {"size": 384}))[1]
    assert "crop_pct 0" in converted(hub(processor=CONVNEXT | {"crop_pct": 0}))[1]
    assert "no JSON object" in converted(hub(processor=[1]))[1]


@pytest.mark.parametrize(
    ("config", "error", "words"),
    [
        ({"id2label": {"0": "cat", "2": "dog"}}, FormatError, "id2label .* without gaps"),
        ({"id2label": {"0": "cat", "1": 3, "2": "eel"}}, FormatError, "id2label .* not all texts"),
        ({"id2label": {"0": "cat", "1": "dog"}}, ShapeError, "2 labels, and the tensors have 3"),
        ({"hidden_act": "silu"}, FormatError, "says hidden_act 'silu', which this version cannot"),
        ({"downsample_in_bottleneck": True}, FormatError, "downsample_in_bottleneck True"),
    ],
)
def test_what_does_not_fit_is_refused(hub, config, error, words):
    with pytest.raises(error, match=words):
        converted(hub(CONFIG | config))


def test_what_the_outputs_mean(hub):
    folder = hub(CONFIG | {"problem_type": "multi_label_classification"})
    assert converted(folder)[0].spec.head == "sigmoid"
    alone = {n: value for n, value in WEIGHTS.items() if not n.startswith("fc.")}
    (folder / "model.safetensors").write_bytes(ff.safe_file(alone))
    assert converted(folder)[0].spec.head == "softmax"  # none at all


def test_names_that_stand_for_none(hub):
    """transformers writes them where nobody has named the classes, and two of them by default."""
    numbered = {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}
    assert converted(hub(CONFIG | numbered))[0].labels == ("class 0", "class 1", "class 2")


def test_a_config_of_another_program_is_passed_over(hub):
    """It is taken only if its folder is named."""
    folder = hub({"model_type": "bert", "hidden_act": "gelu", "id2label": {"0": "x"}})
    stored, notes = converted(folder / "model.safetensors")
    assert stored.labels == ("class 0", "class 1", "class 2")
    assert "config.json" not in notes


def test_features_need_no_labels(hub):
    weights = {name: value for name, value in WEIGHTS.items() if not name.startswith("fc.")}
    assert converted(hub(weights=weights))[0].labels == ()
