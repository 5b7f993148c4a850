"""From PTX to Python: instructions, where registers are, and a line of NumPy for each instruction.

Read `parse`, then `outside`, `marks`, `registers`, `known` (what may be written), `write` (memory
and other threads), `compute` (everything else) and `arithmetic` (what NumPy lacks).
"""
