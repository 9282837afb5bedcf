"""What health checks are told: the server, its services, and every model by its name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

SetHealth = Callable[[str, bool], None]

PREDICTION_SERVICES = ("tensorflow.serving.PredictionService", "PredictionService")
MODEL_SERVICES = ("tensorflow.serving.ModelService", "ModelService")
"""TensorFlow Serving registers the unqualified names; health clients expect the others."""


class Health:
    """Keeps the gRPC health service in step; tells it changes only. From any thread."""

    def __init__(self, tell: SetHealth, forget: Callable[[str], None]) -> None:
        self._tell = tell
        self._forget = forget
        self._lock = threading.Lock()
        self._told: dict[str, bool] = {}  # guarded by _lock

    def update(
        self, ready: bool, stopping: bool, models: Collection[str], available: Collection[str]
    ) -> None:
        """Say how everything is now. The model service answers from the start."""
        now = dict.fromkeys(("", *PREDICTION_SERVICES), ready)
        now.update(dict.fromkeys(MODEL_SERVICES, not stopping))
        now.update({name: name in available and not stopping for name in models})
        with self._lock:
            for service, serving in now.items():
                if self._told.get(service) is not serving:
                    self._tell(service, serving)
            for service in self._told.keys() - now.keys():
                self._forget(service)
            self._told = now
