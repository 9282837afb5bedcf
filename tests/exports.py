"""Small SavedModels, written by TensorFlow as its users write them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_OVERRIDE_GLOBAL_THREADPOOL", "1")


def half_plus_two(path: Path, b: float = 2.0) -> None:
    """y = 0.5 x + b, of variables."""
    import tensorflow as tf

    module = tf.Module()
    module.a, module.b = tf.Variable(0.5), tf.Variable(b)
    spec = tf.TensorSpec([None], tf.float32, name="x")
    module.f = tf.function(lambda x: {"y": module.a * x + module.b}, input_signature=[spec])
    _save(module, path, {"serving_default": module.f})


SHAPES: dict[str, list[int | None]] = {"column": [None, 1], "single": [1], "scalar": []}
"""What the signatures of `half_plus_two` in TensorFlow Serving's documentation are like."""


def half_of_shape(path: Path, shape: list[int | None]) -> None:
    """y = 0.5 x + 2, by a signature of this shape."""
    import tensorflow as tf

    module = tf.Module()
    module.a, module.b = tf.Variable(0.5), tf.Variable(2.0)
    spec = tf.TensorSpec(shape, tf.float32, name="x")
    module.f = tf.function(lambda x: {"y": module.a * x + module.b}, input_signature=[spec])
    _save(module, path, {"serving_default": module.f})


