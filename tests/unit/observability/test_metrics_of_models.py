"""Models come and go: so do their series."""

import pytest

from servingd.core.lifecycle.states import PublicState, ServableState
from servingd.core.types import ServableId
from servingd.errors import Code, DataLoss
from servingd.observability.metrics import Metrics

M1 = ServableId("m", 1)


@pytest.fixture
def metrics():
    metrics = Metrics()
    metrics.configure(["m", "other"])
    say(metrics, M1, "AVAILABLE")
    say(metrics, ServableId("other", 1), "AVAILABLE")
    for name in ("m", "other"):
        metrics.requests.record(name, 1, "serving_default", "Predict", Code.OK, 0.001)
        metrics.requests.runtime_cell(name, "Predict").add(0.001)
        metrics.requests.count_examples(name, 3)
        metrics.requests.count_part(name)
        metrics.on_load(ServableId(name, 1), 1.0, True)
        metrics.counts.logged(name, Code.OK)
    return metrics


def say(metrics, servable, state, error=None):
    metrics.on_state(ServableState(servable, PublicState[state], error))


def lines_of(metrics, name):
    return [line for line in metrics.page().decode().splitlines() if f'"{name}"' in line]


def test_a_model_that_is_removed_leaves_no_series_once_it_has_ended(metrics):
    metrics.configure(["other"])
    assert lines_of(metrics, "m"), "it still serves"
    say(metrics, M1, "UNLOADING")
    say(metrics, M1, "END")
    assert lines_of(metrics, "m") == []
    assert lines_of(metrics, "other")


def test_one_that_failed_leaves_none_either(metrics):
    say(metrics, M1, "END", DataLoss("x"))
    metrics.on_incomplete("m", {2: "half a file"})
    assert lines_of(metrics, "m")
    metrics.configure(["other"])
    assert lines_of(metrics, "m") == []


def test_between_two_versions_nothing_is_forgotten(metrics):
    say(metrics, M1, "END")
    assert any("request_count" in line for line in lines_of(metrics, "m"))


def test_parts_are_counted_by_model(metrics):
    metrics.requests.count_part("m")
    page = metrics.page().decode().splitlines()
    assert 'servingd_stream_parts_total{model="m"} 2' in page
    assert 'servingd_stream_parts_total{model="other"} 1' in page
