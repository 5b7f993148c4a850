"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tinyresnext.ops import cpu, reference


@pytest.fixture(params=["reference", "cpu"])
def ops(request):
    """Each backend in turn."""
    return {"reference": reference, "cpu": cpu}[request.param]


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """A folder with ``images/`` and ``reference/``: photographs and full-size cases that are too large to carry along."""
    folder = os.environ.get("TINYRESNEXT_REFERENCE")
    if not folder:
        pytest.skip("set TINYRESNEXT_REFERENCE to the folder of full-size references to run this")
    return Path(folder)
