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
from pathlib import Path

_log = logging.getLogger(__name__)


class GraphCache:
    """One folder per key. A cached graph is code that we run: the folder must be ours alone.

    Without a usable folder nothing is kept, and one log line says so. Used by one thread.
    """

    def __init__(self, folder: str, max_bytes: int = 10 << 30) -> None:
        self._max_bytes = max_bytes
        self._folder = _private(Path(folder)) if folder else None

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
        return Path(tempfile.mkdtemp(prefix=".new-", dir=self._folder))

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
        self._make_room()
        return place

    def drop(self, place: Path) -> None:
        """Remove a folder that is not kept; one that is kept stays."""
        if self._folder is None or place.name.startswith(".new-"):
            shutil.rmtree(place, ignore_errors=True)

    def _make_room(self) -> None:
        assert self._folder is not None
        oldest_first = sorted(
            (p for p in self._folder.iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime
        )
        sizes = {p: sum(f.stat().st_size for f in p.iterdir()) for p in oldest_first}
        excess = sum(sizes.values()) - self._max_bytes
        for place in oldest_first[:-1]:  # what was just kept stays, whatever its size
            if excess <= 0:
                return
            shutil.rmtree(place, ignore_errors=True)
            excess -= sizes[place]


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
    for name in ("saved_model.pb", "variables/variables.index"):
        file = Path(path, name)
        content = file.read_bytes() if file.exists() else b""
        digest.update(f"{name} {len(content)} ".encode())
        digest.update(content)
    for part in (*versions, _processor()):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


@functools.cache
def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return line
    return os.uname().machine
