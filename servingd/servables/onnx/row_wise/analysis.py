"""Goes through an ONNX graph, and says whether it works row by row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from servingd.servables.onnx.row_wise.rules import RULES, same_of
from servingd.servables.onnx.row_wise.values import (
    Mixing,
    Node,
    Rows,
    Same,
    Value,
    require,
)
from servingd.wire.protos import OnnxGraph, OnnxModel, OnnxNode, OnnxTensor, OnnxValue

_FEW = 64
"""Numbers up to which a constant's content is looked at: shapes, axes, scales."""
_DTYPES: Mapping[int, np.dtype[Any]] = {
    1: np.dtype("<f4"),
    6: np.dtype("<i4"),
    7: np.dtype("<i8"),
    9: np.dtype("?"),
}
"""ONNX's numbers of the types whose content is looked at."""
_STANDARD = ("", "ai.onnx")


def why_not_row_wise(model: OnnxModel) -> str:
    """Return why calls of a model may not be merged; empty if f([a; b]) = [f(a); f(b)].

    For calls whose inputs have the model's ranks, as many rows in each, and the same sizes behind.
    """
    try:
        graph = model.graph
        version = max((o.version for o in model.opset_import if o.domain in _STANDARD), default=1)
        values: dict[str, Value] = {t.name: _constant(t) for t in graph.initializer}
        values |= _inputs(graph, values)
        unknown: dict[str, str] = {}
        for node in graph.node:
            _follow(node, version, values, unknown)
        for output in graph.output:
            if output.name in unknown:
                return unknown[output.name]
            is_rows = isinstance(values.get(output.name), Rows)
            require(is_rows, f"output {output.name}: its first dimension is not the rows'")
    except Mixing as reason:
        return str(reason)
    return ""


def _inputs(graph: OnnxGraph, constants: Mapping[str, Value]) -> dict[str, Value]:
    """Return the inputs as rows. Raises Mixing if one cannot be merged."""
    found: dict[str, Value] = {}
    inputs = [value for value in graph.input if value.name not in constants]
    require(bool(inputs), "it has no input")
    of_rows = {name for value in inputs for name in _names(value)[:1]}
    for value in inputs:
        where = f"input {value.name}"
        require(value.type.tensor_type.HasField("shape"), f"{where}: its rank is not known")
        dims = value.type.tensor_type.shape.dim
        require(len(dims) > 0, f"{where}: it is a scalar")
        require(dims[0].dim_value <= 0, f"{where}: its number of rows is fixed")
        others = {dim.dim_param for dim in dims[1:] if dim.dim_param}
        require(not others & of_rows, f"{where}: another size is named as the rows are")
        found[value.name] = Rows(tuple(d.dim_value if d.dim_value > 0 else None for d in dims[1:]))
    return found


def _names(value: OnnxValue) -> list[str]:
    return [dim.dim_param for dim in value.type.tensor_type.shape.dim]


def _follow(
    proto: OnnxNode, version: int, values: dict[str, Value], unknown: dict[str, str]
) -> None:
    """Find out what a node's outputs are, from its inputs."""
    for name in proto.input:
        if name in unknown:
            unknown.update((output, unknown[name]) for output in proto.output)
            return
    try:
        found = _outputs(proto, version, values)
    except (Mixing, IndexError, ValueError, TypeError) as error:  # a graph that breaks ONNX's rules
        reason = str(error) if isinstance(error, Mixing) else "no rule says what it does to rows"
        text = f"{proto.name or proto.output[0]} ({proto.op_type}): {reason}"
        unknown.update((output, text) for output in proto.output)
        return
    values.update(zip(proto.output, found, strict=False))


def _outputs(proto: OnnxNode, version: int, values: Mapping[str, Value]) -> Sequence[Value]:
    require(proto.domain in _STANDARD, "no rule says what it does to rows")
    if proto.op_type == "Constant":
        return [_constant_node(proto)]
    names = list(proto.input)
    require(all(name in values for name in names if name), "an input of it is not known")
    node = Node(
        op=proto.op_type,
        version=version,
        inputs=[values[name] if name else None for name in names],
        outputs=[name for name in proto.output if name],
        attributes={attribute.name: attribute for attribute in proto.attribute},
    )
    constant = all(isinstance(value, Same | None) for value in node.inputs)
    if constant and (same := same_of(node)) is not None:
        return same
    rule = RULES.get(node.op)
    if rule is None:
        raise Mixing("no rule says what it does to rows")
    return rule(node)


def _constant_node(proto: OnnxNode) -> Value:
    attributes = {attribute.name: attribute for attribute in proto.attribute}
    if "value" in attributes:
        return _constant(attributes["value"].t)
    if "value_int" in attributes:
        return Same((), (attributes["value_int"].i,))
    if "value_ints" in attributes:
        numbers = tuple(attributes["value_ints"].ints)
        return Same((len(numbers),), numbers)
    if "value_float" in attributes:
        return Same((), (attributes["value_float"].f,))
    return Same()


def _constant(tensor: OnnxTensor) -> Same:
    """Return a constant; its content if it has few numbers, and lies in the model's file."""
    dims = tuple(tensor.dims)
    count = math.prod(dims)
    dtype = _DTYPES.get(tensor.data_type)
    if dtype is None or count > _FEW or tensor.data_location == 1:
        return Same(dims)
    if tensor.HasField("raw_data"):
        found = np.frombuffer(tensor.raw_data, dtype).tolist()
    else:
        found = list(tensor.int64_data or tensor.int32_data or tensor.float_data)
    return Same(dims, tuple(found) if len(found) == count else None)
