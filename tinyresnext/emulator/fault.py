"""What an emulator raises: a mistake of a kernel, where it is, and who made it."""

from __future__ import annotations

from ..errors import DeviceError


class KernelFault(DeviceError):
    """A kernel does what a GPU leaves undefined; a GPU would say nothing, and compute nonsense.

    Attributes
    ----------
    kind : str
        ``race``, ``unawaited copy``, ``unwritten``, ``bounds``, ``misaligned``, ``barrier``,
        ``shuffle`` or ``stack``.
    kernel : str
        The name of the kernel.
    """

    def __init__(self, kind: str, kernel: str, what: str, where: str = "") -> None:
        super().__init__(f"kernel {kernel}: {what}" + (f"\n  {where}" if where else ""))
        self.kind, self.kernel = kind, kernel
