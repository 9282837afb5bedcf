"""Which worker must do what, so that all of them hold the versions that the manager commands.

Theory of operation. For each version there is one goal, which the manager's commands set: load,
publish, quiesce, unload. For each worker and version there is what that worker has of it. Whenever
either changes, `_drive` sends each worker the next step towards the goal, and reports to the
manager what all workers together have reached: a version has loaded when every worker that is open
has loaded it; a load that fails in one is undone in the others, and then it has failed. A worker
that dies has nothing. The one in its place is driven to the same goals as the others, and opens its
ports when it serves everything that is published.

A version is first loaded by one worker alone. If that one dies of it, the next attempt is made by
a worker that has not opened its ports yet, so that no caller is hurt again.

The manager's commands and our reports cross on their way: it may cancel a load whose end has been
reported. That end then stands.

Pure: one owner feeds it, and carries out what it returns. `fleet.py` is that owner.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from servingd.core.lifecycle.events import (
    CancelLoad,
    Crashed,
    Discard,
    Drained,
    Estimated,
    Event,
    Grown,
    LetGrow,
    LoadFailed,
    LoadOverdue,
    LoadSucceeded,
    Publish,
    PublishFailed,
    Quiesce,
    Relocate,
    Relocated,
    StartEstimate,
    StartLoad,
    StartUnload,
    Unloaded,
    VersionCommand,
)
from servingd.core.types import ServableId
from servingd.errors import Cancelled, DeadlineExceeded, ServingError
from servingd.supervisor.fleet.costs import total
from servingd.supervisor.fleet.estimates import Estimates
from servingd.supervisor.fleet.records import (
    Action,
    Goal,
    Has,
    LoadAgain,
    Member,
    Open,
    Phase,
    Report,
    Send,
    Version,
    cancelled,
)

_SERVES = frozenset({Has.PUBLISHING, Has.PUBLISHED, Has.DRAINING})
_LOADED = frozenset({Has.LOADED, *_SERVES, Has.DRAINED})
_FREEABLE = frozenset({Has.LOADED, Has.DRAINED})
_GOALS = {Publish: Goal.PUBLISH, Quiesce: Goal.QUIESCE, StartUnload: Goal.UNLOAD}
_AGAIN_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""The pauses of a worker that cannot load what others serve. Where none serves it, it is given up
after the last one."""


