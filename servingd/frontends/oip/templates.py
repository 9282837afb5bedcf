"""Requests of ModelInfer whose frame is known: everything but the bytes of their tensors.

A client sends the same frame with every call. Where all inputs travel as bytes of a fixed size, a
request with a known frame is read by offsets. The frame is compared byte by byte, so such a request
means what the first one meant that was parsed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from servingd.core.types import DataType, ModelSpec, Signature, Tensors
from servingd.frontends.oip.infer import Input
from servingd.wire import protos
from servingd.wire.oip import Array, read_raw
from servingd.wire.tensors.types import numpy_dtype
from servingd.wire.varints import varint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from servingd.wire.protos import ModelInferRequest

_RAW_TAG = b"\x3a"
"""The field `raw_input_contents`, of bytes."""
_MAX_TEMPLATES = 256
_MOST_PER_LENGTH = 8
_MAX_PREFIX = 4096


class _Field(NamedTuple):
    """Where one input lies in a payload."""

    alias: str
    dtype: np.dtype[Any]
    elements: int
    offset: int
    shape: tuple[int, ...]

    def array(self, payload: bytes) -> Array:
        return np.frombuffer(payload, self.dtype, self.elements, self.offset).reshape(self.shape)


@dataclass(slots=True)
class Template:
    """A known frame, and what such requests have in common."""

    frame: tuple[tuple[int, bytes], ...]
    """Offsets, and the bytes that stand there."""
    spec: ModelSpec
    output_filter: Sequence[str]
    inputs: Mapping[str, tuple[DataType, tuple[int, ...], int, int]]
    """Type, shape, beginning and end of each input."""
    signature: Signature | None = None
    """The signature that `fields` belong to; replaced with them, by any thread."""
    fields: tuple[_Field, ...] = ()

    def fits(self, payload: bytes) -> bool:
        """Return whether a payload of this length has the frame."""
        return all(payload.startswith(part, at) for at, part in self.frame)

    def given(self, payload: bytes) -> Mapping[str, Input]:
        """Return the inputs of a payload that fits."""
        return {
            alias: Input(
                data_type,
                shape,
                partial(read_raw, data_type, shape, payload[start:end], f"input '{alias}'"),
            )
            for alias, (data_type, shape, start, end) in self.inputs.items()
        }

    def bound(self, payload: bytes, signature: Signature) -> Tensors | None:
        """Return the inputs in the signature's order; None if they were not bound to it before."""
        if self.signature is not signature:
            return None
        return {field.alias: field.array(payload) for field in self.fields}

    def learn_signature(self, signature: Signature) -> None:
        """Remember that requests of this frame can be bound to a signature: one was."""
        if signature.inputs.keys() != self.inputs.keys():
            return  # some have defaults
        fields = []
        for alias in signature.inputs:
            data_type, shape, start, _ = self.inputs[alias]
            fields.append(_Field(alias, numpy_dtype(data_type), math.prod(shape), start, shape))
        self.fields = tuple(fields)
        self.signature = signature


class Templates:
    """The templates of all clients, by the length of their requests. From any thread."""

    def __init__(self) -> None:
        self._by_length: dict[int, tuple[Template, ...]] = {}

    def find(self, payload: bytes) -> Template | None:
        """Return the template that a payload fits; None if there is none."""
        for template in self._by_length.get(len(payload), ()):
            if template.fits(payload):
                return template
        return None

    def learn(self, payload: bytes, request: ModelInferRequest, spec: ModelSpec) -> Template | None:
        """Remember the frame of a request, if all of its inputs are bytes of a fixed size."""
        types = [_FIXED.get(tensor.datatype) for tensor in request.inputs]
        raw = request.raw_input_contents
        if not raw or None in types or len(raw) != len(types) or request.id:
            return None
        frame: list[tuple[int, bytes]] = []
        places: list[tuple[int, int]] = []
        at = len(payload)
        for content in reversed(raw):
            start = at - len(content)
            head = _RAW_TAG + varint(len(content))
            same = payload.startswith(content, start)
            before = start - len(head)
            if before < 0 or not same or not payload.startswith(head, before):
                return None  # written in another order
            places.append((start, at))
            at = before
            frame.append((at, head))
        prefix = payload[:at]
        if (
            len(prefix) > _MAX_PREFIX
            or protos.ModelInferRequest.FromString(prefix).raw_input_contents
        ):
            return None
        inputs = {
            tensor.name: (data_type, tuple(tensor.shape), *place)
            for tensor, data_type, place in zip(
                request.inputs, types, reversed(places), strict=True
            )
            if data_type is not None
        }
        if len(self._by_length) >= _MAX_TEMPLATES:
            self._by_length.clear()
        template = Template(
            ((0, prefix), *reversed(frame)),
            spec,
            tuple(output.name for output in request.outputs),
            inputs,
        )
        others = self._by_length.get(len(payload), ())[: _MOST_PER_LENGTH - 1]
        self._by_length[len(payload)] = (template, *others)
        return template


_FIXED: Mapping[str, DataType] = {
    "UINT8": DataType.UINT8,
    "UINT16": DataType.UINT16,
    "UINT32": DataType.UINT32,
    "UINT64": DataType.UINT64,
    "INT8": DataType.INT8,
    "INT16": DataType.INT16,
    "INT32": DataType.INT32,
    "INT64": DataType.INT64,
    "FP16": DataType.HALF,
    "BF16": DataType.BFLOAT16,
    "FP32": DataType.FLOAT,
    "FP64": DataType.DOUBLE,
}
"""Types whose elements are all of one size, and any bytes a value: BOOL's are not."""
