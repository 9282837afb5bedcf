"""A composite's load waits for its parts, and not for ever where composites wait for each other."""

from __future__ import annotations

import threading
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

import pytest

from servingd.core.types import DataType, ModelSpec, TensorSpec
from servingd.errors import Cancelled, FailedPrecondition
from servingd.servables.assembled.parts import Parts
from tests.threads.fakes import TIMEOUT
from tests.unit.servables.assembled.composite.fakes import FakeModels, FakePart

X = {"x": TensorSpec(DataType.FLOAT, None)}


def part() -> FakePart:
    return FakePart(None, X, X)


@pytest.fixture
def parts() -> Parts:
    made = Parts()
    made.models = FakeModels(a=part())
    return made


def test_a_load_goes_on_when_its_last_part_is_there(parts):
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(parts.wait, "c", [ModelSpec("a"), ModelSpec("b")], threading.Event())
        parts.models.parts["b"] = part()
        handles = waiting.result(TIMEOUT)
    assert {spec.name for spec in handles} == {"a", "b"}
    assert [p.held for p in parts.models.parts.values()] == [1, 1]


def test_a_wait_ends_when_it_is_cancelled(parts):
    cancelled = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(parts.wait, "c", [ModelSpec("b")], cancelled)
        cancelled.set()
        with pytest.raises(Cancelled):
            waiting.result(TIMEOUT)


def test_composites_that_wait_for_each_other_are_told_so(parts):
    wants = {"c": ["a", "d"], "d": ["e"], "e": ["c"]}
    never = threading.Event()
    with ThreadPoolExecutor(3) as pool:
        waiting = [
            pool.submit(parts.wait, name, [ModelSpec(each) for each in of], never)
            for name, of in wants.items()
        ]
        try:
            (first, *_), _ = wait(waiting, TIMEOUT, FIRST_EXCEPTION)
            with pytest.raises(FailedPrecondition, match=r"wait for each other: . -> . -> . -> ."):
                first.result()
        finally:
            never.set()
    assert parts.models.parts["a"].held == 0
