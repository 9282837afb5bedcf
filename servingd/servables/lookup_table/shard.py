"""A share of a table: the rows whose keys a shard has, as `shards.yaml` splits them by hash."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from servingd.servables.assembled.splitting import shards_by_hash
from servingd.servables.lookup_table.schema import Shard
from servingd.servables.lookup_table.store import Batch, Cells
from servingd.servables.lookup_table.strings import Array, Strings, strings_of


def rows_of_shard(batches: Iterable[Batch], key: str, shard: Shard) -> Iterator[Batch]:
    """Yield the rows of a shard, of each batch."""
    for batch in batches:
        mine = np.flatnonzero(shards_by_hash(_objects(batch[key]), shard.count) == shard.index)
        yield {name: _taken(cells, mine) for name, cells in batch.items()}


def _objects(keys: Cells) -> Array:
    """Return keys as an array; those of a batch are few enough to be objects."""
    if not isinstance(keys, Strings):
        return keys
    array = np.empty(len(keys), object)
    array[:] = keys.slices(np.arange(len(keys)))
    return array


def _taken(cells: Cells, rows: Array) -> Cells:
    return strings_of(cells.slices(rows)) if isinstance(cells, Strings) else cells[rows]
