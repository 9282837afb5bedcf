"""The metrics of several processes become those of one server."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from servingd.core.lifecycle.harness import LoadPlan, PlannedVersion
from servingd.core.lifecycle.states import HarnessState, PublicState, ServableState
from servingd.core.resources.placement import ObservedDevices, ReplicaReport
from servingd.core.types import CPU_0, NO_BYTES, Device, Placement, Resources, ServableId
from servingd.errors import Code
from servingd.observability.merge import GAUGES, exact, merge
from servingd.observability.metrics import Metrics
from servingd.observability.snapshots import (
    FamilySnapshot,
    HistogramSnapshot,
    MetricsSnapshot,
    decode,
    encode,
    page,
    serving_page,
    serving_values,
)

M1 = ServableId("m", 1)
GPU = Device("GPU", 0)
COUNT, STATES = "/tensorflow/serving/request_count", "servingd_model_state"

seconds = st.floats(0, 1e4) | st.floats(1e-9, 1e-3)
names = st.sampled_from(["m", "n", 'a"b\\c\nd', "é"])
calls = st.lists(
    st.tuples(
        names,
        st.integers(0, 3),
        st.sampled_from(["Predict", "predict", "Classify"]),
        st.sampled_from([Code.OK, Code.NOT_FOUND]),
        seconds,
    ),
    max_size=20,
)


def metrics_of(recorded):
    metrics = Metrics()
    for model, version, method, code, taken in recorded:
        metrics.requests.record(model, version, "s", method, code, taken)
        metrics.requests.runtime_cell(model, "Predict").add(taken)
        metrics.requests.count_examples(model, version)
        metrics.on_load(ServableId(model, version), taken, succeeded=code is Code.OK)
        metrics.counts.attempted(f"/{model}/{version}", taken, succeeded=True)
        metrics.on_state(ServableState(ServableId(model, version), PublicState.AVAILABLE))
    return metrics


def full():
    """Metrics with a series of every kind."""
    metrics = metrics_of([("m", 1, "Predict", Code.OK, 0.02)])
    queue = metrics.batches.open(M1, "s", configured=True)
    queue.dispatched["full"] += 1
    queue.refused["RESOURCE_EXHAUSTED"] += 2
    queue.waiting_rows = 3
    queue.rows.add(4)
    queue.padding[8] = queue.rows.copy()
    metrics.counts.warmed_up(M1, "/models/\udcff/1", 0.5, 3)
    metrics.counts.logged("m", Code.OK)
    metrics.self_warm_up.kept = lambda: {"m": (2, 100)}
    metrics.self_warm_up.warmed(M1, {"OK": 2})
    metrics.steps.ended(M1, "step", 0.5, None)
    metrics.on_graph_state(M1, "optimised")
    metrics.on_incomplete("m", {2: "half a file"})
    moved = ObservedDevices(devices={}, moved={"CPU:0": {"Unique": 2}})
    metrics.placements.report(M1, [ReplicaReport(GPU, "serving", "plain", 1, moved)])
    metrics.placements.watch(lambda: plan_of(64, 5), OneGpu())
    return metrics


def plan_of(limit, held):
    bytes_held = Resources(held, {GPU: held})
    version = PlannedVersion(
        id=M1,
        state=HarnessState.READY,
        step=None,
        placement=Placement((GPU,)),
        holds=bytes_held,
        growth=NO_BYTES,
        measured=True,
        note="",
    )
    return LoadPlan(limits=Resources(limit, {GPU: limit}), versions=(version,))


class OneGpu:
    known = ()

    def in_use(self):
        return {GPU: 7}


def samples(text):
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def values(snapshot):
    """Every value of a snapshot, by name and labels."""
    return {
        (family.raw_name, labels): value
        for family in (*snapshot.own, *snapshot.registered, *snapshot.serving)
        for labels, value in family.rows
    }


def merged_pages(*all_metrics):
    return samples(page(merge([metrics.snapshot() for metrics in all_metrics])))


def of_one(family):
    return MetricsSnapshot(own=(family,))


# One process --------------------------------------------------------------------------------------


@given(calls)
def test_a_snapshot_gives_the_page_of_its_process(recorded):
    metrics = metrics_of(recorded)
    sent = decode(encode(metrics.snapshot()))
    assert page(sent) == metrics.page()
    assert serving_page(sent) == metrics.serving_page()
    assert samples(page(merge([sent]))) == samples(metrics.page())
    assert serving_values(sent, [COUNT, "none"]) == metrics.serving_values([COUNT, "none"])


def test_every_kind_of_series_is_sent():
    metrics = full()
    sent = decode(encode(metrics.snapshot()))
    assert page(sent) == metrics.page()
    names_with_rows = {family.raw_name for family in sent.registered if family.rows}
    assert len(names_with_rows) == len(sent.registered), "the example has a series of each"


def test_what_is_no_snapshot_is_refused():
    with pytest.raises(ValueError, match="truncated"):
        decode(encode(full().snapshot())[:-3])


# Several ------------------------------------------------------------------------------------------


def test_counters_and_histograms_are_added():
    parts = [full(), full(), metrics_of([("n", 1, "Predict", Code.OK, 1.0)])]
    found = merged_pages(*parts)
    called = (("code", "OK"), ("method", "Predict"), ("model", "m"))
    ours = (*called, ("protocol", "grpc"), ("signature", "s"))
    assert found["servingd_requests_total", (*ours, ("version", "1"))] == 2
    assert found["servingd_request_seconds_sum", (*ours, ("version", "1"))] == 0.04
    assert found["servingd_request_seconds_count", (*ours, ("version", "1"))] == 2
    warmed = (("model", "m"), ("outcome", "OK"), ("version", "1"))
    assert found["servingd_self_warm_up_requests_total", warmed] == 4
    theirs = values(merge([metrics.snapshot() for metrics in parts]))
    assert theirs[COUNT, (("model_name", "n"), ("status", "OK"))] == 1
    assert theirs[COUNT, (("model_name", "m"), ("status", "OK"))] == 2
    assert serving_values(merge([full().snapshot()] * 3), [COUNT]) == {COUNT: 3}


def test_what_becomes_of_gauges():
    one, other = full(), full()
    other.on_state(ServableState(M1, PublicState.END, error=None))
    one.on_state(ServableState(M1, PublicState.UNLOADING))
    other.on_state(ServableState(ServableId("m", 3), PublicState.LOADING))
    other.on_graph_state(M1, "declined")
    other.placements.plan = LoadPlan
    other.reloads.ended(False)
    found = merged_pages(one, other)
    version = (("model", "m"), ("version", "1"))
    place = (("device", "GPU:0"), *version)
    assert found["servingd_queue_rows", (version[0], ("signature", "s"), version[1])] == 6
    assert found["servingd_kept_requests", version[:1]] == 4
    assert found["servingd_kept_request_bytes", version[:1]] == 200
    assert found["servingd_replicas", (*place[:2], ("state", "serving"), place[2])] == 2
    assert found["servingd_device_bytes", (("device", "RAM"), ("kind", "limit"))] == 64
    assert found["servingd_device_bytes", (("device", "RAM"), ("kind", "held"))] == 5
    assert found["servingd_device_bytes", (("device", "GPU:0"), ("kind", "in_use"))] == 14
    assert found[STATES, version] == PublicState.UNLOADING
    assert found[STATES, (version[0], ("version", "3"))] == PublicState.LOADING
    for state in ("optimised", "declined"):
        assert found["servingd_model_graph", (version[0], ("state", state), version[1])] == 1
    moved = (*place[:2], ("operation", "Unique"), ("runs_on", "CPU:0"), place[2])
    assert found["servingd_moved_operations", moved] == 2
    assert found["servingd_config_last_reload_successful", ()] == 0


def test_every_gauge_has_its_rule():
    metrics = full()
    metrics.show_process()
    snapshot = metrics.snapshot()
    families = (*snapshot.own, *snapshot.registered, *snapshot.serving)
    gauges = {
        (family.raw_name, dict(labels).get("kind", ""))
        for family in families
        if family.kind == "gauge"
        for labels, _ in family.rows
    }
    assert gauges == GAUGES.keys()


@given(st.lists(calls, min_size=3, max_size=3))
def test_the_order_in_which_snapshots_are_merged_makes_no_difference(recorded):
    parts = [metrics_of(each).snapshot() for each in recorded]
    one, two, three = parts
    together = page(merge(parts))
    assert page(merge([merge([one, two]), three])) == together
    assert page(merge([one, merge([two, three])])) == together
    for order in itertools.permutations(parts):
        assert page(merge(order)) == together


@given(st.lists(calls, min_size=1, max_size=4))
def test_a_merged_histogram_counts_what_each_has_counted(recorded):
    parts = [values(metrics_of(each).snapshot()) for each in recorded]
    found = values(merge([metrics_of(each).snapshot() for each in recorded]))
    for key, value in found.items():
        if isinstance(value, HistogramSnapshot):
            counts = [part[key].count for part in parts if key in part]
            assert value.count == sum(counts) == sum(value.buckets)


@given(st.lists(st.floats(0, 1e30), max_size=30))
@example([2.0, 4503599627370495.5, 0.5])  # what rounding leaves is -0.5: as large as the last
def test_sums_are_exact(terms):
    parts = exact(terms)
    assert sum(map(Fraction, parts)) == sum(map(Fraction, terms))
    assert math.fsum(parts) == math.fsum(terms)


@given(st.lists(st.floats(0, 1e6), min_size=3, max_size=3))
@example([0.1, 0.2, 0.3])  # (0.1 + 0.2) + 0.3 > 0.1 + (0.2 + 0.3)
def test_a_sum_does_not_fall_by_a_digit_when_parts_are_merged_before(terms):
    def of(term):
        row = ((), HistogramSnapshot((1,), 1, (term,)))
        return of_one(FamilySnapshot("f", "histogram", (row,)))

    one, two, three = map(of, terms)
    ways = [merge([one, two, three]), merge([merge([one, two]), three])]
    ways += [merge([one, merge([two, three])]), merge([merge([three, one]), two])]
    (total,) = {value.total for way in ways for value in values(way).values()}
    assert total == math.fsum(terms)


def test_of_different_edges_the_common_ones_stay():
    row = (("model", "m"),)
    fine = FamilySnapshot(
        "f",
        "histogram",
        ((row, HistogramSnapshot((1, 2, 4, 8), 15, (1.5,))),),
        edges=(1.0, 2.0, 3.0),
    )
    coarse = FamilySnapshot(
        "f", "histogram", ((row, HistogramSnapshot((10, 20), 30, (2.0,))),), edges=(2.0,)
    )
    empty = FamilySnapshot("f", "histogram", (), edges=())
    for order in itertools.permutations([of_one(f) for f in (fine, coarse, empty)]):
        (merged,) = merge(order).own
        assert merged.edges == (2.0,)
        assert merged.rows == ((row, HistogramSnapshot((13, 32), 45, (3.5,))),)


def test_a_device_that_only_one_process_has_stays():
    alone = Metrics()
    alone.placements.report(M1, [ReplicaReport(CPU_0, "serving", "plain", 1)])
    labels = (("device", "CPU:0"), ("model", "m"), ("state", "serving"), ("version", "1"))
    assert merged_pages(alone, Metrics())["servingd_replicas", labels] == 1
