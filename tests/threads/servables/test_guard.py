"""The guard around other people's servables: what it keeps, for how long, and on which thread."""

from __future__ import annotations

import time
import weakref

import numpy as np
import pytest

from servingd.core.types import ServableId
from servingd.servables.guard import GuardedServable
from servingd.servables.plugin import Servable, signature
from tests.threads.fakes import TIMEOUT, RecordingCompletion

SIGNATURES = {
    "serving_default": signature(inputs={"x": ("FLOAT", None)}, outputs={"y": ("FLOAT", None)})
}
X = {"x": np.ones(1, np.float32)}


class Base(Servable):
    signatures = SIGNATURES


@pytest.fixture
def guard():
    made: list[GuardedServable] = []

    def guarded(servable: Servable) -> GuardedServable:
        made.append(GuardedServable(ServableId("m", 1), servable, {}))
        return made[-1]

    yield guarded
    for each in made:
        each.end()


def ask(guarded: GuardedServable) -> RecordingCompletion:
    told = RecordingCompletion()
    guarded.run(SIGNATURES["serving_default"], X, told)
    return told


def test_a_time_limit_keeps_no_call_that_is_over(guard):
    class Echo(Base):
        time_limit_s = 60.0

        def predict(self, signature, inputs):
            return {"y": inputs["x"]}

    guarded = guard(Echo())
    told = ask(guarded)
    assert len(told.outcomes) == 1
    kept = weakref.ref(told)
    del told
    until = time.monotonic() + TIMEOUT
    while kept() is not None and time.monotonic() < until:
        time.sleep(0.001)
    assert kept() is None
