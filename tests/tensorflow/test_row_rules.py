"""The table of what operations do to rows, held against TensorFlow's own definitions."""

from __future__ import annotations

import pytest

from servingd.servables.saved_model.merging.row_wise import analysis
from servingd.servables.saved_model.merging.row_wise.operations import DEFAULTS, Operation
from servingd.servables.saved_model.merging.row_wise.rules import COUNTING, OUTPUTS, RULES
from servingd.wire import protos

pytestmark = pytest.mark.tf

SEEMS_STATEFUL = {
    # Handles and what is read through them; nothing that a merged signature reaches writes.
    "HashTable",
    "HashTableV2",
    "ReadVariableOp",
    "ResourceGather",
    "VarHandleOp",
    "VariableV2",
    "LookupTableFind",
    "LookupTableFindV2",
    "LookupTableSize",
    "LookupTableSizeV2",
    "CheckNumerics",  # it may fail
}
LISTS = {"ParseExample", "ParseExampleV2"}
READ = {
    "adj_x", "adj_y", "axis", "batch_dims", "begin_mask", "data_format", "dilations",
    "ellipsis_mask", "end_mask", "explicit_paddings", "incompatible_shape_error", "is_training",
    "keep_dims", "new_axis_mask", "shrink_axis_mask", "squeeze_dims", "transpose_a", "transpose_b",
}  # fmt: skip
"""Attributes that rules ask for and that graphs may leave out."""


def definition(op: str):
    from tensorflow.python.framework import op_def_registry

    return op_def_registry.get(op)


@pytest.mark.parametrize("op", sorted({*RULES, *COUNTING, *OUTPUTS, *analysis._FLOW}))
def test_it_is_an_operation_of_tensorflow(op):
    assert definition(op) is not None


@pytest.mark.parametrize("op", sorted(RULES))
def test_it_keeps_no_state_of_its_own(op):
    assert not definition(op).is_stateful or op in SEEMS_STATEFUL


@pytest.mark.parametrize("op", sorted({*RULES, "Switch", "Merge"} - LISTS))
def test_its_outputs_are_found_by_name_and_number(op):
    names = tuple(output.name for output in definition(op).output_arg)
    several = [o for o in definition(op).output_arg if o.number_attr or o.type_list_attr]
    if len(names) == 1:
        assert op not in OUTPUTS
    else:
        assert op in OUTPUTS or RULES[op]("", []) == []  # nothing is known of any of them
        assert OUTPUTS.get(op, names) == names
        assert op not in OUTPUTS or not several


def test_the_outputs_of_a_parser_are_lists_in_order():
    node = protos.Node(name="p", op="ParseExampleV2")
    node.attr["num_sparse"].i = 2
    for _ in range(3):
        node.attr["dense_shapes"].list.shape.add()
    node.attr["ragged_value_types"].list.type.append(1)
    starts = analysis.example_outputs(Operation(node, ""))
    assert list(starts) == [output.name for output in definition("ParseExampleV2").output_arg]
    assert list(starts.values()) == [0, 2, 4, 6, 9, 10]


@pytest.mark.parametrize("op", sorted(RULES))
def test_what_a_graph_leaves_out_is_what_tensorflow_takes(op):
    for attr in definition(op).attr:
        if attr.name not in READ:
            continue
        default = DEFAULTS.get(f"{op}.{attr.name}", DEFAULTS.get(attr.name))
        if not attr.HasField("default_value"):
            continue  # every graph says it
        value = attr.default_value
        kind = value.WhichOneof("value")
        known = getattr(value, kind)
        if kind == "list":
            known, default = tuple(known.i), default or (1,) * len(known.i)  # 1: as if not said
        if kind == "s":
            known = known.decode()
        assert default == known, attr.name
