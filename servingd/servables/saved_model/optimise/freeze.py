"""A graph with constants in the place of its variables, optimised by Grappler."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from servingd.servables.saved_model.optimise.gathers import read_then_gather
from servingd.servables.saved_model.session.options import ONE_THREAD
from servingd.servables.saved_model.session.python_session import PythonSession
from servingd.servables.tensorflow_runtime.runtime import tensorflow


def freeze(plain: PythonSession, outputs: Sequence[str], kept: Collection[str] = ()) -> Any:
    """Return the part of a session's graph that the nodes `outputs` need, without variables.

    Only for graphs that keep no state; see `static_tables`. The variables of the nodes `kept` stay,
    and are read before they are gathered from. Each constant is what this session reads from the
    very handle that it replaces. Raises ValueError where a name leads to another handle.
    """
    from tensorflow.python.framework import convert_to_constants

    by_name = {op.name: op for op in plain.graph.get_operations()}
    with plain.graph.as_default():
        for op in by_name.values():
            if op.type != "VarHandleOp":
                continue
            read = f"{op.name}/Read/ReadVariableOp"  # the converter looks for it by this name
            there = by_name.get(read)
            if there is None:
                tensorflow().raw_ops.ReadVariableOp(
                    resource=op.outputs[0], dtype=op.get_attr("dtype"), name=read
                )
            elif there.type != "ReadVariableOp" or there.inputs[0] is not op.outputs[0]:
                raise ValueError(f"{read} is not what reads {op.name}")
    graph_def = plain.graph.as_graph_def()
    for function in graph_def.library.function:
        read_then_gather(function.node_def)
    if kept:  # outside of functions the converter does it, but not for these
        read_then_gather(graph_def.node, in_function=False)
    return convert_to_constants.convert_variables_to_constants_from_session_graph(
        _Arrays(plain.session), graph_def, list(outputs), variable_names_denylist=list(kept)
    )


class _Arrays:
    """A session that returns arrays, as the converter expects, of a single text as well."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def run(self, tensors: Sequence[str]) -> list[np.ndarray[Any, Any]]:
        """Return the values of tensors."""
        values = self._session.run(tensors)
        return [np.array(v, object) if isinstance(v, bytes) else v for v in values]


def optimise_graph(
    graph_def: Any, roots: Sequence[str], signatures: Iterable[Any], paths: Iterable[str] = ()
) -> Any:
    """Return the graph optimised by Grappler; the nodes `roots` and what they need stay.

    `signatures` are SignatureDefs: what they feed is not folded, though it may be a constant; nor
    are `paths`, tensors that are fed when the graph is initialised.
    """
    from tensorflow.core.protobuf import meta_graph_pb2
    from tensorflow.python.grappler import tf_optimizer

    meta_graph = meta_graph_pb2.MetaGraphDef()
    meta_graph.graph_def.CopyFrom(graph_def)
    _place_on_host(meta_graph.graph_def)
    meta_graph.collection_def["train_op"].node_list.value.extend(roots)
    for number, signature in enumerate(signatures):
        meta_graph.signature_def[str(number)].CopyFrom(signature)
    for path in paths:
        fed = meta_graph.signature_def["paths"].inputs[path]
        fed.name, fed.dtype = path, tensorflow().string.as_datatype_enum
        fed.tensor_shape.SetInParent()  # a scalar
    optimised = tf_optimizer.OptimizeGraph(ONE_THREAD.config(), meta_graph)
    _forget_shapes(optimised)
    return optimised


_NOT_PLACED = frozenset({"MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum"})
"""Multiplications of matrices: fused ones take up to twice as long for few rows."""


def _place_on_host(graph_def: Any) -> None:
    """Place operations on the host: Grappler fuses convolutions with their bias only there.

    Calls of functions are left out, because their device becomes that of all operations inside.
    """
    functions = {function.signature.name for function in graph_def.library.function}
    for nodes in (graph_def.node, *(f.node_def for f in graph_def.library.function)):
        for node in nodes:
            attributes = node.attr.values()
            calls = node.op in functions or any(a.func.name or a.list.func for a in attributes)
            if not calls and node.op not in _NOT_PLACED:
                node.device = "/device:CPU:0"


def _forget_shapes(graph_def: Any) -> None:
    """Remove the notes on outputs' shapes.

    Nothing runs by them, and Grappler leaves them wrong where it takes unused outputs off a
    function: then the graph is not even imported.
    """
    for nodes in (graph_def.node, *(f.node_def for f in graph_def.library.function)):
        for node in nodes:
            if "_output_shapes" in node.attr:
                del node.attr["_output_shapes"]
