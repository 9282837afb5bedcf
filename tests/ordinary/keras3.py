"""Keras 3 models, exported with `model.export` where not said otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.ordinary import nasty
from tests.ordinary.entry import Entry, Inputs

COUNTRIES = ("de", "fr", "us", "jp", "br", "in", "é")
TEXT_LENGTH = 16
WORDS = 500


def exported(build: Callable[[Any, Any], Any]) -> Callable[[Path], None]:
    """An export of what `build(keras, keras.layers)` makes, with random weights."""

    def export(path: Path) -> None:
        import keras

        keras.utils.set_random_seed(1)
        model = build(keras, keras.layers)
        _unsettle(model)
        model.export(str(path), verbose=False)

    return export


def _unsettle(model: Any) -> None:
    """Give variables that start as zeros or ones values as training does."""
    rng = np.random.default_rng(7)
    for variable in model.variables:
        kind = variable.path.rsplit("/", 1)[-1]
        if kind in ("bias", "beta", "moving_mean"):
            variable.assign(rng.normal(0, 0.1, variable.shape))
        elif kind in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))


# Pictures -----------------------------------------------------------------------------------------


def _mnist(keras, layers):
    return keras.Sequential(
        [
            keras.Input((28, 28, 1), name="image"),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )


def _mobilenet(keras, layers):
    image = keras.Input((48, 48, 3), name="image")
    body = keras.applications.MobileNetV2(
        input_shape=(48, 48, 3), alpha=0.35, weights=None, include_top=False, pooling="avg"
    )
    x = keras.applications.mobilenet_v2.preprocess_input(image)
    return keras.Model(image, layers.Dense(5)(body(x)))


def _resnet(keras, layers):
    def block(x, filters, stride):
        y = layers.Conv2D(filters, 3, stride, padding="same", use_bias=False)(x)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.Conv2D(filters, 3, padding="same", use_bias=False)(y)
        y = layers.BatchNormalization()(y)
        if stride > 1:
            x = layers.Conv2D(filters, 1, stride)(x)
        return layers.ReLU()(layers.Add()([x, y]))

    image = keras.Input((32, 32, 3), name="image")
    x = layers.Conv2D(16, 3, padding="same")(layers.Rescaling(1 / 255)(image))
    for filters, stride in ((16, 1), (32, 2), (64, 2)):
        x = block(x, filters, stride)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(10, activation="softmax")(x))


def _convnext(keras, layers):
    image = keras.Input((32, 32, 3), name="image")
    x = layers.Conv2D(24, 4, 4)(layers.Rescaling(1 / 127.5, -1.0)(image))
    for _ in range(2):
        y = layers.DepthwiseConv2D(7, padding="same")(x)
        y = layers.LayerNormalization(epsilon=1e-6)(y)
        y = layers.Dense(96, activation="gelu")(y)
        x = layers.Add()([x, layers.Dense(24)(y)])
    x = layers.LayerNormalization(epsilon=1e-6)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, layers.Dense(10)(x))


def _resizing(keras, layers):
    image = keras.Input((40, 30, 3), name="image", dtype="uint8")
    x = layers.Resizing(16, 16)(image)
    x = layers.Rescaling(1 / 127.5, -1.0)(x)
    x = layers.Conv2D(8, 3, activation="relu")(x)
    return keras.Model(image, layers.Dense(4)(layers.GlobalMaxPooling2D()(x)))


def _autoencoder(keras, layers):
    return keras.Sequential(
        [
            keras.Input((16, 16, 1), name="image"),
            layers.Conv2D(8, 3, 2, padding="same", activation="relu"),
            layers.Conv2D(4, 3, 2, padding="same", activation="relu"),
            layers.Conv2DTranspose(8, 3, 2, padding="same", activation="relu"),
            layers.UpSampling2D(),
            layers.Conv2D(1, 3, padding="same", activation="sigmoid"),
        ]
    )


# Numbers ------------------------------------------------------------------------------------------


def _mlp(keras, layers):
    return keras.Sequential(
        [
            keras.Input((20,), name="x"),
            layers.Dense(256, activation="relu"),
            layers.Dense(256, activation="relu"),
            layers.Dense(1),
        ]
    )


def _wide_and_deep(keras, layers):
    age, income = (keras.Input((1,), name=name) for name in ("age", "income"))
    user = keras.Input((1,), name="user_id", dtype="int64")
    item = keras.Input((1,), name="item_id", dtype="int64")
    country = keras.Input((1,), name="country", dtype="string")
    recent = keras.Input((5,), name="recent_items", dtype="int64")
    known_users = layers.IntegerLookup(vocabulary=list(range(100, 600, 5)))(user)
    items = layers.Embedding(1000, 16)
    countries = layers.StringLookup(vocabulary=list(COUNTRIES))
    place = countries(country)
    deep = layers.Concatenate()(
        [
            layers.Flatten()(layers.Embedding(110, 16)(known_users)),
            layers.Flatten()(items(item)),
            layers.GlobalAveragePooling1D()(items(recent)),
            layers.Flatten()(layers.Embedding(10, 4)(place)),
            layers.BatchNormalization()(layers.Concatenate()([age, income])),
        ]
    )
    for units in (64, 32):
        deep = layers.Dense(units, activation="relu")(deep)
    wide = layers.CategoryEncoding(len(COUNTRIES) + 1, output_mode="one_hot")(place)
    score = layers.Dense(1, activation="sigmoid", name="score")(layers.Concatenate()([wide, deep]))
    return keras.Model([age, income, user, item, country, recent], score)


def _preprocessing(keras, layers):
    rng = np.random.default_rng(3)
    x = keras.Input((4,), name="x")
    hour = keras.Input((1,), name="hour", dtype="int64")
    normal = layers.Normalization()
    normal.adapt(rng.normal(5.0, 3.0, (200, 4)).astype("float32"))
    buckets = layers.Discretization(bin_boundaries=[-100.0, -1.0, 0.0, 0.5, 10.0, 300.0])(x)
    hours = layers.CategoryEncoding(24, output_mode="one_hot")(hour)
    flags = layers.CategoryEncoding(7, output_mode="multi_hot")(buckets)
    features = layers.Concatenate()([normal(x), hours, flags])
    return keras.Model([x, hour], layers.Dense(3)(features))


def _multi_output(keras, layers):
    x = keras.Input((10,), name="x")
    hidden = layers.Dense(32, activation="tanh")(x)
    outputs = {
        "price": layers.Dense(1, activation="softplus", name="price")(hidden),
        "kind": layers.Dense(6, activation="softmax", name="kind")(hidden),
        "embedding": layers.UnitNormalization(name="embedding")(layers.Dense(8)(hidden)),
    }
    return keras.Model(x, outputs)


def _jit(keras, layers):
    model = keras.Sequential(
        [
            keras.Input((12,), name="x"),
            layers.Dense(64, activation="gelu"),
            layers.LayerNormalization(),
            layers.Dense(4, activation="softmax"),
        ]
    )
    model.compile(jit_compile=True)
    return model


def _subclassed(path: Path) -> None:
    """Two towers that name their variables alike, as people's own layers do."""
    import keras

    class Tower(keras.layers.Layer):
        def build(self, shape):
            add = self.add_weight
            self.one = add(shape=(shape[-1], 16), initializer="glorot_uniform", name="w")
            self.two = add(shape=(16, 16), initializer="glorot_uniform", name="w")
            self.b = add(shape=(16,), initializer="random_normal", name="w")

        def call(self, x):
            return keras.ops.relu(keras.ops.matmul(x, self.one)) @ self.two + self.b

    class Both(keras.Model):
        def __init__(self):
            super().__init__()
            self.left, self.right = Tower(name="tower"), Tower(name="tower")

        def call(self, x):
            return self.left(x) - 0.5 * self.right(x[:, ::-1])

    keras.utils.set_random_seed(1)
    model = Both()
    model(np.zeros((1, 6), np.float32))
    model.export(
        str(path),
        verbose=False,
        input_signature=[keras.InputSpec(dtype="float32", shape=(None, 6), name="x")],
    )


