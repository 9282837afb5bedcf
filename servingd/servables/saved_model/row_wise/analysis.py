"""Decides from a graph which signatures work row by row. Sound: what it lets through, does.

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
from typing import Any, NamedTuple

from servingd.core.types import Signature
from servingd.servables.saved_model.row_wise.lookups import example_outputs
from servingd.servables.saved_model.row_wise.operations import Operation, input_size
from servingd.servables.saved_model.row_wise.rules import COUNTING, OUTPUTS, RULES
from servingd.servables.saved_model.row_wise.sizes import ROWS, size
from servingd.servables.saved_model.row_wise.values import (
    Mixing,
    Tensor,
    Unknown,
    Value,
    Why,
    join,
    require,
)

REVISION = 1
"""Of the table of rules: what was found out by another one is not believed."""

_MOST_OPERATIONS = 200_000
_MOST_ROUNDS = 20
"""Of a loop; what is known of its variables becomes less with each round but the last."""

_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_BRANCHES = frozenset({"If", "StatelessIf", "Case", "StatelessCase"})
_LOOPS = frozenset({"While", "StatelessWhile"})
_FLOW = _CALLS | _BRANCHES | _LOOPS | {"Switch", "RefSwitch", "Merge", "RefMerge"}


class Verdict(NamedTuple):
    """Whether a signature's calls may be merged; if not, why."""

    row_wise: bool
    reason: str = ""


class Mergeable(NamedTuple):
    """What may be merged, by signature, once it was tried on a session."""

    rows_worth: Mapping[str, int]
    """Up to how many rows a run gets cheaper per row."""
    refused: Mapping[str, str]
    """Why a signature is not merged."""


NOT_TRIED = Mergeable({}, {})

Lock = tuple[str, Why]
"""A condition of a rule: the type of operation and what it excludes."""


def row_wise(
    graph: Any, signatures: Mapping[str, Signature], without: Collection[Lock] = ()
) -> dict[str, Verdict]:
    """By signature: whether it answers each row as it would alone.

    `graph` is a `servingd.Graph`. `without` names locks that are left open, for the tests that show
    what each is good for. Pure; takes about 10 us an operation.
    """
    analysis = Analysis(graph, without)
    return {name: analysis.verdict(signature) for name, signature in signatures.items()}


class _Body(NamedTuple):
    """A function's body, or the graph itself."""

    nodes: Mapping[str, Any]
    arguments: Sequence[str]
    returns: Sequence[str]
    """What it returns, in order of its outputs."""


class _Frame:
    """One call of a body: what is known of its tensors so far."""

    __slots__ = ("body", "fed", "known", "scope")

    def __init__(self, body: _Body, scope: str, fed: Mapping[tuple[str, int], Value]) -> None:
        self.body = body
        self.scope = scope
        self.fed = fed
        self.known: dict[str, Sequence[Value] | None] = {}
        """By node; None while it is being looked at."""


