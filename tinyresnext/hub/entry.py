"""What the catalogue says of one published model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ..images.preprocess import Preprocess
from ..network.spec import Spec

__all__ = ["Entry", "Pipeline", "Score"]

FREE = ("Apache-2.0", "BSD-3-Clause", "MIT")  # these allow every use


class Pipeline(NamedTuple):
    """How a system prepares images.

    Parameters
    ----------
    preprocess : Preprocess
    picture : str
        Which reference images it has been compared with, to the pixel; empty for none.
    measured : str
        How the system prepared images for the accuracies that it published, where that was
        otherwise, or may have been; empty where it was as here.
    """

    preprocess: Preprocess
    picture: str = ""
    measured: str = ""


class Score(NamedTuple):
    """Published accuracy in percent.

    It is that of single images cut by the pipeline, on the data set that the labels are of; but
    where ``measured`` says how they were prepared, the pipeline is only the nearest that there is.
    """

    pipeline: str
    top1: float
    top5: float | None
    by: str
    measured: str = ""


@dataclass(frozen=True)
class Entry:
    """One published model.

    Parameters
    ----------
    name : str
        ``architecture.tag``.
    system : str
        Whose code it was published for.
    spec : Spec
    urls : tuple of str
        Where its file is; the same bytes everywhere. Empty if no program can fetch it.
    licence : str
        Its name in SPDX.
    pipeline : str
        Its name in the manifest.
    preprocess : Preprocess
        What the model carries: the pipeline's.
    page : str
        Where it is described.
    file : str
        The name of its file.
    sha256 : str
        All 64 digits or as many as are published; may be empty.
    md5 : str
    bytes : int, optional
        Of the file.
    labels : tuple of str, optional
        None means ImageNet's.
    hub : str
        Its repository on the Hugging Face Hub.
    millions, gmacs : float, optional
        Parameters and multiply-adds, as published.
    scores : tuple of Score
        The model is known by the first.
    note : str
        What users should know.
    unreadable : str
        Why it cannot become one of our models.
    """

    name: str
    system: str
    spec: Spec
    urls: tuple[str, ...]
    licence: str
    pipeline: str
    preprocess: Preprocess
    page: str
    file: str
    sha256: str = ""
    md5: str = ""
    bytes: int | None = None
    labels: tuple[str, ...] | None = None
    hub: str = ""
    millions: float | None = None
    gmacs: float | None = None
    scores: tuple[Score, ...] = ()
    note: str = ""
    unreadable: str = ""

    @property
    def architecture(self) -> str:
        """The part of the name before the tag."""
        return self.name.partition(".")[0]

    @property
    def free(self) -> bool:
        """Whether its licence allows every use."""
        return self.licence in FREE

    @property
    def top1(self) -> float | None:
        """Published accuracy for the pipeline that it carries, or for the nearest to it."""
        return None if self.score is None else self.score.top1

    @property
    def score(self) -> Score | None:
        """What was published for the pipeline that it carries."""
        return next((score for score in self.scores if score.pipeline == self.pipeline), None)
