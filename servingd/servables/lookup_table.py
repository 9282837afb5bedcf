"""The platform `lookup_table`: a CSV or JSON file as a version; it answers keys with values.

A version is a file, or a folder that holds one file, `table.csv` or `table.json`. CSV has two
columns and no header; JSON is one object of strings. A key that is not there gives an empty string.
No TensorFlow is needed, or imported.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from servingd.core.call_protocols import Completion
from servingd.core.resources.footprints import Estimate, Footprint
from servingd.core.servable import RuledBatching, Servable
from servingd.core.types import (
    ANYWHERE,
    DataType,
    Placement,
    ServableId,
    Signature,
    Tensors,
    TensorSpec,
    VersionData,
)
from servingd.core.version_files import Listing
from servingd.errors import InvalidArgument, NotFound
from servingd.servables.file_errors import error_of_file

_NAMES = ("table.csv", "table.json")

SIGNATURE = Signature(
    name="serving_default",
    inputs={"keys": TensorSpec(DataType.STRING, None, "keys:0")},
    outputs={"values": TensorSpec(DataType.STRING, None, "values:0")},
)


class LookupTablePlatform:
    """Makes loaders for lookup tables; see `core.servable.Platform`."""

    name = "lookup_table"

    def recognises(self, listing: Listing) -> bool:
        """Return whether there is a table file; a version that is itself a file counts too."""
        return _table_in(listing) is not None or "" in listing.sizes

    def missing(self, listing: Listing) -> str | None:
        """Return what a table lacks to be complete: it must parse, and its last line must end."""
        name = "" if "" in listing.sizes else _table_in(listing)
        if name is None:
            return f"there is no {' or '.join(_NAMES)}"
        content = listing.read(name)
        is_json = content.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{")
        if not is_json and not content.endswith(b"\n"):
            return f"{name or 'the file'} does not end with a line feed"
        try:
            parse(content)
        except InvalidArgument as error:
            return f"{name or 'the file'}: {error.message}"
        return None

    def loader(self, servable_id: ServableId, data: VersionData) -> LookupTableLoader:
        """Return a loader for one version."""
        return LookupTableLoader(data.path)

    def stop(self) -> None:
        """Do nothing: loaders share nothing."""


class LookupTableLoader:
    """Loads one table; see `core.servable.Loader`."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def estimate(self) -> Estimate:
        """Return many times the file's size: short strings take that; more while it loads."""
        size = self._file().stat().st_size
        return Estimate(steady=Footprint(12 * size), peak=Footprint(16 * size))

    def cancel(self) -> None:
        """Do nothing: a load ends soon by itself."""

    def grow(self) -> None:
        """Do nothing: it does not grow."""

    def load(self, placement: Placement = ANYWHERE) -> Servable:
        """Read the file. Raises NotFound, or InvalidArgument with the line."""
        file = self._file()
        try:
            content = file.read_bytes()
        except OSError as error:
            raise error_of_file(error) from error
        return LookupTable(parse(content))

    def unload(self, servable: Servable) -> None:
        """Drop the table."""
        servable.close()

    def _file(self) -> Path:
        files = [self._path / name for name in _NAMES] if self._path.is_dir() else [self._path]
        file = next((f for f in files if f.is_file()), None)
        if file is None:
            raise NotFound(f"there is no {' or '.join(_NAMES)} in {self._path}")
        return file


class LookupTable:
    """`keys`: string tensor of any shape -> `values`: string tensor of the same shape."""

    signatures: Mapping[str, Signature] = {SIGNATURE.name: SIGNATURE}
    metadata = signatures

    def __init__(self, table: Mapping[bytes, bytes]) -> None:
        self._table = table

    ruled_batching: RuledBatching | None = None

    def rows_worth_merging(self, signature: str) -> int:
        """Return 0: a look-up costs less than merging would."""
        return 0

    def why_not_merged(self, signature: str) -> str:
        """Return why look-ups are not merged."""
        return "a look-up costs less than merging would"

    def may_be_repeated(self, signature: str) -> bool:
        """Return True: a look-up changes nothing."""
        return True

    def run(self, signature: Signature, inputs: Tensors, done: Completion) -> None:
        """Look up every key."""
        keys = inputs["keys"]
        values = np.empty(keys.shape, object)
        values.ravel()[:] = [self._table.get(key, b"") for key in keys.ravel()]
        done.succeed({"values": values})

    def close(self) -> None:
        """Drop the table."""
        self._table = {}


def parse(content: bytes) -> dict[bytes, bytes]:
    """Parse a table file; of two lines with one key the first counts.

    Raises InvalidArgument naming the line, or the entry, and what was expected.
    """
    try:
        text = content.decode("utf-8-sig")  # spreadsheets write a mark before the first line
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"the table is not UTF-8: {error}") from error
    return _parse_json(text) if text.lstrip().startswith("{") else _parse_csv(text)


def _parse_json(text: str) -> dict[bytes, bytes]:
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"the table does not parse as JSON: {error}") from error
    return dict(_json_entry(key, value) for key, value in table.items())


def _json_entry(key: str, value: object) -> tuple[bytes, bytes]:
    if not isinstance(value, str):
        raise InvalidArgument(f"entry {key!r}: expected a string, got {type(value).__name__}")
    try:
        return key.encode(), value.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair
        raise InvalidArgument(f"entry {key!r}: {error}") from error


def _parse_csv(text: str) -> dict[bytes, bytes]:
    table: dict[bytes, bytes] = {}
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            if len(row) != 2:
                raise InvalidArgument(
                    f"line {reader.line_num}: expected two columns, got {len(row)}"
                )
            table.setdefault(row[0].encode(), row[1].encode())
    except csv.Error as error:
        raise InvalidArgument(f"line {reader.line_num}: {error}") from error
    return table


def _table_in(listing: Listing) -> str | None:
    return next((name for name in _NAMES if name in listing.sizes), None)
