"""Which signatures are a pair that is streamed, and what is said of those that are none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from servingd.core.stream_pairs import find_pairs
from servingd.core.types import DataType, Signature, TensorSpec

INT, FLOAT, BOOL = DataType.INT32, DataType.FLOAT, DataType.BOOL


def spec(data_type, *shape):
    return TensorSpec(data_type, shape)


def signature(name, inputs, outputs):
    return Signature(name, inputs, outputs)


INIT = signature("init", {"prompt": spec(FLOAT, None)}, {"at": spec(INT, None)})
STEP = signature(
    "step",
    {"at": spec(INT, None)},
    {"at": spec(INT, None), "y": spec(FLOAT, None), "stop": spec(BOOL)},
)


def found(*signatures):
    return find_pairs({s.name: s for s in signatures})


def named(pair_signature, name):
    return replace(pair_signature, name=name)


def test_a_plain_pair_is_called_generate():
    pairs, misfits = found(INIT, STEP)
    pair = pairs["generate"]
    assert (pair.init, pair.step, pair.state, pair.first_part) == ("init", "step", ("at",), False)
    assert pair.signature.name == "generate"
    assert pair.signature.inputs == INIT.inputs
    assert pair.signature.outputs == {"y": spec(FLOAT, None)}, "neither state nor the flag"
    assert misfits == {}


def test_a_pair_with_a_name_goes_by_it_and_wins_over_the_plain_one():
    pairs, _ = found(
        INIT, STEP, named(INIT, "generate_init"), named(STEP, "generate_step"), named(INIT, "a")
    )
    assert {name: pair.init for name, pair in pairs.items()} == {"generate": "generate_init"}
    pairs, _ = found(named(INIT, "chat_init"), named(STEP, "chat_step"))
    assert list(pairs) == ["chat"]


@pytest.mark.parametrize("names", [("init",), ("step",), ("_init", "_step"), ("a_init", "b_step")])
def test_half_a_pair_is_none_and_nothing_is_said(names):
    assert found(*(named(INIT, name) for name in names)) == ({}, {})


def test_outputs_of_init_besides_the_state_are_the_first_part():
    first = replace(INIT, outputs={**INIT.outputs, "y": spec(FLOAT, 3)})
    assert found(first, STEP)[0]["generate"].first_part


def test_the_state_may_grow_where_a_size_is_unknown():
    growing = replace(STEP, outputs={**STEP.outputs, "at": spec(INT, 7)})
    assert "generate" in found(INIT, growing)[0]
    unknown = replace(INIT, outputs={"at": TensorSpec(INT, None)})
    assert "generate" in found(unknown, STEP)[0]


def with_output(of, name, **outputs):
    return {name: replace(of, outputs={**of.outputs, **outputs})}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"init": replace(INIT, outputs={})}, "init has no output at, which step takes"),
        (
            {"step": replace(STEP, outputs={"y": spec(FLOAT)})},
            "step has no output at, which step takes",
        ),
        (with_output(INIT, "init", at=spec(FLOAT, None)), "output at of init does not fit"),
        (with_output(STEP, "step", at=spec(INT, None, 2)), "output at of step does not fit"),
        (with_output(INIT, "init", other=spec(FLOAT)), "they are not those of step"),
        (with_output(INIT, "init", y=spec(INT)), "they are not those of step"),
        (with_output(STEP, "step", stop=spec(INT)), "output stop of step is not a bool"),
        (
            {"step": replace(STEP, outputs={"at": spec(INT, None)})},
            "step has no output besides the state",
        ),
        ({"step": replace(STEP, inputs={})}, "step has no input"),
        (
            {"step": replace(STEP, inputs={**STEP.inputs, "stop": spec(BOOL)})},
            "stop is an input of step",
        ),
        ({"init": replace(INIT, unserved={"prompt": "sparse"})}, "cannot be served"),
    ],
)
def test_what_does_not_fit_is_told(change, reason):
    pairs, misfits = find_pairs({"init": INIT, "step": STEP, **change})
    assert pairs == {}
    assert reason in misfits["generate"]


def test_two_fixed_sizes_that_differ_do_not_fit():
    fixed = replace(STEP, inputs={"at": spec(INT, 3)}, outputs={**STEP.outputs, "at": spec(INT, 4)})
    init = replace(INIT, outputs={"at": spec(INT, 3)})
    assert "output at of step does not fit" in found(init, fixed)[1]["generate"]
