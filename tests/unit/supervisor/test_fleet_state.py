"""What each worker is told to do, so that all of them hold what the manager commands."""

import pytest

from servingd.core.lifecycle.events import (
    CancelLoad,
    Crashed,
    Discard,
    Drained,
    Estimated,
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
    StartEstimate,
    StartLoad,
    StartUnload,
    Unloaded,
)
from servingd.core.resources.footprints import Estimate, Footprint, Measured
from servingd.core.types import Device, Placement, Resources, ServableId, VersionData
from servingd.errors import Cancelled, DataLoss, Internal
from servingd.supervisor.fleet.records import LoadAgain, Open, Phase, Report, Send
from servingd.supervisor.fleet.state import FleetState

A, B = ServableId("a", 1), ServableId("b", 1)
DATA = VersionData("/a/1", "tensorflow")
LOAD = StartLoad(A, DATA)
GPU, OTHER_GPU = Device("GPU", 0), Device("GPU", 1)
TORN = LoadFailed(A, DataLoss("torn"))
QUARANTINED = Internal("quarantined")


def fleet_of(*keys, workers=None):
    """A fleet whose workers have joined and opened their ports."""
    fleet = FleetState(workers or len(keys))
    for key in keys:
        assert fleet.joined(key) == [Open(key)]
    return fleet


def serving(*keys, command=LOAD):
    """A fleet whose workers all serve A."""
    fleet = loaded(*keys, command=command)
    fleet.command(Publish(A))
    for key in keys:
        fleet.published(key, A)
    return fleet


def loaded(*keys, command=LOAD):
    fleet = fleet_of(*keys)
    fleet.command(command)
    for key in keys:
        fleet.event(key, LoadSucceeded(A))
    return fleet


def failed_to_join(times=1, workers=2):
    """A fleet of which worker 1 serves A, and worker 9 has failed to load it so often."""
    fleet = serving(1)
    fleet.workers = workers
    fleet.joined(9)
    for _ in range(times):
        fleet.event(9, TORN)
        fleet.load_again(9, A)
    return fleet


