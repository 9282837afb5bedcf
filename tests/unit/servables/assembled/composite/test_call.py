"""One call's way through a graph: order, demand, errors, handles."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servingd.core.batching.queue import Priority
from servingd.core.types import DataType, ModelSpec, ServableId, TensorSpec, VersionData
from servingd.errors import Code, FailedPrecondition, ServingError, Unavailable
from servingd.servables.assembled.composite.servable import CompositePlatform
from servingd.servables.assembled.parts import Parts
from tests.unit.servables.assembled.composite.fakes import FakeModels, FakePart, Told

X = {"x": TensorSpec(DataType.FLOAT, (None,))}
Y = {"y": TensorSpec(DataType.FLOAT, (None,))}
ONES = np.ones(3, np.float32)


def part(function=None, inputs=X, outputs=Y) -> FakePart:
    return FakePart(function, inputs, outputs)


def composite(tmp_path, text: str, **parts: FakePart):
    (tmp_path / "composite.yaml").write_text(f"{text}\n...\n")
    known = Parts()
    known.models = FakeModels(**parts)
    steps: list[tuple[str, str]] = []
    known.on_step = lambda servable_id, step, seconds, error: steps.append(
        (step, "OK" if error is None else error.code.name)
    )
    loader = CompositePlatform(known).loader(ServableId("c", 1), VersionData(str(tmp_path), ""))
    made = loader.load()
    made.steps = steps
    return made


def ask(made, deadline=None, **inputs) -> Told:
    told = Told(deadline)
    made.run(made.signatures["serving_default"], inputs, told)
    return told


CHAIN = """
steps:
  one: {model: a, inputs: {x: x}}
  two: {model: b, inputs: {x: one.y}}
outputs: {y: two.y, first: one.y}
"""


def test_a_chain_hands_arrays_on_and_gives_the_handles_back(tmp_path):
    a, b = part(lambda x: {"y": x + 1}), part(lambda x: {"y": x * 10})
    made = composite(tmp_path, CHAIN, a=a, b=b)
    signature = made.signatures["serving_default"]
    assert signature.inputs == {"x": TensorSpec(DataType.FLOAT, (None,), "x:0")}
    assert signature.outputs.keys() == {"y", "first"}
    (answer,) = ask(made, x=ONES).outcomes
    assert answer["y"].tolist() == [20, 20, 20]
    assert answer["first"].tolist() == [2, 2, 2]
    assert (a.held, b.held) == (0, 0)
    assert made.steps == [("one", "OK"), ("two", "OK")]


def test_steps_without_dependency_run_at_the_same_time(tmp_path):
    a, b = part(), part()
    made = composite(
        tmp_path,
        "steps:\n  one: {model: a, inputs: {x: x}}\n  two: {model: b, inputs: {x: x}}\n"
        "outputs: {y: one.y, z: two.y}",
        a=a,
        b=b,
    )
    told = ask(made, x=ONES)
    assert (len(a.calls), len(b.calls)) == (1, 1)
    b.answer({"y": ONES})
    assert not told.outcomes
    assert (a.held, b.held) == (1, 1), "handles are held while a step runs"
    a.answer({"y": 2 * ONES})
    (answer,) = told.outcomes
    assert (answer["y"].tolist(), answer["z"].tolist()) == ([2, 2, 2], [1, 1, 1])
    assert (a.held, b.held) == (0, 0)


def test_an_error_names_its_step_and_ends_the_call_at_once(tmp_path):
    a, b = part(), part()
    made = composite(
        tmp_path,
        "steps:\n  one: {model: a, inputs: {x: x}}\n  two: {model: b, inputs: {x: x}}\n"
        "outputs: {y: one.y, z: two.y}",
        a=a,
        b=b,
    )
    told = ask(made, x=ONES)
    _, done = b.calls[0]
    a.answer(Unavailable("busy"))
    (error,) = told.outcomes
    assert isinstance(error, ServingError)
    assert (error.code, error.message) == (Code.UNAVAILABLE, "step one (model a): busy")
    assert not done.alive()
    assert b.held == 1, "its step still runs"
    b.answer({"y": ONES})
    assert (a.held, b.held, len(told.outcomes)) == (0, 0, 1)


def test_a_part_that_is_gone_is_named(tmp_path):
    made = composite(tmp_path, CHAIN, a=part(lambda x: {"y": x}), b=part(lambda x: {"y": x}))
    a = made._parts.models.parts["a"]
    del made._parts.models.parts["b"]
    with pytest.raises(ServingError, match="a part of c is not available: there is no model b"):
        ask(made, x=ONES)
    assert a.held == 0


def test_one_model_in_two_steps_has_one_version(tmp_path):
    a = part(lambda x: {"y": x + 1})
    made = composite(
        tmp_path,
        "steps:\n  one: {model: a, inputs: {x: x}}\n  two: {model: a, inputs: {x: one.y}}\n"
        "outputs: {y: two.y}",
        a=a,
    )
    asked = []
    acquire = made._parts.models.acquire
    made._parts.models.acquire = lambda spec: asked.append(spec) or acquire(spec)
    assert ask(made, x=ONES).outcomes[0]["y"].tolist() == [3, 3, 3]
    assert asked == [ModelSpec("a")]


def test_priority_and_a_share_of_the_deadline_go_along(tmp_path):
    a = part()
    made = composite(
        tmp_path,
        "steps: {one: {model: a, inputs: {x: x}, deadline_share: 0.25}}\noutputs: {y: one.y}",
        a=a,
    )
    now = time.monotonic()
    ask(made, deadline=now + 40, x=ONES)
    _, done = a.calls[0]
    assert done.priority() is Priority.HIGH
    assert now + 9 < done.deadline < now + 11


CASCADE = """
steps:
  small: {model: a, inputs: {x: x}}
  large: {model: b, inputs: {x: x}}
  best: {cascade: [small, large], confidence: y, at_least: 0.9}
