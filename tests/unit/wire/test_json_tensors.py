"""Bodies of predict requests to tensors: every format, every error, and the quick ways."""

# In the tables, a body and what it makes stand on one line, however long.
# ruff: noqa: E501

from __future__ import annotations

import base64
import json
import threading
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from servingd.core.types import DataType, Signature, TensorSpec
from servingd.errors import InvalidArgument, ServingError, Unimplemented
from servingd.wire.json import tensors as json_tensors
from servingd.wire.json.fast import read_numeric
from servingd.wire.json.tensors import read_object, read_predict
from servingd.wire.json.values import read_tensor
from servingd.wire.tensors.types import numpy_dtype

PAD = b" " * 2100  # makes a body large enough for the quick way
INTEGERS = [
    DataType.INT32,
    DataType.INT16,
    DataType.INT8,
    DataType.UINT8,
    DataType.INT64,
    DataType.UINT32,
    DataType.UINT64,
]
SERVED = [DataType.FLOAT, DataType.DOUBLE, *INTEGERS, DataType.BOOL, DataType.STRING]


def signature(**types: DataType) -> Signature:
    return Signature("s", {alias: TensorSpec(kind, None) for alias, kind in types.items()}, {})


X = signature(x=DataType.FLOAT)
XY = signature(x=DataType.FLOAT, y=DataType.INT32)


def read(body: bytes | str, wanted: Signature = X) -> dict[str, np.ndarray[Any, Any]]:
    return read_predict(body.encode() if isinstance(body, str) else body).inputs(wanted)


def shown(tensors: dict[str, np.ndarray[Any, Any]]) -> list[tuple[str, Any, Any, Any]]:
    return [
        (
            alias,
            array.dtype,
            array.shape,
            array.tolist() if array.dtype == object else array.tobytes(),
        )
        for alias, array in tensors.items()
    ]


def outcome(read: Any, *arguments: Any) -> Any:
    try:
        return shown(read(*arguments))
    except ServingError as error:
        return type(error), error.message


# ---- before the signature


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "JSON Parse error: The document is empty"),
        ("[1, 2]", "JSON Value: [1, 2] Is not object"),
        ("[" + "[1], " * 1000 + "1]", None),
        ('{"signature_name": 1}', 'JSON Value: {\n    "signature_name": 1\n} not formatted correctly. \'signature_name\' key must be a string value.'),
        ('{"signature_name": null, "instances": [1]}', None),
        ('{"instances": [' + "1, " * 1000 + "]}", "JSON Parse error: Invalid value. at offset: 3015"),
    ],
)  # fmt: skip
def test_what_is_told_before_the_signature_is_known(body: str, message: str | None) -> None:
    with pytest.raises(InvalidArgument) as raised:
        read_predict(body.encode())
    assert message is None or raised.value.message == message


@pytest.mark.parametrize("pad", [b"", PAD], ids=["small", "large"])
@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"instances": [1]%s}', ""),
        (b'{%s"signature_name": "a", "instances": [1]}', "a"),
        (b'{"instances": [1] , "signature_name"%s: "a" }', "a"),
        (b'{"signature_name": "a", "instances": [1], "signature_name": %s"b"}', "a"),
        (b'{"signature_name": "", %s"instances": [1], "signature_name": "b"}', ""),
        (b'{"signature_name": "\xff]", "instances": [1]%s}', "\udcff]"),
        (b'{"instances": [1], "signature_name": "\xff]"%s}', "\udcff]"),
        (b'{"signature_name": "\\u0061", "instances": [1]%s}', "a"),
        (b'{"instances": [1], "signature_name": "a"%s} x', "a"),
        (b'{"instances": [1], "signature_name"%s: "a", "z": [1]}', "a"),
    ],
)
def test_signature_name(body: bytes, name: str, pad: bytes) -> None:
    made = read_predict(body % pad)
    assert made.signature_name == name
    assert shown(made.inputs(X)) == shown({"x": np.float32([1])})


