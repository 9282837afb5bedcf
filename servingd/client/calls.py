"""What passes between an operation, an API and a transport."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np

from servingd.client.answers import ModelMetadata, Signature, VersionStatus
from servingd.client.settings import Headers
from servingd.core.types import ModelSpec

Array: TypeAlias = np.ndarray[Any, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """One request, as a transport carries it."""

    path: str
    """gRPC's method, or HTTP's target below the address."""
    body: bytes | None = b""
    verb: str = "POST"
    """HTTP's method."""
    headers: Headers = ()
    """What this kind of call has besides the headers that all calls have."""
    is_stream: bool = False
    """Whether the answer comes in parts."""
    may_repeat: bool = True
    """Whether sending it twice does no harm."""
    also_answers: frozenset[int] = frozenset()
    """HTTP statuses that are answers besides those of success."""


@dataclass(frozen=True, slots=True)
class Send:
    """A command: send a call once. The result is `bytes`, or a stream that has begun."""

    call: Call
    headers: Headers
    timeout_s: float | None


@dataclass(frozen=True, slots=True)
class Pause:
    """A command: wait."""

    seconds: float


Operation: TypeAlias = Generator[Send | Pause, Any, T]
"""One operation: it yields commands, is sent their results or thrown their errors, and returns."""


class Transport(Protocol):
    """What carries calls. Thread-safe."""

    def send(self, command: Send) -> Any:
        """Return the answer, or a stream that has begun. Raises ServingError."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


class AsyncTransport(Protocol):
    """What carries calls for one event loop."""

    async def send(self, command: Send) -> Any:
        """Return the answer, or a stream that has begun. Raises ServingError."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


class Outdated(Exception):
    """An answer does not fit the signature by which it is read."""


class Api(Protocol):
    """What calls mean to a server: requests as bytes, and answers from bytes. Pure."""

    needs_signature: bool
    """Whether answers to predict are read by the signature, since they have no types."""

    def predict(
        self, spec: ModelSpec, inputs: Mapping[str, Array], outputs: Sequence[str], is_stream: bool
    ) -> Call:
        """Return the call. Raises InvalidArgument for inputs that cannot travel."""
        ...

    def read_predict(
        self, answer: bytes, signature: Signature | None, outputs: Sequence[str]
    ) -> dict[str, Array]:
        """Return the outputs. Raises Outdated, or the ServingError that a stream's part has."""
        ...

    def classify(self, spec: ModelSpec, examples: Sequence[Mapping[str, Any]]) -> Call:
        """Return the call. Raises InvalidArgument for a feature that no Example can have."""
        ...

    def read_classify(self, answer: bytes) -> list[list[tuple[str, float]]]:
        """Return label and score of each class, for each example."""
        ...

    def regress(self, spec: ModelSpec, examples: Sequence[Mapping[str, Any]]) -> Call:
        """Return the call. Raises as `classify`."""
        ...

    def read_regress(self, answer: bytes) -> Array:
        """Return the values, float32 [examples]."""
        ...

    def metadata(self, spec: ModelSpec) -> Call:
        """Return the call."""
        ...

    def read_metadata(self, answer: bytes) -> ModelMetadata:
        """Return the metadata."""
        ...

    def status(self, spec: ModelSpec) -> Call:
        """Return the call."""
        ...

    def read_status(self, answer: bytes) -> list[VersionStatus]:
        """Return the versions, in the server's order."""
        ...

    def reload(self, models: Any) -> Call:
        """Return the call. Raises InvalidArgument, or FailedPrecondition if there is none."""
        ...

    def read_reload(self, answer: bytes) -> None:
        """Raise the ServingError that the answer has, if it has one."""
        ...

    def health(self, service: str) -> Call:
        """Return the call."""
        ...

    def read_health(self, answer: bytes, service: str) -> str:
        """Return `SERVING` or another state."""
        ...

    def page(self, path: str, body: Any, method: str | None) -> Call:
        """Return the call. Raises FailedPrecondition where there are no pages."""
        ...

    def read_page(self, answer: bytes) -> Any:
        """Return the JSON, or the text of what is none."""
        ...
