"""Where optimised graphs are kept between starts: a private folder, size-capped."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import logging
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

from servingd.servables.saved_model.optimise.attempts import PREFIX as TRYING

_NEW = ".new-"
_OWNER = ".owner"
"""A file in a workplace, locked by the server that works there."""

_ABANDONED_S = 24 * 3600.0
"""A workplace of this age without such a file belongs to a server that was killed."""

_OLD_S = 30 * 24 * 3600.0
"""What is half made, or was tried, is of no use any more at this age."""

_FORM = "without devices"
"""Of what is kept: changes with what makes older graphs unusable."""

_log = logging.getLogger(__name__)


class GraphCache:
    """One folder per key. A cached graph is code that we run: the folder must be ours alone.

    While there is no usable folder nothing is kept, and one log line says so; it is looked for
    whenever it is needed. `find` and `folder` may be used by any thread, the rest by one.
    """

    def __init__(self, folder: str, max_bytes: int = 10 << 30) -> None:
        self._max_bytes = max_bytes
        self._folder = Path(folder) if folder else None
        self._trouble = ""  # what was last told; harmless if two threads tell it
        self._owned: dict[Path, int] = {}  # the files that keep our workplaces locked
        if (there := self.folder) is not None:
            _sweep(there)

    @property
    def folder(self) -> Path | None:
        """Where it is, made if need be; None: nothing is kept for now."""
        if self._folder is None:
            return None
        trouble = _trouble_with(self._folder)
        if trouble and trouble != self._trouble:
            _log.warning("optimised graphs are not kept: %s", trouble)
        elif self._trouble and not trouble:
            _log.info("optimised graphs are kept again, in %s", self._folder)
        self._trouble = trouble
        return None if trouble else self._folder

    def find(self, key: str) -> Path | None:
        """The folder kept under `key`, now the most recently used."""
        if self._folder is None or self._trouble:
            return None
        place = self._folder / key
        if not place.is_dir():
            return None
        with contextlib.suppress(OSError):
            os.utime(place)
        return place

    def workplace(self) -> Path:
        """A new empty folder, on the cache's file system so that `keep` can rename it."""
        place = Path(tempfile.mkdtemp(prefix=_NEW, dir=self.folder))
        owner = os.open(place / _OWNER, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(owner, fcntl.LOCK_EX)
        self._owned[place] = owner
        return place

    def keep(self, workplace: Path, key: str) -> Path:
        """Make a finished workplace findable under `key`; return where it lies now."""
        if self._folder is None or workplace.parent != self._folder:
            return workplace
        place = self._folder / key
        try:
            workplace.rename(place)
            with contextlib.suppress(OSError):
                os.unlink(place / _OWNER)
            self._disown(workplace)
        except OSError as error:  # another server was faster, or the disk is full
            _log.info("an optimised graph is not kept: %s", error)
            return workplace
        with contextlib.suppress(OSError):
            os.utime(place)
            self._make_room(place)
        return place

    def drop(self, place: Path) -> None:
        """Remove a folder that is not kept; one that is kept stays."""
        if place.name.startswith(_NEW):
            shutil.rmtree(place, ignore_errors=True)
            self._disown(place)

    def forget(self, place: Path) -> None:
        """Remove a folder that is kept: it turned out to be of no use."""
        shutil.rmtree(place, ignore_errors=True)

    def _disown(self, workplace: Path) -> None:
        if (owner := self._owned.pop(workplace, None)) is not None:
            os.close(owner)

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
    """Remove what servers that were killed left behind, and what was tried long ago."""
    for place in folder.glob(f"{_NEW}*"):
        with contextlib.suppress(OSError):
            if _is_abandoned(place):
                shutil.rmtree(place, ignore_errors=True)
    for file in folder.glob(f"{TRYING}*"):
        with contextlib.suppress(OSError):
            if _age_s(file) > _OLD_S and not _is_locked(file):
                file.unlink()


def _is_abandoned(place: Path) -> bool:
    """Raises OSError for one that goes meanwhile."""
    if (place / _OWNER).exists():
        return not _is_locked(place / _OWNER)
    return _age_s(place) > _ABANDONED_S  # of an older release, or just being made


def _is_locked(file: Path) -> bool:
    with file.open("rb") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _age_s(place: Path) -> float:
    return time.time() - place.stat().st_mtime


def _trouble_with(folder: Path) -> str:
    """Why a folder, made if need be, is not ours alone to write to; empty if it is."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return f"others can write to {folder}"
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return str(error)


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