# ---- the request as a whole


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"instances": [1], "inputs": 1}', 'JSON Value: {\n    "instances": [1],\n    "inputs": 1\n} Not formatted correctly expecting only one of \'inputs\' or \'instances\' keys to exist '),
        ("{}", "Missing 'inputs' or 'instances' key"),
        ('{"a": 1}', "Missing 'inputs' or 'instances' key"),
        ('{"instances": 1}', 'JSON Value: {\n    "instances": 1\n} Expecting \'instances\' to be an list/array'),
        ('{"instances": {"x": [1]}}', 'JSON Value: {\n    "instances": {\n        "x": [1]\n    }\n} Expecting \'instances\' to be an list/array'),
        ('{"instances": []}', 'JSON Value: {\n    "instances": []\n} No values in \'instances\' array'),
        # Not wrapped in columnar format.
        ('{"inputs": [[1, 2], 3]}', "JSON Value: 3 found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
        ('{"inputs": [1, [2]]}', "Encountered list at unexpected level: 1 expected < 1"),
        ('{"inputs": [[1, 2], [3]]}', "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        ('{"inputs": [[], [1]]}', "Encountered list at unexpected size: 1 at level: 1 expected size: 0"),
        ('{"inputs": [[1], []]}', "Encountered list at unexpected size: 0 at level: 1 expected size: 1"),
        ('{"inputs": null}', "JSON Value: null Type: Null is not of expected type: float"),
        ('{"inputs": [1, null]}', "JSON Value: null Type: Null is not of expected type: float"),
        ('{"inputs": [1, "2"]}', 'JSON Value: "2" Type: String is not of expected type: float'),
        ('{"inputs": [1, true]}', "JSON Value: true Type: True is not of expected type: float"),
        ('{"inputs": [1, false]}', "JSON Value: false Type: False is not of expected type: float"),
        ('{"inputs": [1, {"a": 2}]}', 'JSON Value: {\n    "a": 2\n} Type: Object is not of expected type: float'),
        ('{"inputs": {"b64": "YQ=="}}', 'JSON Value: {\n    "b64": "YQ=="\n} Type: Object is not of expected type: float'),
        ('{"inputs": {"y": [1]}}', "Missing named input: x in 'inputs' object."),
        ('{"inputs": {}}', "Missing named input: x in 'inputs' object."),
        # Wrapped in row format.
        ('{"instances": [1, {"x": 1}]}', "Expecting value/list but got object at item 1 of input list"),
        ('{"instances": [{"x": 1}, 1]}', "Expecting object but got list at item 1 of input list"),
        ('{"instances": [{"x": 1}, {"b64": "YQ=="}]}', "Expecting object but got list at item 1 of input list"),
        ('{"instances": [{"x": 1}, {"z": 1}]}', "Failed to process element: 1 key: z of 'instances' list. Error: INVALID_ARGUMENT: JSON object: does not have named input: z"),
        ('{"instances": [{"x": 1}, {}]}', "Failed to process element: 1 of 'instances' list. JSON object: {} keys must be equal to: x"),
        ('{"instances": [{"x": 1}, {"x": "a"}]}', "Failed to process element: 1 key: x of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: \"a\" Type: String is not of expected type: float"),
        ('{"instances": [1, "a"]}', "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: \"a\" Type: String is not of expected type: float"),
        ('{"instances": [[1, 2], [3]]}', "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: Expecting tensor size: 2 but got: 1"),
        ('{"instances": [[[1], [2]], [[1, 2]]]}', "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: Expecting shape [2,1] but got: [1,2]"),
        ('{"instances": [1, [1]]}', "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: Expecting shape [] but got: [1]"),
        ('{"instances": [[], [[]]]}', "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: Expecting shape [0] but got: [1,0]"),
        ('{"instances": [[[1, 2], 3]]}', "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: 3 found at incorrect level: 2 in the JSON DOM. Expected at level: 2"),
        ('{"instances": [{"b64": "YQ=="}]}', "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: {\n    \"b64\": \"YQ==\"\n} Type: Object is not of expected type: float"),
    ],
)  # fmt: skip
def test_errors_of_one_input(body: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        read(body)
    assert raised.value.message == message
    assert outcome(read, body[:-1].encode() + PAD + b"}") == (InvalidArgument, message)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"instances": [1]}', "instances is a plain list, but expecting list of objects as multiple input tensors required as per tensorinfo_map"),
        ('{"inputs": [1]}', "inputs is a plain value/list, but expecting an object as multiple input tensors required as per tensorinfo_map"),
        ('{"inputs": {"b64": "YQ=="}}', "inputs is a plain value/list, but expecting an object as multiple input tensors required as per tensorinfo_map"),
        ('{"instances": [{"x": 1}]}', "Failed to process element: 0 of 'instances' list. JSON object: {\n    \"x\": 1\n} keys must be equal to: x,y"),
        ('{"instances": [{"x": 1, "y": 1.0}]}', "Failed to process element: 0 key: y of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: 1.0 Type: Number is not of expected type: int32"),
        ('{"instances": [{"z": 1, "x": "a"}]}', "Failed to process element: 0 key: z of 'instances' list. Error: INVALID_ARGUMENT: JSON object: does not have named input: z"),
        ('{"inputs": {"x": [1], "z": 1}}', "Missing named input: y in 'inputs' object."),
        ('{"inputs": {"x": [1], "y": [1.5]}}', "JSON Value: 1.5 Type: Number is not of expected type: int32"),
    ],
)  # fmt: skip
def test_errors_of_two_inputs(body: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        read(body, XY)
    assert raised.value.message == message
    assert outcome(read, body[:-1].encode() + PAD + b"}", XY) == (InvalidArgument, message)


@pytest.mark.parametrize(("name", "told"), [("", "DEFAULT"), ("a", "a")])
def test_a_signature_without_inputs_cannot_be_called(name: str, told: str) -> None:
    body = json.dumps({"signature_name": name, "instances": []})
    with pytest.raises(InvalidArgument, match=f"Failed to get input map for signature: {told}"):
        read(body, signature())


@pytest.mark.parametrize("pad", [b"", PAD], ids=["small", "large"])
@pytest.mark.parametrize(
    ("body", "columnar", "x", "y"),
    [
        (b'{"instances": [{"x": 1, "y": 2}, {"y": 3, "x": 4}]%s}', False, [1, 4], [2, 3]),
        (b'{"instances": [{"x": [1], "y": [[2]]}, {"x": [3], "y": [[4]]}]%s}', False, [[1], [3]], [[[2]], [[4]]]),
        (b'{"instances": [{"x": [1], "y": [2]}, {"y": [3], "x": [4]}]%s}', False, [[1], [4]], [[2], [3]]),
        (b'{"instances": [{"x": [1], "x": [5], "y": [2]}]%s}', False, [[1]], [[2]]),
        (b'{"instances": [{"x": [1], "y": 2}]%s}', False, [[1]], [2]),
        (b'{"inputs": {"x": [[1, 2.5]], "y": [3]}%s}', True, [[1, 2.5]], [3]),
        (b'{"inputs": {"y": [3], "x": [[1, 2]] %s}}', True, [[1, 2]], [3]),
        (b'{"inputs": {"x": [1], "x": [5], "y": [3]}%s}', True, [1], [3]),
        (b'{"inputs": {"x": 1, "y": 3}%s}', True, 1, 3),
        (b'{"inputs": {"x": [1], "y": 3}%s}', True, [1], 3),
        (b'{"inputs": {"x": [1], "y": [3], "extra": {"x": [2]}}%s}', True, [1], [3]),
        (b'{"z": {"inputs": 1}, "inputs": {"x": [1], "y": [3]}%s}', True, [1], [3]),
        (b'{"inputs": {"\\u0078": [1], "y": [3]}%s}', True, [1], [3]),
        (b'{"inputs": {"x": [NaN, -Infinity, Inf, 1e39], "y": [3]}%s}', True, [np.nan, -np.inf, np.inf, np.inf], [3]),
    ],
)  # fmt: skip
def test_formats_of_two_inputs(body: bytes, columnar: bool, x: Any, y: Any, pad: bytes) -> None:
    made = read_predict(body % pad)
    assert shown(made.inputs(XY)) == shown(
        {"x": np.array(x, np.float32), "y": np.array(y, np.int32)}
    )
    assert made.columnar is columnar


@pytest.mark.parametrize("pad", [b"", PAD], ids=["small", "large"])
@pytest.mark.parametrize(
    ("body", "columnar", "x"),
    [
        (b'{"instances": [1.0, 2.0, 5.0]%s}', False, [1, 2, 5]),
        (b'{"instances": [[1, 2.5], [-3e2, 4E-1]]%s} trailing', False, [[1, 2.5], [-300, 0.4]]),
        (b'{"instances": [[[1]], [[2]]]%s}', False, [[[1]], [[2]]]),
        (b'{"instances": [[], []]%s}', False, np.empty((2, 0))),
        (b'{"instances": [[[], []]]%s}', False, np.empty((1, 2, 0))),
        (b'{"instances": [{"x": 1}, {"x": 2}]%s}', False, [1, 2]),
        (b'{"inputs": 1%s}', True, 1),
        (b'{"inputs": []%s}', True, []),
        (b'{"inputs": [[1, 2]]%s}', True, [[1, 2]]),
        (b'{"inputs": {"x": [[1, 2]]}%s}', True, [[1, 2]]),
        (b'\xef\xbb\xbf{"inputs": [1]%s}', True, [1]),
        (b'{"other": 1, "inputs": [1]%s}', True, [1]),
        (b'{"inputs": [1], "inputs": [2]%s}', True, [1]),
    ],
)  # fmt: skip
def test_formats_of_one_input(body: bytes, columnar: bool, x: Any, pad: bytes) -> None:
    made = read_predict(body % pad)
    assert shown(made.inputs(X)) == shown({"x": np.array(x, np.float32)})
    assert made.columnar is columnar


def test_the_signatures_order_counts() -> None:
    wanted = signature(y=DataType.INT8, x=DataType.INT8)
    assert list(read('{"inputs": {"x": 1, "y": 2}}', wanted)) == ["y", "x"]


# ---- values


@pytest.mark.parametrize("pad", [b"", PAD], ids=["small", "large"])
@pytest.mark.parametrize(
    ("data_type", "text", "value"),
    [
        (DataType.FLOAT, "16777217", 16777216.0),
        (DataType.FLOAT, "1e39", np.inf),
        (DataType.FLOAT, "-1e300", -np.inf),
        (DataType.FLOAT, "1e-50", 0.0),
        (DataType.FLOAT, "-0", 0.0),
        (DataType.FLOAT, "-0.0", -0.0),
        (DataType.FLOAT, "18446744073709551616", 2.0**64),
        (DataType.FLOAT, "NaN", np.nan),
        (DataType.FLOAT, "-Inf", -np.inf),
        (DataType.DOUBLE, "9007199254740993", 2.0**53),
        (DataType.DOUBLE, "1e308", 1e308),
        (DataType.DOUBLE, "18446744073709551615", 2.0**64),
        (DataType.INT32, "-2147483648", -(2**31)),
        (DataType.INT8, "300", 44),
        (DataType.UINT8, "-1", 255),
        (DataType.UINT8, "2147483647", 255),
        (DataType.INT16, "40000", 40000 - 65536),
        (DataType.INT64, "9223372036854775807", 2**63 - 1),
        (DataType.INT64, "-9223372036854775808", -(2**63)),
        (DataType.UINT32, "4294967295", 2**32 - 1),
        (DataType.UINT64, "18446744073709551615", 2**64 - 1),
        (DataType.UINT64, "-0", 0),
        (DataType.BOOL, "true", True),
        (DataType.STRING, '"a\\n"', b"a\n"),
        (DataType.STRING, '"\\u00e9é"', "éé".encode()),
        (DataType.STRING, '{"b64": "aGk="}', b"hi"),
        (DataType.STRING, '{"b64": "aGk"}', b"hi"),
        (DataType.STRING, '{"b64": ""}', b""),
        (DataType.STRING, '{"b64": " a\\n+/A "}', b"k\xef\xc0"),
    ],
)  # fmt: skip
def test_values(data_type: DataType, text: str, value: Any, pad: bytes) -> None:
    found = read(b'{"inputs": [%b]%b}' % (text.encode(), pad), signature(x=data_type))["x"]
    expected = np.array([value], found.dtype)
    assert shown({"x": found}) == shown({"x": expected})
    rows = read(b'{"instances": [[%b]]%b}' % (text.encode(), pad), signature(x=data_type))["x"]
    assert shown({"x": rows}) == shown({"x": expected.reshape(1, 1)})


def test_bytes_of_strings_are_not_checked() -> None:
    found = read(b'{"instances": ["\xff\xfe", "a"]}', signature(x=DataType.STRING))["x"]
    assert found.tolist() == [b"\xff\xfe", b"a"]


@pytest.mark.parametrize("pad", [b"", PAD], ids=["small", "large"])
@pytest.mark.parametrize("data_type", SERVED, ids=lambda kind: kind.name)
@pytest.mark.parametrize(
    ("text", "shows", "kind", "fits"),
    [
        ("null", "null", "Null", []),
        ("true", "true", "True", [DataType.BOOL]),
        ("0", "0", "Number", [DataType.FLOAT, DataType.DOUBLE, *INTEGERS]),
        ("1.0", "1.0", "Number", [DataType.FLOAT, DataType.DOUBLE]),
        ("1e2", "100.0", "Number", [DataType.FLOAT, DataType.DOUBLE]),
        ('"1"', '"1"', "String", [DataType.STRING]),
        ("-1", "-1", "Number", [DataType.FLOAT, DataType.DOUBLE, *INTEGERS[:5]]),
        ("2147483648", "2147483648", "Number", [DataType.FLOAT, DataType.DOUBLE, *INTEGERS[4:]]),
        ("4294967296", "4294967296", "Number", [DataType.FLOAT, DataType.DOUBLE, DataType.INT64, DataType.UINT64]),
        ("9223372036854775808", "9223372036854775808", "Number", [DataType.FLOAT, DataType.DOUBLE, DataType.UINT64]),
        ("18446744073709551616", "18446744073709552000.0", "Number", [DataType.FLOAT, DataType.DOUBLE]),
    ],
)  # fmt: skip
def test_which_type_takes_which_value(
    data_type: DataType, text: str, shows: str, kind: str, fits: list[DataType], pad: bytes
) -> None:
    found = outcome(read, b'{"inputs": [%b]%b}' % (text.encode(), pad), signature(x=data_type))
    if data_type in fits:
        assert isinstance(found, list)
    else:
        told = f"is not of expected type: {data_type.name.lower()}"
        assert found == (InvalidArgument, f"JSON Value: {shows} Type: {kind} {told}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"b64": 1}', 'JSON Value: {\n    "b64": 1\n} not formatted correctly for base64 data'),
        ('{"a": "b"}', 'JSON Value: {\n    "a": "b"\n} not formatted correctly for base64 data'),
        ('{"b64": "YQ==", "a": 1}', 'JSON Value: {\n    "b64": "YQ==",\n    "a": 1\n} not formatted correctly for base64 data'),
        ('{"b64": "-_-_"}', "Unable to base64 decode"),
        ('{"b64": "YQ="}', "Unable to base64 decode"),
        ('{"b64": "YWI=="}', "Unable to base64 decode"),
        ('{"b64": "YWJj="}', "Unable to base64 decode"),
        ('{"b64": "Y"}', "Unable to base64 decode"),
        ('{"b64": "Y=Q="}', "Unable to base64 decode"),
        ('{"b64": "Ã©Ã©"}', "Unable to base64 decode"),
    ],
)  # fmt: skip
def test_bad_base64(text: str, message: str) -> None:
    found = outcome(read, f'{{"inputs": ["a", {text}]}}', signature(x=DataType.STRING))
    assert found == (InvalidArgument, message)


