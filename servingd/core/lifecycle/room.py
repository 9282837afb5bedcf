"""Room for loads: a load starts, waits for memory, or is refused, and is tried again later.

`loading.py` decides about one load; here the decision is carried out, and memory that is given back
goes to those who wait, then to those who were refused, then to versions that would grow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from servingd.core.lifecycle.endings import fail, quiesce
from servingd.core.lifecycle.events import Command, LetGrow, StartLoad, announcement
from servingd.core.lifecycle.harness import Harness, Step, Streams
from servingd.core.lifecycle.loading import Decision, decide, explain, waiting
from servingd.core.lifecycle.states import PublicState
from servingd.core.resources.placement import LoadRules
from servingd.core.resources.reservations import Verdict
from servingd.core.resources.tracker import ResourceTracker
from servingd.core.types import ServableId

_NO_RULES = LoadRules()
_SMALL = "is served as it was exported: there is no memory for its optimised form"


class Room:
    """Gives room to loads, by the rules of their models."""

    def __init__(self, streams: Streams, tracker: ResourceTracker) -> None:
        self.rules: Mapping[str, LoadRules] = {}
        """By model; those without have no rules."""
        self._streams = streams
        self._tracker = tracker
        self._refused: dict[ServableId, None] = {}  # for lack of memory; some may have ended since

    def rules_of(self, name: str) -> LoadRules:
        """Return a model's rules."""
        return self.rules.get(name, _NO_RULES)

    def admit(self, harness: Harness) -> list[Command]:
        """Start an estimated load if there is room; else let it wait for some, or refuse it."""
        assert harness.data is not None
        assert harness.request is not None
        decision = self._decide(harness)
        admission = decision.admission
        if admission.error is not None:
            harness.refused = True
            self._refused[harness.id] = None
            return fail(harness, self._tracker, admission.error)
        self._tracker.enter(harness.id, harness.request, admission)
        starts = admission.verdict is Verdict.START
        news = starts or decision.give_up or harness.step is not Step.WAITING
        harness.step = Step.LOADING if starts else Step.WAITING
        commands = explain(harness, decision.note) if news else []
        for old in decision.give_up:
            commands += quiesce(old, self._tracker)
        if starts:
            commands.append(StartLoad(harness.id, harness.data, admission.placement))
        return commands

    def use(self, reconcile: Callable[[str], list[Command]]) -> list[Command]:
        """Use memory that was given back: for waiting loads, then refused ones, then growth.

        `reconcile` makes the commands for a model of which a version begins again.
        """
        commands: list[Command] = []
        while self._tracker.more_room:
            self._tracker.more_room = False
            for harness in waiting(self._streams, self._tracker):
                commands += self.admit(harness)
            for servable_id in sorted(self._refused):
                if self._revive(servable_id):
                    commands.append(announcement(servable_id, PublicState.START))
                    commands += reconcile(servable_id.name)
            commands += [LetGrow(servable_id) for servable_id in self._tracker.grow()]
            for servable_id in self._tracker.waiting_to_grow():
                commands += explain(self._streams.harness(servable_id), f"{servable_id} {_SMALL}")
        return commands

    def forget_refused(self) -> None:
        """Try nothing again that was refused: the server stops."""
        self._refused.clear()

    def _revive(self, servable_id: ServableId) -> bool:
        """Make a new harness for a version that was refused, if there is room for it now."""
        harness = self._streams.find(servable_id)
        if harness is None or not harness.refused or harness.request is None:
            del self._refused[servable_id]
            return False
        if self._decide(harness).admission.verdict is Verdict.REFUSE:
            return False
        del self._refused[servable_id]
        harnesses = self._streams[servable_id.name].harnesses
        harnesses[servable_id.version] = Harness(servable_id, harness.data, request=harness.request)
        return True

    def _decide(self, harness: Harness) -> Decision:
        assert harness.request is not None
        name = harness.id.name
        return decide(
            harness, harness.request, self._streams[name], self._tracker, self.rules_of(name)
        )
