"""Which operations a signature reaches, and which of those keep state between calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from servingd.core.types import Signature
from servingd.servables.saved_model.files.meta_graph import node_name

_STATEFUL_PREFIXES = (
    # Variables: what is assigned, updated by an optimizer, or a generator's state.
    "Assign",
    "Apply",
    "CountUpTo",
    "NegTrain",
    "ResourceApply",
    "ResourceCountUpTo",
    "ResourceScatter",
    "ResourceSparseApply",
    "ResourceStridedSliceAssign",
    "RngReadAndSkip",
    "RngSkip",
    "Scatter",
    "Sdca",
    "SparseApply",
    "Stateful",
    "StridedSliceAssign",
    "TPUExecuteAndUpdateVariables",
    # Tables and trees that can change. Static tables are filled by the init operation alone.
    "BoostedTreesCenterBias",
    "BoostedTreesCreate",
    "BoostedTreesDeserialize",
    "BoostedTreesFlush",
    "BoostedTreesQuantileStream",
    "BoostedTreesTraining",
    "BoostedTreesUpdate",
    "LookupTableImport",
    "LookupTableInsert",
    "LookupTableRemove",
    "MutableDenseHashTable",
    "MutableHashTable",
    # Queues, stages, accumulators: containers that one call fills and another one empties.
    "Accumulator",
    "AddManySparseToTensorsMap",
    "AddSparseToTensorsMap",
    "Barrier",
    "ConditionalAccumulator",
    "DeleteSessionTensor",
    "FIFOQueue",
    "FakeQueue",
    "GetSession",
    "Infeed",
    "Map",
    "OrderedMap",
    "Outfeed",
    "PaddingFIFOQueue",
    "PriorityQueue",
    "Queue",
    "RandomShuffleQueue",
    "ResourceAccumulator",
    "ResourceConditionalAccumulator",
    "SparseAccumulator",
    "SparseConditionalAccumulator",
    "Stage",
    "TakeManySparseFromTensorsMap",
    "TemporaryVariable",
    "Unstage",
    # Positions in a stream of data.
    "DeserializeIterator",
    "Iterator",
    "MakeIterator",
    "MultiDeviceIterator",
    "OneShotIterator",
    "Reader",
    "RecordInput",
    "Skipgram",
    # Files, and what anybody's Python code does.
    "CalibrationStatisticsSaver",
    "DatasetToTFRecord",
    "DistributedSave",
    "DumpTensor",
    "EagerPyFunc",
    "ExperimentalDatasetToTFRecord",
    "FlushSummaryWriter",
    "ImportEvent",
    "MergeV2Checkpoints",
    "PyFunc",
    "Save",
    "Write",
    # The end of any of these.
    "DestroyResourceOp",
)
"""How the types of operations begin that keep state between calls."""

_STATELESS = frozenset(
    {
        "MapDataset",  # a description of data, as MapAndBatchDataset and MapDefun
        "MapAndBatchDataset",
        "MapDefun",
        "PyFuncStateless",
        "ScatterNd",  # on a value
        "ScatterNdNonAliasingAdd",
        "StatefulPartitionedCall",  # its body is looked into
    }
)


def keeps_state(op_type: str) -> bool:
    """Return whether an operation changes, or depends on, something that outlives the call."""
    return op_type.startswith(_STATEFUL_PREFIXES) and op_type not in _STATELESS


def safe_signatures(graph_def: Any, signatures: Mapping[str, Signature]) -> dict[str, bool]:
    """Return by signature whether it reaches no operation that keeps state.

    Such a signature may be run on synthetic inputs, and its calls may be repeated.
    """
    return {
        name: not any(
            keeps_state(op)
            for op in reachable_ops(graph_def, [s.tensor_name for s in signature.outputs.values()])
        )
        for name, signature in signatures.items()
    }


def reachable_ops(graph_def: Any, roots: Iterable[str]) -> set[str]:
    """Return the types of all operations that the nodes `roots` depend on, in functions as well.

    `graph_def` is a `tensorflow.GraphDef`, or a `servingd.Graph`.
    """
    return {node.op for node in reachable_nodes(graph_def, roots)}


def reachable_nodes(graph_def: Any, roots: Iterable[str]) -> list[Any]:
    """Return all nodes that `roots` depend on; of a function that is called, all in its body."""
    functions = {f.signature.name: f for f in graph_def.library.function}
    bodies_seen: set[str] = set()
    nodes = {node.name: node for node in graph_def.node}
    found: list[Any] = []
    waiting = [node_name(root) for root in roots]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        node = nodes.get(name)
        if name in seen or node is None:
            continue
        seen.add(name)
        waiting += [node_name(source) for source in node.input]
        _visit(node, functions, found, bodies_seen)
    return found


def _visit(node: Any, functions: Mapping[str, Any], found: list[Any], seen: set[str]) -> None:
    found.append(node)
    for name in called_functions(node) & functions.keys() - seen:
        seen.add(name)
        for inner in functions[name].node_def:
            _visit(inner, functions, found, seen)


def called_functions(node: Any) -> set[str]:
    """Return the names of the functions that a node may call: its type, and its attributes."""
    return {node.op} | {name for attr in node.attr.values() for name in _functions_of(attr)}


def _functions_of(attr: Any) -> list[str]:
    names = [f.name for f in attr.list.func] if attr.HasField("list") else []
    return [*names, attr.func.name] if attr.HasField("func") else names
