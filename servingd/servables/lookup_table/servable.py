"""A table that answers calls."""

from __future__ import annotations

import numpy as np

from servingd.core.call_protocols import Completion
from servingd.core.types import Signature, Tensors
from servingd.errors import NotFound, Unavailable
from servingd.servables.lookup_table.schema import Schema
from servingd.servables.lookup_table.store import Table
from servingd.servables.lookup_table.strings import Array
from servingd.servables.plugin import Servable


class LookupTable(Servable):
    """Keys of any shape -> each column with that shape; see `servables.plugin.Servable`."""

    def __init__(self, schema: Schema, table: Table) -> None:
        signature = schema.signature()
        self.signatures = {signature.name: signature}
        self._schema = schema
        self._table: Table | None = table

    def why_not_merged(self, signature: str) -> str:
        """Return why look-ups are not merged."""
        return "a look-up costs less than merging would"

    def may_be_repeated(self, signature: str) -> bool:
        """Return True: a look-up changes nothing."""
        return True

    def run(self, signature: Signature, inputs: Tensors, done: Completion) -> None:
        """Look up every key. Raises NotFound where the schema says so."""
        schema, table = self._schema, self._table
        if table is None:
            raise Unavailable("the servable is closed")
        keys = inputs[schema.key]
        rows = table.find(keys.ravel())
        if schema.missing_is_error:
            _require_all(rows, keys, schema.key)
        outputs = {
            name: values.reshape(keys.shape + values.shape[1:])
            for name, values in table.take(rows).items()
        }
        if schema.shows_found:
            outputs["found"] = (rows >= 0).reshape(keys.shape)
        done.succeed(outputs)

    def close(self) -> None:
        """Drop the table."""
        self._table = None


def _require_all(rows: Array, keys: Array, name: str) -> None:
    """Raise NotFound naming the first key without a row, and its place."""
    absent = np.flatnonzero(rows < 0)
    if not len(absent):
        return
    place = [int(i) for i in np.unravel_index(absent[0], keys.shape)]
    key = keys.ravel()[absent[0]]
    shown = repr(key[:100].decode(errors="replace")) if isinstance(key, bytes) else str(key)
    raise NotFound(f"key {shown} of input {name} at {place} is not in the table")
