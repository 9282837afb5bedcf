"""TensorFlow Serving's metric families, with its names, labels, buckets and spelling.

Those of batches are in `batch_families.py`.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field

from servingd.core.types import ServableId
from servingd.errors import Code
from servingd.observability.requests import OIP, Histogram, RequestMetrics, add_up
from servingd.observability.text_format import Family, Labels, Rows

_GRPC_METHODS = ("Predict", "Classify", "Regress")
_REST_METHODS = ("predict", "classify", "regress")
_US = 1e6
MAX_PATHS = 1000
"""The number of paths whose load attempts are counted: those loaded last."""


@dataclass(slots=True)
class _Attempts:
    by_status: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


class ServingCounts:
    """Counts of warm-ups, load attempts and logged requests. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._warm_up: dict[ServableId, tuple[str, Histogram, int]] = {}  # guarded by _lock
        self._logged: dict[tuple[str, str], int] = {}  # guarded by _lock
        self._attempts: dict[str, _Attempts] = {}  # by path; guarded by _lock

    def warmed_up(self, servable_id: ServableId, path: str, seconds: float, records: int) -> None:
        """Record that a version has run the records of its warm-up file, in so many seconds."""
        histogram = Histogram()
        histogram.add(seconds)
        with self._lock:
            self._warm_up[servable_id] = (path, histogram, records)

    def attempted(self, path: str, seconds: float, succeeded: bool) -> None:
        """Record an attempt to load a SavedModel."""
        with self._lock:
            found = self._attempts.pop(path, None) or _Attempts()
            self._attempts[path] = found  # moved to the end: the oldest is removed first
            found.seconds += seconds
            found.by_status["success" if succeeded else "fail"] += 1
            if len(self._attempts) > MAX_PATHS:
                del self._attempts[next(iter(self._attempts))]

    def attempts(self) -> tuple[list[tuple[Labels, int]], list[tuple[Labels, int]]]:
        """Return the attempts per path and status, and the microseconds per path."""
        with self._lock:
            found = [
                (path, dict(of.by_status), of.seconds)
                for path, of in sorted(self._attempts.items())
            ]
        counts: list[tuple[Labels, int]] = [
            ((("model_path", path), ("status", status)), n)
            for path, by_status, _ in found
            for status, n in sorted(by_status.items())
        ]
        return counts, [((("model_path", path),), round(s * _US)) for path, _, s in found]

    def logged(self, model: str, code: Code) -> None:
        """Record that a request was written to the request log (OK), or why it was not."""
        with self._lock:
            key = (model, code.name)
            self._logged[key] = self._logged.get(key, 0) + 1

    def forget(self, servable_id: ServableId) -> None:
        """Remove the series of an unloaded version."""
        with self._lock:
            self._warm_up.pop(servable_id, None)

    def forget_model(self, model: str) -> None:
        """Remove the series of a model that is not served any more."""
        with self._lock:
            for key in [key for key in self._logged if key[0] == model]:
                del self._logged[key]

    def warm_up(self) -> list[tuple[Labels, Histogram, int]]:
        """Return labels, time, and number of records of each warm-up."""
        with self._lock:
            found = sorted(self._warm_up.values(), key=lambda entry: entry[0])
        return [
            ((("model_path", path), ("status", "OK")), histogram.copy(), records)
            for path, histogram, records in found
        ]

    def logs(self) -> list[tuple[Labels, int]]:
        """Return the requests logged, per model and outcome."""
        with self._lock:
            found = sorted(self._logged.items())
        return [((("model_name", m), ("status_code", code)), n) for (m, code), n in found]


def families(requests: RequestMetrics, counts: ServingCounts) -> list[Family]:
    """Return the families of requests, loads and logs."""
    request_counts, latencies = _requests(requests)
    examples = [((("model", model),), histogram) for model, histogram in requests.examples()]
    warm_up = counts.warm_up()
    runtimes: list[tuple[Labels, int | Histogram]] = [
        ((("model_name", model), ("API", api), ("runtime", "TF1")), histogram)
        for (model, api), histogram in requests.runtimes()
    ]
    attempts, load_times = counts.attempts()
    return [
        Family("/tensorflow/cc/saved_model/load_attempt_count", "counter", attempts),
        Family("/tensorflow/cc/saved_model/load_latency", "counter", load_times),
        _family("request_count", "counter", request_counts),
        _family("request_latency", "histogram", latencies, _US),
        _family("runtime_latency", "histogram", runtimes, _US),
        _family("request_example_counts", "histogram", examples),
        _family(
            "request_example_count_total",
            "counter",
            [(labels, int(histogram.total)) for labels, histogram in examples],
        ),
        _family("request_log_count", "counter", counts.logs()),
        _family("model_warmup_latency", "histogram", [(ls, c) for ls, c, _ in warm_up], _US),
        _family("model_warmup_records_read", "counter", [(ls, n) for ls, _, n in warm_up]),
    ]


def _family(name: str, kind: str, rows: Rows, unit: float = 1.0) -> Family:
    return Family(f"/tensorflow/serving/{name}", kind, rows, unit)


def _requests(
    requests: RequestMetrics,
) -> tuple[list[tuple[Labels, int | Histogram]], list[tuple[Labels, int | Histogram]]]:
    """Return counts by model and status, and times of successful calls.

    Of gRPC only Predict, Classify and Regress count; of REST all calls do.
    """
    counts: dict[tuple[str, str], int] = {}
    latencies: dict[Labels, Histogram] = {}
    for (model, method, code), histogram in requests.totals().items():
        if method not in _GRPC_METHODS and (method != method.lower() or method.startswith(OIP)):
            continue
        counts[model, code.name] = counts.get((model, code.name), 0) + histogram.count
        if code is Code.OK:
            grpc = method in _GRPC_METHODS
            api = method if grpc or method in _REST_METHODS else ""
            entry = "GRPC" if grpc else "REST"
            labels = (("model_name", model), ("API", api), ("entrypoint", entry))
            add_up(latencies, labels, histogram)
    rows: list[tuple[Labels, int | Histogram]] = [
        ((("model_name", model), ("status", status)), n)
        for (model, status), n in sorted(counts.items())
    ]
    return rows, sorted(latencies.items(), key=lambda row: row[0])
