"""Layers: contractions, windows, normalisations, and reductions within a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from servingd.servables.onnx.row_wise.values import (
    ROWS,
    Dim,
    Mixing,
    Node,
    Rows,
    Rule,
    Same,
    Value,
    axis_of,
    items_of,
    require,
)

_CONTRACTED = "it multiplies rows with each other"


def _known_dims(value: Value | None) -> tuple[Dim, ...]:
    if isinstance(value, Same) and value.dims is not None:
        return value.dims
    raise Mixing("a shape is not known")


def _matmul(node: Node) -> Sequence[Value]:
    """The last dimension of one with the last but one of the other: neither may be the rows'."""
    one, other = node.input(0), node.input(1)
    if isinstance(one, Rows) and isinstance(other, Rows):
        require(one.rank == other.rank >= 3, _CONTRACTED)
        return [Rows((*_batch(one.inner[:-2], other.inner[:-2]), one.inner[-2], other.inner[-1]))]
    if isinstance(one, Rows):
        dims = _known_dims(other)
        require(one.rank >= 2 and len(dims) >= 1, _CONTRACTED)
        if len(dims) == 1:
            return [Rows(one.inner[:-1])]
        if len(dims) == 2:
            return [Rows((*one.inner[:-1], dims[-1]))]
        return [Rows((*_batch_beside(one, dims), one.inner[-2], dims[-1]))]
    rows, dims = node.rows(1), _known_dims(one)
    require(rows.rank >= 3 and len(dims) >= 2, _CONTRACTED)
    return [Rows((*_batch_beside(rows, dims), dims[-2], rows.inner[-1]))]


