"""The files of a request log: written by one thread, rotated by size, the oldest deleted."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
import time

_SUFFIX = re.compile(r"-(\d{8}T\d{6}Z)-(\d+)-(\d+)\.tfrecord")

_log = logging.getLogger(__name__)


class LogFiles:
    """The files `<prefix>-<UTC time>-<process>-<number>.tfrecord`. For one thread.

    They are private (0600), and existing files are never written to. A record that could only be
    written in part is cut off again, so that every file can be read at any time.
    """

    def __init__(self, prefix: str, max_bytes: int, max_files: int) -> None:
        """`max_files` limits all files with this prefix, other processes' too; 0: no limit."""
        self._prefix = prefix
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._file: int | None = None
        self._size = 0
        self._number = 0

    def write(self, record: bytes) -> None:
        """Append a record. Raises OSError if it cannot be written; then no part of it is."""
        if self._file is not None and self._is_over(len(record)):
            self.close()
        if self._file is None:
            self._open()
        assert self._file is not None  # it has just been opened
        try:
            _write_all(self._file, record)
        except OSError:
            self._take_back()
            raise
        self._size += len(record)

    def close(self) -> None:
        """Close the current file; the next record begins a new one."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):  # the data were written: there is nothing to do
                os.close(file)

    def _is_over(self, more: int) -> bool:
        assert self._file is not None  # called with an open file only
        if self._size and self._size + more > self._max_bytes:
            return True
        return os.fstat(self._file).st_nlink == 0  # somebody has removed it

    def _open(self) -> None:
        folder = os.path.dirname(self._prefix)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        while self._file is None:
            now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
            path = f"{self._prefix}-{now}-{os.getpid()}-{self._number}.tfrecord"
            self._number += 1
            with contextlib.suppress(FileExistsError):
                self._file = os.open(path, flags, 0o600)
        self._size = 0
        _log.info("requests are logged to %s", path)
        self._give_up_oldest(folder, os.path.basename(path))

    def _give_up_oldest(self, folder: str, newest: str) -> None:
        """Delete all but the newest files of this prefix, and nothing else."""
        if self._max_files <= 0:
            return
        try:
            others = sorted(self._files(folder) - {newest}, key=_age)
            for name in others[: max(0, len(others) + 1 - self._max_files)]:
                os.unlink(os.path.join(folder, name))
        except OSError as error:  # another process may have been faster
            _log.info("an old request log stays: %s", error)

    def _files(self, folder: str) -> set[str]:
        base = os.path.basename(self._prefix)
        with os.scandir(folder) as entries:
            return {
                entry.name
                for entry in entries
                if entry.name.startswith(base)
                and _SUFFIX.fullmatch(entry.name, len(base))
                and stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode)
            }

    def _take_back(self) -> None:
        """Cut off a partly written record; if that fails, close the file as it is."""
        assert self._file is not None  # something was being written to it
        try:
            os.ftruncate(self._file, self._size)
        except OSError:
            self.close()


def _age(name: str) -> tuple[str, int, int]:
    """Return a sort key for file names: by time, then by process and number."""
    found = _SUFFIX.search(name)
    assert found is not None  # it is one of ours
    return found[1], int(found[2]), int(found[3])


def _write_all(file: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]
