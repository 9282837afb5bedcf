"""ONNX models whose calls may be merged: accepted ones against ONNX Runtime, and those refused."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servingd.servables.onnx.row_wise.analysis import why_not_row_wise
from servingd.servables.onnx.row_wise.rules import RULES
from servingd.wire.protos import OnnxModel

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

FLOAT = TensorProto.FLOAT


class Graph:
    """A graph under construction over an input x [rows, 4, 6], and one output."""

    def __init__(self, inner=(4, 6), opset: int = 17) -> None:
        self.nodes, self.constants, self.opset, self.inner = [], [], opset, inner

    def constant(self, array) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weights(self, *shape: int) -> str:
        rng = np.random.default_rng(len(self.constants))
        return self.constant(rng.normal(size=shape).astype(np.float32))

    def add(self, op: str, *inputs: str, outputs: int = 1, **attributes) -> str:
        names = [f"n{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, names[0], **attributes))
        return names[0]

    def model(self, output: str, dtype: int = FLOAT) -> bytes:
        x = helper.make_tensor_value_info("x", FLOAT, ["N", *self.inner])
        y = helper.make_tensor_value_info(output, dtype, None)
        graph = helper.make_graph(self.nodes, "g", [x], [y], self.constants)
        opsets = [helper.make_opsetid("", self.opset)]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        return made.SerializeToString()


def why_not(model: bytes) -> str:
    return why_not_row_wise(OnnxModel.FromString(model))


def assert_row_wise(model: bytes, inner: tuple[int, ...], seed: int = 0) -> None:
    """Merged and single runs of a model agree on ONNX Runtime."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(seed).normal(size=(6, *inner)).astype(np.float32) * 2
    (whole,) = session.run(None, {"x": x})
    parts = [session.run(None, {"x": x[a:b]})[0] for a, b in ((0, 1), (1, 3), (3, 6))]
    together = np.concatenate(parts)
    assert whole.shape == together.shape
    np.testing.assert_allclose(whole, together, rtol=1e-4, atol=1e-4, equal_nan=True)


@contextlib.contextmanager
def without_errors_of_onnx_runtime():
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("onnxruntime"):
            raise


