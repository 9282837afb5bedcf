"""Random interleavings against ManagerState: the invariants of TensorFlow Serving's core.

The machine plays the runtime: it carries commands out on a model of loaders, handles and lookups,
and answers with the events that a real runtime would send, in any order. Numbers in the checks are
those of the reference's table of invariants. Most runs have budgets: of the host's memory, and of
two devices.
"""

from dataclasses import dataclass, field

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from servingd.core.lifecycle.events import (
    Announce,
    CancelLoad,
    CancelRetry,
    Configured,
    Discard,
    Drained,
    Estimated,
    Explain,
    Grown,
    LetGrow,
    LoadFailed,
    LoadOverdue,
    LoadSucceeded,
    Publish,
    Quiesce,
    ReportIncomplete,
    RetryDue,
    ScheduleRetry,
    StartEstimate,
    StartLoad,
    StartUnload,
    Stop,
    Unloaded,
)
from servingd.core.lifecycle.policies import POLICIES
from servingd.core.lifecycle.reconcile import ManagerState
from servingd.core.lifecycle.states import HarnessState, PublicState
from servingd.core.resources.footprints import NOTHING, Estimate, Footprint
from servingd.core.resources.placement import TRANSITIONS, LoadRules
from servingd.core.resources.reservations import Verdict
from servingd.core.resources.tracker import ResourceTracker
from servingd.core.types import (
    NO_BYTES,
    AspiredVersion,
    AspiredVersions,
    Device,
    ServableId,
    VersionData,
)
from servingd.errors import DataLoss, InvalidArgument

NAMES = ("a", "b")
VERSIONS = range(1, 5)
MAX_RETRIES = 2
RAM, DEVICES = 12, {Device("GPU", 0): 8, Device("GPU", 1): 6}

# A state's own policy is a table, and the table of "auto" is availability preservation. Only a
# model's rules can say that its old version gives way: without rules nothing does.
OWN_POLICIES = sorted(POLICIES.keys() - {"auto"})

footprints = st.builds(Footprint, st.integers(0, 7), st.integers(0, 7))
transitions = st.dictionaries(
    st.sampled_from(NAMES),
    st.sampled_from(["auto", "auto", *TRANSITIONS]),  # the server's default is "auto"
)


@dataclass
class FakeLoader:
    """One loader's life, as the runtime would see it."""

    id: ServableId
    busy: bool = True
    loaded: bool = False
    estimating: bool = False
    may_grow: bool = True
    attempts: int = 1
    cancelled: bool = False
    unloads: int = 0
    told_to_end: bool = False

    @property
    def loading(self):
        return self.busy and not self.loaded and not self.estimating


@dataclass
class World:
    """What the commands have done so far."""

    loaders: dict = field(default_factory=dict)  # id -> the one live loader
    retries: set = field(default_factory=set)
    lookups: set = field(default_factory=set)
    draining: set = field(default_factory=set)
    events: dict = field(default_factory=dict)  # id -> public states of the present incarnation
    incomplete: dict = field(default_factory=dict)
    given_up: list = field(default_factory=list)
    started_over: set = field(default_factory=set)  # their files changed while they waited


