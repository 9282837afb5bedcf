"""Decides from a graph which signatures work row by row. It is sound: it never allows another.

Theory. Fix the sizes that merged calls have in common. `values` says what may be known of a tensor;
`rules` says, operation by operation, what follows for its outputs. This module walks a signature's
graph from its outputs to its inputs, through the bodies of functions as often as they are called,
and applies the rules. An operation without a rule, or one that a rule refuses, makes everything
behind it unknown, and an unknown output means that calls are not merged. Branches are followed on
both sides where all rows decide alike; loops until what is known of their variables stays so.

What must hold besides: the signature's inputs have a first dimension that may vary, calls are of
one type and of one shape beyond it, and nothing is reached that keeps state (`graph_safety`).
Equal means equal up to the rounding that a different number of rows causes in TensorFlow's kernels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from servingd.core.types import Signature
from servingd.servables.saved_model.files.meta_graph import node_name
from servingd.servables.saved_model.merging.row_wise.evaluation import (
    Every,
    apply_rule,
    is_rows,
    join_all,
    known_number,
    output_refusal,
    require_same,
    switch_or_merge,
)
from servingd.servables.saved_model.merging.row_wise.graphs import (
    Body,
    Frame,
    data_inputs,
    function_body,
    reached_nodes,
    split_reference,
)
from servingd.servables.saved_model.merging.row_wise.lookups import example_outputs
from servingd.servables.saved_model.merging.row_wise.operations import Operation, input_size
from servingd.servables.saved_model.merging.row_wise.rules import OUTPUTS
from servingd.servables.saved_model.merging.row_wise.sizes import ROWS, size
from servingd.servables.saved_model.merging.row_wise.values import (
    Mixing,
    Reason,
    Tensor,
    Unknown,
    Value,
    require,
)
from servingd.servables.saved_model.merging.row_wise.verdicts import RowWiseVerdict

_MAX_OPERATIONS = 200_000
_MAX_ROUNDS = 20
"""Rounds of a loop; what is known of its variables becomes less with each but the last."""

_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_BRANCHES = frozenset({"If", "StatelessIf", "Case", "StatelessCase"})
_LOOPS = frozenset({"While", "StatelessWhile"})
_FLOW = _CALLS | _BRANCHES | _LOOPS | {"Switch", "RefSwitch", "Merge", "RefMerge"}


Condition = tuple[str, Reason]
"""A condition of a rule: the type of the operation, and the reason that it rules out."""


def row_wise(
    graph: Any, signatures: Mapping[str, Signature], without: Collection[Condition] = ()
) -> dict[str, RowWiseVerdict]:
    """Return by signature whether it answers each row as it would alone.

    `graph` is a `servingd.Graph`. `without` names conditions that are not checked, for the tests
    that show what each is good for. Takes about 10 us per operation.
    """
    analysis = Analysis(graph, without)
    return {name: analysis.verdict(signature) for name, signature in signatures.items()}


class Analysis:
    """One graph's operations and functions. Used by one thread."""

    def __init__(self, graph: Any, without: Collection[Condition] = ()) -> None:
        self._without = frozenset(without)
        self._graph = Body({node.name: node for node in graph.node}, (), ())
        self._functions = {f.signature.name: f for f in graph.library.function}
        self._bodies: dict[str, Body] = {}
        self._left = _MAX_OPERATIONS
        self._asserts: list[Unknown] = []
        """What the signature under analysis asserts of all rows together."""

    def verdict(self, signature: Signature) -> RowWiseVerdict:
        """Return whether a signature works row by row."""
        for alias, spec in signature.inputs.items():
            if not spec.shape or spec.shape[0] is not None:
                return RowWiseVerdict(False, f"input {alias}: its first dimension does not vary")
        if not signature.inputs:
            return RowWiseVerdict(False, "it has no input")
        for alias, spec in signature.outputs.items():
            if not spec.tensor_name:
                return RowWiseVerdict(False, f"output {alias} is sparse or composite")
        names = [spec.tensor_name for spec in signature.outputs.values()]
        frame = self._frame(signature)
        for alias, name in zip(signature.outputs, names, strict=True):
            reason = output_refusal(self._value(frame, name))
            if reason:
                return RowWiseVerdict(False, f"output {alias}: {reason}")
        self._check_asserts(frame, reached_nodes(self._graph.nodes, names))
        return RowWiseVerdict(not self._asserts, "; ".join(map(str, self._asserts[:1])))

    def values(self, signature: Signature, tensors: Iterable[str]) -> list[Value]:
        """Return what is known of tensors of the graph, by name, if the inputs are rows."""
        frame = self._frame(signature)
        return [self._value(frame, tensor) for tensor in tensors]

    def _frame(self, signature: Signature) -> Frame:
        """Return a call of the graph whose inputs are rows."""
        fed: dict[tuple[str, int], Value] = {}
        for alias, spec in signature.inputs.items():
            beyond = (
                size(dim) if dim is not None else input_size(alias, i)
                for i, dim in enumerate(spec.shape or ())
                if i
            )
            fed[split_reference(spec.tensor_name)] = Tensor((ROWS, *beyond), 0)
        self._left = _MAX_OPERATIONS
        self._asserts = []
        return Frame(self._graph, "", fed)

    # Asserts ----------------------------------------------------------------------------------

    def _check_asserts(self, frame: Frame, nodes: Iterable[Any]) -> None:
        """Note what is asserted of all rows together: a row might pass it only among others.

        What must hold of each row, or of the number of rows alone, fails for a batch if it fails
        for one of its calls; then each runs by itself.
        """
        for node in nodes:
            asserts = node.op == "Assert" or (node.op in _BRANCHES and self._guards(node))
            if asserts and not self._holds_by_row(frame, data_inputs(node)[0]):
                op = Operation(node, frame.scope)
                if (op.type, Reason.ASSERTED) not in self._without:
                    self._asserts.append(Unknown(Reason.ASSERTED, op.name))

    def _guards(self, node: Any) -> bool:
        """Return whether a branch asserts something."""
        names = Operation(node, "").functions(
            *(name for name in ("then_branch", "else_branch", "branches") if name in node.attr)
        )
        bodies = (self._body(name) for name in names if name in self._functions)
        return any(inner.op == "Assert" for body in bodies for inner in body.nodes.values())

    def _holds_by_row(self, frame: Frame, reference: str) -> bool:
        """Return whether a condition is the same for all rows, or asks something of each row."""
        value = self._value(frame, reference)
        if isinstance(value, Tensor):
            return value.is_same
        node = frame.body.nodes.get(node_name(reference))
        if node is None or node.op not in ("All", "LogicalAnd", "Identity"):
            return False
        if node.op == "All":
            asked = self._value(frame, data_inputs(node)[0])
            return isinstance(asked, Tensor) and not asked.is_counted
        return all(self._holds_by_row(frame, source) for source in data_inputs(node))

    # Walking ----------------------------------------------------------------------------------

    def _value(self, frame: Frame, reference: str) -> Value:
        """Return what is known of a tensor. No recursion within one body: graphs are deep."""
        waiting = [node_name(reference)]
        while waiting:
            name = waiting[-1]
            if frame.known.get(name) is not None:
                waiting.pop()
                continue
            node = frame.body.nodes.get(name)
            if node is None:
                frame.known[name] = ()
                continue
            needed = [
                source
                for source in map(node_name, data_inputs(node))
                if source not in frame.known and not frame.is_fed(source)
            ]
            if needed and name not in frame.known:
                frame.known[name] = None
                waiting += needed
                continue
            frame.known[name] = self._evaluate(frame, node)
            waiting.pop()
        return self._lookup(frame, reference)

    def _lookup(self, frame: Frame, reference: str) -> Value:
        node, position = self._position(frame, reference)
        if (node, position) in frame.fed:
            return frame.fed[node, position]
        values = frame.known.get(node)
        if values is None:
            return Unknown(Reason.CYCLE, node)
        return values[position] if position < len(values) else Unknown(Reason.NO_RULE, node)

    def _position(self, frame: Frame, reference: str) -> tuple[str, int]:
        """Return a tensor's node, and its number among the outputs: of its name, in a function."""
        parts = reference.split(":")
        if len(parts) < 3:
            return parts[0], int(parts[1]) if len(parts) == 2 else 0
        node = frame.body.nodes.get(parts[0])
        first = 0
        if node is not None:
            first = self._first_of(node, parts[1])
        return parts[0], first + int(parts[2])

    def _first_of(self, node: Any, output: str) -> int:
        names = OUTPUTS.get(node.op, ())
        if node.op in ("ParseExample", "ParseExampleV2"):
            return example_outputs(Operation(node, ""))[output]
        if node.op in self._functions:
            names = tuple(o.name for o in self._functions[node.op].signature.output_arg)
        return names.index(output) if output in names else 0

    # One operation ----------------------------------------------------------------------------

    def _evaluate(self, frame: Frame, node: Any) -> Sequence[Value]:
        """Return what is known of a node's outputs; unknown ones where its rule fails."""
        op = Operation(node, frame.scope)
        args = [self._lookup(frame, source) for source in data_inputs(node)]
        self._left -= 1
        try:
            require(self._left > 0, Reason.TOO_LARGE)
            if op.type in self._functions:
                return self._call(op.type, op.path, args)
            if op.type in _FLOW:
                return self._follow(op, args)
            return apply_rule(op, args)
        except Mixing as mixing:
            if (op.type, mixing.reason) in self._without:
                return Every(next((a for a in args if is_rows(a)), args[0]))
            return Every(Unknown(mixing.reason, op.name))
        except (IndexError, KeyError, ValueError, TypeError, AttributeError, RecursionError):
            return Every(Unknown(Reason.NO_RULE, op.name))

    def _call(self, function: str, path: str, args: Sequence[Value]) -> list[Value]:
        body = self._body(function)
        fed = {(name, 0): arg for name, arg in zip(body.arguments, args, strict=True)}
        frame = Frame(body, f"{path}/", fed)
        found = [self._value(frame, reference) for reference in body.returns]
        self._check_asserts(frame, body.nodes.values())
        return found

    def _body(self, name: str) -> Body:
        if name not in self._bodies:
            self._bodies[name] = function_body(self._functions[name])
        return self._bodies[name]

    # Flow -------------------------------------------------------------------------------------

    def _follow(self, op: Operation, args: Sequence[Value]) -> Sequence[Value]:
        if op.type in _CALLS:
            (function,) = op.functions("f")
            return self._call(function, op.path, args)
        if op.type in _BRANCHES:
            return self._branch(op, args)
        if op.type in _LOOPS:
            return self._loop(op, args)
        return switch_or_merge(op, args)

    def _branch(self, op: Operation, args: Sequence[Value]) -> Sequence[Value]:
        """Return what holds of either branch. Raises Mixing unless all rows decide alike."""
        decides, *given = args
        require_same(decides, Reason.DECIDED)
        is_if = op.type.endswith("If")
        names = ("then_branch", "else_branch") if is_if else ("branches",)
        functions = op.functions(*names)
        known = known_number(decides)
        if known is not None:
            last = len(functions) - 1
            chosen = int(not known) if is_if else known if 0 <= known < last else last
            return self._call(functions[chosen], f"{op.path}.{chosen}", given)
        answers = [self._call(f, f"{op.path}.{i}", given) for i, f in enumerate(functions)]
        whole = answers[0]
        for other in answers[1:]:
            whole = join_all(whole, other, op.path)
        return whole

    def _loop(self, op: Operation, args: Sequence[Value]) -> Sequence[Value]:
        """Return what holds before the first round and after each. Raises Mixing.

        All rows must take the same number of rounds.
        """
        (condition,), (body,) = op.functions("cond"), op.functions("body")
        state = list(args)
        for _ in range(_MAX_ROUNDS):
            (goes_on,) = self._call(condition, f"{op.path}.cond", state)
            require_same(goes_on, Reason.LOOPED)
            after = self._call(body, f"{op.path}.body", state)
            new = join_all(state, after, op.path)
            if new == state:
                return state
            state = new
        raise Mixing(Reason.TOO_LARGE)
