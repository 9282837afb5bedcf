"""One worker as the supervisor knows it."""

from __future__ import annotations

from dataclasses import dataclass

from servingd.supervisor.link.channel import Channel
from servingd.supervisor.link.questions import Questions
from servingd.supervisor.processes.leftovers import Baseline
from servingd.supervisor.processes.process import WorkerProcess


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """How a worker is, for people to read."""

    number: int
    process: int
    state: str
    seconds: float
    resident_bytes: int


@dataclass(slots=True, eq=False)
class WorkerHandle:
    """A worker's process, its channel, and how it is; used by the thread `fleet` alone."""

    key: int
    """No other worker ever has it."""
    number: int
    """From 1 on; the worker that takes its place has the same."""
    process: WorkerProcess
    channel: Channel
    questions: Questions
    since: float
    heard: float
    hello: bool = False
    """Whether it has started, so that it can be commanded."""
    open: bool = False
    """Whether its ports are open."""
    leaving: bool = False
    replaces: int | None = None
    """The key of the worker that leaves once this one is open."""
    resident: int = 0
    unloads: int = 0
    """Versions that it has unloaded since it opened."""
    baseline: Baseline | None = None
    """How it was before the first unload."""
    reason: str = ""
    """Why the supervisor ends it; empty: it does not."""

    @property
    def state(self) -> str:
        """Its state, for people to read."""
        if not self.hello:
            return "starting"
        if self.leaving:
            return "leaving"
        return "serving" if self.open else "joining"

    def status(self, now: float) -> WorkerStatus:
        """Return how it is at `now`."""
        return WorkerStatus(
            self.number, self.process.pid, self.state, now - self.since, self.resident
        )
