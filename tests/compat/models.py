"""SavedModels of every kind, small; each is called with five shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from servingd.core.types import DataType
from servingd.servables.saved_model.files.completeness import table_entries
from tests import exports
from tests.tables import SNAPPY, table

Shapes = tuple[tuple[int, ...], ...]

VECTORS: Shapes = ((1,), (3,), (0,), (2, 1), ())
"""One, several and no rows, another rank, and none."""
MATRICES: Shapes = ((1, 3), (4, 3), (0, 3), (2, 2), (3,))
"""With a width of three: the last two do not fit."""
TEXTS: Shapes = ((1,), (2,), (0,), (2, 2), ())


@dataclass(frozen=True)
class Differs:
    """Something that is not as in TensorFlow, by intention."""

    how: str
    """`answered` (TensorFlow refuses), `unimplemented` (our code and text for what it answers or
    refuses in words of its own)."""
    why: str
    outputs: tuple[str, ...] = ()
    """Only calls that want one of these; empty: all calls."""


@dataclass(frozen=True)
class Model:
    """One export, and what it is called with."""

    name: str
    export: Callable[[Path], None]
    shapes: Shapes = VECTORS
    tags: tuple[str, ...] = ("serve",)
    words: tuple[bytes, ...] = (b"cat", b"dog", b"", b"bird")
    """What strings are made of."""
    calls: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Signatures, and which outputs of them; empty: all of all."""
    differs: Differs | None = None
    """How we knowingly differ."""


def tf1(build: Callable[[Any], Any], initialise: bool = False, **more: Any) -> Any:
    """An export by TensorFlow 1's builder of the signatures that `build(tf)` makes.

    A signature is a pair of inputs and outputs: tensors, or what a signature says of one.
    """

    def export(path: Path) -> None:
        import tensorflow as tf

        v1 = tf.compat.v1
        with tf.Graph().as_default(), v1.Session() as session:
            signatures = {
                name: v1.saved_model.build_signature_def(
                    _infos(inputs), _infos(outputs), "tensorflow/serving/predict"
                )
                for name, (inputs, outputs) in build(tf).items()
            }
            session.run([v1.global_variables_initializer(), v1.tables_initializer()])
            builder = v1.saved_model.Builder(str(path))
            made = {key: value(tf) if callable(value) else value for key, value in more.items()}
            builder.add_meta_graph_and_variables(
                session, ["serve"], signature_def_map=signatures, **made
            )
            builder.save()

    return export


def _infos(tensors: dict[str, Any]) -> dict[str, Any]:
    import tensorflow as tf

    build = tf.compat.v1.saved_model.build_tensor_info
    return {
        alias: build(t) if not hasattr(t, "SerializeToString") else t
        for alias, t in tensors.items()
    }


def _placed(tf: Any, dtype: Any = "float32", shape: Any = (None,), name: str = "x") -> Any:
    return tf.compat.v1.placeholder(dtype, shape, name=name)


QUANTISED = Differs(
    "unimplemented", "what is quantised has no form in JSON and numpy, and no client (DESIGN 050)"
)
PARTS = "a tensor without one name cannot be fetched: we say of which kind it is (DESIGN 050)"
HANDLES = "a handle means nothing outside of its process (DESIGN 050)"
GIVEN_BACK = "an input that is an output is answered (DESIGN 050)"
AS_OBJECT = "where no session can run it, it runs as an object, which fills tables (DESIGN 051)"
KERAS = "its variables are restored by their places in the object graph (DESIGN 051)"


def of_type(name: str) -> Model:
    """Hands its input through an operation."""

    def build(tf: Any) -> Any:
        x = _placed(tf, getattr(tf, name), None)
        return {"serving_default": ({"x": x}, {"y": tf.identity(x)})}

    odd = name.startswith("q")
    return Model(f"type_{name}", tf1(build), differs=QUANTISED if odd else None)


