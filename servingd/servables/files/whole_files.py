"""Whether a zip archive or an HDF5 file is whole, told without reading what is in it."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Collection

from servingd.servables.files.source import AsStream, Source

_HDF5 = b"\x89HDF\r\n\x1a\n"
_HDF5_HEAD = 256


def damage_of_zip(source: Source, members: Collection[str]) -> str | None:
    """Return why a file is no whole zip archive with these members; None if it is one.

    Its directory is written last, and says where each member lies.
    """
    try:
        with zipfile.ZipFile(AsStream(source)) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
        return f"is no whole archive ({source.size} bytes): {error}"
    absent = sorted(set(members) - names)
    return f"has no {absent[0]} in it" if absent else None


def damage_of_hdf5(source: Source) -> str | None:
    """Return why a file is no whole HDF5 file; None if it is: its head says where it ends."""
    head = source.read(0, _HDF5_HEAD)
    if not head.startswith(_HDF5):
        return f"does not begin as an HDF5 file does ({source.size} bytes)"
    try:
        end = _end_of_hdf5(head)
    except (IndexError, struct.error):
        return f"ends within its head ({source.size} bytes)"
    return f"has {source.size} bytes of {end}" if source.size < end else None


def _end_of_hdf5(head: bytes) -> int:
    """Return where the file ends, by its superblock. Raises IndexError or struct.error."""
    version = head[8]
    if version <= 1:
        offset_size, addresses = head[13], 24 if version == 0 else 28
        place = addresses + 2 * offset_size
    else:
        offset_size = head[9]
        place = 12 + 2 * offset_size
    code = {4: "<I", 8: "<Q"}.get(offset_size)
    if code is None:
        raise struct.error
    (end,) = struct.unpack_from(code, head, place)
    return int(end)