class ManagerMachine(RuleBasedStateMachine):
    @initialize(
        policy=st.sampled_from(OWN_POLICIES),
        budget=st.sampled_from([True, True, False]),
        transitions=transitions,
    )
    def begin(self, policy, budget, transitions):
        self.policy = policy
        self.budget, self.transitions = budget, {}
        tracker = ResourceTracker(RAM) if budget else None
        self.state = ManagerState(POLICIES[policy], MAX_RETRIES, tracker)
        if budget:
            self.transitions = transitions
            self.state.handle(self.configured())
        self.world = World()
        self.target = {name: {} for name in NAMES}
        self.stopped = False

    # What may happen --------------------------------------------------------------------------

    @rule(
        name=st.sampled_from(NAMES),
        versions=st.lists(st.sampled_from(VERSIONS), unique=True),
        broken=st.sets(st.sampled_from(VERSIONS), max_size=1),
        files=st.sampled_from(["", "changed"]),
        duplicate=st.booleans(),
    )
    def aspire(self, name, versions, broken, files, duplicate):
        items = [
            AspiredVersion(v, error=InvalidArgument("broken item"))
            if v in broken
            else AspiredVersion(v, VersionData(f"/{name}/{v}", "t", files))
            for v in versions
        ]
        if duplicate and items:
            items.append(AspiredVersion(items[0].version, VersionData("/elsewhere", "t", files)))
        if not self.stopped:
            self.target[name] = {v.version: v for v in reversed(items)}
            for loader in self.world.loaders.values():
                if loader.id.name == name and loader.id.version not in self.target[name]:
                    loader.cancelled = loader.cancelled or not loader.loaded
        self.do(AspiredVersions(name, tuple(items)))

    @precondition(lambda self: any(h.refused for h in self.state.harnesses()))
    @rule(choice=st.randoms(use_true_random=False))
    def only_a_refused_one_is_wanted(self, choice):
        """Those in whose favour it was refused are not wanted any more."""
        refused = choice.choice([h.id for h in self.state.harnesses() if h.refused])
        self.aspire(refused.name, [refused.version], broken=(), files="", duplicate=False)

    @precondition(lambda self: self.budget and not self.stopped)
    @rule(transitions=transitions)
    def configure(self, transitions):
        self.transitions = transitions
        self.do(self.configured())

    @precondition(lambda self: any(x.estimating for x in self.world.loaders.values()))
    @rule(
        choice=st.randoms(use_true_random=False),
        fails=st.sampled_from([False, False, False, True]),
        sizes=st.tuples(footprints, footprints, footprints, footprints),
    )
    def estimate_ends(self, choice, fails, sizes):
        loader = choice.choice([x for x in self.world.loaders.values() if x.estimating])
        loader.busy = loader.estimating = False
        if fails:
            self.do(LoadFailed(loader.id, DataLoss("x")))
        else:
            self.do(self.estimated(loader.id, *sizes))

    @precondition(lambda self: any(x.loaded for x in self.world.loaders.values()))
    @rule(choice=st.randoms(use_true_random=False), grew=st.booleans())
    def growth_ends(self, choice, grew):
        loader = choice.choice([x for x in self.world.loaders.values() if x.loaded])
        if loader.may_grow:
            self.do(Grown(loader.id, grew))

    @precondition(lambda self: any(x.loading for x in self.world.loaders.values()))
    @rule(choice=st.randoms(use_true_random=False), how=st.sampled_from(["ok", "fail", "fatal"]))
    def load_ends(self, choice, how):
        loader = choice.choice([x for x in self.world.loaders.values() if x.loading])
        loader.busy = False
        if how == "ok":
            loader.loaded = True
            self.do(LoadSucceeded(loader.id))
        else:
            self.do(LoadFailed(loader.id, DataLoss("x"), retriable=how == "fail"))

    @precondition(lambda self: any(x.busy and not x.unloads for x in self.world.loaders.values()))
    @rule(choice=st.randoms(use_true_random=False))
    def an_attempt_is_overdue(self, choice):
        """It is given up: its loader is told to end, and no event of it comes any more."""
        going = [x for x in self.world.loaders.values() if x.busy and not x.unloads]
        loader = choice.choice(going)
        loader.busy = loader.estimating = False
        self.world.given_up.append(loader)
        self.do(LoadOverdue(loader.id, 60.0))
        assert self.world.loaders.get(loader.id) is not loader, "its loader is used again"

    @precondition(lambda self: self.world.retries)
    @rule(choice=st.randoms(use_true_random=False))
    def retry_is_due(self, choice):
        servable = choice.choice(sorted(self.world.retries))
        self.world.retries.discard(servable)
        self.do(RetryDue(servable))

    @rule(name=st.sampled_from(NAMES), version=st.sampled_from(VERSIONS))
    def a_retry_comes_late(self, name, version):
        """One that was cancelled while it was on its way."""
        servable = ServableId(name, version)
        if servable not in self.world.retries:
            self.do(RetryDue(servable))

    @precondition(lambda self: self.world.draining)
    @rule(choice=st.randoms(use_true_random=False))
    def last_lease_returns(self, choice):
        servable = choice.choice(sorted(self.world.draining))
        self.world.draining.discard(servable)
        self.do(Drained(servable))

    @precondition(lambda self: any(x.unloads and x.busy for x in self.world.loaders.values()))
    @rule(choice=st.randoms(use_true_random=False))
    def unload_ends(self, choice):
        loader = choice.choice([x for x in self.world.loaders.values() if x.unloads and x.busy])
        del self.world.loaders[loader.id]
        self.do(Unloaded(loader.id))

    @rule(steps=st.integers(1, 10))
    def all_goes_well_for_a_while(self, steps):
        """Else memory is seldom full: most loads would not get far."""
        for _ in range(steps):
            self.step_towards_rest()

    @precondition(lambda self: not self.stopped)
    @rule(stops=st.sampled_from([False, False, False, True]))
    def maybe_stop(self, stops):
        """Rare: Hypothesis tries it, and the rest of the run is then a shutdown."""
        if stops and len(self.world.loaders) >= 3:
            self.stopped = True
            self.target = {name: {} for name in NAMES}
            for loader in self.world.loaders.values():
                loader.cancelled = loader.cancelled or not loader.loaded
            self.do(Stop())

    # The runtime's part -------------------------------------------------------------------------

    def do(self, event):
        before = {name: self.ready(name) for name in NAMES}
        for command in self.state.handle(event):
            self.carry_out(command)
        for name in NAMES:
            self.check_availability(name, before[name])

    def carry_out(self, command):
        world = self.world
        match command:
            case (
                StartEstimate() | StartLoad() | CancelLoad() | LetGrow() | StartUnload() | Discard()
            ):
                self.ask_loader(command)
            case Explain():
                pass
            case ScheduleRetry(servable, _):
                loader = world.loaders.get(servable)  # none: it was given up
                assert loader is None or not loader.cancelled  # 17
                world.retries.add(servable)
            case CancelRetry(servable):
                world.retries.discard(servable)
            case Publish(servable):
                assert world.loaders[servable].loaded  # 5
                assert not world.loaders[servable].cancelled  # 18
                world.lookups.add(servable)
            case Quiesce(servable):
                assert servable in world.lookups
                assert world.events[servable][-1] is PublicState.UNLOADING  # 8
                wanted = self.target[servable.name]
                assert servable.version not in wanted  # 10
                world.lookups.discard(servable)
                world.draining.add(servable)
            case Announce(state):
                self.check_announcement(state)
            case ReportIncomplete(name, incomplete):
                world.incomplete[name] = dict(incomplete)

    def ask_loader(self, command):
        world = self.world
        match command:
            case StartEstimate(servable, data):
                self.check_estimate(servable, data)
            case StartLoad(servable, data, placement):
                self.check_load(servable, data)
                world.loaders[servable].may_grow = placement.may_grow
            case CancelLoad(servable):
                loader = world.loaders[servable]
                assert loader.busy
                assert not loader.loaded
                assert not loader.told_to_end, "once"
                loader.told_to_end = True
            case LetGrow(servable):
                loader = world.loaders[servable]
                assert loader.loaded
                assert not loader.may_grow, "once"
                loader.may_grow = True
            case StartUnload(servable):
                loader = world.loaders[servable]
                assert loader.loaded
                assert loader.unloads == 0  # 2
                assert servable not in world.draining  # 3: no handle is alive
                loader.unloads, loader.busy = 1, True
            case Discard(servable):
                loader = world.loaders.pop(servable, None)
                assert loader is None or not (loader.busy or loader.loaded)
                world.started_over.add(servable)

    def configured(self):
        return Configured({n: LoadRules(transition=t) for n, t in self.transitions.items()})

    def estimated(self, servable, steady, peak, growth, grown):
        estimate = Estimate(steady=steady, peak=peak, growth=growth, grown=grown, on_devices=True)
        return Estimated(servable, estimate, DEVICES)

    def policy_of(self, name):
        return self.transitions.get(name, self.policy)

    def check_estimate(self, servable, data):
        loader = self.world.loaders.setdefault(servable, FakeLoader(servable, False, attempts=0))
        assert not loader.loaded
        assert not loader.busy
        assert not loader.cancelled  # 17
        assert data.path != "/elsewhere"
        loader.busy = loader.estimating = True

    def check_load(self, servable, data):
        loader = self.world.loaders.get(servable)
        if loader is None:
            self.world.loaders[servable] = FakeLoader(servable)  # 1, 15: the old one is gone
        else:
            assert not loader.loaded  # 2
            assert not loader.busy  # 2
            assert not loader.cancelled  # 17
            loader.busy = True
            loader.attempts += 1
        assert self.world.loaders[servable].attempts <= 1 + MAX_RETRIES  # 17
        assert data.path != "/elsewhere"  # the first of two items wins

    def check_announcement(self, state):
        story = self.world.events.setdefault(state.id, [])
        if story and story[-1] is PublicState.END:
            story.clear()  # a new incarnation
        if story and story[-1] is state.state is PublicState.LOADING:
            return  # a load failed that is to be tried again, or starts over
        assert not story or story[-1] < state.state  # 9: in order, no step twice
        if not story:
            self.world.started_over.discard(state.id)
            assert state.state in (PublicState.START, PublicState.END)
        if state.state is PublicState.LOADING and (
            self.policy_of(state.id.name) == "resource_preserving"
        ):
            siblings = [h for h in self.state.harnesses() if h.id.name == state.id.name]
            assert all(h.aspired or h.state is HarnessState.ERROR for h in siblings)  # 12
        if state.state is PublicState.AVAILABLE:
            assert state.id in self.world.lookups  # 8: reachable before it is announced
        if state.state is PublicState.UNLOADING:
            assert state.id in self.world.lookups
        assert state.error is None or state.state is PublicState.END
        story.append(state.state)

    def ready(self, name):
        return {s.version for s in self.world.lookups if s.name == name}

    def check_availability(self, name, before):
        policy = self.policy_of(name)
        if policy == "availability_preserving" and before and self.target[name]:
            assert self.ready(name)  # 11

    # What must always hold ------------------------------------------------------------------------

    @invariant()
    def lookups_are_exactly_the_ready_ones(self):  # 5, 6
        if hasattr(self, "state"):
            ready = {h.id for h in self.state.harnesses() if h.state is HarnessState.READY}
            assert ready == self.world.lookups

    @invariant()
    def every_live_loader_has_its_harness(self):  # 1
        if hasattr(self, "state"):
            managed = {h.id for h in self.state.harnesses()}
            assert set(self.world.loaders) <= managed

    @invariant()
    def nothing_is_ever_over_a_budget(self):  # 19
        if hasattr(self, "state"):
            plan = self.state.plan()
            growth = max((v.growth.ram for v in plan.versions), default=0)  # one at a time
            if plan.limits.ram:
                assert sum(v.holds.ram for v in plan.versions) + growth <= RAM
            for device, limit in DEVICES.items():
                growth = max((v.growth.on(device) for v in plan.versions), default=0)
                assert sum(v.holds.on(device) for v in plan.versions) + growth <= limit

    @invariant()
    def sums_and_lists_follow_the_reservations(self):
        tracker = self.state._tracker
        held = tracker.reservations
        for servable_id in held:
            before = tracker._totals._shares[servable_id]
            tracker._changed(servable_id)
            assert tracker._totals._shares[servable_id] == before
        assert tracker._totals._shares.keys() == held.keys()
        assert set(tracker.promised) == {i for i, h in held.items() if h.promised}

    @invariant()
    def who_is_not_in_memory_holds_nothing(self):  # 20
        if hasattr(self, "state"):
            there = {x.id for x in self.world.loaders.values() if x.loaded or x.loading}
            for planned in self.state.plan().versions:
                assert planned.id in there or planned.holds + planned.growth == NO_BYTES

    @invariant()
    def no_refusal_is_out_of_date(self):
        """Whatever could make room for a load has it judged again at once."""
        if hasattr(self, "state"):
            for harness in self.state.harnesses():
                if harness.refused:
                    decision = self.state._room._decide(harness)
                    assert decision.admission.verdict is Verdict.REFUSE

    def fits(self, refused):
        """Whether there would be room for a load, by a count of our own."""
        wanted = self.target[refused.id.name]
        gives_way = self.policy_of(refused.id.name) == "auto"
        held = [
            v.holds
            for v in self.state.plan().versions
            if not (gives_way and v.id.name == refused.id.name and v.id.version not in wanted)
        ]
        estimate = refused.request.estimate
        ram = max(estimate.steady.shared, estimate.peak.shared)
        on_device = max(estimate.steady.replica, estimate.peak.replica)
        return (not ram or ram + sum(h.ram for h in held) <= RAM) and any(
            not on_device or on_device + sum(h.on(device) for h in held) <= limit
            for device, limit in DEVICES.items()
        )

    def teardown(self):
        """14, 31: once inputs stop and loads succeed, what serves is what was asked for."""
        if not hasattr(self, "state"):
            return
        for _ in range(200):
            if not self.step_towards_rest():
                break
        for harness in self.state.harnesses():
            assert not (harness.refused and self.fits(harness)), "what fits serves"
        for name in NAMES:
            wanted = {v for v, item in self.target[name].items() if item.error is None}
            failed = {
                h.id.version
                for h in self.state.harnesses()
                if h.id.name == name and h.state is HarnessState.ERROR
            }
            ready = self.ready(name)
            assert ready >= wanted - failed
            # Beyond the target at most the one that keeps a model alive whose new versions failed.
            # (An item that comes broken does not harm the loader that was accepted before it.)
            assert ready <= self.target[name].keys() or not (wanted - failed)
        for servable, story in self.world.events.items():
            ended = story[-1] is PublicState.END
            assert ended != (servable in self.world.lookups)  # exactly one terminal event

    def step_towards_rest(self):
        world = self.world
        if world.retries:
            self.do(RetryDue(world.retries.pop()))
        elif world.draining:
            self.do(Drained(world.draining.pop()))
        elif busy := [x for x in world.loaders.values() if x.busy]:
            loader = busy[0]
            loader.busy = False
            if loader.estimating:
                loader.estimating = False
                self.do(
                    self.estimated(loader.id, Footprint(3, 3), Footprint(4, 2), NOTHING, NOTHING)
                )
            elif loader.unloads:
                del world.loaders[loader.id]
                self.do(Unloaded(loader.id))
            else:
                loader.loaded = True
                self.do(LoadSucceeded(loader.id))
        elif growing := [v.id for v in self.state.plan().versions if v.growth != NO_BYTES]:
            self.do(Grown(growing[0], grew=False))
        else:
            return False
        return True


ManagerMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestManagerInvariants = ManagerMachine.TestCase
