"""The file of a composite: what it means, and what is refused with line and field."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servingd.core.types import ModelSpec
from servingd.errors import InvalidConfig
from servingd.servables.assembled.composite.graph import (
    CascadeStep,
    CombiningStep,
    ModelStep,
    Source,
    parse,
)

WHOLE = b"""
steps:
  small: {model: s, inputs: {x: image}}
  large: {model: l, label: stable, signature: f, inputs: {x: image, hint: small.scores},
          deadline_share: 0.5}
  best: {cascade: [small, large], confidence: scores, at_least: 0.9}
  both: {weighted: [small.scores, large.scores], weights: [1, 3]}
outputs: {scores: best.scores, both: both}
...
"""


def test_a_file_is_read():
    graph = parse(WHOLE)
    assert graph.inputs == ("image",)
    assert graph.outputs == {"scores": Source("scores", "best"), "both": Source("", "both")}
    assert graph.steps == {
        "small": ModelStep(
            spec=ModelSpec("s", None, None, "serving_default"), inputs={"x": Source("image")}
        ),
        "large": ModelStep(
            spec=ModelSpec("l", None, "stable", "f"),
            inputs={"x": Source("image"), "hint": Source("scores", "small")},
            deadline_share=0.5,
        ),
        "best": CascadeStep(steps=("small", "large"), confidence="scores", at_least=0.9),
        "both": CombiningStep(
            how="weighted",
            sources=(Source("scores", "small"), Source("scores", "large")),
            weights=(1.0, 3.0),
        ),
    }


@given(st.integers(0, len(WHOLE) - 1))
def test_a_file_that_is_cut_short_is_not_taken_for_whole(length):
    with pytest.raises(InvalidConfig):
        parse(WHOLE[:length])


A = "steps: {a: {model: m, inputs: {x: x}}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "an entry `steps` that is not empty"),
        ("steps: {}\noutputs: {y: a}", "an entry `steps` that is not empty"),
        (A + "}", "an entry `outputs`"),
        (A + "}\nout: {y: a.y}", "out: unknown key"),
        (A + "}\noutputs: {y: b.y}", "outputs.y: expected STEP.OUTPUT with one of the steps a"),
        (A + "}\noutputs: {y: a}", "outputs.y: expected a.OUTPUT as a source"),
        ("steps: {a: {model: m}}\noutputs: {y: a.y}", "steps.a: expected inputs"),
        ("steps: {a: {modle: m}}\noutputs: {y: a.y}", "one of model, cascade, mean"),
        (
            "steps: {a: {model: m, version: 1, label: l, inputs: {x: x}}}\noutputs: {y: a.y}",
            "a version or a label, not both",
        ),
        (
            "steps: {a: {model: m, deadline_share: 2, inputs: {x: x}}}\noutputs: {y: a.y}",
            "a share above 0",
        ),
        (
            "steps: {a: {model: m, inputs: {x: b.y}}, b: {model: m, inputs: {x: a.y}}}\n"
            "outputs: {y: a.y}",
            "steps without a cycle (a -> b -> a)",
        ),
        (A + ", b: {mean: [a.y]}}\noutputs: {y: b}", "two sources or more"),
        (A + ", b: {mean: [a.y, a.z]}}\noutputs: {y: b.y}", "expected b as a source (not b.y)"),
        (
            A + ", b: {weighted: [a.y, a.z], weights: [1]}}\noutputs: {y: b}",
            "2 numbers that are not negative",
        ),
        (
            A + ", b: {cascade: [a, c], confidence: y, at_least: 1}}\noutputs: {y: b.y}",
            "a cascade of steps with a model (not 'c')",
        ),
        (A + ", b: {cascade: [a, a], at_least: 1}}\noutputs: {y: b.y}", "expected confidence"),
        ("steps: {a.b: {model: m, inputs: {x: x}}}\noutputs: {y: a}", "a step's name without dots"),
        ("steps: [\noutputs: {}", "composite.yaml:"),
    ],
)
def test_what_is_wrong_is_named(text, said):
    with pytest.raises(InvalidConfig) as caught:
        parse(f"{text}\n...\n".encode())
    assert said in caught.value.message
    assert caught.value.message.startswith("composite.yaml")
