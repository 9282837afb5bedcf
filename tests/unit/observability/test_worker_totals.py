"""Workers come and go; what they have counted stays."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from servingd.core.lifecycle.states import PublicState, ServableState
from servingd.core.types import ServableId
from servingd.errors import Code
from servingd.observability.metrics import Metrics
from servingd.observability.snapshots import HistogramSnapshot, MetricsSnapshot
from servingd.observability.worker_totals import WorkerTotals

COUNT = "/tensorflow/serving/request_count"


def worker(*models, version=1, calls=1):
    metrics = Metrics()
    for model in models:
        call(metrics, model, version, calls)
    return metrics


def call(metrics, model="m", version=1, calls=1, seconds=0.001):
    for _ in range(calls):
        metrics.requests.record(model, version, "s", "Predict", Code.OK, seconds)
    metrics.counts.attempted(f"/{model}/{version}", 1.0, succeeded=True)
    metrics.on_state(ServableState(ServableId(model, version), PublicState.AVAILABLE))


def counts(snapshot):
    """Every count of counters and histograms, and every sum, by name and labels."""
    found = {}
    for family in (*snapshot.own, *snapshot.registered, *snapshot.serving):
        for labels, value in family.rows:
            if isinstance(value, HistogramSnapshot):
                found[family.raw_name, labels] = value.count
                found[family.raw_name, "sum", labels] = value.total
            elif family.kind == "counter":
                found[family.raw_name, labels] = value
    return found


def calls_of(snapshot, model="m"):
    return counts(snapshot).get((COUNT, (("model_name", model), ("status", "OK"))), 0)


def rows_about(snapshot, text):
    return [
        labels
        for family in (*snapshot.own, *snapshot.registered, *snapshot.serving)
        for labels, _ in family.rows
        if any(value == text for _, value in labels)
    ]


def gauges(snapshot):
    families = (*snapshot.own, *snapshot.registered, *snapshot.serving)
    return {family.raw_name for family in families if family.kind == "gauge" and family.rows}


def test_without_workers_there_is_nothing():
    assert WorkerTotals().merged({}) == MetricsSnapshot()


def test_an_ended_worker_leaves_its_counts_and_no_gauges():
    totals = WorkerTotals()
    first = worker("m", calls=3)
    assert calls_of(totals.merged({1: first.snapshot()})) == 3
    call(first)
    totals.update(1, first.snapshot())
    totals.gone(1)
    assert calls_of(totals.merged({})) == 4
    assert gauges(totals.merged({})) == set()
    both = totals.merged({2: worker("m", calls=5).snapshot()})
    assert calls_of(both) == 9
    assert "servingd_model_state" in gauges(both)


def test_a_worker_that_does_not_answer_counts_as_it_did():
    totals = WorkerTotals()
    totals.update(1, worker("m").snapshot())
    assert calls_of(totals.merged({2: worker("m").snapshot()})) == 2
    assert calls_of(totals.merged({})) == 2


def test_an_answer_that_comes_after_the_end_is_not_counted_twice():
    totals = WorkerTotals()
    snapshot = worker("m").snapshot()
    totals.update(1, snapshot)
    totals.gone(1)
    totals.update(1, snapshot)
    assert calls_of(totals.merged({1: snapshot})) == 1


def test_a_worker_that_ends_before_its_first_answer_leaves_nothing():
    totals = WorkerTotals()
    totals.gone(1)
    assert totals.merged({}) == MetricsSnapshot()


def test_a_removed_model_leaves_no_series():
    totals = WorkerTotals()
    for key in (1, 2):
        totals.update(key, worker("m", "other").snapshot())
    totals.gone(1)
    totals.forget_model("m")
    totals.gone(2)  # before it has answered without it
    merged = totals.merged({})
    assert rows_about(merged, "m") == []
    assert calls_of(merged, "other") == 2


def test_of_old_versions_the_newest_five_stay_as_in_a_worker():
    totals = WorkerTotals()
    totals.update(0, worker("m", version=2).snapshot())  # lives on
    for number in range(1, 21):
        totals.update(number, worker("m", version=number).snapshot())
        totals.gone(number)
    merged = totals.merged({})
    seen = {dict(labels).get("version") for labels in rows_about(merged, "m")}
    assert seen - {None} == {"2", "15", "16", "17", "18", "19", "20"}  # 20 ended last
    assert calls_of(merged) == 21


def test_as_many_paths_stay_as_in_a_worker():
    totals = WorkerTotals()
    for key in (1, 2):
        metrics = Metrics()
        for number in range(600):
            metrics.counts.attempted(f"/{key}/{number}", 1.0, succeeded=True)
        totals.update(key, metrics.snapshot())
        totals.gone(key)
    family = next(f for f in totals.merged({}).serving if f.raw_name.endswith("attempt_count"))
    paths = [dict(labels)["model_path"] for labels, _ in family.rows]
    assert len(paths) == 1000
    assert sum(path.startswith("/2/") for path in paths) == 600


steps = st.lists(
    st.tuples(
        st.sampled_from(["call", "call", "update", "gone", "page"]),
        st.integers(0, 2),
        st.sampled_from(["m", "n"]),
        st.integers(1, 3),
        st.floats(1e-6, 100),
    ),
    max_size=40,
)


@given(steps)
def test_totals_never_go_back(taken):
    totals, workers = WorkerTotals(), [(n, Metrics()) for n in range(3)]
    next_key, before, expected = 3, {}, Counter()
    for what, slot, model, version, seconds in taken:
        key, metrics = workers[slot]
        if what == "call":
            call(metrics, model, version, seconds=seconds)
            expected[model] += 1
            continue
        if what == "update":
            totals.update(key, metrics.snapshot())
        elif what == "gone":
            totals.update(key, metrics.snapshot())
            totals.gone(key)
            workers[slot] = (next_key, Metrics())
            next_key += 1
        else:
            totals.merged({key: metrics.snapshot()})
        after = counts(totals.merged({}))
        assert all(after[series] >= value for series, value in before.items())
        before = after
    end = totals.merged({key: metrics.snapshot() for key, metrics in workers})
    assert {model: calls_of(end, model) for model in ("m", "n")} == {
        model: expected[model] for model in ("m", "n")
    }
