"""Retrieval and ranking models of TensorFlow Recommenders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.ordinary import nasty
from tests.ordinary.entry import Entry
from tests.ordinary.legacy_keras import LEGACY

USERS = tuple(f"user-{n}" for n in range(200))
FILMS = 300


def _tower(keras, vocabulary):
    layers = keras.layers
    return keras.Sequential(
        [
            layers.StringLookup(vocabulary=list(vocabulary), mask_token=None),
            layers.Embedding(len(vocabulary) + 1, 16),
            layers.Dense(32, activation="relu"),
            layers.Dense(16),
        ]
    )


def _query_tower(path: Path) -> None:
    import tensorflow as tf

    tf.keras.utils.set_random_seed(1)
    tower = _tower(tf.keras, USERS)
    tower(tf.constant(["user-1"]))
    spec = tf.TensorSpec([None], tf.string, name="user")

    @tf.function(input_signature=[spec])
    def serve(user):
        return {"embedding": tf.math.l2_normalize(tower(user), axis=1)}

    tf.saved_model.save(tower, str(path), signatures=serve)


def _cross(path: Path) -> None:
    import tensorflow as tf
    import tensorflow_recommenders as tfrs

    keras = tf.keras
    keras.utils.set_random_seed(1)
    film, user = (keras.Input((1,), name=name, dtype="int64") for name in ("film", "user"))
    hour = keras.Input((3,), name="context")
    flat = [
        keras.layers.Flatten()(keras.layers.Embedding(FILMS, 8)(film)),
        keras.layers.Flatten()(keras.layers.Embedding(len(USERS), 8)(user)),
        hour,
    ]
    x = keras.layers.Concatenate()(flat)
    crossed = tfrs.layers.dcn.Cross(projection_dim=4)(x, x)
    crossed = tfrs.layers.dcn.Cross()(x, crossed)
    deep = keras.layers.Dense(32, activation="relu")(crossed)
    keras.Model([film, user, hour], keras.layers.Dense(1, name="rating")(deep)).save(
        str(path), save_format="tf"
    )


def _brute_force(path: Path) -> None:
    import tensorflow as tf
    import tensorflow_recommenders as tfrs

    tf.keras.utils.set_random_seed(1)
    films = tf.data.Dataset.from_tensor_slices(tf.random.stateless_normal([FILMS, 16], [1, 2]))
    titles = tf.data.Dataset.from_tensor_slices([f"Film № {n}" for n in range(FILMS)])
    index = tfrs.layers.factorized_top_k.BruteForce(_tower(tf.keras, USERS), k=10)
    index.index_from_dataset(tf.data.Dataset.zip((titles.batch(100), films.batch(100))))
    index(tf.constant(["user-1"]))
    spec = tf.TensorSpec([None], tf.string, name="user")

    @tf.function(input_signature=[spec])
    def serve(user):
        scores, found = index(user)
        return {"scores": scores, "titles": found}

    tf.saved_model.save(index, str(path), signatures=serve)


def _entry(name: str, about: str, export: Any, inputs: Any) -> Entry:
    return Entry(
        name=f"tfrs_{name}",
        family="recommenders",
        about=about,
        export=export,
        inputs=inputs,
        environment=LEGACY,
    )


_user = nasty.choices((*USERS[::3], "", "nobody", "usér-1"))

ENTRIES = (
    _entry(
        "query_tower",
        "the query tower of a two-tower model",
        _query_tower,
        nasty.named(user=_user),
    ),
    _entry(
        "cross",
        "a ranking model with cross layers (DCN)",
        _cross,
        nasty.named(
            film=nasty.ids(FILMS, 1, dtype=np.int64),
            user=nasty.ids(len(USERS), 1, dtype=np.int64),
            context=nasty.numbers(3),
        ),
    ),
    _entry(
        "brute_force",
        "the ten best of all candidates, by brute force",
        _brute_force,
        nasty.named(user=_user),
    ),
)
