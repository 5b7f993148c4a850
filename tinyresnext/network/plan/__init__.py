"""Plans for inference: a network for one input shape as a straight line of fused kernel calls.

`programs` prepares a network once, for all its plans. `sections` decides how many samples go
through each call together, `plan` gives the values memory and runs the calls, `profile` times and
prints them.
"""

from ..count import macs
from .plan import Plan, planned
from .programs import Program, chosen_stages, program

__all__ = ["Plan", "Program", "chosen_stages", "macs", "planned", "program"]
