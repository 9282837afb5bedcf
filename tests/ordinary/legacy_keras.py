"""Keras 2 models, by tf-keras: what `tf.keras` was, and is with TF_USE_LEGACY_KERAS=1."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.ordinary import nasty
from tests.ordinary.entry import Entry

LEGACY = (("TF_USE_LEGACY_KERAS", "1"),)


def saved(build: Callable[[Any], Any]) -> Callable[[Path], None]:
    """An export of what `build(tf.keras)` makes, by `model.save` of a folder."""

    def export(path: Path) -> None:
        import tensorflow as tf

        tf.keras.utils.set_random_seed(1)
        build(tf.keras).save(str(path), save_format="tf")

    return export


def exported(build: Callable[[Any], Any]) -> Callable[[Path], None]:
    """The same by `model.export`, which writes what serving needs alone."""

    def export(path: Path) -> None:
        import tensorflow as tf

        tf.keras.utils.set_random_seed(1)
        build(tf.keras).export(str(path))

    return export


def _cnn(keras):
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((24, 24, 3), name="image"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(16, 3, activation="relu"),
            layers.BatchNormalization(gamma_initializer="random_uniform"),
            layers.SeparableConv2D(32, 3, strides=2, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax"),
        ]
    )


def _tensordot(keras):
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((6, 8), name="x"),
            layers.Dense(16, activation="relu"),
            layers.Dense(4),
        ]
    )


def _bidirectional(keras):
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((12,), dtype="int32", name="ids"),
            layers.Embedding(200, 16, mask_zero=True),
            layers.Bidirectional(layers.LSTM(8)),
            layers.Dense(2, activation="softmax"),
        ]
    )


def _stacked(keras):
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((12,), dtype="int32", name="ids"),
            layers.Embedding(200, 16, mask_zero=True),
            layers.LSTM(8, return_sequences=True),
            layers.LSTM(8),
            layers.Dense(2),
        ]
    )


def _features(keras):
    layers = keras.layers
    age = keras.Input((1,), name="age")
    colour = keras.Input((1,), name="colour", dtype="string")
    size = keras.Input((1,), name="size", dtype="int64")
    colours = layers.StringLookup(vocabulary=["red", "green", "grün"], output_mode="one_hot")
    features = layers.Concatenate()(
        [
            layers.Normalization(mean=[40.0], variance=[100.0])(age),
            colours(colour),
            layers.Flatten()(layers.Embedding(50, 4)(size)),
            layers.CategoryEncoding(6, output_mode="one_hot")(
                layers.Discretization(bin_boundaries=[0.0, 18.0, 30.0, 60.0, 100.0])(age)
            ),
        ]
    )
    hidden = layers.Dense(16, activation="relu")(features)
    return keras.Model([age, colour, size], layers.Dense(1, name="score")(hidden))


def _entry(name: str, about: str, export: Any, inputs: Any) -> Entry:
    return Entry(
        name=f"legacy_{name}",
        family="legacy_keras",
        about=about,
        export=export,
        inputs=inputs,
        environment=LEGACY,
    )


ENTRIES = (
    _entry(
        "cnn",
        "a convolutional network with separable layers",
        saved(_cnn),
        nasty.named(image=nasty.pictures(24, 24, 3)),
    ),
    _entry(
        "tensordot",
        "dense layers on three dimensions, which become Tensordot",
        saved(_tensordot),
        nasty.named(x=nasty.numbers(6, 8)),
    ),
    _entry(
        "bidirectional",
        "a bidirectional LSTM that masks padding",
        exported(_bidirectional),
        nasty.named(ids=nasty.padded_ids(200, 12)),
    ),
    _entry(
        "stacked",
        "an LSTM on the steps of another one",
        exported(_stacked),
        nasty.named(ids=nasty.padded_ids(200, 12)),
    ),
    _entry(
        "features",
        "a functional model with an input per feature and its preprocessing",
        saved(_features),
        nasty.named(
            age=nasty.numbers(1),
            colour=nasty.choices(("red", "green", "grün", "", "blue"), 1),
            size=nasty.ids(50, 1, dtype=np.int64),
        ),
    ),
)
