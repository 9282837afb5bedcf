"""Answers of the REST API: their layout to the byte, their errors, and that they read back."""

from __future__ import annotations

import json
import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from servingd.core.types import DataType, Signature, TensorSpec
from servingd.errors import InvalidArgument
from servingd.wire.json import layout as json_layout
from servingd.wire.json.parser import parse_exactly
from servingd.wire.json.results import (
    encode_classifications,
    encode_error,
    encode_predictions,
    encode_regressions,
)
from servingd.wire.json.tensors import read_predict
from servingd.wire.tensors.types import data_type_of, numpy_dtype

WRITTEN = [
    DataType.FLOAT,
    DataType.DOUBLE,
    DataType.INT32,
    DataType.INT16,
    DataType.INT8,
    DataType.UINT8,
    DataType.INT64,
    DataType.UINT32,
    DataType.UINT64,
    DataType.BOOL,
    DataType.STRING,
]
PAIR = {"a": np.int32([[1, 2], [3, 4]]), "b": np.float32([[3], [0.5]])}


def strings(*values: bytes) -> np.ndarray[Any, Any]:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def specs(outputs: dict[str, np.ndarray[Any, Any]]) -> dict[str, TensorSpec]:
    return {alias: TensorSpec(data_type_of(array.dtype), None) for alias, array in outputs.items()}


def rows(**outputs: Any) -> str:
    return encode_predictions(outputs, specs(outputs), columnar=False).decode()


def columns(**outputs: Any) -> str:
    return encode_predictions(outputs, specs(outputs), columnar=True).decode()


# ---- layout


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        ({"x": np.float32([2.5, 3])}, "[2.5, 3.0\n    ]"),
        ({"x": np.float32([[1, 2], [3, 4]])}, "[[1.0, 2.0], [3.0, 4.0]\n    ]"),
        ({"x": np.int64([[[1], [2]]])}, "[[[1], [2]]\n    ]"),
        ({"x": np.bool_([True, False])}, "[true, false\n    ]"),
        ({"x": strings(b"a, b", b"")}, '["a, b", ""\n    ]'),
        ({"x": np.empty((0, 3))}, "[]"),
        ({"x": np.empty((0,)), "y": np.empty((0, 2))}, "[]"),
        ({"x": np.empty((2, 0))}, "[[], []\n    ]"),
        ({"x": np.empty((1, 2, 0))}, "[[[], []]\n    ]"),
        ({"x": strings().reshape(0, 2)}, "[]"),
        ({"x": strings().reshape(1, 2, 0)}, "[[[], []]\n    ]"),
    ],
)
def test_rows_of_one_output(outputs: dict[str, Any], text: str) -> None:
    assert rows(**outputs) == '{\n    "predictions": ' + text + "\n}"


def test_rows_of_several_outputs() -> None:
    assert rows(**PAIR) == (
        "{\n"
        '    "predictions": [\n'
        "        {\n"
        '            "a": [1, 2],\n'
        '            "b": [3.0]\n'
        "        },\n"
        "        {\n"
        '            "a": [3, 4],\n'
        '            "b": [0.5]\n'
        "        }\n"
        "    ]\n"
        "}"
    )


@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 0), (3, 2, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.int64, object])
def test_rows_of_many_outputs_that_are_alike(shape: tuple[int, ...], dtype: Any) -> None:
    data_type = data_type_of(np.dtype(dtype))
    numbers = np.arange(math.prod(shape))
    outputs = {}
    for i in range(5):
        texts = np.array([b'"%d' % n for n in numbers + i] + [b""], object)[:-1]
        outputs[f"o{i}"] = (texts if dtype is object else (numbers + i).astype(dtype)).reshape(
            shape
        )
    specs = {alias: TensorSpec(data_type, None) for alias in outputs}
    rows = json.loads(encode_predictions(outputs, specs, False))["predictions"]
    for alias, value in outputs.items():
        alone = json.loads(encode_predictions({alias: value}, specs, False))["predictions"]
        assert [row[alias] for row in rows] == alone