def weighted(path: Path) -> None:
    """y = x times a matrix of 3 x 2: refuses another width. `n` is how many rows came."""
    import tensorflow as tf

    module = tf.Module()
    module.w = tf.Variable([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    spec = tf.TensorSpec([None, 3], tf.float32, name="x")
    module.f = tf.function(lambda x: {"y": tf.matmul(x, module.w)}, input_signature=[spec])
    _save(module, path, {"serving_default": module.f})


def half_of_shape_as_tflite(path: Path, shape: list[int | None]) -> None:
    """The same as a TF Lite model."""
    import tensorflow as tf

    saved = path.with_name(f"{path.name}-saved-model")
    half_of_shape(saved, shape)
    _write_tflite(path, tf.lite.TFLiteConverter.from_saved_model(str(saved)))


def echo(path: Path) -> None:
    """One signature per type: its input, and a scalar beside it. Also one of fixed shape."""
    import tensorflow as tf

    types = (
        "float32 float64 float16 bfloat16 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool "
        "complex64 complex128 string"
    )
    module = tf.Module()
    signatures = {}
    for name in types.split():
        spec = tf.TensorSpec(None, name, name="x")
        signatures[name] = tf.function(lambda x: {"y": tf.identity(x)}, input_signature=[spec])
    fixed = tf.TensorSpec([None, 3], tf.float32, name="x")
    two = tf.TensorSpec([None], tf.int32, name="z")
    signatures["fixed"] = tf.function(lambda x: {"y": x + 1.0}, input_signature=[fixed])
    signatures["serving_default"] = tf.function(
        lambda x, z: {"sum": tf.reduce_sum(x) + tf.cast(tf.reduce_sum(z), tf.float32), "x": x},
        input_signature=[fixed, two],
    )
    module.held = list(signatures.values())
    _save(module, path, signatures)


def slow(path: Path) -> None:
    """Counts to n in a loop of small operations: about a microsecond each."""
    import tensorflow as tf

    module = tf.Module()

    def count(n):
        def body(i, x):
            return i + 1, tf.sqrt(x * x + 1.0)

        _, x = tf.while_loop(lambda i, x: i < n, body, [tf.constant(0), tf.constant(1.0)])
        return {"x": x, "n": n}

    spec = tf.TensorSpec([], tf.int32, name="n")
    module.f = tf.function(count, input_signature=[spec])
    _save(module, path, {"serving_default": module.f})


def endless(path: Path, above: float = 2.0, hoards: int = 0) -> None:
    """y = x, but it loops for ever where an x is larger than that. Made-up inputs are below 1.

    Each turn of the loop takes so many floats more.
    """
    import tensorflow as tf

    module = tf.Module()

    def f(x):
        _, y, _ = tf.while_loop(
            lambda i, y, hoard: tf.reduce_max(y) - tf.reduce_sum(hoard[-1:]) > above,
            lambda i, y, hoard: (i + 1, tf.maximum(y, x), tf.pad(hoard, [[0, hoards]])),
            [tf.constant(0), tf.identity(x), tf.zeros([0])],
            shape_invariants=[tf.TensorShape([]), tf.TensorShape([None]), tf.TensorShape([None])],
        )
        return {"y": y}

    spec = tf.TensorSpec([None], tf.float32, name="x")
    module.f = tf.function(f, input_signature=[spec])
    _save(module, path, {"serving_default": module.f})


def counter(path: Path) -> None:
    """Keeps state: each call adds to a variable."""
    import tensorflow as tf

    module = tf.Module()
    module.total = tf.Variable(0.0)
    spec = tf.TensorSpec([], tf.float32, name="x")
    module.f = tf.function(lambda x: {"total": module.total.assign_add(x)}, input_signature=[spec])
    _save(module, path, {"serving_default": module.f})


def countdown(path: Path) -> None:
    """Two pairs that are streamed, and one that is none.

    `init`, `step`: from a text of one character and a number, so many times that character.
    `endless_init`, `endless_step`: 0, 1, 2 and so on, each beside as many zeros as were asked for.
    `odd_init`, `odd_step`: the state has another type than it is made with.
    """
    import tensorflow as tf

    one, word = tf.TensorSpec([None], tf.int32), tf.TensorSpec([None], tf.string)
    pad = tf.TensorSpec([], tf.int32)

    @tf.function(input_signature=[word, one])
    def init(text, times):
        return {"left": times, "text": text}

    @tf.function(input_signature=[one, word])
    def step(left, text):
        left -= 1
        stop = tf.reduce_all(left <= 0)
        return {"left": left, "text": text, "token": text, "number": left, "stop": stop}

    @tf.function(input_signature=[pad])
    def endless_init(size):
        return {"at": tf.zeros([1], tf.int32), "size": size}

    @tf.function(input_signature=[one, pad])
    def endless_step(at, size):
        return {"at": at + 1, "size": size, "number": at, "zeros": tf.zeros([1, size])}

    odd = tf.function(lambda at: {"at": tf.cast(at, tf.float32)}, input_signature=[one])
    module = tf.Module()
    signatures = {
        "serving_default": tf.function(lambda x: {"y": x}, input_signature=[one]),
        "init": init,
        "step": step,
        "endless_init": endless_init,
        "endless_step": endless_step,
        "odd_init": odd,
        "odd_step": tf.function(lambda at: {"at": at, "y": at}, input_signature=[one]),
    }
    module.held = list(signatures.values())
    _save(module, path, signatures)


def tf1_with_table(path: Path) -> None:
    """A TensorFlow 1 export: placeholder, variable, a table filled from an asset, main_op."""
    import tensorflow as tf

    tf1 = tf.compat.v1
    vocabulary = path.parent / f"vocabulary-{path.name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    vocabulary.write_text("cat\ndog\n")
    with tf.Graph().as_default(), tf1.Session() as session:
        table = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                str(vocabulary),
                tf.string,
                tf.lookup.TextFileIndex.WHOLE_LINE,
                tf.int64,
                tf.lookup.TextFileIndex.LINE_NUMBER,
            ),
            -1,
        )
        words = tf1.placeholder(tf.string, [None], name="words")
        weights = tf1.get_variable("weights", initializer=[1.0, 10.0])
        ids = table.lookup(words)
        score = tf.gather(weights, tf.maximum(ids, 0), name="score")
        session.run([tf1.global_variables_initializer(), tf1.tables_initializer()])
        signature = tf1.saved_model.predict_signature_def(
            {"words": words}, {"ids": ids, "score": score}
        )
        builder = tf1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            signature_def_map={"serving_default": signature},
            main_op=tf1.tables_initializer(),
            strip_default_attrs=True,
            assets_collection=tf1.get_collection(tf1.GraphKeys.ASSET_FILEPATHS),
        )
        builder.save()