def _batch_beside(rows: Rows, dims: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """Return the inner dimensions of a batch of matrices beside others that are the same."""
    fits = len(dims) < rows.rank or (len(dims) == rows.rank and dims[0] == 1)
    require(rows.rank >= 3 and fits, "it sets rows against a fixed number of them")
    others = dims[1:-2] if len(dims) == rows.rank else dims[:-2]
    return _batch(rows.inner[:-2], others)


def _batch(one: tuple[Dim, ...], other: tuple[Dim, ...]) -> tuple[Dim, ...]:
    padded = (1,) * (len(one) - len(other)) + other
    return tuple(
        a if b in (a, 1) else b if a == 1 else None for a, b in zip(one, padded, strict=True)
    )


def _gemm(node: Node) -> Sequence[Value]:
    """A * b + c on matrices; the rows are those of `a`."""
    rows, dims = node.rows(), _known_dims(node.input(1))
    require(rows.rank == 2 and node.integer("transA", 0) == 0, _CONTRACTED)
    added = node.input(2)
    if isinstance(added, Rows):
        require(added.rank == 2, "it sets rows against other parts by their places")
    elif added is not None:
        shape = _known_dims(added)
        fits = len(shape) <= 1 or shape[0] == 1
        require(fits, "it sets rows against a fixed number of them")
    return [Rows((dims[0 if node.integer("transB", 0) else 1],))]


def _convolution(node: Node) -> Sequence[Value]:
    """Windows slide over the dimensions after the second: each row by itself."""
    rows = node.rows()
    node.require_same(*range(1, len(node.inputs)))
    require(rows.rank >= 3, "its windows span several rows")
    weights = node.input(1)
    dims = weights.dims if isinstance(weights, Same) else None
    channels = dims[0] if dims and node.op == "Conv" else None
    return [Rows((channels, *[None] * (rows.rank - 2)))]


def _pool(node: Node) -> Sequence[Value]:
    """Windows as above. Places of maxima are counted through all rows, so nobody may want them."""
    rows = node.rows()
    require(rows.rank >= 3, "its windows span several rows")
    require(len(node.outputs) == 1, "it counts places through all rows")
    is_global = node.op.startswith("Global")
    return [Rows((rows.inner[0], *[1 if is_global else None] * (rows.rank - 2)))]


def _batch_normalization(node: Node) -> Sequence[Value]:
    """With statistics that were learnt; in training it takes those of the batch."""
    in_training = node.integer("training_mode", 0) or (
        node.version < 7 and not node.integer("is_test", 0)
    )
    statistics = "it normalises with the statistics of the batch"
    require(not in_training and len(node.outputs) == 1, statistics)
    node.require_same(1, 2, 3, 4)
    require(node.rows().rank >= 2, "it works along the rows")
    return [node.rows()]


def _within_row(node: Node) -> Sequence[Value]:
    """Normalises over channels and places of a row, [rows, channels, ...]."""
    node.require_same(*range(1, len(node.inputs)))
    require(node.rows().rank >= 3, "it works along the rows")
    return [node.rows()]


def _layer_normalization(node: Node) -> Sequence[Value]:
    """Normalises over an axis and those behind it, then scales them."""
    rows = node.rows()
    axis_of(node.integer("axis", -1), rows.rank)
    for place in (1, 2):
        if node.input(place) is not None:
            dims = _known_dims(node.input(place))
            require(len(dims) < rows.rank, "it sets rows against a fixed number of them")
    require(len([name for name in node.outputs if name]) == 1, "no rule says what it does to rows")
    return [rows]


def _along_axis(default: int, legacy: int) -> Rule:
    """Works along one axis. Before operator set 13, along it and all behind it."""

    def rule(node: Node) -> Sequence[Value]:
        rows = node.rows()
        axis_of(node.integer("axis", default if node.version >= 13 else legacy), rows.rank)
        return [rows]

    return rule


def _reduce(node: Node) -> Sequence[Value]:
    """Reduces over axes; without them, over all."""
    rows = node.rows()
    axes = node.constant(1, "axes")
    if not axes:
        require(node.integer("noop_with_empty_axes", 0) == 1, "it reduces over the rows")
        return [rows]
    return [_reduced(rows, {axis_of(axis, rows.rank) for axis in axes}, node)]


def _arg(node: Node) -> Sequence[Value]:
    """The place of an extreme along one axis."""
    rows = node.rows()
    return [_reduced(rows, {axis_of(node.integer("axis", 0), rows.rank)}, node)]


def _reduced(rows: Rows, axes: set[int], node: Node) -> Rows:
    keep = node.integer("keepdims", 1)
    inner = enumerate(rows.inner, 1)
    return Rows(tuple(1 if i in axes else size for i, size in inner if keep or i not in axes))


def _cumsum(node: Node) -> Sequence[Value]:
    """Sums up along one axis."""
    rows = node.rows()
    axes = node.constant(1)
    require(bool(axes), "a parameter of it is not constant")
    axis_of((axes or (0,))[0], rows.rank)
    return [rows]


def _top_k(node: Node) -> Sequence[Value]:
    """The largest along one axis, and their places."""
    rows = node.rows()
    axis = axis_of(node.integer("axis", -1), rows.rank)
    count = node.integer("k", 0) if node.version < 10 else (node.constant(1) or (0,))[0]
    inner = tuple(count if i == axis else size for i, size in enumerate(rows.inner, 1))
    return [Rows(inner), Rows(inner)]


def _resize(node: Node) -> Sequence[Value]:
    """Scales the dimensions behind the first, by factors or to sizes."""
    rows = node.rows()
    new = node.version >= 11 and node.op == "Resize"
    plain = node.integers("axes") is None and "keep_aspect_ratio_policy" not in node.attributes
    mode = node.attributes.get("coordinate_transformation_mode")
    crops = mode is not None and mode.s == b"tf_crop_and_resize"
    require(plain and not crops and rows.rank >= 3, "no rule says what it does to rows")
    node.require_same(1)
    scales, sizes = node.input(2 if new else 1), node.input(3) if new else None
    if sizes is None:
        first = (items_of(scales) or (0,))[0]
        require(first == 1, "it adds rows")
    else:
        require(items_of(sizes)[:1] == (ROWS,), "it adds rows")
        require(ROWS not in items_of(sizes)[1:], "the number of rows decides a size")
    return [Rows((None,) * (rows.rank - 1))]


_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
_REDUCE = tuple(f"Reduce{how}" for how in _REDUCTIONS)

RULES: Mapping[str, Rule] = {
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    **dict.fromkeys(
        ("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool"), _pool
    ),
    "BatchNormalization": _batch_normalization,
    "InstanceNormalization": _within_row,
    "GroupNormalization": _within_row,
    "LRN": _within_row,
    "LayerNormalization": _layer_normalization,
    "Softmax": _along_axis(-1, 1),
    "LogSoftmax": _along_axis(-1, 1),
    "Hardmax": _along_axis(-1, 1),
    "LpNormalization": _along_axis(-1, -1),
    "ArgMax": _arg,
    "ArgMin": _arg,
    **dict.fromkeys(_REDUCE, _reduce),
    "CumSum": _cumsum,
    "TopK": _top_k,
    "Resize": _resize,
    "Upsample": _resize,
}
