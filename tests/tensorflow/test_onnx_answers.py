"""A Keras model as a SavedModel and as ONNX gives the same answers, merged or not."""

from __future__ import annotations

import numpy as np
import pytest

from servingd.core.types import ServableId, VersionData
from servingd.servables.registry import Platforms
from servingd.testing.contract import run

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.tf


def digits_reader():
    import keras

    layers = keras.layers
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((28, 28, 1), name="image"),
            layers.Conv2D(8, 3, strides=2, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(),
            layers.Dropout(0.3),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )


def text_scorer():
    import keras

    layers = keras.layers
    keras.utils.set_random_seed(2)
    words = keras.Input((12,), dtype="int32", name="words")
    vectors = layers.Embedding(50, 16)(words)
    mixed = layers.MultiHeadAttention(2, 8)(vectors, vectors)
    normal = layers.LayerNormalization()(mixed + vectors)
    pooled = layers.GlobalAveragePooling1D()(normal)
    return keras.Model(words, layers.Dense(3, activation="tanh")(pooled))


MODELS = {
    "convolutions": (digits_reader, lambda rng, n: rng.random((n, 28, 28, 1), np.float32)),
    "attention": (text_scorer, lambda rng, n: rng.integers(0, 50, (n, 12), dtype=np.int32)),
}


@pytest.fixture(scope="module", params=MODELS)
def pair(request, tmp_path_factory):
    """One model, loaded as each type, and what makes its inputs."""
    make, inputs = MODELS[request.param]
    folder, model = tmp_path_factory.mktemp("pair"), make()
    for kind, name in (("tf_saved_model", "saved"), ("onnx", "onnx/model.onnx")):
        (folder / name).parent.mkdir(exist_ok=True)
        model.export(str(folder / name), format=kind, verbose=False)
    platforms = Platforms()
    made = [
        platforms.loader(ServableId("m", 1), VersionData(str(folder / path), name)).load()
        for path, name in (("saved", "tensorflow"), ("onnx", "onnx"))
    ]
    yield *made, inputs
    for servable in made:
        servable.close()
    platforms.stop()


def answer(servable, x):
    signature = servable.signatures["serving_default"]
    (alias,) = signature.inputs
    (found,) = run(servable, signature, {alias: x}).values()
    return found


def test_both_types_answer_alike(pair):
    saved, as_onnx, inputs = pair
    for rows in (1, 2, 7):
        x = inputs(np.random.default_rng(rows), rows)
        np.testing.assert_allclose(answer(as_onnx, x), answer(saved, x), rtol=1e-4, atol=1e-5)


def test_the_onnx_model_is_merged_or_says_why_not(pair, request):
    _, as_onnx, inputs = pair
    reason = as_onnx.why_not_merged("serving_default")
    if request.node.callspec.params["pair"] == "attention":
        # A dense layer over the places of a text: its exporter multiplies the number of rows.
        assert "ReduceProd" in reason
        assert as_onnx.rows_worth_merging("serving_default") == 0
        return
    assert reason == ""
    x = inputs(np.random.default_rng(0), 9)
    apart = np.concatenate([answer(as_onnx, x[:2]), answer(as_onnx, x[2:])])
    np.testing.assert_allclose(answer(as_onnx, x), apart, rtol=1e-4, atol=1e-5)