@pytest.mark.parametrize(
    ("body", "strings"),
    [
        ('{"instances": [{"b64": "YQ=="}, "b"]}', [b"a", b"b"]),
        ('{"instances": [[{"b64": "YQ"}], ["b"]]}', [[b"a"], [b"b"]]),
        ('{"instances": [{"x": {"b64": "YQ"}}]}', [b"a"]),
        ('{"inputs": {"b64": "YQ"}}', b"a"),
        ('{"inputs": {"x": [{"b64": "YQ"}]}}', [b"a"]),
    ],
)
def test_base64_counts_as_a_value(body: str, strings: Any) -> None:
    assert read(body, signature(x=DataType.STRING))["x"].tolist() == strings


@pytest.mark.parametrize("pad", [b"", PAD], ids=["small", "large"])
@pytest.mark.parametrize("data_type", [DataType.HALF, DataType.BFLOAT16], ids=lambda k: k.name)
def test_halves_are_read_from_numbers(data_type: DataType, pad: bytes) -> None:
    wanted = signature(x=data_type)
    for body in (b'{"instances": [1, 0.1, 1e39]%b}', b'{"inputs": [1, 0.1, 1e39]%b}'):
        found = read(body % pad, wanted)["x"]
        assert found.dtype == numpy_dtype(data_type)
        expected = np.array([1, 0.1, np.inf]).astype(found.dtype)
        assert found.tobytes() == expected.tobytes()
    mixed = read(b'{"instances": [{"x": 1}, {"x": 2.5}]%b}' % pad, wanted)["x"]
    assert mixed.astype(float).tolist() == [1, 2.5]
    told = f'JSON Value: "a" Type: String is not of expected type: {data_type.name.lower()}'
    assert outcome(read, b'{"inputs": ["a"]%b}' % pad, wanted) == (InvalidArgument, told)


