"""The files of an ONNX model: which they are, and whether they are whole. Pure.

A model is a protobuf message, which says nothing of its length: but its operator sets are written
behind its graph, and fields end where they say. Large tensors may lie in files beside it, of which
it says the places.
"""

from __future__ import annotations

import math
import posixpath
from collections.abc import Iterator, Mapping

from google.protobuf.message import DecodeError

from servingd.core.types import DataType, TensorSpec
from servingd.core.version_files import shortfall
from servingd.errors import DataLoss, InvalidArgument
from servingd.wire.protos import OnnxGraph, OnnxModel, OnnxTensor, OnnxValue

FILE = "model.onnx"
SUFFIX = ".onnx"

_BITS = {
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20), 8),
    **dict.fromkeys((4, 5, 10, 16), 16),
    **dict.fromkeys((1, 6, 12), 32),
    **dict.fromkeys((7, 11, 13, 14), 64),
    15: 128,
    **dict.fromkeys((21, 22, 23), 4),
}
"""Bits of an element, by ONNX's number of its type."""
_EXTERNAL = 1
_STANDARD = ("", "ai.onnx")

DATA_TYPES: Mapping[int, DataType] = {
    1: DataType.FLOAT,
    2: DataType.UINT8,
    3: DataType.INT8,
    4: DataType.UINT16,
    5: DataType.INT16,
    6: DataType.INT32,
    7: DataType.INT64,
    8: DataType.STRING,
    9: DataType.BOOL,
    10: DataType.HALF,
    11: DataType.DOUBLE,
    12: DataType.UINT32,
    13: DataType.UINT64,
}
"""Types that are served, by ONNX's numbers. Its Python package hands out no others as arrays."""


def model_in(names: Mapping[str, int]) -> str | None:
    """Return which of a version's files is the model; None if there is none, or several."""
    if FILE in names:
        return FILE
    found = [name for name in names if name.endswith(SUFFIX) and "/" not in name]
    return found[0] if len(found) == 1 else None


def parse_model(content: bytes) -> OnnxModel:
    """Parse a model. Raises DataLoss where it is not whole."""
    try:
        model: OnnxModel = OnnxModel.FromString(content)
    except DecodeError as error:
        raise DataLoss(f"is no whole ONNX model ({len(content)} bytes): {error}") from error
    domains = {"" if o.domain in _STANDARD else o.domain for o in model.opset_import}
    used = {"" if n.domain in _STANDARD else n.domain for n in model.graph.node}
    if not model.HasField("graph") or not model.opset_import or used - domains:
        raise DataLoss(f"ends before its model does ({len(content)} bytes)")
    return model


def missing_data(model: OnnxModel, sizes: Mapping[str, int]) -> str | None:
    """Return which file with tensors is absent or too short; None if none is.

    Raises InvalidArgument for one outside the version's folder.
    """
    return shortfall(_external(model.graph), sizes)


def external_names(model: OnnxModel) -> list[str]:
    """Return the files with tensors beside the model. Raises as `missing_data`."""
    return sorted(_external(model.graph))


def _external(graph: OnnxGraph) -> dict[str, int]:
    required: dict[str, int] = {}
    for tensor in _tensors(graph):
        if tensor.data_location == _EXTERNAL:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            name = _inside(entries.get("location", ""), tensor.name)
            end = _number(entries, "offset", 0) + _number(entries, "length", _bytes_of(tensor))
            required[name] = max(end, required.get(name, 0))
    return required


def _inside(location: str, tensor: str) -> str:
    """Return a path below the version's folder. Raises InvalidArgument for any other."""
    name = posixpath.normpath(location)
    if not location or name.startswith(("/", "../")) or name in (".", "..") or "\\" in name:
        raise InvalidArgument(f"tensor {tensor}: {location!r} is no file of the version's folder")
    return name


def _number(entries: Mapping[str, str], key: str, default: int) -> int:
    text = entries.get(key)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit():
        raise InvalidArgument(f"{key} of a tensor's data: expected a number, got {text!r}")
    return int(text)


def _bytes_of(tensor: OnnxTensor) -> int:
    bits: int = math.prod(tensor.dims) * _BITS.get(tensor.data_type, 0)
    return (bits + 7) // 8


def _tensors(graph: OnnxGraph) -> Iterator[OnnxTensor]:
    """Yield the constants of a graph, and of the graphs in its branches and loops."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _tensors(body)


def spec_of(value: OnnxValue) -> TensorSpec | None:
    """Return what comes in or out under a name; None for what is no tensor that is served."""
    tensor = value.type.tensor_type
    data_type = DATA_TYPES.get(tensor.elem_type)
    if data_type is None:
        return None
    if not tensor.HasField("shape"):
        return TensorSpec(data_type, None, value.name)
    dims = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim)
    return TensorSpec(data_type, dims, value.name)
