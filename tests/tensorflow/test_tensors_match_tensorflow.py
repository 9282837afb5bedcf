"""Our TensorProto rules are TensorFlow's: its C++ parser and its Python reader agree with us.

Two differences are meant. TensorFlow takes a shape of unknown rank for a scalar's, we refuse it.
And we refuse what would be large though it brings few bytes, or has more dimensions than numpy has
(64), or no element but a size that numpy cannot count in bytes.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servingd.core.types import DataType
from servingd.errors import InvalidArgument
from servingd.wire.protos import TensorProto
from servingd.wire.tensors.decoding import decode
from servingd.wire.tensors.encoding import encode, encode_as_content
from servingd.wire.tensors.types import FORMS, data_type_of, numpy_dtype, type_name
from servingd.wire.varints import varint

pytestmark = pytest.mark.tf

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
tf = pytest.importorskip("tensorflow")
tensor_pb2 = pytest.importorskip("tensorflow.core.framework.tensor_pb2")

SERVED = [DataType(number) for number in sorted(FORMS)]

INT32 = st.integers(-(2**31), 2**31 - 1)
FLOAT = st.floats(width=32)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "half_val": INT32,
    "float_val": FLOAT,
    "double_val": st.floats(),
    "int_val": INT32,
    "string_val": st.binary(max_size=5),
    "scomplex_val": FLOAT,
    "int64_val": st.integers(-(2**63), 2**63 - 1),
    "bool_val": st.booleans(),
    "dcomplex_val": st.floats(),
    "uint32_val": st.integers(0, 2**32 - 1),
    "uint64_val": st.integers(0, 2**64 - 1),
}


def theirs(proto: TensorProto) -> np.ndarray[Any, Any] | None:
    """What TensorFlow's parser makes of it; None if it refuses."""
    try:
        parsed = tf.io.parse_tensor(proto.SerializeToString(), tf.as_dtype(proto.dtype))
    except tf.errors.InvalidArgumentError:
        return None
    array = np.asarray(parsed.numpy(), numpy_dtype(DataType(proto.dtype)))
    return array.reshape(parsed.shape)


def ours(proto: TensorProto) -> np.ndarray[Any, Any] | None:
    try:
        return decode(proto, "x")
    except InvalidArgument:
        return None


def assert_agree(proto: TensorProto) -> None:
    left, right = ours(proto), theirs(proto)
    if left is None or right is None:
        assert left is None, f"TensorFlow refuses {proto}"
        assert right is None, f"only we refuse {proto}"
        return
    assert_same(left, right)


