"""Which shard has a key, and which rows go to which shard. Pure.

By hash: CRC-32 of the key's bytes, modulo the number of shards; of an integer, its eight bytes,
little-endian. It is the checksum of zip and gzip, so that anybody can split data in the same way.
By range: shard 0 has the keys below the first bound, shard 1 those from there to below the second,
and so on; the last one has the rest.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import numpy as np

from servingd.errors import InvalidArgument

Array = np.ndarray[Any, Any]
Bounds = Sequence[int] | Sequence[bytes]


def shards_by_hash(keys: Array, count: int) -> Array:
    """Return the number of each key's shard, by hash; keys are integers or strings (`bytes`)."""
    if keys.dtype.kind in "iu":
        text = keys.astype("<i8").tobytes()
        hashes = [crc32(text[at : at + 8]) for at in range(0, len(text), 8)]
    elif keys.dtype.hasobject:
        hashes = [crc32(key) for key in keys.ravel()]
    else:
        raise InvalidArgument(f"keys: expected integers or strings, got {keys.dtype}")
    return (np.array(hashes, np.int64) % count).reshape(keys.shape)


def shards_by_range(keys: Array, bounds: Bounds) -> Array:
    """Return the number of each key's shard, by range; `bounds` ascend."""
    if keys.dtype.kind != "f" and not _comparable(keys, bounds):
        found = [bisect_right(bounds, key) for key in keys.ravel().tolist()]
        return np.array(found, np.int64).reshape(keys.shape)
    return np.searchsorted(np.asarray(bounds), keys, side="right")


def _comparable(keys: Array, bounds: Bounds) -> bool:
    """Return whether numpy compares keys and bounds as integers: of mixed signs, as floats."""
    return not keys.dtype.hasobject and np.result_type(keys, np.asarray(bounds)).kind in "iu"


def rows_of_shards(shards: Array, count: int) -> list[Array]:
    """Return for each shard the places of its rows, ascending."""
    order = np.argsort(shards, kind="stable")
    ends = np.searchsorted(shards[order], np.arange(count), side="right")
    return np.split(order, ends[:-1])
