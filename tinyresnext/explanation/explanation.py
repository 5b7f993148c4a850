"""What an explanation holds: arrays for Python, and one HTML page for people."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from ..inference.heads import Prediction
from ..network.resnext import Block
from ..network.spec import Spec
from ..system.checks import check_ending
from ..system.writing import replacing
from .maps import Channel

PAGES = (".html", ".htm")  # endings

__all__ = ["Explanation", "Stage", "Terms"]


@dataclass(frozen=True, eq=False)
class Stage:
    """What a stage of the network made of the image.

    Attributes
    ----------
    name : str
        Such as ``layer1``.
    shape : (h, w, c)
        Of its output.
    grad_cam : [classes, h, w]
        Grad-CAM for each explained class.
    channels : tuple of Channel
        The strongest ones.
    """

    name: str
    shape: tuple[int, ...]
    grad_cam: np.ndarray
    channels: tuple[Channel, ...]

    def __repr__(self) -> str:
        return f"<Stage {self.name}: {self.shape}>"


@dataclass(frozen=True, eq=False)
class Terms:
    """The terms of a block: its paths in their order, the shift of the batch norm, the shortcut.

    They add up to the block's output before its last ReLU, which is called y here.

    Attributes
    ----------
    block : Block
    shape : (h, w, c)
        Of y.
    share_maps : [terms, h, w]
        For each position, the product of the term with y, over the sum of all squares of y. A map
        adds up to the term's share, and the shares of all terms to 1.
    effect_maps : [classes, terms, h, w]
        For each position, the product of the term with the gradient of the logit for y. A map adds
        up to the term's effect on that class, to first order.
    channel : int
        The channel of the block's output that has the largest mean.
    channel_maps : [terms, h, w]
        What the terms add to that channel; their sum is that channel of y.
    exact : [classes, terms], optional
        What the logit loses when the term is left out and the rest of the network runs again.
    """

    block: Block
    shape: tuple[int, ...]
    share_maps: np.ndarray
    effect_maps: np.ndarray
    channel: int
    channel_maps: np.ndarray
    exact: np.ndarray | None

    def __repr__(self) -> str:
        return f"<Terms of {self.block.name}: {len(self.names)} terms of {self.shape}>"

    @property
    def names(self) -> tuple[str, ...]:
        """Return what each term is called."""
        paths = len(self.share_maps) - 2
        return (*(f"path {i}" for i in range(paths)), "shift", "shortcut")

    @property
    def shares(self) -> np.ndarray:
        """Return the share of each term [terms] of the block's output."""
        shares: np.ndarray = self.share_maps.sum((1, 2))
        return shares

    @property
    def effects(self) -> np.ndarray:
        """Return the effect [classes, terms] of each term on each logit, to first order."""
        effects: np.ndarray = self.effect_maps.sum((2, 3))
        return effects


@dataclass(frozen=True, eq=False)
class Explanation:
    """What a network did with one image; `save` writes it as one HTML page.

    Attributes
    ----------
    name : str
        Of the image.
    spec : Spec
    image : uint8 [h, w, 3] or [h, w, 1]
        As the network sees it: resized and cropped.
    predictions : list of Prediction
        The most probable classes.
    classes : list of Prediction
        Those that are explained: the most probable ones, and the one that was asked for. The first
        axis of the arrays above is in this order.
    label : int
        The place in ``classes`` of the class that was asked for, else of the most probable one.
    logits, biases : [classes]
        The logit, and the classifier's bias, of each explained class.
    cam : [classes, h, w]
        Class activation maps: the mean of one, plus the bias, is the logit.
    stages : tuple of Stage
    blocks : tuple of Terms
    """

    name: str
    spec: Spec
    image: np.ndarray
    predictions: list[Prediction]
    classes: list[Prediction]
    label: int
    logits: np.ndarray
    biases: np.ndarray
    cam: np.ndarray
    stages: tuple[Stage, ...]
    blocks: tuple[Terms, ...]

    def __repr__(self) -> str:
        labels = ", ".join(guess.label for guess in self.classes)
        return f"<Explanation of {self.name} by {self.spec.name}: {labels}>"

    def html(self) -> str:
        """Return the page: it needs nothing but a browser, and no network.

        Raises
        ------
        UsageError
            It would be larger than 5 MB.
        """
        from .report.page import page

        return page(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page to a file, ``.html`` or ``.htm``, whole or not at all.

        A file of this name is written over.

        Raises
        ------
        UsageError
            The page would be larger than 5 MB, the file cannot be written, or its name ends
            otherwise.
        """
        check_ending(path, PAGES, "a page (HTML)")
        text = self.html()
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
