"""What a server was about to try when it ended: it is not tried again.

A model may abort the process, or take all its memory, on inputs that nobody sent. That cannot be
kept from happening once; a file that is there only meanwhile keeps it from happening at each start.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = ".trying-"

_log = logging.getLogger(__name__)


class Attempts:
    """Files in a folder of our own, each locked by the server that is trying. From any thread."""

    def __init__(self, folder: Path | None) -> None:
        """Without a folder nothing is remembered."""
        self.folder = folder
        self._mine: set[str] = set()  # of attempts under way; each is added and removed once

    def fatal(self, key: str) -> Path | None:
        """The file of an attempt at `key` that a server did not survive."""
        if self.folder is None:
            return None
        for path in self.folder.glob(f"{PREFIX}{key}-*"):
            with contextlib.suppress(OSError), path.open("rb") as file:  # locked: it is under way
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return path
        return None

    @contextlib.contextmanager
    def during(self, key: str, what: str) -> Iterator[None]:
        """Be remembered if the process ends meanwhile. `what` is written for operators."""
        if self.folder is None:
            yield
            return
        try:
            handle, path = tempfile.mkstemp(prefix=f"{PREFIX}{key}-", dir=self.folder)
        except OSError as error:
            _log.debug("an attempt is not remembered: %s", error)
            yield
            return
        try:
            self._mine.add(path)
            fcntl.flock(handle, fcntl.LOCK_EX)
            os.write(handle, what.encode())
            yield
        finally:
            self._mine.discard(path)
            with contextlib.suppress(OSError):
                os.unlink(path)
            os.close(handle)

    def forget(self) -> None:
        """The process ends because it is asked to: what is under way is not to blame."""
        for path in list(self._mine):
            with contextlib.suppress(OSError):
                os.unlink(path)
