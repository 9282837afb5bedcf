"""What `servingd predict` makes of what newcomers type."""

from __future__ import annotations

import pytest

from servingd.cli.calling.typed_inputs import example, inputs_of
from servingd.errors import InvalidArgument

ONE = {"x": "FLOAT"}
TWO = {"a": "FLOAT", "b": "STRING"}


@pytest.mark.parametrize(
    ("text", "kinds", "inputs"),
    [
        ('{"x": [1, 2]}', ONE, {"x": [1, 2]}),
        ("[1, 2]", ONE, {"x": [1, 2]}),
        ("1.5", ONE, {"x": 1.5}),
        ('"text"', ONE, {"x": "text"}),
        ('{"instances": [1, 2]}', ONE, {"x": [1, 2]}),
        ('{"instances": [{"x": 1}, {"x": 2}]}', ONE, {"x": [1, 2]}),
        ('{"instances": [{"a": 1, "b": "c"}]}', TWO, {"a": [1], "b": ["c"]}),
        ('{"inputs": [1, 2]}', ONE, {"x": [1, 2]}),
        ('{"inputs": {"a": 1, "b": "c"}}', TWO, {"a": 1, "b": "c"}),
        ('{"inputs": [1, 2]}', {"inputs": "FLOAT"}, {"inputs": [1, 2]}),
        ('{"inputs": [1], "b": 2}', TWO, {"inputs": [1], "b": 2}),
    ],
)
def test_the_natural_thing(text, kinds, inputs):
    assert inputs_of("m", text, lambda: kinds) == inputs


def test_names_that_are_typed_cost_no_question():
    assert inputs_of("m", '{"x": 1}', lambda: pytest.fail("asked")) == {"x": 1}


@pytest.mark.parametrize(
    ("text", "kinds", "says"),
    [
        ("{x: [1]}", ONE, """servingd predict m '{"x": [1, 2]}'"""),
        (
            "[1, 2]",
            TWO,
            """2 inputs, name each: servingd predict m '{"a": [1, 2], "b": ["t""",
        ),
        ('{"instances": [{"a": 1}, {"b": 2}]}', TWO, "expected the same names in each"),
    ],
)
def test_else_it_says_what_to_type(text, kinds, says):
    with pytest.raises(InvalidArgument) as caught:
        inputs_of("m", text, lambda: kinds)
    assert says in caught.value.message


def test_the_example_is_one_word_for_the_shell():
    assert example("a b", ONE) == """servingd predict 'a b' '{"x": [1, 2]}'"""
