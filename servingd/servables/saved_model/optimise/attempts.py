"""A record of loads and optimisations under way: one that ended a server is not tried again.

A model may abort the process, or take all its memory, on synthetic inputs. That cannot be kept from
happening once. A file that exists only during the attempt keeps it from happening at every start.
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
"""How the names of the files begin."""

_log = logging.getLogger(__name__)


class Attempts:
    """Files in a folder, each locked by the server whose attempt it is. From any thread."""

    def __init__(self, folder: Path | None) -> None:
        """`folder` is a private one, or None: then nothing is recorded."""
        self.folder = folder
        self._files: set[str] = set()  # of attempts under way; each is added and removed once

    def fatal(self, key: str) -> Path | None:
        """Return the file of an attempt at `key` that a server did not survive; None: none."""
        if self.folder is None:
            return None
        for path in self.folder.glob(f"{PREFIX}{key}-*"):
            with (
                contextlib.suppress(OSError),
                path.open("rb") as file,
            ):  # locked: the attempt is under way
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return path
        return None

    @contextlib.contextmanager
    def during(self, key: str, what: str) -> Iterator[None]:
        """Record an attempt at `key` for the time of the block; `what` tells operators of what."""
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
            self._files.add(path)
            fcntl.flock(handle, fcntl.LOCK_EX)
            os.write(handle, what.encode())
            yield
        finally:
            self._files.discard(path)
            with contextlib.suppress(OSError):
                os.unlink(path)
            os.close(handle)

    def forget(self) -> None:
        """Remove the files: the process is asked to end, so no attempt under way is to blame."""
        for path in list(self._files):
            with contextlib.suppress(OSError):
                os.unlink(path)