outputs: {y: best.y, other: best.label}
"""
BOTH = {"y": TensorSpec(DataType.FLOAT, (None, 2)), "label": TensorSpec(DataType.STRING, (None,))}


def scored(*rows, label: bytes):
    return {"y": np.array(rows, np.float32), "label": np.array([label] * len(rows), object)}


def test_a_cascade_stops_when_it_is_confident(tmp_path):
    a, b = part(outputs=BOTH), part(outputs=BOTH)
    made = composite(tmp_path, CASCADE, a=a, b=b)
    told = ask(made, x=ONES)
    a.answer(scored([0.05, 0.95], [0.99, 0.01], label=b"small"))
    assert not b.calls
    (answer,) = told.outcomes
    assert answer["other"].tolist() == [b"small", b"small"]
    assert (a.held, b.held) == (0, 0)


def test_a_cascade_asks_on_and_keeps_the_rows_that_were_confident(tmp_path):
    a, b = part(outputs=BOTH), part(outputs=BOTH)
    made = composite(tmp_path, CASCADE, a=a, b=b)
    told = ask(made, x=ONES)
    a.answer(scored([0.05, 0.95], [0.5, 0.5], label=b"small"))
    b.answer(scored([1, 0], [0.4, 0.6], label=b"large"))
    (answer,) = told.outcomes
    assert answer["other"].tolist() == [b"small", b"large"]
    np.testing.assert_array_equal(answer["y"], np.array([[0.05, 0.95], [0.4, 0.6]], np.float32))


@given(
    values=st.lists(
        st.lists(st.floats(-1e3, 1e3, width=32), min_size=4, max_size=4), min_size=2, max_size=5
    ),
    data=st.data(),
)
def test_ensembles(values, data, tmp_path_factory):
    arrays = [np.array(v, np.float32) for v in values]
    weights = data.draw(st.lists(st.floats(0.5, 10), min_size=len(arrays), max_size=len(arrays)))
    names = [f"m{i}" for i in range(len(arrays))]
    parts = {n: part(lambda x, a=a: {"y": a}) for n, a in zip(names, arrays, strict=True)}
    sources = ", ".join(f"{n}.y" for n in names)
    text = "steps:\n" + "".join(f"  {n}: {{model: {n}, inputs: {{x: x}}}}\n" for n in names)
    text += f"  mean: {{mean: [{sources}]}}\n  vote: {{vote: [{sources}]}}\n"
    text += f"  sum: {{weighted: [{sources}], weights: {weights}}}\n"
    text += "outputs: {mean: mean, vote: vote, sum: sum}"
    made = composite(tmp_path_factory.mktemp("c"), text, **parts)
    (answer,) = ask(made, x=ONES).outcomes
    np.testing.assert_allclose(answer["mean"], np.mean(arrays, 0), rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(answer["sum"], np.average(arrays, 0, weights), rtol=1e-5, atol=1e-3)
    for place, vote in enumerate(answer["vote"]):
        column = [array[place] for array in arrays]
        assert column.count(vote) == max(map(column.count, column))
    assert answer["mean"].dtype == np.float32


INT = {"x": TensorSpec(DataType.INT64, (None,))}


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"b": part(inputs=INT)}, "step two (model b), input x from one.y: expected INT64 of [-1]"),
        ({"b": part(inputs={"z": Y["y"]})}, "step two (model b), input x: expected one of z"),
        ({"b": part(inputs=X | {"z": Y["y"]})}, "step two (model b): input z is not given"),
        ({"b": part(outputs={"z": Y["y"]})}, "step two (model b) has the outputs z, not y"),
        (
            {"b": part(inputs={"x": TensorSpec(DataType.FLOAT, (None, 2))})},
            "expected FLOAT of [-1,2], got FLOAT of [-1]",
        ),
    ],
)
def test_edges_that_do_not_fit_are_load_errors_that_name_them(tmp_path, parts, said):
    with pytest.raises(FailedPrecondition) as caught:
        composite(tmp_path, CHAIN, **({"a": part()} | parts))
    assert said in caught.value.message


def test_a_composite_is_no_part_of_itself(tmp_path):
    with pytest.raises(FailedPrecondition, match="has itself as a part"):
        composite(tmp_path, "steps: {one: {model: c, inputs: {x: x}}}\noutputs: {y: one.y}")


def test_steps_that_an_error_keeps_from_starting_leave_no_handle(tmp_path):
    a, b, later = part(), part(), part()
    text = """
