"""The file-system source: watches model directories and states which versions ought to be loaded.

Events of the file system make it look at once; polling is the safety net, and the only means where
there are no events, as on network mounts. Each model is looked at by itself: a directory that is
missing or cannot be read concerns that model alone, and what it serves stays.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from servingd.core.interfaces import Aspire
from servingd.core.types import AspiredVersions
from servingd.sources.model_directory import ModelDirectory, PlatformNamed, Recognise
from servingd.sources.rosters import Roster

Configure = Callable[[Iterable[str]], None]
"""Told of all models that ought to be served, before anything is stated about a new one."""

Absent = Callable[[str, str], None]
"""Told, at each look, of a model of which no version can be loaded, and why."""

_MIN_GAP_S = 0.05
"""At least this long between two looks: a copy under way sends events without end."""

_log = logging.getLogger(__name__)


class FileSystemSource:
    """Owns the thread `file-system-source` and watchdog's; see `core.interfaces.Source`.

    `poll_wait_s` above 0: look at least so often; 0: look once, and when the roster has changed;
    below 0: look upon events only.
    """

    def __init__(
        self,
        roster: Roster,
        platform_named: PlatformNamed,
        recognise: Recognise,
        aspire: Aspire,
        configure: Configure,
        poll_wait_s: float = 1.0,
        absent: Absent = lambda name, reason: None,
    ) -> None:
        self._roster = roster
        self._absent = absent
        self._platform_named = platform_named
        self._recognise = recognise
        self._aspire = aspire
        self._configure = configure
        self._poll_wait_s = poll_wait_s
        self._directories: dict[str, ModelDirectory] = {}  # the source's thread only
        self._last: dict[str, AspiredVersions] = {}  # the source's thread only
        self._told = False  # whether `configure` has been called; the source's thread only
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._watcher = _Watcher(self._wake.set)
        self._thread = threading.Thread(target=self._run, name="file-system-source", daemon=True)

    def start(self) -> None:
        """Begin to look; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End; afterwards nothing is stated and no statement is on its way."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(10)
        self._watcher.stop()

    def look_soon(self) -> None:
        """Look now, also where polling is off: the roster has changed. From any thread."""
        self._wake.set()

    def scan(self) -> None:
        """Look at every model once. On the source's thread, or before `start` in a test."""
        self._update_models()
        self._look()

    def _look(self) -> None:
        for name, directory in self._directories.items():
            if self._stopping.is_set():
                return
            try:
                statement = directory.scan()
            except BaseException:  # one model's directory must not end the watch of the others
                _log.exception("the directory of model %s cannot be looked at", name)
                continue
            if statement is not None and statement != self._last.get(name):
                self._last[name] = statement
                self._state(statement)
            if directory.absent:
                self._absent(name, directory.absent)

    # The source's thread --------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            started = time.monotonic()
            try:
                self._look_at_all()
            except BaseException:  # whatever one model's name or folder does: look on
                _log.exception("the models cannot be looked at")
            if self._poll_wait_s == 0:  # once, and when the models are others
                self._wake.wait()
                continue
            due = started + self._poll_wait_s - time.monotonic()
            self._wake.wait(None if self._poll_wait_s < 0 else max(0.0, due))
            self._stopping.wait(max(0.0, started + _MIN_GAP_S - time.monotonic()))

    def _look_at_all(self) -> None:
        self._update_models()
        if self._poll_wait_s != 0:
            # Before the look: what happens after it, or during it, wakes us.
            self._watcher.watch(self._folders())
        self._look()

    def _folders(self) -> set[str]:
        """What to watch; a repository's watch covers its models."""
        repository = self._roster.watched()
        if repository is not None:
            return {repository}
        return {d.model.base_path for d in self._directories.values()}

    def _state(self, statement: AspiredVersions) -> None:
        if not self._stopping.is_set():  # a look may have hung in a file system until after `stop`
            self._aspire(statement)

    def _update_models(self) -> None:
        try:
            models = {model.name: model for model in self._roster.models()}
        except OSError as error:
            _log.warning("the models cannot be listed: %s", error)
            return
        if self._told and {n: d.model for n, d in self._directories.items()} == models:
            return
        self._told = True
        self._configure(models)
        for name in self._directories.keys() - models.keys():
            del self._directories[name]
            self._last.pop(name, None)
            self._state(AspiredVersions(name, ()))  # once: everything of it is to be unloaded
        for name, model in models.items():
            known = self._directories.get(name)
            if known is None or known.model != model:
                self._directories[name] = ModelDirectory(
                    model, self._platform_named, self._recognise
                )


class _Watcher:
    """watchdog on a set of folders. Where it cannot watch, polling has to do.

    A folder that is removed and made anew is another folder: it is watched anew.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._handler = _Handler(wake)
        self._observer: Any = None  # made when first needed: it takes a resource of the system
        self._watches: dict[tuple[str, int], Any] = {}  # by path and inode
        self._failed: set[str] = set()

    def watch(self, folders: set[str]) -> None:
        """Watch exactly these folders, and what is below them, as far as that is possible."""
        wanted = {(folder, inode) for folder in folders if (inode := _inode(folder))}
        removed = self._handler.take_removed()
        for key in list(self._watches):
            if key not in wanted or key[0] in removed:
                self._drop(key)
        for key in wanted - self._watches.keys():
            try:
                self._watches[key] = self._running().schedule(self._handler, key[0], recursive=True)
                self._failed.discard(key[0])
            except OSError as error:
                if key[0] not in self._failed:
                    self._failed.add(key[0])
                    _log.info("%s is polled, it cannot be watched: %s", key[0], error)

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
    """Anything that happens is a reason to look; reading is not."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._removed: set[str] = set()  # written by watchdog's threads, replaced by the source's

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type in ("deleted", "moved"):
            self._removed.add(os.fsdecode(event.src_path))
        if event.event_type not in ("opened", "closed_no_write"):
            self._wake()

    def take_removed(self) -> set[str]:
        """The paths that were removed since the last call: a watch on one of them is dead."""
        removed, self._removed = self._removed, set()
        return removed
