"""Requests of Examples, left serialised as their client wrote them, and their results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from google.protobuf.message import DecodeError

from servingd.errors import InvalidArgument
from servingd.wire import protos

if TYPE_CHECKING:
    from servingd.wire.protos import ClassificationResult, RegressionResult

Array: TypeAlias = np.ndarray[Any, Any]


def serialized_examples(content: bytes) -> list[bytes]:
    """Return the Examples of a serialised `Input`; a context's bytes precede those of each.

    So the Example's own features win over the context's: that is how messages merge. TensorFlow
    Serving answers INTERNAL where the bytes do not parse; they are the caller's.
    """
    try:
        message = protos.SerializedInput.FromString(content)
    except DecodeError as error:
        raise InvalidArgument(f"Error parsing serialized input: {error}") from error
    if message.WhichOneof("kind") == "example_list_with_context":
        both = message.example_list_with_context
        return [both.context + example for example in both.examples]
    return list(message.example_list.examples)


def classification_result(
    labels: Array | None, scores: Array | None, into: ClassificationResult
) -> None:
    """Fill in one Classifications per example.

    Args:
        labels: `bytes` of shape [examples, classes], or None.
        scores: float32 of the same shape, or None; one of the two is there.
        into: an empty message.
    """
    rows = [_texts(labels), None if scores is None else scores.tolist()]
    count = len(next(row for row in rows if row is not None))
    of_labels, of_scores = rows
    for i in range(count):
        classes = into.classifications.add().classes
        if of_labels is None:
            for score in of_scores[i]:  # type: ignore[index]
                classes.add(score=score)
        elif of_scores is None:
            for label in of_labels[i]:
                classes.add(label=label)
        else:
            for label, score in zip(of_labels[i], of_scores[i], strict=True):
                classes.add(label=label, score=score)


def regression_result(values: Array, into: RegressionResult) -> None:
    """Fill in one Regression per example; `values` is float32 of shape [examples]."""
    for value in values.tolist():
        into.regressions.add(value=value)


def _texts(labels: Array | None) -> list[list[str]] | None:
    """Return labels as text: proto3 strings must be UTF-8, so that other bytes are replaced."""
    if labels is None:
        return None
    return [[label.decode("utf-8", "replace") for label in row] for row in labels.tolist()]
