"""Where optimised graphs are kept between starts: a private folder, size-capped."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

_NEW = ".new-"
_ABANDONED_S = 24 * 3600.0
"""A workplace of this age belongs to a server that was killed."""

_FORM = "without devices"
"""Of what is kept: changes with what makes older graphs unusable."""

_log = logging.getLogger(__name__)


class GraphCache:
    """One folder per key. A cached graph is code that we run: the folder must be ours alone.

    Without a usable folder nothing is kept, and one log line says so. `find` may be called by any
    thread, the rest by one.
    """

    def __init__(self, folder: str, max_bytes: int = 10 << 30) -> None:
        self._max_bytes = max_bytes
        self._folder = _private(Path(folder)) if folder else None
        if self._folder is not None:
            _sweep(self._folder)

    @property
    def folder(self) -> Path | None:
        """Where it is; None: nothing is kept."""
        return self._folder

    def find(self, key: str) -> Path | None:
        """The folder kept under `key`, now the most recently used."""
        if self._folder is None:
            return None
        place = self._folder / key
        if not place.is_dir():
            return None
        with contextlib.suppress(OSError):
            os.utime(place)
        return place

    def workplace(self) -> Path:
        """A new empty folder, on the cache's file system so that `keep` can rename it."""
        return Path(tempfile.mkdtemp(prefix=_NEW, dir=self._folder))

    def keep(self, workplace: Path, key: str) -> Path:
        """Make a finished workplace findable under `key`; return where it lies now."""
        if self._folder is None:
            return workplace
        place = self._folder / key
        try:
            workplace.rename(place)
        except OSError as error:  # another server was faster, or the disk is full
            _log.info("an optimised graph is not kept: %s", error)
            return workplace
        with contextlib.suppress(OSError):
            os.utime(place)
            self._make_room(place)
        return place

    def drop(self, place: Path) -> None:
        """Remove a folder that is not kept; one that is kept stays."""
        if self._folder is None or place.name.startswith(_NEW):
            shutil.rmtree(place, ignore_errors=True)

    def forget(self, place: Path) -> None:
        """Remove a folder that is kept: it turned out to be of no use."""
        shutil.rmtree(place, ignore_errors=True)

    def _make_room(self, kept: Path) -> None:
        """Remove the least recently used, down to the cap; what was just kept stays."""
        sizes: dict[Path, tuple[float, int]] = {}
        for place in kept.parent.iterdir():
            if place.name.startswith(_NEW):
                continue  # somebody works in it
            with contextlib.suppress(OSError):  # another server made room, too
                size = sum(file.stat().st_size for file in place.iterdir())
                sizes[place] = (place.stat().st_mtime, size)
        excess = sum(size for _, size in sizes.values()) - self._max_bytes
        for place in sorted(sizes.keys() - {kept}, key=sizes.__getitem__):
            if excess <= 0:
                return
            shutil.rmtree(place, ignore_errors=True)
            excess -= sizes[place][1]


def _sweep(folder: Path) -> None:
    """Remove what servers that were killed left behind."""
    for place in folder.glob(f"{_NEW}*"):
        with contextlib.suppress(OSError):
            if time.time() - place.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(place, ignore_errors=True)


def _private(folder: Path) -> Path | None:
    """The folder, made if need be, if nobody else can write to it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            _log.warning("optimised graphs are not kept: others can write to %s", folder)
            return None
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        _log.warning("optimised graphs are not kept: %s", error)
        return None


def model_key(path: str, *versions: str) -> str:
    """The digest of what an optimised graph depends on: the model, the programs, the processor.

    The index of the variables holds a checksum of each, so their bytes need not be read.
    """
    digest = hashlib.sha256()
    graph = "saved_model.pb" if Path(path, "saved_model.pb").exists() else "saved_model.pbtxt"
    for name in (graph, "variables/variables.index"):
        file = Path(path, name)
        content = file.read_bytes() if file.exists() else b""
        digest.update(f"{name} {len(content)} ".encode())
        digest.update(content)
    for part in (_FORM, *versions, _processor()):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


@functools.cache
def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return line
    return os.uname().machine
