"""What a caller gives as inputs, as arrays."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np

from servingd.client.answers import Signature, TensorSpec, shown_shape
from servingd.client.calls import Array
from servingd.client.casting import fitted
from servingd.core.types import DataType
from servingd.errors import InvalidArgument, ServingError
from servingd.wire.tensors.types import OBJECT, data_type_of, numpy_dtype

_NO_PIXELS = (
    "a path is sent as the bytes of its file, and the model wants numbers here: open the image and "
    "give its pixels, such as PIL.Image.open(path)"
)
_CAST = ", whose values would change; cast them if that is meant: array.astype(...)"
_RAGGED = "expected lists of the same length at each level"


def have_types(inputs: Any) -> bool:
    """Return whether inputs can be sent as they are: by name, each with a type of its own."""
    return isinstance(inputs, Mapping) and all(map(_has_type, inputs.values()))


def _has_type(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic | str | bytes | PurePath)


def arrays_of(model: str, inputs: Any, signature: Signature | None) -> dict[str, Array]:
    """Return inputs as arrays by name, of the signature's dtypes where no value changes by that.

    Texts become object arrays of `str` and `bytes`, paths the bytes of their files, images the
    bytes of a file or pixels, as the signature wants them.

    Args:
        model: its name, for error texts.
        inputs: a mapping by name, or the value of the only input.
        signature: None if it is not known, which it must be for a value without a name.

    Raises:
        InvalidArgument: something cannot be an input; `field` has its name.
    """
    specs = signature.inputs if signature else {}
    named = inputs if isinstance(inputs, Mapping) else {_only(model, specs): inputs}
    arrays = {}
    for name, value in named.items():
        try:
            arrays[name] = _array(value, _dtype(specs.get(name)))
        except (ValueError, TypeError, OverflowError, OSError, ServingError) as error:
            text = _RAGGED if "inhomogeneous" in str(error) else str(error)
            raise about(name, f"input {name}: {text}") from error
    return arrays


def about(field: str, message: str) -> InvalidArgument:
    """Return the error for one field."""
    error = InvalidArgument(message)
    error.field = field
    return error


def misfit(arrays: Mapping[str, Array], signature: Signature) -> tuple[str, str] | None:
    """Return the first input that does not fit the signature, and why; None if all do."""
    for name, spec in signature.inputs.items():
        if name not in arrays:
            return name, f"input {name} is missing; it is {spec}"
    for name, array in arrays.items():
        if name not in signature.inputs:
            known = ", ".join(signature.inputs) or "none"
            return name, f"there is no input {name}; there are: {known}"
        spec = signature.inputs[name]
        try:
            given = data_type_of(array.dtype).name
        except ServingError:
            given = str(array.dtype)
        if given != spec.dtype or not _fits(array.shape, spec.shape):
            hint = _CAST if _are_numbers(array, spec) and given != spec.dtype else ""
            return name, f"input {name} is {spec}, got {given} {shown_shape(array.shape)}{hint}"
    return None


def _are_numbers(array: Array, spec: TensorSpec) -> bool:
    dtype = _dtype(spec)
    return dtype is not None and array.dtype.kind in "iuf" and dtype.kind in "iufV"


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...] | None) -> bool:
    if wanted is None:
        return True
    sizes = zip(shape, wanted, strict=False)
    return len(shape) == len(wanted) and all(size in (got, None) for got, size in sizes)


def _only(model: str, specs: Mapping[str, TensorSpec]) -> str:
    if len(specs) != 1:
        known = ", ".join(f"{name} ({spec})" for name, spec in specs.items()) or "none"
        raise InvalidArgument(
            f"model {model} has {len(specs)} inputs: expected a mapping, with a value for each of "
            f"{known}"
        )
    return next(iter(specs))


def _dtype(spec: TensorSpec | None) -> np.dtype[Any] | None:
    """Return numpy's dtype of an input; None where it is not known, or numpy has none."""
    if spec is None:
        return None
    try:
        return numpy_dtype(DataType[spec.dtype])
    except (ServingError, KeyError):
        return None


def _array(value: Any, wanted: np.dtype[Any] | None) -> Array:
    """Return one input as an array. Raises ValueError, TypeError or OSError."""
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        if array.dtype == OBJECT and wanted in (None, OBJECT):
            return _with_files(array)
        return array if wanted is None else fitted(value, array, wanted)
    leaf = _first_leaf(value)
    if isinstance(leaf, PurePath):
        if wanted not in (None, OBJECT):
            raise TypeError(_NO_PIXELS)
        return np.array(_mapped(value, _file_bytes), OBJECT)
    if is_image(leaf):
        convert = _image_bytes if wanted == OBJECT else np.asarray
        array = np.array(_mapped(value, convert), OBJECT if wanted == OBJECT else None)
    elif isinstance(leaf, str | bytes):
        return np.array(value, OBJECT)  # numpy's own types of texts lose zeros at the end
    else:
        array = np.asarray(value)
    return array if wanted is None else fitted(value, array, wanted)


def _first_leaf(value: Any) -> Any:
    while isinstance(value, list | tuple) and value:
        value = value[0]
    return value


def _mapped(value: Any, convert: Callable[[Any], Any]) -> Any:
    """Return nested lists with what `convert` makes of each leaf."""
    if isinstance(value, list | tuple):
        return [_mapped(inner, convert) for inner in value]
    return convert(value)


def _with_files(array: Array) -> Array:
    if not any(isinstance(element, PurePath) for element in array.flat):
        return array
    read = np.empty(array.shape, OBJECT)
    read.flat[:] = [_file_bytes(element) for element in array.flat]
    return read


def _file_bytes(value: Any) -> Any:
    """Return what a path's file holds; anything else as it is."""
    if not isinstance(value, PurePath):
        return value
    with open(value, "rb") as file:
        return file.read()


def is_image(value: Any) -> bool:
    """Return whether a value looks like an image of Pillow, which need not be installed."""
    return callable(getattr(value, "save", None)) and hasattr(value, "__array_interface__")


def _image_bytes(image: Any) -> bytes:
    """Return an image as a file of the format that it came in; PNG for one that came in none."""
    file = io.BytesIO()
    image.save(file, format=getattr(image, "format", None) or "PNG")
    return file.getvalue()
