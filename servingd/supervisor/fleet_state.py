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

Pure: one owner feeds it, and carries out what it returns. `fleet.py` is that owner.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

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
from servingd.core.resources.footprints import Estimate, Footprint, Measured
from servingd.core.types import NO_BYTES, Resources, ServableId
from servingd.errors import Cancelled, ServingError

# What the owner carries out -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Send a command to a worker."""

    worker: int
    command: VersionCommand


@dataclass(frozen=True, slots=True)
class Report:
    """Report an event to the manager."""

    event: Event


@dataclass(frozen=True, slots=True)
class Open:
    """Let a worker open its ports: it serves all that is published."""

    worker: int


@dataclass(frozen=True, slots=True)
class LoadAgain:
    """Call `load_again` after a pause: a worker could not load what others serve."""

    worker: int
    id: ServableId
    after_s: float


Action: TypeAlias = Send | Report | Open | LoadAgain

# What is known ------------------------------------------------------------------------------------


class Phase(enum.Enum):
    """How far a worker is."""

    JOINING = "joining"
    """It loads what the others serve; its ports are closed."""
    SERVING = "serving"
    LEAVING = "leaving"
    """It takes no new calls, and ends when its calls are answered."""


class Goal(enum.Enum):
    """What the manager wants of a version."""

    LOAD = "load"
    PUBLISH = "publish"
    QUIESCE = "quiesce"
    UNLOAD = "unload"


class Has(enum.Enum):
    """What one worker has of a version; a worker without an entry has nothing."""

    LOADING = "loading"
    LOADED = "loaded"
    PUBLISHING = "publishing"
    PUBLISHED = "published"
    DRAINING = "draining"
    DRAINED = "drained"
    UNLOADING = "unloading"
    FAILED = "failed"
    """It could not load what others serve; it tries again."""


_SERVES = frozenset({Has.PUBLISHING, Has.PUBLISHED, Has.DRAINING})
_LOADED = frozenset({Has.LOADED, *_SERVES, Has.DRAINED})
_FREEABLE = frozenset({Has.LOADED, Has.DRAINED, Has.PUBLISHED})
_GOALS = {Publish: Goal.PUBLISH, Quiesce: Goal.QUIESCE, StartUnload: Goal.UNLOAD}
_AGAIN_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)


@dataclass(slots=True)
class Member:
    """One worker process."""

    key: int
    phase: Phase = Phase.JOINING
    has: dict[ServableId, Has] = field(default_factory=dict)
    failures: dict[ServableId, int] = field(default_factory=dict)


@dataclass(slots=True)
class Version:
    """One version that the manager has commanded to load."""

    start: StartLoad
    goal: Goal = Goal.LOAD
    proven: bool = False
    """Whether one worker has loaded it."""
    first: int | None = None
    """The worker that loads it alone."""
    told: bool = False
    """Whether the manager was told that the goal is reached, or that the load has failed."""
    failed: LoadFailed | LoadOverdue | None = None
    """Set: the load is being undone in all workers."""
    suspect: bool = False
    """Whether a worker died while it loaded it."""
    may_grow: bool = False
    measured: dict[int, Measured | None] = field(default_factory=dict)
    grown: dict[int, bool] = field(default_factory=dict)
    moved: dict[int, tuple[object, ...]] = field(default_factory=dict)


