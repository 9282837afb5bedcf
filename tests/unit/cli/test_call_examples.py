"""Calls to copy and paste: for any signature they are valid, and their values fit it."""

from __future__ import annotations

import ast
import json
import shlex
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servingd.cli.call_examples import call_examples
from servingd.client.answers import Signature, TensorSpec

SPECS = st.builds(
    TensorSpec,
    dtype=st.sampled_from(["FLOAT", "INT64", "STRING", "BOOL", "DOUBLE"]),
    shape=st.none() | st.lists(st.none() | st.integers(1, 40), max_size=3).map(tuple),
)
SIGNATURES = st.dictionaries(st.sampled_from(["x", "a b", "it's"]), SPECS, max_size=3).map(
    lambda inputs: Signature(inputs, {})
)


@given(SIGNATURES, st.sampled_from(["serving_default", "other one"]))
def test_programs_parse_and_commands_are_of_whole_words(signature: Signature, name: str) -> None:
    examples = call_examples("my model", name, signature)
    for way, text in examples.items():
        if way.startswith("Python"):
            ast.parse(text)
        else:
            shlex.split(text)


@given(SIGNATURES)
def test_the_values_of_a_program_fit_the_signature(signature: Signature) -> None:
    program = call_examples("m", "serving_default", signature)["Python, with servingd.client"]
    call = ast.parse(program).body[-1].body[0].value.args[0]  # type: ignore[attr-defined]
    inputs = eval(compile(ast.Expression(call.args[1]), "inputs", "eval"))
    assert inputs.keys() == signature.inputs.keys()
    for alias, value in inputs.items():
        shape = signature.inputs[alias].shape
        wanted = (1,) if shape is None else tuple(size or 1 for size in shape)
        assert np.shape(value) == wanted


@pytest.mark.parametrize("size", [2, 3000])
def test_the_body_that_curl_sends_is_json(size: int) -> None:
    signature = Signature({"x": TensorSpec("BOOL", (None, size))}, {})
    command = call_examples("m", "it's", signature)["curl"]
    if " | " in command:
        words = shlex.split(command.partition(" | ")[0])
        done = subprocess.run([sys.executable, *words[1:]], capture_output=True, check=True)
        body = json.loads(done.stdout)
    else:
        words = shlex.split(command)
        body = json.loads(words[words.index("-d") + 1])
    assert body["signature_name"] == "it's"
    assert np.shape(body["inputs"]["x"]) == (1, size)


def test_examples_are_called_by_their_own_verbs() -> None:
    signature = Signature(
        {"inputs": TensorSpec("STRING", (None,))}, {}, "tensorflow/serving/regress"
    )
    examples = call_examples("m", "serving_default", signature)
    assert all(":regress" in text or ".regress(" in text for text in examples.values())
