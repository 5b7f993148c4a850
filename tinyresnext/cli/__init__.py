"""The command line: one file for each group of commands, with the options beside what runs them.

Start with `main`, which parses, runs one command and turns errors into exit codes.
"""
