"""Fuzz a reader with atheris (the extra ``fuzz``): libFuzzer, guided by branches.

``python tests/fuzz/with_atheris.py READER [options of libFuzzer]``
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).parent)]
with atheris.instrument_imports(include=["tinyresnext"]):
    from readers import READERS

    from tinyresnext.errors import TinyResNeXtError


def main() -> None:
    """Run until libFuzzer stops; a finding ends it and is kept as a file."""
    name, *options = sys.argv[1:]
    reader = READERS[name]

    def one(data: bytes) -> None:
        with contextlib.suppress(TinyResNeXtError):
            reader.read(data)

    corpus = Path(tempfile.mkdtemp(prefix="corpus-"))
    for number, data in enumerate(reader.seeds()):
        (corpus / str(number)).write_bytes(data)
    limits = ["-timeout=20", "-rss_limit_mb=2048", "-max_len=65536"]
    atheris.Setup([sys.argv[0], *limits, *options, str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
