"""Events of the file system, where it sends any."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirModifiedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer

_CHANGES: list[type[FileSystemEvent]] = [
    DirCreatedEvent,
    DirDeletedEvent,
    DirModifiedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
]
"""All events but those of reading: each of our own scans would cause some."""

_log = logging.getLogger(__name__)


class Watcher:
    """Watches a set of folders by watchdog. A folder that cannot be watched is polled instead.

    A folder that is removed and made anew is another folder: it is watched anew.
    """

    def __init__(self, on_changed: Callable[[str], None]) -> None:
        """`on_changed` is called from watchdog's threads with the path of what has changed."""
        self._handler = _Handler(on_changed)
        self._observer: Any = None  # made when first needed: it takes a resource of the system
        self._watches: dict[tuple[str, int], Any] = {}  # by path and inode
        self._failed: set[str] = set()

    def watch(self, folders: set[str]) -> bool:
        """Watch these folders and what is below them, and no others, as far as that is possible.

        Returns whether one of them was not watched before.
        """
        more = False
        wanted = {(folder, inode) for folder in folders if (inode := _inode(folder))}
        removed = self._handler.take_removed()
        for key in list(self._watches):
            if key not in wanted or key[0] in removed:
                self._drop(key)
        for key in wanted - self._watches.keys():
            try:
                self._watches[key] = self._running().schedule(
                    self._handler, key[0], recursive=True, event_filter=_CHANGES
                )
                self._failed.discard(key[0])
                more = True
            except OSError as error:
                if key[0] not in self._failed:
                    self._failed.add(key[0])
                    _log.info("%s is polled, it cannot be watched: %s", key[0], error)
        return more

    def stop(self) -> None:
        """End watchdog's threads."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(5)

    def _running(self) -> Any:
        if self._observer is None:
            observer = Observer()
            observer.name = "watchdog"
            observer.start()
            self._observer = observer
        return self._observer

    def _drop(self, key: tuple[str, int]) -> None:
        try:
            self._observer.unschedule(self._watches.pop(key))
        except (OSError, KeyError) as error:  # watchdog has noticed first
            _log.debug("%s was not watched any more: %s", key[0], error)


def _inode(folder: str) -> int:
    try:
        return os.stat(folder).st_ino
    except (OSError, ValueError):  # there is none, or it is no path
        return 0


class _Handler(FileSystemEventHandler):
    """Reports events."""

    def __init__(self, on_changed: Callable[[str], None]) -> None:
        self._on_changed = on_changed
        self._removed: set[str] = set()  # written by watchdog's threads, replaced by the source's

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type in ("deleted", "moved"):
            self._removed.add(os.fsdecode(event.src_path))
        self._on_changed(os.fsdecode(event.src_path))
        if event.event_type == "moved":
            self._on_changed(os.fsdecode(event.dest_path))

    def take_removed(self) -> set[str]:
        """Return the paths removed since the last call: a watch on one of them is dead."""
        removed, self._removed = self._removed, set()
        return removed
