"""TensorProto to numpy and back."""

from __future__ import annotations

import tracemalloc
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from servingd.core.types import DataType, TensorSpec
from servingd.errors import InvalidArgument, ServingError, Unimplemented
from servingd.wire.protos import InputTensor, PredictResponse, TensorProto
from servingd.wire.tensors.decoding import decode
from servingd.wire.tensors.encoding import (
    _fixed_head,
    encode,
    encode_as_content,
    encode_model_spec,
    encode_predict_response,
)
from servingd.wire.tensors.types import FORMS, data_type_of, numpy_dtype, type_name
from servingd.wire.varints import read_varint32, varint, varints

SERVED = [DataType(number) for number in sorted(FORMS)]
NOT_SERVED = sorted(set(DataType) - set(SERVED) - {DataType.INVALID})
LIST_FIELDS = [name for name in TensorProto.DESCRIPTOR.fields_by_name if name.endswith("_val")]


def elements(data_type: DataType) -> st.SearchStrategy[Any]:
    if data_type is DataType.STRING:
        return st.binary(max_size=200)
    if data_type is DataType.BFLOAT16:
        return st.integers(0, 2**16 - 1)
    return hnp.from_dtype(numpy_dtype(data_type))


@st.composite
def arrays(draw: st.DrawFn) -> tuple[np.ndarray[Any, Any], DataType]:
    data_type = draw(st.sampled_from(SERVED))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4))
    dtype = np.uint16 if data_type is DataType.BFLOAT16 else numpy_dtype(data_type)
    array = draw(hnp.arrays(dtype, shape, elements=elements(data_type), fill=st.nothing()))
    return array.view(numpy_dtype(data_type)), data_type