class TestLoading:
    def test_the_first_worker_loads_alone_and_the_others_follow(self):
        fleet = fleet_of(1, 2, 3)
        assert fleet.command(LOAD) == [Send(1, LOAD)]
        assert fleet.event(1, LoadSucceeded(A)) == [Send(2, LOAD), Send(3, LOAD)]
        assert fleet.event(3, LoadSucceeded(A)) == []
        assert fleet.event(2, LoadSucceeded(A)) == [Report(LoadSucceeded(A))]

    def test_what_all_workers_take_is_the_sum(self):
        fleet = fleet_of(1, 2)
        fleet.command(LOAD)
        fleet.event(1, LoadSucceeded(A, Measured(Resources(5), Resources(7))))
        [report] = fleet.event(2, LoadSucceeded(A, Measured(Resources(6), Resources(9))))
        assert report.event.measured == Measured(Resources(11), Resources(16))

    def test_what_one_worker_could_not_measure_is_not_measured(self):
        fleet = fleet_of(1, 2)
        fleet.command(LOAD)
        fleet.event(1, LoadSucceeded(A, Measured(Resources(5), Resources(7))))
        assert fleet.event(2, LoadSucceeded(A)) == [Report(LoadSucceeded(A, None))]

    def test_a_load_waits_for_the_first_worker_that_joins(self):
        fleet = FleetState(1)
        assert fleet.command(LOAD) == []
        assert fleet.joined(1) == [Send(1, LOAD)]

    def test_what_the_first_one_cannot_load_the_others_never_try(self):
        fleet = fleet_of(1, 2)
        fleet.command(LOAD)
        assert fleet.event(1, TORN) == [Report(TORN)]

    def test_a_failure_in_one_is_undone_in_the_others_and_reported_once(self):
        fleet = fleet_of(1, 2, 3)
        fleet.command(LOAD)
        fleet.event(1, LoadSucceeded(A))
        assert fleet.event(2, TORN) == [Send(1, StartUnload(A)), Send(3, CancelLoad(A))]
        other = LoadFailed(A, DataLoss("cancelled"))
        assert fleet.event(3, other) == [Send(3, Discard(A))], "its loader stays cancelled"
        assert fleet.event(1, Unloaded(A)) == [Report(TORN)]

    def test_a_cancelled_load_that_succeeds_is_unloaded(self):
        fleet = fleet_of(1)
        fleet.command(LOAD)
        assert fleet.command(CancelLoad(A)) == [Send(1, CancelLoad(A))]
        assert fleet.event(1, LoadSucceeded(A)) == [Send(1, StartUnload(A))]
        [report] = fleet.event(1, Unloaded(A))
        assert report.event.error.code == Cancelled.code

    def test_a_load_that_no_worker_has_begun_is_cancelled_at_once(self):
        fleet = FleetState(1)
        fleet.command(LOAD)
        [report] = fleet.command(CancelLoad(A))
        assert isinstance(report, Report)
        assert isinstance(report.event, LoadFailed)
        assert fleet.joined(1) == [Open(1)]

    def test_a_load_that_has_ended_cannot_be_cancelled_any_more(self):
        """The command and the event have crossed: the manager unloads it."""
        fleet = loaded(1)
        assert fleet.command(CancelLoad(A)) == []
        assert fleet.command(StartUnload(A)) == [Send(1, StartUnload(A))]
        assert fleet.event(1, Unloaded(A)) == [Report(Unloaded(A))]

    def test_the_next_attempt_begins_anew(self):
        fleet = fleet_of(1, 2)
        fleet.command(LOAD)
        fleet.event(1, TORN)
        assert fleet.command(LOAD) == [Send(1, LOAD)]

    def test_an_overdue_load_is_reported_and_its_loader_dropped(self):
        fleet = fleet_of(1)
        fleet.command(LOAD)
        overdue = LoadOverdue(A, 5.0)
        assert fleet.event(1, overdue) == [Send(1, Discard(A)), Report(overdue)]

    def test_a_leaving_worker_is_not_waited_for(self):
        fleet = fleet_of(1, 2)
        fleet.command(LOAD)
        fleet.event(1, LoadSucceeded(A))
        assert fleet.leaving(2) == [Report(LoadSucceeded(A))]

    def test_a_leaving_worker_that_loads_alone_holds_nobody_up(self):
        fleet = fleet_of(1, 2)
        fleet.command(LOAD)
        assert fleet.leaving(1) == [Send(2, LOAD)]

    def test_what_fails_in_a_leaving_worker_fails_nowhere_else(self):
        fleet = fleet_of(1, 2)
        fleet.command(LOAD)
        fleet.event(1, LoadSucceeded(A))
        fleet.leaving(2)
        assert fleet.event(2, TORN) == []


class TestDeaths:
    def test_a_dead_workers_load_is_done_by_its_successor_before_it_opens(self):
        fleet = fleet_of(1, 2)
        fleet.command(LOAD)
        assert fleet.died(1) == [], "it may be the version's fault: nobody is hurt again"
        assert fleet.joined(3) == [Send(3, LOAD)]
        assert fleet.event(3, LoadSucceeded(A)) == [Send(2, LOAD), Open(3)]

    def test_the_successor_loads_what_is_suspect_though_others_are_commanded_first(self):
        fleet = fleet_of(1, 2)
        fleet.command(StartLoad(B, DATA))
        fleet.event(1, LoadSucceeded(B))
        fleet.command(LOAD)
        fleet.died(1)
        actions = fleet.joined(3)
        assert Send(3, LOAD) in actions
        assert Open(3) not in actions

    def test_a_suspect_version_that_fails_lets_the_successor_open(self):
        fleet = fleet_of(1, 2)
        fleet.command(LOAD)
        fleet.died(1)
        fleet.joined(3)
        assert fleet.event(3, TORN) == [Report(TORN), Open(3)]

    def test_a_suspect_version_is_tried_again_when_no_worker_is_to_come(self):
        fleet = fleet_of(1, 2)
        fleet.command(LOAD)
        fleet.died(1)
        fleet.joined(3)
        fleet.event(3, TORN)
        assert fleet.command(LOAD) == [Send(2, LOAD)]

    def test_a_leaving_worker_that_ends_within_a_load_makes_nothing_suspect(self):
        fleet = fleet_of(1, 2)
        fleet.command(LOAD)
        fleet.leaving(1)
        assert fleet.died(1) == []
        assert not fleet.versions[A].suspect

    def test_a_second_worker_that_dies_makes_nothing_suspect(self):
        fleet = fleet_of(1, 2)
        fleet.command(LOAD)
        fleet.event(1, LoadSucceeded(A))
        assert fleet.died(2) == [Report(LoadSucceeded(A))]
        assert fleet.joined(3) == [Send(3, LOAD)]

    def test_a_successor_is_driven_to_what_the_others_serve(self):
        fleet = serving(1, 2)
        fleet.died(1)
        assert fleet.joined(3) == [Send(3, LOAD)]
        assert fleet.event(3, LoadSucceeded(A)) == [Send(3, Publish(A))]
        assert fleet.published(3, A) == [Open(3)]

    def test_the_last_one_that_drains_may_die(self):
        fleet = serving(1, 2)
        fleet.command(Quiesce(A))
        fleet.event(1, Drained(A))
        assert fleet.died(2) == [Report(Drained(A))]

    def test_the_last_one_that_unloads_may_die(self):
        fleet = serving(1, 2)
        fleet.command(Quiesce(A))
        for key in (1, 2):
            fleet.event(key, Drained(A))
        fleet.command(StartUnload(A))
        fleet.event(1, Unloaded(A))
        assert fleet.died(2) == [Report(Unloaded(A))]

    def test_the_last_one_that_undoes_a_load_may_die(self):
        fleet = fleet_of(1, 2)
        fleet.command(LOAD)
        fleet.event(1, LoadSucceeded(A))
        fleet.event(2, TORN)
        assert fleet.died(1) == [Report(TORN)]

    def test_one_that_is_not_known_may_die(self):
        assert fleet_of(1).died(7) == []


class TestPublishing:
    def test_it_is_confirmed_by_each_open_worker(self):
        fleet = loaded(1, 2)
        assert not fleet.publishing
        assert fleet.command(Publish(A)) == [Send(1, Publish(A)), Send(2, Publish(A))]
        assert fleet.publishing
        fleet.published(1, A)
        assert fleet.publishing
        fleet.published(2, A)
        assert not fleet.publishing

    def test_a_dead_worker_confirms_nothing(self):
        fleet = loaded(1)
        fleet.command(Publish(A))
        fleet.died(1)
        assert not fleet.publishing

    def test_a_worker_that_joins_need_not_confirm(self):
        fleet = serving(1)
        fleet.joined(2)
        fleet.event(2, LoadSucceeded(A))
        assert not fleet.publishing

    def test_one_that_is_about_to_be_published_keeps_a_worker_from_opening(self):
        """Else it would open, and the others would publish what it has not loaded."""
        fleet = loaded(1)
        assert fleet.joined(2) == [Send(2, LOAD)]
        assert fleet.command(Publish(A)) == [Send(1, Publish(A))]
        assert fleet.event(2, LoadSucceeded(A)) == [Send(2, Publish(A))]
        assert fleet.published(2, A) == [Open(2)]

    def test_a_worker_opens_beside_a_load_that_is_under_way_and_is_waited_for(self):
        fleet = fleet_of(1, workers=2)
        fleet.command(LOAD)
        assert fleet.joined(2) == [Open(2)]
        assert fleet.event(1, LoadSucceeded(A)) == [Send(2, LOAD)]

    def test_a_failure_is_reported_once(self):
        fleet = loaded(1, 2)
        fleet.command(Publish(A))
        failed = PublishFailed(A, Internal("x"))
        assert fleet.event(1, failed) == [Report(failed)]
        assert fleet.event(2, failed) == []
        assert not fleet.publishing

    def test_what_one_could_not_publish_is_drained_in_those_that_serve_it(self):
        fleet = loaded(1, 2)
        fleet.command(Publish(A))
        fleet.published(1, A)
        fleet.event(2, PublishFailed(A, Internal("x")))
        assert fleet.command(StartUnload(A)) == [Send(1, Quiesce(A)), Send(2, StartUnload(A))]
        assert fleet.event(2, Unloaded(A)) == []
        assert fleet.event(1, Drained(A)) == [Send(1, StartUnload(A))]
        assert fleet.event(1, Unloaded(A)) == [Report(Unloaded(A))]

    def test_a_failure_in_a_joining_worker_is_its_own(self):
        fleet = serving(1)
        fleet.joined(2)
        fleet.event(2, LoadSucceeded(A))
        assert fleet.event(2, PublishFailed(A, Internal("x"))) == [Send(2, StartUnload(A))]
        assert fleet.event(2, Unloaded(A)) == [LoadAgain(2, A, 1.0)]
        assert fleet.load_again(2, A) == [Send(2, LOAD)]


class TestJoining:
    def test_it_tries_again_after_longer_and_longer_pauses(self):
        fleet = failed_to_join(times=0)
        pauses = []
        for _ in range(7):
            [again] = fleet.event(9, TORN)
            pauses.append(again.after_s)
            assert fleet.load_again(9, A) == [Send(9, LOAD)]
        assert pauses == [1, 2, 4, 8, 16, 30, 30]
        assert fleet.members[9].phase is Phase.JOINING

    def test_an_overdue_load_is_tried_with_a_new_loader(self):
        fleet = failed_to_join(times=0)
        assert fleet.event(9, LoadOverdue(A, 5.0)) == [Send(9, Discard(A)), LoadAgain(9, A, 1.0)]

    def test_what_is_on_its_way_out_is_not_tried_again(self):
        fleet = failed_to_join(times=0)
        fleet.event(9, TORN)
        fleet.command(Quiesce(A))
        assert fleet.load_again(9, A) == []
        fleet.event(1, Drained(A))
        assert fleet.command(StartUnload(A)) == [Send(1, StartUnload(A)), Send(9, Discard(A))]

    def test_a_loader_that_fails_while_the_version_leaves_is_dropped(self):
        fleet = failed_to_join(times=0)
        fleet.command(Quiesce(A))
        assert fleet.event(9, TORN) == [Send(9, Discard(A))]

    def test_a_retry_is_cancelled_as_the_first_attempt_is(self):
        fleet = failed_to_join(times=1)
        fleet.command(Quiesce(A))
        fleet.event(1, Drained(A))
        assert Send(9, CancelLoad(A)) in fleet.command(StartUnload(A))

    def test_a_pause_of_a_dead_worker_ends(self):
        fleet = failed_to_join(times=0)
        fleet.event(9, TORN)
        fleet.died(9)
        assert fleet.load_again(9, A) == []

    def test_what_no_worker_can_load_any_more_is_given_up(self):
        """Else the only worker would never open, and no other model would be served again."""
        fleet = serving(1)
        fleet.died(1)
        fleet.joined(2)
        for _ in range(6):
            [again] = fleet.event(2, TORN)
            assert fleet.load_again(2, A) == [Send(2, LOAD)]
            assert isinstance(again, LoadAgain)
        assert fleet.event(2, TORN) == [Report(Crashed(A, TORN.error))]
        assert fleet.command(Quiesce(A)) == [Report(Drained(A)), Open(2)]
        assert fleet.command(StartUnload(A)) == [Send(2, Discard(A)), Report(Unloaded(A))]

    def test_what_cannot_be_retried_is_given_up_at_once(self):
        fleet = serving(1)
        fleet.died(1)
        fleet.joined(2)
        error = DataLoss("not installed")
        fatal = LoadFailed(A, error, retriable=False)
        assert fleet.event(2, fatal) == [Report(Crashed(A, error))]

    def test_several_successors_give_up_once(self):
        fleet = serving(1, 2)
        fleet.died(1)
        fleet.died(2)
        fleet.joined(3)
        fleet.joined(4)
        fatal = LoadFailed(A, DataLoss("x"), retriable=False)
        assert len(fleet.event(3, fatal)) == 1
        assert fleet.event(4, fatal) == []


class TestUnloading:
    def test_quiesce_and_unload_are_reported_once(self):
        fleet = serving(1, 2)
        assert fleet.command(Quiesce(A)) == [Send(1, Quiesce(A)), Send(2, Quiesce(A))]
        assert fleet.event(1, Drained(A)) == []
        assert fleet.event(2, Drained(A)) == [Report(Drained(A))]
        assert fleet.command(StartUnload(A)) == [Send(1, StartUnload(A)), Send(2, StartUnload(A))]
        assert fleet.event(2, Unloaded(A)) == []
        assert fleet.event(1, Unloaded(A)) == [Report(Unloaded(A))]
        assert not fleet.versions

    def test_a_worker_that_has_yet_to_publish_is_waited_for(self):
        fleet = loaded(1)
        fleet.command(Publish(A))
        assert fleet.command(Quiesce(A)) == []
        assert fleet.published(1, A) == [Send(1, Quiesce(A))]

    def test_a_load_of_a_joining_worker_is_cancelled(self):
        fleet = serving(1)
        fleet.joined(2)
        fleet.command(Quiesce(A))
        assert fleet.event(1, Drained(A)) == [Report(Drained(A))]
        assert Send(2, CancelLoad(A)) in fleet.command(StartUnload(A))
        assert fleet.event(1, Unloaded(A)) == []
        assert fleet.event(2, TORN) == [Send(2, Discard(A)), Report(Unloaded(A))]

    def test_without_any_worker_all_is_unloaded(self):
        fleet = serving(1)
        fleet.died(1)
        assert fleet.command(Quiesce(A)) == [Report(Drained(A))]
        assert fleet.command(StartUnload(A)) == [Report(Unloaded(A))]


