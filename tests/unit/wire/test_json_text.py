"""The dialect of JSON: what is read, what is refused and where, and how a value is shown."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from servingd.errors import InvalidArgument, ServingError
from servingd.wire.json.layout import quoted_text
from servingd.wire.json.parser import parse_exactly
from servingd.wire.json.text import dump_value, parse

DEEP = 500_000

NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70), st.integers(-300, 300), st.floats(allow_nan=False)
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS.filter(math.isfinite) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=20,
)


def same(left: Any, right: Any) -> bool:
    """Equal in value, type and sign."""
    return repr(left) == repr(right)


def outcome(read: Any, *arguments: Any) -> str:
    try:
        return repr(read(*arguments))
    except ServingError as error:
        return f"{type(error).__name__}: {error.message}"


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a":1}garbage', {"a": 1}),
        (b"01x", 0),
        (b"\xef\xbb\xbf[1]", [1]),
        (b"\xef\xbb\xbf [1] x", [1]),
        (b" \t\r\n[ 1 , 2 ] ", [1, 2]),
        (b"[NaN,-NaN]", [math.nan, math.nan]),
        (b"[Inf,Infinity,-Inf,-Infinity]", [math.inf, math.inf, -math.inf, -math.inf]),
        (
            b'{"a":NaN,"b":true,"c":[false,null,Inf]}',
            {"a": math.nan, "b": True, "c": [False, None, math.inf]},
        ),
        (b"-0", 0),
        (b"[-0,NaN]", [0, math.nan]),
        (b"-0.0", -0.0),
        (b"-0x", 0),
        (b"1e2", 100.0),
        (b"18446744073709551615", 2**64 - 1),
        (b"18446744073709551616", 2.0**64),
        (b"18446744073709551616x", 2.0**64),
        (b"-9223372036854775808x", -(2**63)),
        (b"-9223372036854775809x", -(2.0**63)),
        (b"[1%s,NaN]" % (b"0" * 5000)[:300], [1e300, math.nan]),
        (b'{"a":1,"a":2}', {"a": 1}),
        (
            b'{"x":"a:b","a":{"b":[1],"b":2},"c":[{"d":1,"d":2}]}',
            {"x": "a:b", "a": {"b": [1]}, "c": [{"d": 1}]},
        ),
        (b'{"x":"a:\\"b","y":2}', {"x": 'a:"b', "y": 2}),
        (b'"\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83d\\ude00"x', '"\\/\b\f\n\r\t\u00e9\U0001f600'),
        (b'"\\u0000"', "\0"),
        (b'["\xff\xed\xa0\x80"]', ["\udcff\udced\udca0\udc80"]),
        (b'["\xff\\n"]', ["\udcff\n"]),
        (b"[[],{}]x", [[], {}]),
        (b"[1,[2,NaN],{}]", [1, [2, math.nan], {}]),
    ],
)
def test_what_the_dialect_reads(body: bytes, value: Any) -> None:
    assert same(parse(body), value)


@pytest.mark.parametrize(
    ("body", "text", "offset"),
    [
        (b"   ", "The document is empty.", 3),
        (b"\xef\xbb\xbf", "The document is empty.", 3),
        (b"]", "The document is empty.", 0),
        (b"\0", "The document is empty.", 0),
        (b"{", "Missing a name for object member.", 1),
        (b'{"a":1,}', "Missing a name for object member.", 7),
        (b"{'a':1}", "Missing a name for object member.", 1),
        (b"{1:2}", "Missing a name for object member.", 1),
        (b'{"a" 1}', "Missing a colon after a name of object member.", 5),
        (b'{"a"', "Missing a colon after a name of object member.", 4),
        (b'{"a":1 "b":2}', "Missing a comma or '}' after an object member.", 7),
        (b'{"a":1', "Missing a comma or '}' after an object member.", 6),
        (b"[1 2]", "Missing a comma or ']' after an array element.", 3),
        (b"[01]", "Missing a comma or ']' after an array element.", 2),
        (b"[1", "Missing a comma or ']' after an array element.", 2),
        (b"[NaN.5]", "Missing a comma or ']' after an array element.", 4),
        (b'{"a":[1,2,]}', "Invalid value.", 10),
        (b'{"a":', "Invalid value.", 5),
        (b"[", "Invalid value.", 1),
        (b"instances = [1]", "Invalid value.", 0),
        (b"[nan]", "Invalid value.", 2),
        (b"[inf]", "Invalid value.", 1),
        (b"[tru]", "Invalid value.", 4),
        (b"[fals", "Invalid value.", 5),
        (b"[Infi]", "Invalid value.", 5),
        (b"[Na]", "Invalid value.", 3),
        (b"[-]", "Invalid value.", 2),
        (b"[-t]", "Invalid value.", 2),
        (b"[-I]", "Invalid value.", 3),
        (b"[+1]", "Invalid value.", 1),
        (b"[.5]", "Invalid value.", 1),
        (b"/**/1", "Invalid value.", 0),
        (b"['a']", "Invalid value.", 1),
        (b'{"a":1e999}', "Number too big to be stored in double.", 5),
        (b"[-1%s]" % (b"0" * 5000), "Number too big to be stored in double.", 1),
        (b"[1.]", "Miss fraction part in number.", 3),
        (b"[1.e3]", "Miss fraction part in number.", 3),
        (b"[1e]", "Miss exponent in number.", 3),
        (b"[1.5E+]", "Miss exponent in number.", 6),
        (b'["\\u12g4"]', "Incorrect hex digit after \\u escape in string.", 2),
        (b'["a\\ud800"]', "The surrogate pair in string is invalid.", 3),
        (b'["\\udc00"]', "The surrogate pair in string is invalid.", 2),
        (b'["\\ud800\\u0041"]', "The surrogate pair in string is invalid.", 2),
        (b'["\\ud800\\u00"]', "Incorrect hex digit after \\u escape in string.", 2),
        (b'["\\x"]', "Invalid escape character in string.", 2),
        (b'["ab', "Missing a closing quotation mark in string.", 4),
        (b'["a\0"]', "Missing a closing quotation mark in string.", 3),
        (b'["\n"]', "Invalid encoding in string.", 2),
        (b'{"a\x01":1}', "Invalid encoding in string.", 3),
    ],
)
def test_what_the_dialect_refuses(body: bytes, text: str, offset: int) -> None:
    with pytest.raises(InvalidArgument) as raised:
        parse(body)
    assert raised.value.message == f"JSON Parse error: {text} at offset: {offset}"


def test_an_empty_body_has_no_offset() -> None:
    with pytest.raises(InvalidArgument) as raised:
        parse(b"")
    assert raised.value.message == "JSON Parse error: The document is empty"


@pytest.mark.parametrize(
    "body", [b"[" * DEEP + b"]" * DEEP, b'{"a":' * DEEP + b"1" + b"}" * DEEP], ids=["list", "dict"]
)
def test_depth_has_no_limit(body: bytes) -> None:
    assert len(dump_value(parse(body))) < 400


def test_a_deep_document_that_is_broken() -> None:
    with pytest.raises(InvalidArgument, match=f"Invalid value. at offset: {DEEP}"):
        parse(b"[" * DEEP)
    with pytest.raises(InvalidArgument, match="Missing a comma or '}'"):
        parse(b'{"a":' * DEEP + b"1")


@given(VALUES, st.sampled_from([None, 1]), st.booleans())
def test_the_quick_way_and_the_exact_way_read_the_same(
    value: Any, indent: int | None, ascii_only: bool
) -> None:
    body = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode("utf-8")
    assert outcome(parse, body) == outcome(parse_exactly, body)
    assert outcome(parse, body + b" x") == outcome(parse, body)


@given(st.lists(st.tuples(st.sampled_from(["a", "b", 'a":', "c{"]), VALUES), max_size=4))
def test_the_first_of_equal_keys_counts(members: list[tuple[str, Any]]) -> None:
    text = ",".join(f"{json.dumps(key)}:{json.dumps(value)}" for key, value in members)
    body = f'[{{"x":{{{text}}}}}]'.encode()
    assert outcome(parse, body) == outcome(parse_exactly, body)
    assert list(parse(body)[0]["x"]) == list(dict(members))


@given(st.lists(st.one_of(NUMBERS, st.just(math.nan)), max_size=6))
def test_numbers_are_read_as_by_the_standard_library(numbers: list[Any]) -> None:
    read = parse(json.dumps(numbers).encode() + b"x")
    expected = [
        float(number) if type(number) is int and not -(2**63) <= number < 2**64 else number
        for number in numbers
    ]
    assert same(read, expected)


FRAGMENTS = [
    *'[]{}:,"\\ 10-.e\0\né',
    *("\\u", "d800", "NaN", "Inf", "inity", "tr", "true", "null", '"a"', '"a":'),
]


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=12))
@example(["[", '"', "\\u", "d800", "\\u", "d800", '"'])
def test_garbage_is_refused_the_same_way_by_both(parts: list[str]) -> None:
    body = "".join(parts).encode()
    assume(body)
    assert outcome(parse, body) == outcome(parse_exactly, body)


@given(st.binary(max_size=30))
def test_bytes_never_do_anything_else(body: bytes) -> None:
    assert outcome(parse, body)


# ---- a value in an error text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": 1}, '{\n    "a": 1\n}'),
        ([[1, 2], 3], "[[1, 2], 3]"),
        ("x", '"x"'),
        (1.0, "1.0"),
        (-0.0, "-0.0"),
        (0.25, "0.25"),
        (1e20, "100000000000000000000.0"),
        (123456.789, "123456.789"),
        (1e21, "1e21"),
        (1.5e-7, "1.5e-7"),
        (-0.000001, "-0.000001"),
        (5e-324, "5e-324"),
        (2**64 - 1, "18446744073709551615"),
        (True, "true"),
        (False, "false"),
        (None, "null"),
        ([], "[]"),
        ({}, "{}"),
        ([[], {}], "[[], {}]"),
        (
            {"a": {"b": [1, {"c": 2}]}, "d": 3},
            '{\n    "a": {\n        "b": [1, {\n                "c": 2\n            }]\n    },\n'
            '    "d": 3\n}',
        ),
        ('"\\/\n\x01\x1f\x7fé', '"\\"\\\\/\\n\\u0001\\u001F\x7fé"'),
        (math.nan, ""),
        ([1, math.inf, 2], "[1, "),
        (["x" * 300, 1], '["' + "x" * 300 + '"'),
    ],
)
def test_how_a_value_is_shown(value: Any, text: str) -> None:
    assert dump_value(value) == text


def test_a_value_is_cut_at_a_token() -> None:
    shown = dump_value(list(range(1000)))
    assert 256 <= len(shown) < 262
    assert [int(number) for number in shown[1:].split(", ")] == list(range(len(shown.split(", "))))


@given(VALUES)
def test_what_is_not_cut_is_json(value: Any) -> None:
    shown = dump_value(value)
    assume(len(shown.encode()) < 256)
    assert json.loads(shown) == json.loads(json.dumps(value))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_reads_back(number: float) -> None:
    assert same(parse(dump_value(number).encode()), number)


@given(st.text())
def test_a_string_reads_back(text: str) -> None:
    assert parse(quoted_text(text)) == text
