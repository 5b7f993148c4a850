"""One reader for each container that checkpoints come in. Nothing in a file is ever run.

Start with `container`, which finds out what a file is by its content, and `checkpoint`, which says
what every reader returns. `examine` judges names, shapes and numbers. `pickled` reads PyTorch's
files, `safetensors`, `npz`, `torch7` and `keras_h5` the others, and `parts` a checkpoint in several
files.
"""