steps:
  one: {model: a, inputs: {x: x}}
  two: {model: b, inputs: {x: x}}
  last: {model: later, inputs: {x: two.y}}
  both: {mean: [one.y, two.y]}
outputs: {last: last.y, mean: both}
"""
    told = ask(composite(tmp_path, text, a=a, b=b, later=later), x=ONES)
    a.answer({"y": ONES})
    b.answer({"y": ONES[:2]})
    (error,) = told.outcomes
    assert error.code is Code.INVALID_ARGUMENT
    assert (a.held, b.held, later.held) == (0, 0, 0)


def test_a_part_that_has_lost_an_output_is_an_error_not_a_call_without_end(tmp_path):
    a, b = part(lambda x: {"other": x}), part()
    (error,) = ask(composite(tmp_path, CHAIN, a=a, b=b), x=ONES).outcomes
    assert error.code is Code.FAILED_PRECONDITION
    assert error.message == "step one (model a): there is no output y any more"
    assert (a.held, b.held) == (0, 0)


def test_a_part_that_completes_twice_counts_once(tmp_path):
    a, b = part(), part()
    told = ask(composite(tmp_path, CHAIN, a=a, b=b), x=ONES)
    (_, done), *_ = a.calls
    done.succeed({"y": ONES})
    done.fail(Unavailable("too late"))
    assert (a.held, b.held) == (1, 1)
    b.answer({"y": ONES})
    (answer,) = told.outcomes
    assert answer["y"].tolist() == [1, 1, 1]
    assert (a.held, b.held) == (0, 0)
