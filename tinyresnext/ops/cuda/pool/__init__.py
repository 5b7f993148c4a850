"""Poolings: over windows (`maximum`, `average`, `blur`) and over all positions (`mean`, `excite`).

Read `window` (what they share) first. No gradient needs an atomic addition: a thread has one place
of the image and adds up what the windows around it pass to it, in the order of the windows.
"""
