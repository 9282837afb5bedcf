"""Models with tables: which the initialiser alone fills, and that these are optimised."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servingd.servables.saved_model.files.meta_graph import Initialiser, read_meta_graph
from servingd.servables.saved_model.files.static_tables import NotStatic, find_filled
from servingd.servables.saved_model.optimise.child import Declined, optimise
from servingd.servables.saved_model.session.opening import open_optimised, open_plain
from servingd.servables.saved_model.session.options import ONE_THREAD
from servingd.servables.saved_model.trials.parity import agree

pytestmark = pytest.mark.tf

TAGS = ("serve",)
WORDS = np.array([b"cat", b"dog", b"", b"bird", b"cow", b"a\0b"], object)
VOCABULARY = ["cat", "dog", "bird"]


# How models are made ----------------------------------------------------------------------------


def save(path: Path, module: Any, function: Callable, dtype: str = "string") -> None:
    """A TensorFlow 2 SavedModel of one signature: of `x`, rows of one value."""
    import tensorflow as tf

    x = tf.TensorSpec([None], dtype, name="x")
    module.f = tf.function(function, input_signature=[x])
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.f})


def save_tf1(path: Path, build: Callable, asset: Path | None = None) -> None:
    """A TensorFlow 1 SavedModel; `build(x, asset)` returns its output, and what initialises it.

    `asset` is a file, and then a tensor of its path.
    """
    import tensorflow as tf

    tf1 = tf.compat.v1
    with tf.Graph().as_default(), tf1.Session() as session:
        x = tf1.placeholder("string", [None], "x")
        path_of_asset = None
        if asset is not None:
            path_of_asset = tf.constant(str(asset), name="asset")
        y, init = build(x, path_of_asset)
        session.run(tf1.global_variables_initializer())
        builder = tf1.saved_model.Builder(str(path))
        signature = tf1.saved_model.predict_signature_def({"x": x}, {"y": y})
        builder.add_meta_graph_and_variables(
            session,
            list(TAGS),
            {"serving_default": signature},
            assets_collection=None if path_of_asset is None else [path_of_asset],
            main_op=init,
        )
        builder.save()


def vocabulary_file(folder: Path) -> Path:
    file = folder / "vocabulary.txt"
    file.write_text("\n".join(VOCABULARY) + "\n")
    return file


def raw_table(shared_name: str = "t", **attributes: Any) -> Any:
    import tensorflow as tf

    return tf.raw_ops.HashTableV2(
        key_dtype="string", value_dtype="int64", shared_name=shared_name, **attributes
    )


def found(table: Any, x: Any) -> Any:
    import tensorflow as tf

    return tf.raw_ops.LookupTableFindV2(
        table_handle=table, keys=x, default_value=tf.constant(-1, "int64")
    )


def imported(table: Any, keys: Any = VOCABULARY, values: Any = None) -> Any:
    import tensorflow as tf

    values = tf.range(3, dtype="int64") if values is None else values
    return tf.raw_ops.LookupTableImportV2(table_handle=table, keys=keys, values=values)


# What is optimised ------------------------------------------------------------------------------


def static_hash_table(path: Path, files: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    values = tf.constant([5, 6, 7], "int64")
    module.t = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(tf.constant(VOCABULARY), values), -1
    )
    module.w = tf.Variable(2.0)
    save(path, module, lambda x: {"y": tf.cast(module.t.lookup(x), "float32") * module.w})


def table_in_a_loop(path: Path, files: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.t = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(tf.constant(VOCABULARY), tf.constant([0.5, 2.5, 4.0])),
        -1.0,
    )
    module.w = tf.Variable(2.0)

    def f(x):
        def body(i, y):
            more = tf.cond(i > 1, lambda: module.t.lookup(x), lambda: tf.zeros_like(y))
            return i + 1, y * module.w + more

        return {"y": tf.while_loop(lambda i, y: i < 3, body, [0, module.t.lookup(x)])[1]}

    save(path, module, f)


def vocabulary_of_an_asset(path: Path, files: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.t = tf.lookup.StaticVocabularyTable(
        tf.lookup.TextFileInitializer(
            str(vocabulary_file(files)),
            "string",
            tf.lookup.TextFileIndex.WHOLE_LINE,
            "int64",
            tf.lookup.TextFileIndex.LINE_NUMBER,
        ),
        num_oov_buckets=4,
    )
    module.w = tf.Variable(2.0)

    def f(x):
        y = tf.cast(module.t.lookup(x), "float32") * module.w
        return {"y": y, "size": module.t.size()}

    save(path, module, f)


def exported_table(path: Path, files: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.t = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(tf.constant(VOCABULARY), tf.constant([5, 6, 7])), -1
    )

    def f(x):
        keys, _ = module.t.export()
        return {"y": module.t.lookup(x), "keys": tf.sort(tf.strings.length(keys))}

    save(path, module, f)


def asset_that_nobody_reads(path: Path, files: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.a = tf.saved_model.Asset(str(vocabulary_file(files)))
    module.w = tf.Variable(2)
    save(path, module, lambda x: {"y": module.w * tf.strings.length(x)})


def keras_layers(path: Path, files: Path) -> None:
    import keras

    text = keras.Input((), dtype="string", name="x")
    words = keras.layers.TextVectorization(
        vocabulary=str(vocabulary_file(files)), output_sequence_length=4
    )
    word = keras.layers.StringLookup(vocabulary=VOCABULARY, num_oov_indices=2)
    embedded = [
        keras.layers.Flatten()(keras.layers.Embedding(8, 3)(layer(text))) for layer in (words, word)
    ]
    y = keras.layers.Dense(2)(keras.layers.Concatenate()(embedded))
    keras.Model(text, y).export(str(path), verbose=False)


def tf1_table(path: Path, files: Path) -> None:
    import tensorflow as tf

    def build(x, asset):
        words = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                asset,
                "string",
                tf.lookup.TextFileIndex.WHOLE_LINE,
                "int64",
                tf.lookup.TextFileIndex.LINE_NUMBER,
            ),
            -1,
        )
        w = tf.compat.v1.get_variable("w", initializer=2.0)
        return tf.cast(words.lookup(x), "float32") * w, tf.compat.v1.tables_initializer()

    save_tf1(path, build, vocabulary_file(files))


def private_tables(path: Path, files: Path) -> None:
    """Two nodes without a name are two tables."""
    import tensorflow as tf

    def build(x, _):
        one, other = (raw_table("", name=name) for name in ("one", "other"))
        return found(one, x) + 10 * found(other, x), tf.group(
            imported(one), imported(other, ["dog", "cow", "x"])
        )

    save_tf1(path, build)


def old_operations(path: Path, files: Path) -> None:
    """TensorFlow before 1.0: handles were references to strings."""
    import tensorflow as tf

    def build(x, _):
        raw = tf.raw_ops
        t = raw.HashTable(key_dtype="string", value_dtype="int64", shared_name="t")
        fill = raw.InitializeTable(
            table_handle=t, keys=tf.constant(VOCABULARY), values=tf.constant([5, 6, 7], "int64")
        )
        default = tf.constant(-1, "int64")
        return raw.LookupTableFind(table_handle=t, keys=x, default_value=default), tf.group(fill)

    save_tf1(path, build)


def strings_in_a_variable(path: Path, files: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.v = tf.Variable([b"a\0\0", b"\xff\xfe", b""])
    module.n = tf.Variable(tf.constant("none"))
    chosen = lambda x: tf.gather(module.v, tf.strings.length(x) % 3)  # noqa: E731
    save(path, module, lambda x: {"y": tf.strings.join([chosen(x), module.n])})


OPTIMISED = (
    static_hash_table,
    table_in_a_loop,
    vocabulary_of_an_asset,
    exported_table,
    asset_that_nobody_reads,
    keras_layers,
    tf1_table,
    private_tables,
    old_operations,
    strings_in_a_variable,
)


def open_both(path: Path, graph_def: Any, initialiser: Initialiser, folder: Path) -> list[Any]:
    meta_graph = read_meta_graph(str(path), TAGS)
    file = folder / "graph.pb"
    file.write_bytes(graph_def.SerializeToString())
    safe_to_run = dict.fromkeys(meta_graph.signatures, True)
    return [
        open_plain(str(path), TAGS, ONE_THREAD, meta_graph, safe_to_run),
        open_optimised(str(file), str(path), initialiser, ONE_THREAD, meta_graph.signatures),
    ]


def answers(session: Any, x: np.ndarray = WORDS) -> dict[str, Any]:
    return session.calls["serving_default"].run({"x": x})


@pytest.mark.parametrize("make", OPTIMISED, ids=lambda make: make.__name__)
def test_it_is_optimised_and_answers_alike_wherever_it_lies(tmp_path, make):
    files = tmp_path / "files"
    files.mkdir()
    make(tmp_path / "model", files)
    shutil.rmtree(files)  # what it needs of them is among its assets
    graph_def, initialiser = optimise(str(tmp_path / "model"), TAGS)
    assert not {n.op for n in graph_def.node} & {"StatefulPartitionedCall", "RestoreV2"}
    moved = tmp_path / "moved"
    (tmp_path / "model").rename(moved)
    plain, optimised = open_both(moved, graph_def, initialiser, tmp_path)
    told, once, twice = answers(plain), answers(optimised), answers(optimised)
    assert agree(list(told.values()), list(once.values()))
    assert agree(list(told.values()), list(twice.values()))
    plain.close()
    optimised.close()


@pytest.mark.parametrize("make", [vocabulary_of_an_asset, tf1_table, keras_layers])
def test_a_table_is_filled_from_the_assets_of_the_version_that_is_opened(tmp_path, make):
    make(tmp_path / "model", tmp_path)
    graph_def, initialiser = optimise(str(tmp_path / "model"), TAGS)
    before = open_both(tmp_path / "model", graph_def, initialiser, tmp_path)
    assert [*initialiser.assets.values()] == ["vocabulary.txt"]
    (tmp_path / "model/assets/vocabulary.txt").write_text("cow\nbird\ncat\n")
    plain, optimised = after = open_both(tmp_path / "model", graph_def, initialiser, tmp_path)
    told = list(answers(plain).values())
    assert agree(told, list(answers(optimised).values()))
    assert not agree(told, list(answers(before[1]).values()))
    for session in (*before, *after):
        session.close()


def test_numbers_that_are_none_are_answered_as_on_the_plain_graph_or_it_is_declined(tmp_path):
    """An empty text's mean is no number; kernels differ in what they make of that."""
    import tensorflow as tf

    module = tf.Module()
    module.t = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(tf.constant(VOCABULARY), tf.constant([1, 2, 3])), 0
    )
    module.e, module.w = tf.Variable(tf.ones([4, 8])), tf.Variable(tf.ones([8, 8]))
    module.b, module.v = tf.Variable(tf.ones([8])), tf.Variable(tf.ones([8, 2]))

    def f(x):
        words = module.t.lookup(tf.strings.split(x).to_tensor())
        mean = tf.reduce_mean(tf.gather(module.e, words), 1)
        return {"y": tf.nn.relu(tf.nn.bias_add(mean @ module.w, module.b)) @ module.v}

    save(tmp_path / "model", module, f)
    try:
        graph_def, initialiser = optimise(str(tmp_path / "model"), TAGS)
    except Declined:
        return
    plain, optimised = open_both(tmp_path / "model", graph_def, initialiser, tmp_path)
    for rows in (1, 3):
        x = np.full(rows, b"", object)
        assert agree([answers(plain, x)["y"]], [answers(optimised, x)["y"]])
    plain.close()
    optimised.close()