def same(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> bool:
    """Equal in dtype, shape and every bit."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if left.dtype == object:
        return left.ravel().tolist() == right.ravel().tolist()
    return left.tobytes() == right.tobytes()


def shaped(*sizes: int, **fields: Any) -> TensorProto:
    proto = TensorProto(**fields)
    proto.tensor_shape.SetInParent()
    for size in sizes:
        proto.tensor_shape.dim.add(size=size)
    return proto


# ---- types


@pytest.mark.parametrize("data_type", SERVED)
def test_type_and_dtype_agree(data_type: DataType) -> None:
    assert data_type_of(numpy_dtype(data_type)) is data_type


def test_type_of_other_dtypes() -> None:
    assert data_type_of(np.dtype("S3")) is DataType.STRING
    assert data_type_of(np.dtype("U3")) is DataType.STRING
    assert data_type_of(np.dtype(">f4")) is DataType.FLOAT
    assert data_type_of(np.dtype("longlong")) is DataType.INT64
    with pytest.raises(Unimplemented, match="datetime64"):
        data_type_of(np.dtype("datetime64[s]"))


def test_type_names() -> None:
    assert type_name(DataType.FLOAT) == "float"
    assert type_name(DataType.STRING) == "string"
    assert type_name(DataType.FLOAT8_E4M3B11FNUZ) == "float8_e4m3b11fnuz"
    assert type_name(999) == "unknown dtype enum (999)"


@pytest.mark.parametrize("data_type", NOT_SERVED)
def test_type_that_is_not_served(data_type: DataType) -> None:
    for call in (
        lambda: numpy_dtype(data_type),
        lambda: decode(shaped(1, dtype=int(data_type)), "x"),
        lambda: encode(np.zeros(1), data_type),
    ):
        with pytest.raises(Unimplemented, match=f"type {type_name(data_type)} are not served"):
            call()


@pytest.mark.parametrize("number", [0, 101, 34, 999])
def test_number_that_is_no_type(number: int) -> None:
    with pytest.raises(InvalidArgument, match="not a type"):
        numpy_dtype(number)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match=r"^tensor parsing error: x$"):
        decode(shaped(1, dtype=number), "x")


# ---- round trips


@given(arrays())
def test_list_round_trip(case: tuple[np.ndarray[Any, Any], DataType]) -> None:
    array, data_type = case
    proto = TensorProto.FromString(encode(array, data_type))
    assert proto.HasField("tensor_shape")
    assert proto.dtype == data_type
    assert not proto.tensor_content
    lists = {name for name in LIST_FIELDS if getattr(proto, name)}
    assert lists == ({FORMS[data_type].field} if array.size else set())
    assert same(decode(proto, "x"), array)


@given(arrays())
def test_content_round_trip(case: tuple[np.ndarray[Any, Any], DataType]) -> None:
    array, data_type = case
    proto = TensorProto.FromString(encode_as_content(array, data_type))
    assert proto.HasField("tensor_shape")
    assert not any(getattr(proto, name) for name in LIST_FIELDS)
    assert same(decode(proto, "x"), array)


@given(arrays(), st.booleans())
def test_response_round_trip(case: tuple[np.ndarray[Any, Any], DataType], as_content: bool) -> None:
    array, data_type = case
    outputs = {"y": array, "": array, "ü" * 100: array}
    specs = {alias: TensorSpec(data_type, None) for alias in outputs}
    spec = encode_model_spec("m", 3, "s")
    response = PredictResponse.FromString(
        encode_predict_response(outputs, specs, spec, as_content=as_content)
    )
    assert PredictResponse(model_spec=response.model_spec).SerializeToString() == spec
    assert set(response.outputs) == set(outputs)
    for proto in response.outputs.values():
        assert same(decode(proto, "y"), array)
        assert bool(proto.tensor_content) == (as_content and array.size > 0)


@pytest.mark.parametrize("data_type", [t for t in SERVED if t is not DataType.STRING])
@pytest.mark.parametrize("size", [1, 500, 513, 10_000])
def test_large_round_trip(data_type: DataType, size: int) -> None:
    rng = np.random.default_rng(size)
    dtype = numpy_dtype(data_type)
    memory = rng.integers(0, 256, size * dtype.itemsize, np.uint8)
    array = (memory & 1 if data_type is DataType.BOOL else memory).view(dtype)
    for serialised in (encode(array, data_type), encode_as_content(array, data_type)):
        assert same(decode(TensorProto.FromString(serialised), "x"), array)


@pytest.mark.parametrize("as_content", [False, True])
@pytest.mark.parametrize(
    "array",
    [np.array([b"x" * 4096] * 64, object), np.ones(1 << 16, np.float32)],
    ids=["strings", "floats"],
)
def test_values_are_copied_once(array: np.ndarray[Any, Any], as_content: bool) -> None:
    specs = {"y": TensorSpec(data_type_of(array.dtype), None)}

    def answer() -> int:
        return len(encode_predict_response({"y": array}, specs, b"", as_content=as_content))

    size = answer()
    tracemalloc.start()
    try:
        answer()
        assert tracemalloc.get_traced_memory()[1] < 1.1 * size
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("as_content", [False, True])
def test_strings_of_any_lengths(as_content: bool) -> None:
    for lengths in ([0, 9000], [9000, 0], [4095, 4097, 4096], [4096] * 100, [0] * 64 + [9000]):
        array = np.array([b"\xff" * n for n in lengths] + [b""], object)[:-1]
        make = encode_as_content if as_content else encode
        proto = TensorProto.FromString(make(array, DataType.STRING))
        assert same(decode(proto, "x"), array)


def test_model_spec_always_has_its_version() -> None:
    field = encode_model_spec("m", 0, "serving_default")
    spec = PredictResponse.FromString(field).model_spec
    assert spec.HasField("version")
    assert (spec.name, spec.version.value, spec.signature_name) == ("m", 0, "serving_default")


# ---- to the wire


def test_encode_takes_what_tensorflow_returns() -> None:
    cases: list[tuple[Any, DataType, Any]] = [
        (np.float32(1.5), DataType.FLOAT, np.array(1.5, np.float32)),
        (np.int64(-1), DataType.INT64, np.array(-1)),
        (np.bool_(True), DataType.BOOL, np.array(True)),
        (b"a\0", DataType.STRING, np.array(b"a\0", object)),
        ("ü", DataType.STRING, np.array("ü".encode(), object)),
        (np.array([b"a", b"bc"]), DataType.STRING, np.array([b"a", b"bc"], object)),
        ([1, 2], DataType.INT32, np.array([1, 2], np.int32)),
        (np.arange(6.0).reshape(2, 3).T, DataType.DOUBLE, np.arange(6.0).reshape(2, 3).T.copy()),
        (np.arange(9)[::-2], DataType.INT64, np.arange(9)[::-2].copy()),
        (np.array([1.0], ">f4"), DataType.FLOAT, np.array([1.0], "<f4")),
        (np.array([1, 2]), DataType.FLOAT, np.array([1, 2], np.float32)),
    ]
    for value, data_type, expected in cases:
        for serialised in (encode(value, data_type), encode_as_content(value, data_type)):
            assert same(decode(TensorProto.FromString(serialised), "x"), expected)


@pytest.mark.parametrize(
    ("value", "data_type"),
    [
        ("text", DataType.FLOAT),
        ([[1], [2, 3]], DataType.INT32),
        ([300], DataType.INT8),
        ([None], DataType.STRING),
    ],
)
def test_encode_refuses_what_it_cannot_cast(value: Any, data_type: DataType) -> None:
    with pytest.raises(InvalidArgument, match=f"not a tensor of {type_name(data_type)}"):
        encode(value, data_type)


def test_scalar_has_an_empty_shape() -> None:
    assert encode(np.float32(0), DataType.FLOAT) == b"\x08\x01\x12\x00\x2a\x04\0\0\0\0"


def test_head_cache_is_bounded() -> None:
    for size in range(5000):
        encode(np.zeros((0, size), np.float32), DataType.FLOAT)
    assert _fixed_head.cache_info().currsize <= 4096


# ---- from the wire


@pytest.mark.parametrize(
    ("data_type", "field", "one"),
    [
        (DataType.FLOAT, "float_val", 1.5),
        (DataType.DOUBLE, "double_val", 1.5),
        (DataType.INT8, "int_val", 1),
        (DataType.UINT64, "uint64_val", 2**64 - 1),
        (DataType.INT64, "int64_val", -1),
        (DataType.BOOL, "bool_val", True),
        (DataType.STRING, "string_val", b"s"),
    ],
)
def test_lists_are_padded_and_cut(data_type: DataType, field: str, one: Any) -> None:
    zero = b"" if data_type is DataType.STRING else type(one)(0)
    cases = [
        ([], [zero] * 3),
        ([zero, one], [zero, one, one]),
        ([one, zero, one], [one, zero, one]),
        ([one, zero, one, zero], [one, zero, one]),
    ]
    for given_values, expected in cases:
        array = decode(shaped(3, dtype=int(data_type), **{field: given_values}), "x")
        assert array.dtype == numpy_dtype(data_type)
        assert array.tolist() == expected


def test_long_lists_are_padded() -> None:
    array = decode(shaped(102, dtype=1, float_val=[1.0] * 99 + [2.0]), "x")
    assert array.tolist() == [1.0] * 99 + [2.0] * 3


def test_a_list_of_another_type_is_not_looked_at() -> None:
    assert decode(shaped(2, dtype=1, int_val=[1, 2]), "x").tolist() == [0.0, 0.0]


@given(
    st.sampled_from([DataType.INT8, DataType.UINT8, DataType.INT16, DataType.UINT16]),
    st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=100),
)
@example(DataType.INT8, [300])
@example(DataType.UINT8, [-1])
def test_int_val_wraps(data_type: DataType, values: list[int]) -> None:
    array = decode(shaped(len(values), dtype=int(data_type), int_val=values), "x")
    bits = 8 * array.itemsize
    assert [int(value) % 2**bits for value in array] == [value % 2**bits for value in values]


def test_halves_are_bit_patterns() -> None:
    half = decode(shaped(2, dtype=19, half_val=[15360, 0x13C00]), "x")
    assert half.dtype == np.float16
    assert half.tolist() == [1.0, 1.0]
    bfloat = decode(shaped(2, dtype=14, half_val=[16256]), "x")
    assert bfloat.dtype == ml_dtypes.bfloat16
    assert bfloat.astype(float).tolist() == [1.0, 1.0]


def test_complex_numbers_are_pairs() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    assert decode(shaped(3, dtype=8, scomplex_val=values), "x").tolist() == [1 + 2j, 3 + 4j, 3 + 4j]
    assert decode(shaped(1, dtype=18, dcomplex_val=values), "x").tolist() == [1 + 2j]
    assert decode(shaped(2, dtype=8, scomplex_val=[1.0]), "x").tolist() == [0j, 0j]


def test_no_shape_is_a_scalar() -> None:
    assert same(decode(TensorProto(dtype=1, float_val=[2.0]), "x"), np.array(2.0, np.float32))


def test_content_wins_over_lists() -> None:
    proto = shaped(1, dtype=3, int_val=[5], tensor_content=b"\x07\0\0\0")
    assert decode(proto, "x").tolist() == [7]


def test_content_is_not_copied_once_more() -> None:
    array = decode(shaped(2, dtype=1, tensor_content=bytes(8)), "x")
    assert not array.flags.owndata
    assert not array.flags.writeable


def test_empty_tensors() -> None:
    for proto in (
        shaped(0, dtype=1),
        shaped(2, 0, 3, dtype=7),
        shaped(0, dtype=1, float_val=[1.0]),
        shaped(0, dtype=1, tensor_content=b"abc"),
    ):
        array = decode(proto, "x")
        assert array.shape == tuple(dim.size for dim in proto.tensor_shape.dim)


HOSTILE = {
    "negative": shaped(-1, dtype=1),
    "two negatives": shaped(-2, -3, dtype=1, float_val=[0.0] * 6),
    "negative beside zero": shaped(0, -1, dtype=1),
    "unknown rank": TensorProto(dtype=1, tensor_shape={"unknown_rank": True}),
    "overflow": shaped(2**62, 2**62, dtype=1),
    "overflow to zero": shaped(2**32, 2**32, dtype=1),
    "2^40 elements": shaped(2**40, dtype=1, float_val=[1.0]),
    "2^40 zeros": shaped(2**20, 2**20, dtype=3),
    "2^40 strings": shaped(2**40, dtype=7),
    "2^40 strings as content": shaped(2**40, dtype=7, tensor_content=b"\0"),
    "2^28 large numbers": shaped(2**28, dtype=18),
    "too many dimensions": shaped(*[1] * 300, dtype=1),
    "empty and too large for numpy": shaped(0, 2**62, 2**62, dtype=2),
    "content too short": shaped(2, dtype=1, tensor_content=b"1234"),
    "content too long": shaped(1, dtype=1, tensor_content=b"12345678"),
    "content cut within an element": shaped(1, dtype=1, tensor_content=b"123"),
    "a truth value of 2": shaped(2, dtype=10, tensor_content=b"\1\2"),
    "a length that does not end": shaped(1, dtype=7, tensor_content=b"\x80"),
    "a length of six bytes": shaped(1, dtype=7, tensor_content=b"\x80" * 5 + b"\1"),
    "too few lengths": shaped(2, dtype=7, tensor_content=b"\x81\1"),
    "strings too short": shaped(1, dtype=7, tensor_content=b"\2a"),
    "strings too long": shaped(1, dtype=7, tensor_content=b"\1ab"),
    "a huge string": shaped(1, dtype=7, tensor_content=b"\xff\xff\xff\xff\x0fa"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_input(name: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InvalidArgument, match=r"^tensor parsing error: my input$"):
            decode(HOSTILE[name], "my input")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=60))
def test_any_bytes_give_a_tensor_or_an_error_of_ours(content: bytes) -> None:
    proto = shaped(3, 2, dtype=7, tensor_content=content)
    try:
        array = decode(proto, "x")
    except InvalidArgument:
        return
    assert array.shape == (3, 2)
    if content:
        assert sum(map(len, array.ravel())) <= len(content)


# ---- varints


@given(st.lists(st.integers(0, 2**64 - 1), max_size=50))
@example([0, 127, 128, 2**14 - 1, 2**14, 2**28, 2**32 - 1, 2**32, 2**63, 2**64 - 1])
def test_many_varints_are_each_varint(values: list[int]) -> None:
    assert varints(np.array(values, np.uint64)) == b"".join(map(varint, values))


@given(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=50))
def test_negative_numbers_take_ten_bytes(values: list[int]) -> None:
    expected = b"".join(varint(value % 2**64) for value in values)
    assert varints(np.array(values, np.int32)) == expected


@given(st.integers(0, 2**32 - 1), st.binary(max_size=3))
def test_varint_is_read_back(value: int, front: bytes) -> None:
    content = front + varint(value) + b"\x01"
    assert read_varint32(content, len(front)) == (value, len(content) - 1)


# A twin whose shape is left unparsed ------------------------------------------------------------


@given(st.binary(max_size=40))
def test_a_twin_is_read_as_the_message_is(content):
    """Whatever bytes parse as both give the same array, or fail alike."""
    try:
        message = TensorProto.FromString(content)
    except DecodeError:
        return
    twin = InputTensor.FromString(content)
    if twin.ByteSize() != len(content):
        return  # whoever reads a twin looks at that
    outcomes = []
    for tensor in (message, twin):
        try:
            array = decode(tensor, "x")
            outcomes.append((array.dtype, array.shape, array.tolist().__repr__()))
        except ServingError as error:
            outcomes.append((error.code, error.message))
    assert outcomes[0] == outcomes[1]


def test_a_shape_that_does_not_parse_is_the_inputs_fault():
    with pytest.raises(InvalidArgument, match=r"^tensor parsing error: x$"):
        decode(InputTensor(dtype=1, tensor_shape=b"\xff", float_val=[1.0]), "x")
