"""Metric families as text, read again by Prometheus's own parser."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from servingd.core.types import ServableId
from servingd.errors import Code
from servingd.observability.metrics import Metrics
from servingd.observability.requests import Histogram
from servingd.observability.text_format import Family, write


def samples(text):
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return found


@given(
    label=st.text(st.characters(exclude_categories=["Cs"])),
    taken=st.lists(st.floats(0, 1000), max_size=20),
)
def test_a_histogram_reads_as_what_was_recorded(label, taken):
    histogram = Histogram((0.5, 1.0, 10.0))
    for value in taken:
        histogram.add(value)
    page = samples(write([Family("f", "histogram", [((("a", label),), histogram.copy())])]))
    assert page["f_count", (("a", label),)] == len(taken)
    assert abs(page["f_sum", (("a", label),)] - sum(taken)) <= 1e-9 * max(1, sum(taken))
    for edge, text in ((0.5, "0.5"), (1.0, "1"), (10.0, "10")):
        below = sum(value < edge for value in taken)
        assert page["f_bucket", (("a", label), ("le", text))] == below
    assert page["f_bucket", (("a", label), ("le", "+Inf"))] == len(taken)


def test_our_own_families_keep_their_names_labels_and_help():
    metrics = Metrics()
    metrics.requests.record("m", 3, "s", "Predict", Code.OK, 0.02)
    metrics.on_load(ServableId("m", 3), 2.0, succeeded=True)
    queue = metrics.batches.open(ServableId("m", 3), "s")
    queue.dispatched["full"] += 1
    queue.refused["RESOURCE_EXHAUSTED"] += 2
    page = metrics.page().decode()
    found = samples(page)
    request = (
        ("code", "OK"),
        ("method", "Predict"),
        ("model", "m"),
        ("protocol", "grpc"),
        ("signature", "s"),
        ("version", "3"),
    )
    place = (("model", "m"), ("signature", "s"), ("version", "3"))
    load = (("model", "m"), ("outcome", "succeeded"))
    assert found["servingd_requests_total", request] == 1
    assert found["servingd_request_seconds_sum", request] == 0.02
    assert found["servingd_load_seconds_bucket", (("le", "3"), *load)] == 1
    assert found["servingd_load_seconds_bucket", (("le", "1"), *load)] == 0
    assert found["servingd_queue_rows", place] == 0
    assert found["servingd_dropped_calls_total", place] == 0
    assert found["servingd_batch_rows_count", place] == 0
    assert found["servingd_batches_total", (("model", "m"), ("reason", "full"), *place[1:])] == 1
    refused = (("model", "m"), ("reason", "resource_exhausted"), *place[1:])
    assert found["servingd_admission_refused_total", refused] == 2
    assert "# HELP servingd_requests_total Requests answered, by outcome." in page
    assert "# TYPE servingd_queue_seconds histogram" in page