# What is not ------------------------------------------------------------------------------------


def mutable_table(path: Path, files: Path) -> None:
    import tensorflow as tf

    def build(x, _):
        t = tf.raw_ops.MutableHashTableV2(key_dtype="string", value_dtype="int64", shared_name="t")
        return found(t, x), imported(t)

    save_tf1(path, build)


def anonymous_table(path: Path, files: Path) -> None:
    import tensorflow as tf

    def build(x, _):
        t = tf.raw_ops.AnonymousHashTable(key_dtype="string", value_dtype="int64")
        return found(t, x), tf.no_op()

    save_tf1(path, build)


def filled_by_a_signature(path: Path, files: Path) -> None:
    import tensorflow as tf

    def build(x, _):
        t = raw_table()
        with tf.control_dependencies([imported(t)]):
            return found(t, x), tf.no_op()

    save_tf1(path, build)


def filled_by_a_signature_in_a_function(path: Path, files: Path) -> None:
    import tensorflow as tf

    def build(x, _):
        t = raw_table()

        @tf.function
        def f(x):
            imported(t)
            return found(t, x)

        return f(x), tf.no_op()

    save_tf1(path, build)


def filled_twice(path: Path, files: Path) -> None:
    import tensorflow as tf

    def build(x, _):
        t = raw_table()
        return found(t, x), tf.group(imported(t), imported(t, ["cow", "dog", "x"]))

    save_tf1(path, build)


