"""The exit statuses of commands, as the guide documents them."""

from __future__ import annotations

DONE = 0
FAILED = 1
"""The answer is an error, or a check failed."""
WRONG_USE = 2
UNREACHABLE = 3
LATE = 4
"""Time is up."""
INTERRUPTED = 130
"""What shells expect of a command ended by Ctrl-C."""
CANNOT_START = 255
"""TensorFlow Serving's, for a server that cannot start."""
