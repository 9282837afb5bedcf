"""Lookup tables as a servable type: which files are one, when they are complete, and the load.

A version is a file, or a folder that holds one: `table.csv`, `table.json` or `table.parquet`. One
without a schema has two columns of strings: CSV without a header, or one JSON object. `schema.json`
beside it, or `platform_options`, names a key and other columns with types; Parquet needs neither.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from servingd.core.resources.footprints import Estimate, Footprint
from servingd.core.types import ANYWHERE, Placement, ServableId, VersionData
from servingd.core.version_files import Listing
from servingd.errors import InvalidArgument, NotFound
from servingd.machine.memory import trim_heap
from servingd.servables.files.source import ListedFile, OpenFile, Source, whole
from servingd.servables.lookup_table import parquet_file
from servingd.servables.lookup_table.csv_file import check_csv, read_csv
from servingd.servables.lookup_table.json_file import check_json, read_json
from servingd.servables.lookup_table.parquet_file import ParquetTable, check_parquet
from servingd.servables.lookup_table.schema import (
    PLAIN,
    Schema,
    Shard,
    TableOptions,
    make_schema,
    parse_options,
)
from servingd.servables.lookup_table.servable import LookupTable
from servingd.servables.lookup_table.shard import rows_of_shard
from servingd.servables.lookup_table.store import Batch, Table
from servingd.servables.plugin import Loader, Platform

SCHEMA_FILE = "schema.json"
_PARQUET = "table.parquet"
_NAMES = ("table.csv", "table.json", _PARQUET)
_NONE = f"there is no {', '.join(_NAMES[:-1])} or {_NAMES[-1]}"

_ROW_BYTES = 24
"""Bytes that a row of strings takes besides its text, at most: the index, and two places."""
_SAMPLE = 1 << 20
"""Bytes of a text by which the number of its rows is guessed."""
_BASE_BYTES = 1 << 12
_ARROW_BYTES = 64 << 20
"""Bytes that pyarrow takes, and keeps."""


class LookupTablePlatform(Platform):
    """Makes loaders for lookup tables; see `servables.plugin.Platform`."""

    name = "lookup_table"
    options_type = TableOptions
    trusted = True

    def recognises(self, listing: Listing) -> bool:
        """Return whether there is a table file; a version that is itself a file counts too."""
        return _table_in(listing) is not None or "" in listing.sizes

    def missing(self, listing: Listing) -> str | None:
        """Return what a table lacks to be complete: it must parse, and its last line must end."""
        name = "" if "" in listing.sizes else _table_in(listing)
        if name is None:
            return _NONE
        said = name or "the file"
        try:
            source = ListedFile(listing, name)
            is_parquet = name == _PARQUET or _is_parquet(source)
            found = _incomplete(source, _own_options(listing), is_parquet)
        except InvalidArgument as error:
            return f"{said}: {error.message}"
        return found and f"{said} {found}"

    def loader(self, servable_id: ServableId, data: VersionData) -> LookupTableLoader:
        """Return a loader for one version. Raises InvalidArgument for wrong options."""
        self.read_options(data.options)
        return LookupTableLoader(data.path, data.options)


class LookupTableLoader(Loader):
    """Loads one table; see `servables.plugin.Loader`."""

    def __init__(self, path: str, options: Mapping[str, Any] | None = None) -> None:
        """`options` are those of the model's `platform_options`: they go before `schema.json`."""
        self._path = Path(path)
        self._options = options or {}

    def estimate(self) -> Estimate:
        """Return what the rows take, and twice that while they are read."""
        shard = _as_shard(self._options.get("shard"))
        with OpenFile(self._file()) as source:
            rows = _estimated(source)
            steady = _BASE_BYTES + (rows if shard is None else rows * 5 // (4 * shard.count))
        return Estimate(steady=Footprint(steady), peak=Footprint(2 * steady + source.size))

    def load(self, placement: Placement = ANYWHERE) -> LookupTable:
        """Read the file. Raises NotFound, or InvalidArgument with the line."""
        file = self._file()
        given = {**_options_beside(file, self._path), **self._options}
        shard = _as_shard(given.pop("shard", None))
        with OpenFile(file) as source:
            schema, batches = open_table(source, _as_options(given))
            if shard is not None:
                batches = rows_of_shard(batches, schema.key, shard)
            table = LookupTable(schema, Table(schema, batches))
        trim_heap()  # pieces of the file were small enough to be kept for later
        return table

    def unload(self, servable: LookupTable) -> None:
        """Drop the table, and give its memory back to the system."""
        servable.close()
        trim_heap()

    def _file(self) -> Path:
        files = [self._path / name for name in _NAMES] if self._path.is_dir() else [self._path]
        file = next((f for f in files if f.is_file()), None)
        if file is None:
            raise NotFound(f"{_NONE} in {self._path}")
        return file


def open_table(source: Source, options: TableOptions | None) -> tuple[Schema, Iterator[Batch]]:
    """Return a file's schema, and its rows in batches. Raises ServingError, also while they come.

    Without options the file brings its schema, or is a plain table of two strings a row.
    """
    if _is_parquet(source):
        table = ParquetTable(source)
        schema = make_schema(options or TableOptions(), table.types)
        return schema, table.read(schema)
    schema = make_schema(options) if options else PLAIN
    if _is_json(source, schema):
        return schema, read_json(_text(source), schema)
    return schema, read_csv(source, schema)


def _incomplete(source: Source, options: TableOptions | None, is_parquet: bool) -> str | None:
    """Return why a file is not complete; None if it is. Raises InvalidArgument where.

    `options` are those in the version. Without, the server's may make more of it than two columns.
    """
    if is_parquet:
        return check_parquet(source)
    if options is None and _is_json(source, PLAIN):
        for _ in read_json(_text(source), PLAIN):
            pass
        return None
    if source.read(0, 1) in (b"[", b"{"):
        try:
            check_json(_text(source))
        except InvalidArgument:
            if options is not None:
                raise
        else:
            return None
    return check_csv(source, options is not None and make_schema(options).header)


def _is_parquet(source: Source) -> bool:
    return source.read(0, len(parquet_file.MAGIC)) == parquet_file.MAGIC


def _is_json(source: Source, schema: Schema) -> bool:
    start = source.read(0, 1 << 10).removeprefix(codecs.BOM_UTF8).lstrip()
    return start.startswith(b"{" if schema.plain else (b"{", b"["))


def _text(source: Source) -> bytes:
    return whole(source).removeprefix(codecs.BOM_UTF8)


def _estimated(source: Source) -> int:
    """Return the bytes of a table in memory, by its file; of a text by its beginning."""
    if _is_parquet(source):
        table = ParquetTable(source)
        return table.nbytes + table.rows * _ROW_BYTES + _ARROW_BYTES
    sample = source.read(0, _SAMPLE)
    ends = sample.count(b'":') if _is_json(source, PLAIN) else sample.count(b"\n")
    rows = (ends + 1) * -(-source.size // max(1, len(sample)))
    return source.size + rows * _ROW_BYTES


def _own_options(listing: Listing) -> TableOptions | None:
    """Return what `schema.json` of a version says; None if there is none."""
    if SCHEMA_FILE not in listing.sizes:
        return None
    return _as_options(parse_options(listing.read(SCHEMA_FILE)))


def _options_beside(file: Path, version: Path) -> Mapping[str, Any]:
    if file == version or not (version / SCHEMA_FILE).is_file():
        return {}
    return parse_options((version / SCHEMA_FILE).read_bytes())


def _as_options(fields: Mapping[str, Any]) -> TableOptions | None:
    return msgspec.convert(fields, TableOptions) if fields else None


def _as_shard(fields: Any) -> Shard | None:
    return msgspec.convert(fields, Shard) if fields else None


def _table_in(listing: Listing) -> str | None:
    return next((name for name in _NAMES if name in listing.sizes), None)
