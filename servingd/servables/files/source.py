"""A file of a version, read in parts: one of gigabytes is never in memory as a whole."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from servingd.core.version_files import Listing
from servingd.servables.files.file_errors import error_of_file

PIECE = 1 << 20
"""Bytes that are read at a time."""


class Source(Protocol):
    """Bytes of a known number that can be read from any place."""

    @property
    def size(self) -> int:
        """The number of bytes."""
        ...

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset` on; fewer only at the end."""
        ...


class ListedFile:
    """A file of a version's listing. Reading raises OSError."""

    def __init__(self, listing: Listing, name: str) -> None:
        self._listing = listing
        self._name = name
        self.size = listing.sizes[name]

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset` on."""
        return self._listing.read_part(self._name, offset, size)


class OpenFile:
    """A file that is open for a load. Raises ServingError."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self.size = os.fstat(self._file).st_size
        except OSError as error:
            raise error_of_file(error) from error

    def __enter__(self) -> OpenFile:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._file)

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset` on."""
        try:
            return os.pread(self._file, size, offset)
        except OSError as error:
            raise error_of_file(error) from error


class Bytes:
    """Bytes that are in memory already."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.size = len(content)

    def read(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset` on."""
        return self._content[offset : offset + size]


class AsStream(io.RawIOBase):
    """A source as a stream, for the modules of the standard library."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._at = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place, and return it."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._source.size}[whence]
        self._at = start + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer with the next bytes; return how many there were."""
        content = self._source.read(self._at, len(buffer))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


def pieces(source: Source) -> Iterator[bytes]:
    """Yield a source's bytes, one piece after the other."""
    for offset in range(0, source.size, PIECE):
        yield source.read(offset, PIECE)


def whole(source: Source) -> bytes:
    """Return all bytes of a source."""
    return source.read(0, source.size)
