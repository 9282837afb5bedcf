"""What a table is: its key, its columns with their types, and the rule for keys that it lacks."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import numpy as np

from servingd.core.types import DataType, Signature, TensorSpec
from servingd.errors import InvalidArgument
from servingd.wire.tensors.types import numpy_dtype

_TYPE = re.compile(r"(?P<name>[a-z0-9]+)(\[(?P<sizes>[0-9]+(,[0-9]+)*)\])?")
_NAMES = {
    "string": DataType.STRING,
    "bool": DataType.BOOL,
    "float16": DataType.HALF,
    "float32": DataType.FLOAT,
    "float64": DataType.DOUBLE,
    **{
        f"{sign}int{bits}": DataType[f"{sign.upper()}INT{bits}"]
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A share of the rows: those whose key's CRC-32, modulo `count`, is `index`."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"shard: expected an index from 0 to {self.count - 1}: {self.index}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TableOptions:
    """What `schema.json` of a version, or `platform_options` of a model, may say."""

    key: str = ""
    """The column of keys; empty: the first one."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Types by column: `int64`, `string`, `float32[16]`; others of the file are not served."""
    header: bool = True
    """Whether a CSV file begins with the names of its columns; else `columns` are all, in order."""
    missing: Literal["default", "error"] = "default"
    """What becomes of a key that is not in the table: default values, or NOT_FOUND."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """By column, the value for missing keys and empty cells; without one 0, false or empty.

    An empty cell of a CSV file's strings is an empty string.
    """
    shard: Shard | None = None
    """The share of the rows that is loaded; None: all."""
    found: bool = False
    """Whether an output `found` says which keys are in the table."""


@dataclass(frozen=True, slots=True)
class ColumnType:
    """The type of a column's entries, and the shape of each one."""

    data_type: DataType
    inner: tuple[int, ...] = ()

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy dtype; strings are objects."""
        return numpy_dtype(self.data_type)

    @property
    def is_string(self) -> bool:
        """Whether entries are strings."""
        return self.data_type is DataType.STRING

    @property
    def count(self) -> int:
        """How many values an entry has."""
        return math.prod(self.inner)


STRING = ColumnType(DataType.STRING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """A table's key and its columns; `plain` is one without a schema, of two strings a row."""

    key: str
    key_type: ColumnType
    columns: Mapping[str, ColumnType]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    missing_is_error: bool = False
    shows_found: bool = False
    header: bool = True
    plain: bool = False
    order: tuple[str, ...] = ()
    """All columns in the order of a file without a header."""

    def default(self, name: str) -> Any:
        """Return a column's value for keys that are not there: bytes, or an array of `inner`."""
        kind = self.columns[name]
        if kind.is_string:
            return self.defaults.get(name, b"")
        return self.defaults.get(name, np.zeros(kind.inner, kind.dtype))

    def signature(self) -> Signature:
        """Return how the table is called: keys of any shape, and columns of that shape."""
        outputs = {
            # Behind keys of any rank there are the dimensions of an entry: the rank is not known.
            name: TensorSpec(kind.data_type, None, f"{name}:0")
            for name, kind in self.columns.items()
        }
        if self.shows_found:
            outputs["found"] = TensorSpec(DataType.BOOL, None, "found:0")
        keys = {self.key: TensorSpec(self.key_type.data_type, None, f"{self.key}:0")}
        return Signature(name="serving_default", inputs=keys, outputs=outputs)


PLAIN = Schema(
    key="keys",
    key_type=STRING,
    columns={"values": STRING},
    header=False,
    plain=True,
    order=("keys", "values"),
)
"""A table without a schema: a column of keys and one of values, all strings."""


def parse_options(content: bytes) -> Mapping[str, Any]:
    """Parse a `schema.json`. Raises InvalidArgument."""
    try:
        fields = msgspec.json.decode(content)
        msgspec.convert(fields, TableOptions)
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidArgument(f"schema.json: {error}") from error
    unknown = fields.keys() - set(TableOptions.__slots__)
    if unknown:
        raise InvalidArgument(f"schema.json: there is no field {min(unknown)!r}")
    return dict(fields)


def make_schema(options: TableOptions, in_file: Mapping[str, str] | None = None) -> Schema:
    """Return the schema that options name; `in_file` are the columns of a file that has types.

    Raises InvalidArgument naming the column and what is wrong.
    """
    types = {**(in_file or {}), **options.columns} if not options.columns else options.columns
    if options.key and options.key not in types:
        default = (in_file or {}).get(options.key, "string")
        types = {options.key: default, **types}
    if not types:
        raise InvalidArgument("columns: a table with a schema names its columns and their types")
    key = options.key or next(iter(types))
    kinds = {name: column_type(name, text) for name, text in types.items()}
    key_type = kinds.pop(key)
    if key_type.inner or not (key_type.is_string or key_type.dtype.kind in "iu"):
        raise InvalidArgument(f"column {key}: keys are strings or integers, not {types[key]}")
    if not kinds:
        raise InvalidArgument(f"columns: there is none besides the key {key}")
    if options.found and "found" in kinds:
        raise InvalidArgument("column found: it has the name of the output that `found` asks for")
    return Schema(
        key=key,
        key_type=key_type,
        columns=kinds,
        defaults={name: _default(name, kinds, value) for name, value in options.defaults.items()},
        missing_is_error=options.missing == "error",
        shows_found=options.found,
        header=options.header,
        order=tuple(types),
    )


def column_type(name: str, text: str) -> ColumnType:
    """Parse the type of a column. Raises InvalidArgument."""
    match = _TYPE.fullmatch(text)
    data_type = _NAMES.get(match["name"]) if match else None
    if match is None or data_type is None:
        raise InvalidArgument(
            f"column {name}: {text!r} is no type; there are {', '.join(sorted(_NAMES))}, "
            "and lists such as float32[16]"
        )
    inner = tuple(int(size) for size in (match["sizes"] or "").split(",") if size)
    if data_type is DataType.STRING and inner:
        raise InvalidArgument(f"column {name}: lists of strings are not served")
    return ColumnType(data_type, inner)


def _default(name: str, kinds: Mapping[str, ColumnType], value: Any) -> Any:
    kind = kinds.get(name)
    if kind is None:
        raise InvalidArgument(f"defaults: there is no column {name!r}")
    if kind.is_string:
        if not isinstance(value, str):
            raise InvalidArgument(f"defaults: {name}: expected a string, got {value!r}")
        return value.encode()
    try:
        return np.broadcast_to(np.array(value, kind.dtype), kind.inner)
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidArgument(f"defaults: {name}: {error}") from error
