"""Our requests read by the server's readers, and the server's answers read by us."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from servingd.client import Signature, TensorSpec
from servingd.client.calls import Outdated
from servingd.client.rest.api import CODES, RestApi, error_of
from servingd.core import types
from servingd.core.types import DataType, ModelSpec
from servingd.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    UnknownError,
)
from servingd.frontends.status_codes import HTTP
from servingd.wire.json.examples import read_examples
from servingd.wire.json.results import (
    encode_classifications,
    encode_predictions,
    encode_regressions,
)
from servingd.wire.json.tensors import read_predict
from servingd.wire.protos import Example
from servingd.wire.tensors.types import FORMS, numpy_dtype

API = RestApi()
SPEC = ModelSpec("a model", 3, None, "own")
NOT_IN_JSON = {DataType.UINT16, DataType.COMPLEX64, DataType.COMPLEX128}
NUMBERS = FORMS.keys() - NOT_IN_JSON - {DataType.STRING}


def tensors(data_type):
    dtype = numpy_dtype(DataType(data_type))
    plain = np.dtype(np.float32) if dtype.kind == "V" else dtype
    shapes = hnp.array_shapes(min_dims=1, max_dims=3, max_side=3)
    return hnp.arrays(plain, shapes).map(lambda array: array.astype(dtype))


def texts():
    elements = st.binary(max_size=4) | st.text(max_size=4).map(str.encode)
    return hnp.arrays(object, hnp.array_shapes(max_dims=2, max_side=3), elements=elements)


ANY = st.one_of(*(st.tuples(st.just(t), tensors(t)) for t in sorted(NUMBERS))) | st.tuples(
    st.just(DataType.STRING), texts()
)


def same(found, wanted):
    assert found.dtype == wanted.dtype
    assert found.shape == wanted.shape
    assert found.tolist() == wanted.tolist() or np.array_equal(found, wanted, equal_nan=True)


def alike(array):
    return array.astype(np.float64) if array.dtype.kind in "fV" else array


@given(ANY, ANY)
def test_the_server_reads_what_we_write(one, other):
    call = API.predict(SPEC, {"x": one[1], "y": other[1]}, (), is_stream=False)
    assert (call.verb, call.path) == ("POST", "/v1/models/a%20model/versions/3:predict")
    specs = {
        "x": types.TensorSpec(DataType(one[0]), None),
        "y": types.TensorSpec(DataType(other[0]), None),
    }
    read = read_predict(call.body)
    assert read.signature_name == "own"
    for found, wanted in zip(
        read.inputs(types.Signature("own", specs, {})).values(), (one[1], other[1]), strict=True
    ):
        assert found.dtype == wanted.dtype
        same(alike(found), alike(wanted))


@given(st.lists(ANY, min_size=1, max_size=3))
def test_we_read_what_the_server_writes(outputs):
    arrays = {f"o{n}_bytes" if n % 2 else f"o{n}": array for n, (_, array) in enumerate(outputs)}
    kinds = dict(zip(arrays, (DataType(t) for t, _ in outputs), strict=True))
    specs = {name: types.TensorSpec(kind, None) for name, kind in kinds.items()}
    body = encode_predictions(arrays, specs, columnar=True)
    ours = {name: TensorSpec(kind.name, None) for name, kind in kinds.items()}
    found = API.read_predict(body, Signature({}, ours), ())
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        same(alike(found[name]), alike(array))


def outputs(**specs):
    return Signature({}, {n: TensorSpec(*spec) for n, spec in specs.items()})


def test_outputs_may_be_chosen():
    signature = outputs(a=("FLOAT", None), b=("FLOAT", None))
    body = b'{"outputs": {"a": [1], "b": [2.5]}}'
    assert list(API.read_predict(body, signature, ("b",))) == ["b"]
    with pytest.raises(InvalidArgument, match="there is no output c; there are: a, b") as error:
        API.read_predict(body, signature, ("c",))
    assert error.value.field == "c"


def test_an_empty_output_has_the_shape_of_its_signature():
    body = b'{"outputs": []}'
    for shape, found in [((None, 3), (0, 3)), ((None,), (0,)), (None, (0,)), ((2, 3), (0,))]:
        (array,) = API.read_predict(body, outputs(y=("INT64", shape)), ()).values()
        assert array.dtype == np.int64
        assert array.shape == (found if shape != (2, 3) else (0, 3))


@pytest.mark.parametrize(
    ("body", "signature"),
    [
        (b'{"outputs": [2.5]}', outputs(y=("INT64", None))),
        (b'{"outputs": [true]}', outputs(y=("FLOAT", None))),
        (b'{"outputs": ["a"]}', outputs(y=("FLOAT", None))),
        (b'{"outputs": [1]}', outputs(y=("STRING", None))),
        (b'{"outputs": [1]}', outputs(y=("BOOL", None))),
        (b'{"outputs": [300]}', outputs(y=("UINT8", None))),
        (b'{"outputs": [1]}', outputs(y=("FLOAT", None), z=("FLOAT", None))),
        (b'{"outputs": {"w": [1]}}', outputs(y=("FLOAT", None), z=("FLOAT", None))),
    ],
)
def test_an_answer_of_another_version_is_told(body, signature):
    with pytest.raises(Outdated):
        API.read_predict(body, signature, ())


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"error": "gone"}', UnknownError),
        (b'{"error": "Timed out waiting for notification"}', DeadlineExceeded),
        (b"<html>", Internal),
        (b"[]", Internal),
        (b"{}", Internal),
    ],
)
def test_answers_that_are_none(body, kind):
    with pytest.raises(kind):
        API.read_predict(body, outputs(y=("FLOAT", None)), ())


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.complex64([1]), "input x: REST has no complex numbers: use the gRPC port"),
        (np.array([None], object), "input x: expected texts or bytes, got NoneType"),
        (np.array(["\ud800"], object), "input x: .*surrogates"),
    ],
)
def test_what_json_cannot_hold_is_named(array, text):
    with pytest.raises(InvalidArgument, match=text) as error:
        API.predict(SPEC, {"x": array}, (), is_stream=False)
    assert error.value.field == "x"


def test_the_server_reads_our_examples():
    call = API.classify(
        ModelSpec("m", None, "stable"), [{"a": [1.5, 2.0], "b": "ü", "c": b"\xff", "d": 3}, {}]
    )
    assert call.path == "/v1/models/m/labels/stable:classify"
    first, second = (Example.FromString(one) for one in read_examples(call.body, "").examples)
    feature = first.features.feature
    assert list(feature["a"].float_list.value) == [1.5, 2.0]
    assert list(feature["b"].bytes_list.value) == ["ü".encode()]
    assert list(feature["c"].bytes_list.value) == [b"\xff"]
    assert list(feature["d"].int64_list.value) == [3]
    assert not second.features.feature


def test_we_read_classes_and_values():
    labels = np.array([["cat", b"dog"]], object)
    body = encode_classifications(labels, np.float32([[0.25, np.nan]]))
    ((cat, dog),) = API.read_classify(body)
    assert cat == ("cat", 0.25)
    assert dog[0] == "dog"
    assert np.isnan(dog[1])
    found = API.read_regress(encode_regressions(np.float32([0.1, -np.inf])))
    same(found, np.float32([0.1, -np.inf]))


def test_every_status_of_the_servers_stands_for_a_code_that_has_it():
    for code, status in HTTP.items():
        if status != 200:
            assert HTTP[CODES[status]] == status, code


@pytest.mark.parametrize(
    ("status", "body", "code", "text"),
    [
        (404, b'{"error": "no such model"}', "NOT_FOUND", "no such model"),
        (503, b"<h1>busy</h1>", "UNAVAILABLE", "<h1>busy</h1>"),
        (502, b"", "UNAVAILABLE", "the server answered with HTTP status 502"),
        (418, b"[1]", "INVALID_ARGUMENT", "[1]"),
        (301, b"", "UNKNOWN", "the server answered with HTTP status 301"),
        (599, b'{"error": 3}', "UNKNOWN", "3"),
    ],
)
def test_errors_have_the_servers_text(status, body, code, text):
    error = error_of(status, body)
    assert (error.code.name, error.message) == (code, text)


def test_pages_are_got_or_posted_to():
    get, post = API.page("servingd/v1/models", None, None), API.page("/a", {"b": 1}, None)
    assert (get.verb, get.path, get.body, get.may_repeat) == ("GET", "/servingd/v1/models", None, 1)
    assert (post.verb, json.loads(post.body), post.may_repeat) == ("POST", {"b": 1}, False)
    assert API.page("/a", None, "delete").verb == "DELETE"
    assert API.read_page(b'{"a": 1}') == {"a": 1}
    assert API.read_page(b"not ready\n") == "not ready\n"
    with pytest.raises(FailedPrecondition, match="grpc://HOST:8500"):
        API.reload([])
