"""The table: what each operation does to rows, and why that is so.

A rule takes an operation and what is known of its inputs, and says what is known of its outputs.
It raises `Mixing` where the operation may mix rows, or where that cannot be told. None of its
inputs is unknown: the analysis sees to that. An operation that is in no table is unknown, always.

To add a rule, show three things: that each row of the output depends on its own row alone, that
all rows' parts have one shape that no data decide, and that the output names in `OUTPUTS` are in
TensorFlow's order. `tests/tensorflow/test_row_rules.py` compares the table with TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping

from servingd.servables.saved_model.merging.row_wise import (
    elementwise,
    layers,
    lookups,
    places,
    shapes,
)
from servingd.servables.saved_model.merging.row_wise.operations import Rule, types

REVISION = 1
"""Raise it when a rule changes: tunings that were found by other rules are then not used."""

RULES: Mapping[str, Rule] = {
    **elementwise.RULES,
    **shapes.RULES,
    **places.RULES,
    **layers.RULES,
    **lookups.RULES,
}

OUTPUTS: Mapping[str, tuple[str, ...]] = {
    **places.OUTPUTS,
    **layers.OUTPUTS,
    "Merge": ("output", "value_index"),
    "Switch": ("output_false", "output_true"),
}
"""The names of the outputs of operations that have several, each a single tensor."""


COUNTING = frozenset(
    types(
        """
    Add AddV2 BroadcastArgs BroadcastTo Cast Concat ConcatV2 Conv2DBackpropInput Equal ExpandDims
    Fill FloorDiv Gather GatherV2 GreaterEqual Identity IdentityN LessEqual Mul Pack
    Prod Rank Reshape Shape ShapeN Size Slice Squeeze StridedSlice StopGradient Sub Tile Unpack
    """
    )
)
"""Operations that know how to treat integers that count rows; for all others they are unknown."""
