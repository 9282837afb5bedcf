"""The files of one version on disk, and reading files that may be anything."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping


class DiskListing:
    """The files under one version's path at one moment; see `core.version_files.Listing`.

    Links are followed, as a load follows them. A file that vanishes meanwhile does not count, and
    neither does a FIFO, a socket or a device: opening it may wait for ever.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        files = dict(_files(path, ""))
        self.sizes: Mapping[str, int] = {name: s.st_size for name, s in files.items()}
        digest = hashlib.sha256()
        for name, status in sorted(files.items()):
            line = f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0"
            digest.update(line.encode(errors="surrogateescape"))  # names need not be UTF-8
        self.fingerprint = digest.hexdigest()
        """A digest of the files' names, sizes and times: it differs if any of them does."""

    def read(self, name: str) -> bytes:
        """Return a file's content. Raises OSError."""
        return read_regular(self._path_of(name))

    def read_part(self, name: str, offset: int, size: int) -> bytes:
        """Return up to `size` bytes of a file from `offset` on. Raises OSError."""
        return read_regular(self._path_of(name), size, offset)

    def _path_of(self, name: str) -> str:
        return os.path.join(self._path, name) if name else self._path


def read_regular(path: str | os.PathLike[str], at_most: int = -1, offset: int = 0) -> bytes:
    """Return a file's bytes from `offset` on, `at_most` so many. Raises OSError, also for a FIFO.

    Opening a FIFO would wait for a writer, and a device may never end.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", str(path))
        file.seek(offset)
        return file.read(at_most)


def names_in(path: str) -> list[str]:
    """Return the names in a folder; none where it cannot be read, or is none."""
    try:
        return os.listdir(path)
    except OSError:
        return []


def _files(path: str, name: str) -> Iterator[tuple[str, os.stat_result]]:
    try:
        with os.scandir(path) as entries:
            found = list(entries)
    except NotADirectoryError:
        status = os.stat(path)
        if stat.S_ISREG(status.st_mode):
            yield name, status
        return
    except FileNotFoundError:
        return
    for entry in found:
        below = f"{name}/{entry.name}" if name else entry.name
        try:
            if entry.name == "__pycache__":
                continue  # written by the import of a version that is Python code
            if entry.is_dir():
                yield from _files(entry.path, below)
            elif entry.is_file():  # asked first: it costs no system call where it says no
                yield below, entry.stat()
        except FileNotFoundError:
            continue
