"""A small published model for tests."""

from __future__ import annotations

import cases

from tinyresnext import Preprocess, Spec
from tinyresnext.hub.entry import Entry, Score

SPEC = Spec((1, 1), 4, 8, 10)
LABELS = tuple("abcdefghij")
NAME = "resnext8_4x8d.test_set"


def checkpoint() -> bytes:
    """Its file."""
    return cases.checkpoint(cases.weights(SPEC), legacy=True)


def entry(url: str = "", sha256: str = "", **more: object) -> Entry:
    """What a catalogue would say of it."""
    values = {
        "name": NAME,
        "system": "test",
        "spec": SPEC,
        "urls": (url,) if url else (),
        "licence": "MIT",
        "pipeline": "test",
        "preprocess": Preprocess(64, 56, "bicubic"),
        "page": "https://models.example/",
        "file": "net.pth",
        "sha256": sha256,
        "labels": LABELS,
        "scores": (Score("test", 50.0, None, "test"),),
    }
    return Entry(**(values | more))
