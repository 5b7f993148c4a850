"""What commands with long runs share.

`images` and `rows` are for commands that read any number of images: which ones were typed, and the
file that their rows go to; `cluster` lets the workers of Dask compute them. `evaluation` is the
command `evaluate`, and `scores` its rows. `network` and `recipe` have the options of `train` and
`finetune` that say what is trained and how; `resume` finds them again in the folder of a run.
`models` loads the models that predict together, or that a network learns from. `ranks` makes a
process one of several that train together.
"""
