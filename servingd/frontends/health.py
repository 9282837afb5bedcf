"""What health checks are told: the server, its services, and every model by its name."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass

SetHealth = Callable[[str, bool], None]

PREDICTION_SERVICES = ("tensorflow.serving.PredictionService", "PredictionService")
MODEL_SERVICES = ("tensorflow.serving.ModelService", "ModelService")
"""TensorFlow Serving registers the unqualified names; health clients expect the others."""


@dataclass(frozen=True, slots=True)
class Picture:
    """How everything is at one moment."""

    ready: bool
    stopping: bool
    models: Collection[str]
    available: Collection[str]


class Health:
    """Keeps the gRPC health service in step; tells it changes only. From any thread."""

    def __init__(self, tell: SetHealth, forget: Callable[[str], None]) -> None:
        self._tell = tell
        self._forget = forget
        self._lock = threading.Lock()
        self._told: dict[str, bool] = {}  # guarded by _lock
        self._numbers = itertools.count(1)
        self._newest = 0  # the number of what was told last; guarded by _lock

    def update(self, look: Callable[[], Picture]) -> None:
        """Something has changed: say how everything is, as `look` sees it from now on.

        Threads may overtake each other between their look and their word. A number that is drawn
        before the look says whose is the newer: who comes late with an older one keeps silent, and
        the last change is always seen by whoever speaks last.
        """
        number = next(self._numbers)
        now = _services(look())
        with self._lock:
            if number < self._newest:
                return
            self._newest = number
            for service, serving in now.items():
                if self._told.get(service) is not serving:
                    self._tell(service, serving)
            for service in self._told.keys() - now.keys():
                self._forget(service)
            self._told = now


def _services(picture: Picture) -> dict[str, bool]:
    """By service and model, whether it serves. The model service answers from the start."""
    going_on = not picture.stopping
    now = dict.fromkeys(("", *PREDICTION_SERVICES), picture.ready)
    now.update(dict.fromkeys(MODEL_SERVICES, going_on))
    now.update({name: name in picture.available and going_on for name in picture.models})
    return now
