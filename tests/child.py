"""Run Python code in another process, which finds the package and the modules of the tests."""

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
    """Run Python code in another process."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=ENVIRONMENT | environment,
        check=False,
    )