UNSERVED = [DataType.UINT16, DataType.COMPLEX64, DataType.QINT8]


@pytest.mark.parametrize("pad", [b"", PAD], ids=["small", "large"])
@pytest.mark.parametrize("data_type", UNSERVED, ids=lambda kind: kind.name)
def test_types_that_json_does_not_have(data_type: DataType, pad: bytes) -> None:
    wanted = signature(x=data_type)
    told = f"Conversion of JSON Value: 1 to type: {data_type.name.lower()}"
    assert outcome(read, b'{"inputs": [1]%b}' % pad, wanted) == (Unimplemented, told)
    wrapped = f"Failed to process element: 0 of 'instances' list. Error: UNIMPLEMENTED: {told}"
    assert outcome(read, b'{"instances": [1]%b}' % pad, wanted) == (InvalidArgument, wrapped)
    named = f"Failed to process element: 0 key: x of 'instances' list. Error: UNIMPLEMENTED: {told}"
    body = b'{"instances": [{"x": [1]}]%b}' % pad
    assert outcome(read, body, wanted) == (InvalidArgument, named)


def test_an_empty_list_has_any_type() -> None:
    found = read('{"inputs": [[]]}', signature(x=DataType.BFLOAT16))["x"]
    assert (found.dtype, found.shape) == (np.dtype(ml_dtypes.bfloat16), (1, 0))