def filled_twice_by_name(path: Path, files: Path) -> None:
    """Two nodes that share a name are one table."""
    import tensorflow as tf

    def build(x, _):
        one, other = raw_table(name="one"), raw_table(name="other", container="localhost")
        return found(one, x), tf.group(imported(one), imported(other, ["cow", "dog", "x"]))

    save_tf1(path, build)


def filled_twice_by_a_function(path: Path, files: Path) -> None:
    """One import, in a function that is called twice."""
    import tensorflow as tf

    def build(x, _):
        t = raw_table()

        @tf.function(input_signature=[tf.TensorSpec([3], "string")])
        def f(keys):
            imported(t, keys)
            return 0

        return found(t, x), tf.group(f(tf.constant(VOCABULARY)), f(tf.constant(["a", "b", "c"])))

    save_tf1(path, build)


def filled_in_a_branch(path: Path, files: Path) -> None:
    import tensorflow as tf

    def build(x, _):
        tf.compat.v1.enable_control_flow_v2()
        t = raw_table()

        @tf.function
        def f(one):
            def fill(keys):
                imported(t, keys)
                return 1

            return tf.cond(one, lambda: fill(VOCABULARY), lambda: fill(["cow", "dog", "x"]))

        return found(t, x), f(tf.random.uniform([]) > 0.5).op

    save_tf1(path, build)


