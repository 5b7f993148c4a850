"""Plans for inference: a network for one input shape as a straight line of fused kernel calls.

`programs` prepares a network once, for all its plans. `sections` decides how many samples go
through each call together, `plan` gives the values memory and runs the calls, `profile` times and
prints them. `quantised` says what a quantised network computes with integers, and `calibration`
finds the scales of its values.
"""

from ..count import macs
from .plan import Plan, planned
from .programs import Program, chosen_stages, program
from .quantised import Quantisation

__all__ = ["Plan", "Program", "Quantisation", "chosen_stages", "macs", "planned", "program"]
