"""Operations along axes: what they do along any axis but the rows' stays within each row.

Why they are row-wise, where they are: they combine, order, cut or normalise the elements along
certain axes, for each place of the others by itself. Along the rows' axis they would mix rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from servingd.servables.saved_model.merging.row_wise.operations import Operation, Rule, types
from servingd.servables.saved_model.merging.row_wise.shapes import integers, number, numbers, place
from servingd.servables.saved_model.merging.row_wise.sizes import ONE, Size, product, size
from servingd.servables.saved_model.merging.row_wise.values import (
    Mixing,
    Reason,
    Tensor,
    Value,
    content_of,
    require,
    tensors,
)

# Along the last axis --------------------------------------------------------------------------


def _along_last(reason: Reason) -> Rule:
    def rule(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
        (x,) = tensors(args[:1])
        require(x.axis != x.rank - 1, reason)
        return [Tensor(x.dims, x.axis)]

    return rule


def _top_k(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    x, k = tensors(args)
    require(x.axis != x.rank - 1, Reason.ORDERED)
    require(not k.is_rows, Reason.DATA_SIZED)
    last = integers(k)[0] if k.content is not None else op.fresh("k")
    shape = (*x.dims[:-1], last)
    return [Tensor(shape, x.axis), Tensor(shape, x.axis)]


def _within_matrices(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    """Rule of operations on matrices: they lie along the last two axes."""
    x = tensors(args)[0]
    require(not any(y.is_rows for y in tensors(args[1:])), Reason.DATA_SIZED)
    require(x.axis is None or x.axis < x.rank - 2, Reason.MOVED)
    return [Tensor(x.dims, x.axis)]


# Along axes that are a parameter ----------------------------------------------------------------


def _reduce(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    x, at = tensors(args)
    folds = op.type == "Prod" and x.rank == len(numbers(at)) == 1 and not op.attribute("keep_dims")
    if x.content is not None and folds:
        return [Tensor((), None, content_of(product(x.content.values)))]
    require(not x.is_counted, Reason.COUNTED)
    gone = {place(axis, x.rank) for axis in numbers(at)}
    require(x.axis not in gone, Reason.REDUCED)
    return [_without(x, gone, bool(op.attribute("keep_dims")))]


def _arg_reduce(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    x, at = tensors(args)
    gone = {place(number(at), x.rank)}
    require(x.axis not in gone, Reason.REDUCED)
    return [_without(x, gone, keep=False)]


def _without(x: Tensor, gone: set[int], keep: bool) -> Tensor:
    """Return what is left of a tensor whose axes `gone` are reduced."""
    if keep:
        return Tensor(tuple(ONE if i in gone else s for i, s in enumerate(x.dims)), x.axis)
    shape = tuple(s for i, s in enumerate(x.dims) if i not in gone)
    return Tensor(shape, None if x.axis is None else x.axis - sum(i < x.axis for i in gone))


def _accumulate(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    x, at = tensors(args)
    require(place(number(at), x.rank) != x.axis, Reason.ORDERED)
    return [Tensor(x.dims, x.axis)]


def _reverse(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    x, at = tensors(args)
    require(x.axis not in {place(axis, x.rank) for axis in numbers(at)}, Reason.ORDERED)
    return [Tensor(x.dims, x.axis)]


def _roll(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    x, shift, at = tensors(args)
    require(not shift.is_rows, Reason.ORDERED)
    require(x.axis not in {place(axis, x.rank) for axis in numbers(at)}, Reason.ORDERED)
    return [Tensor(x.dims, x.axis)]


def _pad(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    x, padding = tensors(args[:2])
    require(not any(y.is_rows for y in tensors(args[2:])), Reason.MISALIGNED)
    if padding.content is None or padding.content.known is None:
        raise Mixing(Reason.NOT_CONSTANT)
    widths = padding.content.known
    require(x.axis is None or not widths[x.axis].any(), Reason.JOINED)
    shape = tuple(s + size(int(widths[i].sum())) for i, s in enumerate(x.dims))
    return [Tensor(shape, x.axis)]


def _one_hot(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    x, depth, on, off = tensors(args)
    require(not any(y.is_rows for y in (depth, on, off)), Reason.MISALIGNED)
    axis = op.attribute("axis")
    dim = x.rank if axis == -1 else place(axis, x.rank + 1)
    length = integers(depth)[0] if depth.content is not None else op.fresh("depth")
    shape = (*x.dims[:dim], length, *x.dims[dim:])
    return [Tensor(shape, None if x.axis is None else x.axis + (dim <= x.axis))]


def _count_in_rows(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    """Rule of DenseBincount: a matrix's rows are counted each by itself, a vector as a whole."""
    x, bins, weights = tensors(args)
    require(x.rank == 2 and x.axis in (None, 0), Reason.REDUCED)
    require(not bins.is_rows, Reason.DATA_SIZED)
    weighted = weights.is_rows or weights.rank != 1 or weights.dims[0] != size(0)
    if weighted:
        require(weights.axis == x.axis and weights.dims[0] == x.dims[0], Reason.MISALIGNED)
    length = integers(bins)[0] if bins.content is not None else op.fresh("bins")
    return [Tensor((x.dims[0], length), x.axis)]


