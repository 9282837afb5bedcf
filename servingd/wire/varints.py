"""Protobuf's variable-length integers, one or many at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

# So many at a time stay in the second-level cache while they are taken apart.
_CHUNK = 4096


def varint(value: int) -> bytes:
    """Return the bytes of one number, 0 to 2^64 - 1."""
    if value < 128:
        return _SMALL[value]
    groups = bytearray()
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    groups.append(value)
    return bytes(groups)


_SMALL = [bytes((value,)) for value in range(128)]


def varints(values: np.ndarray[Any, Any]) -> bytes:
    """Return the bytes of all numbers of a flat integer array, one after the other.

    Negative numbers take ten bytes, as those of protobuf's int32 and int64 do.
    """
    if values.size == 0:
        return b""
    if values.min() >= 0 and values.max() < 128:
        return values.astype(np.uint8).tobytes()
    return b"".join(
        _chunk_varints(values[start : start + _CHUNK]) for start in range(0, values.size, _CHUNK)
    )


def _chunk_varints(values: np.ndarray[Any, Any]) -> bytes:
    if values.dtype.kind == "i":
        # Sign-extended to 64 bits, also where the number is one of 8.
        values = values.astype(np.int64, copy=False)
    left: np.ndarray[Any, Any] = values.astype(np.uint64, copy=False)
    bits = int(left.max()).bit_length()
    if bits <= 32:
        left = left.astype(np.uint32)
    groups = np.empty((values.size, -(-bits // 7)), np.uint8)
    used = np.empty(groups.shape, np.bool_)
    in_use = np.ones(values.size, np.bool_)
    for column in range(groups.shape[1]):
        used[:, column] = in_use
        groups[:, column] = left
        left = left >> 7
        in_use = left != 0
        groups[:, column] &= 127
        groups[:, column] |= in_use.view(np.uint8) << 7
    # Twice as fast as indexing with the mask.
    return groups.ravel().compress(used.ravel()).tobytes()


def read_varint32(content: bytes, position: int) -> tuple[int, int]:
    """Return the number at `position`, and the position behind it.

    Raises:
        ValueError: it does not end within five bytes, or within `content`.
    """
    value = 0
    for shift in range(0, 35, 7):
        if position >= len(content):
            break
        group = content[position]
        position += 1
        value |= (group & 127) << shift
        if group < 128:
            return value & 0xFFFFFFFF, position
    raise ValueError("a number does not end")


def read_varint64(content: bytes | memoryview, position: int) -> tuple[int, int]:
    """Return the number of up to 64 bits at `position`, and the position behind it.

    Raises ValueError where it does not end within `content`, or has more bits.
    """
    value = 0
    for shift in range(0, 64, 7):
        if position >= len(content):
            break
        group = content[position]
        position += 1
        value |= (group & 127) << shift
        if group < 128:
            return value, position
    raise ValueError("a number does not end")