def filled_in_an_old_branch(path: Path, files: Path) -> None:
    import tensorflow as tf

    def build(x, _):
        t = raw_table()
        chosen = tf.raw_ops.Switch(data=tf.constant(1), pred=tf.constant(True))
        with tf.control_dependencies([tf.identity(chosen[1])]):
            return found(t, x), imported(t)

    save_tf1(path, build)


def keys_of_a_variable(path: Path, files: Path) -> None:
    import tensorflow as tf

    def build(x, _):
        t = raw_table()
        keys = tf.compat.v1.get_variable("w", initializer=VOCABULARY, use_resource=True)
        return found(t, x), imported(t, keys.read_value())

    save_tf1(path, build)


def values_at_random(path: Path, files: Path) -> None:
    import tensorflow as tf

    def build(x, _):
        t = raw_table()
        values = tf.random.uniform([3], maxval=9, dtype="int64")
        return found(t, x), imported(t, values=values)

    save_tf1(path, build)


def file_beside_an_asset(path: Path, files: Path) -> None:
    import tensorflow as tf

    def build(x, asset):
        t = raw_table()
        return found(t, x), tf.raw_ops.InitializeTableFromTextFileV2(
            table_handle=t,
            filename=tf.strings.join([asset, ""]),
            key_index=-2,
            value_index=-1,
        )

    save_tf1(path, build, vocabulary_file(files))


def file_that_is_no_asset(path: Path, files: Path) -> None:
    import tensorflow as tf

    def build(x, _):
        t = raw_table()
        return found(t, x), tf.raw_ops.InitializeTableFromTextFileV2(
            table_handle=t,
            filename=str(vocabulary_file(files)),
            key_index=-2,
            value_index=-1,
        )

    save_tf1(path, build)


