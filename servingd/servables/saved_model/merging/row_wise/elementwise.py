"""Operations that treat each element by itself, wherever it stands.

Why they are row-wise: output[i] depends on input[i] alone, and shapes follow from shapes. Several
inputs are broadcast: rows must stand at the same place in each of them, counted from the end, and
what has no rows must have the size 1 there. Else row 3 would meet the third of something.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from servingd.core.types import DataType
from servingd.servables.saved_model.merging.row_wise.operations import Operation, types
from servingd.servables.saved_model.merging.row_wise.sizes import ONE, Size
from servingd.servables.saved_model.merging.row_wise.values import (
    Content,
    Reason,
    Shape,
    Tensor,
    Value,
    content_of,
    require,
    tensors,
)

_UNARY = types(
    """
    Abs Acos Acosh AsString Asin Asinh Atan Atanh BesselI0e BesselI1e Bucketize Ceil
    CheckNumerics ComplexAbs Conj Cos Cosh DecodeBase64 Digamma Elu EncodeBase64 Erf Erfc Erfinv
    Exp Expm1 FakeQuantWithMinMaxArgs Floor Imag Inv Invert IsFinite IsInf IsNan LeakyRelu
    Lgamma Log Log1p LogicalNot Ndtri Neg OnesLike PopulationCount Real Reciprocal Relu Relu6 Rint
    Round Rsqrt Selu Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Square StaticRegexFullMatch
    StaticRegexReplace StringLength StringLower StringStrip StringToHashBucket
    StringToHashBucketFast StringToHashBucketStrong StringToNumber StringUpper Tan Tanh
    UnicodeScript UnicodeTranscode ZerosLike
    """
)

_BROADCAST = types(
    """
    Add AddN AddV2 ApproximateEqual Atan2 BitwiseAnd BitwiseOr BitwiseXor ClipByValue Complex
    Div DivNoNan Equal FakeQuantWithMinMaxVars FloorDiv FloorMod Greater GreaterEqual Igamma
    Igammac LeftShift Less LessEqual LogicalAnd LogicalOr Maximum Minimum Mod Mul MulNoNan
    NextAfter NotEqual Polygamma Pow RealDiv RegexFullMatch RegexReplace RightShift SelectV2
    SquaredDifference StringJoin Sub Substr TruncateDiv TruncateMod Xdivy Xlog1py Xlogy Zeta
    """
)

_SAME_VALUE = types(
    """
    EnsureShape Identity PlaceholderWithDefault PreventGradient Snapshot StopGradient
    """
)


def broadcast(op: Operation, args: Sequence[Tensor]) -> tuple[Shape, int | None]:
    """Return the shape of an element-wise result, and the axis of its rows. Raises Mixing."""
    shapes = [arg.dims for arg in args]
    rank = max(map(len, shapes))
    axis = _common_axis(args, rank)
    found: list[Size] = []
    for place in range(rank):
        each = [s[place - rank + len(s)] for s in shapes if place - rank + len(s) >= 0]
        found.append(_common_size(op, each, place))
    return tuple(found), axis


def _common_axis(args: Sequence[Tensor], rank: int) -> int | None:
    rows = [(arg.axis - arg.rank, arg.dims[arg.axis]) for arg in args if arg.axis is not None]
    if not rows:
        return None
    require(len(set(rows)) == 1, Reason.MISALIGNED)
    from_end = rows[0][0]
    for arg in args:
        reaches = arg.axis is None and arg.rank >= -from_end
        require(not reaches or arg.dims[from_end] == ONE, Reason.MISALIGNED)
    return rank + from_end


def _common_size(op: Operation, sizes: Sequence[Size], place: int) -> Size:
    """Return the size that all of these, which may be 1, are broadcast to."""
    larger = list(dict.fromkeys(each for each in sizes if each != ONE))
    if not larger:
        return ONE
    known = [each for each in larger if each.known is not None]
    if len(larger) == 1:
        return larger[0]
    return known[0] if known else op.fresh(place)


def _unary(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    (x,) = tensors(args)
    require(not x.is_counted, Reason.COUNTED)
    return [Tensor(x.shape, x.axis)]


def _broadcast(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    """Rule of element-wise operations; it also computes known integers, see `_FOLDS`."""
    found = tensors(args)
    if op.type in ("Equal", "NotEqual"):  # else a mismatch of shapes gives one value for all
        require(op.attribute("incompatible_shape_error"), Reason.MISALIGNED)
    content = _fold(op.type, found)
    if content is None:
        require(not any(x.is_counted for x in found), Reason.COUNTED)
    shape, axis = broadcast(op, found)
    return [Tensor(shape, axis, content)]


def _exact_quotient(a: Size, b: Size) -> Size | None:
    if a.known is not None and b.known:
        return content_of(a.known // b.known).values[0]
    return a.divided_by(b)


def _of_numbers(compute: Callable[[int, int], Any]) -> Callable[[Size, Size], Size | None]:
    def fold(a: Size, b: Size) -> Size | None:
        if a.known is None or b.known is None:
            return None
        return content_of(int(compute(a.known, b.known))).values[0]

    return fold


def _of_equals(
    equal: bool, compute: Callable[[int, int], Any]
) -> Callable[[Size, Size], Size | None]:
    """Return a comparison that is known for two equal sizes, whatever they name."""
    of_numbers = _of_numbers(compute)

    def fold(a: Size, b: Size) -> Size | None:
        return content_of(int(equal)).values[0] if a == b else of_numbers(a, b)

    return fold


_FOLDS: Mapping[str, Callable[[Size, Size], Size | None]] = {
    "Add": Size.__add__,
    "AddV2": Size.__add__,
    "Sub": Size.__sub__,
    "Mul": Size.__mul__,
    "FloorDiv": _exact_quotient,
    "Maximum": _of_numbers(max),
    "Minimum": _of_numbers(min),
    "FloorMod": _of_numbers(lambda a, b: a % b if b else 0),
    "Equal": _of_equals(True, int.__eq__),
    "NotEqual": _of_equals(False, int.__ne__),
    "Less": _of_equals(False, int.__lt__),
    "LessEqual": _of_equals(True, int.__le__),
    "Greater": _of_equals(False, int.__gt__),
    "GreaterEqual": _of_equals(True, int.__ge__),
    "LogicalAnd": _of_numbers(lambda a, b: a and b),
    "LogicalOr": _of_numbers(lambda a, b: a or b),
}


def _fold(kind: str, args: Sequence[Tensor]) -> Content | None:
    """Return the values, where those of both inputs are known, and a quotient is whole."""
    fold = _FOLDS.get(kind)
    if fold is None or len(args) != 2 or any(x.content is None for x in args):
        return None
    one, other = (x.content.array for x in args if x.content is not None)
    try:
        pairs = np.broadcast(one, other)
    except ValueError:
        return None
    values = [fold(a, b) for a, b in pairs]
    if any(value is None for value in values):
        return None
    array = np.empty(len(values), object)
    array[:] = values
    return content_of(array.reshape(pairs.shape))


def _same_value(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    return [args[0]]


def _each_same_value(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    return list(args)


def _cast(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    """Rule of Cast: integers keep known values where the new type can hold any size."""
    (x,) = tensors(args)
    wide = op.attribute("DstT") in (DataType.INT32, DataType.INT64)
    require(wide or not x.is_counted, Reason.COUNTED)
    return [Tensor(x.shape, x.axis, x.content if wide else None)]


def _select(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    """Rule of Select: a condition that is a vector chooses whole rows of the other inputs."""
    condition, then, other = tensors(args)
    if condition.rank == 1 and then.rank > 1:
        require(condition.axis == 0 and then.axis == other.axis == 0, Reason.MISALIGNED)
        require(condition.dims[0] == then.dims[0] == other.dims[0], Reason.MISALIGNED)
        return [Tensor(then.shape, 0)]
    return _broadcast(op, args)


RULES = {
    **dict.fromkeys(_UNARY, _unary),
    **dict.fromkeys(_BROADCAST, _broadcast),
    **dict.fromkeys(_SAME_VALUE, _same_value),
    "IdentityN": _each_same_value,
    "Cast": _cast,
    "Select": _select,
}
