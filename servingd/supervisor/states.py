"""The public states of the supervisor, which the workers are told of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from servingd.core.callbacks import nothing
from servingd.core.lifecycle.states import ServableState
from servingd.runtime.manager.state_monitor import StateMonitor
from servingd.supervisor.link.messages import AbsentBecause, Announced, ConfiguredAre, IncompleteAre
from servingd.supervisor.link.questions import Questions
from servingd.supervisor.worker.remote_control import RemoteControl


class ToldStates(StateMonitor):
    """A state monitor of which each change is told to the workers, in order.

    A worker that starts is told what the others were, and not what is on its way to them: that
    follows, and would else be missing or come twice.
    """

    def __init__(self, tell: Callable[[object], None], forget_model: Callable[[str], None]) -> None:
        """`forget_model` is called for a model that is configured no more."""
        super().__init__()
        self._tell = tell
        self._forget_model = forget_model
        self._copy = RemoteControl("all", Questions(nothing))  # the thread `fleet` alone

    def told(self, message: object) -> None:
        """Take note that the workers were told something; on the thread `fleet`."""
        self._copy.news(message)

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
        """Return what a worker that starts must be told; on the thread `fleet`."""
        states = self._copy.states
        names = states.names()
        yield ConfiguredAre(tuple(names))  # also those that are removed, until they have ended
        for name in names:
            for state in reversed(states.of_model(name)):
                yield Announced(state)
            if incomplete := states.incomplete(name):
                yield IncompleteAre(name, dict(incomplete))
        yield ConfiguredAre(tuple(sorted(states.configured())))
        for name in names:
            if reason := states.absent(name):
                yield AbsentBecause(name, reason)