class TestEstimates:
    ASK = StartEstimate(A, DATA)
    FOOTPRINT = Footprint(3, 4, 5)

    def test_one_worker_estimates_for_all(self):
        fleet = fleet_of(1, 2)
        assert fleet.command(self.ASK) == [Send(1, self.ASK)]
        [report] = fleet.event(1, Estimated(A, Estimate(steady=self.FOOTPRINT), {}))
        assert report.event.estimate.steady == Footprint(6, 8, 10)

    def test_growth_is_not_multiplied(self):
        """Workers optimise one after the other."""
        fleet = fleet_of(1, 2)
        fleet.command(self.ASK)
        [report] = fleet.event(1, Estimated(A, Estimate(growth=self.FOOTPRINT), {}))
        assert report.event.estimate.growth == self.FOOTPRINT

    def test_another_worker_estimates_if_the_first_dies(self):
        fleet = fleet_of(1, 2)
        fleet.command(self.ASK)
        assert fleet.died(1) == [Send(2, self.ASK)]

    def test_without_a_worker_it_waits(self):
        fleet = FleetState(1)
        assert fleet.command(self.ASK) == []
        assert fleet.joined(1) == [Send(1, self.ASK), Open(1)]

    @pytest.mark.parametrize("end", [TORN, LoadOverdue(A, 5.0)])
    def test_a_failure_is_reported(self, end):
        fleet = fleet_of(1)
        fleet.command(self.ASK)
        assert fleet.event(1, end) == [Report(end)]
        assert fleet.died(1) == []

    def test_a_cancelled_one_ends_with_its_worker(self):
        fleet = fleet_of(1, 2)
        fleet.command(self.ASK)
        assert fleet.command(CancelLoad(A)) == [Send(1, CancelLoad(A))]
        [report] = fleet.died(1)
        assert isinstance(report.event, LoadFailed)

    def test_one_that_nobody_has_begun_is_cancelled_at_once(self):
        fleet = FleetState(1)
        fleet.command(self.ASK)
        [report] = fleet.command(CancelLoad(A))
        assert isinstance(report.event, LoadFailed)
        assert fleet.joined(1) == [Open(1)]

    def test_one_that_has_ended_cannot_be_cancelled_any_more(self):
        fleet = fleet_of(1)
        fleet.command(self.ASK)
        fleet.event(1, TORN)
        assert fleet.command(CancelLoad(A)) == []

    def test_it_is_discarded_everywhere(self):
        fleet = fleet_of(1, 2)
        fleet.command(self.ASK)
        fleet.event(1, TORN)
        assert fleet.command(Discard(A)) == [Send(1, Discard(A)), Send(2, Discard(A))]


class TestGrowthAndReplicas:
    def test_growth_is_over_when_it_is_in_all_workers(self):
        fleet = serving(1, 2)
        assert fleet.event(1, Grown(A, True)) == []
        assert fleet.event(2, Grown(A, True)) == [Report(Grown(A, True))]

    def test_it_has_grown_if_it_has_in_all(self):
        fleet = serving(1, 2)
        fleet.event(1, Grown(A, False))
        assert fleet.event(2, Grown(A, True)) == [Report(Grown(A, False))]

    def test_growth_is_not_over_before_the_others_have_loaded(self):
        fleet = fleet_of(1, 2)
        fleet.command(LOAD)
        fleet.event(1, LoadSucceeded(A))
        assert fleet.event(1, Grown(A, True)) == []
        fleet.event(2, LoadSucceeded(A))
        assert fleet.event(2, Grown(A, True)) == [Report(Grown(A, True))]

    def test_growth_in_a_successor_is_not_reported_again(self):
        fleet = serving(1)
        fleet.event(1, Grown(A, True))
        fleet.joined(2)
        fleet.event(2, LoadSucceeded(A))
        assert fleet.event(2, Grown(A, True)) == []

    def test_a_dead_workers_growth_is_not_waited_for(self):
        fleet = serving(1, 2)
        fleet.event(1, Grown(A, True))
        assert fleet.died(2) == [Report(Grown(A, True))]

    def test_each_worker_is_told_once_that_a_version_may_grow(self):
        small = StartLoad(A, DATA, Placement(may_grow=False))
        fleet = serving(1, command=small)
        fleet.joined(2)
        assert fleet.command(LetGrow(A)) == [Send(1, LetGrow(A))]
        assert fleet.event(2, LoadSucceeded(A)) == [Send(2, LetGrow(A)), Send(2, Publish(A))]
        assert fleet.joined(3) == [Send(3, LOAD)], "it may grow from its start"
        assert fleet.event(3, LoadSucceeded(A)) == [Send(3, Publish(A))]

    def test_a_move_is_over_when_it_is_in_all_workers(self):
        fleet = serving(1, 2)
        move = Relocate(A, GPU, OTHER_GPU)
        assert fleet.command(move) == [Send(1, move), Send(2, move)]
        moved = Relocated(A, (OTHER_GPU,))
        assert fleet.event(2, moved) == []
        assert fleet.event(1, moved) == [Report(moved)]

    def test_a_dead_workers_move_is_not_waited_for(self):
        fleet = serving(1, 2)
        fleet.command(Relocate(A, GPU, OTHER_GPU))
        moved = Relocated(A, (OTHER_GPU,))
        fleet.event(1, moved)
        assert fleet.died(2) == [Report(moved)]

    def test_several_moves_are_each_reported(self):
        fleet = serving(1, 2)
        fleet.command(Relocate(A, GPU, OTHER_GPU))
        fleet.command(Relocate(A, OTHER_GPU, None))
        moved = Relocated(A, (OTHER_GPU,))
        assert fleet.event(1, moved) == fleet.event(1, moved) == []
        assert fleet.died(2) == [Report(moved), Report(moved)]

    def test_a_successors_move_is_not_waited_for(self):
        fleet = serving(1)
        fleet.command(Relocate(A, GPU, OTHER_GPU))
        fleet.joined(2)
        fleet.event(2, LoadSucceeded(A))
        moved = Relocated(A, (OTHER_GPU,))
        assert fleet.event(1, moved) == [Report(moved)]

    def test_where_no_worker_is_nothing_is_moved(self):
        fleet = serving(1)
        fleet.died(1)
        assert fleet.command(Relocate(A, GPU, None)) == [Report(Relocated(A, ()))]

    def test_a_failed_replica_is_reported(self):
        fleet = serving(1)
        assert fleet.event(1, ReplicaFailed(A, GPU)) == [Report(ReplicaFailed(A, GPU))]


