"""Large variables that stay variables in an optimised graph, and get their values from outside.

As constants they would be in memory many times. The optimised graph gets a placeholder for each,
and one operation that assigns them all. What is assigned is what the plain session reads: from a
file to which the child writes it, or where nothing is mapped from the server's own plain session.
TensorFlow shares the memory in both cases, and the optimised graph writes to no variable.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from servingd.servables.saved_model.files.mapped_weights import (
    MappedWeights,
    layout,
    open_weights,
    write_weights,
)
from servingd.servables.saved_model.session.c_api import make_call
from servingd.servables.saved_model.session.opening import ASSIGN
from servingd.servables.tensorflow_runtime.runtime import tensorflow

_PREFIX = "servingd_value/"


def read_of(variable: str) -> str:
    """Return the name of the node that reads a variable in a plain graph."""
    return f"{variable}/Read/ReadVariableOp"


def variable_bytes(node: Any) -> int:
    """Return the bytes of the variable of a node; 0 if it has none of a fixed size."""
    if node.op != "VarHandleOp" or node.attr["shape"].shape.unknown_rank:
        return 0
    sizes = [dim.size for dim in node.attr["shape"].shape.dim]
    if min(sizes, default=0) < 0:
        return 0
    item: int = tensorflow().as_dtype(node.attr["dtype"].type).size
    count: int = math.prod(sizes)
    return count * item


def can_be_mapped(node: Any) -> bool:
    """Return whether a node is a variable of numbers."""
    if node.op != "VarHandleOp":
        return False
    kind = tensorflow().as_dtype(node.attr["dtype"].type)
    return bool(kind.is_floating or kind.is_integer or kind.is_bool or kind.is_complex)


def add_values(graph_def: Any, variables: Sequence[str]) -> None:
    """Add to an optimised graph what gives those of the variables their values that are left."""
    nodes = {node.name: node for node in graph_def.node}
    assigned = []
    for name in variables:
        if name not in nodes:
            continue
        data_type = nodes[name].attr["dtype"].type
        place = graph_def.node.add(name=f"{_PREFIX}{name}", op="Placeholder")
        place.attr["dtype"].type = data_type
        place.attr["shape"].CopyFrom(nodes[name].attr["shape"])
        assign = graph_def.node.add(name=f"{ASSIGN}/{name}", op="AssignVariableOp")
        assign.input.extend([name, place.name])
        assign.attr["dtype"].type = data_type
        assigned.append(f"^{assign.name}")
    if assigned:
        graph_def.node.add(name=ASSIGN, op="NoOp").input.extend(assigned)


def values_of(graph_def: Any) -> dict[str, str]:
    """Return by each placeholder what is to be read in the plain graph for it."""
    names = [node.name for node in graph_def.node if node.name.startswith(_PREFIX)]
    return {f"{name}:0": f"{read_of(name.removeprefix(_PREFIX))}:0" for name in names}


def write_values(folder: Path, plain: Any, reads: Mapping[str, str]) -> MappedWeights:
    """Write to a file in `folder` what a Python Session reads; return what is in the file.

    `reads` are the tensors to read, by the placeholder that takes each. One is read at a time.
    Raises OSError.
    """
    graph, planned = plain.graph, []
    for placeholder, read in reads.items():
        tensor = graph.get_tensor_by_name(read)
        shape = tuple(tensor.shape.as_list())
        size = math.prod(shape) * tensor.dtype.size
        name = placeholder.removesuffix(":0")
        planned.append((name, tensor.dtype.as_datatype_enum, shape, size))
    # By a callable: what `Session.run` returns is a copy.
    values = (make_call(plain, [], [read])()[0] for read in reads.values())
    return write_weights(folder, layout(planned), values)


def map_values(folder: Path, weights: MappedWeights) -> dict[str, np.ndarray[Any, Any]]:
    """Return the arrays in a file, mapped, by the tensor that is fed each.

    Raises OSError or BadWeights.
    """
    file = open_weights(folder, weights)
    try:
        content = mmap.mmap(file, 0, access=mmap.ACCESS_READ)
    finally:
        os.close(file)
    return {
        f"{each.name}:0": np.ndarray(
            each.shape,
            tensorflow().dtypes.as_dtype(each.data_type).as_numpy_dtype,
            content,
            each.offset,
        )
        for each in weights.tensors
    }