def _saved_plainly(path: Path) -> None:
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(16, activation="relu"),
            layers.BatchNormalization(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    _unsettle(model)
    tf.saved_model.save(model, str(path))


def _alike_saved_plainly(path: Path) -> None:
    """Layers whose variables share a name and a shape: only their places tell them apart."""
    import keras
    import tensorflow as tf

    class Scaled(keras.layers.Layer):
        def build(self, shape):
            add = self.add_weight
            self.one = add(shape=(4, 4), initializer="glorot_uniform", name="w")
            self.two = add(shape=(4, 4), initializer="glorot_uniform", name="w")

        def call(self, x):
            return keras.ops.tanh(x @ self.one) @ self.two

    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), Scaled(name="s"), Scaled(name="s_")])
    tf.saved_model.save(model, str(path))


# Sequences ----------------------------------------------------------------------------------------


def _lstm(keras, layers):
    return keras.Sequential(
        [
            keras.Input((20,), name="ids", dtype="int32"),
            layers.Embedding(WORDS, 16),
            layers.LSTM(24),
            layers.Dense(1, activation="sigmoid"),
        ]
    )


def _gru(keras, layers):
    return keras.Sequential(
        [
            keras.Input((10, 6), name="series"),
            layers.LayerNormalization(),
            layers.GRU(16, return_sequences=True),
            layers.GRU(8),
            layers.Dense(2),
        ]
    )