def assert_same(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> None:
    assert (left.dtype, left.shape) == (right.dtype, right.shape)
    if left.dtype == object:
        assert left.ravel().tolist() == right.ravel().tolist()
    else:
        assert left.tobytes() == right.tobytes()


def shaped(sizes: list[int], **fields: Any) -> TensorProto:
    proto = TensorProto(**fields)
    for size in sizes:
        proto.tensor_shape.dim.add(size=size)
    return proto


SIZES = st.lists(st.integers(0, 4), max_size=3) | st.lists(st.integers(-1, 3), max_size=3)


@st.composite
def list_protos(draw: st.DrawFn) -> TensorProto:
    """A type, a shape, and values in the right list, or sometimes in another one as well."""
    data_type = draw(st.sampled_from(SERVED))
    fields = {FORMS[data_type].field, *draw(st.sets(st.sampled_from(sorted(VALUES))))}
    lists = {field: draw(st.lists(VALUES[field], max_size=40)) for field in sorted(fields)}
    return shaped(draw(SIZES), dtype=int(data_type), **lists)


@st.composite
def content_protos(draw: st.DrawFn) -> TensorProto:
    """A type, a shape, and content that fits, or nearly fits."""
    data_type = draw(st.sampled_from(SERVED))
    sizes = draw(SIZES)
    count = abs(int(np.prod(sizes)))
    if data_type is DataType.STRING:
        strings = draw(st.lists(st.binary(max_size=3), min_size=count, max_size=count))
        content = b"".join((*(varint(len(string)) for string in strings), *strings))
    else:
        size = count * numpy_dtype(data_type).itemsize
        content = draw(st.binary(min_size=size, max_size=size))
        if data_type is DataType.BOOL and draw(st.booleans()):
            content = bytes(byte & 1 for byte in content)
    change = draw(st.sampled_from(["none", "none", "longer", "shorter"]))
    content = content + b"\0" if change == "longer" else content
    content = content[:-1] if change == "shorter" else content
    return shaped(sizes, dtype=int(data_type), tensor_content=content, float_val=[7.0])


@settings(deadline=None, max_examples=400)
@given(list_protos())
def test_lists_agree(proto: TensorProto) -> None:
    assert_agree(proto)


@settings(deadline=None, max_examples=400)
@given(content_protos())
def test_contents_agree(proto: TensorProto) -> None:
    assert_agree(proto)


@settings(deadline=None, max_examples=400)
@given(st.binary(max_size=30), st.lists(st.integers(0, 3), max_size=2))
def test_any_string_contents_agree(content: bytes, sizes: list[int]) -> None:
    assert_agree(shaped(sizes, dtype=int(DataType.STRING), tensor_content=content))


CASES = {
    "no shape": TensorProto(dtype=1, float_val=[1.0]),
    "nothing at all": TensorProto(dtype=1),
    "negative": shaped([-1], dtype=1),
    "two negatives": shaped([-2, -3], dtype=1, float_val=[0.0] * 6),
    "negative beside zero": shaped([0, -1], dtype=1),
    "overflow": shaped([2**62, 2**62], dtype=1),
    "overflow to zero": shaped([2**32, 2**32], dtype=1),
    "overflow, then zero": shaped([2**62, 2**62, 0], dtype=1),
    "64 dimensions": shaped([1] * 64, dtype=1, float_val=[1.0]),
    "300 dimensions": shaped([1] * 300, dtype=1),
    "empty with content": shaped([0], dtype=1, tensor_content=b"abc"),
    "a truth value of 2": shaped([2], dtype=10, tensor_content=b"\1\2"),
    "a length of six bytes": shaped([1], dtype=7, tensor_content=b"\x80" * 5 + b"\1"),
    "a length of five bytes": shaped([1], dtype=7, tensor_content=b"\x81\x80\x80\x80\0a"),
    "a huge string": shaped([1], dtype=7, tensor_content=b"\xff\xff\xff\xff\x0fa"),
    "2^40 strings as content": shaped([2**40], dtype=7, tensor_content=b"\0"),
    "300 as int8": shaped([1], dtype=6, int_val=[300]),
    "-1 as uint16": shaped([1], dtype=17, int_val=[-1]),
    "a half of 17 bits": shaped([1], dtype=19, half_val=[0x13C00]),
    "half a complex number": shaped([2], dtype=8, scomplex_val=[1.0]),
    "one and a half": shaped([2], dtype=8, scomplex_val=[1.0, 2.0, 3.0]),
    "a version from the future": shaped([1], dtype=1, version_number=99, float_val=[1.0]),
}


@pytest.mark.parametrize("name", CASES)
def test_case_agrees(name: str) -> None:
    assert_agree(CASES[name])


def test_differences_that_are_meant() -> None:
    for proto in (
        TensorProto(dtype=1, tensor_shape={"unknown_rank": True}, float_val=[1.0]),
        shaped([1] * 65, dtype=1),
        shaped([0, 2**62], dtype=1),
    ):
        assert ours(proto) is None
        tf.io.parse_tensor(proto.SerializeToString(), tf.float32)


ARRAYS = {
    "scalar": np.array(3),
    "vector": np.array([0, 1, 2, 127, 128]),
    "matrix": np.arange(12).reshape(3, 4)[:, ::2],
    "empty": np.zeros((2, 0, 3)),
    "long": np.arange(2000) % 251,
}


@pytest.mark.parametrize("data_type", SERVED)
@pytest.mark.parametrize("name", ARRAYS)
def test_tensorflow_reads_what_we_write(name: str, data_type: DataType) -> None:
    array = ARRAYS[name]
    if data_type is DataType.STRING:
        texts = [str(value).encode() * 50 for value in array.ravel()]
        array = np.array([*texts, None], object)[:-1].reshape(array.shape)
    else:
        array = array.astype(numpy_dtype(data_type))
        if data_type in (DataType.INT32, DataType.INT64, DataType.FLOAT):
            array = -array
    for encoder in (encode, encode_as_content):
        content = encoder(array, data_type)
        proto = tensor_pb2.TensorProto.FromString(content)
        parsed = tf.io.parse_tensor(content, tf.as_dtype(int(data_type)))
        assert_same(array, np.asarray(parsed.numpy(), array.dtype).reshape(parsed.shape))
        if encoder is encode or data_type is not DataType.STRING:  # make_ndarray cannot read those
            assert_same(array, tf.make_ndarray(proto))


@pytest.mark.parametrize("data_type", SERVED)
def test_one_value_per_element_and_nothing_else(data_type: DataType) -> None:
    """TensorFlow Serving's default answer: no run lengths, no content, the shape always set."""
    field = FORMS[data_type].field
    array = np.zeros((2, 3), numpy_dtype(data_type))
    if data_type is DataType.STRING:
        array = np.full((2, 3), b"", object)
    proto = tensor_pb2.TensorProto.FromString(encode(array, data_type))
    assert {descriptor.name for descriptor, _ in proto.ListFields()} == {
        "dtype",
        "tensor_shape",
        field,
    }
    per_element = 2 if array.dtype.kind == "c" else 1
    assert len(getattr(proto, field)) == 6 * per_element


def test_type_names_are_tensorflows() -> None:
    for data_type in SERVED:
        dtype = tf.as_dtype(int(data_type))
        assert type_name(data_type) in (dtype.name, "float", "double", "half")
        if data_type is not DataType.STRING:
            assert data_type_of(np.dtype(dtype.as_numpy_dtype)) is data_type
