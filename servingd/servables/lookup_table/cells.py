"""Cells of text as values of a column's type."""

from __future__ import annotations

from typing import Any

import numpy as np

from servingd.errors import InvalidArgument
from servingd.servables.lookup_table.schema import ColumnType
from servingd.servables.lookup_table.store import Cells
from servingd.servables.lookup_table.strings import Array, Strings

_TRUTH = {b"true": True, b"1": True, b"false": False, b"0": False}


class BadCell(InvalidArgument):
    """A cell that is no value of its column; `row` is its place among those that were given."""

    def __init__(self, row: int, message: str) -> None:
        super().__init__(message)
        self.row = row


def parse_cells(texts: Strings, name: str, kind: ColumnType, default: Any) -> Cells:
    """Return a column's values; an empty cell is the default. Raises BadCell naming the column."""
    if kind.is_string:
        return texts
    if kind.inner:
        return _each(texts, name, kind, default)
    try:
        return _numbers(texts, kind, default)
    except (ValueError, OverflowError):
        return _each(texts, name, kind, default)  # it says which one


def _numbers(texts: Strings, kind: ColumnType, default: Any) -> Array:
    """Parse all cells at once, by numpy."""
    cells = texts.fixed()
    empty = np.diff(texts.offsets) == 0
    if empty.any():
        cells = np.where(empty, b"0", cells)
    if b"_" in texts.data or b"\0" in texts.data or kind.dtype.kind == "b":
        raise ValueError("not as numpy reads it")
    wide: Any = {"i": np.int64, "u": np.uint64, "f": kind.dtype}[kind.dtype.kind]
    values = cells.astype(wide)
    if kind.dtype.kind in "iu":
        limits = np.iinfo(kind.dtype)
        if values.size and (values.min() < limits.min or values.max() > limits.max):
            raise OverflowError
    values = values.astype(kind.dtype)
    values[empty] = default
    return values


def _each(texts: Strings, name: str, kind: ColumnType, default: Any) -> Array:
    values = np.empty((len(texts), *kind.inner), kind.dtype)
    for row in range(len(texts)):
        cell = texts[row]
        try:
            values[row] = _value(cell, kind) if cell else default
        except (ValueError, OverflowError) as error:
            shown = cell[:40].decode(errors="replace")
            raise BadCell(row, f"column {name}: {shown!r} is no {_said(kind)}") from error
    return values


def _value(cell: bytes, kind: ColumnType) -> Any:
    if b"_" in cell:
        raise ValueError
    parts = cell.split()
    if len(parts) != kind.count:
        raise ValueError
    if kind.dtype.kind == "b":
        if any(part.lower() not in _TRUTH for part in parts):
            raise ValueError
        found: list[Any] = [_TRUTH[part.lower()] for part in parts]
    else:
        found = [float(part) if kind.dtype.kind == "f" else int(part) for part in parts]
    return np.array(found, kind.dtype).reshape(kind.inner)


def _said(kind: ColumnType) -> str:
    text = kind.dtype.name
    return f"{text}[{','.join(map(str, kind.inner))}] (numbers with spaces)" if kind.inner else text
