"""TensorFlow 1 exports: placeholders, sessions, collections, `SavedModelBuilder`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.ordinary import nasty
from tests.ordinary.entry import Entry, Inputs
from tests.ordinary.legacy_keras import LEGACY

CITIES_FILE = Path(__file__).with_name("cities.txt")
CITIES = tuple(CITIES_FILE.read_text("utf-8").splitlines())
WORDS = 60
TRAINED = "trained"
"""The collection of what gives variables other values than they start with."""

Tensors = dict[str, Any]


def exported(build: Callable[[Any, Any], tuple[Tensors, Tensors]]) -> Callable[[Path], None]:
    """An export of the inputs and outputs that `build(tf, tf.compat.v1)` adds to a graph."""

    def export(path: Path) -> None:
        import tensorflow as tf

        tf1 = tf.compat.v1
        with tf.Graph().as_default(), tf1.Session() as session:
            tf1.set_random_seed(1)
            inputs, outputs = build(tf, tf1)
            session.run([tf1.global_variables_initializer(), tf1.tables_initializer()])
            session.run(tf1.get_collection(TRAINED))
            signature = tf1.saved_model.predict_signature_def(inputs, outputs)
            builder = tf1.saved_model.Builder(str(path))
            builder.add_meta_graph_and_variables(
                session,
                ["serve"],
                signature_def_map={"serving_default": signature},
                main_op=tf1.tables_initializer(),
                assets_collection=tf1.get_collection(tf1.GraphKeys.ASSET_FILEPATHS),
            )
            builder.save()

    return export


def _parse(tf1: Any, features: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    serialized = tf1.placeholder(tf1.string, [None], name="input_example")
    return serialized, tf1.parse_example(serialized, features)


def _weights(tf1: Any, name: str, *shape: int) -> Any:
    return tf1.get_variable(name, shape, initializer=tf1.random_normal_initializer(0.0, 0.3))


# Graphs -------------------------------------------------------------------------------------------


def _fixed_features(tf, tf1):
    serialized, parsed = _parse(
        tf1,
        {
            "x": tf1.FixedLenFeature([3], tf.float32, default_value=[0.0, 1.0, -1.0]),
            "clicks": tf1.FixedLenFeature([], tf.int64, default_value=0),
            "city": tf1.FixedLenFeature([], tf.string, default_value="?"),
        },
    )
    city = tf.strings.to_hash_bucket_fast(parsed["city"], 16)
    clicks = tf1.log(1.0 + tf.cast(parsed["clicks"], tf.float32))
    features = tf.concat([parsed["x"], clicks[:, None], tf.one_hot(city, 16)], 1)
    score = tf.nn.sigmoid(tf.matmul(features, _weights(tf1, "w", 20, 1)) + 0.1)
    return {"examples": serialized}, {"score": score, "city": parsed["city"]}


def _dense_var_len(tf, tf1):
    serialized, parsed = _parse(
        tf1,
        {"words": tf1.VarLenFeature(tf.int64), "x": tf1.FixedLenFeature([1], tf.float32, [0.0])},
    )
    words = tf1.sparse_tensor_to_dense(parsed["words"])
    table = _weights(tf1, "table", WORDS, 8)
    mean = tf.reduce_mean(tf.nn.embedding_lookup(table, tf.maximum(words, 0)), 1)
    mean = tf.where(tf1.is_nan(mean), tf.zeros_like(mean), mean)
    out = tf.matmul(tf.concat([mean, parsed["x"]], 1), _weights(tf1, "w", 9, 2))
    return {"examples": serialized}, {"scores": out}


def _table(tf, tf1):
    initializer = tf.lookup.TextFileInitializer(
        str(CITIES_FILE),
        tf.string,
        tf.lookup.TextFileIndex.WHOLE_LINE,
        tf.int64,
        tf.lookup.TextFileIndex.LINE_NUMBER,
    )
    table = tf.lookup.StaticVocabularyTable(initializer, num_oov_buckets=2)
    city = tf1.placeholder(tf.string, [None, 2], name="city")
    ids = table.lookup(city)
    vectors = tf.nn.embedding_lookup(_weights(tf1, "vectors", len(CITIES) + 2, 4), ids)
    return {"city": city}, {"ids": ids, "sum": tf.reduce_sum(vectors, 1)}


def _dynamic_rnn(tf, tf1):
    series = tf1.placeholder(tf.float32, [None, 12, 4], name="series")
    lengths = tf1.placeholder(tf.int32, [None], name="lengths")
    histogram = tf1.nn.rnn_cell.BasicLSTMCell(16)
    scaled = tf.math.asinh(series)
    outputs, state = tf1.nn.dynamic_rnn(histogram, scaled, lengths, dtype=tf.float32)
    scores = tf.matmul(state.h, _weights(tf1, "w", 16, 3))
    return {"series": series, "lengths": lengths}, {"scores": scores, "steps": outputs}


def _conv_net(tf, tf1):
    image = tf1.placeholder(tf.float32, [None, 24, 24, 1], name="image")
    x = image
    for filters in (8, 16):
        x = tf1.layers.conv2d(x, filters, 3, padding="same")
        x = tf1.layers.batch_normalization(x, training=False)
        x = tf1.layers.max_pooling2d(tf.nn.relu(x), 2, 2)
    logits = tf1.layers.dense(tf1.layers.flatten(x), 10)
    outputs = {"classes": tf.argmax(logits, 1), "probabilities": tf.nn.softmax(logits)}
    return {"image": image}, outputs


def _linear(tf, tf1):
    column = tf.feature_column
    age = column.numeric_column("age", default_value=30.0)
    city = column.categorical_column_with_vocabulary_list("city", list(CITIES))
    buckets = column.bucketized_column(age, [18, 25, 30, 40, 65])
    columns = [buckets, city, column.crossed_column([buckets, "city"], 50)]
    serialized, parsed = _parse(tf1, column.make_parse_example_spec(columns))
    logits = tf1.feature_column.linear_model(parsed, columns)
    for variable in tf1.global_variables():  # they start as zeros
        values = np.random.default_rng(5).normal(0, 1, variable.shape)
        tf1.add_to_collection(TRAINED, variable.assign(values.astype(np.float32)))
    scores = tf.nn.softmax(tf.concat([-logits, logits], 1))
    return {"examples": serialized}, {"scores": scores}


# What is asked of them ----------------------------------------------------------------------------


def _example(**features: Any) -> bytes:
    """A serialized Example; a feature that is None is missing."""
    import tensorflow as tf

    train, made = tf.train, {}
    for name, values in features.items():
        if values is None:
            continue
        if values and isinstance(values[0], bytes):
            made[name] = train.Feature(bytes_list=train.BytesList(value=values))
        elif values and isinstance(values[0], float):
            made[name] = train.Feature(float_list=train.FloatList(value=values))
        else:
            made[name] = train.Feature(int64_list=train.Int64List(value=values))
    return train.Example(features=train.Features(feature=made)).SerializeToString()


def _maybe(rng: np.random.Generator, value: Any, share: float = 0.75) -> Any:
    return value if rng.random() < share else None


def _city(rng: np.random.Generator) -> list[bytes]:
    return [str(rng.choice((*CITIES, "", "Nowhere"))).encode()]


def _float(rng: np.random.Generator) -> float:
    return float(rng.standard_normal() * 10.0 ** rng.uniform(-3, 3))


def _examples(one: Callable[[np.random.Generator], bytes]) -> Callable[..., Inputs]:
    return lambda rng, rows: {"examples": np.array([one(rng) for _ in range(rows)], object)}


def _fixed_example(rng: np.random.Generator) -> bytes:
    return _example(
        x=_maybe(rng, [_float(rng) for _ in range(3)]),
        clicks=_maybe(rng, [int(rng.integers(0, 10 ** rng.integers(1, 9)))]),
        city=_maybe(rng, _city(rng)),
    )


def _var_len_example(rng: np.random.Generator) -> bytes:
    count = int(rng.choice([0, 1, 2, 5, 20]))
    words = [int(n) for n in rng.integers(0, WORDS, count)]
    return _example(words=_maybe(rng, words), x=_maybe(rng, [_float(rng)]))


def _linear_example(rng: np.random.Generator) -> bytes:
    age = [float(rng.choice([0.0, 17.9, 18.0, 25.0, 29.0, 39.5, 64.0, 65.0, 120.0]))]
    return _example(age=_maybe(rng, age), city=_maybe(rng, _city(rng)))


def _series(rng: np.random.Generator, rows: int) -> Inputs:
    return {
        "series": nasty.numbers(12, 4)(rng, rows),
        "lengths": rng.integers(0, 13, rows).astype(np.int32),
    }


def _entry(name: str, about: str, build: Any, inputs: Any, **more: Any) -> Entry:
    return Entry(
        name=f"tf1_{name}",
        family="tf1",
        about=about,
        export=exported(build),
        inputs=inputs,
        environment=LEGACY,
        **more,
    )


ENTRIES = (
    _entry(
        "fixed_features",
        "Examples with FixedLenFeatures",
        _fixed_features,
        _examples(_fixed_example),
    ),
    _entry(
        "dense_var_len",
        "Examples with a VarLenFeature, made dense and averaged",
        _dense_var_len,
        _examples(_var_len_example),
        never_merged="each row is padded to the longest feature of its batch, and averaged so",
    ),
    _entry(
        "table",
        "a look-up of an asset's lines and their embeddings",
        _table,
        nasty.named(city=nasty.choices((*CITIES, "", "Nowhere", "berlin"), 2)),
    ),
    _entry("dynamic_rnn", "an LSTM by dynamic_rnn with a length per row", _dynamic_rnn, _series),
    _entry(
        "conv_net",
        "convolutions and batch norm that does not train",
        _conv_net,
        nasty.named(image=nasty.pictures(24, 24, 1, most=1.0)),
    ),
    _entry(
        "linear",
        "a linear classifier with bucketized and crossed columns",
        _linear,
        _examples(_linear_example),
    ),
)
