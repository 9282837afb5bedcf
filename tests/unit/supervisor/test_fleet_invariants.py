"""Random interleavings of a manager and its workers: each job ends once, and all hold the same.

The machine plays the processes: workers that take commands in order, end their jobs in any order,
and die. The manager is a real one. Its commands and the fleet's reports cross on their way.
"""

from collections import Counter, deque
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
    PublishFailed,
    Quiesce,
    Relocate,
    Relocated,
    ReplicaFailed,
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
from servingd.core.lifecycle.states import HarnessState
from servingd.core.resources.footprints import Estimate, Footprint
from servingd.core.resources.tracker import ResourceTracker
from servingd.core.types import AspiredVersion, AspiredVersions, Device, ServableId, VersionData
from servingd.errors import DataLoss, Internal
from servingd.supervisor.fleet.records import LoadAgain, Open, Report, Send
from servingd.supervisor.fleet.state import FleetState

NAMES = ("a", "b")
VERSIONS = range(1, 4)
MAX_RETRIES = 1
RAM = 20
GPU = Device("GPU", 0)
ENDS = (LoadSucceeded, LoadFailed, LoadOverdue)


@dataclass
class Live:
    """What a worker's process has of one version."""

    job: str = ""
    loaded: bool = False
    cancelled: bool = False
    published: bool = False
    draining: bool = False
    may_grow: bool = False
    grown: bool = False


@dataclass
class FakeWorker:
    """One process, as `runtime/versions/versions.py` behaves in it."""

    key: int
    inbox: deque = field(default_factory=deque)
    live: dict = field(default_factory=dict)
    unloading: list = field(default_factory=list)
    relocating: list = field(default_factory=list)
    opened: bool = False
    leaving: bool = False

    def published(self):
        return {i for i, live in self.live.items() if live.published}

    def take(self):
        """Carry the next command out; return the messages that follow at once."""
        command = self.inbox.popleft()
        live = self.live.get(command.id)
        match command:
            case StartEstimate() | StartLoad():
                live = self.live.setdefault(command.id, Live())
                assert not live.job
                assert not live.loaded
                assert not live.cancelled, "its loader was cancelled: it can never load"
                live.job = "estimate" if isinstance(command, StartEstimate) else "load"
                live.may_grow = isinstance(command, StartLoad) and command.placement.may_grow
            case CancelLoad():
                assert live is not None
                live.cancelled = True
            case LetGrow():
                assert live.loaded
                assert not live.may_grow, "once"
                live.may_grow = True
            case Relocate():
                assert live.loaded
                self.relocating.append(command.id)
            case Publish():
                assert live.loaded
                assert not live.published
                return ["publish"]
            case Quiesce():
                assert live.published
                live.published, live.draining = False, True
            case StartUnload():
                assert live.loaded
                assert not live.published
                assert not live.draining
                del self.live[command.id]
                self.unloading.append(command.id)
            case Discard():
                assert live is None or not (live.job or live.loaded)
                self.live.pop(command.id, None)
        return []

    def jobs(self):
        """Return what may end next: the version and the kind."""
        for servable_id, live in self.live.items():
            if live.job:
                yield servable_id, live.job
            if live.draining:
                yield servable_id, "drain"
            if live.loaded and live.may_grow and not live.grown:
                yield servable_id, "grow"
        yield from ((i, "unload") for i in self.unloading)
        yield from ((i, "relocate") for i in self.relocating)


