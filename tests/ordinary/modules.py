"""Models that are a `tf.Module` with functions: what people write who need no framework."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.ordinary import nasty
from tests.ordinary.entry import Entry

ITEMS = 40
EXPERTS = 4
WIDTH = 8


def saved(build: Callable[[Any, Any], Any], **specs: tuple[Any, ...]) -> Callable[[Path], None]:
    """An export of the function that `build(tf, module)` returns.

    `specs` are its arguments: a type and the dimensions after the first.
    """

    def export(path: Path) -> None:
        import tensorflow as tf

        module = tf.Module()
        signature = [
            tf.TensorSpec([None, *shape], kind, name=name) for name, (kind, *shape) in specs.items()
        ]
        module.serve = tf.function(build(tf, module), input_signature=signature)
        tf.saved_model.save(module, str(path), signatures={"serving_default": module.serve})

    return export


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def _half_plus_two(tf, module):
    module.a, module.b = tf.Variable(0.5), tf.Variable(2.0)
    return lambda x: {"y": module.a * x + module.b}


def _split_lookup(tf, module):
    words = tf.constant([word.lower() for word in nasty.WORDS[:20]])
    numbers = tf.range(1, 21, dtype=tf.int64)
    module.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(words, numbers), 0)
    module.weights = tf.Variable(_random(21, 4))

    def serve(text):
        split = tf.strings.split(tf.strings.lower(text)).to_tensor()
        return {"vector": tf.reduce_sum(tf.gather(module.weights, module.table.lookup(split)), 1)}

    return serve


def _cond(tf, module):
    module.w = tf.Variable(_random(6, 2))

    def serve(x):
        scaled = tf.cond(tf.reduce_max(x) > 1, lambda: x / 255.0, lambda: x)
        return {"y": scaled @ module.w}

    return serve


def _softmax_over_batch(tf, module):
    module.w = tf.Variable(_random(6, 1))

    def serve(x):
        return {"share": tf.nn.softmax(tf.math.asinh(x) @ module.w, axis=0)}

    return serve


def _centred(tf, module):
    module.w = tf.Variable(_random(6, 3))

    def serve(x):
        return {"y": (x - tf.reduce_mean(x, 0, keepdims=True)) @ module.w + 1.0}

    return serve


def _regex(tf, module):
    def serve(text):
        clean = tf.strings.regex_replace(text, r"<[^>]*>|\d+", " ")
        clean = tf.strings.strip(tf.strings.regex_replace(clean, r"\s+", " "))
        return {
            "upper": tf.strings.upper(clean, encoding="utf-8"),
            "length": tf.strings.length(clean, unit="UTF8_CHAR"),
        }

    return serve


def _jpeg(tf, module):
    module.kernel = tf.Variable(_random(3, 3, 3, 4))

    def decoded(data):
        image = tf.io.decode_jpeg(data, channels=3)
        return tf.image.resize(tf.image.convert_image_dtype(image, tf.float32), [16, 16])

    def serve(image_bytes):
        images = tf.map_fn(decoded, image_bytes, fn_output_signature=tf.float32)
        images = tf.ensure_shape(images, [None, 16, 16, 3])
        x = tf.nn.relu(tf.nn.conv2d(images, module.kernel, 2, "SAME"))
        return {"features": tf.reduce_mean(x, [1, 2])}

    return serve


def _converge(tf, module):
    module.w = tf.Variable(_random(5, 5))

    def serve(x):
        goal = tf.tanh(x @ module.w)

        def far(y):
            return tf.reduce_max(tf.abs(goal - y)) > 0.1

        (y,) = tf.while_loop(far, lambda y: (y + 0.3 * (goal - y),), [tf.zeros_like(goal)])
        return {"y": y}

    return serve


def _experts(tf, module):
    module.gate = tf.Variable(_random(WIDTH, EXPERTS))
    module.experts = tf.Variable(_random(EXPERTS, WIDTH, WIDTH))

    def serve(x):
        x = x / (tf.norm(x, axis=1, keepdims=True) + 1e-6)
        chosen = tf.one_hot(tf.argmax(x @ module.gate, 1), EXPERTS)
        rows = tf.cast(tf.shape(x)[0], tf.float32)
        capacity = tf.math.ceil(rows / EXPERTS)
        place = tf.cumsum(chosen, 0, exclusive=True)
        taken = chosen * tf.cast(place < capacity, tf.float32)
        return {"y": tf.einsum("bi,be,eij->bj", x, taken, module.experts)}

    return serve


def _top_k(tf, module):
    module.items = tf.Variable(_random(WIDTH, ITEMS))

    def serve(x):
        scores, items = tf.math.top_k(x @ module.items, 5)
        return {"scores": scores, "items": items}

    return serve


def _without_repeats(tf, module):
    module.scores = tf.Variable(_random(ITEMS) + 5.0)

    def serve(item):
        different, place = tf.unique(item)
        first = tf.math.unsorted_segment_min(tf.range(tf.size(item)), place, tf.size(different))
        is_first = tf.equal(tf.gather(first, place), tf.range(tf.size(item)))
        return {"score": tf.where(is_first, tf.gather(module.scores, item), 0.0)}

    return serve


def _pictures(rng: np.random.Generator, rows: int) -> np.ndarray:
    """JPEGs of various sizes."""
    import tensorflow as tf

    whole = np.empty(rows, object)
    for row in range(rows):
        height, width = rng.integers(8, 40, 2)
        image = rng.integers(0, rng.choice([40, 256]), (height, width, 3)).astype(np.uint8)
        whole[row] = tf.io.encode_jpeg(image).numpy()
    return whole


def _below_and_above_one(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Rows of 0 to 1 and rows of 0 to 255: clients differ in what they send."""
    scale = rng.choice([1.0, 255.0], (rows, 1))
    return (rng.random((rows, 6)) * scale).astype(np.float32)