def _bidirectional(keras, layers):
    return keras.Sequential(
        [
            keras.Input((15,), name="ids", dtype="int32"),
            layers.Embedding(WORDS, 16, mask_zero=True),
            layers.Bidirectional(layers.LSTM(12)),
            layers.Dense(3, activation="softmax"),
        ]
    )


def _vectorized(keras, layers, length):
    text = keras.Input((), name="text", dtype="string")
    vocabulary = sorted({word.lower().strip("<>/!'.") for word in nasty.WORDS[:-1]} - {""})
    ids = layers.TextVectorization(vocabulary=vocabulary, output_sequence_length=length)(text)
    x = layers.Embedding(len(vocabulary) + 2, 12)(ids)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(text, layers.Dense(2)(layers.Dense(16, activation="relu")(x)))


def _transformer(keras, layers, length):
    ids = keras.Input((length,), name="ids", dtype="int32")
    x = layers.Embedding(WORDS, 32)(ids)
    for _ in range(2):
        y = layers.MultiHeadAttention(4, 8)(x, x)
        x = layers.LayerNormalization(epsilon=1e-6)(layers.Add()([x, y]))
        y = layers.Dense(32)(layers.Dense(64, activation="gelu")(x))
        x = layers.LayerNormalization(epsilon=1e-6)(layers.Add()([x, y]))
    return keras.Model(ids, layers.Dense(4)(layers.GlobalAveragePooling1D()(x)))


def _free_ids(rng: np.random.Generator, rows: int, length: int) -> Inputs:
    return {"ids": nasty.ids(WORDS, length)(rng, rows)}


def _bytes(rng: np.random.Generator, rows: int) -> np.ndarray:
    return nasty.pictures(40, 30, 3)(rng, rows).astype(np.uint8)


def _entry(name: str, about: str, build: Any, inputs: Any, **more: Any) -> Entry:
    return Entry(
        name=f"keras3_{name}",
        family="keras3",
        about=about,
        export=exported(build),
        inputs=inputs,
        **more,
    )


def _own(name: str, about: str, export: Any, inputs: Any) -> Entry:
    return Entry(name=f"keras3_{name}", family="keras3", about=about, export=export, inputs=inputs)


