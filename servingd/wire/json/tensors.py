"""The body of a REST predict request, as input tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from servingd.core.types import Signature, TensorSpec
from servingd.errors import InvalidArgument, ServingError
from servingd.wire.json.fast import LargeBody, NumericBody, read_large, read_numeric
from servingd.wire.json.lists import Array, regular_array
from servingd.wire.json.pieces import LARGE_BYTES
from servingd.wire.json.text import dump_value, parse
from servingd.wire.json.values import collect, is_base64, make_array, read_tensor, shape_of

SIGNATURE_NAME = "signature_name"
_INSTANCES = "instances"
_INPUTS = "inputs"

_LARGE = 2048
"""Bytes from which on trying the fast reader for numbers pays."""


def read_object(body: bytes) -> tuple[dict[str, Any], str]:
    """Return a request's JSON object, and its signature name; empty if it has none.

    Raises:
        InvalidArgument: it is no JSON or no object, or the name is not a string.
    """
    document = parse(body)
    if type(document) is not dict:
        raise InvalidArgument(f"JSON Value: {dump_value(document)} Is not object")
    name = document.get(SIGNATURE_NAME, "")
    if type(name) is not str:
        raise InvalidArgument(
            f"JSON Value: {dump_value(document)} not formatted correctly. "
            f"'{SIGNATURE_NAME}' key must be a string value."
        )
    return document, name


class PredictBody:
    """A body that is an object with a proper signature name; its tensors are still to be read.

    `columnar` is set once `inputs` has returned: the response has the request's format.
    """

    __slots__ = ("_body", "_document", "_numeric", "columnar", "signature_name")

    def __init__(
        self,
        signature_name: str,
        document: dict[str, Any] | None = None,
        numeric: NumericBody | LargeBody | None = None,
        body: bytes = b"",
    ) -> None:
        self.signature_name = signature_name
        self.columnar = False
        self._document = document  # read from _body where it is None
        self._numeric = numeric
        self._body = body

    def release(self) -> None:
        """Free the text and what was read of it; call no method afterwards."""
        self._document, self._numeric, self._body = None, None, b""

    def inputs(self, signature: Signature) -> dict[str, Array]:
        """Return the tensors by alias. Defaults of the signature do not count: all must be there.

        Raises:
            InvalidArgument, Unimplemented: with TensorFlow Serving's text.
        """
        specs = signature.inputs
        if not specs:
            raise InvalidArgument(
                f"Failed to get input map for signature: {self.signature_name or 'DEFAULT'}"
            )
        if self._numeric is not None:
            numeric, self._numeric = self._numeric, None
            found = numeric.inputs(specs)
            if found is not None:
                self.columnar = numeric.columnar
                return found
        document = self._document
        if document is None:
            document, _ = read_object(self._body)
        elif len(document) == 1 and len(specs) == 1:  # by far the most frequent
            rows = document.get(_INSTANCES)
            if type(rows) is list and rows and type(rows[0]) is not dict:
                ((alias, spec),) = specs.items()
                array = regular_array(rows, spec.data_type)
                if array is not None:
                    return {alias: array}
        return self._from_document(document, specs, fast=len(self._body) < LARGE_BYTES)

    def _from_document(
        self, document: dict[str, Any], specs: Mapping[str, TensorSpec], *, fast: bool
    ) -> dict[str, Array]:
        """By the rules; `fast` allows what holds the interpreter for as long as all of it takes."""
        if _INSTANCES not in document:
            if _INPUTS not in document:
                raise InvalidArgument("Missing 'inputs' or 'instances' key")
            self.columnar = True
            return _columns(document[_INPUTS], specs, fast)
        self.columnar = False
        if _INPUTS in document:
            raise InvalidArgument(
                f"JSON Value: {dump_value(document)} Not formatted correctly expecting only "
                "one of 'inputs' or 'instances' keys to exist "
            )
        instances = document[_INSTANCES]
        if type(instances) is not list:
            raise InvalidArgument(
                f"JSON Value: {dump_value(document)} Expecting 'instances' to be an list/array"
            )
        if not instances:
            raise InvalidArgument(
                f"JSON Value: {dump_value(document)} No values in 'instances' array"
            )
        return (fast and _fast_rows(instances, specs)) or _rows(instances, specs)


def read_predict(body: bytes) -> PredictBody:
    """Read a request as far as possible without its signature.

    Raises:
        InvalidArgument: as `read_object`.
    """
    if len(body) >= LARGE_BYTES:
        large = read_large(body)
        if large is not None:
            return PredictBody(large.signature_name, None, large, body)
    elif len(body) >= _LARGE:
        numeric = read_numeric(body)
        if numeric is not None:
            return PredictBody(numeric.signature_name, None, numeric, body)
    document, name = read_object(body)
    return PredictBody(name, document, None, body)


# ---- columnar


def _columns(value: Any, specs: Mapping[str, TensorSpec], fast: bool) -> dict[str, Array]:
    if type(value) is not dict or is_base64(value):
        if len(specs) > 1:
            raise InvalidArgument(
                "inputs is a plain value/list, but expecting an object as multiple "
                "input tensors required as per tensorinfo_map"
            )
        return {alias: _tensor(value, spec, fast) for alias, spec in specs.items()}
    found = {}
    for alias, spec in specs.items():
        if alias not in value:
            raise InvalidArgument(f"Missing named input: {alias} in 'inputs' object.")
        found[alias] = _tensor(value[alias], spec, fast)
    return found


def _tensor(value: Any, spec: TensorSpec, fast: bool) -> Array:
    array = regular_array(value, spec.data_type) if fast and type(value) is list else None
    return read_tensor(value, spec.data_type) if array is None else array


# ---- rows


def _fast_rows(instances: list[Any], specs: Mapping[str, TensorSpec]) -> dict[str, Array] | None:
    """Read rows that are regular and of the right types; None where each must be checked."""
    if type(instances[0]) is not dict:
        if len(specs) > 1:
            return None
        ((alias, spec),) = specs.items()
        array = regular_array(instances, spec.data_type)
        return None if array is None else {alias: array}
    names = specs.keys()
    if not all(type(row) is dict and row.keys() == names for row in instances):
        return None
    found = {}
    for alias, spec in specs.items():
        array = regular_array([row[alias] for row in instances], spec.data_type)
        if array is None:
            return None
        found[alias] = array
    return found


def _rows(instances: list[Any], specs: Mapping[str, TensorSpec]) -> dict[str, Array]:
    """Read rows one by one; the first one decides whether they are objects."""
    columns = {alias: _Column(spec) for alias, spec in specs.items()}
    first = instances[0]
    if type(first) is dict and not is_base64(first):
        for index, row in enumerate(instances):
            _add_object(index, row, columns)
    elif len(columns) > 1:
        raise InvalidArgument(
            "instances is a plain list, but expecting list of objects as multiple "
            "input tensors required as per tensorinfo_map"
        )
    else:
        (column,) = columns.values()
        for index, row in enumerate(instances):
            _add_value(index, row, column)
    return {alias: column.array(len(instances)) for alias, column in columns.items()}


def _add_object(index: int, row: Any, columns: dict[str, _Column]) -> None:
    if type(row) is not dict or is_base64(row):
        raise InvalidArgument(f"Expecting object but got list at item {index} of input list")
    for key, value in row.items():
        try:
            if key not in columns:
                raise InvalidArgument(f"JSON object: does not have named input: {key}")
            columns[key].add(value)
        except ServingError as error:
            raise InvalidArgument(
                f"Failed to process element: {index} key: {key} of 'instances' list. "
                f"Error: {error.code.name}: {error.message}"
            ) from error
    if len(row) != len(columns):
        raise InvalidArgument(
            f"Failed to process element: {index} of 'instances' list. JSON object: "
            f"{dump_value(row)} keys must be equal to: {','.join(sorted(columns))}"
        )


def _add_value(index: int, value: Any, column: _Column) -> None:
    if type(value) is dict and not is_base64(value):
        raise InvalidArgument(f"Expecting value/list but got object at item {index} of input list")
    try:
        column.add(value)
    except ServingError as error:
        raise InvalidArgument(
            f"Failed to process element: {index} of 'instances' list. "
            f"Error: {error.code.name}: {error.message}"
        ) from error


class _Column:
    """The values of one input; all have the first one's shape."""

    def __init__(self, spec: TensorSpec) -> None:
        self._data_type = spec.data_type
        self._elements: list[Any] = []
        self._shape: tuple[int, ...] | None = None
        self._size = 0

    def add(self, value: Any) -> None:
        """Append the elements of one row. Raises InvalidArgument or Unimplemented."""
        shape = shape_of(value)
        before = len(self._elements)
        collect(value, shape, self._data_type, self._elements)
        size = len(self._elements) - before
        if self._shape is None:
            self._shape, self._size = shape, size
        elif size != self._size:
            raise InvalidArgument(f"Expecting tensor size: {self._size} but got: {size}")
        elif shape != self._shape:
            raise InvalidArgument(f"Expecting shape {_shown(self._shape)} but got: {_shown(shape)}")

    def array(self, rows: int) -> Array:
        """Return the rows as an array, [rows, ...]."""
        return make_array(self._elements, (rows, *(self._shape or ())), self._data_type)


def _shown(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"
