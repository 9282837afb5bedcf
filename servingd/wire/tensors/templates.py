"""PredictRequests of one form, parsed once: the next ones are read by offset.

What a client sends differs from call to call in the bytes of a tensor and in nothing else. A
template is such a request with that place left open: a request that begins and ends as the
template does, and is as long, *is* that request with other numbers, because the length of what
lies between stands in the part that is the same. So it need not be parsed, and its numbers are read
where they lie, without a copy.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf.message import DecodeError

from servingd.core.types import DataType, ModelSpec
from servingd.errors import ServingError
from servingd.wire import protos
from servingd.wire.tensors.proto import decode, numpy_dtype

if TYPE_CHECKING:
    from servingd.wire.protos import PredictRequest, TensorProto

MAX_FRAME_BYTES = 1024
"""Bytes of a request before the tensor's content, and behind it, at most."""

MAX_TEMPLATES = 256
"""All templates are dropped when there are more than this."""

_PER_LENGTH = 4
_TRIES = 8
_UNFIT = (DataType.BOOL, DataType.STRING)
"""Types whose content must be checked, or is not a run of numbers."""


@dataclass(frozen=True, slots=True)
class Template:
    """A PredictRequest but for the content of its only tensor."""

    front: bytes
    back: bytes
    spec: ModelSpec
    aliases: Mapping[str, None]
    output_filter: Sequence[str]
    data_type: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    count: int

    def array(self, payload: bytes) -> np.ndarray[Any, Any]:
        """Return the tensor of a request of this form: a read-only view, not aligned in memory."""
        flat = np.frombuffer(payload, self.dtype, self.count, len(self.front))
        return flat if len(self.shape) == 1 else flat.reshape(self.shape)


class RequestTemplates:
    """The templates of the requests that came in lately. From any thread."""

    def __init__(self) -> None:
        self._by_length: dict[int, tuple[Template, ...]] = {}  # values are replaced, never changed
        self._lock = threading.Lock()
        self._seen: dict[int, int] = {}  # guarded by _lock: requests without a template, by length

    def find(self, payload: bytes) -> Template | None:
        """Return the template that a request fits, if one was learnt."""
        for template in self._by_length.get(len(payload), ()):
            if payload.startswith(template.front) and payload.endswith(template.back):
                return template
        return None

    def learn(self, payload: bytes, request: PredictRequest, spec: ModelSpec) -> None:
        """Note a request that fitted no template; its form is learnt when it comes again."""
        with self._lock:
            if len(self._seen) > 4 * MAX_TEMPLATES:
                self._seen.clear()
            seen = self._seen[len(payload)] = self._seen.get(len(payload), 0) + 1
        if seen & (seen - 1) or seen == 1:  # at the 2nd, 4th, 8th ...: trying is not free
            return
        template = _make(payload, request, spec)
        if template is None:
            return
        with self._lock:
            if len(self._by_length) > MAX_TEMPLATES:
                self._by_length.clear()
            others = self._by_length.get(len(payload), ())
            self._by_length[len(payload)] = (template, *others)[:_PER_LENGTH]


def _make(payload: bytes, request: PredictRequest, spec: ModelSpec) -> Template | None:
    """Make the template of a request, if its only tensor has content that any other may replace."""
    if len(request.inputs) != 1:
        return None
    ((alias, tensor),) = request.inputs.items()
    content = tensor.tensor_content
    if not content or tensor.dtype in _UNFIT:
        return None
    try:
        array = decode(tensor, alias)
        dtype = numpy_dtype(DataType(tensor.dtype))
    except (ServingError, ValueError):
        return None
    start = _place(payload, content, request, alias) if array.nbytes == len(content) else None
    if start is None:
        return None
    end = start + len(content)
    return Template(
        front=payload[:start],
        back=payload[end:],
        spec=spec,
        aliases={alias: None},
        output_filter=tuple(request.output_filter),
        data_type=int(tensor.dtype),
        dtype=dtype,
        shape=array.shape,
        count=array.size,
    )


def _place(payload: bytes, content: bytes, request: PredictRequest, alias: str) -> int | None:
    """Return where in a request its tensor's content lies, if little lies around it."""
    start = payload.find(content)
    for _ in range(_TRIES):
        around = max(start, len(payload) - start - len(content))
        if start < 0 or around > MAX_FRAME_BYTES:
            return None
        if _is_the_place(payload, start, start + len(content), request, alias):
            return start
        start = payload.find(content, start + 1)
    return None


def _is_the_place(
    payload: bytes, start: int, end: int, request: PredictRequest, alias: str
) -> bool:
    """Return whether the bytes from `start` to `end` are the tensor's content, and nothing else.

    It is tried: with each of these bytes changed, the content must be the changed bytes, and the
    rest of the request the same.
    """
    changed = (~np.frombuffer(payload, np.uint8, end - start, start)).tobytes()
    try:
        probe = protos.PredictRequest.FromString(payload[:start] + changed + payload[end:])
    except DecodeError:
        return False
    if probe.inputs.keys() != request.inputs.keys():
        return False
    return probe.inputs[alias].tensor_content == changed and _rest(probe) == _rest(request)


def _rest(request: PredictRequest) -> bytes:
    """Return a serialised request without the content of its tensors."""
    copy = protos.PredictRequest()
    copy.CopyFrom(request)
    tensors: Mapping[str, TensorProto] = copy.inputs
    for tensor in tensors.values():
        tensor.ClearField("tensor_content")
    rest: bytes = copy.SerializeToString(deterministic=True)
    return rest
