"""Python code in a process of its own, which finds the package and the tests' own modules."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import tinyresnext

HOME = Path(tinyresnext.__file__).parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(HOME), str(Path(__file__).parent)])}


def child(
    code: str, *arguments: object, timeout: float = 60, **environment: str
) -> subprocess.CompletedProcess:
    """Run Python code in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=ENVIRONMENT | environment,
        check=False,
    )