def examples(path: Path) -> None:
    """A TensorFlow 1 export over Examples with features `x` (float) and `word` (bytes).

    y = 0.5 x + 2 as a regression and as one class; two classes with labels, scores alone, labels
    alone; and signatures that answer what they should not.
    """
    import tensorflow as tf

    tf1 = tf.compat.v1
    with tf.Graph().as_default(), tf1.Session() as session:
        serialized = tf1.placeholder(tf.string, [None], name="examples")
        parsed = tf1.parse_example(
            serialized,
            {
                "x": tf1.FixedLenFeature([1], tf.float32, default_value=[0.0]),
                "word": tf1.FixedLenFeature([1], tf.string, default_value=[b"none"]),
            },
        )
        x = parsed["x"]
        y = x * 0.5 + 2.0
        both = tf.concat([y, -y], 1)
        labels = tf.concat([parsed["word"], tf.fill(tf.shape(x), b"other")], 1)
        save = tf1.saved_model
        classify, regress = save.classification_signature_def, save.regression_signature_def
        tensors = {"inputs": serialized}
        signatures = {
            "serving_default": regress(serialized, y),
            "flat": regress(serialized, tf.squeeze(y, 1)),
            "classify": classify(serialized, labels, both),
            "scores": classify(serialized, None, both),
            "classes": classify(serialized, labels, None),
            "two_values": save.predict_signature_def(tensors, {"outputs": both}),
            "doubles": save.predict_signature_def(tensors, {"outputs": tf.cast(y, tf.float64)}),
            "one_answer": save.predict_signature_def(tensors, {"outputs": y[:1]}),
            "flat_scores": save.predict_signature_def(tensors, {"scores": y[:, 0]}),
            "other_names": save.predict_signature_def({"x": serialized}, {"y": y}),
            "floats": save.predict_signature_def({"inputs": x}, {"outputs": y}),
        }
        builder = save.Builder(str(path))
        builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=signatures)
        builder.save()


