"""The page of an explanation: well-formed, self-contained, with the numbers of the arrays."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import tinyresnext as tr
from tinyresnext.cli.main import main
from tinyresnext.errors import UsageError
from tinyresnext.explanation import explain
from tinyresnext.explanation.report import page
from tinyresnext.explanation.report.packed import packed

DATA = Path(__file__).parent / "data"
# Elements of HTML that have no end tag.
VOID = {"meta", "link", "img", "input", "br"}


class Strict(HTMLParser):
    """Raise an error for an end tag that does not fit, and keep what a test wants to know."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text: dict[str, str] = {}

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute of {tag} is twice"
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.addresses += [value for name, value in attrs if name in ("src", "href", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        if self.open:
            self.text[self.open[-1]] = self.text.get(self.open[-1], "") + data


def read(text: str) -> Strict:
    """Return what a strict parser finds in a page."""
    parser = Strict()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser


def data_in(text: str):
    """Return the page's data."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(found[1])


def unpacked(one) -> np.ndarray:
    """Return the maps of a group as the page's script reads them."""
    down, across = (-(-one[side] // one["factor"]) for side in ("height", "width"))
    numbers = np.frombuffer(base64.b64decode(one["data"]), "<i2").astype(np.float64)
    maps = numbers.reshape(len(one["scales"]), one["maps"], down, across)
    return maps * np.array(one["scales"])[:, None, None, None]


@pytest.fixture(scope="module")
def explained() -> tr.Explanation:
    return tr.explain(tr.load(), DATA / "chelsea.jpg", block="all")


@pytest.fixture(scope="module")
def text(explained) -> str:
    return explained.html()


def test_the_page_is_well_formed(explained, text):
    found = read(text)
    assert len(set(found.ids)) == len(found.ids)
    assert {"html", "head", "title", "main", "h1", "noscript"} <= set(found.tags)
    assert found.text["title"] == "What the network did with chelsea.jpg"
    assert f"{explained.predictions[0].probability:.1%}" in found.text["td"]
    script = found.text["script"]
    for name in re.findall(r'at\("([\w-]+)"\)', script):
        assert name in found.ids, name
    assert "<!--" not in text


def test_the_page_needs_no_network(text):
    for address in read(text).addresses:
        assert address.startswith(("data:", "#")), address
    assert "default-src 'none'" in text
    assert not re.search(r"https?://|url\(|@import|fetch\(|XMLHttp|import\(", text)
    assert len(text.encode()) < 350_000


def test_the_numbers_are_those_of_the_arrays(explained, text):
    data = data_in(text)
    assert [one["name"] for one in data["classes"]] == [g.label for g in explained.classes]
    assert [one["probability"] for one in data["classes"]] == [
        guess.probability for guess in explained.classes
    ]
    assert [one["logit"] for one in data["classes"]] == explained.logits.tolist()
    for block, terms in zip(data["blocks"], explained.blocks, strict=True):
        assert block["name"] == terms.block.name
        assert block["terms"] == list(terms.names)
        assert block["shares"] == terms.shares.tolist()
        assert block["effects"] == terms.effects.tolist()
        assert block["exact"] == terms.exact.tolist()
        assert block["channel"] == terms.channel
        assert block["channelMeans"] == terms.channel_maps.mean((1, 2)).tolist()
    for stage, theirs in zip(data["stages"], explained.stages, strict=True):
        assert [one["mean"] for one in stage["channels"]] == [c.mean for c in theirs.channels]


def test_what_a_block_is(explained):
    """Shortcuts with means have a sentence of their own, and so have later excitations."""
    shortcuts = [block["shortcut"] for block in page.data_of(explained)["blocks"]]
    assert shortcuts == ["projection", "identity", *["averaged", "identity"] * 2]
    other = replace(explained, spec=replace(explained.spec, avg_down=False, se_reduction=16))
    found = page.data_of(other)["blocks"]
    plain = ["projection", "identity"] * 3
    assert [block["shortcut"] for block in found] == plain
    assert [block["excited"] for block in found] == [True] * 5 + [False]
    assert not any(block["excited"] for block in page.data_of(explained)["blocks"])
    script = read(other.html()).text["script"]
    kinds = re.search(r"const SHORTCUTS = {(.*?)};", script, re.DOTALL)[1]
    assert {*shortcuts, *plain, "padding"} == set(re.findall(r"(\w+): \"", kinds))


def test_the_maps_are_those_of_the_arrays(explained, text):
    """A value errs by half of the scale of its group, and a sum of n values by n / 2 of it."""
    data = data_in(text)
    for block, terms in zip(data["blocks"], explained.blocks, strict=True):
        maps, scales = unpacked(block["maps"]), np.array(block["maps"]["scales"])
        theirs = [terms.share_maps, terms.channel_maps, *terms.effect_maps]
        for mine, wanted, scale in zip(maps, theirs, scales, strict=True):
            assert np.abs(mine - wanted).max() <= 0.501 * scale
        n = maps[0, 0].size
        sums = maps.sum((2, 3))
        assert (np.abs(sums[0] - terms.shares) <= n * scales[0] / 2 + 1e-12).all()
        assert (np.abs(sums[2:] - terms.effects) <= n * scales[2:, None] / 2 + 1e-12).all()
    cam = unpacked(data["cam"])[0]
    assert np.abs(cam - explained.cam).max() <= 0.501 * data["cam"]["scales"][0]


def test_squares_keep_the_sum():
    maps = np.random.default_rng(0).standard_normal((2, 3, 13, 10))
    found = packed(maps, 5)
    assert (found["factor"], found["height"], found["width"]) == (4, 13, 10)
    small = unpacked(found)
    assert small.shape == (2, 3, 4, 3)
    np.testing.assert_allclose(small.sum((2, 3)), maps.sum((2, 3)), atol=12 * found["scales"][0])
    np.testing.assert_allclose(small[0, 0, 0, 0], maps[0, 0, :4, :4].sum(), atol=1e-3)
    means = unpacked(packed(maps, 5, mean=True))
    np.testing.assert_allclose(means[1, 2, 0, 1], maps[1, 2, :4, 4:8].mean(), atol=1e-3)
    assert unpacked(packed(maps * 0, 13)).max() == 0
    flat = unpacked(packed(np.ones((1, 1, 13, 10)), 5, mean=True))  # squares at edges have less
    np.testing.assert_allclose(flat, np.ones((1, 1, 4, 3)), atol=1e-3)


def test_names_cannot_leave_their_place(explained):
    bad = '</script><img src=x onerror=alert(1)>"\udcff\u2028'
    classes = [guess._replace(label=bad) for guess in explained.classes]
    text = replace(explained, name=bad, classes=classes).html()
    found = read(text)
    assert found.tags.count("img") == 1
    assert found.tags.count("script") == 2
    shown = bad.replace("\udcff", "\ufffd").replace("\u2028", "\ufffd")
    assert data_in(text)["classes"][0]["name"] == shown
    text.encode("utf-8")


def test_names_keep_their_spaces_and_joiners(explained):
    name = "3.14\u202fPM\u00a0\u3000\u0646\u200c\u0647 \U0001f469\u200d\U0001f52c\ue000.png"
    found = read(replace(explained, name=f"{name}\u202e\u2066\x9b\ufffe").html())
    assert found.text["title"] == f"What the network did with {name}" + 4 * "\ufffd"


@pytest.mark.parametrize(
    ("logits", "decimals", "texts"),
    [
        ((12.5, -0.0001, 2.0625), 3, ("12.500", "0.000", "2.063")),  # as toFixed rounds halves
        ((0.0625, -3e-5, -0.0), 5, ("0.06250", "\u22120.00003", "0.00000")),
        ((0.0, 0.0, 0.0), 3, ("0.000",) * 3),
        ((-3e38, 1e-30, 0.0), 3, ("\u2212" + str(3 * 10**38)[:9], "0.000", "0.000")),
    ],
)
def test_the_table_has_the_digits_of_the_script(explained, logits, decimals, texts):
    values = np.array([*logits, 0, 0])
    text = replace(explained, logits=values).html()
    cells = re.findall(r'<td class="number">([^<%]*)</td>', text)
    assert data_in(text)["decimals"] == decimals
    assert len(cells) == 5
    assert all(cell.startswith(wanted) for cell, wanted in zip(cells, texts, strict=False))


def test_what_a_probability_is(explained, text):
    assert "A softmax turns the logits" in text
    several = replace(explained, spec=replace(explained.spec, head="sigmoid")).html()
    assert "A sigmoid turns each logit into a probability of its own" in several
    assert "A softmax" not in several


def test_a_page_that_is_too_large_is_refused(explained, monkeypatch):
    monkeypatch.setattr(page, "MOST_BYTES", 50_000)
    paths = explained.spec.cardinality
    words = f"5 MB are the most: the network has 6 blocks of {paths} paths"
    with pytest.raises(UsageError, match=rf"{words}; .*--top, top=.*--block, block="):
        explained.html()


def test_maps_are_coarser_where_the_page_would_be_too_large(explained, text, monkeypatch):
    monkeypatch.setattr(page, "MOST_BYTES", len(text.encode()) - 1)
    shorter = explained.html()
    before, after = ([b["maps"] for b in data_in(t)["blocks"]] for t in (text, shorter))
    assert [one["factor"] for one in before] == [1] * 6
    assert [one["factor"] for one in after] == [2, 2, 1, 1, 1, 1]


def test_a_page_that_is_too_large_is_refused_before_the_work(
    explained, text, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(explain, "record", None)  # nothing is computed
    spec, kinds = explained.spec, ("shares", "channelMeans", "effects", "exact")
    size = page.NUMBER_BYTES * 6 * (spec.cardinality + 2) * (2 + 5 + 5)
    assert size <= sum(len(json.dumps(b[kind])) for b in data_in(text)["blocks"] for kind in kinds)
    monkeypatch.setattr(page, "MOST_BYTES", size - 1)
    page.check_size(spec, 4, "all")
    page.check_size(spec, 5, "layer1.0")
    out = tmp_path / "a.html"
    assert main(["explain", str(DATA / "chelsea.jpg"), "-o", str(out), "--block", "all"]) == 2
    assert "5 MB are the most" in capsys.readouterr().err


def test_large_networks_have_coarser_maps(explained, monkeypatch):
    terms, maps = len(explained.blocks[0].names), 2 + len(explained.classes)
    monkeypatch.setattr(page, "MAP_BYTES", 6 * terms * maps * 2 * 16)  # 4 x 4 values a map
    data = page.data_of(explained)
    assert [block["maps"]["factor"] for block in data["blocks"]] == [4, 4, 2, 2, 1, 1]


def test_the_command(explained, tmp_path, capsys):
    out = tmp_path / "report.html"
    words = ["explain", str(DATA / "chelsea.jpg"), "-o", str(out)]
    first, second, third = explained.predictions[:3]
    assert main([*words, "--class", third.label, "--block", "layer1.0", "--top", "2"]) == 0
    said = f"{first.label}, {first.probability:.1%}"
    assert capsys.readouterr().out.startswith(f"{DATA / 'chelsea.jpg'}: {said}; open {out}")
    data = data_in(out.read_text("utf-8"))
    wanted = [guess.label for guess in (first, second, third)]
    assert [one["name"] for one in data["classes"]] == wanted
    assert data["label"] == 2
    assert [block["exact"] is not None for block in data["blocks"]] == [True] + [False] * 5
    assert main(words) == 2
    assert "--force" in capsys.readouterr().err
    assert main([*words, "--force", "--block", "layer8"]) == 2
    assert main(["explain", str(DATA / "README.md"), "-o", str(tmp_path / "a.html")]) == 1
    assert not (tmp_path / "a.html").exists()
    assert main(["explain", str(out), "-o", str(out), "--force"]) == 2


def test_too_many_classes_are_refused_before_a_model_is_loaded(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tinyresnext.inference.files.load", None)
    words = ["explain", str(DATA / "chelsea.jpg"), "-o", str(tmp_path / "a.html"), "--top"]
    assert main([*words, "21"]) == 2
    assert "--top is 21; give a whole number of classes from 1 to 20" in capsys.readouterr().err
    with pytest.raises(TypeError):  # the model would be loaded
        main([*words, "20"])


@pytest.mark.slow
def test_a_large_network():
    """ResNeXt-50: 16 blocks of 32 paths. The weights do not matter for the size."""
    model = tr.random_model("resnext50_32x4d")
    found = tr.explain(model, DATA / "chelsea.jpg")
    text = found.html()
    read(text)
    assert len(text.encode()) < 5e6
    assert len(data_in(text)["blocks"]) == 16