class Analysis:
    """One graph's operations and functions. Used by one thread."""

    def __init__(self, graph: Any, without: Collection[Lock] = ()) -> None:
        self._without = frozenset(without)
        self._graph = _Body({node.name: node for node in graph.node}, (), ())
        self._functions = {f.signature.name: f for f in graph.library.function}
        self._bodies: dict[str, _Body] = {}
        self._left = _MOST_OPERATIONS
        self._asserts: list[Unknown] = []
        """What the signature at hand asserts of all rows together."""

    def verdict(self, signature: Signature) -> Verdict:
        """What comes of feeding a signature's inputs with rows."""
        for alias, spec in signature.inputs.items():
            if not spec.shape or spec.shape[0] is not None:
                return Verdict(False, f"input {alias}: its first dimension does not vary")
        if not signature.inputs:
            return Verdict(False, "it has no input")
        for alias, spec in signature.outputs.items():
            if not spec.tensor_name:
                return Verdict(False, f"output {alias} is sparse or composite")
        names = [spec.tensor_name for spec in signature.outputs.values()]
        frame = self._frame(signature)
        for alias, name in zip(signature.outputs, names, strict=True):
            reason = _refusal(self._value(frame, name))
            if reason:
                return Verdict(False, f"output {alias}: {reason}")
        self._check_asserts(frame, _reached(self._graph.nodes, names))
        return Verdict(not self._asserts, "; ".join(map(str, self._asserts[:1])))

    def values(self, signature: Signature, tensors: Iterable[str]) -> list[Value]:
        """What is known of tensors of the graph, by name, where the inputs are rows."""
        frame = self._frame(signature)
        return [self._value(frame, tensor) for tensor in tensors]

    def _frame(self, signature: Signature) -> _Frame:
        """The graph, fed with rows."""
        fed: dict[tuple[str, int], Value] = {}
        for alias, spec in signature.inputs.items():
            beyond = (
                size(dim) if dim is not None else input_size(alias, i)
                for i, dim in enumerate(spec.shape or ())
                if i
            )
            fed[_split(spec.tensor_name)] = Tensor((ROWS, *beyond), 0)
        self._left = _MOST_OPERATIONS
        self._asserts = []
        return _Frame(self._graph, "", fed)

    # Asserts ----------------------------------------------------------------------------------

    def _check_asserts(self, frame: _Frame, nodes: Iterable[Any]) -> None:
        """Note what is asserted of all rows together: beside others, a row might pass it.

        What must hold of each row, or of the number of rows alone, fails for a batch if it fails
        for one of its calls; then each runs by itself.
        """
        for node in nodes:
            asserts = node.op == "Assert" or (node.op in _BRANCHES and self._guards(node))
            if asserts and not self._holds_by_row(frame, _data_inputs(node)[0]):
                op = Operation(node, frame.scope)
                if (op.type, Why.ASSERTED) not in self._without:
                    self._asserts.append(Unknown(Why.ASSERTED, op.name))

    def _guards(self, node: Any) -> bool:
        """Whether a branch is there to assert something."""
        names = Operation(node, "").functions(
            *(name for name in ("then_branch", "else_branch", "branches") if name in node.attr)
        )
        bodies = (self._body(name) for name in names if name in self._functions)
        return any(inner.op == "Assert" for body in bodies for inner in body.nodes.values())

    def _holds_by_row(self, frame: _Frame, reference: str) -> bool:
        """Whether a condition is the same for all rows, or asks something of each of them."""
        value = self._value(frame, reference)
        if isinstance(value, Tensor):
            return value.is_same
        node = frame.body.nodes.get(_node_of(reference))
        if node is None or node.op not in ("All", "LogicalAnd", "Identity"):
            return False
        if node.op == "All":
            asked = self._value(frame, _data_inputs(node)[0])
            return isinstance(asked, Tensor) and not asked.is_counted
        return all(self._holds_by_row(frame, source) for source in _data_inputs(node))

    # Walking ----------------------------------------------------------------------------------

    def _value(self, frame: _Frame, reference: str) -> Value:
        """What is known of a tensor. Walks without recursion within one body: graphs are deep."""
        waiting = [_node_of(reference)]
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
                for source in map(_node_of, _data_inputs(node))
                if source not in frame.known and not self._is_fed(frame, source)
            ]
            if needed and name not in frame.known:
                frame.known[name] = None
                waiting += needed
                continue
            frame.known[name] = self._evaluate(frame, node)
            waiting.pop()
        return self._lookup(frame, reference)

    def _is_fed(self, frame: _Frame, node: str) -> bool:
        """Whether nothing but its first output matters, and that is fed."""
        return (node, 0) in frame.fed

    def _lookup(self, frame: _Frame, reference: str) -> Value:
        node, position = self._position(frame, reference)
        if (node, position) in frame.fed:
            return frame.fed[node, position]
        values = frame.known.get(node)
        if values is None:
            return Unknown(Why.CYCLE, node)
        return values[position] if position < len(values) else Unknown(Why.NO_RULE, node)

    def _position(self, frame: _Frame, reference: str) -> tuple[str, int]:
        """A tensor's node and number; in a function's body it goes by the output's name as well."""
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

    def _evaluate(self, frame: _Frame, node: Any) -> Sequence[Value]:
        """What is known of a node's outputs. Never raises: a rule that stumbles knows nothing."""
        op = Operation(node, frame.scope)
        args = [self._lookup(frame, source) for source in _data_inputs(node)]
        self._left -= 1
        try:
            require(self._left > 0, Why.TOO_LARGE)
            if op.type in self._functions:
                return self._call(op.type, op.path, args)
            if op.type in _FLOW:
                return self._follow(op, args)
            return _apply(op, args)
        except Mixing as mixing:
            if (op.type, mixing.why) in self._without:
                return _Every(next((a for a in args if _is_rows(a)), args[0]))
            return _Every(Unknown(mixing.why, op.name))
        except (IndexError, KeyError, ValueError, TypeError, AttributeError, RecursionError):
            return _Every(Unknown(Why.NO_RULE, op.name))

    def _call(self, function: str, path: str, args: Sequence[Value]) -> list[Value]:
        body = self._body(function)
        fed = {(name, 0): arg for name, arg in zip(body.arguments, args, strict=True)}
        frame = _Frame(body, f"{path}/", fed)
        found = [self._value(frame, reference) for reference in body.returns]
        self._check_asserts(frame, body.nodes.values())
        return found

    def _body(self, name: str) -> _Body:
        if name not in self._bodies:
            function = self._functions[name]
            self._bodies[name] = _Body(
                {node.name: node for node in function.node_def},
                [a.name for a in function.signature.input_arg],
                [function.ret[o.name] for o in function.signature.output_arg],
            )
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
        return _switch_or_merge(op, args)

    def _branch(self, op: Operation, args: Sequence[Value]) -> Sequence[Value]:
        """Where all rows decide alike, either branch's answer; where they do not, neither."""
        decides, *given = args
        _same_or_refused(decides, Why.DECIDED)
        is_if = op.type.endswith("If")
        names = ("then_branch", "else_branch") if is_if else ("branches",)
        functions = op.functions(*names)
        known = _known(decides)
        if known is not None:
            last = len(functions) - 1
            chosen = int(not known) if is_if else known if 0 <= known < last else last
            return self._call(functions[chosen], f"{op.path}.{chosen}", given)
        answers = [self._call(f, f"{op.path}.{i}", given) for i, f in enumerate(functions)]
        whole = answers[0]
        for other in answers[1:]:
            whole = [
                join(a, b, f"{op.path}:{i}")
                for i, (a, b) in enumerate(zip(whole, other, strict=True))
            ]
        return whole

    def _loop(self, op: Operation, args: Sequence[Value]) -> Sequence[Value]:
        """What holds before the first round and after each, if all rows take as many."""
        (condition,), (body,) = op.functions("cond"), op.functions("body")
        state = list(args)
        for _ in range(_MOST_ROUNDS):
            (goes_on,) = self._call(condition, f"{op.path}.cond", state)
            _same_or_refused(goes_on, Why.LOOPED)
            after = self._call(body, f"{op.path}.body", state)
            new = [
                join(a, b, f"{op.path}:{i}")
                for i, (a, b) in enumerate(zip(state, after, strict=True))
            ]
            if new == state:
                return state
            state = new
        raise Mixing(Why.TOO_LARGE)