def keras_saved_plainly(path: Path) -> None:
    """A Keras 3 model given to `tf.saved_model.save`: its variables go by other names."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
    tf.saved_model.save(model, str(path))


def keras_exported(path: Path) -> None:
    """A Keras 3 model by `model.export`."""
    import keras

    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.export(str(path), verbose=False)


def _save(module: object, path: Path, signatures: dict) -> None:
    import tensorflow as tf

    tf.saved_model.save(module, str(path), signatures=signatures)


def tflite(path: Path) -> None:
    """A TF Lite model: y = 0.5 x + 2, a gather of strings, and a product of matrices."""
    import tensorflow as tf

    module = tf.Module()

    def spec(name: str, kind: str, *shape: int | None) -> tf.TensorSpec:
        return tf.TensorSpec(shape, kind, name=name)

    vector = spec("x", "float32", None)
    module.half = tf.function(lambda x: {"y": 0.5 * x + 2.0}, input_signature=[vector])
    module.gather = tf.function(
        lambda words, places: {"found": tf.gather(words, places)},
        input_signature=[spec("words", "string", None), spec("places", "int32", None)],
    )
    module.product = tf.function(
        lambda a, b: {"c": tf.matmul(a, b)},
        input_signature=[spec("a", "float32", None, None), spec("b", "float32", None, 2)],
    )
    signatures = {
        "serving_default": module.half,
        "gather": module.gather,
        "product": module.product,
    }
    saved = path.with_name(f"{path.name}-saved-model")
    _save(module, saved, signatures)
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(saved), signature_keys=list(signatures)
    )
    _write_tflite(path, converter)


def tflite_without_signatures(path: Path) -> None:
    """A TF Lite model that names its tensors alone: `Identity` = 0.5 `x` + 2."""
    import tensorflow as tf

    module = tf.Module()
    spec = tf.TensorSpec([None], tf.float32, name="x")
    module.f = tf.function(lambda x: 0.5 * x + 2.0, input_signature=[spec])
    concrete = module.f.get_concrete_function()
    # Given the module as well, it would write a signature.
    _write_tflite(path, tf.lite.TFLiteConverter.from_concrete_functions([concrete]))


def tflite_with_signature_defs(path: Path) -> None:
    """That one with a SignatureDef in its metadata: `serving_default` takes `a` and answers `b`."""
    from flatbuffers import flexbuffers
    from tensorflow.core.protobuf import meta_graph_pb2
    from tensorflow.lite.tools import flatbuffer_utils

    tflite_without_signatures(path)
    definition = meta_graph_pb2.SignatureDef(method_name="tensorflow/serving/predict")
    definition.inputs["a"].name = "x:0"
    definition.outputs["b"].name = "Identity"
    for info in (definition.inputs["a"], definition.outputs["b"]):
        info.dtype = 1
        info.tensor_shape.unknown_rank = True
    odd = meta_graph_pb2.SignatureDef()
    odd.inputs["a"].name = "nowhere"
    builder = flexbuffers.Builder()
    with builder.Map():
        builder.String("odd", odd.SerializeToString().decode())
        builder.String("serving_default", definition.SerializeToString().decode())
    file = path / "model.tflite"
    model = flatbuffer_utils.read_model(str(file))
    _add_metadata(model, b"signature_defs_metadata", bytes(builder.Finish()))
    flatbuffer_utils.write_model(model, str(file))


def _add_metadata(model: Any, name: bytes, content: bytes) -> None:
    from tensorflow.lite.python import schema_py_generated as schema

    buffer, metadata = schema.BufferT(), schema.MetadataT()
    buffer.data = list(content)
    metadata.name, metadata.buffer = name, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), metadata]


def _write_tflite(path: Path, converter: object) -> None:
    path.mkdir(parents=True)
    (path / "model.tflite").write_bytes(converter.convert())


def save_tf1(path: Path, signatures: Callable[..., dict], as_text: bool = False) -> None:
    """A TensorFlow 1 export of y = 0.5 x + 2, with `signatures(x, y)` of (inputs, outputs)."""
    import tensorflow as tf

    tf1 = tf.compat.v1
    with tf.Graph().as_default(), tf1.Session() as session:
        x = tf1.placeholder(tf.float32, [None], name="x")
        a = tf1.get_variable("a", initializer=0.5)
        y = tf.add(a * x, 2.0, name="y")
        session.run(tf1.global_variables_initializer())

        def infos(tensors: dict) -> dict:
            build = tf1.saved_model.build_tensor_info
            return {k: build(t) if hasattr(t, "op") else t for k, t in tensors.items()}

        made = {
            name: tf1.saved_model.build_signature_def(
                infos(inputs), infos(outputs), "tensorflow/serving/predict"
            )
            for name, (inputs, outputs) in signatures(x, y).items()
        }
        builder = tf1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(session, ["serve"], signature_def_map=made)
        builder.save(as_text=as_text)


def tensor_info(name: str, dtype: int = 1, **more: Any) -> Any:
    """What a signature says of a tensor; nameless ones are of a kind that `more` tells."""
    from tensorflow.core.protobuf import meta_graph_pb2

    info = meta_graph_pb2.TensorInfo(dtype=dtype, **more)
    info.tensor_shape.unknown_rank = True
    if name:
        info.name = name
    return info


def copy_version(source: Path, target: Path) -> None:
    """Copy a version beside its place, then rename it in: as a careful publisher does."""
    staging = target.with_name(f".staging-{target.name}")
    shutil.copytree(source, staging)
    staging.rename(target)
