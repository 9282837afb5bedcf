"""Products, convolutions, pools and normalisations.

Why they are row-wise, where they are: rows stand along an axis that the operation treats as a list
of independent problems: the batch of a convolution, or a dimension of a product that is neither
summed over nor shared by two factors that both hold rows.
"""

from __future__ import annotations

from collections.abc import Sequence

from servingd.servables.saved_model.merging.row_wise.elementwise import broadcast
from servingd.servables.saved_model.merging.row_wise.operations import Operation, types
from servingd.servables.saved_model.merging.row_wise.shapes import integers
from servingd.servables.saved_model.merging.row_wise.sizes import ONE, Size, size
from servingd.servables.saved_model.merging.row_wise.values import (
    Reason,
    Shape,
    Tensor,
    Value,
    require,
    tensors,
)

# Products ---------------------------------------------------------------------------------------


def _product(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    """Rule of matrix products: matrices in the last two axes; the axes before are broadcast."""
    a, b = tensors(args)
    require(a.rank >= 2 and b.rank >= 2, Reason.NO_SHAPE)
    flip_a, flip_b = (
        op.attribute(name)
        for name in (("transpose_a", "transpose_b") if op.type == "MatMul" else ("adj_x", "adj_y"))
    )
    a, b = _flipped(a, flip_a), _flipped(b, flip_b)
    rank = max(a.rank, b.rank)
    in_a, in_b = _from_end(a), _from_end(b)
    require(in_a != -1 and in_b != -2, Reason.CONTRACTED)  # what is summed over
    axis = _axis_of_product(a, b, in_a, in_b, rank)
    heads = [Tensor(x.dims[:-2], x.axis if _in_head(x) else None) for x in (a, b)]
    shape, _ = broadcast(op, heads) if any(h.dims for h in heads) else ((), None)
    return [Tensor((*shape, a.dims[-2], b.dims[-1]), axis)]


def _axis_of_product(
    a: Tensor, b: Tensor, in_a: int | None, in_b: int | None, rank: int
) -> int | None:
    """Return where the product has its rows. Raises Mixing where rows meet rows."""
    if in_a is None and in_b is None:
        return None
    if in_a == -2 or in_b == -1:  # rows of matrices: the other factor is the same for each
        require(in_a is None or in_b is None, Reason.CONTRACTED)
        return rank + (in_a if in_a is not None else -1)
    return rank + next(place for place in (in_a, in_b) if place is not None)


def _from_end(x: Tensor) -> int | None:
    return None if x.axis is None else x.axis - x.rank


def _in_head(x: Tensor) -> bool:
    return x.axis is not None and x.axis < x.rank - 2


def _flipped(x: Tensor, flip: bool) -> Tensor:
    if not flip:
        return x
    axis = x.axis
    if axis is not None and axis >= x.rank - 2:
        axis = 2 * x.rank - 3 - axis
    return Tensor((*x.dims[:-2], x.dims[-1], x.dims[-2]), axis)


def _einsum(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    """Rule of Einsum: the rows' label is kept, and only inputs with rows have it."""
    found = tensors(args)
    lefts, right = op.attribute("equation").replace(" ", "").split("->")
    dots = max(
        x.rank - len(text.replace("...", ""))
        for x, text in zip(found, lefts.split(","), strict=True)
    )
    right = _spelt_out(right, dots)
    sizes: dict[str, Size] = {}
    label = None
    for x, text in zip(found, lefts.split(","), strict=True):
        labels = _spelt_out(text, x.rank - len(text.replace("...", "")))
        for i, each in enumerate(labels):
            if sizes.get(each, ONE) == ONE:
                sizes[each] = x.dims[i]
            if i == x.axis:
                require(label in (None, each) and labels.count(each) == 1, Reason.CONTRACTED)
                label = each
    for x, text in zip(found, lefts.split(","), strict=True):
        labels = _spelt_out(text, x.rank - len(text.replace("...", "")))
        apart = x.axis is None or x.dims[x.axis] != sizes[label or ""]
        require(not apart or label not in labels or _is_one(x, labels, label), Reason.CONTRACTED)
    require(label is None or label in right, Reason.CONTRACTED)
    shape = tuple(sizes[each] for each in right)
    return [Tensor(shape, None if label is None else right.index(label))]


def _is_one(x: Tensor, labels: Sequence[str], label: str | None) -> bool:
    """Return whether an ellipsis's label is broadcast in an input without rows."""
    at = labels.index(label or "")
    return x.axis is None and label is not None and label.isdigit() and x.dims[at] == ONE


def _spelt_out(text: str, dots: int) -> list[str]:
    """Return an input's labels; those of an ellipsis are numbers, counted from its end."""
    if "..." not in text:
        return list(text)
    before, after = text.split("...")
    return [*before, *(str(i) for i in range(dots - 1, -1, -1)), *after]


# Convolutions and pools -------------------------------------------------------------------------


def _first_is_rows(x: Tensor) -> None:
    require(x.axis in (None, 0), Reason.WINDOWED)


def _convolution(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    x, kernel = tensors(args[:2])
    _first_is_rows(x)
    require(not kernel.is_rows, Reason.CONTRACTED)
    spatial = x.rank - 2
    channels = kernel.dims[-1]
    if op.type == "DepthwiseConv2dNative":
        channels = kernel.dims[-2] * kernel.dims[-1]
    strides = op.attribute("strides")
    dilations = op.attribute("dilations") or (1,) * x.rank
    first, last = _spatial(op, x.rank)
    require(strides[0] == 1 and dilations[0] == 1, Reason.WINDOWED)
    lengths = [
        _windows(op, i, x.dims[first + i], kernel.dims[i], strides[first + i], dilations[first + i])
        for i in range(spatial)
    ]
    return [Tensor(_image(x.dims[0], lengths, channels, last), x.axis)]


def _pool(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    (x,) = tensors(args)
    _first_is_rows(x)
    windows, strides = op.attribute("ksize"), op.attribute("strides")
    require(windows[0] == 1 and strides[0] == 1, Reason.WINDOWED)
    first, last = _spatial(op, x.rank)
    channel = x.rank - 1 if last else 1
    require(windows[channel] == 1 and strides[channel] == 1, Reason.NO_RULE)
    lengths = [
        _windows(op, i, x.dims[first + i], size(windows[first + i]), strides[first + i], 1)
        for i in range(x.rank - 2)
    ]
    return [Tensor(_image(x.dims[0], lengths, x.dims[channel], last), x.axis)]


def _spatial(op: Operation, rank: int) -> tuple[int, bool]:
    """Return the first spatial axis, and whether channels come last."""
    last = op.attribute("data_format").endswith("C")
    require(last or op.attribute("data_format").startswith("NC"), Reason.NO_RULE)
    return (1 if last else 2), last


def _image(rows: Size, lengths: Sequence[Size], channels: Size, last: bool) -> Shape:
    return (rows, *lengths, channels) if last else (rows, channels, *lengths)


def _windows(op: Operation, i: int, length: Size, window: Size, stride: int, dilation: int) -> Size:
    """Return how many windows fit along one axis."""
    padding = op.attribute("padding")
    explicit = op.attribute("explicit_paddings")
    if length.known is None or window.known is None:
        return op.fresh(i)
    if padding == "SAME":
        return size(-(-length.known // stride))
    if padding == "EXPLICIT":
        first = _spatial(op, len(explicit) // 2)[0] + i
        padded = length.known + explicit[2 * first] + explicit[2 * first + 1]
    else:
        require(padding == "VALID", Reason.NO_RULE)
        padded = length.known
    return size((padded - (window.known - 1) * dilation - 1) // stride + 1)


def _transposed_convolution(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    """Rule of Conv2DBackpropInput: its shape is an input, but it has as many rows as its input."""
    shape, kernel, x = tensors(args)
    require(not kernel.is_rows, Reason.CONTRACTED)
    _first_is_rows(x)
    wanted = integers(shape)
    require(x.axis is None or wanted[0] == x.dims[0], Reason.MISALIGNED)
    require(not any(each.counts_rows for each in wanted[1:]), Reason.COUNTED)
    require(x.axis is not None or not wanted[0].counts_rows, Reason.COUNTED)
    strides = op.attribute("strides")
    require(strides[0] == 1, Reason.WINDOWED)
    return [Tensor(tuple(wanted), x.axis)]


def _batch_norm(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    """Rule of FusedBatchNorm: in training the statistics are those of the batch."""
    x, *rest = tensors(args)
    require(not op.attribute("is_training"), Reason.BATCH_STATISTICS)
    require(not any(y.is_rows for y in rest), Reason.MISALIGNED)
    _first_is_rows(x)
    return [Tensor(x.dims, x.axis), *[Tensor(None)] * 5]


def _bias(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    """Rule of BiasAdd: it adds along the channels, which are never the rows."""
    x, bias = tensors(args)
    require(not bias.is_rows, Reason.MISALIGNED)
    channels = x.rank - 1 if op.attribute("data_format").endswith("C") else 1
    require(x.axis != channels, Reason.MISALIGNED)
    return [Tensor(x.dims, x.axis)]


def _within_images(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    (x,) = tensors(args)
    _first_is_rows(x)
    return [Tensor(x.dims, x.axis)]


def _resize(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    x, new = tensors(args)
    _first_is_rows(x)
    require(not new.is_rows, Reason.DATA_SIZED)
    height, width = integers(new) if new.content else (op.fresh("height"), op.fresh("width"))
    return [Tensor((x.dims[0], height, width, x.dims[3]), x.axis)]


def _depth_and_space(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    (x,) = tensors(args)
    _first_is_rows(x)
    require(op.attribute("data_format") == "NHWC", Reason.NO_RULE)
    block = size(op.attribute("block_size"))
    rows, height, width, depth = x.dims
    if op.type == "DepthToSpace":
        deep = depth.divided_by(block * block) or op.fresh("depth")
        return [Tensor((rows, height * block, width * block, deep), x.axis)]
    high, wide = (
        side.divided_by(block) or op.fresh(name)
        for side, name in ((height, "height"), (width, "width"))
    )
    return [Tensor((rows, high, wide, depth * block * block), x.axis)]


_POOLS = types(
    """
    AvgPool AvgPool3D MaxPool MaxPool3D
    """
)
_CONVOLUTIONS = types(
    """
    Conv2D Conv3D DepthwiseConv2dNative
    """
)
_RESIZES = types(
    """
    ResizeArea ResizeBicubic ResizeBilinear ResizeNearestNeighbor
    """
)
_NORMS = types(
    """
    FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3
    """
)

RULES = {
    **dict.fromkeys(_POOLS, _pool),
    **dict.fromkeys(_CONVOLUTIONS, _convolution),
    **dict.fromkeys(_RESIZES, _resize),
    **dict.fromkeys(_NORMS, _batch_norm),
    "BatchMatMul": _product,
    "BatchMatMulV2": _product,
    "BatchMatMulV3": _product,
    "BiasAdd": _bias,
    "Conv2DBackpropInput": _transposed_convolution,
    "DepthToSpace": _depth_and_space,
    "Einsum": _einsum,
    "LRN": _within_images,
    "MatMul": _product,
    "SpaceToDepth": _depth_and_space,
}

_STATISTICS = ("y", "batch_mean", "batch_variance", "reserve_space_1", "reserve_space_2")

OUTPUTS = {
    "FusedBatchNorm": _STATISTICS,
    "FusedBatchNormV2": _STATISTICS,
    "FusedBatchNormV3": (*_STATISTICS, "reserve_space_3"),
}
