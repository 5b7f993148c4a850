"""How threads share the work of prepared calls.

Read `walk` first: a step is a kernel with its arrays, and all threads walk down a table of steps.
`chains` makes one call of many, and lets steps that hand values on take a few samples each in turn;
`pace` is what a step says about that.
"""

from .chains import Chain, Early, chain
from .pace import Pace
from .walk import Step

__all__ = ["Chain", "Early", "Pace", "Step", "chain"]
