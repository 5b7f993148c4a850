"""From an image file to the input of a network.

Read `preprocess` first: decode, resize, crop, normalise. `decode` opens files safely and turns
images upright, `torch7` resizes as the authors' code does, and `augment` varies images for
training. The room knows nothing of networks.
"""
