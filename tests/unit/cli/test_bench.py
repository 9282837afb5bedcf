"""What a run of calls comes to."""

from __future__ import annotations

import json
import math
import threading

import numpy as np
import pytest

from servingd.cli.calling.bench.command import made_inputs
from servingd.cli.calling.bench.figures import Call, figures
from servingd.cli.calling.bench.load import Load
from servingd.client.answers import Signature, TensorSpec
from servingd.errors import Unavailable


def test_figures() -> None:
    calls = [Call(0.0, ms / 1e3) for ms in range(1, 101)] + [Call(0.0, 9.0, "UNAVAILABLE")]
    found = figures("4 callers", calls, 2.0, 3, 0.5)
    assert (found.calls, found.errors) == (101, {"UNAVAILABLE": 1})
    assert (found.calls_per_s, found.rows_per_s) == (50.0, 150.0)
    assert found.p50_ms == pytest.approx(50.5)
    assert found.p99_ms == pytest.approx(99.01)
    assert found.max_ms == 100.0
    assert found.as_json()["load"] == "4 callers"


def test_a_run_in_which_every_call_failed() -> None:
    found = figures("1 callers", [Call(0.0, 1.0, "INTERNAL")], 1.0, 1, 0.0)
    assert found.calls_per_s == 0.0
    assert math.isnan(found.p99_ms)
    report = found.as_json()
    assert (report["mean_ms"], report["p99_ms"], report["max_ms"]) == (None, None, None)
    assert (report["calls_per_s"], report["errors"]) == (0.0, {"INTERNAL": 1})
    json.dumps(report, allow_nan=False)


def test_a_closed_loop_has_so_many_callers_and_counts_failures() -> None:
    seen: set[str] = set()
    ticks: list[int] = []
    together = threading.Barrier(3)

    def call() -> None:
        if threading.current_thread().name not in seen:
            seen.add(threading.current_thread().name)
            together.wait(10)  # all are there before one has an answer
        if len(ticks) % 2:
            raise Unavailable("not now")

    calls = Load(call, lambda: ticks.append(1)).closed(3, 0.05)
    assert seen == {"caller-0", "caller-1", "caller-2"}
    assert len(calls) == len(ticks)
    assert {call.error for call in calls} == {"", "UNAVAILABLE"}


def test_an_open_loop_calls_at_its_rate_and_lateness_counts() -> None:
    """Two callers, each call takes 20 ms, and 200 are due in a second: they must queue."""
    pause = threading.Event()
    calls = Load(lambda: pause.wait(0.02), lambda: None).open(200.0, 0.1, 2)
    assert len(calls) == 20
    assert max(call.seconds for call in calls) > 0.05
    assert [call.due_s - calls[0].due_s for call in calls] != [0.0] * 20


@pytest.mark.parametrize("loop", ["closed", "open"])
def test_calls_without_an_answer_count_as_late(loop: str) -> None:
    """Of three callers one has its answers, and two wait for one that does not come."""
    answer = threading.Event()
    hung: list[str] = []

    def call() -> None:
        if threading.current_thread().name != "caller-0":
            hung.append(threading.current_thread().name)
            answer.wait(30)
        answer.wait(0.001)

    load = Load(call, lambda: None, late_s=0.05)
    try:
        calls = load.closed(3, 0.05) if loop == "closed" else load.open(200.0, 0.05, 3)
    finally:
        answer.set()
    assert len(hung) == 2
    errors = [call.error for call in calls]
    assert errors.count("DEADLINE_EXCEEDED") == 2
    assert errors.count("") == len(calls) - 2 > 0
    assert all(call.seconds > 0.04 for call in calls if call.error)


def test_any_other_exception_counts_by_its_name() -> None:
    def call() -> None:
        raise BrokenPipeError

    ticks: list[int] = []
    calls = Load(call, lambda: ticks.append(1)).closed(1, 0.01)
    assert {call.error for call in calls} == {"BrokenPipeError"}
    assert len(ticks) == len(calls) > 1  # the caller goes on


def test_inputs_are_made_from_a_signature() -> None:
    signature = Signature(
        {
            "x": TensorSpec("FLOAT", (None, 2)),
            "n": TensorSpec("INT64", (None,)),
            "t": TensorSpec("STRING", None),
            "s": TensorSpec("BOOL", ()),
        },
        {},
    )
    made = made_inputs(signature, 3)
    assert {name: array.shape for name, array in made.items()} == {
        "x": (3, 2),
        "n": (3,),
        "t": (3,),
        "s": (),
    }
    assert (made["x"].dtype, made["n"].dtype) == (np.float32, np.int64)