class TestQuarantine:
    def test_a_load_that_workers_die_of_fails_for_good(self):
        fleet = fleet_of(1)
        fleet.command(LOAD)
        fleet.died(1)
        assert fleet.quarantine(A, QUARANTINED) == [
            Report(LoadFailed(A, QUARANTINED, retriable=False))
        ]
        assert fleet.joined(2) == [Open(2)]

    def test_others_that_load_it_are_told_to_end(self):
        fleet = fleet_of(1, 2)
        fleet.command(LOAD)
        fleet.event(1, LoadSucceeded(A))
        assert fleet.quarantine(A, QUARANTINED) == [
            Send(1, StartUnload(A)),
            Send(2, CancelLoad(A)),
        ]

    def test_one_that_serves_is_taken_away_by_the_manager(self):
        fleet = serving(1)
        assert fleet.quarantine(A, QUARANTINED) == [Report(Crashed(A, QUARANTINED))]
        assert fleet.quarantine(A, QUARANTINED) == []

    def test_no_successor_loads_it_meanwhile(self):
        fleet = serving(1, 2)
        fleet.died(1)
        fleet.quarantine(A, QUARANTINED)
        assert fleet.joined(3) == []
        assert fleet.command(Quiesce(A)) == [Send(2, Quiesce(A)), Open(3)]

    def test_one_whose_load_was_reported_is_taken_away_by_the_manager(self):
        """The manager publishes it, and then learns that it may not serve."""
        fleet = loaded(1)
        assert fleet.quarantine(A, QUARANTINED) == [Report(Crashed(A, QUARANTINED))]
        fleet.command(Publish(A))
        assert fleet.command(Quiesce(A)) == [Report(Drained(A))]

    def test_one_that_is_gone_is_nobodys(self):
        assert fleet_of(1).quarantine(A, QUARANTINED) == []

    def test_one_that_leaves_anyway_leaves(self):
        fleet = serving(1)
        fleet.command(Quiesce(A))
        assert fleet.quarantine(A, QUARANTINED) == []


def test_a_discarded_version_keeps_no_worker_from_opening():
    fleet = fleet_of(1)
    fleet.command(LOAD)
    fleet.died(1)
    fleet.joined(2)
    fleet.event(2, TORN)
    assert fleet.members[2].phase is Phase.SERVING


def test_what_a_worker_is_loading_is_known():
    fleet = fleet_of(1)
    fleet.command(LOAD)
    assert fleet.loading(1) == [A]
    assert fleet.loading(2) == []
