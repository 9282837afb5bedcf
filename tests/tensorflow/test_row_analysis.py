"""The analysis of rows is sound: whatever it lets through answers each row as it would alone."""

from __future__ import annotations

import ast
import functools
import inspect
from pathlib import Path

import numpy as np
import pytest

from servingd.core.batching.merge import merge
from servingd.servables.saved_model.merging.row_wise import analysis
from servingd.servables.saved_model.merging.row_wise.rules import RULES
from servingd.servables.saved_model.merging.row_wise.values import Reason
from servingd.servables.saved_model.trials.parity import agree
from servingd.servables.saved_model.trials.varied import SEEDS, strings_of, varied_inputs
from tests.tensorflow.mixers import MIXERS, MORE
from tests.tensorflow.traced import Traced

pytestmark = pytest.mark.tf

SIZES = ((1, 1), (2, 1), (2, 3), (2, 4))


@functools.cache
def traced(name):
    mixer = MIXERS[name]
    return Traced(mixer.build, mixer.inputs)


def differs(function: Traced) -> bool:
    """Whether calls that are merged are answered otherwise than alone, or their answer spoilt."""
    strings = strings_of(function.graph)
    for seed in range(2 * SEEDS):
        for sizes in SIZES:
            calls = [
                varied_inputs(function.signature, rows, 7 * seed + i, strings)
                for i, rows in enumerate(sizes)
            ]
            calls = [
                {a: v[..., :4] if v.ndim == 3 else v for a, v in call.items()} for call in calls
            ]
            try:
                together = function.run(merge(calls).inputs)
            except Exception:  # then each runs by itself
                continue
            try:
                alone = [function.run(call) for call in calls]
            except Exception:  # an answer in the place of an error
                return True
            if together.ndim == 0 or together.shape[0] != sum(sizes):
                return True
            own = np.split(together, [sizes[0]])
            if not all(agree([a], [b]) for a, b in zip(alone, own, strict=True)):
                return True
    return False


@pytest.mark.parametrize("name", MIXERS)
def test_a_lock_keeps_out_what_mixes_rows_and_says_why(name):
    mixer, function = MIXERS[name], traced(name)
    verdict = analysis.Analysis(function.graph, mixer.also).verdict(function.signature)
    assert not verdict.row_wise
    assert f"({mixer.operation}): {mixer.reason.value}" in verdict.reason


@pytest.mark.parametrize("name", MIXERS)
def test_without_its_lock_it_would_be_merged(name):
    mixer, function = MIXERS[name], traced(name)
    left_out = {(mixer.operation, mixer.reason), *mixer.also}
    verdict = analysis.Analysis(function.graph, left_out).verdict(function.signature)
    assert verdict.row_wise, verdict.reason


@pytest.mark.parametrize("name", MIXERS)
def test_and_would_give_wrong_answers(name):
    assert differs(traced(name))


@pytest.mark.parametrize("name", MORE)
def test_what_mixes_rows_in_other_ways_is_refused(name):
    function = Traced(*MORE[name])
    verdict = analysis.Analysis(function.graph).verdict(function.signature)
    assert not verdict.row_wise
    assert verdict.reason
    assert differs(function)


# Every lock -----------------------------------------------------------------------------------

KNOWS_TOO_LITTLE = {Reason.NOT_CONSTANT, Reason.NO_SHAPE, Reason.NO_RULE, Reason.TOO_LARGE}
"""Locks that say nothing of rows: what the analysis cannot follow."""

PART_OF = {
    "_common_axis": "_broadcast",
    "_aligned": "_concat",
    "_first_is_rows": "_pool",
    "_gathered": "_gather",
    "_axis_of_batched": "_gather",
    "_axis_of_product": "_product",
    "_cut": "_strided_slice",
    "_reshaped_rows": "_reshape",
    "apply_rule": "_broadcast",
    "_branch": "StatelessIf",
    "_loop": "StatelessWhile",
    "_check_asserts": "If",
}
"""What helpers' locks belong to."""

