"""The files of one version on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path


class DiskListing:
    """What lies under one version's path at one moment; see `core.publish.Listing`.

    Links are followed, as a load follows them; a file that vanishes meanwhile is not there.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        files = dict(_files(path, ""))
        self.sizes: Mapping[str, int] = {name: s.st_size for name, s in files.items()}
        digest = hashlib.sha256()
        for name, status in sorted(files.items()):
            line = f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0"
            digest.update(line.encode(errors="surrogateescape"))  # names need not be UTF-8
        self.fingerprint = digest.hexdigest()
        """A digest of the files' names, sizes and times: another one if any of them changes."""

    def read(self, name: str) -> bytes:
        """A file's content. Raises OSError."""
        return (self._path / name if name else self._path).read_bytes()


def names_in(path: str) -> list[str]:
    """The names in a folder; none where it cannot be read, or is none."""
    try:
        return os.listdir(path)
    except OSError:
        return []


def _files(path: str, name: str) -> Iterator[tuple[str, os.stat_result]]:
    try:
        if not os.path.isdir(path):
            yield name, os.stat(path)
            return
        entries = list(os.scandir(path))
    except FileNotFoundError:
        return
    for entry in entries:
        yield from _files(entry.path, f"{name}/{entry.name}" if name else entry.name)
