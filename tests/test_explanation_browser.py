"""The page of an explanation in a browser: what a person does, and what the page then shows.

These tests need headless Chromium: run them with ``-m browser``.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import browser
import numpy as np
import pytest

import tinyresnext as tr

pytestmark = pytest.mark.browser
DATA = Path(__file__).parent / "data"
OFF = "[...document.querySelectorAll('#terms input')].map(b => !b.checked)"
TERMS = "[...document.querySelectorAll('#terms .name')].map(n => n.textContent.trim())"
# The red, green and blue of a pixel, and how opaque it is, of every canvas in a list.
PIXELS = """[...document.querySelectorAll('%s canvas')].map(c => [...c.getContext('2d')
  .getImageData(0, 0, c.width, c.height).data])"""
FOCUSED = """(e => e.id || e.name || e.getAttribute('href') || 'term')(document.activeElement)"""
CHOOSE = """(([id, value]) => { const s = document.getElementById(id); s.value = value;
  s.dispatchEvent(new Event('change')); })(%s)"""


@pytest.fixture(scope="module")
def explained() -> tr.Explanation:
    return tr.explain(tr.load(), DATA / "chelsea.jpg", block="layer2.1")


@pytest.fixture(scope="module")
def page(explained, tmp_path_factory):
    program = browser.found()
    if program is None:
        pytest.skip(f"none of {', '.join(browser.NAMES)} is installed")
    folder = tmp_path_factory.mktemp("browser")
    explained.save(folder / "report.html")
    with browser.browser(program, folder) as opened:
        opened.file = folder / "report.html"
        yield opened
        assert opened.problems == []
        assert all(url.startswith(("file:", "data:")) for url in opened.requests)


@pytest.fixture
def fresh(page):
    page.open(page.file)
    yield page
    assert page.problems == []


def choose(page, name: str, value: str) -> None:
    page.run(CHOOSE % json.dumps([name, value]))


def text(page, name: str) -> str:
    return page.run(f"document.getElementById('{name}').textContent").replace("\u2212", "-")


def block(page, name: str) -> None:
    labels = "[...document.querySelectorAll('#blocks label')]"
    page.run(f"{labels}.find(l => l.textContent.trim() == '{name}').click()")


def test_it_opens(fresh, explained):
    assert text(fresh, "block-title") == "One block: layer3.1"
    assert fresh.run(TERMS) == list(explained.blocks[-1].names)
    assert fresh.run("document.querySelectorAll('#evidence figure').length") == 4
    assert fresh.run("document.querySelectorAll('#blocks tbody tr').length") == 6
    assert f"{explained.logits[0]:.3f}" in text(fresh, "sum")
    assert fresh.run("document.documentElement.scrollWidth <= window.innerWidth")


def test_choosing_a_block_by_its_strip(fresh):
    fresh.run("document.querySelectorAll('#blocks canvas')[2].click()")
    assert text(fresh, "block-title") == "One block: layer2.0"
    assert fresh.run("document.querySelector('#blocks :checked').value") == "2"
    assert "half as many each way" in text(fresh, "about")
    assert "--block layer2.0" in text(fresh, "exact-about")


def test_shortcuts_and_excitations_are_said(page, explained):
    """On the page of the bundled network, and as if it had squeeze and excitation."""
    page.open(page.file)
    block(page, "layer2.0")
    assert "a 1x1 convolution of the means of 2x2 values" in text(page, "about")
    assert "comes from constants of later layers. Paths" in text(page, "view-about")
    excited = replace(explained, spec=replace(explained.spec, se_reduction=16))
    excited.save(page.file.with_name("excited.html"))
    page.open(page.file.with_name("excited.html"))
    assert "comes from constants of later layers. Paths" in text(page, "view-about")  # the last one
    block(page, "layer2.0")
    said = text(page, "view-about")
    assert "later layers, and from the factors of squeeze and excitation in later blocks." in said


def test_switching_a_path_off(fresh, explained):
    block(fresh, "layer2.1")
    terms = explained.blocks[3]
    fresh.run("document.querySelectorAll('#terms input')[1].click()")
    off = [number == 1 for number in range(len(terms.names))]
    assert fresh.run(OFF) == off
    best = int(np.argmax(terms.effects[0, :-2]))
    assert f"Path {best} ({terms.effects[0, best]:+.3f}) raises it most" in text(
        fresh, "view-about"
    )
    added = terms.effects[0, :-1].sum()
    assert f"Paths and shift together, which the block adds to its shortcut: {added:+.3f}" in text(
        fresh, "view-about"
    )
    said = text(fresh, "sum")
    logit, first, exact = explained.logits[0], terms.effects[0, 1], terms.exact[0, 1]
    for value in (logit, logit - first, logit - exact):
        assert f"{value:.3f}" in said
    captions = text(fresh, "sums")
    total = terms.effects[0].sum()
    assert f"{total:+.3f}" in captions
    assert f"{total - first:+.3f}" in captions
    fresh.run("document.getElementById('swap').click()")
    assert fresh.run(OFF) == [not one for one in off]
    assert f"these {len(off) - 1} terms" in text(fresh, "sum")
    fresh.run("document.getElementById('all').click()")
    assert fresh.run(OFF) == [False] * len(off)
    fresh.run("document.getElementById('none').click()")
    assert fresh.run(OFF) == [True] * len(off)


def test_the_sum_is_drawn_from_the_terms(fresh, explained):
    """Of each pixel, opacity and colour are the value over the largest one."""
    terms = explained.blocks[-1]
    fresh.run("document.querySelector('#views input[value=share]').click()")
    fresh.run("[...document.querySelectorAll('#terms input')].at(-1).click()")
    whole, kept = terms.share_maps.sum(0), terms.share_maps[:-1].sum(0)
    most = max(np.abs(whole).max(), np.abs(kept).max())
    for wanted, drawn in zip((whole, kept), fresh.run(PIXELS % "#sums"), strict=True):
        pixels = np.array(drawn).reshape(4, 4, 4)
        np.testing.assert_allclose(pixels[..., 3], 255 * np.abs(wanted) / most, atol=0.6)
        seen = pixels[..., 3] > 20
        assert (pixels[..., 0] > pixels[..., 2])[seen].tolist() == (wanted > 0)[seen].tolist()


def test_sorting(fresh, explained):
    terms = explained.blocks[-1]
    for key, values in (
        ("share", terms.shares),
        ("effect", terms.effects[0]),
        ("size", np.abs(terms.effects[0])),
    ):
        choose(fresh, "sort", key)
        order = np.argsort(-values, kind="stable")
        assert fresh.run(TERMS) == [terms.names[i] for i in order], key


def test_comparing_two_classes(fresh, explained):
    names = [guess.label for guess in explained.classes]
    choose(fresh, "second", "2")
    assert f"the logit of {names[0]} minus that of {names[2]}" in text(fresh, "cam-sum")
    shown = "[...document.querySelectorAll('#evidence figcaption')].map(c => c.textContent)"
    exact, *estimates = fresh.run(shown)
    assert exact.endswith("map (exact), difference")
    assert all(one.endswith(", difference of the two classes' maps") for one in estimates)
    drawn = "document.querySelector('#evidence figure:nth-child(2) [aria-label]').ariaLabel"
    said = [f"Grad-CAM, layer1, of {names[i]}" for i in (0, 2)]
    assert fresh.run(drawn).startswith(f"Difference of {said[0]} and {said[1]}")
    block(fresh, "layer2.1")
    terms = explained.blocks[3]
    cards = text(fresh, "terms")
    for effects in (terms.effects, terms.exact):
        for value in effects[0] - effects[2]:
            assert f"{value:+.3f}" in cards
    assert f"{explained.logits[0] - explained.logits[2]:.3f}" in text(fresh, "sum")
    choose(fresh, "first", "1")
    assert f"{names[1]} minus that of {names[2]}" in text(fresh, "sum")
    choose(fresh, "first", "2")  # compared with itself: nothing to compare
    assert "minus" not in text(fresh, "cam-sum").replace("\u2212", "")
    assert fresh.run("document.getElementById('second').value") == "-1"
    assert fresh.run("document.getElementById('second').options[3].disabled")


def test_the_keyboard(fresh, explained):
    """Every choice can be reached with Tab, and made with the arrows and the space bar."""
    reached = []
    for _ in range(40):
        fresh.press("Tab", 9)
        reached.append(fresh.run(FOCUSED))
        if reached[-1] == "block":
            break
    assert {"first", "second", "block"} <= set(reached)
    fresh.press("ArrowUp", 38)
    assert text(fresh, "block-title") == "One block: layer3.0"
    reached = []
    for _ in range(20):
        fresh.press("Tab", 9)
        reached.append(fresh.run(FOCUSED))
        if reached[-1] == "term":
            break
    assert reached == ["view", "sort", "all", "none", "swap", "#notes", "term"]
    fresh.press(" ", 32, " ")
    assert fresh.run(OFF) == [number == 0 for number in range(len(explained.blocks[0].names))]
    assert fresh.run("document.activeElement.value") == "0"
    assert "Without path 0" in text(fresh, "sum")


def test_a_screen_reader(fresh):
    """What it reads: every control and every map has a name, and the sum is announced."""
    nodes = fresh.call("Accessibility.getFullAXTree")["nodes"]
    found: dict[str, list[str]] = {}
    for node in nodes:
        if not node.get("ignored"):
            role, name = (node.get(key, {}).get("value", "") for key in ("role", "name"))
            found.setdefault(role, []).append(name)
    for role in ("checkbox", "radio", "combobox", "button", "image", "link"):
        names = found.get(role) or found["img"] if role == "image" else found[role]
        assert names, role
        assert all(names), role
    assert any(name.startswith("path 1 share") for name in found["checkbox"])
    assert found["main"] is not None
    assert "status" in found
    assert fresh.run("[...document.querySelectorAll('h1,h2,h3')].map(h => h.tagName)[0]") == "H1"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(fresh, scheme):
    """Text has a contrast of at least 4.5 with what is behind it (WCAG 2.2, 1.4.3)."""
    fresh.call(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
    )
    colours = fresh.run("""(() => { const s = getComputedStyle(document.documentElement);
      return ['back', 'card', 'ink', 'soft', 'accent', 'for', 'against'].map(
        n => s.getPropertyValue('--' + n).trim()); })()""")

    def light(colour: str) -> float:
        parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    for behind in map(light, colours[:2]):
        for text_colour in map(light, colours[2:]):
            low, high = sorted((behind, text_colour))
            assert (high + 0.05) / (low + 0.05) >= 4.5
    fresh.call("Emulation.setEmulatedMedia", features=[])


def test_print(fresh):
    got = fresh.call("Page.printToPDF", printBackground=False)
    assert len(got["data"]) > 20_000
    fresh.call("Emulation.setEmulatedMedia", media="print")
    hidden = fresh.run(
        "getComputedStyle(document.getElementById('sort').parentNode.parentNode).display"
    )
    assert hidden == "none"
    fresh.call("Emulation.setEmulatedMedia", media="")


def test_a_narrow_screen(fresh):
    fresh.call(
        "Emulation.setDeviceMetricsOverride",
        width=360,
        height=800,
        deviceScaleFactor=1,
        mobile=False,
    )
    assert fresh.run("document.documentElement.scrollWidth") <= 360
    for part in ("#blocks caption", "#evidence figure:nth-child(2)"):
        box = fresh.run(f"document.querySelector('{part}').getBoundingClientRect().toJSON()")
        assert 0 <= box["left"] < box["right"] <= 360, part
    fresh.call("Emulation.clearDeviceMetricsOverride")
