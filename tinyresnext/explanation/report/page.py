"""Fill the template of the page with an explanation."""

from __future__ import annotations

import base64
import html
import io
import json
import math
import re
from decimal import ROUND_HALF_UP, Context, Decimal
from functools import partial
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image

from ...errors import UsageError
from ...network.spec import Block, Spec, describe
from ...system.version import __version__
from ..explanation import Explanation, Stage, Terms
from .packed import factor_for, packed

__all__ = ["check_size", "data_of", "page"]

MEANING = {
    "softmax": "A softmax turns the logits of all classes into probabilities that sum to 1.",
    "sigmoid": "A sigmoid turns each logit into a probability of its own: an image may have any "
    "number of these labels.",
}
MINUS = "\N{MINUS SIGN}"
# Controls, ends of lines, what turns the direction of other text, and what UTF-8 or HTML cannot
# hold. Other spaces and joiners stay: names of screenshots and of many languages have them.
UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
    "\ufdd0-\ufdef\ufffe\uffff]"
)
MOST_BYTES = 5 * 10**6
NUMBER_BYTES = 18  # of a number as text, with the comma; few have less
SIDES = (28, 14, 7, 4, 2, 1)  # of the maps of terms
MAP_BYTES = 2_400_000  # of those maps
SIDE = 56  # of the maps of stages, of which there are few
MOST_PIXELS = 512  # a side of the image that the page shows


def check_size(spec: Spec, classes: int, block: str | None = None) -> None:
    """Raise the `UsageError` of `page` where an explanation need not be computed to see it.

    The numbers of terms alone are counted, so a page that passes may still be too large.

    Parameters
    ----------
    spec : Spec
    classes : int
        How many are explained.
    block : str, optional
        As in `explain`.
    """
    count, classes = sum(spec.blocks), min(classes, spec.classes)
    exact = count if block == "all" else 1
    numbers = (spec.cardinality + 2) * (count * (2 + classes) + exact * classes)
    if numbers * NUMBER_BYTES > MOST_BYTES:
        raise _too_large(numbers * NUMBER_BYTES, spec)


def page(explanation: Explanation) -> str:
    """Return the page; the maps of terms are as fine as it has room for.

    Raises
    ------
    UsageError
        It would be larger than 5 MB.
    """
    parts = {
        "style": _file("report.css"),
        "script": _file("maps.js") + _file("report.js"),
        "name": html.escape(_printable(explanation.name)),
        "network": html.escape(describe(explanation.spec)),
        "version": __version__,
        "image": _picture(explanation.image),
        "labels": _labels(explanation),
        "meaning": MEANING[explanation.spec.head],
    }
    size = 0
    for side in _sides(explanation):
        data = json.dumps(data_of(explanation, side), ensure_ascii=False, separators=(",", ":"))
        # Only this character could end a script element.
        parts["data"] = data.replace("<", "\\u003c")
        text = re.sub(r"<!--(\w+)-->", lambda mark: parts[mark[1]], _file("report.html"))
        if (size := len(text.encode("utf-8"))) <= MOST_BYTES:
            return text
    raise _too_large(size, explanation.spec)


def _too_large(size: int, spec: Spec) -> UsageError:
    """Return the error for a page of at least so many bytes."""
    return UsageError(
        f"the page would have {size / 1e6:.1f} MB or more, and 5 MB are the most: the network has "
        f"{sum(spec.blocks)} blocks of {spec.cardinality} paths; explain fewer classes (--top, "
        "top=), compute the exact effects of one block and not of all (--block, block=), or take "
        "the arrays of tinyresnext.explain"
    )


def _sides(explanation: Explanation) -> tuple[int, ...]:
    """Return how long sides of maps of terms may be: at most `MAP_BYTES`, the finest first."""
    return tuple(side for side in SIDES if _bytes(explanation, side) <= MAP_BYTES) or SIDES[-1:]