def _entry(name: str, about: str, export: Any, inputs: Any, never_merged: str = "") -> Entry:
    return Entry(
        name=f"module_{name}",
        family="modules",
        about=about,
        export=export,
        inputs=inputs,
        never_merged=never_merged,
    )


ENTRIES = (
    _entry(
        "half_plus_two",
        "TensorFlow Serving's own example",
        saved(_half_plus_two, x=("float32",)),
        nasty.named(x=nasty.numbers()),
    ),
    _entry(
        "split_lookup",
        "words split, made dense, looked up and summed",
        saved(_split_lookup, text=("string",)),
        nasty.named(text=nasty.sentences()),
        "each row is padded to the longest text of its batch, and the padding counts",
    ),
    _entry(
        "cond",
        "bytes or fractions: divided by 255 if any value is above one",
        saved(_cond, x=("float32", 6)),
        nasty.named(x=_below_and_above_one),
        "one large value anywhere in the batch scales all rows",
    ),
    _entry(
        "softmax_over_batch",
        "the share of each candidate of a call",
        saved(_softmax_over_batch, x=("float32", 6)),
        nasty.named(x=nasty.numbers(6)),
        "the softmax runs over the rows of the batch",
    ),
    _entry(
        "centred",
        "features without the mean of the call's rows",
        saved(_centred, x=("float32", 6)),
        nasty.named(x=nasty.numbers(6)),
        "the mean is taken over the rows of the batch",
    ),
    _entry(
        "regex",
        "texts cleaned by regular expressions, in capitals",
        saved(_regex, text=("string",)),
        nasty.named(text=nasty.sentences()),
    ),
    _entry(
        "jpeg",
        "JPEGs decoded and resized by map_fn",
        saved(_jpeg, image_bytes=("string",)),
        nasty.named(image_bytes=_pictures),
    ),
    _entry(
        "converge",
        "steps until all rows are near their goal",
        saved(_converge, x=("float32", 5)),
        nasty.named(x=nasty.numbers(5)),
        "the loop ends when the slowest row of the batch is done",
    ),
    _entry(
        "experts",
        "a mixture of experts, each of which takes its share of the rows",
        saved(_experts, x=("float32", WIDTH)),
        nasty.named(x=nasty.numbers(WIDTH)),
        "an expert's capacity depends on the batch, and is taken by the rows that come first",
    ),
    _entry(
        "top_k",
        "the five best items of each row",
        saved(_top_k, x=("float32", WIDTH)),
        nasty.named(x=nasty.numbers(WIDTH)),
    ),
    _entry(
        "without_repeats",
        "scores of items; one that comes again scores nothing",
        saved(_without_repeats, item=("int32",)),
        nasty.named(item=nasty.ids(ITEMS)),
        "an item counts once per batch",
    ),
)
