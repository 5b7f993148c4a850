"""Try a run before it is paid for.

`overfit` checks that the first mini-batch can be learnt by heart; `preview` shows the images, the
learning rate, the memory and the time of a run that has not begun.
"""
