"""One operation of a graph as rules see it: its type, its attributes, its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from google.protobuf.message import DecodeError

from servingd.core.types import DataType
from servingd.errors import ServingError
from servingd.servables.saved_model.merging.row_wise.sizes import Size, named, size
from servingd.servables.saved_model.merging.row_wise.values import (
    Content,
    Mixing,
    Reason,
    Shape,
    Value,
    content_of,
    made,
)
from servingd.wire import protos
from servingd.wire.tensors.decoding import decode

_LARGEST_CONSTANT = 4096
"""Bytes of a constant that is read; of a larger one only the shape matters."""

_INTEGERS = (DataType.INT32, DataType.INT64, DataType.BOOL)

DEFAULTS: Mapping[str, Any] = {
    "T": 0,
    "N": 0,
    "adj_x": False,
    "adj_y": False,
    "axis": 0,
    "OneHot.axis": -1,
    "batch_dims": 0,
    "begin_mask": 0,
    "data_format": "NHWC",
    "AvgPool3D.data_format": "NDHWC",
    "Conv3D.data_format": "NDHWC",
    "MaxPool3D.data_format": "NDHWC",
    "dilations": (),
    "ellipsis_mask": 0,
    "end_mask": 0,
    "exclusive": False,
    "explicit_paddings": (),
    "incompatible_shape_error": True,
    "is_training": True,
    "keep_dims": False,
    "new_axis_mask": 0,
    "num_split": 0,
    "shrink_axis_mask": 0,
    "squeeze_dims": (),
    "transpose_a": False,
    "transpose_b": False,
}
"""Attributes that a graph leaves out, as TensorFlow's definitions of operations have them;
by the attribute's name, or by the operation's type and the attribute's name."""


class Operation:
    """One node, seen from one call of the function that it is in."""

    __slots__ = ("_attributes", "_node", "path", "type")

    def __init__(self, node: Any, scope: str) -> None:
        """`node` is a `servingd.Node`; `scope` names the calls that lead to it."""
        self.type: str = node.op
        self.path = f"{scope}{node.name}"
        self._node = node
        self._attributes = node.attr

    @property
    def name(self) -> str:
        """The node's name, with its type."""
        return f"{self._node.name} ({self.type})"

    def has(self, name: str) -> bool:
        """Return whether the graph gives an attribute."""
        return name in self._attributes

    def attribute(self, name: str) -> Any:
        """Return an attribute: number, bool, text, or tuple. Raises Mixing if it is open."""
        if name not in self._attributes:
            return DEFAULTS.get(f"{self.type}.{name}", DEFAULTS.get(name))
        attr = self._attributes[name]
        kind = attr.WhichOneof("value")
        if kind is None:  # a function's own parameter
            raise Mixing(Reason.NOT_CONSTANT)
        value = getattr(attr, kind)
        if kind == "list":
            return tuple(value.i or value.s or value.b or value.type or value.shape)
        return value.decode(errors="replace") if kind == "s" else value

    def shape(self, name: str = "shape") -> Shape | None:
        """Return an attribute that is a shape; None if its rank is left open."""
        proto = self.attribute(name)
        if proto is None or isinstance(proto, (int, str)) or proto.unknown_rank:
            return None
        return self.shape_of(proto)

    def shape_of(self, proto: Any) -> Shape:
        """Return a TensorShapeProto as sizes; those left open are named by this operation."""
        return tuple(
            size(d.size) if d.size >= 0 else self.fresh(i) for i, d in enumerate(proto.dim)
        )

    def functions(self, *names: str) -> list[str]:
        """Return the names of the functions that attributes name."""
        found = []
        for name in names:
            attr = self._attributes[name]
            if attr.HasField("func"):
                found.append(attr.func.name)
            else:
                found += [f.name for f in attr.list.func]
        return found

    def fresh(self, part: object) -> Size:
        """Return a size that is not worked out; the same `part` gives the same size."""
        return made(f"{self.path}.{part}")

    def constant(self) -> tuple[Shape, Content | None]:
        """Return the shape of a Const, and its content if it is small and of integers."""
        try:
            serialized = self._attributes["value"].tensor
            tensor = protos.TensorProto.FromString(serialized)
            shape = tuple(size(d.size) for d in tensor.tensor_shape.dim)
            if tensor.dtype not in _INTEGERS or len(serialized) > _LARGEST_CONSTANT:
                return shape, None
            array = decode(tensor, "constant")
        except (DecodeError, ServingError, ValueError) as error:
            raise Mixing(Reason.NOT_CONSTANT) from error
        return shape, content_of(array.astype(int)) if array.size <= 256 else None


Rule: TypeAlias = Callable[[Operation, Sequence[Value]], Sequence[Value]]
"""What is known of an operation's outputs, by what is known of its inputs; see `rules`."""


def types(text: str) -> list[str]:
    """Split a text of operations' types, separated by white space."""
    return text.split()


def input_size(alias: str, axis: int) -> Size:
    """Return the size of an input's open dimension: merged calls have the same."""
    return named(f"{alias}[{axis}]")
