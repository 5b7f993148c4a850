"""The contract of a backend: the functions that the package may call on a backend.

A backend is a module with the functions of `Backend`. The reference defines what each computes;
other backends compute the same, faster or elsewhere. An array of a backend (`Array`) belongs to it
alone: nobody outside `tinyresnext.ops` indexes it, assigns to it or passes it to NumPy. Others may
read its ``shape`` and ``dtype``, pass it to a function of the same backend, and ``download`` it.

=============  ====================================================================================
functions      what they do
=============  ====================================================================================
the ops        compute (`forward`), and compute gradients (`gradients`)
placing        ``empty upload download view pack``: where arrays are
running        ``bind chain repeated wait at_once``: calls that are prepared once and made many
               times
updating       ``sgd_step adamw_step lamb_step rmsprop_step muon_step``: weights in training, in
               place; ``clip_norm_step clip_value_step clip_units_step`` for gradients, before
               them; ``average_step statistics_step``, after them
the machine    ``described kind thread_count loaders on_threads when_compiling peak``; the kernels
               on disk: ``kernels_kept kernels_problem clear_kernels``
=============  ====================================================================================

The functions that are not ops stand in `device`. `integer` has those for quantised networks, which
not every backend has.
"""

from typing import Protocol

from .device import Compiling, Device, Kept, Peak
from .forward import Array, Ops
from .gradients import Gradients
from .integer import Integer

__all__ = ["Array", "Backend", "Compiling", "Integer", "Kept", "Peak"]


class Backend(Ops, Gradients, Device, Protocol):
    """Every function of a backend."""
