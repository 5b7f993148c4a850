"""What the rows of a run depend on, as it stands beside them on the disk.

Settings have to be the same when a run goes on. What computes may be another machine: that decides
the last digits only, and is said.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ....data.dataset import to_stderr
from ....errors import FormatError, UsageError
from ....ops import Backend
from ....system.files import regular, shown
from ....system.version import computing

__all__ = ["OVER", "PLACE", "as_json", "check_settings", "computed_on"]

PLACE = "computed on"  # the name that `computed_on` has beside the settings
OVER = "writes over"  # beside them: whether the run was begun with --force
_MOST = 1 << 20  # bytes


def computed_on(ops: Backend) -> str:
    """Return what the last digits of values depend on: the device, its kind, and packages."""
    return f"{ops.described()} ({computing(ops.kind())})"


def as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as they are read again from JSON.

    Raises
    ------
    UsageError
        JSON has no such values.
    """
    try:
        found: dict[str, Any] = json.loads(json.dumps(dict(settings)))
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"the settings of a run are {settings!r:.200}, which JSON cannot say ({error}); give "
            "texts, numbers, and lists of them"
        ) from None
    return found


def check_settings(beside: str, part: str, settings: Mapping[str, Any]) -> bool:
    """Raise `UsageError` unless the rows were computed with these settings.

    Say so if something else computed them, where both are known. Return whether the run was begun
    with ``--force``, to write over a file.
    """
    try:
        with regular(beside) as file:
            before = json.loads(file.read(_MOST))
        there, here = before.get(PLACE), settings.get(PLACE)
        names = [*before, *(name for name in settings if name not in before)]
    except (FormatError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{shown(beside)}, which says how the rows of {shown(part)} were computed, cannot be "
            f"read ({error}); begin anew (--force)"
        ) from None
    if "version" in settings and "version" not in before:
        raise UsageError(
            f"the rows of {shown(part)} were computed by an earlier version, which did not say "
            f"which, and now it is {settings['version']!s:.200}; begin anew (--force)"
        )
    for name in names:
        if name not in (PLACE, OVER) and before.get(name) != settings.get(name):
            raise UsageError(
                f"the rows of {shown(part)} were computed with {name} {before.get(name)!s:.200}, "
                f"and now it is {settings.get(name)!s:.200}; give the same, or begin anew (--force)"
            )
    if there and here and there != here:
        to_stderr(
            f"the rows of {shown(part)} were computed on {there}, and the others will be on "
            f"{here}: their last digits may differ"
        )
    return before.get(OVER) is True
