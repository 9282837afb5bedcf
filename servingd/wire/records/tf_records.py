"""TFRecord files: records one after the other, each with its length and two checksums.

A record is its length (uint64), the masked CRC-32C of those eight bytes, its data, and the masked
CRC-32C of the data; all numbers are little-endian.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import google_crc32c

from servingd.errors import DataLoss

_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_HEAD = _LENGTH.size + _CRC.size
_MASK = 0xA282EAD8


def frame(data: bytes) -> bytes:
    """Return a record as it stands in a file."""
    length = _LENGTH.pack(len(data))
    return b"".join((length, _CRC.pack(_masked_crc(length)), data, _CRC.pack(_masked_crc(data))))


def read_records(path: str) -> Iterator[bytes]:
    """Yield the records of a file, in order, one in memory at a time.

    Raises OSError, and DataLoss at the first record that is cut off or does not fit its checksums;
    the text says where it begins.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        at = 0
        while head := file.read(_HEAD):
            if len(head) < _HEAD:
                raise DataLoss(f"truncated record at {at}")
            length = _LENGTH.unpack_from(head)[0]
            if _CRC.unpack_from(head, _LENGTH.size)[0] != _masked_crc(head[: _LENGTH.size]):
                raise DataLoss(f"corrupted record at {at}")
            if length > size - at - _HEAD - _CRC.size:  # also keeps a lie from taking all memory
                raise DataLoss(f"truncated record at {at}")
            data, crc = file.read(length), file.read(_CRC.size)
            if len(data) < length or len(crc) < _CRC.size:  # it was cut off meanwhile
                raise DataLoss(f"truncated record at {at}")
            if _CRC.unpack(crc)[0] != _masked_crc(data):
                raise DataLoss(f"corrupted record at {at}")
            yield data
            at += _HEAD + length + _CRC.size


def _masked_crc(data: bytes) -> int:
    return masked(google_crc32c.value(data))


def masked(crc: int) -> int:
    """Return TensorFlow's mask of a CRC-32C: a CRC of data that holds CRCs is weak."""
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF
