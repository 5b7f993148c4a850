"""The commands `convert`, `export` and `verify`: weights of other programs, and back.

`commands` has all three and runs the first and the last; `export` runs the second.
"""