def vector(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


# Accepted -----------------------------------------------------------------------------------------


def number_of_rows(g: Graph, x: str) -> str:
    """The number of rows of x as a vector, as exporters compute it."""
    shape = g.add("Shape", x)
    first = g.add("Gather", shape, g.constant(np.int64(0)), axis=0)
    return g.add("Unsqueeze", first, g.constant(np.array([0], np.int64)))


def reshape_by_shape(g: Graph, x: str) -> str:
    target = g.add("Concat", number_of_rows(g, x), g.constant(np.array([-1, 6])), axis=0)
    return g.add("Reshape", x, target)


def slice_of_shape(g: Graph, x: str) -> str:
    at = [g.constant(np.array([i], np.int64)) for i in (0, 1)]
    rows = g.add("Slice", g.add("Shape", x), at[0], at[1], at[0])
    rest = g.constant(np.array([4, 6], np.int64))
    return g.add("Add", x, g.add("ConstantOfShape", g.add("Concat", rows, rest, axis=0)))


def attention(g: Graph, x: str) -> str:
    turned = g.add("Transpose", x, perm=[0, 2, 1])
    scores = g.add("Softmax", g.add("MatMul", x, turned), axis=-1)
    return g.add("MatMul", scores, x)


def expanded(g: Graph, x: str) -> str:
    token = g.constant(np.ones((1, 1, 6), np.float32))
    sizes = g.constant(np.array([1, 6], np.int64))
    target = g.add("Concat", number_of_rows(g, x), sizes, axis=0)
    pads = g.constant(np.array([0, 0, 0, 0, 3, 0], np.int64))
    return g.add("Add", g.add("Pad", g.add("Expand", token, target), pads), x)


def convolution(g: Graph, x: str) -> str:
    lines = g.add("Conv", x, g.weights(4, 4, 3), g.weights(4), pads=[1, 1])
    scaled = [g.weights(4), g.weights(4), g.weights(4), g.constant(np.ones(4, np.float32))]
    return g.add("BatchNormalization", lines, *scaled)


def dense(g: Graph, x: str) -> str:
    flat = g.add("Flatten", x)
    made = g.add("Gemm", flat, g.weights(24, 24), g.weights(24), transB=1)
    return g.add("Reshape", made, g.constant(np.array([-1, 4, 6])))


def pooled(g: Graph, x: str) -> str:
    found = g.add("MaxPool", x, kernel_shape=[3], pads=[1, 1], strides=[1])
    return g.add("Add", found, g.add("GlobalAveragePool", x))


def embedded(g: Graph, x: str) -> str:
    places = g.add(
        "Cast", g.add("Clip", x, g.constant(np.float32(0)), g.constant(np.float32(2))), to=7
    )
    found = g.add("Gather", g.weights(3, 2), places)
    return g.add("ReduceSum", found, g.constant(np.array([-1])), keepdims=0)


def largest(g: Graph, x: str) -> str:
    places = g.add("ArgMax", x, axis=2, keepdims=1)
    return g.add("Add", x, g.add("Cast", places, to=1))


def picked(g: Graph, x: str) -> str:
    order = g.constant(np.array([3, 0, 1, 2], np.int64))
    return g.add("Gather", x, order, axis=1)


def halves(g: Graph, x: str) -> str:
    first = g.add("Split", x, g.constant(np.array([3, 3], np.int64)), outputs=2, axis=2)
    return g.add("Concat", first, first, axis=2)


def unary(op: str, **attributes):
    return lambda g, x: g.add(op, x, **attributes)


def with_weights(op: str, *shape: int):
    return lambda g, x: g.add(op, x, g.weights(*shape))


def normalised(g: Graph, x: str) -> str:
    return g.add("LayerNormalization", x, g.weights(6), g.weights(6), axis=-1)


def centred(g: Graph, x: str) -> str:
    return g.add("Sub", x, g.add("ReduceMean", x, axes=[1]))


def kept(g: Graph, x: str) -> str:
    limit = g.add("Greater", x, g.constant(np.float32(0)))
    return g.add("Where", limit, x, g.weights(6))


def summed(g: Graph, x: str) -> str:
    return g.add("CumSum", x, g.constant(np.int64(1)))


def sorted_rows(g: Graph, x: str) -> str:
    return g.add("TopK", x, g.constant(np.array([6], np.int64)), outputs=2, axis=-1)


def squeezed(g: Graph, x: str) -> str:
    axes = g.constant(np.array([1], np.int64))
    return g.add("Squeeze", g.add("Unsqueeze", x, axes), axes)


def cut(g: Graph, x: str) -> str:
    one, two = (g.constant(np.array([i], np.int64)) for i in (1, 2))
    part = g.add("Slice", x, one, two, two)
    return g.add("Mul", x, part)


STEPS = {
    "add a vector": with_weights("Add", 6),
    "add a matrix": with_weights("Mul", 4, 6),
    "multiply matrices": with_weights("MatMul", 6, 6),
    "relu": unary("Relu"),
    "softmax": unary("Softmax", axis=1),
    "tanh": unary("Tanh"),
    "reshape by a shape": reshape_by_shape,
    "a constant of a shape": slice_of_shape,
    "attention": attention,
    "expand": expanded,
    "convolution": convolution,
    "dense": dense,
    "pools": pooled,
    "embedding": embedded,
    "arg max": largest,
    "gather": picked,
    "split": halves,
    "layer norm": normalised,
    "mean of a row": centred,
    "where": kept,
    "cumulated": summed,
    "top k": sorted_rows,
    "squeeze": squeezed,
    "slice": cut,
}
"""Each takes [rows, 4, 6] and gives the same."""


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_works_row_by_row_is_accepted(step):
    g = Graph()
    model = g.model(STEPS[step](g, "x"))
    assert why_not(model) == ""
    assert_row_wise(model, g.inner)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(sorted(STEPS)), min_size=2, max_size=7), st.integers(0, 99))
def test_models_of_such_steps_are_accepted_and_answer_each_row_by_itself(steps, seed):
    g, at = Graph(), "x"
    for step in steps:
        at = STEPS[step](g, at)
    model = g.model(at)
    assert why_not(model) == ""
    assert_row_wise(model, g.inner, seed)


# Anything may be tried: what is accepted must be right --------------------------------------------

AXES = st.integers(-3, 2)
TARGETS = st.lists(st.sampled_from([0, -1, 1, 2, 4, 6, 24]), min_size=1, max_size=4)


def expand_to(g: Graph, at: str, target: list[int]) -> str:
    sizes = g.constant(np.abs(np.array(target[1:], np.int64)))
    return g.add("Expand", at, g.add("Concat", number_of_rows(g, "x"), sizes, axis=0))


def gather_along(g: Graph, at: str, axis: int) -> str:
    return g.add("Gather", at, g.constant(np.array([0, 0], np.int64)), axis=axis)