def test_rows_of_every_shape() -> None:
    outputs = {
        "scalar": np.int8([1]),
        "deep%s": np.int8([[[[1, 2], [3, 4]]]]),
        "none": np.empty((1, 2, 0)),
        "text": strings(b"], ["),
        "texts": strings(b"a", b"b").reshape(1, 1, 2),
        "no_texts": strings().reshape(1, 0, 2),
    }
    assert rows(**outputs) == (
        "{\n"
        '    "predictions": [\n'
        "        {\n"
        '            "scalar": 1,\n'
        '            "deep%s": [[[1, 2], [3, 4]]],\n'
        '            "none": [[], []],\n'
        '            "text": "], [",\n'
        '            "texts": [["a", "b"]],\n'
        '            "no_texts": []\n'
        "        }\n"
        "    ]\n"
        "}"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.float32(2.5), "2.5"),
        (np.array(7, np.uint64), "7"),
        (np.array(True), "true"),
        (np.array(b"a", object), '"a"'),
        (np.array(np.nan, np.float32), "NaN"),
        (np.float32([2.5, 3]), "[\n        2.5,\n        3.0\n    ]"),
        (np.int32([[1]]), "[\n        [\n            1\n        ]\n    ]"),
        (np.empty((0, 3)), "[]"),
        (np.empty((2, 0)), "[\n        [],\n        []\n    ]"),
        (strings(b"a", b","), '[\n        "a",\n        ","\n    ]'),
        (strings(b"a").reshape(1, 1), '[\n        [\n            "a"\n        ]\n    ]'),
    ],
)
def test_columns_of_one_output(value: Any, text: str) -> None:
    assert columns(x=np.asarray(value)) == '{\n    "outputs": ' + text + "\n}"


def test_columns_of_several_outputs() -> None:
    assert columns(a=np.int32([[1, 2]]), b=np.float32(3), c_bytes=strings(b"hi")) == (
        "{\n"
        '    "outputs": {\n'
        '        "a": [\n'
        "            [\n"
        "                1,\n"
        "                2\n"
        "            ]\n"
        "        ],\n"
        '        "b": 3.0,\n'
        '        "c_bytes": [\n'
        "            {\n"
        '                "b64": "aGk="\n'
        "            }\n"
        "        ]\n"
        "    }\n"
        "}"
    )


def test_bytes_in_rows() -> None:
    assert rows(x_bytes=strings(b"hi", b"\xff")) == (
        '{\n    "predictions": [{\n            "b64": "aGk="\n        }, {\n'
        '            "b64": "/w=="\n        }\n    ]\n}'
    )
    answer = json.loads(rows(x_bytes=strings(b"hi").reshape(1, 1), y=strings(b"hi")))
    assert answer == {"predictions": [{"x_bytes": [{"b64": "aGk="}], "y": "hi"}]}


def test_the_suffix_alone_does_not_make_bytes() -> None:
    assert json.loads(rows(x_bytes=np.int8([1]))) == {"predictions": [1]}
    assert json.loads(rows(bytes_x=strings(b"a"))) == {"predictions": ["a"]}


@given(
    hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=3), st.booleans(), st.booleans()
)
def test_columns_are_laid_out_as_by_the_standard_library(
    shape: tuple[int, ...], several: bool, text: bool
) -> None:
    size = int(np.prod(shape))
    flat = strings(*(b"%d" % i for i in range(size))) if text else np.arange(size)
    array = flat.reshape(shape)
    as_lists = array.astype(str).tolist() if text else array.tolist()
    value: Any = {"x": as_lists, "y": 1} if several else as_lists
    outputs = {"x": array, "y": np.int8(1)} if several else {"x": array}
    assert columns(**outputs) == json.dumps({"outputs": value}, indent=4)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (9000000, "9000000.0"),
        (1e16, "1e+16"),
        (3e-5, "0.00003"),
        (1e-7, "1e-7"),
        (1 / 3, "0.33333334"),
        (555557.5, "555557.5"),
        (16777216, "16777216.0"),
        (-0.0, "-0.0"),
        (3.4028235e38, "3.4028235e+38"),
    ],
)
def test_floats_are_the_shortest_text(value: float, text: str) -> None:
    assert rows(x=np.float32([value])) == '{\n    "predictions": [' + text + "\n    ]\n}"


def test_what_is_not_finite() -> None:
    odd = np.float32([[np.nan, 1], [np.inf, -np.inf]])
    assert rows(x=odd) == '{\n    "predictions": [[NaN, 1.0], [Infinity, -Infinity]\n    ]\n}'
    assert rows(x=odd, y=np.float64([np.inf, 0])).count("Infinity") == 3
    assert "        NaN,\n            1.0" in columns(x=odd)


def test_integers_are_exact() -> None:
    assert rows(x=np.uint64([2**64 - 1])) == f'{{\n    "predictions": [{2**64 - 1}\n    ]\n}}'
    assert rows(x=np.int64([-(2**63)])) == f'{{\n    "predictions": [{-(2**63)}\n    ]\n}}'


