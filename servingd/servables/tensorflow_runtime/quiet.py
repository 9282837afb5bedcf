"""Imports TensorFlow without the log lines that its libraries write while they load.

`TF_CPP_MIN_LOG_LEVEL` silences what TensorFlow logs later, but not the lines of its static
initialisers. While it is imported, stderr goes through a process that drops those lines and passes
on the rest at once. A thread would not do: none of ours runs while a library is loaded, and if the
import aborts (a CPU that lacks an instruction), its last line must not be lost.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator

_GONE_S = 2.0
"""Seconds to wait for the filter: a process started meanwhile may keep it alive."""


@contextlib.contextmanager
def without_noise() -> Iterator[None]:
    """Filter stderr for the time of the block, for the whole process, where possible."""
    try:
        own = os.dup(2)
    except OSError:  # there is no stderr
        yield
        return
    try:
        child = _start(own)
    except OSError:
        os.close(own)
        yield
        return
    try:
        yield
    finally:
        os.dup2(own, 2)
        os.close(own)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_GONE_S)


def _start(own: int) -> subprocess.Popen[bytes]:
    """Start a filter that writes to `own`, which was stderr. Raises OSError; no change then."""
    if not sys.executable:
        raise FileNotFoundError("this process does not know its Python")
    read, write = os.pipe()
    try:
        # A session of its own: Ctrl-C is not meant for it.
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__], stdin=read, stderr=own, start_new_session=True
        )
        os.dup2(write, 2)
        return child
    finally:
        os.close(read)
        os.close(write)


NOISE = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR"
    rb"|I\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ [\w./]+:\d+\] "
    rb"|I0000 00:00:\d+\.\d+ +\d+ [\w./]+:\d+\] "
    rb"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: I [\w./]+:\d+\] "
    rb"|To enable the following instructions: "
)
"""How the lines begin that are dropped: TensorFlow's own INFO lines."""


def _filter() -> None:
    for line in sys.stdin.buffer:
        if not NOISE.match(line):
            os.write(2, line)


if __name__ == "__main__":
    _filter()
