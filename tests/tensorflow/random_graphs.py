"""Random small graphs over the whole table of operations, right and wrong uses alike."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from servingd.core.types import Signature, TensorSpec
from servingd.servables.saved_model.merging.row_wise.rules import RULES
from servingd.wire.tensors.types import data_type_of

INPUTS = {
    "x": ("float32", (None, 4)),
    "y": ("float32", (None, None, 3)),
    "image": ("float32", (None, 6, 5, 2)),
    "vector": ("float32", (None,)),
    "ids": ("int32", (None, 3)),
    "id": ("int32", (None,)),
    "texts": ("string", (None, 2)),
    "examples": ("string", (None,)),
    "flags": ("bool", (None, 4)),
    "waves": ("complex64", (None, 4)),
}
LENGTH = 3
"""Of the dimension of `y` that a signature leaves open."""

ELSEWHERE = {
    # Shown by hand-made graphs and ordinary models instead.
    "HashTable", "HashTableV2", "LookupTableFind", "LookupTableFindV2", "LookupTableSize",
    "LookupTableSizeV2", "ParseExample", "ReadVariableOp", "ResourceGather", "VarHandleOp",
    "VariableV2", "TensorListReserve",
    # Older forms of others that are tried.
    "AvgPool3D", "BatchMatMul", "Concat", "FusedBatchNorm", "FusedBatchNormV2", "Gather", "Mod",
    "PlaceholderWithDefault", "RaggedGather", "RaggedRange", "RaggedTensorToTensor",
    "StringSplit", "Bincount", "SparseToDense", "UnicodeDecode", "UniqueWithCounts", "UniqueV2",
    "MatrixDiagV3", "MatrixSetDiagV3", "LinSpace", "ListDiff", "InvertPermutation", "Diag",
    "DiagPart", "SegmentMax", "SegmentMean", "SegmentSum", "ScatterNd", "ApproximateEqual",
    "BesselI0e", "BesselI1e", "CumulativeLogsumexp", "ShapeN", "IdentityN", "HSVToRGB", "Igamma",
    "Igammac", "UnicodeScript", "StringToNumber", "DecodeBase64",
}  # fmt: skip
"""Operations that random graphs do not contain."""


class Builder:
    """Grows a graph, operation by operation."""

    def __init__(self, rng: np.random.Generator) -> None:
        import tensorflow as tf

        self.tf, self.raw, self.rng = tf, tf.raw_ops, rng
        self.graph = tf.Graph()
        with self.graph.as_default():
            self.tensors = [
                tf.compat.v1.placeholder(kind, shape, name=name)
                for name, (kind, shape) in INPUTS.items()
            ]
        self.signature = Signature(
            "random",
            {
                name: TensorSpec(data_type_of(_numpy(kind)), shape, f"{name}:0")
                for name, (kind, shape) in INPUTS.items()
            },
            {},
        )

    def grow(self) -> None:
        """Add an operation on tensors that are there; or not, if it cannot take them."""
        name = self.rng.choice(list(CHOICES))
        with self.graph.as_default():
            try:
                made = CHOICES[name](self)
            except (ValueError, TypeError, IndexError, KeyError, ZeroDivisionError):
                return
        for each in made if isinstance(made, list | tuple) else [made]:
            if each is not None and each.dtype.name in KINDS:
                self.tensors.append(each)

    def pick(self, *kinds: str, rank: int | None = None) -> Any:
        """A tensor of one of these types, and of a rank; more often a recent one."""
        fits = [
            t
            for t in self.tensors
            if (not kinds or t.dtype.name in kinds)
            and (t.shape.rank == rank if rank is not None else t.shape.rank is not None)
        ]
        return fits[-1 - min(int(self.rng.exponential(4.0)), len(fits) - 1)]

    def number(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high))

    def axis(self, x: Any) -> int:
        return self.number(-x.shape.rank, x.shape.rank)

    def constant(self, *shape: int) -> Any:
        return self.tf.constant(self.rng.normal(size=shape).astype(np.float32))

    def rows(self) -> Any:
        return self.tf.shape(self.pick("float32"))[0]


KINDS = ("float32", "int32", "bool", "string", "complex64", "int64")
Choice = Callable[[Builder], Any]


def _numpy(kind: str) -> np.dtype:
    return np.dtype(object) if kind == "string" else np.dtype(kind)


EXTRA: dict[str, dict[str, Any]] = {
    "Bucketize": {"boundaries": [-1.0, 0.0, 2.0]},
    "Cast": {"DstT": "float32"},
    "CheckNumerics": {"message": "not finite"},
    "EnsureShape": {},
    "PreventGradient": {},
    "StaticRegexFullMatch": {"pattern": "a.*"},
    "StaticRegexReplace": {"pattern": "o", "rewrite": "00"},
    "StringToHashBucket": {"num_buckets": 50},
    "StringToHashBucketFast": {"num_buckets": 50},
    "StringToHashBucketStrong": {"num_buckets": 50, "key": [1, 2]},
    "UnicodeTranscode": {"input_encoding": "UTF-8", "output_encoding": "UTF-16-BE"},
}


def _elementwise(op: str, count: int) -> Choice:
    """An operation on as many tensors of any one type as it takes; one may be a constant."""

    def choose(b: Builder) -> Any:
        from tensorflow.python.framework import op_def_registry

        definition = op_def_registry.get(op)
        names = [arg.name for arg in definition.input_arg]
        if definition.input_arg[0].number_attr:
            x = b.pick()
            same = [t for t in b.tensors if t.dtype == x.dtype and t.shape.rank == x.shape.rank]
            return getattr(b.raw, op)(**{names[0]: [x, same[b.number(0, len(same))]]})
        args: list[Any] = []
        for position in range(count):
            x = b.pick() if not args else b.pick(args[0].dtype.name)
            if args and args[0].dtype.name == "float32" and b.number(0, 3) == 0:
                x = b.constant(*[b.number(1, 5) for _ in range(b.number(0, 3))])
            if op in ("SelectV2", "Select") and position == 0:
                args.append(b.pick("bool"))
                x = b.pick()
            elif op in ("SelectV2", "Select") and position == 2:
                x = b.pick(args[1].dtype.name)
            if op in ("SelectV2", "Select") and position == 0:
                args.append(x)
                continue
            args.append(x)
        return getattr(b.raw, op)(**dict(zip(names, args, strict=False)), **EXTRA.get(op, {}))

    return choose


def _choices() -> dict[str, Choice]:  # noqa: C901, PLR0915 - a table
    found: dict[str, Choice] = {}
    from servingd.servables.saved_model.merging.row_wise import elementwise

    for op in elementwise.RULES:
        if op in ELSEWHERE or op in (
            "Substr",
            "RegexReplace",
            "RegexFullMatch",
            "FakeQuantWithMinMaxVars",
        ):
            continue
        unary = op in elementwise._UNARY or op in ("Identity", "Snapshot", "StopGradient", "Cast")
        unary = unary or op in ("PreventGradient", "EnsureShape")
        three = op in ("ClipByValue", "SelectV2", "Select")
        found[op] = _elementwise(op, 1 if unary else 3 if three else 2)

    def add(op: str) -> Callable[[Choice], Choice]:
        def named(choice: Choice) -> Choice:
            found[op] = choice
            return choice

        return named

    def add_all(*ops: str) -> Callable[[Callable[[str], Choice]], None]:
        def named(make: Callable[[str], Choice]) -> None:
            for op in ops:
                found[op] = make(op)

        return named

    @add_all("All", "Any", "EuclideanNorm", "Max", "Mean", "Min", "Prod", "Sum")
    def _(op: str) -> Choice:
        def choose(b: Builder) -> Any:
            x = b.pick("bool") if op in ("All", "Any") else b.pick("float32", "int32")
            axes = sorted({b.axis(x) % x.shape.rank for _ in range(b.number(1, 3))})
            return getattr(b.raw, op)(input=x, axis=axes, keep_dims=bool(b.number(0, 2)))

        return choose

    @add_all("Cumsum", "Cumprod")
    def _(op: str) -> Choice:
        def choose(b: Builder) -> Any:
            x = b.pick("float32")
            return getattr(b.raw, op)(x=x, axis=b.axis(x), exclusive=bool(b.number(0, 2)))

        return choose

    @add_all("ArgMax", "ArgMin")
    def _(op: str) -> Choice:
        def choose(b: Builder) -> Any:
            x = b.pick("float32")
            return getattr(b.raw, op)(input=x, dimension=b.axis(x), output_type=b.tf.int32)

        return choose

    @add_all("Softmax", "LogSoftmax")
    def _(op: str) -> Choice:
        return lambda b: getattr(b.raw, op)(logits=b.pick("float32"))

    @add_all("MaxPool", "AvgPool")
    def _(op: str) -> Choice:
        def choose(b: Builder) -> Any:
            x = b.pick("float32", rank=4)
            size, stride = b.number(1, 4), b.number(1, 3)
            padding = ["SAME", "VALID"][b.number(0, 2)]
            name = "input" if op == "MaxPool" else "value"
            return getattr(b.raw, op)(
                **{name: x}, ksize=[1, size, size, 1], strides=[1, stride, stride, 1],
                padding=padding,
            )  # fmt: skip

        return choose

    @add("MaxPool3D")
    def _(b: Builder) -> Any:
        x = b.pick("float32", rank=4)
        x = b.tf.expand_dims(x, b.number(0, 5))
        size = b.number(1, 3)
        return b.raw.MaxPool3D(
            input=x, ksize=[1, size, size, 1, 1], strides=[1, 1, 1, 1, 1], padding="SAME"
        )

    @add("Conv2D")
    def _(b: Builder) -> Any:
        x = b.pick("float32", rank=4)
        size, stride, dilation = b.number(1, 4), b.number(1, 3), b.number(1, 3)
        padding = ["SAME", "VALID", "EXPLICIT"][b.number(0, 3)]
        pads = [0, 0, 1, 0, 2, 1, 0, 0] if padding == "EXPLICIT" else []
        return b.raw.Conv2D(
            input=x, filter=b.constant(size, size, int(x.shape[3]), 3),
            strides=[1, stride, stride, 1], padding=padding, explicit_paddings=pads,
            dilations=[1, dilation, dilation, 1] if stride == 1 else [1, 1, 1, 1],
        )  # fmt: skip

    @add("Conv3D")
    def _(b: Builder) -> Any:
        x = b.tf.expand_dims(b.pick("float32", rank=4), b.number(0, 5))
        return b.raw.Conv3D(
            input=x, filter=b.constant(1, 2, 2, int(x.shape[4]), 2), strides=[1, 1, 1, 1, 1],
            padding=["SAME", "VALID"][b.number(0, 2)],
        )  # fmt: skip

    @add("DepthwiseConv2dNative")
    def _(b: Builder) -> Any:
        x = b.pick("float32", rank=4)
        return b.raw.DepthwiseConv2dNative(
            input=x, filter=b.constant(2, 2, int(x.shape[3]), 2), strides=[1, 1, 1, 1],
            padding=["SAME", "VALID"][b.number(0, 2)],
        )  # fmt: skip

    @add("Conv2DBackpropInput")
    def _(b: Builder) -> Any:
        x = b.pick("float32", rank=4)
        shape = b.tf.shape(x)
        sizes = b.tf.stack([shape[0], shape[1] * 2, shape[2] * 2, 3])
        return b.raw.Conv2DBackpropInput(
            input_sizes=sizes, filter=b.constant(2, 2, 3, int(x.shape[3])), out_backprop=x,
            strides=[1, 2, 2, 1], padding="SAME",
        )  # fmt: skip

    @add("FusedBatchNormV3")
    def _(b: Builder) -> Any:
        x = b.pick("float32", rank=4)
        depth, training = int(x.shape[3]), not b.number(0, 3)
        empty = b.tf.zeros([0])
        variance = empty if training else b.tf.abs(b.constant(depth))
        return b.raw.FusedBatchNormV3(
            x=x, scale=b.constant(depth), offset=b.constant(depth),
            mean=empty if training else b.constant(depth), variance=variance,
            is_training=training,
        ).y  # fmt: skip

    @add("LRN")
    def _(b: Builder) -> Any:
        return b.raw.LRN(input=b.pick("float32", rank=4))

    @add("BiasAdd")
    def _(b: Builder) -> Any:
        x = b.pick("float32")
        return b.raw.BiasAdd(value=x, bias=b.constant(int(x.shape[-1])))

    @add_all("ResizeArea", "ResizeBicubic", "ResizeBilinear", "ResizeNearestNeighbor")
    def _(op: str) -> Choice:
        return lambda b: getattr(b.raw, op)(
            images=b.pick("float32", rank=4), size=[b.number(1, 7), b.number(1, 7)]
        )

    @add_all("DepthToSpace", "SpaceToDepth")
    def _(op: str) -> Choice:
        return lambda b: getattr(b.raw, op)(input=b.pick("float32", rank=4), block_size=2)

    @add("RGBToHSV")
    def _(b: Builder) -> Any:
        return b.raw.RGBToHSV(images=b.tf.abs(b.pick("float32")))

    @add("MatMul")
    def _(b: Builder) -> Any:
        a = b.pick("float32", rank=2)
        other = b.pick("float32", rank=2)
        if b.number(0, 2):
            other = b.constant(int(a.shape[1]), 5)
        flips = bool(b.number(0, 2)), bool(b.number(0, 2))
        return b.raw.MatMul(a=a, b=other, transpose_a=flips[0], transpose_b=flips[1])

    @add_all("BatchMatMulV2")
    def _(op: str) -> Choice:
        def choose(b: Builder) -> Any:
            a, other = b.pick("float32"), b.pick("float32")
            flips = bool(b.number(0, 2)), bool(b.number(0, 2))
            return getattr(b.raw, op)(x=a, y=other, adj_x=flips[0], adj_y=flips[1])

        return choose

    @add("BatchMatMulV3")
    def _(b: Builder) -> Any:
        a = b.pick("float32")
        flips = bool(b.number(0, 2)), bool(b.number(0, 2))
        return b.raw.BatchMatMulV3(x=a, y=a, Tout=b.tf.float32, adj_x=flips[0], adj_y=flips[1])

    @add("Einsum")
    def _(b: Builder) -> Any:
        equation = [
            "bi,bj->bij", "bi,bi->b", "bi,bj->ij", "bi,ij->bj", "bi->ib", "blk,bmk->blm",
            "blk,kj->blj", "b...,b...->b...", "...i,...i->...", "bi,ai->ab", "blk->bk",
        ][b.number(0, 11)]  # fmt: skip
        texts = equation.split("->")[0].split(",")
        ranks = [None if "." in text else len(text) for text in texts]
        inputs = [b.pick("float32", rank=rank) for rank in ranks]
        if equation in ("bi,ij->bj", "blk,kj->blj"):
            inputs[1] = b.constant(int(inputs[0].shape[-1]), 5)
        return b.raw.Einsum(inputs=inputs, equation=equation)

    @add("Reshape")
    def _(b: Builder) -> Any:
        x = b.pick("float32", "int32")
        shape = b.tf.shape(x)
        rest = [d or 1 for d in x.shape[1:].as_list()]
        target = [
            lambda: [-1, int(np.prod(rest))],
            lambda: [-1],
            lambda: [1, -1],
            lambda: [-1, 2],
            lambda: b.tf.stack([shape[0], -1]),
            lambda: b.tf.stack([-1, shape[0]]),
            lambda: b.tf.stack([shape[0] * 2, -1]),
            lambda: b.tf.stack([1, shape[0], -1]),
            lambda: b.tf.concat([shape[:1], shape[1:]], 0),
            lambda: b.tf.concat([shape[:-1], [-1, 1]], 0),
            lambda: b.tf.stack([b.tf.reduce_prod(shape[:-1]), shape[-1]]),
            lambda: b.tf.stack([shape[-1], shape[0], -1]),
            lambda: [2, -1],
            lambda: [-1, 3, 4],
        ][b.number(0, 14)]()
        return b.tf.reshape(x, target)

    @add("Transpose")
    def _(b: Builder) -> Any:
        x = b.pick("float32", "int32", "string")
        return b.tf.transpose(x, b.rng.permutation(x.shape.rank).tolist())

    @add("ExpandDims")
    def _(b: Builder) -> Any:
        x = b.pick("float32", "int32")
        return b.tf.expand_dims(x, b.number(-x.shape.rank - 1, x.shape.rank + 1))

    @add("Squeeze")
    def _(b: Builder) -> Any:
        x = b.pick("float32", "int32")
        ones = [i for i, d in enumerate(x.shape.as_list()) if d in (1, None)]
        return b.raw.Squeeze(input=x, axis=ones[: b.number(0, 2)])

    @add_all("Shape", "Size", "Rank")
    def _(op: str) -> Choice:
        return lambda b: getattr(b.raw, op)(input=b.pick())

    @add("Fill")
    def _(b: Builder) -> Any:
        dims = [b.tf.stack([b.rows(), 4]), [2, 4], b.tf.stack([3, b.rows()])][b.number(0, 3)]
        return b.tf.fill(dims, 1.5)

    @add("BroadcastTo")
    def _(b: Builder) -> Any:
        x = b.pick("float32") if b.number(0, 2) else b.constant(b.number(1, 3), 4)
        return b.tf.broadcast_to(x, b.tf.stack([b.rows(), 4][: b.number(1, 3)]))

    @add("BroadcastArgs")
    def _(b: Builder) -> Any:
        return b.raw.BroadcastArgs(s0=b.tf.shape(b.pick("float32")), s1=b.tf.shape(b.pick()))

    @add("Tile")
    def _(b: Builder) -> Any:
        x = b.pick("float32") if b.number(0, 3) else b.constant(1, 4)
        times: list[Any] = [b.number(1, 3) for _ in range(x.shape.rank)]
        if not b.number(0, 3):
            times[0] = b.rows()
        return b.tf.tile(x, b.tf.stack(times))

    @add("ConcatV2")
    def _(b: Builder) -> Any:
        x = b.pick("float32", "int32")
        other = b.pick(x.dtype.name, rank=x.shape.rank) if b.number(0, 3) else x
        return b.tf.concat([x, other], b.axis(x))

    @add("Pack")
    def _(b: Builder) -> Any:
        x = b.pick("float32", "int32")
        return b.tf.stack([x, x], b.number(0, x.shape.rank + 1))

    @add("Range")
    def _(b: Builder) -> Any:
        return b.tf.range(b.rows() if b.number(0, 2) else b.number(1, 5))

    @add("Const")
    def _(b: Builder) -> Any:
        return b.constant(*[b.number(1, 5) for _ in range(b.number(0, 4))])

    @add("TopKV2")
    def _(b: Builder) -> Any:
        made = b.raw.TopKV2(input=b.pick("float32"), k=b.number(1, 4))
        return [made.values, made.indices]

    @add("MatrixBandPart")
    def _(b: Builder) -> Any:
        return b.tf.linalg.band_part(b.pick("float32"), b.number(0, 2), -1)

    @add("ReverseV2")
    def _(b: Builder) -> Any:
        x = b.pick("float32", "string")
        return b.tf.reverse(x, [b.axis(x)])

    @add("Roll")
    def _(b: Builder) -> Any:
        x = b.pick("float32")
        return b.raw.Roll(input=x, shift=b.number(-2, 3), axis=b.axis(x))

    @add_all("Pad", "PadV2", "MirrorPad")
    def _(op: str) -> Choice:
        def choose(b: Builder) -> Any:
            x = b.pick("float32")
            widths = b.rng.integers(0, 2, (x.shape.rank, 2))
            if b.number(0, 2):
                widths[0] = 0
            more = {"PadV2": {"constant_values": 0.5}, "MirrorPad": {"mode": "SYMMETRIC"}}
            return getattr(b.raw, op)(input=x, paddings=widths.tolist(), **more.get(op, {}))

        return choose

    @add("OneHot")
    def _(b: Builder) -> Any:
        x = b.pick("int32")
        return b.raw.OneHot(
            indices=x, depth=b.number(2, 5), on_value=1.0, off_value=0.0,
            axis=b.number(-1, x.shape.rank + 1),
        )  # fmt: skip

    @add("DenseBincount")
    def _(b: Builder) -> Any:
        x = b.tf.abs(b.pick("int32")) % 5
        return b.raw.DenseBincount(input=x, size=6, weights=b.tf.zeros([0]))

    @add("Split")
    def _(b: Builder) -> Any:
        x = b.pick("float32")
        return b.tf.split(x, 2, b.axis(x))

    @add("SplitV")
    def _(b: Builder) -> Any:
        x = b.pick("float32")
        return b.tf.split(x, [1, -1], b.axis(x))

    @add("Unpack")
    def _(b: Builder) -> Any:
        x = b.pick("float32", "int32")
        axis = b.axis(x)
        return b.raw.Unpack(value=x, num=int(x.shape[axis]), axis=axis)

    @add("Slice")
    def _(b: Builder) -> Any:
        x = b.pick("float32", "int32")
        begin = [b.number(0, 2) for _ in range(x.shape.rank)]
        sizes = [[-1, 1][b.number(0, 2)] for _ in range(x.shape.rank)]
        if b.number(0, 2):
            begin[0], sizes[0] = 0, -1
        return b.tf.slice(x, begin, sizes)

    @add("StridedSlice")
    def _(b: Builder) -> Any:
        x = b.pick("float32", "int32", "string")
        parts = [
            slice(None), 0, -1, slice(1, None), slice(None, -1), slice(None, None, 2), None,
            slice(0, 2), slice(None, None, -1), ...,
        ]  # fmt: skip
        chosen = [parts[b.number(0, len(parts))] for _ in range(b.number(1, 4))]
        if b.number(0, 2):
            chosen[0] = slice(None)
        if sum(part is ... for part in chosen) > 1:
            raise ValueError("one ellipsis")
        return x[tuple(chosen)]

    @add("GatherV2")
    def _(b: Builder) -> Any:
        if b.number(0, 2):
            return b.tf.gather(b.constant(100, 2), b.tf.abs(b.pick("int32")) % 100)
        x = b.pick("float32")
        if b.number(0, 2):
            return b.tf.gather(x, [0, 0], axis=b.axis(x))
        indices = b.tf.zeros_like(b.pick("int32"))
        batch = b.number(0, 2)
        return b.raw.GatherV2(params=x, indices=indices, axis=b.number(batch, 3), batch_dims=batch)

    @add("GatherNd")
    def _(b: Builder) -> Any:
        indices = b.tf.abs(b.pick("int32")) % 2
        params = b.pick("float32") if b.number(0, 2) else b.constant(2, 2, 2)
        return b.raw.GatherNd(params=params, indices=indices)

    @add("Where")
    def _(b: Builder) -> Any:
        return b.raw.Where(condition=b.pick("bool"))

    @add("Unique")
    def _(b: Builder) -> Any:
        return list(b.raw.Unique(x=b.pick("int32", rank=1)))

    @add("TensorScatterUpdate")
    def _(b: Builder) -> Any:
        x = b.pick("float32", rank=2)
        return b.tf.tensor_scatter_nd_update(x, [[0]], b.tf.zeros([1, int(x.shape[1])]))

    @add("UnsortedSegmentSum")
    def _(b: Builder) -> Any:
        ids = b.tf.abs(b.pick("int32", rank=1)) % 3
        return b.tf.math.unsorted_segment_sum(b.pick("float32"), ids, 3)

    @add("Substr")
    def _(b: Builder) -> Any:
        return b.raw.Substr(input=b.pick("string"), pos=0, len=b.number(0, 3))

    @add("RegexReplace")
    def _(b: Builder) -> Any:
        return b.tf.raw_ops.RegexReplace(input=b.pick("string"), pattern="[a-m]", rewrite="_")

    @add("RegexFullMatch")
    def _(b: Builder) -> Any:
        return b.raw.RegexFullMatch(input=b.pick("string"), pattern="[a-m ]*")

    @add("ReduceJoin")
    def _(b: Builder) -> Any:
        x = b.pick("string")
        return b.raw.ReduceJoin(inputs=x, reduction_indices=[b.axis(x)], separator="|")

    @add("StringSplitV2")
    def _(b: Builder) -> Any:
        return list(b.raw.StringSplitV2(input=b.pick("string", rank=1), sep=" "))

    @add("FakeQuantWithMinMaxVars")
    def _(b: Builder) -> Any:
        return b.raw.FakeQuantWithMinMaxVars(inputs=b.pick("float32"), min=-3.0, max=3.0)

    @add("ParseExampleV2")
    def _(b: Builder) -> Any:
        features = {
            "a": b.tf.io.FixedLenFeature([2], b.tf.float32, [0.0, 1.0]),
            "b": b.tf.io.FixedLenFeature([], b.tf.string, "none"),
        }
        if b.number(0, 2):
            features["c"] = b.tf.io.FixedLenSequenceFeature([], b.tf.float32, allow_missing=True)
        examples = b.graph.get_tensor_by_name("examples:0")
        return list(b.tf.io.parse_example(examples, features).values())

    @add("TensorListStack")
    def _(b: Builder) -> Any:
        x = b.pick("float32", rank=3)
        x = b.tf.transpose(x, [1, 0, 2]) if b.number(0, 3) else x
        items = b.raw.TensorListFromTensor(tensor=x, element_shape=[-1, -1])
        length = b.raw.TensorListLength(input_handle=items)
        items = b.raw.TensorListSetItem(input_handle=items, index=0, item=x[0] * 2.0)
        one = b.raw.TensorListGetItem(
            input_handle=items, index=0, element_shape=[-1, -1], element_dtype=b.tf.float32
        )
        whole = b.raw.TensorListStack(
            input_handle=items, element_shape=[-1, -1], element_dtype=b.tf.float32
        )
        return [length, b.tf.ensure_shape(one, [None, None]), b.tf.ensure_shape(whole, [None] * 3)]

    @add("StatelessIf")
    def _(b: Builder) -> Any:
        x, y = b.pick("float32"), b.pick("float32")
        decides = b.tf.greater(b.tf.shape(y)[-1] if b.number(0, 2) else b.tf.size(x), 3)
        return b.tf.cond(decides, lambda: x * 2.0, lambda: -x)

    @add("StatelessWhile")
    def _(b: Builder) -> Any:
        x = b.pick("float32")
        until = b.tf.shape(x)[-1] if b.number(0, 2) else 3
        return b.tf.while_loop(
            lambda i, v: i < until, lambda i, v: (i + 1, b.tf.tanh(v) + 0.1), [0, x]
        )[1]

    return found


CHOICES = _choices()

COVERED = {*CHOICES, "TensorListFromTensor", "TensorListGetItem", "TensorListLength"} | {
    "TensorListSetItem"
}

assert not (set(RULES) - ELSEWHERE - COVERED), set(RULES) - ELSEWHERE - COVERED