@pytest.mark.parametrize("form", ['{"instances": %s}', '{"inputs": %s}', '{"inputs": {"x": %s}}'])
def test_depth_is_refused_without_a_crash(form: str) -> None:
    for depth in (65, 500_000):
        body = form % ("[" * depth + "1" + "]" * depth)
        with pytest.raises(InvalidArgument, match="has more than 63 dimensions"):
            read(body)
    assert read(form % ("[" * 63 + "1" + "]" * 63))["x"].ndim == 63


def test_depth_elsewhere_does_not_matter() -> None:
    nested = "[" * 500_000 + "]" * 500_000
    assert read(f'{{"nested": {nested}, "instances": [1]}}')["x"].tolist() == [1.0]


def test_a_short_text_that_announces_a_huge_tensor() -> None:
    wide = "[" + "0," * 3000 + "0]"
    body = f'{{"instances": [{wide}' + ",0" * 3000 + "]}"
    assert outcome(read, body)[1].endswith("Expecting tensor size: 3001 but got: 1")
    deep = "[" * 62 + "0" + "]" * 62
    assert outcome(read, f'{{"instances": [{deep}' + ",0" * 3000 + "]}")[0] is InvalidArgument


def test_names_that_differ_in_digits_only() -> None:
    wanted = signature(x1=DataType.FLOAT, x2=DataType.FLOAT)
    first, other = '{"x1": [[1, 2]], "x2": [[3], [4]]}', '{"x2": [[5, 6]], "x1": [[7], [8]]}'
    body = f'{{"instances": [{first}, {other}{" " * 2100}]}}'
    told = "Error: INVALID_ARGUMENT: Expecting shape [2,1] but got: [1,2]"
    assert outcome(read, body, wanted)[1].endswith(told)


