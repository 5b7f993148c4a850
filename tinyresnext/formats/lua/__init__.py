"""Torch7's binary files of Lua objects, read without Lua.

`objects` reads the objects and says how they lie in the file; `source` reads bytes and numbers.
"""