def by_function(
    function: Callable[[Any, Any], Any],
    shape: Any = (None,),
    dtype: str = "float32",
    variables: bool = True,
) -> Callable[[Path], None]:
    """A TensorFlow 2 export of `function(x, variable)`, which answers a dictionary."""

    def export(path: Path) -> None:
        import tensorflow as tf

        module = tf.Module()
        module.v = tf.Variable(0.5) if variables else None
        spec = tf.TensorSpec(shape, dtype, name="x")
        module.f = tf.function(lambda x: function(x, module.v), input_signature=[spec])
        tf.saved_model.save(module, str(path), signatures={"serving_default": module.f})

    return export


def edited(export: Callable[[Path], None], edit: Callable[[Path, Any], None]) -> Any:
    """An export whose SavedModel message is changed afterwards."""

    def exported(path: Path) -> None:
        from tensorflow.core.protobuf import saved_model_pb2

        export(path)
        file = path / "saved_model.pb"
        message = saved_model_pb2.SavedModel.FromString(file.read_bytes())
        edit(path, message)
        file.write_bytes(message.SerializeToString())

    return exported


half = by_function(lambda x, v: {"y": v * x + 2.0})


def _as_text(export: Callable[[Path], None]) -> Callable[[Path], None]:
    def exported(path: Path) -> None:
        from google.protobuf import text_format
        from tensorflow.core.protobuf import saved_model_pb2

        export(path)
        file = path / "saved_model.pb"
        message = saved_model_pb2.SavedModel.FromString(file.read_bytes())
        file.unlink()
        (path / "saved_model.pbtxt").write_text(text_format.MessageToString(message))

    return exported


def _compressed(export: Callable[[Path], None]) -> Callable[[Path], None]:
    def exported(path: Path) -> None:
        export(path)
        index = path / "variables" / "variables.index"
        index.write_bytes(table(list(table_entries(index.read_bytes())), kind=SNAPPY))

    return exported


def _frozen(path: Path) -> None:
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    v = tf.Variable([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    spec = tf.TensorSpec([None, 3], tf.float32, name="x")
    concrete = tf.function(lambda x: x @ v, input_signature=[spec]).get_concrete_function()
    definition = convert_variables_to_constants_v2(concrete).graph.as_graph_def()
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph, v1.Session() as session:
        tf.import_graph_def(definition, name="")
        out = graph.get_tensor_by_name([n.name for n in definition.node][-1] + ":0")
        v1.saved_model.simple_save(
            session, str(path), {"x": graph.get_tensor_by_name("x:0")}, {"y": out}
        )


def _table(tf: Any) -> Any:
    keys, values = tf.constant(["cat", "dog"]), tf.constant([7, 8], tf.int64)
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), -1)
    words = _placed(tf, "string")
    return {"serving_default": ({"words": words}, {"ids": table.lookup(words)})}


def _table_of_tensorflow_2(path: Path) -> None:
    import tensorflow as tf

    vocabulary = path.parent / f"words-{path.name}.txt"
    vocabulary.write_text("cat\ndog\n")
    module = tf.Module()
    module.table = tf.lookup.StaticVocabularyTable(
        tf.lookup.TextFileInitializer(
            str(vocabulary),
            tf.string,
            tf.lookup.TextFileIndex.WHOLE_LINE,
            tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        ),
        1,
    )
    spec = tf.TensorSpec([None], tf.string, name="words")
    module.f = tf.function(lambda words: {"ids": module.table.lookup(words)}, [spec])
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.f})
    vocabulary.unlink()  # the copy in the assets is what is read


def _several_tags(path: Path) -> None:
    import tensorflow as tf

    v1 = tf.compat.v1
    builder = v1.saved_model.Builder(str(path))
    for index, tags in enumerate((["train"], ["serve", "gpu"], ["serve"])):
        with tf.Graph().as_default(), v1.Session() as session:
            x = _placed(tf)
            a = v1.get_variable("a", initializer=0.5)
            y = a * x + float(index)
            session.run(v1.global_variables_initializer())
            signature = v1.saved_model.predict_signature_def({"x": x}, {"y": y})
            made = {"serving_default": signature}
            if index == 0:
                builder.add_meta_graph_and_variables(session, tags, signature_def_map=made)
            else:
                builder.add_meta_graph(tags, signature_def_map=made)
    builder.save()