def data_of(explanation: Explanation, side: int = 0) -> dict[str, Any]:
    """Return what the page's script computes with, as a JSON object.

    ``side`` is the longest side of maps of terms; 0 for the longest of `_sides`.
    """
    e, side = explanation, side or _sides(explanation)[0]
    rows = zip(e.classes, e.logits.tolist(), e.biases.tolist(), strict=True)
    return {
        "label": e.label,
        "decimals": _decimals(e),
        "classes": [
            {
                "name": _printable(guess.label),
                "number": guess.index,
                "probability": guess.probability,
                "logit": logit,
                "bias": bias,
            }
            for guess, logit, bias in rows
        ],
        "cam": packed(e.cam[None], SIDE, mean=True),
        "stages": [_stage(stage) for stage in e.stages],
        "blocks": [_block(terms, side, e.spec, terms is e.blocks[-1]) for terms in e.blocks],
    }


def _stage(stage: Stage) -> dict[str, Any]:
    """Return a stage as a JSON object."""
    channels = np.stack([channel.map for channel in stage.channels])
    return {
        "name": stage.name,
        "shape": list(stage.shape),
        "gradCam": packed(stage.grad_cam[:, None], SIDE, mean=True),
        "channels": [{"number": c.number, "mean": c.mean} for c in stage.channels],
        "channelMaps": packed(channels[:, None], SIDE, mean=True),
    }


def _block(terms: Terms, side: int, spec: Spec, last: bool) -> dict[str, Any]:
    """Return a block as a JSON object; ``excited`` says whether later blocks have an excitation."""
    views = np.concatenate([terms.share_maps[None], terms.channel_maps[None], terms.effect_maps])
    return {
        "name": terms.block.name,
        "shape": list(terms.shape),
        "stride": terms.block.stride,
        "shortcut": _shortcut(terms.block, spec),
        "excited": spec.se_reduction > 0 and not last,
        "terms": list(terms.names),
        "channel": terms.channel,
        "shares": terms.shares.tolist(),
        "channelMeans": terms.channel_maps.mean((1, 2)).tolist(),
        "effects": terms.effects.tolist(),
        "exact": None if terms.exact is None else terms.exact.tolist(),
        "maps": packed(views, side),
    }


def _shortcut(block: Block, spec: Spec) -> str:
    """Return what a block's shortcut is: that of the block, or ``averaged``."""
    averaged = spec.avg_down and (block.stride > 1 or block.smooth)
    return "averaged" if averaged and block.shortcut == "projection" else block.shortcut


def _bytes(explanation: Explanation, side: int) -> int:
    """Return how much all maps of terms need whose sides are at most so long."""
    total = 0
    for terms in explanation.blocks:
        h, w, _ = terms.shape
        factor = factor_for((h, w), side)
        views = 2 + len(explanation.classes)
        total += 2 * views * len(terms.names) * -(-h // factor) * -(-w // factor)
    return total


def _picture(pixels: np.ndarray) -> str:
    """Return an image as a data URL of a PNG file."""
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    image.thumbnail((MOST_PIXELS, MOST_PIXELS))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _labels(explanation: Explanation) -> str:
    """Return the rows of the table of labels."""
    escape, decimals = partial(html.escape, quote=True), _decimals(explanation)
    return "\n".join(
        f'<tr><th scope="row">{escape(_printable(guess.label))}</th>'
        f'<td class="number">{_digits(logit, decimals)}</td>'
        f'<td class="number">{guess.probability:.1%}</td>'
        f'<td aria-hidden="true"><span class="bar" style="width:{guess.probability:.2%}"></span>'
        "</td></tr>"
        for guess, logit in zip(explanation.classes, explanation.logits.tolist(), strict=True)
    )


def _decimals(explanation: Explanation) -> int:
    """Return how many decimals of a logit the page has, for the table and for the script.

    Networks that are sure have logits of some units; those of random weights are far smaller.
    """
    unit = float(np.abs(explanation.logits).max()) or 1.0
    return min(9, max(3, 3 - math.floor(math.log10(unit))))


def _digits(value: float, count: int) -> str:
    """Return a number as ``digits`` of maps.js does: halves are rounded up, and no minus zero."""
    exact = Context(prec=400)  # for any float
    number = Decimal(value).quantize(Decimal(1).scaleb(-count), ROUND_HALF_UP, exact)
    return f"{number or abs(number):f}".replace("-", MINUS)


def _printable(text: str) -> str:
    """Return text with U+FFFD for what `UNPRINTABLE` finds, such as a name's undecodable bytes."""
    return UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def _file(name: str) -> str:
    """Return the text of a file of this folder."""
    return files(__package__).joinpath(name).read_text("utf-8")