ANYTHING = {
    "softmax": (AXES, lambda g, at, axis: g.add("Softmax", at, axis=axis)),
    "hardmax": (AXES, lambda g, at, axis: g.add("Hardmax", at, axis=axis)),
    "arg max": (AXES, lambda g, at, axis: g.add("Cast", g.add("ArgMax", at, axis=axis), to=1)),
    "cumulate": (AXES, lambda g, at, axis: g.add("CumSum", at, g.constant(np.int64(axis)))),
    "reduce": (
        st.lists(AXES, min_size=1, max_size=2, unique=True),
        lambda g, at, axes: g.add("ReduceMax", at, axes=axes, keepdims=axes[0] % 2),
    ),
    "turn": (st.permutations([0, 1, 2]), lambda g, at, to: g.add("Transpose", at, perm=to)),
    "reshape": (TARGETS, lambda g, at, to: g.add("Reshape", at, g.constant(vector(*to)))),
    "concat": (AXES, lambda g, at, axis: g.add("Concat", at, at, axis=axis)),
    "flatten": (AXES, lambda g, at, axis: g.add("Flatten", at, axis=axis)),
    "gather": (AXES, gather_along),
    "unsqueeze": (AXES, lambda g, at, axis: g.add("Unsqueeze", at, g.constant(vector(axis)))),
    "tile": (
        st.lists(st.integers(1, 2), min_size=3, max_size=3),
        lambda g, at, times: g.add("Tile", at, g.constant(vector(*times))),
    ),
    "add": (
        st.sampled_from([(1,), (6,), (4, 1), (1, 4, 6), (2, 1, 1), (1, 1)]),
        lambda g, at, shape: g.add("Add", at, g.weights(*shape)),
    ),
    "matmul": (
        st.sampled_from([(6,), (6, 6), (1, 6, 6), (2, 6, 6), (4, 4)]),
        lambda g, at, shape: g.add("MatMul", at, g.weights(*shape)),
    ),
    "itself": (st.none(), lambda g, at, _: g.add("MatMul", at, at)),
    "expand": (TARGETS, expand_to),
}
"""What a step is drawn from, and what it does."""
ANY_STEP = st.one_of(st.tuples(st.just(name), drawn) for name, (drawn, _) in ANYTHING.items())


accepted: list[bool] = []


@settings(max_examples=300, deadline=None)
@given(st.lists(ANY_STEP, min_size=1, max_size=3), st.integers(0, 99))
def test_whatever_is_accepted_answers_each_row_by_itself(steps, seed):
    g, at = Graph(), "x"
    for name, drawn in steps:
        at = ANYTHING[name][1](g, at, drawn)
    model = g.model(at)
    reason = why_not(model)
    accepted.append(not reason)
    if not reason:
        with without_errors_of_onnx_runtime():  # it is no valid graph, alone or merged
            assert_row_wise(model, g.inner, seed)


def test_some_of_those_were_accepted_and_some_refused():
    if not accepted:
        pytest.skip("it runs after the test above")
    assert 0.05 < sum(accepted) / len(accepted) < 0.95, len(accepted)


# Refused ------------------------------------------------------------------------------------------


def batch_norm_in_training(g: Graph, x: str) -> str:
    scaled = [g.weights(4), g.weights(4), g.weights(4), g.constant(np.ones(4, np.float32))]
    return g.add("BatchNormalization", x, *scaled, outputs=3, training_mode=1)


def dropout_in_training(g: Graph, x: str) -> str:
    return g.add("Dropout", x, g.constant(np.float32(0.5)), g.constant(np.bool_(True)))


def in_a_branch(g: Graph, x: str) -> str:
    y = helper.make_tensor_value_info("y", FLOAT, None)
    same = helper.make_graph([helper.make_node("Identity", [x], ["y"])], "b", [], [y])
    largest = g.add("ReduceMax", x, keepdims=0)
    condition = g.add("Greater", largest, g.constant(np.float32(0)))
    return g.add("If", condition, then_branch=same, else_branch=same)


