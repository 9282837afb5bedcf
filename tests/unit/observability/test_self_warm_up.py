"""What is told of kept requests, and of the sizes of batches that are in use."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from servingd.core.types import ServableId
from servingd.observability.batches import BatchMetrics
from servingd.observability.requests import Histogram
from servingd.observability.self_warm_up import SelfWarmUpMetrics

M1, M2 = ServableId("m", 1), ServableId("m", 2)


def shown(metrics: SelfWarmUpMetrics) -> dict[tuple[str, ...], float]:
    registry = CollectorRegistry()
    registry.register(metrics)
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
    }


def test_what_a_version_has_answered_is_shown_as_long_as_it_is_loaded() -> None:
    metrics = SelfWarmUpMetrics()
    metrics.warmed(M1, {"answered": 2, "failed": 1})
    metrics.warmed(M1, {"answered": 1})
    metrics.warmed(M2, {"skipped": 1})
    name = "servingd_self_warm_up_requests_total"
    assert shown(metrics) == {
        (name, "m", "1", "answered"): 3,
        (name, "m", "1", "failed"): 1,
        (name, "m", "2", "skipped"): 1,
    }
    metrics.forget(M1)
    assert shown(metrics) == {(name, "m", "2", "skipped"): 1}


def test_what_is_kept_is_shown_with_the_memory_it_takes() -> None:
    metrics = SelfWarmUpMetrics()
    metrics.kept = lambda: {"m": (3, 4096)}
    assert shown(metrics) == {
        ("servingd_kept_requests", "m"): 3,
        ("servingd_kept_request_bytes", "m"): 4096,
    }


def test_sizes_that_one_batch_in_a_hundred_has_are_in_use() -> None:
    batches = BatchMetrics()
    runner = batches.open(M1, "s")
    assert batches.rows_in_use("m") == {}  # nothing has been queued
    runner.dispatched["idle"] += 300
    for rows, times in ((1, 250), (5, 40), (64, 8), (1000, 2)):
        for _ in range(times):
            runner.rows.add(rows)
    assert batches.rows_in_use("m") == {"s": (1, 4, 64)}
    assert batches.rows_in_use("n") == {}
    batches.open(M2, "s").dispatched["idle"] += 1
    batches.runners()[1].rows.add(2)
    assert batches.rows_in_use("m") == {"s": (1, 2, 4, 64)}


def test_sizes_that_batches_are_filled_up_to_are_exact() -> None:
    runner = (batches := BatchMetrics()).open(M1, "s", configured=True)
    runner.dispatched["full"] += 1
    runner.rows.add(5)
    runner.padding[12] = Histogram()
    assert batches.rows_in_use("m") == {"s": (12,)}