def test_strings_are_bytes_and_escaped_where_they_must_be() -> None:
    array = strings(b'"\\/\b\f\n\r\t\x01\x1f\x7f\xc3\xa9\xff')
    assert encode_predictions({"x": array}, specs({"x": array}), columnar=False) == (
        b'{\n    "predictions": ["\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u001F\x7f\xc3\xa9\xff"\n    ]\n}'
    )


def test_an_alias_is_escaped() -> None:
    outputs = {'a"b': np.int8([1]), "%d": np.int8([2])}
    for columnar in (True, False):
        text = encode_predictions(outputs, specs(outputs), columnar)
        assert '"a\\"b": ' in text.decode()
        assert '"%d": ' in text.decode()


def test_arrays_of_any_memory_layout() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = rows(x=array)
    assert rows(x=np.asfortranarray(array)) == expected
    assert rows(x=np.repeat(array, 2, axis=0)[::2]) == expected
    assert rows(x=array.astype(">f4")) == expected
    unaligned = np.frombuffer(b"x" + array.tobytes(), np.float32, 6, 1).reshape(2, 3)
    assert rows(x=unaligned) == expected


def test_values_are_cast_to_the_type_of_the_output() -> None:
    wanted = {"x": TensorSpec(DataType.FLOAT, None)}
    assert encode_predictions({"x": np.array([1])}, wanted, False).count(b"1.0") == 1
    wanted = {"x": TensorSpec(DataType.STRING, None)}
    assert encode_predictions({"x": np.array(["é"])}, wanted, False).count("é".encode()) == 1


# ---- errors


def test_no_outputs() -> None:
    for columnar in (True, False):
        with pytest.raises(InvalidArgument, match=r"^Cannot convert empty tensor map to JSON$"):
            encode_predictions({}, {}, columnar)


def test_rows_need_a_dimension() -> None:
    with pytest.raises(InvalidArgument, match=r"^Tensor name: x has no shape information $"):
        rows(x=np.array(1))


def test_rows_must_be_as_many() -> None:
    told = "^Tensor name: y has inconsistent batch size: 3 expecting: 2$"
    with pytest.raises(InvalidArgument, match=told):
        rows(x=np.zeros(2), y=np.zeros((3, 1)))
    with pytest.raises(InvalidArgument, match="batch size: 1 expecting: 0"):
        rows(x=np.zeros(0), y=np.zeros(1))


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16])
def test_halves_are_written_as_the_floats_that_they_are(kind: Any) -> None:
    values = np.array([0.5, -2, 0.1, np.nan, np.inf], np.float32).astype(kind)
    tenth = repr(float(np.float32(values[2])))
    written = json.loads(rows(x=values))["predictions"]
    assert written[:2] == [0.5, -2.0]
    assert np.array(written, np.float32).astype(kind).tobytes() == values.tobytes()
    assert float(np.float32(written[2])) == float(tenth)
    assert "[[0.5], [2.0]\n" in rows(x=np.array([[0.5], [2]], kind))
    assert columns(x=np.array(1.5, kind), y=np.array([0.25], kind)).count(".") == 2


@pytest.mark.parametrize("columnar", [True, False])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("data_type", [DataType.UINT16, DataType.COMPLEX64])
def test_types_that_json_does_not_have(data_type: DataType, count: int, columnar: bool) -> None:
    outputs = {f"x{i}": np.zeros(1, numpy_dtype(data_type)) for i in range(count)}
    told = f"^Failed to write JSON value for tensor type: {data_type.name.lower()}$"
    with pytest.raises(InvalidArgument, match=told):
        encode_predictions(outputs, specs(outputs), columnar)


@pytest.mark.parametrize(
    ("value", "data_type"),
    [
        (np.array([1], object), DataType.STRING),
        (np.array([b"a"], object), DataType.FLOAT),
        (np.array([None], object), DataType.INT64),
    ],
)
def test_values_that_are_not_of_the_outputs_type(value: Any, data_type: DataType) -> None:
    with pytest.raises(InvalidArgument, match=r"^not a tensor of"):
        encode_predictions({"x": value}, {"x": TensorSpec(data_type, None)}, False)


@pytest.mark.parametrize(
    ("message", "body"),
    [
        ("text", b'{\n    "error": "text"\n}'),
        ('a "b"\n/é', '{\n    "error": "a \\"b\\"\\n/é"\n}'.encode()),
        ("\udcff", b'{\n    "error": "\xff"\n}'),
        ("\ud800", b'{\n    "error": "?"\n}'),
    ],
)
def test_error(message: str, body: bytes) -> None:
    assert encode_error(message) == body


# ---- classify and regress