class FleetMachine(RuleBasedStateMachine):
    @initialize(
        policy=st.sampled_from(sorted(POLICIES)),
        workers=st.integers(1, 3),
        budget=st.booleans(),
    )
    def begin(self, policy, workers, budget):
        self.count = workers
        self.budget = budget
        self.manager = ManagerState(
            POLICIES[policy], MAX_RETRIES, ResourceTracker(RAM * workers) if budget else None
        )
        self.fleet = FleetState(workers)
        self.events = deque()  # on their way to the manager
        self.commands = deque()  # on their way to the fleet
        self.workers = {}
        self.keys = 0
        self.awaited = Counter()  # ends of jobs that the fleet owes, by version and kind
        self.retries = set()
        self.again = []
        self.target = {name: set() for name in NAMES}
        self.stopped = False
        self.calm = False

    # What may happen ------------------------------------------------------------------------------

    @rule(
        name=st.sampled_from(NAMES),
        versions=st.sets(st.sampled_from(VERSIONS), max_size=2),
        files=st.sampled_from(["", "", "changed"]),
    )
    def aspire(self, name, versions, files):
        if self.stopped:
            return
        self.target[name] = versions
        wanted = [AspiredVersion(v, VersionData(f"/{name}/{v}", "t", files)) for v in versions]
        self.events.append(AspiredVersions(name, tuple(wanted)))

    @precondition(lambda self: self.events)
    @rule()
    def manager_takes(self):
        for command in self.manager.handle(self.events.popleft()):
            match command:
                case Announce() | Explain() | ReportIncomplete():
                    pass
                case ScheduleRetry(servable_id, _):
                    self.retries.add(servable_id)
                case CancelRetry(servable_id):
                    self.retries.discard(servable_id)
                case _:
                    self.commands.append(command)

    @precondition(lambda self: self.commands)
    @rule()
    def fleet_takes(self):
        command = self.commands.popleft()
        match command:
            case StartEstimate() | StartLoad() | Quiesce() | StartUnload() | Relocate():
                self.awaited[command.id, type(command)] += 1
        if isinstance(command, Publish):
            for worker in self.workers.values():
                if worker.opened and not worker.leaving:
                    assert worker.live[command.id].loaded, "an open worker does not serve it"
        self.carry_out(self.fleet.command(command))

    @precondition(lambda self: any(w.inbox for w in self.workers.values()))
    @rule(choice=st.randoms(use_true_random=False), fails=st.sampled_from([False] * 9 + [True]))
    def worker_takes(self, choice, fails):
        worker = choice.choice([w for w in self.workers.values() if w.inbox])
        servable_id = worker.inbox[0].id
        if worker.take():
            live = worker.live[servable_id]
            if fails and not self.calm:
                self.tell(worker, PublishFailed(servable_id, Internal("x")))
            else:
                live.published = True
                self.carry_out(self.fleet.published(worker.key, servable_id))

    @precondition(lambda self: any(True for w in self.workers.values() for _ in w.jobs()))
    @rule(
        choice=st.randoms(use_true_random=False),
        how=st.sampled_from(["ok", "ok", "ok", "fail", "fatal", "overdue"]),
    )
    def job_ends(self, choice, how):
        jobs = [(w, *job) for w in self.workers.values() for job in w.jobs()]
        worker, servable_id, kind = choice.choice(jobs)
        live = worker.live.get(servable_id)
        match kind:
            case "estimate" | "load":
                live.job = ""
                if how == "overdue":
                    live.cancelled = True
                self.tell(worker, self.end_of(servable_id, live, kind, how))
            case "drain":
                live.draining = False
                self.tell(worker, Drained(servable_id))
            case "grow":
                live.grown = True
                self.tell(worker, Grown(servable_id, how == "ok"))
            case "unload":
                worker.unloading.remove(servable_id)
                self.tell(worker, Unloaded(servable_id))
            case "relocate":
                worker.relocating.remove(servable_id)
                self.tell(worker, Relocated(servable_id, (GPU,)))

    def end_of(self, servable_id, live, kind, how):
        if how == "overdue":
            return LoadOverdue(servable_id, 1.0)
        if how != "ok" or (live.cancelled and kind == "estimate"):
            return LoadFailed(servable_id, DataLoss("x"), retriable=how != "fatal")
        if kind == "load":
            live.loaded = True
            return LoadSucceeded(servable_id)
        size = Footprint(7, 0)
        estimate = Estimate(steady=size, peak=size, growth=Footprint(5, 0), grown=size)
        return Estimated(servable_id, estimate, {})

    @precondition(lambda self: self.joined() < self.count + 1)
    @rule()
    def worker_joins(self):
        """A new one, or one that is to replace another."""
        self.keys += 1
        self.workers[self.keys] = FakeWorker(self.keys)
        self.carry_out(self.fleet.joined(self.keys))

    @precondition(lambda self: self.workers)
    @rule(choice=st.randoms(use_true_random=False))
    def worker_dies(self, choice):
        key = choice.choice(sorted(self.workers))
        del self.workers[key]
        self.carry_out(self.fleet.died(key))

    @precondition(lambda self: sum(w.opened and not w.leaving for w in self.workers.values()) > 1)
    @rule(choice=st.randoms(use_true_random=False))
    def worker_leaves(self, choice):
        opened = [w for w in self.workers.values() if w.opened and not w.leaving]
        worker = choice.choice(opened)
        worker.leaving = True
        self.carry_out(self.fleet.leaving(worker.key))

    @precondition(lambda self: self.again)
    @rule(choice=st.randoms(use_true_random=False))
    def a_pause_ends(self, choice):
        again = self.again.pop(choice.randrange(len(self.again)))
        self.carry_out(self.fleet.load_again(again.worker, again.id))

    @precondition(lambda self: self.retries)
    @rule(choice=st.randoms(use_true_random=False))
    def retry_is_due(self, choice):
        servable_id = choice.choice(sorted(self.retries))
        self.retries.discard(servable_id)
        self.events.append(RetryDue(servable_id))

    @precondition(lambda self: self.fleet.versions)
    @rule(choice=st.randoms(use_true_random=False), rare=st.integers(0, 4))
    def workers_die_of_a_version(self, choice, rare):
        if not rare:
            servable_id = choice.choice(sorted(self.fleet.versions))
            self.carry_out(self.fleet.quarantine(servable_id, Internal("quarantined")))

    @precondition(lambda self: any(w.published() for w in self.workers.values()))
    @rule(choice=st.randoms(use_true_random=False))
    def a_replica_fails(self, choice):
        worker = choice.choice([w for w in self.workers.values() if w.published()])
        self.tell(worker, ReplicaFailed(choice.choice(sorted(worker.published())), GPU))

    @precondition(lambda self: not self.stopped and len(self.fleet.versions) > 2)
    @rule()
    def stop(self):
        self.stopped = True
        self.target = {name: set() for name in NAMES}
        self.events.append(Stop())

    @rule(choice=st.randoms(use_true_random=False), steps=st.integers(1, 12))
    def all_goes_on(self, choice, steps):
        """Nothing new happens for a while: so that what follows meets versions that serve."""
        for _ in range(steps):
            kinds = [self.manager_takes] * bool(self.events)
            kinds += [self.fleet_takes] * bool(self.commands)
            if any(w.inbox for w in self.workers.values()):
                kinds.append(lambda: self.worker_takes(choice, False))
            if any(True for w in self.workers.values() for _ in w.jobs()):
                kinds.append(lambda: self.job_ends(choice, "ok"))
            if kinds:
                choice.choice(kinds)()

    # The owner's part -----------------------------------------------------------------------------

    def joined(self):
        return sum(not w.leaving for w in self.workers.values())

    def tell(self, worker, event):
        self.carry_out(self.fleet.event(worker.key, event))

    def carry_out(self, actions):
        for action in actions:
            match action:
                case Send(key, command):
                    assert not (self.workers[key].leaving and isinstance(command, StartLoad))
                    self.workers[key].inbox.append(command)
                case Report(event):
                    self.check_report(event)
                    self.events.append(event)
                case Open(key):
                    assert not self.workers[key].opened, "twice"
                    assert self.workers[key].published() >= self.published()
                    self.workers[key].opened = True
                case LoadAgain():
                    self.again.append(action)

    def published(self):
        return {i for i, v in self.fleet.versions.items() if v.goal.value == "publish"}

    def check_report(self, event):
        """Each job ends once; what no job waits for is reported once too, as the manager says."""
        kinds = {Drained: Quiesce, Unloaded: StartUnload, Estimated: StartEstimate}
        kinds |= {Relocated: Relocate}
        if isinstance(event, ENDS):
            ended = StartLoad if self.awaited[event.id, StartLoad] else StartEstimate
        elif type(event) in kinds:
            ended = kinds[type(event)]
        else:
            return
        moves = isinstance(event, Relocated)  # there may be several at a time
        assert self.awaited[event.id, ended] == 1 or (moves and self.awaited[event.id, ended])
        if isinstance(event, Unloaded):
            del self.awaited[event.id, Relocate]  # nobody waits for them any more
        self.awaited[event.id, ended] -= 1

    @invariant()
    def nothing_is_published_that_is_not_confirmed(self):
        if hasattr(self, "fleet") and not any(w.inbox for w in self.workers.values()):
            assert not self.fleet.publishing

    def teardown(self):
        if not hasattr(self, "fleet"):
            return
        self.calm = True
        self.come_to_rest()
        ready = {h.id for h in self.manager.harnesses() if h.state is HarnessState.READY}
        failed = {h.id for h in self.manager.harnesses() if h.state is HarnessState.ERROR}
        assert len(ready | failed) == len(self.manager.harnesses()), "something is under way"
        assert ready | failed >= {ServableId(n, v) for n in NAMES for v in self.target[n]}
        self.check_workers(ready)
        self.events.append(Stop())
        self.come_to_rest()
        self.check_workers(set())
        assert not self.fleet.versions

    def check_workers(self, ready):
        assert not +self.awaited
        assert not self.fleet.publishing
        assert sum(w.opened and not w.leaving for w in self.workers.values()) >= self.count
        for worker in self.workers.values():
            if not worker.leaving:
                assert worker.opened
                assert worker.published() == ready
                assert worker.live.keys() == ready, "a loader is left behind"

    def come_to_rest(self):
        """Deliver everything; nobody dies any more, and nothing fails."""
        while self.joined() < self.count:
            self.worker_joins()
        for _ in range(2000):
            if not self.step():
                return
        raise AssertionError("it does not come to rest")

    def step(self):
        jobs = [(w, *job) for w in self.workers.values() for job in w.jobs()]
        if self.events:
            self.manager_takes()
        elif self.commands:
            self.fleet_takes()
        elif any(w.inbox for w in self.workers.values()):
            self.worker_takes(First(), False)
        elif jobs:
            self.job_ends(First(), "ok")
        elif self.again:
            self.a_pause_ends(First())
        elif self.retries:
            self.retry_is_due(First())
        else:
            return False
        return True


class First:
    """Chooses the first, in the place of a random one."""

    def choice(self, things):
        return things[0]

    def randrange(self, _):
        return 0


FleetMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=50, deadline=None)
TestFleetInvariants = FleetMachine.TestCase
