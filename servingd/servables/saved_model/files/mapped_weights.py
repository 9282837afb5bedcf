"""The file of an optimised graph's large variables: written once, then mapped by whoever serves it.

A header that names its layout, then each variable's bytes at a multiple of `ALIGNMENT`. Which
variable lies where is told by the graph's report. The file is private, and complete from the moment
that it has its name. Nobody may ever shorten it or write to it: a process that has mapped it would
die of the one, and answer with other weights after the other. Removing it harms nobody.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from servingd.machine.mounts import is_local

FILE = "weights.bin"

ALIGNMENT = 1 << 16
"""Bytes: the largest page of the machines that TensorFlow runs on."""
_MODE = 0o400
_MAGIC = b"servingd weights 1\n"
_CHUNK = 4 << 20


class MappedTensor(NamedTuple):
    """One variable in the file."""

    name: str
    """The placeholder of the graph that takes it."""
    data_type: int
    """The number that TensorFlow gives its type."""
    shape: tuple[int, ...]
    offset: int
    size: int
    """Bytes."""


class MappedWeights(NamedTuple):
    """What is in a file of weights."""

    tensors: tuple[MappedTensor, ...]
    size: int
    """Bytes of the file."""
    checksum: int
    """The CRC32 of all that follows the header."""

    def header(self) -> bytes:
        """Return the bytes with which the file begins."""
        layout = json.dumps([self.tensors, self.size, self.checksum]).encode()
        return _MAGIC + hashlib.sha256(layout).hexdigest().encode()

    def as_json(self) -> dict[str, Any]:
        """Return what `weights_from_json` reads."""
        return {**self._asdict(), "tensors": [tensor._asdict() for tensor in self.tensors]}


class BadWeights(ValueError):
    """A file is not what was written; the text says why."""


def weights_from_json(found: Any) -> MappedWeights:
    """Return what `as_json` told. Raises BadWeights."""
    try:
        tensors = tuple(
            MappedTensor(
                str(each["name"]),
                int(each["data_type"]),
                tuple(int(size) for size in each["shape"]),
                int(each["offset"]),
                int(each["size"]),
            )
            for each in found["tensors"]
        )
        weights = MappedWeights(tensors, int(found["size"]), int(found["checksum"]))
    except (KeyError, TypeError, ValueError) as error:
        raise BadWeights(f"what its graph tells of it does not parse: {error!r}") from error
    for tensor in tensors:
        inside = ALIGNMENT <= tensor.offset <= weights.size - tensor.size
        if tensor.offset % ALIGNMENT or not inside or tensor.size <= 0:
            raise BadWeights(f"{tensor.name} does not lie in it")
    return weights


def layout(variables: Iterable[tuple[str, int, tuple[int, ...], int]]) -> MappedWeights:
    """Return where each variable goes: its name, type, shape and bytes. No checksum yet."""
    tensors, end = [], ALIGNMENT
    for name, data_type, shape, size in variables:
        tensors.append(MappedTensor(name, data_type, shape, end, size))
        end += -(-size // ALIGNMENT) * ALIGNMENT
    return MappedWeights(tuple(tensors), end, 0)


def write_weights(
    folder: Path, planned: MappedWeights, values: Iterable[np.ndarray[Any, Any]]
) -> MappedWeights:
    """Write the file into `folder`; return what is in it, with its checksum.

    `values` are asked for one at a time. Where there is no room for all, nothing is written. Raises
    OSError, or BadWeights for a value that is not what was planned.
    """
    new = folder / f".{FILE}"
    file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, planned.size)
        for tensor, value in zip(planned.tensors, values, strict=True):
            if value.shape != tensor.shape or value.nbytes != tensor.size:
                raise BadWeights(f"{tensor.name} is {value.dtype}{list(value.shape)}")
            _write(file, np.ascontiguousarray(value).reshape(-1).view(np.uint8), tensor.offset)
            del value
        written = planned._replace(checksum=_checksum(file, planned.size))
        _write(file, np.frombuffer(written.header(), np.uint8), 0)
        os.fchmod(file, _MODE)
        os.fsync(file)
        os.rename(new, folder / FILE)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
    finally:
        os.close(file)
    _sync_folder(folder)
    return written


def _write(file: int, content: np.ndarray[Any, Any], offset: int) -> None:
    view = content.data
    while view:
        written = os.pwrite(file, view[:_CHUNK], offset)
        view, offset = view[written:], offset + written


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def open_weights(folder: Path, weights: MappedWeights) -> int:
    """Return a descriptor of the file in `folder`, to be mapped.

    It is the file that was written, as far as its size, owner, mode and header tell; its bytes are
    read by `check_weights`. On a file system of another machine nothing is mapped: what goes there
    would end this process. Raises OSError or BadWeights.
    """
    path = folder / FILE
    if not is_local(folder):
        raise BadWeights(f"{path} is not on a file system of this machine")
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise BadWeights(f"{path} is not a file of ours")
        if stat.S_IMODE(status.st_mode) != _MODE:
            raise BadWeights(f"{path} has mode {stat.S_IMODE(status.st_mode):o}, not {_MODE:o}")
        if status.st_size != weights.size:
            raise BadWeights(f"{path} has {status.st_size} bytes, not {weights.size}")
        header = weights.header()
        if os.pread(file, len(header), 0) != header:
            raise BadWeights(f"{path} has another header than its graph's file")
    except BaseException:
        os.close(file)
        raise
    return file


def check_weights(
    folder: Path, weights: MappedWeights, cancelled: Callable[[], bool] = lambda: False
) -> None:
    """Read the whole file, until `cancelled` returns True.

    Raises OSError, or BadWeights if it is not what was written.
    """
    file = open_weights(folder, weights)
    try:
        checksum = _checksum(file, weights.size, cancelled)
        if checksum != weights.checksum and not cancelled():
            raise BadWeights(f"the bytes of {folder / FILE} are not those that were written")
    finally:
        os.close(file)


def _checksum(file: int, size: int, cancelled: Callable[[], bool] = lambda: False) -> int:
    """Return the CRC32 of all that follows the header; other threads run meanwhile."""
    found, offset = 0, ALIGNMENT
    while offset < size and not cancelled():
        chunk = os.pread(file, min(_CHUNK, size - offset), offset)
        if not chunk:
            raise BadWeights("it ends too early")
        found, offset = zlib.crc32(chunk, found), offset + len(chunk)
    return found
