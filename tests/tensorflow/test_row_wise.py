"""What may be merged: signatures that answer rows together as they answer them apart."""

from __future__ import annotations

import pytest

from servingd.servables.saved_model.files.graph_safety import safe_signatures
from servingd.servables.saved_model.files.meta_graph import read_meta_graph
from servingd.servables.saved_model.merging.trial import (
    MAX_ROWS,
    find_mergeable,
    rows_of_one_size,
)
from servingd.servables.saved_model.session.opening import open_plain
from servingd.servables.saved_model.session.options import ONE_THREAD
from servingd.servables.saved_model.trials.varied import example_features

pytestmark = pytest.mark.tf

TAGS = ("serve",)
ROW_WISE = {"twice", "softmax_of_features", "two_inputs"}
OTHERS = {
    "softmax_of_the_batch",
    "sorted_batch",
    "sum",
    "centred",
    "fixed",
    "noise",
    "counted",
    "longer",
}


@pytest.fixture(scope="module")
def signatures(tmp_path_factory):
    """A model with one signature per way to work on rows."""
    import tensorflow as tf

    path = tmp_path_factory.mktemp("row-wise") / "1"
    module = tf.Module()
    module.calls = tf.Variable(0.0)
    rows = tf.TensorSpec([None, 3], tf.float32, name="x")
    more = tf.TensorSpec([None], tf.float32, name="z")
    exact = tf.TensorSpec([4, 3], tf.float32, name="x")

    def counted(x):
        return {"y": x + module.calls.assign_add(1.0)}

    functions = {
        "twice": (lambda x: {"y": 2.0 * x}, [rows]),
        "softmax_of_features": (lambda x: {"y": tf.nn.softmax(x)}, [rows]),
        "two_inputs": (lambda x, z: {"y": x * z[:, None], "z": z}, [rows, more]),
        "softmax_of_the_batch": (lambda x: {"y": tf.nn.softmax(x, axis=0)}, [rows]),
        "sorted_batch": (lambda x: {"y": tf.sort(x, axis=0)}, [rows]),
        "sum": (lambda x: {"y": tf.reduce_sum(x)}, [rows]),
        "centred": (lambda x: {"y": x - tf.reduce_mean(x, axis=0)}, [rows]),
        "fixed": (lambda x: {"y": x}, [exact]),
        "noise": (lambda x: {"y": x + tf.random.normal(tf.shape(x))}, [rows]),
        "counted": (counted, [rows]),
        "longer": (lambda x: {"y": tf.concat([x, x], 0)}, [rows]),
    }
    made = {
        name: tf.function(function, input_signature=specs)
        for name, (function, specs) in functions.items()
    }
    module.held = list(made.values())
    tf.saved_model.save(module, str(path), signatures=made)
    return path


def test_only_what_works_row_by_row_is_merged(signatures):
    meta_graph = read_meta_graph(str(signatures), TAGS)
    safe_to_run = safe_signatures(meta_graph.graph(), meta_graph.signatures)
    session = open_plain(str(signatures), TAGS, ONE_THREAD, meta_graph, safe_to_run)
    try:
        found = find_mergeable(session, meta_graph, safe_to_run)
    finally:
        session.close()
    assert set(meta_graph.signatures) == ROW_WISE | OTHERS
    assert set(found.rows_worth) == ROW_WISE
    assert all(1 <= rows <= MAX_ROWS for rows in found.rows_worth.values())
    assert set(found.refused) == OTHERS
    assert all(found.refused.values())


def test_what_is_known_of_its_kind_is_not_measured_but_proven(signatures):
    meta_graph = read_meta_graph(str(signatures), TAGS)
    safe_to_run = safe_signatures(meta_graph.graph(), meta_graph.signatures)
    session = open_plain(str(signatures), TAGS, ONE_THREAD, meta_graph, safe_to_run)
    try:
        known = dict.fromkeys(meta_graph.signatures, 3)  # no power of two is ever measured so
        found = find_mergeable(session, meta_graph, safe_to_run, known).rows_worth
    finally:
        session.close()
    assert found == dict.fromkeys(ROW_WISE, 3)


def test_what_cannot_be_run_is_not_merged(models):
    meta_graph = read_meta_graph(str(models / "counter"), TAGS)
    session = open_plain(
        str(models / "counter"),
        TAGS,
        ONE_THREAD,
        meta_graph,
        safe_signatures(meta_graph.graph(), meta_graph.signatures),
    )
    try:
        nothing = dict.fromkeys(meta_graph.signatures, False)
        found = find_mergeable(session, meta_graph, nothing)
        assert found.rows_worth == {}
        assert set(found.refused) == set(meta_graph.signatures)
    finally:
        session.close()


@pytest.mark.parametrize(
    ("kind", "of_one_size"),
    [
        ("column", True),
        ("open", False),
        ("length of texts", True),
        ("words of texts", False),
        ("dense examples", True),
        ("sparse examples", False),
    ],
)
def test_batches_beyond_64_rows_need_rows_of_one_size(kind, of_one_size, tmp_path):
    """A row that grows with its content could take any memory in a batch of 512."""
    import tensorflow as tf

    text = tf.TensorSpec([None], tf.string, name="t")
    dense = {"f": tf.io.FixedLenFeature([2], tf.float32)}
    sparse = {"f": tf.io.VarLenFeature(tf.float32)}
    function, spec = {
        "column": (tf.tanh, tf.TensorSpec([None, 1], tf.float32, name="x")),
        "open": (tf.tanh, tf.TensorSpec([None, None], tf.float32, name="x")),
        "length of texts": (tf.strings.length, text),
        "words of texts": (lambda t: tf.strings.split(t).to_tensor(), text),
        "dense examples": (lambda t: tf.io.parse_example(t, dense)["f"], text),
        "sparse examples": (
            lambda t: tf.sparse.to_dense(tf.io.parse_example(t, sparse)["f"]),
            text,
        ),
    }[kind]
    module = tf.Module()
    module.served = tf.function(lambda t: {"y": function(t)}, input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path), signatures=module.served)
    meta_graph = read_meta_graph(str(tmp_path), TAGS)
    graph, signature = meta_graph.graph(), meta_graph.signatures["serving_default"]
    assert rows_of_one_size(graph, signature, example_features(graph)) is of_one_size
