"""Which tables a graph's initialiser fills, and that they are the same ever after.

A table is static if the initialiser fills it once, from constants or assets, and nothing else
writes to it. Then a new session over the same nodes has the same table. This is decided from the
graph alone. What is not understood is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from servingd.servables.saved_model.files.graph_safety import (
    called_functions,
    keeps_state,
    reachable_nodes,
)
from servingd.servables.saved_model.files.meta_graph import Initialiser, node_name

_TABLES = frozenset({"HashTable", "HashTableV2"})
_READS = frozenset(
    f"LookupTable{what}{version}" for what in ("Find", "Size", "Export") for version in ("", "V2")
)
_WRITES = frozenset(
    f"{what}{version}"
    for what in ("InitializeTable", "InitializeTableFromTextFile", "LookupTableImport")
    for version in ("", "V2")
)
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_OLD_FLOW = frozenset({"Enter", "RefEnter", "Merge", "RefMerge", "Switch", "RefSwitch"})
"""Branches and loops that are nodes beside others: TensorFlow 1's."""

_PURE = frozenset(
    {
        "Cast",
        "Concat",
        "ConcatV2",
        "Const",
        "ExpandDims",
        "Fill",
        "Pack",
        "Range",
        "Reshape",
        "Size",
        "Slice",
    }
)
"""Operations whose outputs depend on nothing but their inputs, as keys and values are made of."""

_MAX_NODES = 100_000
"""Nodes of the initialiser, counted once for each call of their function."""


class NotStatic(Exception):
    """A table or a variable may change, or it is not understood. The text says why."""


class Resource(NamedTuple):
    """A table or a variable as TensorFlow tells them apart: nodes that share a name share it."""

    container: str
    name: str
    is_shared: bool
    """Whether the name is shared with other nodes; else it is that of the only node."""


class Assigned(NamedTuple):
    """A variable's value."""

    node: str
    """The node that assigns it."""
    asset: str
    """The node of the asset whose path it is."""


@dataclass(frozen=True, slots=True)
class Filled:
    """What the initialiser leaves behind."""

    tables: Mapping[Resource, tuple[str, frozenset[str]]] = field(default_factory=dict)
    """By table, the type of the operation that fills it, and the assets' nodes it fills it from."""
    path_variables: Mapping[Resource, Assigned] = field(default_factory=dict)
    """The variables that hold assets' paths."""
    path_nodes: frozenset[str] = frozenset()
    """The nodes of these variables."""
    assets: frozenset[str] = frozenset()
    """The nodes of the assets that the initialiser reads."""


def find_filled(
    graph_def: Any, outputs: Iterable[str], initialiser: Initialiser, restores: str = ""
) -> Filled:
    """Return what the initialiser fills, where that stays as it is.

    `graph_def` is a `tensorflow.GraphDef`; `outputs` are the tensors that signatures compute;
    `restores` is the operation that restores the variables. Raises NotStatic, also for whatever
    else keeps state between calls.
    """
    signatures = reachable_nodes(graph_def, outputs)
    _check_signatures(signatures)
    _check_functions(graph_def)
    restored = {node.op for node in reachable_nodes(graph_def, [restores])}
    if restored & _WRITES and restored & _TABLES:  # those that may change are no signature's
        raise NotStatic("a table is filled when variables are restored")
    if not initialiser.operation:
        return Filled()
    filled = _Initialisation(graph_def, initialiser).run()
    read = {resource_of(n) for n in signatures if n.op == "VarHandleOp"}
    if read & filled.path_variables.keys():
        raise NotStatic("a signature reads the variable that holds an asset's path")
    return filled


def resource_of(node: Any) -> Resource:
    """Return the table or variable that a node stands for."""
    attrs = {name: node.attr[name] for name in node.attr}  # to ask for another would add it
    container = attrs["container"].s.decode() if "container" in attrs else ""
    shared = attrs["shared_name"].s.decode() if "shared_name" in attrs else ""
    by_name = "use_node_name_sharing" in attrs and attrs["use_node_name_sharing"].b
    if shared or by_name:
        return Resource(container or "localhost", shared or node.name, True)
    return Resource(container or "localhost", node.name, False)


