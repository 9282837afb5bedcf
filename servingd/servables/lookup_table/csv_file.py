"""A CSV file as batches of rows.

Where no cell is quoted, and commas and line feeds are therefore what they seem, a piece of the file
is taken apart at once; else Python's reader goes through it row by row.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from servingd.errors import InvalidArgument
from servingd.servables.files.source import AsStream, Source, pieces
from servingd.servables.lookup_table.cells import BadCell, parse_cells
from servingd.servables.lookup_table.schema import Schema
from servingd.servables.lookup_table.store import Batch
from servingd.servables.lookup_table.strings import Strings, cut_out, strings_of

_ROWS_AT_A_TIME = 1 << 16
_LF, _COMMA = 10, 44

_Columns = Sequence[Strings]


def read_csv(source: Source, schema: Schema) -> Iterator[Batch]:
    """Yield a table's rows. Raises InvalidArgument naming the line and what was expected."""
    names = _header(source) if schema.header else list(schema.order)
    wanted = (schema.key, *schema.columns)
    for name in wanted:
        if name not in names:
            raise InvalidArgument(f"line 1: there is no column {name!r}; it has {_listed(names)}")
    kinds = {schema.key: schema.key_type, **schema.columns}
    for line, columns in _cells(source, len(names), schema.header):
        try:
            yield {
                name: parse_cells(
                    columns[names.index(name)],
                    name,
                    kinds[name],
                    schema.default(name) if name in schema.columns else b"",
                )
                for name in wanted
            }
        except BadCell as error:
            raise InvalidArgument(f"line {line + error.row}: {error.message}") from error


def check_csv(source: Source, header: bool) -> str | None:
    """Return what a file lacks to be complete; None if nothing.

    Its last line must end, and all lines have as many columns as the first: else InvalidArgument.
    """
    if not source.size or source.read(source.size - 1, 1) != b"\n":
        return "does not end with a line feed"
    for _ in _cells(source, len(_header(source)), header):
        pass
    return None


def _header(source: Source) -> list[str]:
    """Return the cells of the first line."""
    text = io.TextIOWrapper(io.BufferedReader(AsStream(source)), "utf-8-sig", newline="")
    try:
        return next(csv.reader(text, strict=True), [])
    except (csv.Error, UnicodeDecodeError) as error:
        raise InvalidArgument(f"line 1: {error}") from error


def _cells(source: Source, count: int, header: bool) -> Iterator[tuple[int, _Columns]]:
    """Yield the columns of some rows, and the line of the first of them."""
    read = _row_by_row if _is_quoted(source) else _at_once
    try:
        yield from read(source, count, header)
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"the table is not UTF-8: {error}") from error


def _is_quoted(source: Source) -> bool:
    """Whether a quote, or a carriage return that ends no line, may change what a comma means."""
    returns, with_line_feeds, before = 0, 0, b""
    for piece in pieces(source):
        if b'"' in piece:
            return True
        returns += piece.count(b"\r")
        with_line_feeds += piece.count(b"\r\n")
        with_line_feeds += before == b"\r" and piece.startswith(b"\n")
        before = piece[-1:]
    return returns != with_line_feeds


def _row_by_row(source: Source, count: int, header: bool) -> Iterator[tuple[int, _Columns]]:
    text = io.TextIOWrapper(io.BufferedReader(AsStream(source)), "utf-8-sig", newline="")
    reader = csv.reader(text, strict=True)
    try:
        if header:
            next(reader, None)
        while True:
            first = reader.line_num + 1
            rows = [
                _checked(row, count, reader.line_num)
                for row in itertools.islice(reader, _ROWS_AT_A_TIME)
            ]
            if not rows:
                return
            columns = zip(*rows, strict=True)
            yield first, [strings_of([cell.encode() for cell in cells]) for cells in columns]
    except csv.Error as error:
        raise InvalidArgument(f"line {reader.line_num}: {error}") from error


def _checked(row: list[str], count: int, line: int) -> list[str]:
    if len(row) != count:
        raise InvalidArgument(f"line {line}: expected {_said(count)} columns, got {len(row)}")
    return row


def _at_once(source: Source, count: int, header: bool) -> Iterator[tuple[int, _Columns]]:
    line = 1
    for lines in _whole_lines(source):
        lines.decode()  # raises what `_cells` says
        content = lines.replace(b"\r\n", b"\n")
        cells = np.frombuffer(content, np.uint8)
        ends = np.flatnonzero(cells == _LF)
        first = line
        line += len(ends)
        columns = _split(cells, ends, count, first)
        if header and first == 1:
            columns = [cut_out(_bytes(c), c.offsets[1:-1], c.offsets[2:]) for c in columns]
            first = 2
        yield first, columns


def _bytes(strings: Strings) -> np.ndarray:
    return np.frombuffer(strings.data, np.uint8)


def _split(cells: np.ndarray, ends: np.ndarray, count: int, first: int) -> list[Strings]:
    """Return the columns of whole lines that end at `ends`."""
    starts = np.concatenate([[0], ends[:-1] + 1])
    commas = np.flatnonzero(cells == _COMMA)
    per_line = np.searchsorted(commas, ends) - np.searchsorted(commas, starts)
    wrong = np.flatnonzero((per_line != count - 1) | (starts == ends) & (count > 1))
    if len(wrong):
        row = int(wrong[0])
        got = 0 if starts[row] == ends[row] else int(per_line[row]) + 1
        raise InvalidArgument(f"line {first + row}: expected {_said(count)} columns, got {got}")
    inner = commas.reshape(len(ends), count - 1)
    edges = np.column_stack([starts - 1, inner, ends])
    return [cut_out(cells, edges[:, i] + 1, edges[:, i + 1]) for i in range(count)]


def _whole_lines(source: Source) -> Iterator[bytes]:
    """Yield the file in pieces that end where lines do; a last line without an end gets one."""
    rest = b""
    for number, piece in enumerate(pieces(source)):
        content = rest + (piece.removeprefix(codecs.BOM_UTF8) if number == 0 else piece)
        cut = content.rfind(b"\n") + 1
        rest = content[cut:]
        if cut:
            yield content[:cut]
    if rest:
        yield rest + b"\n"


def _said(count: int) -> str:
    return "two" if count == 2 else str(count)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