REFUSED = {
    "a reshape across rows": lambda g, x: g.add("Reshape", x, g.constant(vector(-1, 2, 4, 6))),
    "a reshape to all": lambda g, x: g.add("Reshape", x, g.constant(vector(-1))),
    "a reshape to a number of rows": lambda g, x: g.add("Reshape", x, g.constant(vector(6, 4, -1))),
    "a reduction over rows": lambda g, x: g.add("ReduceMean", x, axes=[0]),
    "a reduction over all": lambda g, x: g.add("ReduceMax", x, keepdims=0),
    "softmax over rows": lambda g, x: g.add("Softmax", x, axis=0),
    "softmax over rows from behind": lambda g, x: g.add("Softmax", x, axis=-3),
    "cumulated rows": lambda g, x: g.add("CumSum", x, g.constant(np.int64(0))),
    "batch norm in training": batch_norm_in_training,
    "dropout in training": dropout_in_training,
    "at random": lambda g, x: g.add("RandomNormalLike", x),
    "places of what is not zero": lambda g, x: g.add("Cast", g.add("NonZero", x), to=1),
    "the largest rows": lambda g, x: g.add("TopK", x, g.constant(vector(1)), outputs=2, axis=0),
    "another order of axes": lambda g, x: g.add("Transpose", x, perm=[1, 0, 2]),
    "chosen rows": lambda g, x: g.add("Gather", x, g.constant(vector(0)), axis=0),
    "a slice of rows": lambda g, x: g.add(
        "Slice", x, g.constant(vector(0)), g.constant(vector(1)), g.constant(vector(0))
    ),
    "more rows": lambda g, x: g.add("Pad", x, g.constant(vector(0, 0, 0, 1, 0, 0))),
    "repeated rows": lambda g, x: g.add("Tile", x, g.constant(vector(2, 1, 1))),
    "rows behind each other": lambda g, x: g.add("Concat", x, x, axis=0),
    "a bias for each place": lambda g, x: g.add("Add", x, g.weights(2, 1, 1)),
    "a dimension in front": lambda g, x: g.add("Unsqueeze", x, g.constant(vector(0))),
    "a squeeze of all": lambda g, x: g.add("Squeeze", x),
    "the number of rows": lambda g, x: g.add("Mul", x, g.add("Cast", g.add("Shape", x), to=1)),
    "rows times rows": lambda g, x: g.add(
        "MatMul", g.add("Flatten", x), g.add("Transpose", g.add("Flatten", x), perm=[1, 0])
    ),
    "rows times themselves": lambda g, x: g.add("MatMul", g.add("Flatten", x), g.add("Flatten", x)),
    "matrices by places": lambda g, x: g.add("MatMul", x, g.weights(2, 6, 6)),
    "matrices beside rows": lambda g, x: g.add("MatMul", g.add("Flatten", x), g.weights(1, 24, 6)),
    "places in the batch": lambda g, x: g.add("MaxPool", x, outputs=2, kernel_shape=[2]),
    "a branch": in_a_branch,
    "one scale for all": lambda g, x: g.add(
        "DequantizeLinear", *[g.add("DynamicQuantizeLinear", x, outputs=3)[:-1] + i for i in "012"]
    ),
    "rows at an inner place": lambda g, x: g.add(
        "Expand", g.add("ReduceMax", x, axes=[1]), g.add("Concat", number_of_rows(g, x), axis=0)
    ),
    "other rows": lambda g, x: g.add("Identity", g.weights(3, 4)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_may_mix_rows_is_refused_with_a_reason(name):
    g = Graph()
    model = g.model(REFUSED[name](g, "x"))
    onnx.load_from_string(model)
    assert why_not(model), name


def test_a_reason_names_the_node_and_what_it_does():
    g = Graph()
    at = g.add("Relu", g.add("Softmax", x := "x", axis=0))
    assert x == "x"
    assert why_not(g.model(at)) == "n0_0 (Softmax): it works along the rows"


@pytest.mark.parametrize(
    ("dims", "reason"),
    [
        ([3, 4], "its number of rows is fixed"),
        ([], "it is a scalar"),
        (None, "its rank is not known"),
        (["N", "N"], "another size is named as the rows are"),
    ],
)
def test_inputs_that_have_no_rows_are_refused(dims, reason):
    x = helper.make_tensor_value_info("x", FLOAT, dims)
    y = helper.make_tensor_value_info("y", FLOAT, None)
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    assert reason in why_not(helper.make_model(graph).SerializeToString())


def test_operators_of_other_domains_are_refused_whatever_they_are_called():
    x, y = (helper.make_tensor_value_info(n, FLOAT, ["N", 2]) for n in "xy")
    node = helper.make_node("Relu", ["x"], ["y"], domain="my.own")
    graph = helper.make_graph([node], "g", [x], [y])
    assert "no rule" in why_not(helper.make_model(graph).SerializeToString())


def test_the_table_has_operators_of_onnx_only():
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history()}
    assert RULES.keys() <= known
