"""The body of a REST classify or regress request, as serialised Examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from servingd.errors import InvalidArgument
from servingd.wire import protos
from servingd.wire.json.lists import to_bytes
from servingd.wire.json.tensors import read_object
from servingd.wire.json.text import dump_value
from servingd.wire.json.values import decode_base64, is_base64, json_type

if TYPE_CHECKING:
    from servingd.wire.protos import Feature

_CONTEXT = "context"
_EXAMPLES = "examples"

_BYTES, _FLOAT, _INT64 = "bytes", "float", "int64"
_MAX_INT64 = 2**63 - 1


@dataclass(frozen=True, slots=True)
class ExamplesBody:
    """The body of a classify or regress request."""

    signature_name: str
    examples: list[bytes]
    """Serialised Examples; the context, if there is one, precedes the features of each."""


def read_examples(body: bytes, method: str) -> ExamplesBody:
    """Read the Examples of a request to `method`, at least one.

    The method changes no check and no error text: TensorFlow Serving writes `classify` for both.

    Raises:
        InvalidArgument: with TensorFlow Serving's text.
    """
    document, signature_name = read_object(body)
    context = b""
    if _CONTEXT in document:
        context = _example(document[_CONTEXT])
    if _EXAMPLES not in document:
        raise InvalidArgument(
            f"JSON Value: {dump_value(document)} When method is classify, "
            f"key '{_EXAMPLES}' is expected and was not found"
        )
    examples = document[_EXAMPLES]
    if type(examples) is not list:
        raise InvalidArgument(
            f"JSON Value: {dump_value(document)} Expecting '{_EXAMPLES}' value to be an list/array"
        )
    if not examples:
        raise InvalidArgument(
            f"JSON Value: {dump_value(document)} '{_EXAMPLES}' value is an empty array"
        )
    return ExamplesBody(signature_name, [context + _example(example) for example in examples])


def _example(value: Any) -> bytes:
    if type(value) is not dict:
        raise InvalidArgument(f"Example must be JSON object but got JSON {json_type(value)}")
    example = protos.Example()
    features = example.features.feature
    for name, content in value.items():
        try:
            feature = features[name]  # made by asking for it
        except (ValueError, UnicodeError):
            raise InvalidArgument(f"Feature: {name} has a name that is not UTF-8") from None
        _fill(feature, name, content if type(content) is list else [content])
    serialized: bytes = example.SerializeToString()
    return serialized


def _fill(feature: Feature, name: str, values: list[Any]) -> None:
    """Put values of one kind into a feature; without values it gets no kind."""
    if not values:
        return
    first_kind = _kind(values[0], name)
    elements = []
    for value in values:
        kind = _kind(value, name)
        if kind != first_kind:
            raise InvalidArgument(
                f"Unexpected element type in feature: {name} expecting type: {first_kind}"
            )
        elements.append(_element(value, kind, name))
    if first_kind == _BYTES:
        feature.bytes_list.value.extend(elements)
    elif first_kind == _FLOAT:
        feature.float_list.value.extend(elements)
    else:
        feature.int64_list.value.extend(elements)


def _kind(value: Any, name: str) -> str:
    kind = type(value)
    if kind is str or is_base64(value):
        return _BYTES
    if kind is float:
        return _FLOAT
    if kind is int or kind is bool:
        return _INT64
    raise InvalidArgument(
        f"Feature: {name} has element with unexpected JSON type: {json_type(value)}"
    )


def _element(value: Any, kind: str, name: str) -> Any:
    if kind == _BYTES:
        return decode_base64(value) if type(value) is dict else to_bytes(value)
    if kind == _FLOAT:
        return value  # beyond a float's range, the message has infinity
    if value > _MAX_INT64:
        raise InvalidArgument(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
    return int(value)
