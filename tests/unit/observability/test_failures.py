"""Calls that fail leave lines in the log: few, and without what they held."""

from __future__ import annotations

import logging

from servingd.errors import Code
from servingd.observability.failures import FailureLog
from servingd.observability.requests import RequestMetrics


def test_one_line_in_ten_seconds_for_each_kind(caplog):
    time = [100.0]
    log = FailureLog(lambda: time[0])
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            log.note("m", "predict", Code.INVALID_ARGUMENT)
        log.note("m", "predict", Code.NOT_FOUND)
        log.note("", "Predict", Code.NOT_FOUND)
        time[0] += 10.0
        log.note("m", "predict", Code.INVALID_ARGUMENT)
    assert caplog.messages == [
        "predict of m failed: INVALID_ARGUMENT",
        "predict of m failed: NOT_FOUND",
        "Predict of a model that is not known failed: NOT_FOUND",
        "predict of m failed: INVALID_ARGUMENT (and 4 since the last such line)",
    ]


def test_each_has_a_line_when_debugging(caplog):
    metrics = RequestMetrics()
    with caplog.at_level(logging.DEBUG, "servingd.observability.failures"):
        for code in (Code.OK, Code.INTERNAL, Code.INTERNAL):
            metrics.record("m", 1, "s", "Predict", code, 0.1)
    assert [r.levelname for r in caplog.records] == ["DEBUG", "INFO", "DEBUG"]
