"""``python -m tinyresnext`` is the command line."""

import sys

from .cli.main import command

sys.exit(command())
