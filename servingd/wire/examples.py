"""The Examples of a request, kept as their client wrote them."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from servingd.errors import InvalidArgument
from servingd.wire import protos


def serialized_examples(content: bytes) -> list[bytes]:
    """The Examples of a serialised `Input`; a context's bytes stand in front of each of them.

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
