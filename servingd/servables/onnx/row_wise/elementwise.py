"""Operators that compute each element from the elements at its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from servingd.servables.onnx.row_wise.values import (
    ROWS,
    Counted,
    Dim,
    Mixing,
    Node,
    Rows,
    Rule,
    Same,
    Value,
    items_of,
    require,
)

_WIDE = (6, 7)
"""ONNX's numbers of int32 and int64, which hold any number of rows."""


def _unary(node: Node) -> Sequence[Value]:
    """f(x), element by element; other inputs are parameters."""
    node.require_same(*range(1, len(node.inputs)))
    return [node.rows()]


def _broadcast(node: Node) -> Sequence[Value]:
    """f(x, y, ...), element by element, under numpy's broadcasting from the last dimension on.

    The dimension of rows must meet that of other rows, a 1, or nothing: any other size would count
    the rows.
    """
    values = [value for value in node.inputs if value is not None]
    ranks = {value.rank for value in values if isinstance(value, Rows)}
    require(len(ranks) == 1, "it sets rows against other parts by their places")
    (rank,) = ranks
    shapes: list[tuple[Dim, ...]] = []
    for value in values:
        if isinstance(value, Rows):
            shapes.append(value.inner)
            continue
        require(isinstance(value, Same) and value.dims is not None, "a shape is not known")
        assert isinstance(value, Same)
        dims = value.dims or ()
        fits = len(dims) < rank or (len(dims) == rank and dims[0] == 1)
        require(fits, "it sets rows against a fixed number of them")
        shapes.append(dims[1:] if len(dims) == rank else dims)
    return [Rows(_joined(shapes, rank - 1))]


def _joined(shapes: list[tuple[Dim, ...]], rank: int) -> tuple[Dim, ...]:
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(_joined_size(sizes) for sizes in zip(*padded, strict=True))


def _joined_size(sizes: tuple[Dim, ...]) -> Dim:
    known = {size for size in sizes if size != 1}
    return known.pop() if len(known) == 1 else None if known else 1


def _arithmetic(node: Node) -> Sequence[Value]:
    """Arithmetic on rows, or on a shape's numbers."""
    if not any(isinstance(value, Counted) for value in node.inputs):
        return _broadcast(node)
    one, other = (items_of(value) for value in node.inputs)
    length = max(len(one), len(other))
    one, other = (x * length if len(x) == 1 else x for x in (one, other))
    require(len(one) == len(other), "it computes with the number of rows")
    items = [_computed(node.op, a, b) for a, b in zip(one, other, strict=True)]
    scalar = all(_is_scalar(value) for value in node.inputs)
    return [Counted(tuple(items), scalar)]


def _is_scalar(value: Value | None) -> bool:
    return value.is_scalar if isinstance(value, Counted) else getattr(value, "dims", None) == ()


def _computed(op: str, one: int | str | None, other: int | str | None) -> int | str | None:
    if ROWS in (one, other):
        plain = {"Mul": 1, "Div": 1, "Add": 0, "Sub": 0}
        if one == ROWS and other == plain[op]:
            return ROWS
        if other == ROWS and one == plain[op] and op in ("Mul", "Add"):
            return ROWS
        raise Mixing("it computes with the number of rows")
    if one is None or other is None or not isinstance(one, int) or not isinstance(other, int):
        return None
    match op:
        case "Add":
            return one + other
        case "Sub":
            return one - other
        case "Mul":
            return one * other
    return None if other == 0 or one % other else one // other


def _where(node: Node) -> Sequence[Value]:
    """A choice between two, element by element."""
    return _broadcast(node)


def _cast(node: Node) -> Sequence[Value]:
    """Another type; a shape stays one."""
    value = node.input(0)
    if isinstance(value, Counted):
        require(node.integer("to", 0) in _WIDE, "it computes with the number of rows")
        return [value]
    return _unary(node)


def _cast_like(node: Node) -> Sequence[Value]:
    """The type of the second input, whose contents do not matter."""
    return [node.rows()]


def _dropout(node: Node) -> Sequence[Value]:
    """Nothing happens but in training, where random elements vanish."""
    if node.version >= 12:
        training = node.input(2)
        is_off = training is None or (isinstance(training, Same) and training.content == (0,))
        require(is_off, "it drops elements at random")
    else:
        require(node.version >= 7 or node.integer("is_test", 0) == 1, "it drops at random")
    rows = node.rows()
    return [rows, rows]


def _quantise(node: Node) -> Sequence[Value]:
    """X / scale + zero, where scales belong to places within a row, or to all."""
    rows = node.rows()
    node.require_same(1, 2)
    scale = node.input(1)
    dims = scale.dims if isinstance(scale, Same) else None
    require(dims is not None and len(dims) <= 1, "a shape is not known")
    if dims:
        axis = node.integer("axis", 1)
        require((axis + rows.rank if axis < 0 else axis) > 0, "each row has a scale by its place")
    return [rows]


_UNARY = (
    "Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Ceil Celu Clip Cos Cosh Elu Erf Exp Floor "
    "Gelu HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu "
    "Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu"
)
_NARY = (
    "And BitShift BitwiseAnd BitwiseOr BitwiseXor Equal Greater GreaterOrEqual Less LessOrEqual "
    "Max Mean Min Mod Or PRelu Pow Sum Xor"
)

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_UNARY.split(), _unary),
    **dict.fromkeys(_NARY.split(), _broadcast),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _arithmetic),
    "Where": _where,
    "Cast": _cast,
    "CastLike": _cast_like,
    "Dropout": _dropout,
    "QuantizeLinear": _quantise,
    "DequantizeLinear": _quantise,
}
