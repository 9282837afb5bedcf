"""The cache of optimised graphs on disk: a private folder, limited in size."""

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
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from servingd.servables.saved_model.optimise.attempts import PREFIX as TRYING

_WORK_PREFIX = ".new-"
"""How the names of work folders begin: those whose graph is still being made."""
_OWNER = ".owner"
"""A file in a work folder, locked by the server that works there."""

_TURN_S = 0.1
"""Seconds between two looks at whether it is our turn to make a graph."""

_ABANDONED_S = 24 * 3600.0
"""Seconds: a work folder of this age without such a file belongs to a server that was killed."""

_MAX_ATTEMPT_AGE_S = 30 * 24 * 3600.0
"""Seconds: the files of attempts (`Attempts`) are removed at this age."""

_FORMAT = "without devices"
"""A part of every key: change it when graphs in the cache become unusable."""

_log = logging.getLogger(__name__)


class GraphCache:
    """One folder per key. A cached graph is code that we run: others must not write to the folder.

    While the folder is not usable nothing is cached, and one log line says so; it is checked again
    whenever it is needed. `find` and `folder` may be used by any thread, the rest by one.
    """

    def __init__(self, folder: str, max_bytes: int = 10 << 30) -> None:
        self._max_bytes = max_bytes
        self._folder = Path(folder) if folder else None
        self._problem = ""  # the last one logged; harmless if two threads log it
        self._owned: dict[Path, int] = {}  # by work folder, the locked file in it
        if (there := self.folder) is not None:
            _sweep(there)

    @property
    def folder(self) -> Path | None:
        """The cache's folder, made if need be; None: nothing is cached for now."""
        if self._folder is None:
            return None
        problem = _problem_with(self._folder)
        if problem and problem != self._problem:
            _log.warning("optimised graphs are not kept: %s", problem)
        elif self._problem and not problem:
            _log.info("optimised graphs are kept again, in %s", self._folder)
        self._problem = problem
        return None if problem else self._folder

    def find(self, key: str) -> Path | None:
        """Return the folder cached under `key`, and mark it as used; None if there is none."""
        if self._folder is None or self._problem:
            return None
        folder = self._folder / key
        if not folder.is_dir():
            return None
        with contextlib.suppress(OSError):
            os.utime(folder)
        return folder

    @contextlib.contextmanager
    def one_at_a_time(self, cancelled: threading.Event) -> Iterator[bool]:
        """Hold the machine's right to make a graph; yield whether others held it meanwhile.

        All processes that share the cache wait for each other here, or until `cancelled` is set;
        the folder itself is locked.
        """
        folder = self.folder
        if folder is None:
            yield False
            return
        waited = False
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            while not _lock(descriptor):
                waited = True
                if cancelled.wait(_TURN_S):
                    break
            yield waited
        finally:
            os.close(descriptor)

    def make_work_folder(self) -> Path:
        """Make an empty folder, on the cache's file system so that `store` can rename it."""
        folder = Path(tempfile.mkdtemp(prefix=_WORK_PREFIX, dir=self.folder))
        owner = os.open(folder / _OWNER, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(owner, fcntl.LOCK_EX)
        self._owned[folder] = owner
        return folder

    def store(self, work_folder: Path, key: str) -> Path:
        """Make a finished work folder findable under `key`; return where it lies now.

        Where that is not possible it stays where it is, for `discard`.
        """
        if self._folder is None or work_folder.parent != self._folder:
            return work_folder
        folder = self._folder / key
        try:
            work_folder.rename(folder)
            with contextlib.suppress(OSError):
                os.unlink(folder / _OWNER)
            self._disown(work_folder)
        except OSError as error:  # another server was faster, or the disk is full
            _log.info("an optimised graph is not kept: %s", error)
            return work_folder
        with contextlib.suppress(OSError):
            os.utime(folder)
            self._evict(folder)
        return folder

    def discard(self, folder: Path) -> None:
        """Remove a work folder; a folder that was stored stays."""
        if folder.name.startswith(_WORK_PREFIX):
            shutil.rmtree(folder, ignore_errors=True)
            self._disown(folder)

    def remove(self, folder: Path) -> None:
        """Remove a folder that was stored: its graph turned out to be of no use."""
        shutil.rmtree(folder, ignore_errors=True)

    def _disown(self, work_folder: Path) -> None:
        if (owner := self._owned.pop(work_folder, None)) is not None:
            os.close(owner)

    def _evict(self, stored: Path) -> None:
        """Remove the least recently used folders, down to the limit; `stored` stays."""
        sizes: dict[Path, tuple[float, int]] = {}
        for folder in stored.parent.iterdir():
            if folder.name.startswith("."):
                continue  # a graph is being made there, or it is no graph
            with contextlib.suppress(OSError):  # another server evicts, too
                size = sum(file.stat().st_size for file in folder.rglob("*"))
                sizes[folder] = (folder.stat().st_mtime, size)
        excess = sum(size for _, size in sizes.values()) - self._max_bytes
        for folder in sorted(sizes.keys() - {stored}, key=sizes.__getitem__):
            if excess <= 0:
                return
            shutil.rmtree(folder, ignore_errors=True)
            excess -= sizes[folder][1]


def _sweep(folder: Path) -> None:
    """Remove the work folders of servers that were killed, and old files of attempts."""
    for work_folder in folder.glob(f"{_WORK_PREFIX}*"):
        with contextlib.suppress(OSError):
            if _is_abandoned(work_folder):
                shutil.rmtree(work_folder, ignore_errors=True)
    for file in folder.glob(f"{TRYING}*"):
        with contextlib.suppress(OSError):
            if _age_s(file) > _MAX_ATTEMPT_AGE_S and not _is_locked(file):
                file.unlink()


def _is_abandoned(folder: Path) -> bool:
    """Return whether no server works there. Raises OSError if the folder goes meanwhile."""
    if (folder / _OWNER).exists():
        return not _is_locked(folder / _OWNER)
    return _age_s(folder) > _ABANDONED_S  # of an older release, or just being made


def _is_locked(file: Path) -> bool:
    with file.open("rb") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _age_s(folder: Path) -> float:
    return time.time() - folder.stat().st_mtime


def _problem_with(folder: Path) -> str:
    """Return why a folder, made if need be, is not ours alone to write to; empty if it is."""
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
    """Return the digest of what an optimised graph depends on: model, programs, and processor.

    `versions` are those of the programs, and the tags. The index of the variables holds a checksum
    of each, so their bytes need not be read.
    """
    digest = hashlib.sha256()
    graph = "saved_model.pb" if Path(path, "saved_model.pb").exists() else "saved_model.pbtxt"
    for name in (graph, "variables/variables.index"):
        file = Path(path, name)
        content = file.read_bytes() if file.exists() else b""
        digest.update(f"{name} {len(content)} ".encode())
        digest.update(content)
    for part in (_FORMAT, *versions, _processor()):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


@functools.cache
def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return line
    return os.uname().machine


def _lock(descriptor: int) -> bool:
    """Lock a file for this process; return False if another one has locked it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # the file system knows no locks
        return True
    return True