def _half_of(tf: Any, x: Any) -> Any:
    return tf.compat.v1.get_variable("a", initializer=0.5) * x + 2.0


def _passthrough(tf: Any) -> Any:
    x = _placed(tf)
    return {"serving_default": ({"x": x}, {"y": _half_of(tf, x), "key": x})}


def _two_outputs(tf: Any) -> Any:
    """`good` does not need what `bad` asserts."""
    x = _placed(tf)
    with tf.control_dependencies([tf.compat.v1.assert_less(x, -1e9, message="never true")]):
        bad = tf.identity(x)
    return {"serving_default": ({"x": x}, {"good": x + 1.0, "bad": bad})}


def _sparse(tf: Any) -> Any:
    sparse = tf.compat.v1.sparse_placeholder(tf.float32, [None, 4], name="s")
    x = _placed(tf)
    dense = tf.sparse.reduce_sum(sparse, 1)
    return {
        "serving_default": ({"x": x}, {"y": x + 1.0, "s": sparse}),
        "sparse_in": ({"s": sparse}, {"y": dense}),
        "parts": (
            {"i": sparse.indices, "v": sparse.values, "d": sparse.dense_shape},
            {"y": dense},
        ),
    }


def _ragged(tf: Any) -> Any:
    x = _placed(tf)
    ragged = tf.RaggedTensor.from_row_lengths(x, tf.expand_dims(tf.size(x), 0))
    return {"serving_default": ({"x": x}, {"y": x + 1.0, "r": ragged})}


def _handles(tf: Any) -> Any:
    x = _placed(tf)
    v = tf.compat.v1.get_variable("h", initializer=1.0, use_resource=True)
    variant = tf.raw_ops.TensorListReserve(
        element_shape=[1], num_elements=2, element_dtype=tf.float32
    )
    return {"serving_default": ({"x": x}, {"y": x + v, "resource": v.handle, "variant": variant})}


def _signatures(tf: Any) -> Any:
    x = _placed(tf)
    y = _half_of(tf, x)
    info = exports.tensor_info("gone:0")
    return {
        "serving_default": ({"x": x}, {"y": y}),
        "other": ({"x": x}, {"z": y * 2.0}),
        "nowhere": ({"x": x}, {"y": info}),
        "from_nowhere": ({"x": info}, {"y": y}),
        "twice": ({"x": x, "again": x}, {"y": y}),
        "bare": ({"x": exports.tensor_info("x")}, {"y": exports.tensor_info(y.op.name)}),
        "no_such_output": ({"x": x}, {"y": exports.tensor_info(f"{y.op.name}:7")}),
        "wrong_type": ({"x": exports.tensor_info("x:0", 9)}, {"y": y}),
    }


def _only_nowhere(tf: Any) -> Any:
    return {"serving_default": ({"x": _placed(tf)}, {"y": exports.tensor_info("gone:0")})}


def _reference(tf: Any) -> Any:
    """An output that is an old variable itself: of the type float_ref."""
    x = _placed(tf)
    v = tf.compat.v1.Variable([1.0, 2.0], use_resource=False)
    return {"serving_default": ({"x": x}, {"y": x * v[0], "v": v._variable})}


def _examples(tf: Any) -> Any:
    serialized = _placed(tf, "string")
    feature = tf.io.FixedLenFeature([1], tf.float32, default_value=[3.0])
    parsed = tf.io.parse_example(serialized, {"f": feature})
    return {"serving_default": ({"examples": serialized}, {"y": parsed["f"] * 0.5})}


def _python(tf: Any) -> Any:
    x = _placed(tf)
    y = tf.numpy_function(lambda a: a, [x], tf.float32)
    return {"serving_default": ({"x": x}, {"y": y}), "plain": ({"x": x}, {"z": x + 1.0})}


def _default_input(path: Path, message: Any) -> None:
    import tensorflow as tf

    definition = message.meta_graphs[0].signature_def["serving_default"]
    definition.defaults["x"].CopyFrom(tf.make_tensor_proto([4.0, 5.0]))


