"""Bodies of classify and regress requests to serialised Examples."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servingd.errors import InvalidArgument, ServingError
from servingd.wire.json.examples import read_examples
from servingd.wire.protos import Example


def features(body: str | bytes) -> list[dict[str, Any]]:
    """Each example's features: their kind and their values."""
    content = body.encode() if isinstance(body, str) else body
    examples = map(Example.FromString, read_examples(content, "classify").examples)
    return [
        {
            name: (kind, list(getattr(feature, kind).value)) if kind else None
            for name, feature in example.features.feature.items()
            for kind in [feature.WhichOneof("kind")]
        }
        for example in examples
    ]


def message(body: str, method: str = "classify") -> str:
    with pytest.raises(InvalidArgument) as raised:
        read_examples(body.encode(), method)
    return raised.value.message


@pytest.mark.parametrize(
    ("text", "feature"),
    [
        ('"a"', ("bytes_list", [b"a"])),
        ('["a", {"b64": "/w"}]', ("bytes_list", [b"a", b"\xff"])),
        ("2.0", ("float_list", [2.0])),
        ("[1e0, NaN, -Inf, 1e300]", ("float_list", [1.0, math.nan, -math.inf, math.inf])),
        ("18446744073709551616", ("float_list", [2.0**64])),
        ("2", ("int64_list", [2])),
        ("[true, 5, false, -9223372036854775808]", ("int64_list", [1, 5, 0, -(2**63)])),
        ("[]", None),
    ],
)
def test_kinds_of_features(text: str, feature: Any) -> None:
    (found,) = features(f'{{"examples": [{{"x": {text}}}]}}')
    assert repr(found) == repr({"x": feature})


def test_examples_in_their_order() -> None:
    found = features('{"examples": [{"x": 1, "y": "a"}, {}, {"x": 2}]}')
    assert [set(example) for example in found] == [{"x", "y"}, set(), {"x"}]


def test_strings_are_bytes() -> None:
    assert features(b'{"examples": [{"x": "\xff"}]}') == [{"x": ("bytes_list", [b"\xff"])}]


def test_signature_name() -> None:
    assert read_examples(b'{"examples": [{}]}', "regress").signature_name == ""
    body = b'{"examples": [{}], "signature_name": "a"}'
    assert read_examples(body, "regress").signature_name == "a"


def test_a_context_is_in_every_example_and_gives_way_to_it() -> None:
    found = features('{"context": {"c": 1, "d": 2}, "examples": [{"x": 3}, {"c": [4, 5]}]}')
    assert found == [
        {"c": ("int64_list", [1]), "d": ("int64_list", [2]), "x": ("int64_list", [3])},
        {"c": ("int64_list", [4, 5]), "d": ("int64_list", [2])},
    ]


def test_the_context_is_in_front() -> None:
    context = read_examples(b'{"examples": [{"c": 1}]}', "classify").examples[0]
    alone = read_examples(b'{"examples": [{"x": 3}]}', "classify").examples[0]
    body = b'{"examples": [{"x": 3}], "context": {"c": 1}}'
    assert read_examples(body, "classify").examples == [context + alone]


@pytest.mark.parametrize("method", ["classify", "regress"])
@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("", "JSON Parse error: The document is empty"),
        ("[]", "JSON Value: [] Is not object"),
        (
            '{"signature_name": 1}',
            'JSON Value: {\n    "signature_name": 1\n} not formatted correctly. '
            "'signature_name' key must be a string value.",
        ),
        (
            "{}",
            "JSON Value: {} When method is classify, key 'examples' is expected and was not found",
        ),
        (
            '{"examples": {}}',
            "JSON Value: {\n    \"examples\": {}\n} Expecting 'examples' value to be an list/array",
        ),
        (
            '{"examples": []}',
            "JSON Value: {\n    \"examples\": []\n} 'examples' value is an empty array",
        ),
        ('{"context": [], "examples": 1}', "Example must be JSON object but got JSON Array"),
        ('{"examples": [null]}', "Example must be JSON object but got JSON Null"),
        ('{"examples": [{}, "a"]}', "Example must be JSON object but got JSON String"),
    ],
)
def test_errors_of_the_request(body: str, text: str, method: str) -> None:
    assert message(body, method) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("null", "Feature: x has element with unexpected JSON type: Null"),
        ("[1, null]", "Feature: x has element with unexpected JSON type: Null"),
        ("[[1]]", "Feature: x has element with unexpected JSON type: Array"),
        ('{"a": 1}', "Feature: x has element with unexpected JSON type: Object"),
        ('{"b64": 1}', "Feature: x has element with unexpected JSON type: Object"),
        ("[10, 10.0]", "Unexpected element type in feature: x expecting type: int64"),
        ('["a", 1]', "Unexpected element type in feature: x expecting type: bytes"),
        ('[1.0, "a"]', "Unexpected element type in feature: x expecting type: float"),
        ("[1.0, true]", "Unexpected element type in feature: x expecting type: float"),
        (
            "[1, 9223372036854775808]",
            "Feature: x has uint64_t element. Only int64_t is supported.",
        ),
        ('{"b64": "-"}', "Unable to base64 decode"),
    ],
)
def test_errors_of_a_feature(value: str, text: str) -> None:
    assert message(f'{{"examples": [{{"x": {value}}}]}}') == text
    assert message(f'{{"context": {{"x": {value}}}, "examples": 1}}') == text


def test_a_name_must_be_a_text() -> None:
    with pytest.raises(InvalidArgument, match="not UTF-8"):
        read_examples(b'{"examples": [{"\xff": 1}]}', "classify")


@given(st.binary(max_size=20), st.sampled_from([b'{"examples":[%s]}', b'{"examples":[{"x":%s}]}']))
def test_garbage_raises_nothing_of_its_own(content: bytes, form: bytes) -> None:
    with contextlib.suppress(ServingError):
        assert read_examples(form % content, "classify").examples