ENTRIES = (
    _entry(
        "mnist_cnn",
        "the digit reader of every tutorial",
        _mnist,
        nasty.named(image=nasty.pictures(28, 28, 1, most=1.0)),
    ),
    _entry("mlp", "three dense layers", _mlp, nasty.named(x=nasty.numbers(20))),
    _entry(
        "wide_and_deep",
        "a ranking model with six named inputs and look-ups of users and countries",
        _wide_and_deep,
        nasty.named(
            age=nasty.numbers(1),
            income=nasty.numbers(1),
            user_id=nasty.ids(700, 1, dtype=np.int64),
            item_id=nasty.ids(1000, 1, dtype=np.int64),
            country=nasty.choices((*COUNTRIES, "", "ch", "日本"), 1),
            recent_items=nasty.ids(1000, 5, dtype=np.int64),
        ),
    ),
    _entry(
        "mobilenet_v2",
        "MobileNetV2 of width 0.35 with its preprocessing",
        _mobilenet,
        nasty.named(image=nasty.pictures(48, 48, 3)),
    ),
    _entry(
        "resnet",
        "a residual network of three blocks",
        _resnet,
        nasty.named(image=nasty.pictures(32, 32, 3)),
    ),
    _entry(
        "convnext",
        "a ConvNeXt of two blocks",
        _convnext,
        nasty.named(image=nasty.pictures(32, 32, 3)),
    ),
    _entry(
        "image_preprocessing",
        "Resizing and Rescaling of bytes before a convolution",
        _resizing,
        nasty.named(image=_bytes),
    ),
    _entry(
        "autoencoder",
        "a convolutional autoencoder",
        _autoencoder,
        nasty.named(image=nasty.pictures(16, 16, 1, most=1.0)),
    ),
    _entry(
        "preprocessing",
        "Normalization, Discretization and CategoryEncoding before a dense layer",
        _preprocessing,
        nasty.named(x=nasty.numbers(4), hour=nasty.ids(24, 1, dtype=np.int64)),
    ),
    _entry("multi_output", "three named outputs", _multi_output, nasty.named(x=nasty.numbers(10))),
    _own(
        "subclassed",
        "a subclassed model whose variables have the same name",
        _subclassed,
        nasty.named(x=nasty.numbers(6)),
    ),
    _own(
        "saved_plainly",
        "a model given to tf.saved_model.save",
        _saved_plainly,
        nasty.named(inputs=nasty.numbers(4)),
    ),
    _own(
        "alike_saved_plainly",
        "the same of a model whose variables share names and shapes",
        _alike_saved_plainly,
        nasty.named(inputs=nasty.numbers(4)),
    ),
    _entry("jit", "compiled with jit_compile=True", _jit, nasty.named(x=nasty.numbers(12))),
    _entry(
        "lstm_text",
        "an LSTM over word ids",
        _lstm,
        nasty.named(ids=nasty.ids(WORDS, 20)),
    ),
    _entry("gru", "two GRUs over a series", _gru, nasty.named(series=nasty.numbers(10, 6))),
    _entry(
        "bidirectional_masked",
        "a bidirectional LSTM that masks padding",
        _bidirectional,
        nasty.named(ids=nasty.padded_ids(WORDS, 15)),
    ),
    _entry(
        "text_fixed",
        "TextVectorization to a fixed length",
        lambda keras, layers: _vectorized(keras, layers, TEXT_LENGTH),
        nasty.named(text=nasty.sentences()),
    ),
    _entry(
        "text_free",
        "TextVectorization without a length, averaged over the words",
        lambda keras, layers: _vectorized(keras, layers, None),
        nasty.named(text=nasty.sentences()),
        never_merged="each row is padded to the longest text of its batch, and averaged over that",
    ),
    _entry(
        "transformer_fixed",
        "a transformer encoder of a fixed length",
        lambda keras, layers: _transformer(keras, layers, 16),
        nasty.named(ids=nasty.ids(WORDS, 16)),
    ),
    _entry(
        "transformer_free",
        "a transformer encoder of any length",
        lambda keras, layers: _transformer(keras, layers, None),
        _free_ids,
        free_lengths=(1, 7, 24),
    ),
)