OF_PARAMETERS = {
    # Rows as a parameter. It would have as many entries as there are rows, or be a scalar, which
    # rows never are: TensorFlow refuses it, but for one number of rows.
    ("_batch_norm", Reason.MISALIGNED),
    ("_bias", Reason.MISALIGNED),
    ("_broadcast_to", Reason.MISALIGNED),
    ("_count_in_rows", Reason.DATA_SIZED),
    ("_count_in_rows", Reason.MISALIGNED),
    ("_fill", Reason.MISALIGNED),
    ("_find", Reason.MISALIGNED),
    ("_get_item", Reason.PICKED),
    ("_list_of_rows", Reason.DATA_SIZED),
    ("_new_list", Reason.DATA_SIZED),
    ("_one_hot", Reason.MISALIGNED),
    ("_pad", Reason.MISALIGNED),
    ("_parse_examples", Reason.MISALIGNED),
    ("_reshape", Reason.DATA_SIZED),
    ("_resize", Reason.DATA_SIZED),
    ("_select", Reason.MISALIGNED),
    ("_set_item", Reason.PICKED),
    ("_slice", Reason.DATA_SIZED),
    ("_stack", Reason.DATA_SIZED),
    ("_strided_slice", Reason.DATA_SIZED),
    ("switch_or_merge", Reason.DECIDED),
    ("_top_k", Reason.DATA_SIZED),
    ("_transposed_convolution", Reason.CONTRACTED),
    ("_transposed_convolution", Reason.MISALIGNED),
    ("_transposed_convolution", Reason.WINDOWED),
    ("_unpack", Reason.JOINED),
    ("_within_matrices", Reason.DATA_SIZED),
    # The number of rows as a parameter: what comes of it is refused a second time where it meets
    # rows, as `MORE` shows.
    ("_broadcast_to", Reason.COUNTED),
    ("_concat", Reason.COUNTED),
    ("_gather", Reason.COUNTED),
    ("_join_tensors", Reason.COUNTED),
    ("_made_rows", Reason.COUNTED),
    ("_new_list", Reason.COUNTED),
    ("_pack", Reason.COUNTED),
    ("_range", Reason.COUNTED),
    ("_reduce", Reason.COUNTED),
    ("_reshape", Reason.COUNTED),
    ("_set_item", Reason.COUNTED),
    ("_solved", Reason.COUNTED),
    ("_transpose", Reason.COUNTED),
    ("_transposed_convolution", Reason.COUNTED),
    ("_unary", Reason.COUNTED),
    ("_unpack", Reason.COUNTED),
    # Values that are unknown without a lock: an output that is one is refused.
    ("_join_tensors", Reason.DECIDED),
    ("_lookup", Reason.CYCLE),
    ("_parse_examples", Reason.DATA_SIZED),
    ("output_refusal", Reason.FIXED),
}
"""Locks that no graph shows alone."""


def locks() -> set[tuple[str, Reason]]:
    """Each condition in a rule's code, by the rule that it belongs to."""
    found = set()
    for path in Path(inspect.getfile(analysis)).parent.glob("*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef):
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "Reason":
                    found.add((PART_OF.get(function.name, function.name), Reason[node.attr]))
    return {lock for lock in found if lock[1] not in KNOWS_TOO_LITTLE}


def test_every_lock_is_shown_to_be_needed():
    shown = set()
    for mixer in MIXERS.values():
        rule = RULES.get(mixer.operation)
        shown.add((rule.__name__ if rule else mixer.operation, mixer.reason))
    assert locks() - shown == {lock for lock in OF_PARAMETERS if lock not in shown}


def test_what_is_asserted_of_each_row_keeps_nothing_out():
    import tensorflow as tf

    def checked(x):
        of_each = tf.debugging.assert_less(x, 1e9)
        of_shapes = tf.debugging.assert_equal(tf.shape(x)[0], tf.shape(x * 2.0)[0])
        with tf.control_dependencies([of_each, of_shapes]):
            return x * 2.0

    function = Traced(checked, (("float32", None, 4),))
    assert analysis.Analysis(function.graph).verdict(function.signature).row_wise
