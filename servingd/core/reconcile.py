"""The manager's decisions: one event in, a list of commands out.

`ManagerState` owns every harness; nothing else changes a harness's state. It knows no thread, clock
or file: whoever owns it feeds it events, carries the commands out in their order, and turns each
completion into the next event.

What a source aspires is a stream's target. Harnesses follow it: a version without one gets one, a
version that is no longer aspired is discarded, cancelled or quiesced, and a version that is aspired
again while its old harness is on its way out gets a new one when that has gone. A version that
still serves is simply wanted again (TensorFlow Serving lets such a rollback wait for ever).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from servingd.core.events import (
    Announce,
    CancelRetry,
    Command,
    Discard,
    Drained,
    Event,
    LoadFailed,
    LoadSucceeded,
    Publish,
    Quiesce,
    ReportIncomplete,
    RetryDue,
    ScheduleRetry,
    StartLoad,
    StartUnload,
    Stop,
    Unloaded,
)
from servingd.core.lifecycle import (
    LEAVING,
    HarnessState,
    PublicState,
    ServableState,
    advance,
)
from servingd.core.policies import Load, Policy, Snapshot, availability_preserving
from servingd.core.types import AspiredVersion, AspiredVersions, ServableId, VersionData
from servingd.errors import Cancelled, Internal, ServingError


@dataclass(slots=True)
class Harness:
    """The manager's record of one version's one loader."""

    id: ServableId
    data: VersionData | None
    state: HarnessState = HarnessState.NEW
    aspired: bool = True
    cancelled: bool = False
    """Its load is no longer wanted. Never taken back: whoever wants the version again waits."""
    attempts: int = 0
    waiting_for_retry: bool = False


@dataclass(slots=True)
class _Stream:
    aspired: dict[int, AspiredVersion] = field(default_factory=dict)
    harnesses: dict[int, Harness] = field(default_factory=dict)
    incomplete: Mapping[int, str] = field(default_factory=dict)


class ManagerState:
    """All streams and their harnesses. One owner; not thread-safe."""

    def __init__(
        self, policy: Policy = availability_preserving, max_num_load_retries: int = 5
    ) -> None:
        self._policy = policy
        self._max_attempts = 1 + max_num_load_retries
        self._streams: dict[str, _Stream] = {}
        self._stopping = False

    def handle(self, event: Event) -> list[Command]:
        """Take one event; return what must be done now, in this order."""
        match event:
            case AspiredVersions():
                return self._aspired(event)
            case Stop():
                return self._stop()
            case RetryDue():
                return self._retry_due(event.id)
            case LoadSucceeded():
                commands = self._load_succeeded(self._harness(event.id))
            case LoadFailed():
                commands = self._load_failed(self._harness(event.id), event)
            case Drained():
                harness = self._harness(event.id)
                harness.state = advance(harness.state, HarnessState.UNLOADING)
                commands = [StartUnload(event.id)]
            case Unloaded():
                commands = self._unloaded(self._harness(event.id))
        return commands + self._reconcile(event.id.name)

    @property
    def settled(self) -> bool:
        """Whether nothing is under way and nothing is left to do but wait for events."""
        return all(
            h.aspired and h.state in (HarnessState.READY, HarnessState.ERROR)
            for h in self.harnesses()
        )

    def harnesses(self) -> list[Harness]:
        """Every harness, by name and version."""
        return [
            stream.harnesses[version]
            for _, stream in sorted(self._streams.items())
            for version in sorted(stream.harnesses)
        ]

    # What each event means ------------------------------------------------------------------------

    def _aspired(self, statement: AspiredVersions) -> list[Command]:
        if self._stopping:
            return []
        stream = self._streams.setdefault(statement.name, _Stream())
        stream.aspired = {v.version: v for v in reversed(statement.versions)}
        commands: list[Command] = []
        if dict(stream.incomplete) != dict(statement.incomplete):
            stream.incomplete = dict(statement.incomplete)
            commands.append(ReportIncomplete(statement.name, stream.incomplete))
        for harness in stream.harnesses.values():
            commands += self._follow(harness, stream.aspired.get(harness.id.version))
        return commands + self._reconcile(statement.name)

    def _stop(self) -> list[Command]:
        self._stopping = True
        commands: list[Command] = []
        for name, stream in sorted(self._streams.items()):
            stream.aspired = {}
            for harness in stream.harnesses.values():
                commands += self._follow(harness, None)
            commands += self._reconcile(name)
        return commands

    def _load_succeeded(self, harness: Harness) -> list[Command]:
        if harness.cancelled:  # nobody wants it any more: it never serves
            harness.state = advance(harness.state, HarnessState.UNLOADING)
            return [StartUnload(harness.id)]
        harness.state = advance(harness.state, HarnessState.READY)
        return [Publish(harness.id), _announce(harness.id, PublicState.AVAILABLE)]

    def _load_failed(self, harness: Harness, event: LoadFailed) -> list[Command]:
        again = event.retriable and harness.attempts < self._max_attempts
        if again and not harness.cancelled:
            harness.waiting_for_retry = True
            return [ScheduleRetry(harness.id)]
        return self._fail(harness, event.error)

    def _retry_due(self, servable: ServableId) -> list[Command]:
        harness = self._find(servable)
        if harness is None or not harness.waiting_for_retry:
            return []  # cancelled while the event was on its way
        harness.waiting_for_retry = False
        return self._attempt(harness)

    def _unloaded(self, harness: Harness) -> list[Command]:
        harness.state = advance(harness.state, HarnessState.DISABLED)
        error = _cancelled() if harness.cancelled else None
        return [_announce(harness.id, PublicState.END, error)]

    # From the target to actions -------------------------------------------------------------------

    def _follow(self, harness: Harness, wanted: AspiredVersion | None) -> list[Command]:
        """Mark a harness as wanted or not; cancel a load that no longer is."""
        if wanted is not None and not harness.cancelled and harness.state not in LEAVING:
            # In service, or on its way there, or failed: the first loader is kept, unless it failed
            # and the files have changed since.
            same = _same_files(harness, wanted)
            harness.aspired = harness.state is not HarnessState.ERROR or same
            return (
                [] if same or not harness.waiting_for_retry else self._start_over(harness, wanted)
            )
        harness.aspired = False
        if harness.cancelled or harness.state not in (HarnessState.NEW, HarnessState.LOADING):
            return []
        harness.cancelled = True
        if harness.state is HarnessState.LOADING and not harness.waiting_for_retry:
            return []  # the attempt under way decides
        return self._withdraw(harness)

    def _withdraw(self, harness: Harness) -> list[Command]:
        """End a harness that holds nothing: not started, or between two attempts."""
        commands: list[Command] = []
        if harness.waiting_for_retry:
            harness.waiting_for_retry = False
            commands.append(CancelRetry(harness.id))
        harness.state = advance(harness.state, HarnessState.DISABLED)
        commands += [
            Discard(harness.id),
            _announce(harness.id, PublicState.END, _cancelled()),
        ]
        return commands

    def _reconcile(self, name: str) -> list[Command]:
        """Flush what has ended, manage what is new, and ask the policy until it rests."""
        stream = self._streams[name]
        for version, harness in list(stream.harnesses.items()):
            if harness.state is HarnessState.DISABLED or (
                harness.state is HarnessState.ERROR and not harness.aspired
            ):
                del stream.harnesses[version]
        commands: list[Command] = []
        for version, wanted in stream.aspired.items():
            if version not in stream.harnesses:
                commands += self._manage(stream, ServableId(name, version), wanted)
        while action := self._policy(_snapshots(stream)):
            harness = stream.harnesses[action.version]
            commands += self._load(harness) if isinstance(action, Load) else _quiesce(harness)
        if not (stream.harnesses or stream.aspired or stream.incomplete):
            del self._streams[name]  # a removed model leaves nothing behind
        return commands

    def _manage(
        self, stream: _Stream, servable: ServableId, wanted: AspiredVersion
    ) -> list[Command]:
        harness = stream.harnesses[servable.version] = Harness(servable, wanted.data)
        if wanted.error is not None or wanted.data is None:
            error = wanted.error or Internal(f"{servable} was aspired without data")
            harness.state = advance(harness.state, HarnessState.ERROR)
            return [_announce(servable, PublicState.END, error)]
        return [_announce(servable, PublicState.START)]

    def _load(self, harness: Harness) -> list[Command]:
        harness.state = advance(harness.state, HarnessState.LOADING)
        return [_announce(harness.id, PublicState.LOADING), *self._attempt(harness)]

    def _attempt(self, harness: Harness) -> list[Command]:
        assert harness.data is not None  # one without data never leaves ERROR
        harness.attempts += 1
        return [StartLoad(harness.id, harness.data)]

    def _start_over(self, harness: Harness, wanted: AspiredVersion) -> list[Command]:
        """The files of a load that waits for its next attempt have changed: do not wait."""
        harness.data, harness.attempts, harness.waiting_for_retry = wanted.data, 0, False
        return [CancelRetry(harness.id), Discard(harness.id), *self._attempt(harness)]

    def _fail(self, harness: Harness, error: ServingError) -> list[Command]:
        harness.state = advance(harness.state, HarnessState.ERROR)
        return [Discard(harness.id), _announce(harness.id, PublicState.END, error)]

    def _find(self, servable: ServableId) -> Harness | None:
        stream = self._streams.get(servable.name)
        return stream.harnesses.get(servable.version) if stream else None

    def _harness(self, servable: ServableId) -> Harness:
        harness = self._find(servable)
        if harness is None:
            raise Internal(f"This servable is not being managed: {servable}")
        return harness


def _quiesce(harness: Harness) -> list[Command]:
    harness.state = advance(harness.state, HarnessState.QUIESCING)
    # Announced before lookups start to fail: TensorFlow Serving's order.
    return [_announce(harness.id, PublicState.UNLOADING), Quiesce(harness.id)]


def _snapshots(stream: _Stream) -> list[Snapshot]:
    """The stream as policies see it.

    A version that is wanted again while its harness is on its way out counts as aspired: else the
    last sibling that serves would be given up for a version that nobody serves yet.
    """
    return [
        Snapshot(
            version,
            HarnessState.UNLOADING if h.cancelled and h.state is HarnessState.LOADING else h.state,
            version in stream.aspired,
        )
        for version, h in sorted(stream.harnesses.items())
    ]


def _same_files(harness: Harness, wanted: AspiredVersion) -> bool:
    """Whether a failed harness was made from what is aspired now; a new error is never news."""
    return wanted.error is not None or wanted.data is None or harness.data == wanted.data


def _announce(
    servable: ServableId, state: PublicState, error: ServingError | None = None
) -> Announce:
    return Announce(ServableState(servable, state, error))


def _cancelled() -> Cancelled:
    return Cancelled("Loading of servable cancelled")
