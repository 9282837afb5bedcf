"""Traces of what TensorFlow does here."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from servingd.errors import AlreadyExists, InvalidArgument
from servingd.servables.tensorflow_runtime.profiler import MAX_SECONDS, Profiler
from servingd.servables.tensorflow_runtime.runtime import tensorflow

pytestmark = pytest.mark.tf

LEVELS = (2, 1, 0)


class Outcome:
    def __init__(self):
        self.came = threading.Event()
        self.value = None

    def __call__(self, value):
        self.value = value
        self.came.set()

    def wait(self) -> bytes:
        assert self.came.wait(30)
        return self.value[""] if isinstance(self.value, dict) else self.value


@pytest.fixture(autouse=True)
def loaded():
    tensorflow()


def test_a_trace_before_tensorflow_is_needed_is_empty_and_imports_nothing():
    program = """
import sys, threading
from servingd.servables.tensorflow_runtime.profiler import Profiler
came, found = threading.Event(), []
Profiler().profile(0.2, (2, 1, 0), lambda outcome: (found.append(outcome), came.set()))
assert came.wait(30)
assert found == [{"": b""}], found
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_trace_of_tensorflow_holds_something():
    outcome = Outcome()
    Profiler().profile(0.2, LEVELS, outcome)
    assert outcome.wait()


def test_a_trace_can_be_ended_early():
    profiler, outcome = Profiler(), Outcome()
    profiler.profile(MAX_SECONDS, LEVELS, outcome)
    profiler.terminate()
    assert isinstance(outcome.wait(), bytes)
    profiler.terminate()  # there is none any more


def test_one_trace_is_taken_at_a_time():
    profiler, first, second = Profiler(), Outcome(), Outcome()
    profiler.profile(MAX_SECONDS, LEVELS, first)
    with pytest.raises(AlreadyExists, match="another profile"):
        profiler.profile(0.1, LEVELS, second)
    profiler.terminate()
    first.wait()
    profiler.profile(0.1, LEVELS, second)
    assert isinstance(second.wait(), bytes)


@pytest.mark.parametrize("seconds", [0, MAX_SECONDS + 1])
def test_a_trace_has_a_length(seconds):
    with pytest.raises(InvalidArgument, match=r"duration_ms: expected 1 to 60000, got"):
        Profiler().profile(seconds, LEVELS, Outcome())


def test_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = Outcome()
    Profiler().profile(0.05, LEVELS, outcome)
    outcome.wait()
    assert not list(tmp_path.iterdir())
