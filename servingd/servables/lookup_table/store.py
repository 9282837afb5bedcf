"""A table's rows in memory: an array for each column, and an index over the keys.

Nothing is kept for a row besides its bytes: 12 for the index (its key, or the key's hash, and its
place), 4 more for each string. Rows are found by a binary search.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np

from servingd.errors import ResourceExhausted
from servingd.servables.lookup_table.schema import ColumnType, Schema
from servingd.servables.lookup_table.strings import Array, Strings, joined

Cells: TypeAlias = Strings | Array
"""A column's part: strings, or numbers of the column's type, [rows, *inner]."""
Batch: TypeAlias = Mapping[str, Cells]
"""Parts of all columns, of the same rows."""

MAX_ROWS = (1 << 32) - 2


class _Numbers(NamedTuple):
    values: Array
    default: Array

    def take(self, rows: Array, known: Array | None) -> Array:
        """Return the entries of rows; where not `known`, the default."""
        if not len(self.values):
            return np.broadcast_to(self.default, (len(rows), *self.default.shape)).copy()
        taken = self.values[rows]
        if known is not None:
            taken[~known] = self.default
        return taken


class _Texts(NamedTuple):
    values: Strings
    default: bytes

    def take(self, rows: Array, known: Array | None) -> Array:
        taken = np.full(len(rows), self.default, object)
        if known is None:
            taken[:] = self.values.slices(rows)
        elif known.any():
            taken[known] = self.values.slices(rows[known])
        return taken


class Table:
    """All rows, and their keys. It never changes."""

    def __init__(self, schema: Schema, batches: Iterable[Batch]) -> None:
        """Take all rows. Raises ResourceExhausted for more than there can be."""
        parts: dict[str, list[Cells]] = {name: [] for name in (schema.key, *schema.columns)}
        for batch in batches:
            for name, found in parts.items():
                found.append(batch[name])
        keys = _whole(parts.pop(schema.key), schema.key_type)
        self._columns: dict[str, _Numbers | _Texts] = {}
        for name, kind in schema.columns.items():
            values, default = _whole(parts.pop(name), kind), schema.default(name)
            made = _Texts if isinstance(values, Strings) else _Numbers
            self._columns[name] = made(values, default)
        self.rows = len(keys)
        if self.rows > MAX_ROWS:
            raise ResourceExhausted(f"a table has at most {MAX_ROWS} rows, not {self.rows}")
        self._texts = keys if isinstance(keys, Strings) else None
        hashed = keys.hashes() if isinstance(keys, Strings) else keys
        order = np.argsort(hashed, kind="stable")  # of equal keys the first one comes first
        self._sorted = hashed[order]
        self._order = order.astype(np.uint32)

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        values = [column.values.nbytes for column in self._columns.values()]
        keys = self._texts.nbytes if self._texts is not None else 0
        return sum(values) + keys + self._sorted.nbytes + self._order.nbytes

    def find(self, keys: Array) -> Array:
        """Return the row of each of a flat array of keys; -1 where there is none."""
        texts = self._texts
        wanted = keys if texts is None else np.array([hash(k) for k in keys], np.int64)
        places = np.searchsorted(self._sorted, wanted)
        if texts is None:
            return self._exact(places, wanted)
        return self._same_text(places, wanted, keys, texts)

    def take(self, rows: Array) -> dict[str, Array]:
        """Return all columns of rows, as `find` gave them: defaults for -1."""
        known = rows >= 0
        mask = None if known.all() else known
        return {name: column.take(rows, mask) for name, column in self._columns.items()}

    def _exact(self, places: Array, wanted: Array) -> Array:
        rows = np.full(len(wanted), -1, np.int64)
        inside = places < self.rows
        inside[inside] = self._sorted[places[inside]] == wanted[inside]
        rows[inside] = self._order[places[inside]]
        return rows

    def _same_text(self, places: Array, wanted: Array, keys: Array, texts: Strings) -> Array:
        """Of rows with a key's hash, find the first with the key itself."""
        hashes, order, end = self._sorted, self._order, self.rows
        rows = np.full(len(wanted), -1, np.int64)
        for i, (place, value) in enumerate(zip(places.tolist(), wanted.tolist(), strict=True)):
            at = place
            while at < end and hashes[at] == value:
                row = int(order[at])
                if texts[row] == keys[i]:
                    rows[i] = row
                    break
                at += 1
        return rows


def _whole(parts: list[Cells], kind: ColumnType) -> Any:
    """Join a column's parts, which are freed."""
    if kind.is_string:
        return joined(_drawn(parts))
    if not parts:
        return np.empty((0, *kind.inner), kind.dtype)
    whole: Array = np.concatenate(cast(list[Array], parts))
    parts.clear()
    return whole


def _drawn(parts: list[Cells]) -> Iterator[Strings]:
    """Yield the parts of a column of strings; each one is freed once it was used."""
    for place, part in enumerate(parts):
        parts[place] = _NOTHING
        if isinstance(part, Strings):
            yield part


_NOTHING: Cells = np.empty(0)