def _check_signatures(nodes: Collection[Any]) -> None:
    """Raise NotStatic if a signature writes to anything, or has a table that may change."""
    types = {node.op for node in nodes}
    if writes := types & _WRITES:
        raise NotStatic(f"a signature fills a table: {', '.join(sorted(writes))}")
    _refuse_state(types)
    _refuse_other_tables(types)


def _check_functions(graph_def: Any) -> None:
    """Raise NotStatic if a function has a table without a name that it shares with others.

    Its name is the node's then, which differs from call to call once functions are inlined.
    """
    for function in graph_def.library.function:
        for node in function.node_def:
            if node.op in _TABLES and not node.attr["shared_name"].s:
                raise NotStatic(f"table {node.name} of a function has no name of its own")


def _refuse_other_tables(types: Iterable[str]) -> None:
    """Raise NotStatic for tables that may change, and for what may be done with any."""
    about_tables = {
        t for t in types if "HashTable" in t or t.startswith(("InitializeTable", "LookupTable"))
    }
    if unknown := about_tables - _TABLES - _READS - _WRITES:
        raise NotStatic(f"it has tables that may change: {', '.join(sorted(unknown))}")


def _refuse_state(types: Iterable[str]) -> None:
    if stateful := sorted(t for t in types if keeps_state(t)):
        raise NotStatic(f"it keeps state: {', '.join(stateful)}")


@dataclass(frozen=True, slots=True, eq=False)
class _Body:
    """The graph itself (without a caller), or one call of a function."""

    nodes: Mapping[str, Any]
    caller: _Body | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)
    """By name, what the caller gives."""