def test_bodies_may_be_read_by_many_threads_at_once() -> None:
    body = json.dumps({"instances": [list(range(1000))]}).encode()
    held = [read_predict(body) for _ in range(3)]
    found: list[Any] = []
    threads = [threading.Thread(target=lambda b=b: found.append(b.inputs(X))) for b in held]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [tensors["x"].tolist() for tensors in found] == [[list(range(1000))]] * 3


# ---- the quick ways find what the exact way finds

LEAVES = st.one_of(
    st.integers(-3, 300).map(str),
    st.integers(-(2**65), 2**65).map(str),
    st.floats().map(json.dumps),
    st.sampled_from(["-0", "1e39", "-1E-50", "true", "false", "null", '"a"', '{"b64": "YQ=="}', '"\\u00e9"', "[]", "{}", "[1]", "1.0", "2"]),
)  # fmt: skip
SIMPLE = {
    DataType.BOOL: st.sampled_from(["true", "false"]),
    DataType.STRING: st.text(max_size=3).map(json.dumps),
}


@st.composite
def values(draw: st.DrawFn, data_type: DataType, shape: tuple[int, ...]) -> str:
    """A nested list in JSON that is regular, or nearly so."""
    if draw(st.integers(0, 40)) == 0:
        return draw(LEAVES)
    if not shape:
        return draw(SIMPLE.get(data_type, st.integers(0, 127).map(str)))
    size = max(0, shape[0] + draw(st.sampled_from([0] * 40 + [1, -1])))
    blank = draw(st.sampled_from(["", " ", "\n"]))
    inner = [draw(values(data_type, shape[1:])) for _ in range(size)]
    return f"[{blank}{f',{blank}'.join(inner)}{blank}]"


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, Signature]:
    types = draw(st.lists(st.sampled_from(SERVED), min_size=1, max_size=2))
    names = draw(st.sampled_from([["x", "y"], ["e1", "e2"]]))[: len(types)]
    shapes = [tuple(draw(st.lists(st.integers(0, 3), max_size=3))) for _ in types]
    columns = list(zip(names, types, shapes, strict=True))
    wanted = signature(**dict(zip(names, types, strict=True)))

    def record() -> str:
        order = draw(st.permutations(columns)) if draw(st.integers(0, 9)) == 0 else columns
        members = ", ".join(f'"{n}": {draw(values(t, s))}' for n, t, s in order)
        return f"{{{members}}}"

    rows = draw(st.integers(1, 3))
    plain = len(types) == 1 and draw(st.booleans())
    if draw(st.booleans()):
        one = (lambda: draw(values(types[0], shapes[0]))) if plain else record
        text = f'"instances": [{", ".join(one() for _ in range(rows))}]'
    else:
        text = f'"inputs": {draw(values(types[0], shapes[0])) if plain else record()}'
    return f"{{{text}}}".encode(), wanted


