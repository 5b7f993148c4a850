"""Poolings and their gradients, window by window.

Channels come last, so a window is walked tap by tap and every tap is a vector over the channels.
Forward, each line of the result is one task, or of the global mean, some channels of one sample;
backward, a task is a sample. A window is first cut to the part that lies inside the image; padding
is never read, so it cannot win a maximum and adds nothing to a sum. Read `window` first. `excite`
is what squeeze and excitation does with a mean over all positions: it scales the channels by it.
`maximum`, `average`, `blur` and `mean` are one pooling each.
"""