def test_classifications() -> None:
    labels = strings(b"a", b"b", b"c", b'"').reshape(2, 2)
    scores = np.float32([[0.2, 0.8], [np.nan, 0]])
    assert encode_classifications(labels[:1], scores[:1]) == (
        b'{\n    "results": [[["a", 0.2], ["b", 0.8]]\n    ]\n}'
    )
    assert encode_classifications(labels, scores) == (
        b'{\n    "results": [[["a", 0.2], ["b", 0.8]], [["c", NaN], ["\\"", 0.0]]\n    ]\n}'
    )
    assert encode_classifications(labels, None).count(b"0.0") == 4
    assert encode_classifications(None, scores[:1]) == (
        b'{\n    "results": [[["", 0.2], ["", 0.8]]\n    ]\n}'
    )
    no_classes = np.empty((2, 0), np.float32)
    assert encode_classifications(None, no_classes) == b'{\n    "results": [[], []\n    ]\n}'


@pytest.mark.parametrize("scores", [None, np.empty((0, 2), np.float32)])
def test_no_classifications(scores: Any) -> None:
    told = "^Cannot convert empty ClassificationResults to JSON$"
    with pytest.raises(InvalidArgument, match=told):
        encode_classifications(None, scores)


def test_regressions() -> None:
    values = np.float32([0.2, np.inf, 3])
    assert encode_regressions(values) == b'{\n    "results": [0.2, Infinity, 3.0]\n}'
    with pytest.raises(InvalidArgument, match=r"^Cannot convert empty RegressionResults to JSON$"):
        encode_regressions(values[:0])


# ---- round trips


@st.composite
def outputs(draw: st.DrawFn) -> dict[str, np.ndarray[Any, Any]]:
    made = {}
    rows = draw(st.integers(1, 3))
    for alias in draw(st.sampled_from([["x"], ["x_bytes"], ["a", "b_bytes"]])):
        data_type = draw(st.sampled_from(WRITTEN))
        shape = (rows, *draw(hnp.array_shapes(min_dims=0, max_dims=4, max_side=3)))
        elements = st.binary(max_size=6) if data_type is DataType.STRING else None
        made[alias] = draw(hnp.arrays(numpy_dtype(data_type), shape, elements=elements))
    return made


def read_back(
    answer: bytes, made: dict[str, np.ndarray[Any, Any]]
) -> dict[str, np.ndarray[Any, Any]]:
    request = answer.replace(b'"predictions"', b'"instances"').replace(b'"outputs"', b'"inputs"')
    return read_predict(request).inputs(Signature("s", specs(made), {}))


@given(outputs(), st.booleans())
@example({"x": np.float32([[np.nan, 1e-45], [-0.0, np.inf]])}, True)
@example({"x": np.arange(3000, dtype=np.float32).reshape(3, 1000)}, False)
def test_what_is_written_reads_back(made: dict[str, np.ndarray[Any, Any]], columnar: bool) -> None:
    answer = encode_predictions(made, specs(made), columnar)
    found = read_back(answer, made)
    assert list(found) == list(made)
    for alias, array in made.items():
        back = found[alias]
        assert (back.dtype, back.shape) == (array.dtype, array.shape)
        if array.dtype.kind == "f":
            np.testing.assert_array_equal(back, array)
            finite = ~np.isnan(array)
            assert (np.signbit(back) == np.signbit(array))[finite].all()
        else:
            assert back.tolist() == array.tolist()


@given(st.integers(0, 2**32 - 1))
def test_every_float_stays_a_float(pattern: int) -> None:
    array = np.array([pattern], np.uint32).view(np.float32)
    answer = parse_exactly(encode_predictions({"x": array}, specs({"x": array}), columnar=False))
    assert type(answer["predictions"][0]) is float


@pytest.mark.parametrize("shape", [(100,), (1, 100), (10, 10), (3, 1, 40), (2, 3, 5), (0, 5), (7,)])
@pytest.mark.parametrize("columnar", [False, True])
@pytest.mark.parametrize("outputs", [1, 2])
def test_large_answers_are_written_in_pieces_to_the_same_byte(
    shape, columnar, outputs, monkeypatch
):
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) / 3
    values.reshape(-1)[3:5] = np.nan
    found = {f"y{i}": values + i for i in range(outputs)}
    specs = {alias: TensorSpec(DataType.FLOAT, None) for alias in found}
    at_once = encode_predictions(found, specs, columnar)
    monkeypatch.setattr(json_layout, "_PIECE", 8)
    assert encode_predictions(found, specs, columnar) == at_once
