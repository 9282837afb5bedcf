"""Variables, tables, gathers, Examples, lists.

Why they are row-wise, where they are: what is looked up is the same for all rows, and each row
brings its own keys; or the rows are what is looked into, and all are asked for the same places.
Variables and tables are the same for all rows because nothing that a merged signature reaches
may change them (`graph_safety`).
"""

from __future__ import annotations

from collections.abc import Sequence

from servingd.servables.saved_model.merging.row_wise.operations import Operation, Rule, types
from servingd.servables.saved_model.merging.row_wise.shapes import integers, number, numbers, place
from servingd.servables.saved_model.merging.row_wise.sizes import Size, size
from servingd.servables.saved_model.merging.row_wise.values import (
    Handle,
    Mixing,
    Reason,
    Shape,
    Tensor,
    TensorList,
    Unknown,
    Value,
    content_of,
    join,
    listed,
    require,
    taken,
    tensors,
)

# Variables and tables ---------------------------------------------------------------------------


def _variable_handle(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    return [Handle("variable", op.shape())]


def _variable(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    return [Tensor(op.shape())]


def _read_variable(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    return [Tensor(_handle(args[0], "variable").shape)]


def _table_handle(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    """Rule of static hash tables: only the initialiser fills them."""
    return [Handle("table")]


def _find(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    """Rule of LookupTableFind: each key by itself; the values are scalars."""
    _handle(args[0], "table")
    keys, default = tensors(args[1:])
    require(not default.is_rows, Reason.MISALIGNED)
    return [Tensor(keys.shape, keys.axis)]


def _table_size(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    _handle(args[0], "table")
    return [Tensor(())]


def _handle(value: Value, kind: str) -> Handle:
    if not isinstance(value, Handle) or value.kind != kind:
        raise Mixing(Reason.NO_RULE)
    return value


# Gathers ----------------------------------------------------------------------------------------


def _resource_gather(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    params = Tensor(_handle(args[0], "variable").shape)
    (indices,) = tensors(args[1:])
    batch_dims = op.attribute("batch_dims")
    return [_gathered(params, indices, batch_dims, batch_dims)]


def _gather(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    params, indices, *rest = tensors(args)
    axis = number(rest[0]) if rest else 0
    if params.content is not None and params.rank == 1 and indices.content is not None:
        found = [params.content.values[i] for i in numbers(indices)]
        shape = tuple(map(size, indices.content.shape))
        array = content_of(found).array.reshape(indices.content.shape)
        return [Tensor(shape, None, content_of(array))]
    require(not params.is_counted and not indices.is_counted, Reason.COUNTED)
    return [_gathered(params, indices, axis, op.attribute("batch_dims"))]


def _gathered(params: Tensor, indices: Tensor, axis: int, batch_dims: int) -> Tensor:
    axis = place(axis, params.rank)
    batch_dims = batch_dims + indices.rank if batch_dims < 0 else batch_dims
    shape = (*params.dims[:axis], *indices.dims[batch_dims:], *params.dims[axis + 1 :])
    both = params.axis is not None and indices.axis is not None
    if both or batch_dims:
        return Tensor(shape, _axis_of_batched(params, indices, axis, batch_dims))
    if indices.axis is not None:
        return Tensor(shape, axis + indices.axis)
    if params.axis is None:
        return Tensor(shape)
    require(params.axis != axis, Reason.PICKED)
    return Tensor(shape, params.axis if params.axis < axis else params.axis + indices.rank - 1)


def _axis_of_batched(params: Tensor, indices: Tensor, axis: int, batch_dims: int) -> int | None:
    """Return the axis of rows of a batched gather: rows must be among the `batch_dims` axes."""
    if params.axis is None and indices.axis is None:
        return None
    require(params.axis == indices.axis, Reason.PICKED)
    assert params.axis is not None
    require(params.axis < batch_dims, Reason.PICKED)
    require(params.dims[params.axis] == indices.dims[params.axis], Reason.PICKED)
    return params.axis


def _gather_nd(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    params, indices = tensors(args)
    require(not params.is_rows, Reason.PICKED)
    require(indices.axis != indices.rank - 1, Reason.PICKED)
    depth = indices.dims[-1].known
    if depth is None:
        raise Mixing(Reason.NO_SHAPE)
    return [Tensor((*indices.dims[:-1], *params.dims[depth:]), indices.axis)]


# Examples ---------------------------------------------------------------------------------------


def _parse_examples(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    """Rule of ParseExample: features of fixed length are rows; others depend on the longest row."""
    found = tensors(args)
    serialized = found[0]
    require(serialized.rank == 1, Reason.NO_SHAPE)
    require(not any(x.is_rows for x in found[1:]), Reason.MISALIGNED)
    count = serialized.dims[0]
    shapes = op.attribute("dense_shapes") or ()
    unknown = Unknown(Reason.DATA_SIZED, op.name)
    dense: list[Value] = [_dense(op, serialized, count, shape) or unknown for shape in shapes]
    sparse = op.attribute("num_sparse" if op.type == "ParseExampleV2" else "Nsparse") or 0
    ragged = 2 * len(op.attribute("ragged_value_types") or ())
    return [*[unknown] * 3 * sparse, *dense, *[unknown] * ragged]


def _dense(op: Operation, serialized: Tensor, count: Size, shape: object) -> Tensor | None:
    own: Shape = op.shape_of(shape)
    if any(each.known is None for each in own):
        return None
    return Tensor((count, *own), serialized.axis)


def example_outputs(op: Operation) -> dict[str, int]:
    """Return where each list of outputs of a ParseExample begins."""
    sparse = op.attribute("num_sparse" if op.type == "ParseExampleV2" else "Nsparse") or 0
    dense = len(op.attribute("dense_shapes") or ())
    ragged = len(op.attribute("ragged_value_types") or ())
    starts = {"sparse_indices": 0, "sparse_values": sparse, "sparse_shapes": 2 * sparse}
    starts["dense_values"] = 3 * sparse
    starts["ragged_values"] = 3 * sparse + dense
    starts["ragged_row_splits"] = 3 * sparse + dense + ragged
    return starts


# Lists, which loops over time fill and read -----------------------------------------------------


def _new_list(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    element_shape, count = tensors(args)
    require(not element_shape.is_rows and not count.is_rows, Reason.DATA_SIZED)
    require(not count.is_counted, Reason.COUNTED)
    length = integers(count)[0] if count.content is not None else None
    return [TensorList(None, length)]


def _list_of_rows(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    """Rule of TensorListFromTensor: one element for each place along the first axis."""
    x, element_shape = tensors(args)
    require(x.axis != 0, Reason.JOINED)
    require(not element_shape.is_rows, Reason.DATA_SIZED)
    element = Tensor(x.dims[1:], None if x.axis is None else x.axis - 1)
    return [TensorList(_listed(element), x.dims[0])]


def _listed(element: Tensor) -> Tensor:
    found = listed(element)
    if found is None:
        raise Mixing(Reason.NO_SHAPE)
    return found


def _get_item(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    items, index, element_shape = _list(args[0]), *tensors(args[1:])
    require(index.is_same and not element_shape.is_rows, Reason.PICKED)
    require(items.element is not None, Reason.NO_SHAPE)
    assert items.element is not None
    return [taken(items.element, op.path)]


def _set_item(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    items, index, item = _list(args[0]), *tensors(args[1:])
    require(index.is_same, Reason.PICKED)
    require(not item.is_counted, Reason.COUNTED)
    new = TensorList(_listed(item), items.length)
    return [join(items, new, op.path)]


def _stack(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    """Rule of TensorListStack: an element that was never set is zeros, in each row alike."""
    items, element_shape = _list(args[0]), *tensors(args[1:])
    require(not element_shape.is_rows, Reason.DATA_SIZED)
    require(items.element is not None, Reason.NO_SHAPE)
    assert items.element is not None
    element = taken(items.element, op.path)
    shape = (items.length or op.fresh("length"), *element.dims)
    return [Tensor(shape, None if element.axis is None else element.axis + 1)]


def _list_length(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    length = _list(args[0]).length
    return [Tensor((), None, None if length is None else content_of(length))]


def _list(value: Value) -> TensorList:
    if not isinstance(value, TensorList):
        raise Mixing(Reason.NO_RULE)
    return value


# Of what is the same for all rows, whatever is computed is the same ------------------------------


def _only_of_the_same(reason: Reason) -> Rule:
    def rule(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
        require(not any(x.is_rows for x in tensors(args)), reason)
        return []

    return rule


_DATA_SIZED = types(
    """
    Bincount RaggedGather RaggedRange RaggedTensorToTensor SparseToDense StringSplit
    StringSplitV2 Unique UniqueV2 UniqueWithCounts UnicodeDecode Where
    """
)

_PLACES = types(
    """
    Diag DiagPart InvertPermutation LinSpace ListDiff MatrixDiagV3 MatrixSetDiagV3 ScatterNd
    SegmentMax SegmentMean SegmentSum TensorScatterUpdate UnsortedSegmentSum
    """
)

RULES = {
    **dict.fromkeys(_DATA_SIZED, _only_of_the_same(Reason.DATA_SIZED)),
    **dict.fromkeys(_PLACES, _only_of_the_same(Reason.PICKED)),
    "Gather": _gather,
    "GatherNd": _gather_nd,
    "GatherV2": _gather,
    "HashTable": _table_handle,
    "HashTableV2": _table_handle,
    "LookupTableFind": _find,
    "LookupTableFindV2": _find,
    "LookupTableSize": _table_size,
    "LookupTableSizeV2": _table_size,
    "ParseExample": _parse_examples,
    "ParseExampleV2": _parse_examples,
    "ReadVariableOp": _read_variable,
    "ResourceGather": _resource_gather,
    "TensorListFromTensor": _list_of_rows,
    "TensorListGetItem": _get_item,
    "TensorListLength": _list_length,
    "TensorListReserve": _new_list,
    "TensorListSetItem": _set_item,
    "TensorListStack": _stack,
    "VarHandleOp": _variable_handle,
    "VariableV2": _variable,
}
