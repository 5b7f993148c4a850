"""The random changes of images in training.

Read `augment` first: `Augment` draws all changes and applies them in order. `crops` and `colour`
are the oldest ones; `operations` has those that policies choose from, `torchvision` and `timm` the
policies of these two libraries, `names` their names, and `policy` brings both together; `erase`
takes rectangles away.
"""
