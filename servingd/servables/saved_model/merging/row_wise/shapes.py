"""Operations that read, set or change shapes.

Why they are row-wise, where they are: an array lies in memory row after row as long as everything
before the rows' axis is one and the same prefix. A reshape that keeps that prefix, and whose next
dimension is the number of rows times something, cuts each row's own part anew and no other's.
A shape that holds the number of rows (`counted`) may only serve to make rows: as a target here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from servingd.servables.saved_model.merging.row_wise.operations import Operation
from servingd.servables.saved_model.merging.row_wise.sizes import ONE, Size, product, size
from servingd.servables.saved_model.merging.row_wise.values import (
    Content,
    Mixing,
    Reason,
    Shape,
    Tensor,
    Value,
    content_of,
    require,
    tensors,
)


def integers(value: Value) -> list[Size]:
    """Return the values of a known vector or scalar, row counts included. Raises Mixing."""
    if not isinstance(value, Tensor) or value.content is None or len(value.content.shape) > 1:
        raise Mixing(Reason.NOT_CONSTANT)
    return list(value.content.values)


def numbers(value: Value) -> list[int]:
    """Return the values of a constant vector or scalar. Raises Mixing."""
    found = [each.known for each in integers(value)]
    if any(number is None for number in found):
        raise Mixing(Reason.NOT_CONSTANT)
    return [int(number) for number in found if number is not None]


def number(value: Value) -> int:
    """Return the value of a constant scalar, or vector of one. Raises Mixing."""
    found = numbers(value)
    require(len(found) == 1, Reason.NOT_CONSTANT)
    return found[0]


def place(axis: int, rank: int) -> int:
    """Return an axis counted from the front."""
    found = axis + rank if axis < 0 else axis
    require(0 <= found < rank, Reason.NOT_CONSTANT)
    return found


def _constant(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    shape, content = op.constant()
    return [Tensor(shape, None, content)]


def _shape(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    """Rule of Shape: of rows, it is counted; no row's content decides it."""
    return [_shape_of(x) for x in tensors(args)]


def _shape_of(x: Tensor) -> Tensor:
    if x.shape is None:
        return Tensor(None)
    return Tensor((size(len(x.shape)),), None, content_of(_array(x.shape)))


def _array(sizes: Sequence[Size]) -> np.ndarray:
    array = np.empty(len(sizes), object)
    array[:] = sizes
    return array


