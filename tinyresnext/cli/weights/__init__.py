"""The commands `convert`, `export`, `quantise` and `verify`: weights of other programs, and back.

`commands` adds all four and runs the first and the last; `export` and `quantise` run the others.
`labels` reads the file that `convert --labels` names.
"""
