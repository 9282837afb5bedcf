"""Which file systems are this machine's own."""

from __future__ import annotations

import os
from pathlib import Path

_LOCAL = frozenset(
    {
        *("bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay"),
        *("ramfs", "reiserfs", "tmpfs", "xfs", "zfs"),
    }
)
"""Those whose files nobody on another machine removes, shortens or takes away."""

_MOUNTS = Path("/proc/self/mountinfo")


def is_local(folder: Path, mounts: Path = _MOUNTS) -> bool:
    """Return whether a folder lies on a file system of this machine.

    One that is not known to be of that kind is not. Where the system does not tell, it is.
    """
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return True
    path, longest, kind = os.path.realpath(folder), "", ""
    for line in lines:
        fields, _, described = line.partition(" - ")
        point = _unescaped(fields.split()[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(longest):  # of two at one place the later one is seen
            longest, kind = point, described.split()[0]
    return kind in _LOCAL


def _unescaped(text: str) -> str:
    """Return a path in which white space and backslashes are octal numbers."""
    for code in ("040", "011", "012", "134"):
        text = text.replace(f"\\{code}", chr(int(code, 8)))
    return text
