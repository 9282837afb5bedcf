"""Parse the protobuf messages of all APIs."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError

from servingd.errors import InvalidArgument, ResourceExhausted


class MessageParser:
    """Parses requests of at most `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes

    def parse(self, kind: Any, payload: bytes, name: str = "") -> Any:
        """Return the message in a payload; `name` is the original message's if `kind` is a twin.

        Raises ResourceExhausted (too large) or InvalidArgument (it does not parse).
        """
        if len(payload) > self._max_bytes:
            raise ResourceExhausted(
                f"Received message larger than max ({len(payload)} vs. {self._max_bytes})"
            )
        try:
            return kind.FromString(payload)
        except DecodeError as error:
            raise InvalidArgument(
                f"the request does not parse as {name or kind.DESCRIPTOR.full_name}: {error}"
            ) from error
