"""What may be given as inputs and examples, and what is said of what may not."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from servingd.client import Signature, TensorSpec
from servingd.client.examples import features_of
from servingd.client.inputs import arrays_of, have_types, misfit
from servingd.errors import InvalidArgument

CAST = ", whose values would change; cast them if that is meant: array.astype(...)"


class Image:
    """What is known of an image of Pillow."""

    format = None

    def __init__(self, pixels):
        self.pixels = np.asarray(pixels, np.uint8)

    @property
    def __array_interface__(self):
        return self.pixels.__array_interface__

    def save(self, file, format):
        file.write(format.encode() + self.pixels.tobytes())


def of(dtype, shape=None):
    return Signature({"x": TensorSpec(dtype, shape)}, {})


@pytest.fixture
def picture(tmp_path) -> Path:
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\0")
    return path


@pytest.mark.parametrize(
    ("value", "dtype", "becomes"),
    [
        ([1, 2], "FLOAT", np.float32([1, 2])),
        (2, "INT64", np.int64(2)),
        ([[1], [2]], "HALF", np.float16([[1], [2]])),
        ([0.5], "BFLOAT16", np.array([0.5], ml_dtypes.bfloat16)),
        ([1j], "COMPLEX64", np.complex64([1j])),
        ([1], "COMPLEX64", np.complex64([1])),
        ([True], "BOOL", np.array([True])),
        ([], "STRING", np.array([], object)),
        ([], "BOOL", np.array([], bool)),
        ("a", "STRING", np.array("a", object)),
        ([b"a\0", "ü"], "STRING", np.array([b"a\0", "ü"], object)),
        ([["a"], ["b"]], "STRING", np.array([["a"], ["b"]], object)),
        (np.float64([2.0]), "FLOAT", np.float32([2.0])),
        (np.array(["a"]), "STRING", np.array(["a"])),
        ([np.float32([1]), np.float32([2])], "FLOAT", np.float32([[1], [2]])),
        (Image([[1, 2]]), "FLOAT", np.float32([[1, 2]])),
        ([Image([[1, 2]]), Image([[3, 4]])], "UINT8", np.uint8([[[1, 2]], [[3, 4]]])),
        (Image([[1, 2]]), "STRING", np.array(b"PNG\1\2", object)),
        ([Image([[1]]), Image([[2]])], "STRING", np.array([b"PNG\1", b"PNG\2"], object)),
        # What does not fit is sent as it is, and the server says why.
        ([1.5], "INT32", np.float64([1.5])),
        ([2j], "FLOAT", np.complex128([2j])),
        (["a"], "FLOAT", np.array(["a"], object)),
        ([1], "VARIANT", np.int64([1])),
    ],
)
def test_values_become_arrays_of_the_signatures_type(value, dtype, becomes):
    for given in (value, {"x": value}):
        found = arrays_of("m", given, of(dtype))["x"]
        assert found.dtype == becomes.dtype
        np.testing.assert_array_equal(found, becomes)


def test_paths_are_the_bytes_of_their_files(picture):
    content = picture.read_bytes()
    assert arrays_of("m", {"x": picture}, None)["x"].item() == content
    assert arrays_of("m", [picture, picture], of("STRING"))["x"].tolist() == [content] * 2
    mixed = np.array([picture, b"b"], object)
    assert arrays_of("m", mixed, of("STRING"))["x"].tolist() == [content, b"b"]
    assert features_of([{"image": picture}]) == [{"image": ("bytes", [content])}]


@pytest.mark.parametrize(
    ("inputs", "have"),
    [
        ({"x": np.float32([1])}, True),
        ({"x": "text", "y": b"bytes", "z": Path("a.png"), "n": np.int64(1)}, True),
        ({}, True),
        ({"x": [1.0]}, False),
        ({"x": 1}, False),
        ([1.0], False),
        (np.float32([1]), False),  # its name must be learned
    ],
)
def test_some_inputs_say_what_they_are(inputs, have):
    assert have_types(inputs) is have


@pytest.mark.parametrize(
    ("inputs", "field", "text"),
    [
        ({"x": [[1, 2], [3]]}, "x", "input x: expected lists of the same length at each level"),
        ({"x": Path("/nowhere/a.png")}, "x", "input x: .*No such file.*/nowhere/a.png"),
    ],
)
def test_what_cannot_be_an_input_is_named(inputs, field, text):
    with pytest.raises(InvalidArgument, match=text) as error:
        arrays_of("m", inputs, of("STRING"))
    assert error.value.field == field


def test_a_path_is_no_picture_for_numbers(picture):
    with pytest.raises(InvalidArgument, match=r"input x: .* such as PIL.Image.open\(path\)"):
        arrays_of("m", [picture], of("FLOAT"))


def test_a_value_without_a_name_is_that_of_the_only_input():
    two = Signature({"a": TensorSpec("FLOAT", (None,)), "b": TensorSpec("STRING", None)}, {})
    text = r"model m has 2 inputs: .* each of a \(FLOAT \[\?\]\), b \(STRING of any shape\)"
    with pytest.raises(InvalidArgument, match=text):
        arrays_of("m", [1], two)


@pytest.mark.parametrize(
    ("arrays", "found"),
    [
        ({"x": np.float32([[1, 2, 3]])}, None),
        ({}, ("x", "input x is missing; it is FLOAT [?, 3]")),
        (
            {"x": np.float32([[1, 2, 3]]), "z": np.float32([1])},
            ("z", "there is no input z; there are: x"),
        ),
        ({"x": np.float32([1])}, ("x", "input x is FLOAT [?, 3], got FLOAT [1]")),
        ({"x": np.int32([[1, 2]])}, ("x", f"input x is FLOAT [?, 3], got INT32 [1, 2]{CAST}")),
        (
            {"x": np.array(["2020-01-01"], "M8[D]")},
            ("x", "input x is FLOAT [?, 3], got datetime64[D] [1]"),
        ),
    ],
)
def test_the_input_that_does_not_fit_is_found(arrays, found):
    assert misfit(arrays, of("FLOAT", (None, 3))) == found


@pytest.mark.parametrize(
    ("given", "kind", "values"),
    [
        (2, "int64", [2]),
        (2.0, "float", [2.0]),
        ([1, 2.5], "float", [1.0, 2.5]),
        ("ü", "bytes", ["ü".encode()]),
        ([b"a", "b"], "bytes", [b"a", b"b"]),
        (True, "int64", [1]),
        (np.float32([1, 2]), "float", [1.0, 2.0]),
        (np.int64(3), "int64", [3]),
        ([np.float32(0.5)], "float", [0.5]),
        (np.array([b"a"]), "bytes", [b"a"]),
        ([], "int64", []),
    ],
)
def test_features_have_the_kind_of_their_values(given, kind, values):
    ((feature,),) = (one.values() for one in features_of([{"f": given}]))
    assert feature == (kind, values)


@pytest.mark.parametrize(
    ("examples", "text"),
    [
        ({"f": 1}, "examples: expected a list, with a mapping"),
        ([1], "examples: expected a list, with a mapping"),
        ([{"f": [1, "a"]}], "feature f: expected values of one kind, got bytes and int"),
        ([{"f": [[1]]}], "feature f: expected numbers, texts or bytes in a flat list, got list"),
        ([{"f": None}], "feature f: .* got NoneType"),
    ],
)
def test_what_is_no_example(examples, text):
    with pytest.raises(InvalidArgument, match=text):
        features_of(examples)