# Cutting ----------------------------------------------------------------------------------------


def _split(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    at, x = tensors(args)
    count = op.attribute("num_split")
    dim = place(number(at), x.rank)
    require(dim != x.axis, Reason.JOINED)
    part = x.dims[dim].divided_by(size(count)) or op.fresh(0)
    return [Tensor((*x.dims[:dim], part, *x.dims[dim + 1 :]), x.axis)] * count


def _split_v(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    x, lengths, at = tensors(args)
    dim = place(number(at), x.rank)
    require(dim != x.axis, Reason.JOINED)
    parts = [
        op.fresh(i) if length.known == -1 else length for i, length in enumerate(integers(lengths))
    ]
    return [Tensor((*x.dims[:dim], part, *x.dims[dim + 1 :]), x.axis) for part in parts]


def _unpack(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    (x,) = tensors(args)
    count = op.attribute("num")
    if x.content is not None and x.rank == 1:
        return [Tensor((), None, content_of(value)) for value in x.content.values]
    require(not x.is_counted, Reason.COUNTED)
    dim = place(op.attribute("axis"), x.rank)
    require(dim != x.axis, Reason.JOINED)
    return [_without(x, {dim}, keep=False)] * count


def _slice(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    x, begin, length = tensors(args)
    require(not begin.is_rows and not length.is_rows, Reason.DATA_SIZED)
    if x.content is not None and x.rank == 1:
        start, count = number(begin), number(length)
        values = x.content.array[start : None if count == -1 else start + count]
        return [Tensor((size(len(values)),), None, content_of(values))]
    require(not x.is_counted, Reason.COUNTED)
    starts = integers(begin) if begin.content is not None else [None] * x.rank
    counts = integers(length) if length.content is not None else [None] * x.rank
    if x.axis is not None:
        whole = counts[x.axis] in (size(-1), x.dims[x.axis])
        require(starts[x.axis] == size(0) and whole, Reason.JOINED)
    for i, each in enumerate(zip(starts, counts, strict=True)):
        other = i != x.axis and any(v is not None and v.counts_rows for v in each)
        require(not other, Reason.COUNTED)
    shape = tuple(
        _count_left(op, i, dim, start, count)
        for i, (dim, start, count) in enumerate(zip(x.dims, starts, counts, strict=True))
    )
    return [Tensor(shape, x.axis)]


def _count_left(op: Operation, i: int, dim: Size, start: Size | None, count: Size | None) -> Size:
    if count is None or (count == size(-1) and start is None):
        return op.fresh(i)
    if count != size(-1):
        return count
    assert start is not None
    return dim if start == size(0) else dim - start


def _strided_slice(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    x, begin, end, strides = tensors(args)
    require(not any(y.is_rows for y in (begin, end, strides)), Reason.DATA_SIZED)
    parts = _Parts(op, x.rank, begin, end, strides)
    if x.content is not None:
        index: Any = tuple(part.as_index() for part in parts.each)
        content = content_of(x.content.array[index])
        return [Tensor(tuple(map(size, content.shape)), None, content)]
    require(not x.is_counted, Reason.COUNTED)
    return [_cut(op, x, parts)]


class _Part:
    """What a strided slice does at one place of its specification."""

    __slots__ = ("begin", "end", "kind", "stride")

    def __init__(
        self, kind: str, begin: Size | None, end: Size | None, stride: Size | None
    ) -> None:
        """`begin` and `end` are None where it goes as far as it can; see `UNKNOWN`."""
        self.kind, self.begin, self.end, self.stride = kind, begin, end, stride

    def as_index(self) -> object:
        """Return the part as numpy indexes. Raises Mixing if a number is not known."""
        if self.kind == "new":
            return None
        if self.kind == "shrink":
            return self._known(self.begin)
        return slice(self._known(self.begin), self._known(self.end), self._known(self.stride))

    @staticmethod
    def _known(value: Size | None) -> int | None:
        if value is None:
            return None
        if value.known is None:
            raise Mixing(Reason.NOT_CONSTANT)
        return value.known

    @property
    def counts_rows(self) -> bool:
        """Return whether the number of rows decides what stays."""
        values = (self.begin, self.end, self.stride)
        return any(value is not None and value.counts_rows for value in values)

    def is_whole(self, dim: Size) -> bool:
        """Return whether all of a dimension stays, in order."""
        from_start = self.begin is None or self.begin == size(0)
        to_end = self.end is None or self.end == dim
        return self.kind == "slice" and from_start and to_end and self.stride == ONE

    def length(self, dim: Size) -> Size | None:
        """Return how much of a dimension stays; None if that is not worked out."""
        if self.is_whole(dim):
            return dim
        values = (self.begin, self.end, self.stride)
        if dim.known is None or any(v is not None and v.known is None for v in values):
            return None
        index = self.as_index()
        assert isinstance(index, slice)
        return size(len(range(*index.indices(dim.known))))


class _Parts:
    """A strided slice's specification, with its ellipsis spelt out: one part a dimension."""

    def __init__(
        self, op: Operation, rank: int, begin: Tensor, end: Tensor, strides: Tensor
    ) -> None:
        (count,) = begin.dims
        if count.known is None:
            raise Mixing(Reason.NO_SHAPE)
        number = count.known
        masks = {
            name: op.attribute(f"{name}_mask")
            for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
        }

        def on(name: str, i: int) -> bool:
            return bool(masks[name] >> i & 1)

        lists = [
            integers(value)
            if value.content is not None
            else [op.fresh(f"{tag}{i}") for i in range(number)]
            for tag, value in (("begin", begin), ("end", end), ("stride", strides))
        ]
        new = sum(on("new_axis", i) and not on("ellipsis", i) for i in range(number))
        dots = any(on("ellipsis", i) for i in range(number))
        left = rank - (number - new - dots)
        whole = [_Part("slice", None, None, ONE)] * left
        self.each: list[_Part] = []
        for i, (b, e, s) in enumerate(zip(*lists, strict=True)):
            if on("ellipsis", i):
                self.each += whole
            elif on("new_axis", i):
                self.each.append(_Part("new", None, None, None))
            elif on("shrink_axis", i):
                self.each.append(_Part("shrink", b, None, None))
            else:
                first = None if on("begin", i) else b
                last = None if on("end", i) else e
                self.each.append(_Part("slice", first, last, s))
        if not dots:
            self.each += whole


def _cut(op: Operation, x: Tensor, parts: _Parts) -> Tensor:
    shape: list[Size] = []
    axis, dim = None, 0
    for part in parts.each:
        if part.kind == "new":
            shape.append(ONE)
            continue
        here = x.dims[dim]
        if dim == x.axis:
            require(part.is_whole(here), Reason.JOINED)
            axis = len(shape)
        else:
            require(not part.counts_rows, Reason.COUNTED)
        if part.kind == "slice":
            shape.append(part.length(here) or op.fresh(f"length{dim}"))
        dim += 1
    return Tensor(tuple(shape), axis)


_REDUCTIONS = types(
    """
    All Any EuclideanNorm Max Mean Min Prod ReduceJoin Sum
    """
)

RULES = {
    **dict.fromkeys(_REDUCTIONS, _reduce),
    "ArgMax": _arg_reduce,
    "ArgMin": _arg_reduce,
    "Cumprod": _accumulate,
    "Cumsum": _accumulate,
    "CumulativeLogsumexp": _accumulate,
    "DenseBincount": _count_in_rows,
    "HSVToRGB": _along_last(Reason.NORMALISED),
    "LogSoftmax": _along_last(Reason.NORMALISED),
    "MatrixBandPart": _within_matrices,
    "MirrorPad": _pad,
    "OneHot": _one_hot,
    "Pad": _pad,
    "PadV2": _pad,
    "RGBToHSV": _along_last(Reason.NORMALISED),
    "ReverseV2": _reverse,
    "Roll": _roll,
    "Slice": _slice,
    "Softmax": _along_last(Reason.NORMALISED),
    "Split": _split,
    "SplitV": _split_v,
    "StridedSlice": _strided_slice,
    "TopKV2": _top_k,
    "Unpack": _unpack,
}

OUTPUTS = {"TopKV2": ("values", "indices")}
