"""Keep the gRPC health service up to date with the server's readiness.

The condition is in `core/readiness.py`; `/readyz` and `/livez` are in `frontends/admin/pages.py`.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Protocol

from servingd.core.readiness import Readiness


class HealthService(Protocol):
    """A transport with `grpc.health.v1.Health`."""

    def set_health(self, service: str, serving: bool) -> None:
        """Set a service to SERVING or NOT_SERVING; notifies those who watch it."""
        ...

    def forget_health(self, service: str) -> None:
        """Answer for a service as for one that was never known."""
        ...


class Health:
    """Sends changes, and only changes, to the health service. Thread-safe."""

    def __init__(self, service: HealthService) -> None:
        self._service = service
        self._lock = threading.Lock()
        self._sent: dict[str, bool] = {}  # guarded by _lock
        self._numbers = itertools.count(1)
        self._newest = 0  # the number of the reading that was sent last; guarded by _lock

    def update(self, readiness: Callable[[], Readiness]) -> None:
        """Read the readiness and send what has changed since the last update.

        Threads may overtake each other between reading and sending. Each draws a number before it
        reads. A thread that finds a higher number already sent sends nothing. So the newest reading
        wins.
        """
        number = next(self._numbers)
        now = readiness().health()
        with self._lock:
            if number < self._newest:
                return
            self._newest = number
            for service, serving in now.items():
                if self._sent.get(service) is not serving:
                    self._service.set_health(service, serving)
            for service in self._sent.keys() - now.keys():
                self._service.forget_health(service)
            self._sent = now
