"""The public states of the supervisor, which the workers are told of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from servingd.core.lifecycle.states import ServableState
from servingd.runtime.manager.state_monitor import StateMonitor
from servingd.supervisor.messages import AbsentBecause, Announced, ConfiguredAre, IncompleteAre


class ToldStates(StateMonitor):
    """A state monitor of which each change is told to the workers, in order."""

    def __init__(self, tell: Callable[[object], None], forget_model: Callable[[str], None]) -> None:
        """`forget_model` is called for a model that is configured no more."""
        super().__init__()
        self._tell = tell
        self._forget_model = forget_model

    def announce(self, state: ServableState) -> None:
        """Record a state and tell it."""
        self._tell(Announced(state))
        super().announce(state)

    def report_incomplete(self, name: str, incomplete: Mapping[int, str]) -> None:
        """Record a model's incomplete versions and tell them."""
        self._tell(IncompleteAre(name, dict(incomplete)))
        super().report_incomplete(name, incomplete)

    def report_absent(self, name: str, reason: str) -> None:
        """Record why a model has no version to load, and tell it."""
        if reason != self.absent(name):
            self._tell(AbsentBecause(name, reason))
        super().report_absent(name, reason)

    def configure(self, names: Iterable[str]) -> None:
        """Replace the set of configured models and tell it."""
        wanted = frozenset(names)
        removed = self.configured() - wanted
        self._tell(ConfiguredAre(tuple(sorted(wanted))))
        super().configure(wanted)
        for name in removed:
            self._forget_model(name)

    def snapshot(self) -> Iterator[object]:
        """Return what a worker that starts must be told."""
        yield ConfiguredAre(tuple(sorted(self.configured())))
        for name in self.names():
            for state in reversed(self.of_model(name)):
                yield Announced(state)
            if incomplete := self.incomplete(name):
                yield IncompleteAre(name, dict(incomplete))
            if reason := self.absent(name):
                yield AbsentBecause(name, reason)