class FleetState:
    """All workers and versions. One owner; not thread-safe."""

    def __init__(self, workers: int) -> None:
        """Start without any. `workers` is how many there ought to be."""
        self.members: dict[int, Member] = {}
        self.versions: dict[ServableId, Version] = {}
        self._workers = workers
        self._estimates = Estimates(workers)
        self._unconfirmed: set[tuple[int, ServableId]] = set()  # sent Publish, in open workers

    # What the manager commands --------------------------------------------------------------------

    def command(self, command: VersionCommand) -> list[Action]:
        """Take a command of the manager."""
        match command:
            case StartEstimate():
                return list(self._estimates.begin(command, self._oldest()))
            case CancelLoad():
                return self._cancel(command.id)
            case LetGrow() | Relocate() | Discard():
                return self._pass_on(command)
            case StartLoad():
                old = self.versions.get(command.id)
                version = self.versions[command.id] = Version(command)
                version.suspect = old.suspect if old else False
            case _:
                self._want(command.id, _GOALS[type(command)])
        return list(self._drive(command.id))

    def _pass_on(self, command: LetGrow | Relocate | Discard) -> list[Action]:
        """Send a command to the workers that it concerns."""
        if isinstance(command, Discard):
            self.versions.pop(command.id, None)
            self._estimates.discard(command.id)
            all_workers = [Send(member.key, command) for member in self.members.values()]
            return [*all_workers, *self._open()]  # it may be what a worker has waited for
        version, there = self.versions[command.id], self._with(command.id, _LOADED)
        if isinstance(command, LetGrow):
            version.may_grow = True
            there = [member for member in there if member.key not in version.growing]
            version.growing.update(member.key for member in there)
        elif not there:
            return [Report(Relocated(command.id, ()))]
        else:
            version.moves.append({member.key for member in there})
        return [Send(member.key, command) for member in there]

    def _want(self, servable_id: ServableId, goal: Goal) -> None:
        version = self.versions[servable_id]
        version.goal, version.told = goal, False

    def _cancel(self, servable_id: ServableId) -> list[Action]:
        """Cancel an estimate or a load; its event follows when no worker is at it any more."""
        if servable_id in self._estimates:
            return self._estimates.cancel(servable_id)
        version = self.versions.get(servable_id)
        if version is None or version.told:
            return []  # it has ended: the event is on its way
        version.failed = version.failed or cancelled(servable_id)
        return list(self._drive(servable_id))

    # What the workers tell ------------------------------------------------------------------------

    def joined(self, key: int) -> list[Action]:
        """Take a worker that has started."""
        self.members[key] = Member(key)
        return [*self._estimates.send(self._oldest()), *self._drive_all()]

    def leaving(self, key: int) -> list[Action]:
        """Take note that a worker serves no new calls: it is not waited for any more."""
        self.members[key].phase = Phase.LEAVING
        for version in self.versions.values():
            if version.first == key and not version.proven:
                version.first = None
        return list(self._drive_all())

    def died(self, key: int) -> list[Action]:
        """Take note of a worker's end: it has nothing any more."""
        member = self.members.pop(key, None)
        if member is None:
            return []
        self._unconfirmed = {pair for pair in self._unconfirmed if pair[0] != key}
        actions: list[Action] = []
        for servable_id, version in self.versions.items():
            if version.first == key:
                version.first = None
                version.suspect |= member.has.get(servable_id) is Has.LOADING
            version.measured.pop(key, None)
            version.grown.pop(key, None)
            version.growing.discard(key)
            while any(key in move for move in version.moves):
                actions += self._moved(key, version)
        actions += self._estimates.died(key)
        return [*actions, *self._estimates.send(self._oldest()), *self._drive_all()]

    def loading(self, key: int) -> list[ServableId]:
        """Return what a worker is loading."""
        member = self.members.get(key)
        return [i for i, has in member.has.items() if has is Has.LOADING] if member else []

    def quarantine(self, servable_id: ServableId, error: ServingError) -> list[Action]:
        """Give a version up: workers die of it."""
        version = self.versions.get(servable_id)
        if version is None or version.failed is not None:
            return []
        if not _is_loading(version):
            return self._give_up(version, error)
        version.failed = LoadFailed(servable_id, error, retriable=False)
        return list(self._drive(servable_id))

    def _give_up(self, version: Version, error: ServingError) -> list[Action]:
        """Let the manager take a version away that it believes to be served; once."""
        if version.given_up or version.goal not in (Goal.LOAD, Goal.PUBLISH):
            return []
        version.given_up = True
        return [Report(Crashed(version.start.id, error))]

    def event(self, key: int, event: Event) -> list[Action]:
        """Take an event that a worker reports."""
        match event:
            case Estimated() | LoadFailed() | LoadOverdue() if event.id in self._estimates:
                return self._estimates.ended(key, event)
            case LoadSucceeded():
                return self._loaded(key, event)
            case LoadFailed() | LoadOverdue():
                return self._load_failed(key, event)
            case PublishFailed():
                return self._publish_failed(key, event)
            case Drained():
                self._set(key, event.id, Has.DRAINED)
            case Unloaded():
                return self._unloaded(key, event.id)
            case Grown():
                return self._grown(key, event)
            case Relocated():
                return self._relocated(key, event)
            case _:
                return [Report(event)]
        return list(self._drive(event.id))

    def published(self, key: int, servable_id: ServableId) -> list[Action]:
        """Take note that a worker serves a version."""
        if servable_id in self.members[key].has:
            self._set(key, servable_id, Has.PUBLISHED)
        return list(self._drive(servable_id))

    @property
    def publishing(self) -> bool:
        """Whether a worker that is open has yet to confirm that it serves a version."""
        return bool(self._unconfirmed)

    def load_again(self, key: int, servable_id: ServableId) -> list[Action]:
        """Let a worker try a load again that had failed in it alone."""
        member, version = self.members.get(key), self.versions.get(servable_id)
        if member is None or version is None:
            return []
        if version.goal is not Goal.PUBLISH or version.given_up:
            return []
        if member.has.get(servable_id) is Has.FAILED:
            del member.has[servable_id]
        return list(self._drive(servable_id))

    def _set(self, key: int, servable_id: ServableId, has: Has | None) -> None:
        member = self.members[key]
        self._unconfirmed.discard((key, servable_id))
        if has is None:
            member.has.pop(servable_id, None)
        else:
            member.has[servable_id] = has

    def _loaded(self, key: int, event: LoadSucceeded) -> list[Action]:
        self._set(key, event.id, Has.LOADED)
        self.members[key].cancelled.discard(event.id)
        version = self.versions.get(event.id)
        if version is None:
            return []
        version.proven = True
        version.measured[key] = event.measured
        actions: list[Action] = []
        if version.may_grow and key not in version.growing:  # it became so while it loaded
            version.growing.add(key)
            actions.append(Send(key, LetGrow(event.id)))
        return [*actions, *self._drive(event.id)]

    def _load_failed(self, key: int, event: LoadFailed | LoadOverdue) -> list[Action]:
        """Undo the load in all workers; one that joins tries alone what others serve."""
        member, version = self.members[key], self.versions.get(event.id)
        member.has.pop(event.id, None)
        actions: list[Action] = []
        leaves = version is None or version.goal in (Goal.QUIESCE, Goal.UNLOAD)
        if event.id in member.cancelled or isinstance(event, LoadOverdue) or leaves:
            member.cancelled.discard(event.id)
            actions.append(Send(key, Discard(event.id)))  # its loader cannot be used again
        if version is None:
            return actions
        if member.phase is Phase.LEAVING:
            return [*actions, *self._drive(event.id)]
        if _is_loading(version):
            version.failed = version.failed or event
        elif version.goal in (Goal.LOAD, Goal.PUBLISH):
            return [*actions, *self._try_again(member, version, event)]
        return [*actions, *self._drive(event.id)]

    def _try_again(
        self, member: Member, version: Version, event: LoadFailed | LoadOverdue
    ) -> list[Action]:
        """Let a worker try again alone; give up what no worker has, after some attempts."""
        member.has[event.id] = Has.FAILED
        failures = member.failures.get(event.id, 0)
        member.failures[event.id] = failures + 1
        last = failures >= len(_AGAIN_S) or (isinstance(event, LoadFailed) and not event.retriable)
        if last and not self._with(event.id, _LOADED):
            return self._give_up(version, _error_of(event))
        return [LoadAgain(member.key, event.id, _AGAIN_S[min(failures, len(_AGAIN_S) - 1)])]

    def _publish_failed(self, key: int, event: PublishFailed) -> list[Action]:
        """Let the manager unload the version, or a worker alone if others serve it."""
        member, version = self.members[key], self.versions.get(event.id)
        self._set(key, event.id, Has.LOADED)
        if version is None or version.goal is not Goal.PUBLISH or version.given_up:
            return list(self._drive(event.id))
        if member.phase is Phase.JOINING and self._with(event.id, _SERVES):
            self._set(key, event.id, Has.UNLOADING)
            member.unusable.add(event.id)
            return [Send(key, StartUnload(event.id))]
        version.given_up = True
        return [Report(event)]

    def _unloaded(self, key: int, servable_id: ServableId) -> list[Action]:
        member, version = self.members[key], self.versions.get(servable_id)
        self._set(key, servable_id, None)
        if version is not None:
            version.growing.discard(key)
            version.grown.pop(key, None)
        if servable_id in member.unusable:
            member.unusable.discard(servable_id)
            if version is not None and version.goal is Goal.PUBLISH:
                failure = LoadFailed(servable_id, Cancelled("it could not be published"))
                return self._try_again(member, version, failure)
        return list(self._drive(servable_id))

    def _grown(self, key: int, event: Grown) -> list[Action]:
        version = self.versions.get(event.id)
        if version is None:
            return []
        version.grown[key] = event.grew
        return list(self._drive(event.id))

    def _relocated(self, key: int, event: Relocated) -> list[Action]:
        version = self.versions.get(event.id)
        if version is None or not any(key in move for move in version.moves):
            return []
        version.devices = event.devices
        return self._moved(key, version)

    def _moved(self, key: int, version: Version) -> list[Action]:
        """Report the end of a move when no worker is at it any more."""
        move = next(move for move in version.moves if key in move)
        move.discard(key)
        if move:
            return []
        version.moves.remove(move)
        return [Report(Relocated(version.start.id, version.devices))]

    # From goals to steps --------------------------------------------------------------------------

    def _oldest(self) -> int | None:
        """Return the worker that makes estimates; None if there is none."""
        return next((m.key for m in self._by_age() if m.phase is not Phase.LEAVING), None)

    def _drive_all(self) -> Iterator[Action]:
        for servable_id in list(self.versions):
            yield from self._steps(servable_id)
        yield from self._open()

    def _drive(self, servable_id: ServableId) -> Iterator[Action]:
        """Send each worker its next step for a version, report, and open whoever may open now."""
        yield from self._steps(servable_id)
        yield from self._open()

    def _steps(self, servable_id: ServableId) -> Iterator[Action]:
        """Send each worker its next step for a version, and report what all have reached."""
        version = self.versions.get(servable_id)
        if version is None:
            return
        for member in self._by_age():
            step = self._next_step(member, version)
            if step is not None:
                yield Send(member.key, step)
        yield from self._reports(servable_id, version)
        yield from self._growth(servable_id, version)

    def _next_step(self, member: Member, version: Version) -> VersionCommand | None:
        """Return a worker's next step for a version, and record that it is taken."""
        servable_id = version.start.id
        has = member.has.get(servable_id)
        if version.failed is not None or version.goal is Goal.UNLOAD:
            return self._undo(member, servable_id, has)
        match has, version.goal:
            case None, Goal.LOAD | Goal.PUBLISH if self._may_load(member, version):
                member.has[servable_id] = Has.LOADING
                placement = version.start.placement
                may_grow = placement.may_grow or version.may_grow
                if may_grow:
                    version.growing.add(member.key)
                placement = dataclasses.replace(placement, may_grow=may_grow)
                return dataclasses.replace(version.start, placement=placement)
            case Has.LOADED, Goal.PUBLISH if not version.given_up:
                member.has[servable_id] = Has.PUBLISHING
                if member.phase is Phase.SERVING:
                    self._unconfirmed.add((member.key, servable_id))
                return Publish(servable_id)
            case Has.PUBLISHED, Goal.QUIESCE:
                member.has[servable_id] = Has.DRAINING
                return Quiesce(servable_id)
        return None

    def _undo(
        self, member: Member, servable_id: ServableId, has: Has | None
    ) -> VersionCommand | None:
        if has is Has.LOADING and servable_id not in member.cancelled:
            member.cancelled.add(servable_id)
            return CancelLoad(servable_id)
        if has is Has.FAILED:
            del member.has[servable_id]
            return Discard(servable_id)
        if has in _FREEABLE:
            member.has[servable_id] = Has.UNLOADING
            return StartUnload(servable_id)
        if has is Has.PUBLISHED:  # another worker could not publish it
            member.has[servable_id] = Has.DRAINING
            return Quiesce(servable_id)
        return None

    def _may_load(self, member: Member, version: Version) -> bool:
        """Return whether a worker may load a version now: one goes first, the others follow."""
        if member.phase is Phase.LEAVING or version.given_up:
            return False
        if version.proven:
            return True
        if version.first is None:
            if version.suspect and member.phase is not Phase.JOINING and self._one_is_to_open():
                return False  # the worker in the dead one's place tries it, before it opens
            version.first = member.key
        return version.first == member.key

    def _one_is_to_open(self) -> bool:
        """Return whether a worker joins, or will: there ought to be more of them."""
        return sum(m.phase is Phase.SERVING for m in self.members.values()) < self._workers

    def _growth(self, servable_id: ServableId, version: Version) -> Iterator[Action]:
        """Report that a version's growth is over in all workers, once."""
        if version.growth_told or not version.grown or not version.told or version.failed:
            return
        there = [m.key for m in self._with(servable_id, _LOADED) if m.phase is not Phase.LEAVING]
        if there and all(key in version.grown for key in there):
            version.growth_told = True
            yield Report(Grown(servable_id, all(version.grown[key] for key in there)))

    def _reports(self, servable_id: ServableId, version: Version) -> Iterator[Action]:
        """Report what has been reached, once."""
        if version.told:
            return
        if version.failed is not None:
            if not any(servable_id in m.has for m in self.members.values()):
                version.told = True
                self._forget(servable_id)
                yield Report(version.failed)
            return
        if self._reached(servable_id, version):
            version.told = True
            match version.goal:
                case Goal.LOAD:
                    yield Report(LoadSucceeded(servable_id, total(version.measured.values())))
                case Goal.QUIESCE:
                    yield Report(Drained(servable_id))
                case Goal.UNLOAD:
                    del self.versions[servable_id]
                    self._forget(servable_id)
                    yield Report(Unloaded(servable_id))

    def _reached(self, servable_id: ServableId, version: Version) -> bool:
        has = [m.has.get(servable_id) for m in self.members.values()]
        match version.goal:
            case Goal.LOAD:
                serving = [m for m in self.members.values() if m.phase is Phase.SERVING]
                return any(h is Has.LOADED for h in has) and all(
                    m.has.get(servable_id) is Has.LOADED for m in serving
                )
            case Goal.QUIESCE:
                return not any(h in _SERVES for h in has)
            case Goal.UNLOAD:
                return all(h is None for h in has)
        return True

    def _open(self) -> Iterator[Action]:
        """Open the ports of each worker that serves all that is published."""
        joining = [m for m in self.members.values() if m.phase is Phase.JOINING]
        wanted = [i for i, v in self.versions.items() if joining and _is_served(v)]
        tried = {v.first for v in self.versions.values() if not v.proven and v.failed is None}
        for member in joining:
            tries = member.key in tried
            if not tries and all(member.has.get(i) is Has.PUBLISHED for i in wanted):
                member.phase = Phase.SERVING
                yield Open(member.key)

    def _forget(self, servable_id: ServableId) -> None:
        for member in self.members.values():
            member.failures.pop(servable_id, None)

    def _with(self, servable_id: ServableId, wanted: frozenset[Has]) -> list[Member]:
        return [m for m in self.members.values() if m.has.get(servable_id, Has.LOADING) in wanted]

    def _by_age(self) -> list[Member]:
        return [self.members[key] for key in sorted(self.members)]


def _is_loading(version: Version) -> bool:
    """Return whether the manager waits for the end of a load."""
    return version.goal is Goal.LOAD and not version.told


def _is_served(version: Version) -> bool:
    """Return whether a version is published, or about to be: all that are open have loaded it."""
    loaded = version.goal is Goal.LOAD and version.told and version.failed is None
    return loaded or version.goal is Goal.PUBLISH


def _error_of(event: LoadFailed | LoadOverdue) -> ServingError:
    if isinstance(event, LoadFailed):
        return event.error
    return DeadlineExceeded(f"Loading of {event.id} has not ended within {event.after_s:g} s")
