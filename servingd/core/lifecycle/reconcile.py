"""The manager's decisions: one event in, a list of commands out.

Theory of operation. `ManagerState` owns every harness; outside this package nothing changes a
harness's state. It uses no thread, clock or file: its owner feeds it events, carries the commands
out in their order, and turns the end of each job into the next event. So every command that starts
a job is followed by exactly one event about it, and the state shows at any time what is under way.

1. An event changes the harness that it is about (the methods under "What each event means").
2. `_reconcile` then compares the model's harnesses with what its source aspires, which is the
   target: a version without a harness gets one, one that is no longer aspired is discarded,
   cancelled or quiesced. It asks the policy for the next action until the policy has none.
3. `Room.use` lastly checks whether memory was given back, and gives it to those who waited.

A version that is aspired again while its old harness is on its way out gets a new one when that has
gone. One that still serves is simply wanted again (TensorFlow Serving lets such a rollback wait for
ever). With a resource tracker each load is estimated before it starts, and starts when there is
room. What is refused is tried again when room is given back: by an unload, or by a load that failed
or took less than it was estimated to take. So it is when a version that serves is no longer wanted,
since that one may now give way to it.
"""

from __future__ import annotations

from servingd.core.lifecycle.endings import fail, quiesce, unload, unloaded, withdraw
from servingd.core.lifecycle.events import (
    CancelLoad,
    CancelRetry,
    Command,
    Configured,
    Crashed,
    Discard,
    Drained,
    Estimated,
    Event,
    Grown,
    LoadFailed,
    LoadOverdue,
    LoadSucceeded,
    Progress,
    Publish,
    PublishFailed,
    Relocate,
    Relocated,
    ReplicaFailed,
    ReportIncomplete,
    RetryDue,
    ScheduleRetry,
    StartEstimate,
    StartLoad,
    Stop,
    Unloaded,
    announcement,
)
from servingd.core.lifecycle.harness import (
    UNDER_WAY,
    Harness,
    LoadPlan,
    Step,
    Stream,
    Streams,
    same_files,
)
from servingd.core.lifecycle.loading import plan_of
from servingd.core.lifecycle.policies import POLICIES, Load, Policy, availability_preserving
from servingd.core.lifecycle.room import Room
from servingd.core.lifecycle.states import LEAVING, HarnessState, PublicState, advance
from servingd.core.resources.reservations import ResourceRequest
from servingd.core.resources.tracker import ResourceTracker
from servingd.core.types import AspiredVersion, AspiredVersions, ServableId
from servingd.errors import DeadlineExceeded, Internal, error_from_code


