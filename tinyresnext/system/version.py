"""The version, and those of the packages that compute."""

__version__ = "0.1.0"


def computing(kind: str) -> str:
    """Return what last digits depend on: NumPy and Pillow, and in front a kind of processor.

    ``kind`` is that of a backend, which may be empty.
    """
    import numpy as np  # late: who asks for the version alone needs neither
    import PIL

    packages = f"NumPy {np.__version__}, Pillow {PIL.__version__}"
    return f"{kind}, {packages}" if kind else packages