def path_that_a_signature_reads(path: Path, files: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.a = tf.saved_model.Asset(str(vocabulary_file(files)))
    save(path, module, lambda x: {"y": tf.strings.join([x, tf.io.read_file(module.a)])})


def variable_set_by_the_initialiser(path: Path, files: Path) -> None:
    import tensorflow as tf

    def build(x, _):
        w = tf.compat.v1.get_variable("w", initializer=2, use_resource=True)
        return w * tf.strings.length(x), w.assign(3).op

    save_tf1(path, build)


def table_of_a_function(path: Path, files: Path) -> None:
    """Nobody knows how many tables there are."""
    import tensorflow as tf

    def build(x, _):
        @tf.function
        def f():
            imported(raw_table(""))
            return 0

        return tf.strings.length(x), tf.group(f())

    save_tf1(path, build)


def table_of_a_signatures_function(path: Path, files: Path) -> None:
    """It shares the other's name unless the function is inlined."""
    import tensorflow as tf

    def build(x, _):
        t = raw_table("", use_node_name_sharing=True, name="t")

        @tf.function
        def f(x):
            return found(raw_table("", use_node_name_sharing=True, name="t"), x)

        return f(x) + found(t, x), imported(t)

    save_tf1(path, build)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (mutable_table, "it keeps state: MutableHashTableV2"),
        (anonymous_table, "it has tables that may change: AnonymousHashTable"),
        (filled_by_a_signature, "a signature fills a table: LookupTableImportV2"),
        (filled_by_a_signature_in_a_function, "a signature fills a table: LookupTableImportV2"),
        (filled_twice, "table t is filled twice"),
        (filled_twice_by_name, "table t is filled twice"),
        (filled_twice_by_a_function, "table t is filled twice"),
        (filled_in_a_branch, "LookupTableImportV2 in a branch or a loop of the initialiser"),
        (filled_in_an_old_branch, "the initialiser has LookupTableImportV2, and branches or loops"),
        (keys_of_a_variable, "LookupTableImportV2 depends on variable w"),
        (values_at_random, "LookupTableImportV2 depends on RandomUniformInt"),
        (file_that_is_no_asset, "InitializeTableFromTextFileV2 reads a file that is no asset"),
        (file_beside_an_asset, "InitializeTableFromTextFileV2 reads a file that is no asset"),
        (path_that_a_signature_reads, "a signature reads the variable that holds an asset's path"),
        (variable_set_by_the_initialiser, "it keeps state: AssignVariableOp in the initialiser"),
        (table_of_a_function, "has no name of its own"),
        (table_of_a_signatures_function, "table t of a function has no name of its own"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_it_is_declined_with_the_reason(tmp_path, make, reason):
    make(tmp_path / "model", tmp_path)
    with pytest.raises(Declined, match=re.escape(reason)):
        optimise(str(tmp_path / "model"), TAGS)


def test_a_table_that_a_checkpoint_fills_is_not_static():
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder("string", [None])
        y = found(raw_table(), x)
        restore, init = imported(raw_table()), tf.no_op()
    roots = graph.as_graph_def(), [y.name], Initialiser(init.name)
    find_filled(*roots)
    with pytest.raises(NotStatic, match="a table is filled when variables are restored"):
        find_filled(*roots, restore.name)


def test_a_path_that_may_be_read_before_it_is_assigned_is_not_static():
    import tensorflow as tf

    raw = tf.raw_ops
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder("string", [None])
        asset = tf.constant("file", name="asset")
        v = raw.VarHandleOp(dtype="string", shape=[], shared_name="v")
        assign = raw.AssignVariableOp(resource=v, value=asset)
        reads = [raw.ReadVariableOp(resource=v, dtype="string")]
        with tf.control_dependencies([assign]):
            reads.append(raw.ReadVariableOp(resource=v, dtype="string"))
        early, late = (
            raw.InitializeTableFromTextFileV2(
                table_handle=raw_table(), filename=read, key_index=-2, value_index=-1
            )
            for read in reads
        )
        early, late = (tf.group(assign, fill) for fill in (early, late))
        y = found(raw_table(), x)
    roots, assets = (graph.as_graph_def(), [y.name]), {"asset:0": "file"}
    assert find_filled(*roots, Initialiser(late.name, assets)).assets == {"asset"}
    with pytest.raises(NotStatic, match="may be read before it is assigned"):
        find_filled(*roots, Initialiser(early.name, assets))
