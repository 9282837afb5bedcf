"""Responses of the REST API's predict, classify and regress, and its errors.

The white space is TensorFlow Serving's to the byte. Its floats are not: ours are the shortest text
that reads back equal, where it writes six digits or, if those do not suffice, nine or seventeen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from servingd.core.types import DataType, Tensors, TensorSpec
from servingd.errors import InvalidArgument
from servingd.wire.json.layout import line, on_lines, on_one_line, quoted_text, rows_on_lines
from servingd.wire.json.lists import Array

_MANY = 4
"""Outputs from which on it pays to write those that are alike at once."""

_BYTES_SUFFIX = "_bytes"

_PREDICTIONS = b'{\n    "predictions": '
_OUTPUTS = b'{\n    "outputs": '
_RESULTS = b'{\n    "results": '
_END_OF_ROWS = b"\n    ]\n}"
_END = b"\n}"


def encode_error(message: str) -> bytes:
    """Return the body of an error response."""
    return b'{\n    "error": %b\n}' % quoted_text(message)


def encode_predictions(outputs: Tensors, specs: Mapping[str, TensorSpec], columnar: bool) -> bytes:
    """Return the body of a predict response.

    Args:
        outputs: all of them are written, in their order.
        specs: the signature's outputs; an alias of `outputs` that is missing is a KeyError.
        columnar: whether the request was; else there is one object or value per row.

    Raises:
        InvalidArgument: there are no outputs, JSON has no values of a type, or rows do not fit.
    """
    if not outputs:
        raise InvalidArgument("Cannot convert empty tensor map to JSON")
    return _columns(outputs, specs) if columnar else _rows(outputs, specs)


def _columns(outputs: Tensors, specs: Mapping[str, TensorSpec]) -> bytes:
    if len(outputs) == 1:
        ((alias, value),) = outputs.items()
        return on_lines(value, *_form(alias, specs), 1, before=_OUTPUTS, after=_END)
    members = [
        _key(alias) + on_lines(value, *_form(alias, specs), 2) for alias, value in outputs.items()
    ]
    return _OUTPUTS + b"{" + line(2) + (b"," + line(2)).join(members) + line(1) + b"}" + _END


def _rows(outputs: Tensors, specs: Mapping[str, TensorSpec]) -> bytes:
    count = None
    for alias, value in outputs.items():
        shape = value.shape
        if not shape:
            raise InvalidArgument(f"Tensor name: {alias} has no shape information ")
        if count is None:
            count = shape[0]
        elif shape[0] != count:
            raise InvalidArgument(
                f"Tensor name: {alias} has inconsistent batch size: {shape[0]} expecting: {count}"
            )
    if not count:
        return _PREDICTIONS + b"[]" + _END
    if len(outputs) == 1:
        ((alias, value),) = outputs.items()
        form = _form(alias, specs)
        return on_one_line(value, *form, 1, before=_PREDICTIONS, after=_END_OF_ROWS)
    columns = _texts_of_rows(outputs, specs, count)
    members = [_key(alias).replace(b"%", b"%%") + b"%b" for alias in outputs]
    row = b"{" + line(3) + (b"," + line(3)).join(members) + line(2) + b"}"
    rows = (b"," + line(2)).join(map(row.__mod__, zip(*columns, strict=True)))
    return _PREDICTIONS + b"[" + line(2) + rows + _END_OF_ROWS


def _texts_of_rows(
    outputs: Tensors, specs: Mapping[str, TensorSpec], count: int
) -> list[list[bytes]]:
    """Return the texts of each output's rows; many outputs that are alike are written as one."""
    values = list(outputs.values())
    forms = [_form(alias, specs) for alias in outputs]
    alike = len({(value.shape, value.dtype) for value in values}) == len(set(forms)) == 1
    if not alike or len(values) < _MANY:
        return [rows_on_lines(value, *form, 3) for value, form in zip(values, forms, strict=True)]
    texts = rows_on_lines(np.concatenate(values), *forms[0], 3)
    return [texts[at : at + count] for at in range(0, len(texts), count)]


def _key(alias: str) -> bytes:
    return quoted_text(alias) + b": "


def _form(alias: str, specs: Mapping[str, TensorSpec]) -> tuple[DataType, bool]:
    """Return an output's type, and whether its strings are written as base64."""
    data_type = specs[alias].data_type
    return data_type, data_type is DataType.STRING and alias.endswith(_BYTES_SUFFIX)


# ---- classify and regress


def encode_classifications(labels: Array | None, scores: Array | None) -> bytes:
    """Return the body of a classify response; both are [examples, classes]; one may be None.

    Raises:
        InvalidArgument: there are no examples.
    """
    known: Any = labels if labels is not None else scores
    if known is None or len(known) == 0:
        raise InvalidArgument("Cannot convert empty ClassificationResults to JSON")
    shape = known.shape
    if labels is None:
        labels = np.full(shape, b"", object)
    if scores is None:
        scores = np.zeros(shape, np.float32)
    label_texts = rows_on_lines(labels.reshape(-1), DataType.STRING, False, 0)
    score_texts = rows_on_lines(scores.reshape(-1), DataType.FLOAT, False, 0)
    classes = list(map(b"[%b, %b]".__mod__, zip(label_texts, score_texts, strict=True)))
    size = shape[1]
    examples = [
        b"[%b]" % b", ".join(classes[start * size : (start + 1) * size])
        for start in range(shape[0])
    ]
    return _RESULTS + b"[" + b", ".join(examples) + _END_OF_ROWS


def encode_regressions(values: Array) -> bytes:
    """Return the body of a regress response; `values` are float32 [examples].

    Raises:
        InvalidArgument: there are no examples.
    """
    if len(values) == 0:
        raise InvalidArgument("Cannot convert empty RegressionResults to JSON")
    return _RESULTS + on_one_line(values, DataType.FLOAT, False, 1) + _END