def _apply(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    """The table's rule. Of what is the same for all rows, anything computed is the same."""
    for arg in args:
        if isinstance(arg, Unknown):
            return _Every(arg)
    rule = RULES.get(op.type)
    if rule is None:
        raise Mixing(Why.NO_RULE)
    counted = any(isinstance(arg, Tensor) and arg.is_counted for arg in args)
    require(not counted or op.type in COUNTING, Why.COUNTED)
    same = all(isinstance(arg, Tensor) and arg.is_same for arg in args)
    try:
        found = rule(op, args)
    except (Mixing, IndexError, ValueError, TypeError):
        if not same:
            raise
        found = ()
    return found if found or not same else _Every(Tensor(None))


class _Every(Sequence[Value]):
    """One value for however many outputs."""

    def __init__(self, value: Value) -> None:
        self._value = value

    def __getitem__(self, position: Any) -> Any:
        return self._value

    def __len__(self) -> int:
        return 1 << 30


def _switch_or_merge(op: Operation, args: Sequence[Value]) -> Sequence[Value]:
    """TensorFlow 1's branches: what leaves a switch is alive on one side, and merged again."""
    if op.type.endswith("Switch"):
        data, decides = args
        _same_or_refused(decides, Why.DECIDED)
        return [data, data]
    whole = args[0]
    for i, other in enumerate(args[1:]):
        whole = join(whole, other, f"{op.path}:{i}")
    return [whole, Tensor(())]


def _same_or_refused(value: Value, why: Why) -> None:
    """Raise Mixing unless all rows decide alike."""
    require(isinstance(value, Tensor) and value.is_same, why)


def _known(value: Value) -> int | None:
    if isinstance(value, Tensor) and value.content is not None and value.content.shape == ():
        return value.content.values[0].known
    return None


def _is_rows(value: Value) -> bool:
    return isinstance(value, Tensor) and value.is_rows


def _refusal(value: Value) -> str:
    """Why an output is not one entry per row; empty if it is."""
    if isinstance(value, Unknown):
        return str(value)
    if isinstance(value, Tensor) and value.axis == 0 and value.dims[0] == ROWS:
        return ""
    return Why.FIXED.value


def _reached(nodes: Mapping[str, Any], roots: Iterable[str]) -> list[Any]:
    """All nodes that run for the tensors `roots`, control inputs included."""
    waiting, seen = [_node_of(root) for root in roots], set[str]()
    while waiting:
        name = waiting.pop()
        if name in nodes and name not in seen:
            seen.add(name)
            waiting += [_node_of(source.removeprefix("^")) for source in nodes[name].input]
    return [nodes[name] for name in seen]


def _data_inputs(node: Any) -> list[str]:
    return [source for source in node.input if not source.startswith("^")]


def _node_of(reference: str) -> str:
    return reference.split(":", 1)[0]


def _split(tensor: str) -> tuple[str, int]:
    name, _, position = tensor.partition(":")
    return name, int(position or 0)
