"""Many strings without an object for each: their bytes in one buffer, and where each one begins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_HASHED_AT_A_TIME = 1 << 16


@dataclass(frozen=True, slots=True)
class Strings:
    """`data[offsets[i] : offsets[i + 1]]` is string number i."""

    data: bytes
    offsets: Array

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> bytes:
        return self.data[self.offsets[row] : self.offsets[row + 1]]

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return len(self.data) + self.offsets.nbytes

    def slices(self, rows: Array) -> list[bytes]:
        """Return the strings of some rows, each as an object of its own."""
        data = self.data
        starts, ends = self.offsets[rows].tolist(), self.offsets[rows + 1].tolist()
        return [data[start:end] for start, end in zip(starts, ends, strict=True)]

    def hashes(self) -> Array:
        """Return Python's hash of each string: keyed by the process, so nobody can make two alike.

        One object for each string, of which few are there at a time.
        """
        found = np.empty(len(self), np.int64)
        for start in range(0, len(self), _HASHED_AT_A_TIME):
            rows = np.arange(start, min(start + _HASHED_AT_A_TIME, len(self)))
            found[rows] = [hash(each) for each in self.slices(rows)]
        return found

    def fixed(self) -> Array:
        """Return an array of numpy's strings of one length; zero bytes at an end are lost."""
        sizes = np.diff(self.offsets)
        width = max(1, int(sizes.max(initial=0)))
        cells = np.zeros((len(self), width), np.uint8)
        cells[np.arange(width) < sizes[:, None]] = np.frombuffer(self.data, np.uint8)
        return cells.view(f"S{width}").ravel()


def strings_of(values: Sequence[bytes]) -> Strings:
    """Return strings from objects."""
    return Strings(b"".join(values), _offsets(np.fromiter(map(len, values), np.int64, len(values))))


def cut_out(content: Array, starts: Array, ends: Array) -> Strings:
    """Return the parts of a text (an array of its bytes) from `starts` to `ends`."""
    sizes = ends - starts
    offsets = _offsets(sizes)
    places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], sizes)
    return Strings(content[places].tobytes(), offsets)


def joined(parts: Iterable[Strings]) -> Strings:
    """Return all strings of some parts in order, with places as small as they can be.

    `parts` is drawn from once, so that the parts may be freed one by one.
    """
    data, sizes = [], []
    for part in parts:
        data.append(part.data)
        sizes.append(np.diff(part.offsets).astype(np.uint32))
    total = sum(map(len, data))
    whole = b"".join(data)
    data.clear()
    counts = np.concatenate(sizes) if sizes else np.empty(0, np.uint32)
    kind = np.uint32 if total < 1 << 32 else np.int64
    offsets = np.zeros(len(counts) + 1, kind)
    np.cumsum(counts, out=offsets[1:], dtype=kind)
    return Strings(whole, offsets)


def _offsets(sizes: Array) -> Array:
    offsets = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=offsets[1:])
    return offsets
