"""What the commands `train` and `finetune` share.

`network` and `recipe` have the options that say what is trained and how; `resume` finds them again
in the folder of a run.
"""
