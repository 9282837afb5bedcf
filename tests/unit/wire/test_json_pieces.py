"""Large documents, read in pieces, mean what they mean when they are read at once."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from servingd.core.types import DataType, Signature, TensorSpec
from servingd.errors import InvalidArgument
from servingd.wire.json import pieces as json_pieces
from servingd.wire.json import tensors as json_tensors
from servingd.wire.json import text as json_text
from servingd.wire.json.fast import read_list
from servingd.wire.json.parser import parse_exactly
from servingd.wire.json.tensors import read_predict

FLOATS = Signature("s", {"x": TensorSpec(DataType.FLOAT, (None,))}, {})
STRINGS = Signature("s", {"x": TensorSpec(DataType.STRING, (None,))}, {})
TWO = Signature(
    "s",
    {"a": TensorSpec(DataType.FLOAT, (None,)), "b": TensorSpec(DataType.STRING, (None,))},
    {},
)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Everything is large, and hardly anything fits into a piece."""
    monkeypatch.setattr(json_pieces, "_PIECE_BYTES", 24)
    monkeypatch.setattr(json_tensors, "LARGE_BYTES", 64)


def whole(body: bytes, signature: Signature, monkeypatch):
    with monkeypatch.context() as once:
        once.setattr(json_tensors, "LARGE_BYTES", 1 << 30)
        return outcome(body, signature)


def outcome(body: bytes, signature: Signature):
    try:
        read = read_predict(body)
        inputs = read.inputs(signature)
    except InvalidArgument as error:
        return error.message
    arrays = {a: (array.dtype, array.shape, repr(array.tolist())) for a, array in inputs.items()}
    return read.signature_name, read.columnar, arrays


ROWS = ", ".join(f'{{"a": [{i}, 2.5], "b": "t{i}"}}' for i in range(30))
BODIES = [
    (b'{"instances": [%b]}' % b", ".join(b"%d.5" % i for i in range(100)), FLOATS),
    (b'{"instances": [%b]}' % b", ".join([b"[[1, 2], [3, 4.25]]"] * 20), FLOATS),
    (b'{"instances": [[%b]]}' % b", ".join([b"17"] * 100), FLOATS),
    (b'{"inputs": [%b], "signature_name": "q"}' % b",".join([b"1"] * 100), FLOATS),
    (b'{"signature_name": "q", "inputs": [%b]}' % b",".join([b"1"] * 100), FLOATS),
    (b'{"instances": [%b, NaN, -Infinity]}' % b",".join([b"1"] * 100), FLOATS),
    (b'{"instances": [%b]}' % b",".join(b'"a, [%d"' % i for i in range(50)), STRINGS),
    (b'{"instances": ["%b", "x\\"],[", "y"]}' % (b"long \\\\" * 30), STRINGS),
    (b'{"instances": ["%b\\u00e9", "\xff"]}' % (b"long" * 30), STRINGS),
    (f'{{"instances": [{ROWS}]}}'.encode(), TWO),
    (b'{"instances": [{"a": [%b], "b": "x"}]}' % b",".join([b"1"] * 100), TWO),
    (b'{"inputs": {"a": [%b], "b": ["x", "y"]}}' % b",".join([b"1"] * 100), TWO),
    (b'{"inputs": {"b": "x", "a": 5, "b": "%b"}}' % (b"z" * 99), TWO),
    (b'{"more": 1, "instances": [%b]}' % b",".join([b"[1]"] * 100), FLOATS),
    # What is wrong is told as it was.
    (b'{"instances": [%b, [1]]}' % b",".join([b"1"] * 100), FLOATS),
    (b'{"instances": [%b, "a"]}' % b",".join([b"1"] * 100), FLOATS),
    (b'{"instances": [%b' % b",".join([b"1"] * 100), FLOATS),
    (b'{"instances": [%b,]}' % b",".join([b"1"] * 100), FLOATS),
    (b'{"instances": [%b,,1]}' % b",".join([b"1"] * 100), FLOATS),
    (b'{"instances": [%b}' % b",".join([b"1"] * 100), FLOATS),
    (b'{"instances": [1[%b]]}' % b",".join([b"1"] * 100), FLOATS),
    (b'{"instances": [%b], "inputs": [1]}' % b",".join([b"1"] * 100), FLOATS),
    (b'{"instances": [%b]}' % (b"[" * 100 + b"1" + b"]" * 100), FLOATS),
    (b'{"instances": %b}' % (b" " * 100), FLOATS),
    (b'{"instances": [%b] "signature_name": "q"}' % b",".join([b"1"] * 100), FLOATS),
]


@pytest.mark.parametrize(("body", "signature"), BODIES, ids=range(len(BODIES)))
def test_a_body_means_the_same(body, signature, monkeypatch):
    assert outcome(body, signature) == whole(body, signature, monkeypatch)


def test_a_body_with_one_byte_changed_means_the_same(monkeypatch):
    chance = random.Random(7)
    for body, signature in BODIES:
        for _ in range(60):
            at = chance.randrange(len(body))
            changed = (
                body[:at] + bytes((chance.choice(b'[]{},:"\\ 1-.eN\x00\xff'),)) + body[at + 1 :]
            )
            expected = whole(changed, signature, monkeypatch)
            assert outcome(changed, signature) == expected, changed


def test_documents_are_read_as_at_once(monkeypatch):
    monkeypatch.setattr(json_pieces, "_PIECE_BYTES", 64)

    def made(chance: random.Random, depth: int):
        kind = chance.randrange(6 if depth < 4 else 4)
        if kind < 4:
            text = 'a"],{\\' * chance.randrange(9)
            return [chance.random(), chance.randrange(-9, 9), text, None][kind]
        inner = [made(chance, depth + 1) for _ in range(chance.randrange(9))]
        return inner if kind == 4 else {f"k{i}": value for i, value in enumerate(inner)}

    for seed in range(200):
        value = [made(random.Random(seed), 0), "end"]
        text = json.dumps(value, indent=seed % 3 or None).encode()
        assert json_pieces.Pieces(text, json_text.parse).document() == value


def test_the_first_of_equal_names_counts_in_pieces_too():
    text = b'{"a": "%b", "b": 1, "a": 2, "b": 3, "c": {"d": 1, "d": "%b"}}' % (b"x" * 60, b"y" * 60)
    found = json_pieces.Pieces(text, json_text.parse).document()
    assert found == {"a": "x" * 60, "b": 1, "c": {"d": 1}}


def test_long_lists_of_numbers_are_read_many_at_a_time():
    numbers = [1, -2.5, float("inf")] * 50_000
    text = json.dumps(numbers).encode()
    assert parse_exactly(text) == numbers
    with pytest.raises(InvalidArgument, match=f"Invalid value. at offset: {len(text)}"):
        parse_exactly(text[:-1] + b",")


def test_a_list_of_numbers_is_read_by_type():
    assert read_list(b"[[1, 2], [3, 4]]", DataType.INT32).tolist() == [[1, 2], [3, 4]]
    assert read_list(b"[1, 2.5]", DataType.INT32) is None
    assert read_list(b"[1, 2", DataType.INT32) is None
    assert read_list(b'["a"]', DataType.STRING) is None
    assert read_list(b"[1, 2]", DataType.FLOAT).dtype == np.float32
