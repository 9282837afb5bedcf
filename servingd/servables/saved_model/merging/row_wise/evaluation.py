"""What follows from one operation of the table: the rule, and what holds without one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from servingd.servables.saved_model.merging.row_wise.operations import Operation
from servingd.servables.saved_model.merging.row_wise.rules import COUNTING, RULES
from servingd.servables.saved_model.merging.row_wise.sizes import ROWS
from servingd.servables.saved_model.merging.row_wise.values import (
    Mixing,
    Reason,
    Tensor,
    Unknown,
    Value,
    join,
    require,
)


class Every(Sequence[Value]):
    """One value for however many outputs an operation has."""

    def __init__(self, value: Value) -> None:
        self._value = value

    def __getitem__(self, position: Any) -> Any:
        return self._value

    def __len__(self) -> int:
        return 1 << 30


def apply_rule(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    """Return what is known of an operation's outputs, by its rule. Raises Mixing.

    Of inputs that are the same for all rows anything computed is the same, whatever the rule says.
    """
    for arg in args:
        if isinstance(arg, Unknown):
            return Every(arg)
    rule = RULES.get(op.type)
    if rule is None:
        raise Mixing(Reason.NO_RULE)
    counted = any(isinstance(arg, Tensor) and arg.is_counted for arg in args)
    require(not counted or op.type in COUNTING, Reason.COUNTED)
    same = all(isinstance(arg, Tensor) and arg.is_same for arg in args)
    try:
        found = rule(op, args)
    except (Mixing, IndexError, ValueError, TypeError):
        if not same:
            raise
        found = ()
    return found if found or not same else Every(Tensor(None))


def switch_or_merge(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    """Follow TensorFlow 1's branches: what leaves a Switch is alive on one side, then merged."""
    if op.type.endswith("Switch"):
        data, decides = args
        require_same(decides, Reason.DECIDED)
        return [data, data]
    whole = args[0]
    for i, other in enumerate(args[1:]):
        whole = join(whole, other, f"{op.path}:{i}")
    return [whole, Tensor(())]


def join_all(one: Sequence[Value], other: Sequence[Value], path: str) -> list[Value]:
    """Return what holds of each output whichever of two values it has."""
    return [join(a, b, f"{path}:{i}") for i, (a, b) in enumerate(zip(one, other, strict=True))]


def require_same(value: Value, reason: Reason) -> None:
    """Raise Mixing unless all rows decide alike."""
    require(isinstance(value, Tensor) and value.is_same, reason)


def known_number(value: Value) -> int | None:
    """Return a scalar's value, if it is known."""
    if isinstance(value, Tensor) and value.content is not None and value.content.shape == ():
        return value.content.values[0].known
    return None


def is_rows(value: Value) -> bool:
    """Return whether a value is one part per row."""
    return isinstance(value, Tensor) and value.is_rows


def output_refusal(value: Value) -> str:
    """Return why an output is not one entry per row; empty if it is."""
    if isinstance(value, Unknown):
        return str(value)
    if isinstance(value, Tensor) and value.axis == 0 and value.dims[0] == ROWS:
        return ""
    return Reason.FIXED.value
