"""A Parquet file as batches of rows; it names its columns and their types itself."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from servingd.errors import DataLoss, FailedPrecondition, InvalidArgument
from servingd.servables.files.source import AsStream, Source
from servingd.servables.lookup_table.schema import ColumnType, Schema
from servingd.servables.lookup_table.store import Batch, Cells
from servingd.servables.lookup_table.strings import Array, Strings

if TYPE_CHECKING:
    import pyarrow

MAGIC = b"PAR1"
INSTALL = "pip install 'servingd[parquet]'"
_END = struct.Struct("<I4s")
_ROWS_AT_A_TIME = 1 << 16
_TYPES = {"float": "float32", "double": "float64", "halffloat": "float16"}


def check_parquet(source: Source) -> str | None:
    """Return what a file lacks to be complete; it is written to its end last. Needs no package."""
    least = len(MAGIC) + _END.size
    if source.size < least or source.read(0, len(MAGIC)) != MAGIC:
        return f"does not begin as a Parquet file does ({source.size} bytes)"
    footer, magic = _END.unpack(source.read(source.size - _END.size, _END.size))
    if magic != MAGIC or footer + least > source.size:
        return f"ends before its footer does ({source.size} bytes)"
    return None


class ParquetTable:
    """An open file."""

    def __init__(self, source: Source) -> None:
        """Read its footer. Raises DataLoss where it is none, FailedPrecondition without pyarrow."""
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            text = f"a Parquet table needs pyarrow ({error}): {INSTALL}"
            raise FailedPrecondition(text) from error
        self._pyarrow = pyarrow
        try:
            self._file = pyarrow.parquet.ParquetFile(pyarrow.PythonFile(AsStream(source), "r"))
        except (pyarrow.ArrowException, OSError) as error:
            raise DataLoss(f"the table is no Parquet file: {error}") from error

    @property
    def rows(self) -> int:
        """The number of rows."""
        return int(self._file.metadata.num_rows)

    @property
    def nbytes(self) -> int:
        """The bytes of all rows, before they were compressed."""
        found = self._file.metadata
        return sum(found.row_group(i).total_byte_size for i in range(found.num_row_groups))

    @property
    def types(self) -> Mapping[str, str]:
        """The types of the columns that can be served, as a schema names them."""
        found = {field.name: self._type(field.type) for field in self._file.schema_arrow}
        return {name: text for name, text in found.items() if text}

    def _type(self, kind: Any) -> str:
        types = self._pyarrow.types
        if types.is_dictionary(kind):
            return self._type(kind.value_type)
        if any(
            is_kind(kind)
            for is_kind in (
                types.is_string,
                types.is_large_string,
                types.is_binary,
                types.is_large_binary,
            )
        ):
            return "string"
        if types.is_fixed_size_list(kind):
            inner = self._type(kind.value_type)
            return f"{inner}[{kind.list_size}]" if inner and inner != "string" else ""
        if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind):
            return _TYPES.get(str(kind), str(kind))
        return ""

    def read(self, schema: Schema) -> Iterator[Batch]:
        """Yield all rows. Raises InvalidArgument naming the column that cannot be read."""
        kinds = {schema.key: schema.key_type, **schema.columns}
        names = self._file.schema_arrow.names
        for name in kinds:
            if name not in names:
                raise InvalidArgument(f"there is no column {name!r}; it has {', '.join(names)}")
        errors = (self._pyarrow.ArrowException, OSError, ValueError, OverflowError)
        try:
            for batch in self._file.iter_batches(_ROWS_AT_A_TIME, columns=list(kinds)):
                yield {n: self._cells(batch.column(n), n, k, schema) for n, k in kinds.items()}
        except errors as error:
            raise InvalidArgument(f"the table cannot be read: {error}") from error
        finally:
            self._pyarrow.default_memory_pool().release_unused()

    def _cells(self, column: pyarrow.Array, name: str, kind: ColumnType, schema: Schema) -> Cells:
        pa = self._pyarrow
        if column.null_count and name == schema.key:
            raise ValueError(f"column {name}: a key is null")
        if kind.is_string:
            default = schema.default(name) if name in schema.columns else b""
            return _strings(column.cast(pa.large_binary()).fill_null(default))
        target = pa.from_numpy_dtype(kind.dtype)
        if not kind.inner:
            return _filled(column.cast(target), name, schema)
        return self._lists(column, target, name, kind, schema)

    def _lists(
        self, column: pyarrow.Array, target: Any, name: str, kind: ColumnType, schema: Schema
    ) -> Cells:
        """Return lists of one length; where there is none, the default."""
        known = column.is_valid().to_numpy(zero_copy_only=False)
        values = np.empty((len(column), *kind.inner), kind.dtype)
        values[~known] = schema.default(name)
        lists = column.drop_null()
        sizes = set(lists.value_lengths().unique().to_pylist())
        if sizes - {kind.count}:
            raise ValueError(f"column {name}: a list has {max(sizes - {kind.count})} values")
        flat = lists.flatten().cast(target).to_numpy(zero_copy_only=False)
        values[known] = flat.reshape(-1, *kind.inner)
        return values


def _filled(column: Any, name: str, schema: Schema) -> Array:
    if column.null_count:
        column = column.fill_null(schema.default(name).item())
    return cast(Array, column.to_numpy(zero_copy_only=False))


def _strings(column: Any) -> Strings:
    """Return large binaries as they lie, without an object for each."""
    _, offsets, data = column.buffers()
    places = np.frombuffer(offsets, np.int64, len(column) + 1, column.offset * 8)
    start, end = int(places[0]), int(places[-1])
    content = data.slice(start, end - start).to_pybytes() if data is not None else b""
    return Strings(content, places - start)