def exactly(body: bytes, wanted: Signature) -> dict[str, np.ndarray[Any, Any]]:
    """What a body says, looked at value by value."""
    document, _ = read_object(body)
    if "instances" in document:
        return json_tensors._rows(document["instances"], wanted.inputs)
    value = document["inputs"]
    if isinstance(value, dict) and "b64" not in value:
        return {a: read_tensor(value[a], spec.data_type) for a, spec in wanted.inputs.items()}
    (alias,) = wanted.inputs
    return {alias: read_tensor(value, wanted.inputs[alias].data_type)}


@given(requests())
@example((b'{"inputs": [[1], []]}', X))
@example((b'{"inputs": [[1], 2]}', X))
@example((b'{"instances": [[1], []]}', X))
@example((b'{"instances": [-0, 18446744073709551615]}', signature(x=DataType.UINT64)))
def test_all_ways_find_the_same(request: tuple[bytes, Signature]) -> None:
    body, wanted = request
    expected = outcome(exactly, body, wanted)
    assert outcome(read, body, wanted) == expected
    assert outcome(read, body[:-1] + PAD + b"}", wanted) == expected
    numeric = read_numeric(body)
    found = numeric.inputs(wanted.inputs) if numeric else None
    assert found is None or shown(found) == expected


@given(st.sampled_from(SERVED[:-2]), st.lists(st.lists(LEAVES, min_size=2, max_size=2), min_size=1))
def test_all_ways_find_the_same_numbers(data_type: DataType, rows: list[list[str]]) -> None:
    lists = ",".join(f"[{','.join(row)}]" for row in rows)
    text = f"[{lists}]"
    wanted = signature(x=data_type)
    for form in ('{"inputs": %s}', '{"instances": %s}', '{"instances": [{"x": %s}]}'):
        body = (form % text).encode()
        expected = outcome(exactly, body, wanted)
        assert outcome(read, body, wanted) == expected
        assert outcome(read, body[:-1] + PAD + b"}", wanted) == expected


