"""What the analysis says of tensors is true of them: on random graphs, for every tensor."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest

from servingd.servables.saved_model.merging.row_wise.analysis import Analysis
from servingd.servables.saved_model.merging.row_wise.sizes import Size
from servingd.servables.saved_model.merging.row_wise.values import Tensor, Unknown
from servingd.servables.saved_model.trials.varied import ExampleFeature, Strings, varied_inputs
from servingd.wire import protos
from tests.tensorflow.random_graphs import INPUTS, LENGTH, Builder

pytestmark = pytest.mark.tf

GRAPHS = int(os.environ.get("SERVINGD_TEST_RANDOM_GRAPHS", "30"))
OPERATIONS = 40
FEATURES = [ExampleFeature("a", 1, 2), ExampleFeature("b", 7, 1), ExampleFeature("c", 1, None)]


def calls(signature, seed):
    """Inputs of two calls, and of both merged."""
    one, other = (
        {**varied_inputs(signature, rows, seed=7 * seed + rows)} for rows in (1 + seed % 3, 2)
    )
    for call in (one, other):
        rows = len(call["x"])
        rng = np.random.default_rng([seed, rows])
        call["y"] = rng.normal(size=(rows, LENGTH, 3)).astype(np.float32)
        examples = signature.__class__("e", {"e": signature.inputs["examples"]}, {})
        call["examples"] = varied_inputs(examples, rows, 1 + 2 * seed, Strings(FEATURES))["e"]
    both = {alias: np.concatenate([one[alias], other[alias]]) for alias in one}
    return one, other, both


def evaluated(size: Size, rows: int) -> int | None:
    """A size's number, where all that it names is known."""
    known = {"rows": rows, f"y[{1}]": LENGTH}
    total = 0
    for names, factor in size._terms.items():
        for name in names:
            if name not in known:
                return None
            factor *= known[name]  # noqa: PLW2901
        total += factor
    return total


def same(one, other) -> bool:
    one, other = np.asarray(one), np.asarray(other)
    if one.shape != other.shape:
        return False
    if one.dtype.kind not in "fc":
        return bool(np.array_equal(one, other))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one, other = one.astype(np.complex128), other.astype(np.complex128)
        scale = np.abs(one[np.isfinite(one)]).max(initial=0.0)
        return bool(np.allclose(one, other, rtol=1e-2, atol=1e-4 * scale, equal_nan=True))


def misread(value: Tensor, run, rows: int) -> str:
    """What is wrong with what is said of one run's shape and content."""
    shape = np.shape(run)
    said = list(zip(shape, value.shape or shape, strict=False)) if value.shape is not None else []
    if value.shape is not None and len(shape) != len(value.shape):
        return f"rank {len(shape)}"
    if value.content is not None:
        said += zip(np.ravel(run).tolist(), value.content.values, strict=True)
    for is_size, name in said:
        if evaluated(name, rows) not in (None, is_size):
            return f"{name} is {is_size}"
    return ""


def check(value: Tensor, runs, rows) -> str:
    """What is wrong with what is said of a tensor; empty if it is all true."""
    problems = [misread(value, run, count) for run, count in zip(runs, rows, strict=True)]
    if any(problems):
        return "; ".join(problems)
    one, other, both = runs
    if value.is_same:
        return "" if same(one, other) and same(one, both) else "it is not the same"
    if not value.is_rows:
        return ""
    try:
        return "" if same(np.concatenate([one, other], value.axis), both) else "rows differ"
    except ValueError as error:  # there is no such axis, or the parts do not fit
        return str(error)


def exactly(value: Tensor, runs) -> bool:
    """Whether rows are the same to the bit, together and apart."""
    one, other, both = map(np.asarray, runs)
    whole = np.concatenate([one, other], value.axis)
    return whole.shape == both.shape and whole.tolist() == both.tolist()


def judged(seed: int) -> tuple[int, int, list[str]]:
    """Of a random graph: tensors, those that are known, and what is said wrongly."""
    import tensorflow as tf

    builder = Builder(np.random.default_rng(seed))
    for _ in range(OPERATIONS):
        builder.grow()
    made = builder.tensors[len(INPUTS) :]
    graph = protos.Graph.FromString(builder.graph.as_graph_def().SerializeToString())
    values = Analysis(graph).values(builder.signature, [tensor.name for tensor in made])
    session = tf.compat.v1.Session(graph=builder.graph)
    inputs = calls(builder.signature, seed)
    rows = [len(each["x"]) for each in inputs]
    known, wrong, rounded = 0, [], set()
    for tensor, value in zip(made, values, strict=True):
        if not isinstance(value, Tensor):
            assert isinstance(value, Unknown)
            continue
        feeds = [{f"{a}:0": array for a, array in each.items()} for each in inputs]
        try:
            runs = [session.run(tensor, feed) for feed in feeds]
        except tf.errors.OpError:
            continue
        known += 1
        problem = check(value, runs, rows)
        sources = {source.name for source in tensor.op.inputs}
        if problem and not sources & rounded:  # a logarithm near 0 makes much of a rounding
            wrong.append(f"{seed}: {tensor.op.type} {tensor.name} {value}: {problem}")
        elif value.is_rows and (sources & rounded or problem or not exactly(value, runs)):
            rounded.add(tensor.name)
    session.close()
    return len(made), known, wrong


@pytest.mark.parametrize("part", range(4))
def test_what_is_known_of_a_tensor_is_true(part):
    tensors = known = 0
    for seed in range(part * GRAPHS // 4, (part + 1) * GRAPHS // 4):
        more, true, wrong = judged(seed)
        assert not wrong, wrong[:3]
        tensors, known = tensors + more, known + true
    assert known > 0.3 * tensors  # it is not sound by knowing nothing
