"""The command line: one file for each group of commands, with the options beside what runs them.

Start with `main`, which parses, runs one command and turns errors into exit codes. Each group has
one function `add_commands`. `options` has what several commands share, `output` what they print. A
start imports and adds only what the command needs: `--version` answers at once. The groups are
`predict`, `inside`, `train` (with `runs`), `weights`, `hub` and `machine`.
"""