@pytest.mark.parametrize("data_type", SERVED[:-2], ids=lambda kind: kind.name)
@pytest.mark.parametrize("number", [2**60 + 2**36 + 1, -(2**60) - 2**36 - 1, 2**63, 7])
def test_rows_of_large_integers_are_rounded_as_elsewhere(data_type: DataType, number: int) -> None:
    """Rounded once to 24 bits the first ones would be other floats than by way of a double."""
    for row in (f'{{"x": {number}, "y": 1.5}}', f'{{"x": [{number}], "y": [1.5]}}'):
        body = f'{{"instances": [{row}, {row}]}}'.encode()
        wanted = signature(x=data_type, y=DataType.FLOAT)
        expected = outcome(exactly, body, wanted)
        assert outcome(read, body, wanted) == expected
        assert outcome(read, body[:-1] + PAD + b"}", wanted) == expected


@given(st.sampled_from(SERVED[:-2]), st.lists(LEAVES, min_size=1, max_size=3))
def test_rows_of_scalars_are_read_the_same_by_all_ways(
    data_type: DataType, leaves: list[str]
) -> None:
    rows = ",".join(f'{{"x1": {leaf}, "x2": 1}}' for leaf in leaves)
    body, wanted = f'{{"instances": [{rows}]}}'.encode(), signature(x1=data_type, x2=data_type)
    expected = outcome(exactly, body, wanted)
    assert outcome(read, body, wanted) == expected
    assert outcome(read, body[:-1] + PAD + b"}", wanted) == expected


@pytest.mark.parametrize("data_type", SERVED[:-2], ids=lambda kind: kind.name)
@pytest.mark.parametrize(
    "form",
    ['{"instances": %s}', '{"inputs": %s}', '{"inputs": {"x": %s}}', '{"instances": [{"x": %s}]}'],
)
def test_a_large_body_of_numbers_is_read_the_quick_way(data_type: DataType, form: str) -> None:
    numbers = np.arange(1200).reshape(3, 20, 20).tolist()
    body = (form % json.dumps(numbers)).encode()
    numeric = read_numeric(body)
    assert numeric is not None
    wanted = signature(x=data_type)
    found = numeric.inputs(wanted.inputs)
    assert found is not None
    assert shown(found) == shown(exactly(body, wanted))


@given(st.binary(max_size=20), st.sampled_from([b'{"instances":%s}', b'{"inputs":%s}', b"%s"]))
def test_garbage_raises_nothing_of_its_own(content: bytes, form: bytes) -> None:
    for data_type in SERVED:
        assert outcome(read, form % content, signature(x=data_type))
        assert outcome(read, PAD + form % content, signature(x=data_type, y=data_type))


def test_padding_of_base64_is_as_the_standard_has_it() -> None:
    for size in range(5):
        text = base64.b64encode(b"\xfb" * size).decode()
        for form in (text, text.rstrip("=")):
            body = json.dumps({"inputs": {"b64": form}})
            assert read(body, signature(x=DataType.STRING))["x"].item() == b"\xfb" * size