def _size(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    (x,) = tensors(args)
    return [Tensor((), None, content_of(product(x.dims)))]


def _rank(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    (x,) = tensors(args)
    return [Tensor((), None, content_of(x.rank))]


def _reshape(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    x, target = tensors(args)
    require(not target.is_rows, Reason.DATA_SIZED)
    if x.content is not None and target.content is not None:
        return [_reshaped_content(x.content, target)]
    require(not x.is_counted, Reason.COUNTED)
    if x.axis is None and target.content is None:  # of the same, to what is not worked out
        dims = [op.fresh(i) for i in range(_length(target))]
        return [Tensor(tuple(dims))]
    wanted = integers(target)
    require(all(each.is_positive or each.known == -1 for each in wanted), Reason.NOT_CONSTANT)
    if x.axis is None:
        return [Tensor(_solved(op, wanted, x.shape))]
    return [_reshaped_rows(op, x, x.axis, wanted)]


def _reshaped_content(content: Content, target: Tensor) -> Tensor:
    array = content.array.reshape(numbers(target))
    return Tensor(tuple(map(size, array.shape)), None, content_of(array))


def _length(shape: Tensor) -> int:
    (length,) = shape.dims
    if length.known is None:
        raise Mixing(Reason.NO_SHAPE)
    return length.known


def _solved(op: Operation, wanted: Sequence[Size], shape: Shape | None) -> Shape:
    """Return a target's sizes, with -1 replaced by what the other sizes leave."""
    require(not any(each.counts_rows for each in wanted), Reason.COUNTED)
    rest = product(each for each in wanted if each.known != -1)
    whole = product(shape).divided_by(rest) if shape is not None else None
    return tuple(
        (whole or op.fresh(i)) if each.known == -1 else each for i, each in enumerate(wanted)
    )


def _reshaped_rows(op: Operation, x: Tensor, axis: int, wanted: list[Size]) -> Tensor:
    """Return rows reshaped as the module docstring says. At most one size is -1."""
    before, rest = product(x.dims[:axis]), product(x.dims[axis + 1 :])
    per_row = x.dims[axis].per_row()
    assert per_row is not None  # rows are made of nothing else
    new = next((i for i, each in enumerate(wanted) if each.counts_rows), None)
    open_place = next((i for i, each in enumerate(wanted) if each.known == -1), None)
    if new is None:
        require(open_place is not None, Reason.MOVED)
        assert open_place is not None
        new = open_place
    require(product(wanted[:new]) == before, Reason.MOVED)
    after = wanted[new + 1 :]
    require(not any(each.counts_rows for each in after), Reason.MOVED)
    if new == open_place:
        each_row = (per_row * rest).divided_by(product(after))
        require(each_row is not None, Reason.MOVED)
        assert each_row is not None
        wanted[new] = x.dims[axis].divided_by(per_row) * each_row  # type: ignore[operator]
    require(wanted[new].per_row() is not None, Reason.MOVED)
    if open_place is not None and open_place > new:
        known = product(s for s in (wanted[new].per_row(), *after) if s and s.known != -1)
        wanted[open_place] = (per_row * rest).divided_by(known) or op.fresh(open_place)
    return Tensor(tuple(wanted), new)


def _expand_dims(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    x, at = tensors(args)
    dim = place(number(at), x.rank + 1)
    shape = (*x.dims[:dim], ONE, *x.dims[dim:])
    axis = None if x.axis is None else x.axis + (dim <= x.axis)
    content = x.content
    if content is not None:
        content = content_of(np.expand_dims(content.array, dim))
    return [Tensor(shape, axis, content)]


def _squeeze(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    """Rule of Squeeze: without a list of dimensions one row would lose its axis, two would not."""
    (x,) = tensors(args)
    listed = op.attribute("squeeze_dims")
    gone = {place(dim, x.rank) for dim in listed}
    if not gone:
        require(all(each.known is not None for each in x.dims), Reason.MOVED)
        gone = {i for i, each in enumerate(x.dims) if each == ONE}
    require(x.axis not in gone, Reason.MOVED)
    shape = tuple(each for i, each in enumerate(x.dims) if i not in gone)
    axis = None if x.axis is None else x.axis - sum(i < x.axis for i in gone)
    content = content_of(x.content.array.squeeze(tuple(gone))) if x.content else None
    return [Tensor(shape, axis, content)]


def _transpose(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    """Rule of Transpose: rows stay rows, along the axis that theirs becomes."""
    x, order = tensors(args)
    require(not x.is_counted, Reason.COUNTED)
    new = numbers(order)
    require(sorted(new) == list(range(x.rank)), Reason.NOT_CONSTANT)
    axis = None if x.axis is None else new.index(x.axis)
    return [Tensor(tuple(x.dims[i] for i in new), axis)]


def _fill(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    """Rule of Fill: one value for all rows."""
    dims, value = tensors(args)
    require(value.is_same, Reason.MISALIGNED)
    return [_made_rows(integers(dims))]


def _made_rows(shape: Sequence[Size]) -> Tensor:
    """Return one value in a shape that may hold the number of rows once."""
    axes = [i for i, each in enumerate(shape) if each.counts_rows]
    if not axes:
        return Tensor(tuple(shape))
    require(len(axes) == 1 and shape[axes[0]].per_row() is not None, Reason.COUNTED)
    return Tensor(tuple(shape), axes[0])


def _broadcast_to(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    x, target = tensors(args)
    require(not x.is_counted, Reason.COUNTED)
    wanted = integers(target)
    found = _made_rows(wanted)
    if x.axis is None:
        if found.axis is not None:
            from_end = found.axis - len(wanted)
            require(x.rank < -from_end or x.dims[from_end] == ONE, Reason.MISALIGNED)
        return [found]
    require(found.axis == x.axis + len(wanted) - x.rank, Reason.MISALIGNED)
    require(wanted[x.axis + len(wanted) - x.rank] == x.dims[x.axis], Reason.MISALIGNED)
    return [found]


def _broadcast_args(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    one, other = (list(reversed(integers(arg))) for arg in args)
    found = []
    for i in range(max(len(one), len(other))):
        both = {s[i] for s in (one, other) if i < len(s) and s[i] != ONE}
        require(len(both) <= 1, Reason.NOT_CONSTANT)
        found.append(both.pop() if both else ONE)
    found.reverse()
    return [Tensor((size(len(found)),), None, content_of(_array(found)))]


def _tile(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    """Rule of Tile: rows may not be repeated, as the copies would come after all rows."""
    x, times = tensors(args)
    require(not x.is_counted, Reason.COUNTED)
    factors = integers(times)
    require(len(factors) == x.rank, Reason.NOT_CONSTANT)
    if x.axis is None:
        made = _made_rows([s * f for s, f in zip(x.dims, factors, strict=True)])
        return [made]
    require(factors[x.axis] == ONE, Reason.JOINED)
    require(not any(f.counts_rows for f in factors), Reason.COUNTED)
    return [Tensor(tuple(s * f for s, f in zip(x.dims, factors, strict=True)), x.axis)]


def _concat(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    """Rule of Concat: side by side rows stay rows; one after the other they do not."""
    found = tensors(args)
    at, parts = (found[0], found[1:]) if op.type == "Concat" else (found[-1], found[:-1])
    if all(part.content is not None and part.rank == 1 for part in parts):
        values = [value for part in parts for value in integers(part)]
        return [Tensor((size(len(values)),), None, content_of(_array(values)))]
    require(not any(part.is_counted for part in parts), Reason.COUNTED)
    axis, rank = _aligned(parts)
    dim = place(number(at), rank)
    require(dim != axis, Reason.JOINED)
    whole = parts[0].dims[dim]
    for part in parts[1:]:
        whole = whole + part.dims[dim]
    return [Tensor((*parts[0].dims[:dim], whole, *parts[0].dims[dim + 1 :]), axis)]


def _aligned(parts: Sequence[Tensor]) -> tuple[int | None, int]:
    """Return the axis that all have rows along, or None, and their rank. Raises Mixing."""
    first = parts[0]
    for part in parts[1:]:
        require(part.axis == first.axis and part.rank == first.rank, Reason.MISALIGNED)
        if first.axis is not None:
            require(part.dims[first.axis] == first.dims[first.axis], Reason.MISALIGNED)
    return first.axis, first.rank


def _pack(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    parts = tensors(args)
    if all(part.content is not None and part.rank == 0 for part in parts):
        values = [integers(part)[0] for part in parts]
        return [Tensor((size(len(values)),), None, content_of(_array(values)))]
    require(not any(part.is_counted for part in parts), Reason.COUNTED)
    if all(part.rank == 0 for part in parts):
        return [Tensor((size(len(parts)),))]
    axis, rank = _aligned(parts)
    dim = place(op.attribute("axis"), rank + 1)
    shape = parts[0].dims
    new = (*shape[:dim], size(len(parts)), *shape[dim:])
    return [Tensor(new, None if axis is None else axis + (dim <= axis))]


def _range(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    """Rule of Range: up to the number of rows it makes row numbers, which are not followed."""
    found = tensors(args)
    require(not any(x.is_counted or x.is_rows for x in found), Reason.COUNTED)
    try:
        start, limit, delta = (number(x) for x in found)
        values = range(start, limit, delta or 1)
        require(len(values) <= 256, Reason.NOT_CONSTANT)
        return [Tensor((size(len(values)),), None, content_of(np.array(values, object)))]
    except Mixing:
        return [Tensor((op.fresh(0),))]


RULES = {
    "BroadcastArgs": _broadcast_args,
    "BroadcastTo": _broadcast_to,
    "Concat": _concat,
    "ConcatV2": _concat,
    "Const": _constant,
    "ExpandDims": _expand_dims,
    "Fill": _fill,
    "Pack": _pack,
    "Range": _range,
    "Rank": _rank,
    "Reshape": _reshape,
    "Shape": _shape,
    "ShapeN": _shape,
    "Size": _size,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
}
