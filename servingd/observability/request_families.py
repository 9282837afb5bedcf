"""servingd's own families of requests and loads."""

from __future__ import annotations

import threading

from servingd.core.types import ServableId
from servingd.observability.requests import OIP, Histogram, RequestMetrics, protocol_of
from servingd.observability.text_format import Family, Labels, Rows

_LOAD_EDGES_S = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


class LoadTimes:
    """The times of load attempts, by model and outcome. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times: dict[tuple[str, str], Histogram] = {}  # guarded by _lock

    def record(self, servable_id: ServableId, seconds: float, succeeded: bool) -> None:
        """Record one load attempt."""
        key = (servable_id.name, "succeeded" if succeeded else "failed")
        with self._lock:
            histogram = self._times.setdefault(key, Histogram(_LOAD_EDGES_S))
        histogram.add(seconds)

    def forget(self, model: str) -> None:
        """Remove the series of a model that is not served any more."""
        with self._lock:
            for outcome in ("succeeded", "failed"):
                self._times.pop((model, outcome), None)

    def family(self) -> Family:
        """Return the family of load times."""
        with self._lock:
            found = sorted(self._times.items())
        rows: Rows = [
            ((("model", model), ("outcome", outcome)), histogram.copy())
            for (model, outcome), histogram in found
        ]
        return Family("servingd_load_seconds", "histogram", rows, help="Time of one load attempt.")


def request_families(requests: RequestMetrics) -> list[Family]:
    """Return the families of requests, read from their histograms."""
    counts: list[tuple[Labels, int | Histogram]] = []
    times = counts.copy()
    for key, histogram in requests.histograms():
        labels = (
            ("code", key.code.name),
            ("method", key.method.removeprefix(OIP)),
            ("model", key.model),
            ("protocol", protocol_of(key.method)),
            ("signature", key.signature),
            ("version", str(key.version or "")),
        )
        counts.append((labels, histogram.count))
        times.append((labels, histogram))
    return [
        Family("servingd_requests_total", "counter", counts, help="Requests answered, by outcome."),
        Family(
            "servingd_request_seconds",
            "histogram",
            times,
            help="Time from a request's last byte to its reply.",
        ),
        Family(
            "servingd_stream_parts_total",
            "counter",
            [((("model", model),), count) for model, count in requests.parts()],
            help="Parts sent of answers that are streamed.",
        ),
    ]
