"""Models written in JAX and exported as SavedModels, with a batch of any size."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from tests.ordinary import nasty
from tests.ordinary.entry import Entry


def _save(path: Path, predict: Any, weights: Any, *shape: int) -> None:
    """Write a function of weights and an input whose first dimension is the batch."""
    import tensorflow as tf
    from jax.experimental import jax2tf

    module = tf.Module()
    module.weights = tf.nest.map_structure(tf.Variable, weights)
    letters = ", ".join(["batch", *map(str, shape)])
    run = jax2tf.convert(predict, polymorphic_shapes=[None, f"({letters})"])
    spec = tf.TensorSpec([None, *shape], tf.float32, name="x")
    module.serve = tf.function(
        lambda x: {"y": run(module.weights, x)}, input_signature=[spec], autograph=False
    )
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.serve})


def _random(*shape: int) -> np.ndarray:
    rng = np.random.default_rng(sum(shape))
    return (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)


def _mlp(path: Path) -> None:
    import jax
    import jax.numpy as jnp

    def predict(weights, x):
        for w, b in weights[:-1]:
            x = jax.nn.relu(jnp.dot(x, w) + b)
        w, b = weights[-1]
        return jnp.dot(x, w) + b

    pairs = itertools.pairwise((16, 64, 64, 4))
    _save(path, predict, [(_random(a, b), _random(b)) for a, b in pairs], 16)


def _attention(path: Path) -> None:
    import jax
    import jax.numpy as jnp

    def predict(weights, x):
        x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-6)
        q, k, v = (x @ weights[name] for name in "qkv")
        near = jax.nn.softmax(jnp.einsum("bid,bjd->bij", q, k) / 4.0)
        return (x + near @ v).mean(1) @ weights["out"]

    weights = {name: _random(16, 16) for name in "qkv"}
    _save(path, predict, {**weights, "out": _random(16, 3)}, 8, 16)


def _entry(name: str, about: str, export: Any, inputs: Any) -> Entry:
    return Entry(name=f"jax_{name}", family="jax_models", about=about, export=export, inputs=inputs)


ENTRIES = (
    _entry("mlp", "three dense layers by jax2tf", _mlp, nasty.named(x=nasty.numbers(16))),
    _entry(
        "attention",
        "self-attention over eight places by jax2tf",
        _attention,
        nasty.named(x=nasty.numbers(8, 16)),
    ),
)