class _Initialisation:
    """One walk through all that runs when a graph is initialised."""

    def __init__(self, graph_def: Any, initialiser: Initialiser) -> None:
        self._graph = _Body({node.name: node for node in graph_def.node})
        self._functions = {f.signature.name: f for f in graph_def.library.function}
        self._root = node_name(initialiser.operation)
        self._assets = {node_name(tensor) for tensor in initialiser.assets}
        self._left = _MAX_NODES

    def run(self) -> Filled:
        """Return what is filled. Raises NotStatic."""
        before = list(self._nodes_before(self._root))
        visited = [pair for node in before for pair in self._visit(self._graph, node)]
        types = {node.op for _, node in visited}
        _refuse_state(types - {"AssignVariableOp"} - _WRITES)
        _refuse_other_tables(types)
        if types & _OLD_FLOW and (writes := types & _WRITES):
            names = ", ".join(sorted(writes))
            raise NotStatic(f"the initialiser has {names}, and branches or loops")
        paths = self._path_variables([n for body, n in visited if body is self._graph])
        tables: dict[Resource, tuple[str, frozenset[str]]] = {}
        for body, node in visited:
            if node.op == "AssignVariableOp":
                if body is not self._graph:
                    raise NotStatic(f"it keeps state: {node.op} in the initialiser")
            elif node.op in _WRITES:
                table = self._table(body, node)
                if table in tables:
                    raise NotStatic(f"table {table.name} is filled twice")
                tables[table] = (node.op, self._assets_behind(body, node, paths))
        handles = self._graph.nodes.values()
        path_nodes = {n.name for n in handles if n.op == "VarHandleOp" and resource_of(n) in paths}
        assets = self._assets & {node.name for node in before}
        return Filled(tables, paths, frozenset(path_nodes), frozenset(assets))

    # Walking ----------------------------------------------------------------------------------

    def _nodes_before(self, root: str) -> Iterator[Any]:
        """Yield the nodes of the graph that run before `root`, and it."""
        waiting, seen = [root], set[str]()
        while waiting:
            name = waiting.pop()
            if name in self._graph.nodes and name not in seen:
                seen.add(name)
                node = self._graph.nodes[name]
                waiting += map(node_name, node.input)
                yield node

    def _visit(self, body: _Body, node: Any) -> Iterator[tuple[_Body, Any]]:
        self._left -= 1
        if self._left < 0:
            raise NotStatic("its initialiser is too large to be looked through")
        called = called_functions(node) & self._functions.keys()
        if not called:
            yield body, node
        elif node.op in _CALLS or node.op in self._functions:
            for name in called:
                yield from self._visit_function(body, node, name)
        else:  # branches, loops: nobody knows how often
            types = {n.op for n in self._nodes_within(called)}
            if writes := types & (_WRITES | {"AssignVariableOp"}):
                names = ", ".join(sorted(writes))
                raise NotStatic(f"{names} in a branch or a loop of the initialiser")
            _refuse_state(types)
            _refuse_other_tables(types)
            yield body, node

    def _visit_function(self, body: _Body, call: Any, name: str) -> Iterator[tuple[_Body, Any]]:
        function = self._functions[name]
        given = [source for source in call.input if not source.startswith("^")]
        names = [argument.name for argument in function.signature.input_arg]
        nodes = {node.name: node for node in function.node_def}
        inner = _Body(nodes, body, dict(zip(names, given, strict=False)))
        for node in function.node_def:
            yield from self._visit(inner, node)

    def _nodes_within(self, functions: Iterable[str]) -> Iterator[Any]:
        """Yield the nodes of functions, and of those that they call."""
        waiting, seen = list(functions), set[str]()
        while waiting:
            name = waiting.pop()
            if name in self._functions and name not in seen:
                seen.add(name)
                for node in self._functions[name].node_def:
                    yield node
                    waiting += called_functions(node)

    # Following a tensor back ------------------------------------------------------------------

    def _origin(self, body: _Body, reference: str) -> tuple[_Body, Any]:
        """Return the node that makes a tensor: through arguments, and what hands on its input."""
        while True:
            name = node_name(reference)
            if name in body.nodes:
                node = body.nodes[name]
                if node.op != "Identity":
                    return body, node
                reference = node.input[0]
            elif body.caller is not None and name in body.arguments:
                body, reference = body.caller, body.arguments[name]
            else:
                raise NotStatic(f"the initialiser has no {name}")

    def _table(self, body: _Body, write: Any) -> Resource:
        _, node = self._origin(body, write.input[0])
        if node.op not in _TABLES:
            raise NotStatic(f"{write.op} fills what {node.op} makes")
        return resource_of(node)

    def _path_variables(self, nodes: Iterable[Any]) -> dict[Resource, Assigned]:
        """Return the variables that are assigned an asset's path, and nothing else."""
        paths: dict[Resource, Assigned] = {}
        for node in nodes:
            if node.op != "AssignVariableOp":
                continue
            variable = self._origin(self._graph, node.input[0])[1]
            value = self._origin(self._graph, node.input[1])[1]
            if variable.op != "VarHandleOp" or value.name not in self._assets:
                raise NotStatic(f"it keeps state: {node.op} in the initialiser")
            resource = resource_of(variable)
            if not resource.is_shared:
                raise NotStatic(f"variable {resource.name} has no name of its own")
            if resource in paths:
                raise NotStatic(f"variable {resource.name} is assigned twice")
            paths[resource] = Assigned(node.name, value.name)
        return paths

    def _assets_behind(
        self, body: _Body, write: Any, paths: Mapping[Resource, Assigned]
    ) -> frozenset[str]:
        """Return the assets that a table is filled from. Raises NotStatic if from anything else."""
        found, seen = set[str](), set[tuple[int, str]]()
        data = [source for source in write.input[1:] if not source.startswith("^")]
        waiting = [(body, source) for source in data]
        while waiting:
            home, node = self._origin(*waiting.pop())
            if (id(home), node.name) in seen:
                continue
            seen.add((id(home), node.name))
            if home is self._graph and node.name in self._assets:
                found.add(node.name)
            elif home is self._graph and node.op == "ReadVariableOp":
                found.add(self._asset_read(node, paths, write))
            elif "TextFile" in write.op:
                raise NotStatic(f"{write.op} reads a file that is no asset")
            elif node.op in _PURE:
                waiting += [(home, s) for s in node.input if not s.startswith("^")]
            else:
                raise NotStatic(f"{write.op} depends on {node.op} {node.name}")
        return frozenset(found)

    def _asset_read(self, read: Any, paths: Mapping[Resource, Assigned], write: Any) -> str:
        """Return the asset whose path is read from a variable, after it was assigned."""
        variable = self._origin(self._graph, read.input[0])[1]
        assigned = paths.get(resource_of(variable)) if variable.op == "VarHandleOp" else None
        if assigned is None:
            raise NotStatic(f"{write.op} depends on variable {variable.name}")
        if all(node.name != assigned.node for node in self._nodes_before(read.name)):
            raise NotStatic(f"variable {variable.name} may be read before it is assigned")
        return assigned.asset
