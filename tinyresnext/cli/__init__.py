"""The command line: one file for each group of commands, with the options beside what runs them.

Start with `main`, which parses, runs one command and turns errors into exit codes. Each group has
one function `add_commands`. `options` has what several commands share, `output` what they print.
Imports of everything that is slow to load wait inside the function that runs a command.
"""
