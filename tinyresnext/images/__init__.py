"""From an image file to the input of a network, and the random changes of images in training.

Read `preprocess` first: it holds what a model expects. `prepare` puts the steps in order: `files`
opens image files safely, `decode` turns images upright, `resize` and `torch7` bring them to size.
For training, `augmentation` changes images at random. The room knows nothing of networks. `checks`
checks the numbers of callers.
"""
