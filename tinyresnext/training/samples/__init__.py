"""What a step of training sees: images, and what it is to learn of them.

`given` refuses data sets of other types; `classes` makes labels and validation images fit the
network, and `seen` finds validation images that are trained on. `augmentation` turns what a recipe
says about images into what `tinyresnext.images.augmentation` takes; `targets` turns labels into
targets and weights, for each kind of head; `mixing` mixes images and their targets; `teacher` has
the models whose probabilities are learnt beside the labels; `sample` puts these together.
`dropping` draws what is left out of the network.
"""