def _partitioned(tf: Any) -> Any:
    x = _placed(tf, "float32", [None, 3])
    v1 = tf.compat.v1
    with v1.variable_scope("p", partitioner=v1.fixed_size_partitioner(3)):
        w = v1.get_variable("w", [3, 2], initializer=v1.ones_initializer())
    return {"serving_default": ({"x": x}, {"y": tf.matmul(x, tf.convert_to_tensor(w))})}


def _keras_jit(save: str) -> Callable[[Path], None]:
    def export(path: Path) -> None:
        import keras
        import tensorflow as tf

        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="relu")])
        model.compile(optimizer="sgd", loss="mse", jit_compile=True)
        if save == "export":
            model.export(str(path), verbose=False)
        else:
            tf.saved_model.save(model, str(path))

    return export


def keras_compiled(path: Path) -> None:
    """A Keras 3 model whose signature is compiled by XLA, as `jit_compile=True` has it."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="relu")])
    spec = tf.TensorSpec([None, 3], tf.float32, name="x")
    function = tf.function(lambda x: {"y": model(x)}, [spec], jit_compile=True)
    tf.saved_model.save(model, str(path), signatures={"serving_default": function})


def _loop(x: Any, v: Any) -> Any:
    import tensorflow as tf

    found = tf.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y * v + 1.0), [0, x])
    return {"y": found[1]}


def _branch(x: Any, v: Any) -> Any:
    import tensorflow as tf

    return {"y": tf.cond(tf.size(x) > 2, lambda: x * v, lambda: x - v)}


def _count(x: Any, v: Any) -> Any:
    return {"total": v.assign_add(1.0) + 0.0 * x}


def _asserts(x: Any, v: Any) -> Any:
    import tensorflow as tf

    with tf.control_dependencies([tf.debugging.assert_equal(tf.rank(x), 1, "of rank 1, please")]):
        return {"y": x * v}


def _words(x: Any, v: Any) -> Any:
    import tensorflow as tf

    return {"y": tf.strings.join([x, "!"]), "n": tf.strings.length(x)}


NAMES = [
    "float32",
    "float64",
    "float16",
    "bfloat16",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
    "complex64",
    "complex128",
    "string",
    "qint8",
    "quint8",
    "qint16",
    "quint16",
    "qint32",
]

MODELS = [
    *(of_type(name) for name in NAMES),
    Model("half_of_tensorflow_2", half),
    Model(
        "half_of_tensorflow_1",
        tf1(lambda tf: {"serving_default": ({"x": (x := _placed(tf))}, {"y": _half_of(tf, x)})}),
    ),
    Model("no_variables", by_function(lambda x, v: {"y": x + 1.0}, variables=False)),
    Model(
        "no_variables_folder",
        tf1(lambda tf: {"serving_default": ({"x": (x := _placed(tf))}, {"y": x * 2.0})}),
    ),
    Model("graph_as_text", _as_text(half)),
    Model(
        "table_as_text",
        _as_text(tf1(_table, main_op=lambda tf: tf.compat.v1.tables_initializer())),
        TEXTS,
    ),
    Model("compressed_index", _compressed(half)),
    Model("compressed_index_as_text", _as_text(_compressed(half))),
    Model("column", lambda path: exports.half_of_shape(path, [None, 1])),
    Model("single", lambda path: exports.half_of_shape(path, [1])),
    Model("scalar", lambda path: exports.half_of_shape(path, [])),
    Model("unknown_rank", by_function(lambda x, v: {"y": v * x}, None)),
    Model("matrix", exports.weighted, MATRICES),
    Model("frozen", _frozen, MATRICES),
    Model("partitioned", tf1(_partitioned), MATRICES),
    Model(
        "table_by_main_op", tf1(_table, main_op=lambda tf: tf.compat.v1.tables_initializer()), TEXTS
    ),
    Model(
        "table_by_legacy_init_op",
        tf1(_table, legacy_init_op=lambda tf: tf.compat.v1.tables_initializer()),
        TEXTS,
    ),
    Model("table_by_no_op", tf1(_table), TEXTS, differs=Differs("answered", AS_OBJECT)),
    Model("table_from_asset", exports.tf1_with_table, TEXTS),
    Model("table_of_tensorflow_2", _table_of_tensorflow_2, TEXTS),
    Model("tags_serve", _several_tags),
    Model("tags_serve_gpu", _several_tags, tags=("gpu", "serve")),
    Model("tags_train", _several_tags, tags=("train",)),
    Model("signatures", tf1(_signatures)),
    Model("no_signature_that_runs", tf1(_only_nowhere)),
    Model("no_signature", tf1(lambda tf: {"": ({}, {})} if _placed(tf) is None else {})),
    Model(
        "passthrough",
        tf1(_passthrough),
        calls=(("serving_default", ("y", "key")), ("serving_default", ("y",))),
        differs=Differs("answered", GIVEN_BACK, ("key",)),
    ),
    Model(
        "partial_run",
        tf1(_two_outputs),
        calls=(("serving_default", ("good", "bad")), ("serving_default", ("good",))),
    ),
    Model(
        "sparse",
        tf1(_sparse),
        calls=(("serving_default", ("y",)), ("serving_default", ("s",)), ("parts", ("y",))),
        differs=Differs("unimplemented", PARTS, ("s",)),
    ),
    Model(
        "ragged",
        tf1(_ragged),
        calls=(("serving_default", ("y",)), ("serving_default", ("r",))),
        differs=Differs("unimplemented", PARTS, ("r",)),
    ),
    Model(
        "handles",
        tf1(_handles),
        calls=tuple(("serving_default", (o,)) for o in ("y", "resource", "variant")),
        differs=Differs("unimplemented", HANDLES, ("resource", "variant")),
    ),
    Model("reference_variable", tf1(_reference)),
    Model("examples", tf1(_examples), TEXTS, words=(b"", b"\x0a\x00")),
    Model("bad_examples", tf1(_examples), TEXTS, words=(b"no example",)),
    Model("python_function", tf1(_python), calls=(("plain", ("z",)),)),
    Model("default_input", edited(half, _default_input)),
    Model("loop", by_function(_loop)),
    Model("branch", by_function(_branch)),
    Model("assertion", by_function(_asserts)),
    Model("words", by_function(_words, dtype="string"), TEXTS),
    Model("state", by_function(_count)),
    Model(
        "keras_exported",
        exports.keras_exported,
        ((1, 8, 8, 1), (3, 8, 8, 1), (0, 8, 8, 1), (2, 4, 4, 1), (2, 8, 8, 2)),
    ),
    Model("keras_jit_exported", _keras_jit("export"), MATRICES),
    Model(
        "keras_saved",
        exports.keras_saved_plainly,
        ((1, 4), (3, 4), (0, 4), (2, 4), (5, 4)),
        differs=Differs("answered", KERAS),
    ),
    Model(
        "keras_jit_saved",
        _keras_jit("save"),
        ((1, 3), (3, 3), (0, 3), (2, 3), (5, 3)),
        differs=Differs("answered", KERAS),
    ),
    Model(
        "keras_compiled",
        keras_compiled,
        ((1, 3), (3, 3), (4, 3), (2, 3), (5, 3)),
        differs=Differs("answered", KERAS),
    ),
]


def inputs_for(model: Model, signature: Any, shape: tuple[int, ...], seed: int) -> dict[str, Any]:
    """Inputs of this shape for all that a signature takes."""
    rng = np.random.default_rng(seed)
    return {
        alias: _values(model, spec.data_type, shape, rng)
        for alias, spec in signature.inputs.items()
    }


def _values(model: Model, kind: DataType, shape: tuple[int, ...], rng: Any) -> Any:
    import tensorflow as tf

    if kind is DataType.STRING:
        found = np.empty(shape, object)
        found[...] = rng.choice(np.array(model.words, object), shape)
        return found
    dtype = tf.as_dtype(int(kind)).as_numpy_dtype
    numbers = rng.integers(0, 5, shape)
    return np.asarray(numbers).astype(dtype)
