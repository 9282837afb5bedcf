"""What all workers are told, in one order, and what a worker that starts must be told of it.

News of states wait until every open worker has confirmed the versions that were published before.
So a client that reads AVAILABLE finds the version in whichever worker it asks. The thread `fleet`
alone uses this.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from servingd.config.models import ModelConfig
from servingd.core.lifecycle.labels import Labels
from servingd.runtime.loop import Loop
from servingd.supervisor.link.messages import (
    Expect,
    LabelsAre,
    Preload,
    Settings,
    Settle,
    pack_models,
)
from servingd.supervisor.processes.crew import Crew
from servingd.supervisor.processes.worker_handle import WorkerHandle

_CONFIRM_S = 2.0
"""Seconds that news wait for workers to confirm what was published."""


class NewsListener(Protocol):
    """Who knows the states that workers are told of."""

    def told(self, message: object) -> None:
        """Take note of what all workers are told."""
        ...

    def snapshot(self) -> Iterable[object]:
        """Return what a worker must know of the states when it starts, as messages."""
        ...


class News:
    """Sends messages to all workers, and remembers what later ones need."""

    def __init__(
        self, crew: Crew, loop: Loop, publishing: Callable[[], bool], listener: NewsListener
    ) -> None:
        """`publishing` returns whether a worker has yet to confirm what was published."""
        self._crew = crew
        self._loop = loop
        self._publishing = publishing
        self._listener = listener
        self._waiting: deque[object] = deque()
        self._waiting_since = 0.0
        self._settings: tuple[ModelConfig, ...] = ()
        self._labels: Labels = {}
        self._expected: tuple[str, ...] | None = None
        self._settled: dict[str, None] = {}
        self._preloaded = False  # whether there has been a SavedModel

    def greet(self, worker: WorkerHandle) -> None:
        """Tell a worker that has started everything that the others know."""
        send = worker.channel.send
        send(Settings(pack_models(self._settings)))
        send(LabelsAre(self._labels))
        if self._preloaded:
            send(Preload())
        for message in self._listener.snapshot():
            send(message)
        if self._expected is not None:
            send(Expect(self._expected))
        for name in self._settled:
            send(Settle(name))

    def preload(self) -> None:
        """Let all workers import TensorFlow at the same time; once."""
        if not self._preloaded:
            self._preloaded = True
            self.broadcast(Preload())

    def label(self, labels: Labels) -> None:
        """Replace all labels."""
        self._labels = labels
        self.tell(LabelsAre(labels))

    def configure(self, models: tuple[ModelConfig, ...]) -> None:
        """Replace the settings of all models."""
        self._settings = models
        # At once, as loads are commanded: they must not overtake their models' settings.
        self.broadcast(Settings(pack_models(models)))

    def expect(self, names: tuple[str, ...]) -> None:
        """Tell which models there are, for calls that are held."""
        self._expected = names
        self._settled = {name: None for name in self._settled if name in names}
        self.tell(Expect(names))

    def settle(self, name: str) -> None:
        """Let the calls that are held for a model go on."""
        if name not in self._settled:
            self._settled[name] = None
            self.tell(Settle(name))

    def tell(self, message: object) -> None:
        """Send a message to every worker, after what is published is confirmed."""
        if not (self._publishing() or self._waiting):
            self.broadcast(message)
            return
        if not self._waiting:
            self._waiting_since = time.monotonic()
            self._loop.put_after(_CONFIRM_S, self.confirm)
        self._waiting.append(message)

    def confirm(self) -> None:
        """Send what has waited, if all has been confirmed or the time for it is over."""
        late = time.monotonic() - self._waiting_since >= _CONFIRM_S
        while self._waiting and (late or not self._publishing()):
            self.broadcast(self._waiting.popleft())

    def broadcast(self, message: object) -> None:
        """Send a message to every worker that has started, now."""
        self._listener.told(message)
        for worker in self._crew:
            worker.channel.send(message)
