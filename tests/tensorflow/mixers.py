"""Graphs that mix rows, each in a way of its own, with the lock that keeps it from being merged.

A lock is a condition of a rule: the type of the operation, and what must not be. Each graph is let
through if its lock is left open, and then gives wrong answers: so each lock is needed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from servingd.servables.saved_model.merging.row_wise.values import Reason

ROWS = ("float32", None, 4)
"""The input `x`, where nothing else is said."""
VECTOR = ("float32", None)
IMAGES = ("float32", None, 6, 6, 2)
IDS = ("int32", None, 3)
ID = ("int32", None)
TEXTS = ("string", None)
SENTENCES = ("float32", None, None, 4)
FLAGS = ("bool", None)
SQUARES = ("float32", None, 3, 3)


class Mixer(NamedTuple):
    """A function of `x`, and of `z` where there is one."""

    operation: str
    reason: Reason
    build: Callable[..., Any]
    inputs: tuple[tuple[Any, ...], ...] = (ROWS,)
    also: tuple[tuple[str, Reason], ...] = ()
    """Locks that would refuse it as well: left open, so that this one stands alone."""


def _mixers() -> dict[str, Mixer]:
    import tensorflow as tf

    raw, w = tf.raw_ops, Reason
    rows = lambda x: tf.shape(x)[0]  # noqa: E731
    row4 = tf.constant([[1.0, 2.0, 3.0, 4.0]])

    def loop_until_all_are_small(x):
        return tf.while_loop(lambda y: tf.reduce_max(y) > 1.0, lambda y: [y * 0.5], [x])[0]

    def loop_as_long_as_a_row_says(x):
        body = lambda i, y: (i + 1, y * 0.9)  # noqa: E731
        steps = tf.cast(tf.reduce_max(tf.abs(x)), tf.int32) % 7
        return tf.while_loop(lambda i, y: i < steps, body, [0, x])[1]

    def running_total(x):
        body = lambda i, total, y: (i + 1, total + tf.reduce_sum(y, 0, keepdims=True), y + total)  # noqa: E731
        return tf.while_loop(lambda i, total, y: i < 3, body, [0, row4 * 0.0, x])[2]

    def listed_rows(x):
        items = raw.TensorListFromTensor(tensor=x, element_shape=tf.constant([4]))
        first = raw.TensorListGetItem(
            input_handle=items, index=0, element_shape=tf.constant([4]), element_dtype=tf.float32
        )
        return x + first

    def capacity(x):
        chosen = tf.one_hot(tf.argmax(x, 1), 4)
        place = tf.cumsum(chosen, axis=0)
        return x * tf.cast(tf.reduce_sum(place * chosen, 1, keepdims=True) <= 2.0, tf.float32)

    def train_norm(x):
        return raw.FusedBatchNormV3(
            x=x, scale=tf.ones([2]), offset=tf.zeros([2]), mean=tf.zeros([0]),
            variance=tf.zeros([0]), is_training=True,
        ).y  # fmt: skip

    def asserted(x):
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_max(x) > 0.5, [x])]):
            return x * 2.0

    m = Mixer
    return {
        # Reductions, orders, normalisations over the rows.
        "mean of the batch": m(
            "Mean", w.REDUCED, lambda x: x - tf.reduce_mean(x, 0, keepdims=True)
        ),
        "largest of the batch": m(
            "Max", w.REDUCED, lambda x: x / tf.reduce_max(x, 0, keepdims=True)
        ),
        "best row": m("ArgMax", w.REDUCED, lambda x: x + tf.cast(tf.argmax(x, 0), tf.float32)),
        "softmax of a vector": m("Softmax", w.NORMALISED, tf.nn.softmax, (VECTOR,)),
        "softmax over the batch": m(
            "Softmax",
            w.NORMALISED,
            lambda x: tf.transpose(tf.nn.softmax(tf.transpose(x))),
        ),
        "log softmax of a vector": m("LogSoftmax", w.NORMALISED, tf.nn.log_softmax, (VECTOR,)),
        "training batch norm": m("FusedBatchNormV3", w.BATCH_STATISTICS, train_norm, (IMAGES,)),
        "running total": m("Cumsum", w.ORDERED, lambda x: tf.cumsum(x, 0)),
        "running product": m("Cumprod", w.ORDERED, lambda x: tf.math.cumprod(x, 0)),
        "sorted columns": m(
            "TopKV2",
            w.ORDERED,
            lambda x: tf.transpose(raw.TopKV2(input=tf.transpose(x), k=1).values),
        ),
        "reversed batch": m("ReverseV2", w.ORDERED, lambda x: x[::1] - tf.reverse(x, [0])),
        "rolled batch": m("Roll", w.ORDERED, lambda x: x - tf.roll(x, 1, 0)),
        "triangle of the batch": m(
            "MatrixBandPart", w.MOVED, lambda x: tf.linalg.band_part(x, 0, -1)
        ),
        # Shapes.
        "squeezed": m("Squeeze", w.MOVED, lambda x: raw.Squeeze(input=x[:, :1])),
        "repeated by number": m("Tile", w.COUNTED, lambda x: tf.tile(x, tf.stack([1, rows(x)]))),
        "with a row in front": m(
            "ConcatV2", w.MISALIGNED, lambda x: tf.concat([row4, x], 0)[: rows(x)]
        ),
        # Counting rows.
        "cut by number": m("StridedSlice", w.COUNTED, lambda x: tf.reduce_sum(x[:, : rows(x)], 1)),
        "sliced by number": m(
            "Slice",
            w.COUNTED,
            lambda x: tf.reduce_sum(
                tf.slice(x, [0, 0], tf.stack([-1, tf.constant(0) + rows(x)])), 1
            ),
        ),
        # Places.
        "first row": m("StridedSlice", w.JOINED, lambda x: x - x[:1]),
        "every second row": m("StridedSlice", w.JOINED, lambda x: x[::2]),
        "next row": m("StridedSlice", w.JOINED, lambda x: x[1:]),
        "slice of rows": m("Slice", w.JOINED, lambda x: tf.slice(x, [1, 0], [-1, -1])),
        "padded batch": m(
            "PadV2", w.JOINED, lambda x: tf.pad(x, [[1, 0], [0, 0]], constant_values=1.0)[: rows(x)]
        ),
        "mirrored batch": m(
            "MirrorPad", w.JOINED, lambda x: tf.pad(x, [[1, 0], [0, 0]], "SYMMETRIC")[: rows(x)]
        ),
        # Alignment.
        "vector against matrix": m(
            "AddV2", w.MISALIGNED, lambda x, z: x + z, (VECTOR, ("float32", None, 1))
        ),
        # Products.
        "gram matrix": m(
            "MatMul", w.CONTRACTED, lambda x: tf.matmul(tf.matmul(x, x, transpose_b=True), x)
        ),
        "covariance": m(
            "MatMul", w.CONTRACTED, lambda x: tf.matmul(x, tf.matmul(x, x, transpose_a=True))
        ),
        "attention between rows": m(
            "BatchMatMulV2",
            w.CONTRACTED,
            lambda x: tf.linalg.matmul(x[None], x[None], transpose_b=True)[0],
        ),
        "outer sum": m("Einsum", w.CONTRACTED, lambda x: tf.einsum("bi,bj->ij", x, x)),
        "summed label": m("Einsum", w.CONTRACTED, lambda x: x + tf.einsum("bi->i", x)),
        "two labels": m("Einsum", w.CONTRACTED, lambda x: tf.einsum("ai,bi->ab", x, x)),
        # Windows.
        "pool over the batch": m(
            "MaxPool3D",
            w.WINDOWED,
            lambda x: tf.nn.max_pool3d(tf.reshape(x, [1, -1, 2, 2, 1]), [1, 2, 1, 1, 1], 1, "SAME")[
                0, :, :, :, 0
            ],
        ),
        "convolution along the batch": m(
            "Conv2D",
            w.WINDOWED,
            lambda x: tf.nn.conv2d(x[None, :, :, None], tf.ones([3, 1, 1, 1]), 1, "SAME")[
                0, :, :, 0
            ],
        ),
        "batch norm along the rows": m(
            "LRN",
            w.WINDOWED,
            lambda x: tf.transpose(
                tf.nn.local_response_normalization(tf.transpose(x)[:, None, None, :])
            )[:, 0, 0, :],
        ),
        # Gathers.
        "row by number": m("GatherV2", w.PICKED, lambda x: tf.gather(x, [0]) + x),
        "picked by places": m(
            "GatherNd",
            w.PICKED,
            lambda x: tf.gather_nd(x, tf.zeros_like(tf.cast(x, tf.int32))[:, :1]),
        ),
        # Sizes that data decide.
        "unique": m("Unique", w.DATA_SIZED, lambda x: tf.unique(x).idx, (ID,)),
        # Decisions.
        "scale if bright": m(
            "StatelessIf",
            w.DECIDED,
            lambda x: tf.cond(tf.reduce_max(x) > 1.0, lambda: x / 255.0, lambda: x),
        ),
        "one of three": m(
            "StatelessCase",
            w.DECIDED,
            lambda x: tf.switch_case(
                tf.cast(tf.reduce_max(tf.abs(x)), tf.int32) % 3,
                [lambda: x, lambda: 2.0 * x, lambda: -x],
            ),
        ),
        "until all are small": m("StatelessWhile", w.LOOPED, loop_until_all_are_small),
        "as long as a row says": m("StatelessWhile", w.LOOPED, loop_as_long_as_a_row_says),
        "capacity of experts": m("Cumsum", w.ORDERED, capacity),
        "counts of a batch": m(
            "DenseBincount",
            w.REDUCED,
            lambda x: tf.gather(
                raw.DenseBincount(input=x, size=200, weights=tf.zeros([0], tf.float32)),
                tf.zeros_like(x),
                batch_dims=0,
            ),
            (ID,),
            also=(("GatherV2", w.PICKED),),
        ),
        "one after the other": m(
            "ConcatV2", w.JOINED, lambda x: tf.concat([x, x], 0), also=(("StridedSlice", w.JOINED),)
        ),
        "repeated batch": m("Tile", w.JOINED, lambda x: tf.tile(x, [2, 1])),
        "places of a constant": m("AddV2", w.MISALIGNED, lambda x: x + tf.ones([2, 4])),
        "places of a constant, chosen": m(
            "SelectV2", w.MISALIGNED, lambda x: tf.where(tf.constant([[True], [False]]), x, -x)
        ),
        "rows against columns": m(
            "Mul",
            w.MISALIGNED,
            lambda x: tf.reduce_sum(x[:, None] * x[None, :], 1),
            (VECTOR,),
            also=(("Sum", w.REDUCED),),
        ),
        "number of rows": m(
            "Cast",
            w.COUNTED,
            lambda x: x * tf.cast(rows(x), tf.float32),
            also=(("Mul", w.COUNTED), ("Mul", w.NO_SHAPE)),
        ),
        "halves of the batch": m("Split", w.JOINED, lambda x: tf.split(x, 2, 0)[0]),
        "parts of the batch": m("SplitV", w.JOINED, lambda x: tf.split(x, [1, -1], 0)[1]),
        "sizes of words": m(
            "StringSplitV2",
            w.DATA_SIZED,
            lambda x: raw.StringSplitV2(input=x, sep=" ").values,
            (TEXTS,),
        ),
        "what is not zero": m(
            "Where", w.DATA_SIZED, lambda x: raw.Where(condition=x > 0.0), (VECTOR,)
        ),
        "list of rows": m(
            "TensorListFromTensor", w.JOINED, listed_rows, also=(("TensorListGetItem", w.NO_RULE),)
        ),
        "segments": m(
            "UnsortedSegmentSum",
            w.PICKED,
            lambda x: tf.math.unsorted_segment_sum(x, tf.zeros_like(x), 2),
            (ID,),
        ),
        "best of the batch": m(
            "TopKV2", w.ORDERED, lambda x: raw.TopKV2(input=x, k=1).values, (VECTOR,)
        ),
        "rows in pairs": m("Reshape", w.MOVED, lambda x: tf.reshape(x, [-1, 2]), (VECTOR,)),
        "transposed and cut anew": m(
            "Reshape", w.MOVED, lambda x: tf.transpose(tf.reshape(tf.transpose(x), [2, -1]))
        ),
        "resized batch": m(
            "ResizeBilinear",
            w.WINDOWED,
            lambda x: tf.transpose(
                tf.image.resize(tf.transpose(x)[None, ..., None], [4, 2])[0, ..., 0]
            ),
        ),
        "kernel as high as the batch": m(
            "Conv2D",
            w.CONTRACTED,
            lambda x: tf.nn.conv2d(tf.ones([1, 9, 1, 4]), x[:, None, :, None], 1, "SAME"),
        ),
        "picked by another's content": m("GatherV2", w.PICKED, tf.gather, (VECTOR, ID)),
        "times the number of rows": m("Mul", w.COUNTED, lambda x: x * rows(x), (ID,)),
        "modulo the number of rows": m("FloorMod", w.COUNTED, lambda x: x % rows(x), (ID,)),
        "asserted of the batch": m("If", w.ASSERTED, asserted),
        # What nobody knows.
        "an operation without a rule": m("L2Loss", w.NO_RULE, lambda x: x * tf.nn.l2_loss(x)),
    }


def _more() -> dict[str, tuple[Callable[..., Any], tuple[tuple[Any, ...], ...]]]:  # noqa: C901
    """Those that several locks keep out, and what users were bitten by."""
    import tensorflow as tf

    raw = tf.raw_ops
    rows = lambda x: tf.shape(x)[0]  # noqa: E731
    table = tf.constant([[float(i * j) for j in range(3)] for i in range(200)])

    def running_total(x):
        def body(i, total, y):
            return i + 1, total + tf.reduce_sum(y, 0, keepdims=True), y + total

        return tf.while_loop(lambda i, total, y: i < 3, body, [0, tf.zeros([1, 4]), x])[2]

    def picked_from_a_list(x):
        items = raw.TensorListFromTensor(tensor=tf.transpose(x), element_shape=tf.constant([-1]))
        index = tf.cast(tf.reduce_max(tf.abs(x)), tf.int32) % 4
        return raw.TensorListGetItem(
            input_handle=items,
            index=index,
            element_shape=tf.constant([-1]),
            element_dtype=tf.float32,
        )

    def var_len(x):
        parsed = tf.io.parse_example(x, {"f": tf.io.VarLenFeature(tf.float32)})["f"]
        return tf.reduce_sum(tf.ones_like(tf.sparse.to_dense(parsed)), 1)

    def sequence(x):
        feature = tf.io.FixedLenSequenceFeature([], tf.float32, allow_missing=True)
        parsed = tf.io.parse_example(x, {"f": feature})["f"]
        return tf.reduce_sum(tf.ones_like(parsed), 1)

    def split_and_averaged(x):
        lengths = tf.cast(tf.strings.length(tf.strings.split(x).to_tensor("")), tf.float32)
        return tf.reduce_mean(lengths, 1)

    def split_by_the_longest(x):
        return tf.strings.split(x).to_tensor("")

    def neighbours(x):
        return tf.gather(x, tf.cast(tf.abs(x[:, 0]), tf.int32) % rows(x))

    def scattered(x):
        updates = tf.reduce_sum(x, 1)[:1, None] * tf.ones([1, 4])
        return tf.tensor_scatter_nd_update(x, [[0]], updates)

    def mapped(x):
        return tf.map_fn(lambda row: row * tf.cast(rows(x), tf.float32), x)

    return {
        "running total in a loop": (running_total, (ROWS,)),
        "picked from a list": (picked_from_a_list, (ROWS,)),
        "var length made dense": (var_len, (TEXTS,)),
        "sequence to the longest": (sequence, (TEXTS,)),
        "words to the longest, averaged": (split_and_averaged, (TEXTS,)),
        "words to the longest": (split_by_the_longest, (TEXTS,)),
        "neighbours by content": (neighbours, (ROWS,)),
        "scattered into the batch": (scattered, (ROWS,)),
        "row after row": (mapped, (ROWS,)),
        "largest id's embedding": (
            lambda x: tf.gather(table, tf.fill([rows(x)], tf.reduce_max(x))),
            (ID,),
        ),
        "numbered rows": (
            lambda x: x + tf.cast(tf.range(rows(x)), tf.float32)[:, None],
            (ROWS,),
        ),
        "sorted batch": (tf.sort, (VECTOR,)),
        "sorted columns": (lambda x: tf.sort(x, 0), (ROWS,)),
        "more than one row": (
            lambda x: tf.cond(rows(x) > 1, lambda: x, lambda: -x),
            (ROWS,),
        ),
        "as square as rows": (
            lambda x: x * tf.reduce_sum(tf.fill([rows(x), rows(x)], 1.0), 1, keepdims=True),
            (ROWS,),
        ),
        "kernel of a row": (
            lambda x: tf.nn.conv2d(
                x, tf.reshape(tf.reduce_sum(x, [1, 2]), [-1, 1, 2, 1])[:1], 1, "SAME"
            ),
            (IMAGES,),
        ),
        "dropout by rows": (
            lambda x: tf.random.stateless_uniform(tf.shape(x), [1, 2]) * x,
            (ROWS,),
        ),
        "whitened": (
            lambda x: (x - tf.reduce_mean(x, 0)) / (tf.math.reduce_std(x, 0) + 1.0),
            (ROWS,),
        ),
        "contrastive scores": (
            lambda x: tf.nn.softmax(tf.matmul(x, x, transpose_b=True)) @ x,
            (ROWS,),
        ),
        "padded to the longest, then scored": (
            lambda x: tf.reduce_mean(
                tf.cast(tf.strings.bytes_split(x).to_tensor("") == "", tf.float32), 1
            ),
            (TEXTS,),
        ),
    }


MIXERS = _mixers()
MORE = _more()