class ManagerState:
    """All models and their harnesses. One owner; not thread-safe."""

    def __init__(
        self,
        policy: Policy = availability_preserving,
        max_num_load_retries: int = 5,
        tracker: ResourceTracker | None = None,
        load_retry_interval_s: float = 60.0,
    ) -> None:
        """Start without models. Without a tracker loads start at once and are not estimated.

        A failed load is tried again `max_num_load_retries` times, after `load_retry_interval_s`
        seconds each; 0 or less: at once.
        """
        self._policy = policy
        self._retries = max_num_load_retries
        self._pause_s = max(0.0, load_retry_interval_s)
        self._tracker = tracker or ResourceTracker()
        self._estimates = tracker is not None
        self._streams = Streams()
        self._room = Room(self._streams, self._tracker)
        self._stopping = False

    def handle(self, event: Event) -> list[Command]:
        """Handle one event; return the commands to carry out now, in this order."""
        match event:
            case AspiredVersions():
                commands = self._aspired(event)
            case Configured():
                commands = self._configured(event)
            case Stop():
                commands = self._stop()
            case RetryDue():
                commands = self._retry_due(event.id)
            case Grown() | ReplicaFailed() | Relocated():
                commands = self._changed(event)
            case Crashed():
                commands = self._crashed(event)
            case _:
                commands = self._progressed(event, self._streams.harness(event.id))
                commands += self._reconcile(event.id.name)
        return commands + self._room.use(self._reconcile)

    def _progressed(self, event: Progress, harness: Harness) -> list[Command]:
        """Handle the end of a job."""
        match event:
            case Estimated():
                return self._estimated(harness, ResourceRequest(event.estimate, event.devices))
            case LoadSucceeded():
                return self._load_succeeded(harness, event)
            case LoadFailed():
                return self._load_failed(harness, event)
            case LoadOverdue():
                return self._load_overdue(harness, event)
            case PublishFailed():
                return self._publish_failed(harness, event)
            case Drained():
                return unload(harness)
            case Unloaded():
                return unloaded(harness, self._tracker)

    def harnesses(self) -> list[Harness]:
        """Return every harness, by name and version."""
        return self._streams.harnesses()

    def plan(self) -> LoadPlan:
        """Return what each version holds, and where, for those who show it."""
        return plan_of(self.harnesses(), self._tracker, self._room.rules)

    # What each event means ------------------------------------------------------------------------

    def _aspired(self, statement: AspiredVersions) -> list[Command]:
        """Replace a model's target, and change its harnesses accordingly."""
        if self._stopping:
            return []
        stream = self._streams.setdefault(statement.name, Stream())
        stream.aspired = {v.version: v for v in reversed(statement.versions)}
        commands: list[Command] = []
        if dict(stream.incomplete) != dict(statement.incomplete):
            stream.incomplete = dict(statement.incomplete)
            commands.append(ReportIncomplete(statement.name, stream.incomplete))
        for harness in stream.harnesses.values():
            commands += self._follow(harness, stream.aspired.get(harness.id.version))
        return commands + self._reconcile(statement.name)

    def _configured(self, event: Configured) -> list[Command]:
        """Apply new rules to later loads, and to loads that the old rules refused."""
        old, self._room.rules = self._room.rules, event.rules
        commands: list[Command] = []
        for name, stream in sorted(self._streams.items()):
            if old.get(name) == event.rules.get(name):
                continue
            for harness in stream.harnesses.values():
                harness.aspired = harness.aspired and not harness.refused
            self._tracker.more_room = True  # waiting loads are judged again
            commands += self._reconcile(name)
        return commands

    def _stop(self) -> list[Command]:
        """Replace every model's target by nothing."""
        self._stopping = True
        self._room.forget_refused()
        commands: list[Command] = []
        for name, stream in sorted(self._streams.items()):
            stream.aspired = {}
            for harness in stream.harnesses.values():
                commands += self._follow(harness, None)
            commands += self._reconcile(name)
        return commands

    def _estimated(self, harness: Harness, request: ResourceRequest) -> list[Command]:
        harness.step, harness.request = None, request
        return withdraw(harness, self._tracker) if harness.cancelled else self._room.admit(harness)

    def _load_succeeded(self, harness: Harness, event: LoadSucceeded) -> list[Command]:
        """Publish a loaded version, or unload it if its load was cancelled."""
        harness.step = None
        self._tracker.settle(harness.id, event.measured)
        if harness.cancelled:  # it is no longer wanted, and never serves
            return unload(harness)
        harness.state = advance(harness.state, HarnessState.READY)
        return [Publish(harness.id), announcement(harness.id, PublicState.AVAILABLE)]

    def _load_failed(self, harness: Harness, event: LoadFailed) -> list[Command]:
        """Schedule a retry if one is left, else end the version with its error."""
        self._tracker.release(harness.id)
        harness.step = None
        again = event.retriable and harness.attempts <= self._retries
        if not again or harness.cancelled:
            return fail(harness, self._tracker, event.error)
        harness.step = Step.PAUSED
        # Shown at once: the last attempt may be minutes away.
        text = f"retry {harness.attempts} of {self._retries} in {self._pause_s:g} s"
        error = error_from_code(event.error.code, f"{event.error.message} ({text})")
        return [
            announcement(harness.id, PublicState.LOADING, error),
            ScheduleRetry(harness.id, self._pause_s),
        ]

    def _load_overdue(self, harness: Harness, event: LoadOverdue) -> list[Command]:
        """Give up the attempt with its loader; the runtime disposes of a late result."""
        harness.request = None
        text = f"Loading of servable {event.id} has not ended within {event.after_s:g} s"
        commands = self._load_failed(harness, LoadFailed(event.id, DeadlineExceeded(text)))
        return commands if Discard(event.id) in commands else [Discard(event.id), *commands]

    def _publish_failed(self, harness: Harness, event: PublishFailed) -> list[Command]:
        """Unload a version that cannot be called; one that is quiescing is unloaded when it has."""
        harness.error = event.error
        if harness.state is not HarnessState.READY:
            return []
        self._tracker.leave(harness.id)
        return unload(harness)

    def _retry_due(self, servable_id: ServableId) -> list[Command]:
        harness = self._streams.find(servable_id)
        if harness is None or harness.step is not Step.PAUSED:
            return []  # cancelled while the event was on its way
        return self._attempt(harness) + self._reconcile(servable_id.name)

    def _crashed(self, event: Crashed) -> list[Command]:
        """Take a version that serves out of service, and end it with its error."""
        harness = self._streams.find(event.id)
        if harness is None or harness.state is not HarnessState.READY:
            return []  # a load that fails says so itself
        harness.error = event.error
        return quiesce(harness, self._tracker)

    def _changed(self, event: Grown | ReplicaFailed | Relocated) -> list[Command]:
        """Handle a change of a version that serves."""
        match event:
            case Grown():
                self._tracker.grown(event.id, event.grew)
            case Relocated():
                self._tracker.relocated(event.id, event.devices)
            case ReplicaFailed():
                harness = self._streams.find(event.id)
                if harness is not None and harness.state is HarnessState.READY:
                    rules = self._room.rules_of(event.id.name)
                    to = self._tracker.relocate(event.id, event.device, rules)
                    return [Relocate(event.id, event.device, to)]
        return []

    # From the target to actions -------------------------------------------------------------------

    def _follow(self, harness: Harness, wanted: AspiredVersion | None) -> list[Command]:
        """Mark a harness as wanted or not; cancel a load that is no longer wanted."""
        if wanted is not None and not harness.cancelled and harness.state not in LEAVING:
            # It serves, is being loaded, or has failed: the first loader is kept, unless it failed
            # and the files have changed since.
            same = same_files(harness, wanted)
            harness.aspired = harness.state is not HarnessState.ERROR or same
            waits = harness.step in (Step.PAUSED, Step.WAITING)
            return [] if same or not waits else self._start_over(harness, wanted)
        if harness.aspired and harness.state is HarnessState.READY:
            self._tracker.more_room = True  # it may give way to a version that was refused
        harness.aspired = False
        if harness.cancelled or harness.state not in (HarnessState.NEW, HarnessState.LOADING):
            return []
        harness.cancelled = True
        if harness.step in UNDER_WAY:
            self._tracker.leave(harness.id)
            return [CancelLoad(harness.id)]  # the event of the job under way ends the harness
        return withdraw(harness, self._tracker)

    def _reconcile(self, name: str) -> list[Command]:
        """Forget ended versions, make harnesses for new ones, and apply the policy."""
        stream = self._streams[name]
        stream.flush()
        commands: list[Command] = []
        for version, wanted in stream.aspired.items():
            if version not in stream.harnesses:
                commands += self._manage(stream, ServableId(name, version), wanted)
        policy = self._policy_of(name)
        while action := policy(stream.snapshots()):
            harness = stream.harnesses[action.version]
            commands += (
                self._load(harness) if isinstance(action, Load) else quiesce(harness, self._tracker)
            )
        if not (stream.harnesses or stream.aspired or stream.incomplete):
            del self._streams[name]  # a removed model leaves nothing behind
            self._tracker.forget(name)
        return commands

    def _manage(
        self, stream: Stream, servable_id: ServableId, wanted: AspiredVersion
    ) -> list[Command]:
        """Make a harness for a version that is aspired; one aspired with an error ends at once."""
        harness = stream.harnesses[servable_id.version] = Harness(servable_id, wanted.data)
        if wanted.error is not None or wanted.data is None:
            error = wanted.error or Internal(f"{servable_id} was aspired without data")
            harness.state = advance(harness.state, HarnessState.ERROR)
            return [announcement(servable_id, PublicState.END, error)]
        return [announcement(servable_id, PublicState.START)]

    def _load(self, harness: Harness) -> list[Command]:
        harness.state = advance(harness.state, HarnessState.LOADING)
        return [announcement(harness.id, PublicState.LOADING), *self._attempt(harness)]

    def _attempt(self, harness: Harness) -> list[Command]:
        """Begin an attempt to load: estimate first, unless that is done or not wanted."""
        assert harness.data is not None  # one without data never leaves ERROR
        harness.attempts += 1
        if harness.request is not None:
            return self._room.admit(harness)
        if self._estimates:
            harness.step = Step.ESTIMATING
            return [StartEstimate(harness.id, harness.data)]
        harness.step = Step.LOADING
        return [StartLoad(harness.id, harness.data)]

    def _start_over(self, harness: Harness, wanted: AspiredVersion) -> list[Command]:
        """Begin again with a new loader: the files of a load that waits have changed."""
        cancel = [CancelRetry(harness.id)] if harness.step is Step.PAUSED else []
        self._tracker.release(harness.id)
        harness.data, harness.attempts, harness.request = wanted.data, 0, None
        afresh = announcement(harness.id, PublicState.LOADING)
        return [*cancel, Discard(harness.id), afresh, *self._attempt(harness)]

    def _policy_of(self, name: str) -> Policy:
        transition = self._room.rules_of(name).transition
        return POLICIES[transition] if transition else self._policy
