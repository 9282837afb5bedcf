"""keras-hub backbones, built from a configuration: nothing is downloaded."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.ordinary import nasty
from tests.ordinary.entry import Entry, Inputs
from tests.ordinary.keras3 import exported

WORDS = 300


def _bert(keras, layers):
    import keras_hub

    return keras_hub.models.BertBackbone(
        vocabulary_size=WORDS,
        num_layers=2,
        num_heads=2,
        hidden_dim=32,
        intermediate_dim=64,
        max_sequence_length=32,
    )


def _vit(keras, layers):
    import keras_hub

    backbone = keras_hub.models.ViTBackbone(
        image_shape=(32, 32, 3),
        patch_size=8,
        num_layers=2,
        num_heads=2,
        hidden_dim=32,
        mlp_dim=64,
    )
    image = keras.Input((32, 32, 3), name="image")
    return keras.Model(image, layers.Dense(5)(backbone(image / 255.0)[:, 0]))


def _gpt2(keras, layers):
    import keras_hub

    return keras_hub.models.GPT2Backbone(
        vocabulary_size=WORDS,
        num_layers=2,
        num_heads=2,
        hidden_dim=32,
        intermediate_dim=64,
        max_sequence_length=32,
    )


def _tokens(rng: np.random.Generator, rows: int, length: int) -> Inputs:
    """Ids with a mask that hides the end of a row; at least one stays."""
    own = rng.integers(1, length + 1, (rows, 1))
    mask = np.arange(length) < own
    ids = np.where(mask, nasty.ids(WORDS, length)(rng, rows), 0)
    return {"token_ids": ids.astype(np.int32), "padding_mask": mask.astype(np.int32)}


def _segments(rng: np.random.Generator, rows: int, length: int) -> Inputs:
    tokens = _tokens(rng, rows, length)
    first = rng.integers(0, length + 1, (rows, 1))
    return {**tokens, "segment_ids": (np.arange(length) >= first).astype(np.int32)}


def _entry(name: str, about: str, build: Any, inputs: Any, **more: Any) -> Entry:
    return Entry(
        name=f"hub_{name}",
        family="hub",
        about=about,
        export=exported(build),
        inputs=inputs,
        **more,
    )


ENTRIES = (
    _entry("bert", "a BERT of two layers", _bert, _segments, free_lengths=(1, 9, 32)),
    _entry(
        "vit",
        "a vision transformer with a head for five classes",
        _vit,
        nasty.named(image=nasty.pictures(32, 32, 3)),
    ),
    _entry("gpt2", "a GPT-2 of two layers", _gpt2, _tokens, free_lengths=(1, 9, 32)),
)
