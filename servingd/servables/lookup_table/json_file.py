"""A JSON file as batches of rows: one object of strings, or a list of records with a schema."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import simdjson

from servingd.errors import InvalidArgument
from servingd.servables.lookup_table.schema import ColumnType, Schema
from servingd.servables.lookup_table.store import Batch, Cells
from servingd.servables.lookup_table.strings import strings_of

_ROWS_AT_A_TIME = 1 << 16


def read_json(content: bytes, schema: Schema) -> Iterator[Batch]:
    """Yield a table's rows. Raises InvalidArgument naming the entry and what was expected."""
    if schema.plain:
        return _pairs(content)
    return _records(_parsed_list(content), schema)


def check_json(content: bytes) -> None:
    """Raise InvalidArgument where a file's content does not parse as a whole."""
    try:
        simdjson.Parser().parse(content)
    except ValueError:
        _loads(content)


def _pairs(content: bytes) -> Iterator[Batch]:
    """Yield keys and values of one object; of equal keys the last one counts, as JSON has it."""
    try:
        found: Any = simdjson.Parser().parse(content)
    except ValueError:  # its texts do not say where; and it is stricter
        found = _loads(content)
    entries = iter(found.items())
    batches = []
    while rows := list(itertools.islice(entries, _ROWS_AT_A_TIME)):
        encoded = [_entry(key, value) for key, value in rows]
        encoded.reverse()
        keys, values = zip(*encoded, strict=True)
        batches.append({"keys": strings_of(keys), "values": strings_of(values)})
    yield from reversed(batches)  # in a table the first of equal keys counts


def _entry(key: str, value: object) -> tuple[bytes, bytes]:
    if not isinstance(value, str):
        kind = {"Object": "dict", "Array": "list"}.get(type(value).__name__, type(value).__name__)
        raise InvalidArgument(f"entry {key!r}: expected a string, got {kind}")
    try:
        return key.encode(), value.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair
        raise InvalidArgument(f"entry {key!r}: {error}") from error


def _loads(content: bytes) -> Any:
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"the table is not UTF-8: {error}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"the table does not parse as JSON: {error}") from error


def _parsed_list(content: bytes) -> Iterable[Any]:
    try:
        found: Any = simdjson.Parser().parse(content)
    except ValueError:
        found = _loads(content)
    if not isinstance(found, (list, simdjson.Array)):
        raise InvalidArgument('a table with a schema is a list of records: [{"id": 7, ...}, ...]')
    return found


def _records(found: Iterable[Any], schema: Schema) -> Iterator[Batch]:
    kinds = {schema.key: schema.key_type, **schema.columns}
    entries = iter(found)
    first = 0
    while rows := list(itertools.islice(entries, _ROWS_AT_A_TIME)):
        yield {name: _column(rows, first, name, kind, schema) for name, kind in kinds.items()}
        first += len(rows)


def _column(rows: list[Any], first: int, name: str, kind: ColumnType, schema: Schema) -> Cells:
    texts: list[bytes] = []
    values = np.empty((0 if kind.is_string else len(rows), *kind.inner), kind.dtype)
    for place, row in enumerate(rows):
        try:
            value = row.get(name)
            if value is None and name == schema.key:
                raise ValueError("it has no key")
            if kind.is_string:
                texts.append(schema.default(name) if value is None else value.encode())
            else:
                values[place] = schema.default(name) if value is None else _value(value, kind)
        except (AttributeError, ValueError, TypeError, OverflowError) as error:
            raise InvalidArgument(f"record {first + place}: {name}: {error}") from error
    return strings_of(texts) if kind.is_string else values


def _value(value: Any, kind: ColumnType) -> Any:
    if isinstance(value, simdjson.Array):
        value = value.as_list()
    made = np.array(value)
    if kind.dtype.kind in "iu":
        if made.dtype.kind not in "iu" and made.size:
            raise ValueError(f"expected integers, got {value!r}")
        return np.array(value, kind.dtype).reshape(kind.inner)
    if made.dtype.kind not in ("b" if kind.dtype.kind == "b" else "iuf"):
        raise ValueError(f"expected {kind.dtype.name}, got {value!r}")
    return made.astype(kind.dtype).reshape(kind.inner)
