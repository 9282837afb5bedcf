"""What a completeness check is given (a listing), and which required file falls short.

Each type of servable decides what is required: `Platform.missing`, which for SavedModels is
`servables/saved_model/files/completeness.py`.
There is no quiet-period timer: a copy that stalls for seconds and goes on must not go live early.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Listing(Protocol):
    """The files of one version at one moment."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes of each file, by its path below the version, with `/`.

        A version that is itself a file has one entry whose name is empty.
        """
        ...

    def read(self, name: str) -> bytes:
        """Return a file's content. Raises OSError."""
        ...

    def read_part(self, name: str, offset: int, size: int) -> bytes:
        """Return up to `size` bytes of a file from `offset` on. Raises OSError."""
        ...


def shortfall(required: Mapping[str, int], sizes: Mapping[str, int]) -> str | None:
    """Return which file is absent or shorter than required, as a reason; None if none is."""
    for name in sorted(required):
        if name not in sizes:
            return f"{name} is not there"
        if sizes[name] < required[name]:
            return f"{name} has {sizes[name]} bytes of {required[name]}"
    return None
