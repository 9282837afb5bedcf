"""Which models a scan is about: those that changed, and a few whose last scan is longest ago.

A server may have thousands of models, and a copy under way sends events without end. So an event
makes its own model be scanned, and a poll goes through the models in turns.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

MODELS_PER_SCAN = 64
"""Models that are scanned although nothing is known to have changed."""

_MAX_PATHS = 1000
"""Changed paths that are told apart; where there are more, every model is scanned."""


class Changes(NamedTuple):
    """What may have changed between two scans."""

    every_model: bool
    """Whether any model may have changed."""
    paths: Collection[str]
    """Files and folders that have changed."""


class ChangeCollector:
    """Collects changes between two scans. Thread-safe."""

    def __init__(self) -> None:
        """Begin with a first scan, which is of every model."""
        self._lock = threading.Lock()
        self._every_model = True
        self._paths: set[str] = set()

    def add_path(self, path: str) -> None:
        """Note that a file or folder has changed."""
        with self._lock:
            if len(self._paths) < _MAX_PATHS:
                self._paths.add(path)
            else:
                self._every_model = True

    def add_every_model(self) -> None:
        """Note that any model may have changed."""
        with self._lock:
            self._every_model = True

    def take(self) -> Changes:
        """Return what was noted since the last call."""
        with self._lock:
            taken = Changes(self._every_model, self._paths)
            self._every_model, self._paths = False, set()
        return taken


def models_to_scan(
    models: Mapping[str, str], due: Collection[str], changes: Changes
) -> Sequence[str]:
    """Return the models to scan now, each once.

    `models` are the base paths of all by name, the one scanned longest ago first; `due` are
    those to be scanned whatever has changed.
    """
    if changes.every_model:
        return list(models)
    by_path: dict[str, list[str]] = {}
    for name, path in models.items():
        by_path.setdefault(path.rstrip("/"), []).append(name)
    changed = (
        n for path in changes.paths for above in _upwards(path) for n in by_path.get(above, ())
    )
    return list(dict.fromkeys((*due, *changed, *islice(models, MODELS_PER_SCAN))))


def _upwards(path: str) -> Iterable[str]:
    """Yield a path and all folders above it."""
    above = path.rstrip("/")
    while above:
        yield above
        above = os.path.dirname(above).rstrip("/")