class FleetState:
    """All workers and versions. One owner; not thread-safe."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        """The number of workers that there ought to be."""
        self.members: dict[int, Member] = {}
        self.versions: dict[ServableId, Version] = {}
        self._estimates: dict[ServableId, tuple[StartEstimate, int | None]] = {}
        self._unconfirmed: set[tuple[int, ServableId]] = set()  # sent Publish, in open workers

    # What the manager commands --------------------------------------------------------------------

    def command(self, command: VersionCommand) -> list[Action]:
        """Take a command of the manager."""
        match command:
            case StartEstimate():
                self._estimates[command.id] = (command, None)
                return list(self._send_estimates())
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
            self._estimates.pop(command.id, None)
            return [Send(member.key, command) for member in self.members.values()]
        version, there = self.versions[command.id], self._with(command.id, _LOADED)
        if isinstance(command, LetGrow):
            version.may_grow = True
        elif not there:
            return [Report(Relocated(command.id, ()))]
        version.moved.clear()
        return [Send(member.key, command) for member in there]

    def _want(self, servable_id: ServableId, goal: Goal) -> None:
        version = self.versions[servable_id]
        version.goal, version.told = goal, False

    def _cancel(self, servable_id: ServableId) -> list[Action]:
        """Cancel an estimate or a load; its event follows when no worker is at it any more."""
        if servable_id in self._estimates:
            _, worker = self._estimates[servable_id]
            if worker is not None:
                return [Send(worker, CancelLoad(servable_id))]
            del self._estimates[servable_id]
            return [Report(_cancelled(servable_id))]
        version = self.versions[servable_id]
        version.failed = version.failed or _cancelled(servable_id)
        return list(self._drive(servable_id))

    # What the workers tell ------------------------------------------------------------------------

    def joined(self, key: int) -> list[Action]:
        """Take a worker that has started."""
        self.members[key] = Member(key)
        return [*self._send_estimates(), *self._drive_all()]

    def leaving(self, key: int) -> None:
        """Take note that a worker serves no new calls: it is not waited for any more."""
        self.members[key].phase = Phase.LEAVING

    def died(self, key: int) -> list[Action]:
        """Take note of a worker's end: it has nothing any more."""
        member = self.members.pop(key, None)
        if member is None:
            return []
        self._unconfirmed = {pair for pair in self._unconfirmed if pair[0] != key}
        for servable_id, has in member.has.items():
            version = self.versions.get(servable_id)
            if version is not None and version.first == key:
                version.first = None
                version.suspect = version.suspect or has is Has.LOADING
        for servable_id, (start, worker) in list(self._estimates.items()):
            if worker == key:
                self._estimates[servable_id] = (start, None)
        for version in self.versions.values():
            version.measured.pop(key, None)
        return [*self._send_estimates(), *self._drive_all()]

    def loading(self, key: int) -> list[ServableId]:
        """Return what a worker is loading."""
        member = self.members.get(key)
        return [i for i, has in member.has.items() if has is Has.LOADING] if member else []

    def quarantine(self, servable_id: ServableId, error: ServingError) -> list[Action]:
        """Give a version up: workers die of it."""
        version = self.versions.get(servable_id)
        if version is None or version.failed is not None:
            return []
        if version.goal is Goal.LOAD:
            version.failed = LoadFailed(servable_id, error, retriable=False)
            return [Report(Crashed(servable_id, error)), *self._drive(servable_id)]
        return [Report(Crashed(servable_id, error))]

    def event(self, key: int, event: Event) -> list[Action]:
        """Take an event that a worker reports."""
        match event:
            case Estimated() | LoadFailed() if event.id in self._estimates:
                return self._estimated(key, event)
            case LoadSucceeded():
                self._set(key, event.id, Has.LOADED)
                version = self.versions.get(event.id)
                if version is not None:
                    version.proven = True
                    version.measured[key] = event.measured
            case LoadFailed() | LoadOverdue():
                return self._load_failed(key, event)
            case PublishFailed():
                self._set(key, event.id, Has.LOADED)
                return [Report(event)]
            case Drained():
                self._set(key, event.id, Has.DRAINED)
            case Unloaded():
                self._set(key, event.id, None)
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
        member = self.members.get(key)
        if member is not None and member.has.get(servable_id) is Has.FAILED:
            del member.has[servable_id]
        return list(self._drive(servable_id))

    def _set(self, key: int, servable_id: ServableId, has: Has | None) -> None:
        member = self.members[key]
        self._unconfirmed.discard((key, servable_id))
        if has is None:
            member.has.pop(servable_id, None)
        else:
            member.has[servable_id] = has

    def _estimated(self, key: int, event: Estimated | LoadFailed) -> list[Action]:
        _, worker = self._estimates[event.id]
        if worker != key:
            return []
        del self._estimates[event.id]
        if isinstance(event, Estimated):
            event = dataclasses.replace(event, estimate=times(event.estimate, self.workers))
        return [Report(event)]

    def _load_failed(self, key: int, event: LoadFailed | LoadOverdue) -> list[Action]:
        """Undo the load in all workers; one that joins tries alone what others serve."""
        member, version = self.members[key], self.versions.get(event.id)
        member.has.pop(event.id, None)
        if version is None:
            return []
        others = any(m is not member for m in self._with(event.id, _LOADED))
        if version.goal is Goal.LOAD or not others:
            version.failed = version.failed or event
            return list(self._drive(event.id))
        member.has[event.id] = Has.FAILED
        failures = member.failures.get(event.id, 0)
        member.failures[event.id] = failures + 1
        return [LoadAgain(key, event.id, _AGAIN_S[min(failures, len(_AGAIN_S) - 1)])]

    def _grown(self, key: int, event: Grown) -> list[Action]:
        version = self.versions.get(event.id)
        if version is None:
            return []
        version.grown[key] = event.grew
        there = [m.key for m in self._with(event.id, _LOADED)]
        if not all(k in version.grown for k in there):
            return []
        return [Report(Grown(event.id, all(version.grown[k] for k in there)))]

    def _relocated(self, key: int, event: Relocated) -> list[Action]:
        version = self.versions.get(event.id)
        if version is None:
            return []
        version.moved[key] = event.devices
        if all(m.key in version.moved for m in self._with(event.id, _LOADED)):
            return [Report(event)]
        return []

    # From goals to steps --------------------------------------------------------------------------

    def _send_estimates(self) -> Iterator[Action]:
        """Let a worker estimate what none is asked to."""
        worker = next((m.key for m in self._by_age() if m.phase is not Phase.LEAVING), None)
        if worker is None:
            return
        for servable_id, (start, asked) in list(self._estimates.items()):
            if asked is None:
                self._estimates[servable_id] = (start, worker)
                yield Send(worker, start)

    def _drive_all(self) -> Iterator[Action]:
        for servable_id in list(self.versions):
            yield from self._drive(servable_id)
        yield from self._open()

    def _drive(self, servable_id: ServableId) -> Iterator[Action]:
        """Send each worker its next step for a version, and report what all have reached."""
        version = self.versions.get(servable_id)
        if version is None:
            return
        for member in self._by_age():
            step = self._next_step(member, version)
            if step is not None:
                yield Send(member.key, step)
        yield from self._reports(servable_id, version)
        yield from self._open()

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
                placement = dataclasses.replace(placement, may_grow=may_grow)
                return dataclasses.replace(version.start, placement=placement)
            case Has.LOADED, Goal.PUBLISH:
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
        if has is Has.LOADING and servable_id not in member.failures:
            member.failures[servable_id] = 0  # told once
            return CancelLoad(servable_id)
        if has is Has.FAILED:
            del member.has[servable_id]
            return Discard(servable_id)
        if has in _FREEABLE:
            member.has[servable_id] = Has.UNLOADING
            member.failures.pop(servable_id, None)
            return StartUnload(servable_id)
        return None

    def _may_load(self, member: Member, version: Version) -> bool:
        """Return whether a worker may load a version now: one goes first, the others follow."""
        if member.phase is Phase.LEAVING:
            return False
        if version.proven:
            return True
        if version.first is None:
            if version.suspect and member.phase is not Phase.JOINING:
                return False  # the worker in the dead one's place tries it, before it opens
            version.first = member.key
        return version.first == member.key

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
                    yield Report(LoadSucceeded(servable_id, _sum(version.measured.values())))
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
        wanted = [i for i, v in self.versions.items() if joining and v.goal is Goal.PUBLISH]
        for member in joining:
            tries = any(v.first == member.key and not v.proven for v in self.versions.values())
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


def times(estimate: Estimate, workers: int) -> Estimate:
    """Return an estimate for so many workers; they optimise one after the other."""
    return dataclasses.replace(
        estimate,
        steady=_times(estimate.steady, workers),
        peak=_times(estimate.peak, workers),
        grown=_times(estimate.grown, workers),
        least=_times(estimate.least, workers),
    )


def _times(footprint: Footprint, workers: int) -> Footprint:
    accelerator = footprint.on_accelerator
    return Footprint(
        footprint.shared * workers,
        footprint.replica * workers,
        None if accelerator is None else accelerator * workers,
    )


def _sum(measured: Iterable[Measured | None]) -> Measured | None:
    """Return what all workers together were measured to take; None if one was not measured."""
    steady, peak = NO_BYTES, NO_BYTES
    for each in measured:
        if each is None:
            return None
        steady, peak = _add(steady, each.steady), _add(peak, each.peak)
    return Measured(steady, peak)


def _add(total: Resources, more: Resources) -> Resources:
    return total + more


def _cancelled(servable_id: ServableId) -> LoadFailed:
    return LoadFailed(servable_id, Cancelled("Loading of servable cancelled"), retriable=False)
