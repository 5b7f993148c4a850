"""Write files where others may have put something: links, pipes, devices.

A name means a file that this package wrote, or nothing. What else has it is not followed, not
opened for writing and not replaced: a link could lead to any file of the user, and a pipe could
block for ever. `ours` tells such files and opens them, `locks` keeps other processes from them, and
`replace` writes a file anew in one step.
"""

from .locks import locked
from .ours import opened, present
from .replace import NewName, check_writable, renamed, replacing

__all__ = ["NewName", "check_writable", "locked", "opened", "present", "renamed", "replacing"]
