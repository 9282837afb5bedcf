"""TensorFlow Serving's metrics page: names, labels, buckets, spelling."""

from __future__ import annotations

from servingd.core.types import ServableId
from servingd.errors import Code
from servingd.observability.metrics import Metrics
from servingd.observability.requests import EXAMPLE_EDGES, Histogram

M1 = ServableId("m", 1)


def lines(metrics: Metrics) -> list[str]:
    return metrics.serving_page().decode().splitlines()


def test_a_page():
    metrics = Metrics()
    for method in ("Predict", "Classify", "predict", "status"):
        metrics.requests.record("m", 1, "s", method, Code.OK, 20e-6)
    metrics.requests.record("m", 1, "s", "predict", Code.NOT_FOUND, 1.0)
    metrics.requests.record("m", 1, "", "GetModelStatus", Code.OK, 1.0)
    metrics.requests.record("m", 1, "", "MultiInference", Code.OK, 1.0)
    metrics.requests.runtime_cell("m", "Predict").add(1.0)
    page = lines(metrics)
    name = ":tensorflow:serving:request_count"
    assert f"# TYPE {name} counter" in page
    assert f'{name}{{model_name="m",status="OK"}} 4' in page
    assert f'{name}{{model_name="m",status="NOT_FOUND"}} 1' in page
    latency = ":tensorflow:serving:request_latency"
    for labels in (
        'API="Predict",entrypoint="GRPC"',
        'API="Classify",entrypoint="GRPC"',
        'API="predict",entrypoint="REST"',
        'API="",entrypoint="REST"',
    ):
        series = f'model_name="m",{labels}'
        assert f'{latency}_bucket{{{series},le="18"}} 0' in page
        assert f'{latency}_bucket{{{series},le="32.4"}} 1' in page
        assert f'{latency}_bucket{{{series},le="1.27482e+06"}} 1' in page
        assert f'{latency}_bucket{{{series},le="+Inf"}} 1' in page
        assert f"{latency}_sum{{{series}}} 20" in page
    assert not any("GetModelStatus" in line or "MultiInference" in line for line in page)
    runtime = (
        ':tensorflow:serving:runtime_latency_count{model_name="m",API="Predict",runtime="TF1"}'
    )
    assert f"{runtime} 1" in page
    types = [line.split()[2] for line in page if line.startswith("# TYPE")]
    assert types == sorted(types)


def test_a_sample_on_an_edge_lies_above_it():
    histogram = Histogram(EXAMPLE_EDGES)
    histogram.add(2)
    assert histogram.copy().buckets[:3] == [0, 0, 1]


def test_what_labels_may_hold_is_escaped():
    metrics = Metrics()
    metrics.requests.record('a"b\\c\nd', 1, "s", "Predict", Code.OK, 1.0)
    assert any('model_name="a\\"b\\\\c\\nd"' in line for line in lines(metrics))


def test_families_without_series_are_named_all_the_same():
    page = lines(Metrics())
    assert all(
        line.startswith(("# TYPE :tensorflow:serving:", "# TYPE :tensorflow:cc:")) for line in page
    )
    assert len(page) == 15


def test_what_else_is_counted():
    metrics = Metrics()
    metrics.counts.warmed_up(M1, "/models/m/1", 0.5, 3)
    metrics.counts.logged("m", Code.OK)
    metrics.requests.count_examples("m", 3)
    page = "\n".join(lines(metrics))
    records = (
        ':tensorflow:serving:model_warmup_records_read{model_path="/models/m/1",status="OK"} 3'
    )
    assert records in page
    assert ':tensorflow:serving:request_log_count{model_name="m",status_code="OK"} 1' in page
    assert ':tensorflow:serving:request_example_count_total{model="m"} 3' in page
    assert ':tensorflow:serving:request_example_counts_bucket{model="m",le="4"} 1' in page
    metrics.counts.forget(M1)
    assert "model_path" not in "\n".join(lines(metrics))


def test_batches_are_counted_there_only_where_they_were_asked_for():
    metrics = Metrics()
    for servable, configured in ((M1, True), (ServableId("n", 1), False)):
        runner = metrics.batches.open(servable, "s", configured)
        runner.dispatched["full"] += 1
        runner.rows.add(4)
        runner.queue_s.add(0.001)
    page = "\n".join(lines(metrics))
    assert ":tensorflow:serving:batching_session:wrapped_run_count{} 1" in page
    assert ':tensorflow:serving:batching_session:processed_batch_size_bucket{le="8"} 1' in page
    queueing = ":tensorflow:serving:batching_session:queuing_latency_bucket"
    assert f'{queueing}{{thread_pool_name="",le="1.09205e+06"}} 1' in page
    ours = metrics.page().decode()
    assert 'servingd_batches_total{model="n",reason="full",signature="s",version="1"} 1' in ours
    metrics.batches.close(M1)
    assert "wrapped_run_count{}" not in "\n".join(lines(metrics))


def test_metric_values_by_raw_names():
    metrics = Metrics()
    metrics.requests.record("m", 1, "s", "Predict", Code.OK, 1.0)
    names = ["/tensorflow/serving/request_count", "/tensorflow/serving/request_latency", "/none"]
    assert metrics.serving_values(names) == {names[0]: 1, names[1]: 0, names[2]: 0}


def test_each_attempt_to_load_is_counted_by_path_and_outcome():
    metrics = Metrics()
    metrics.counts.attempted("/m/1", 0.5, False)
    metrics.counts.attempted("/m/1", 0.25, False)
    metrics.counts.attempted("/m/1", 1.0, True)
    metrics.counts.attempted('/a "b\\c\udcff/2', 1.0, True)
    page = lines(metrics)
    name = ":tensorflow:cc:saved_model:load_attempt_count"
    assert f"# TYPE {name} counter" in page
    assert f'{name}{{model_path="/m/1",status="fail"}} 2' in page
    assert f'{name}{{model_path="/m/1",status="success"}} 1' in page
    assert f'{name}{{model_path="/a \\"b\\\\c?/2",status="success"}} 1' in page
    assert ':tensorflow:cc:saved_model:load_latency{model_path="/m/1"} 1750000' in page


def test_attempts_are_counted_for_the_last_paths_alone():
    metrics = Metrics()
    for number in range(1100):
        metrics.counts.attempted(f"/m/{number}", 0.0, True)
    metrics.counts.attempted("/m/100", 0.0, True)
    counted = [line for line in lines(metrics) if "load_attempt_count{" in line]
    assert len(counted) == 1000
    assert any('"/m/100"' in line for line in counted)
