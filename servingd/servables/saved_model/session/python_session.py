"""Sessions opened by TensorFlow's public API: the fallback, and what the optimiser reads.

They give the same answers, but load more slowly, and hold the GIL meanwhile.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from servingd.core.types import CPU_0, Device
from servingd.servables.saved_model.session.c_api import interrupt, make_call, traced
from servingd.servables.saved_model.session.device_assignment import assign_device
from servingd.servables.saved_model.session.options import SessionOptions
from servingd.servables.tensorflow_runtime.runtime import tensorflow


class PythonSession:
    """A SavedModel in a `tf.compat.v1.Session`, with its meta graph."""

    def __init__(self, path: str, tags: tuple[str, ...], options: SessionOptions) -> None:
        tf1 = tensorflow().compat.v1
        self.graph = tensorflow().Graph()
        self.session = tf1.Session(graph=self.graph, config=options.config())
        try:
            with self.graph.as_default():
                self.meta_graph = _load(self.session, list(tags), path, options.device)
                _restore_the_rest(self.session, self.graph, self.meta_graph, path)
        except BaseException:
            self.session.close()
            raise

    def make_call(
        self,
        feeds: list[str],
        fetches: list[str],
        targets: list[str] | None = None,
        timeout_s: float | None = None,
    ) -> Callable[..., list[Any]]:
        """See `CApiSession.make_call`."""
        return make_call(self.session, feeds, fetches, targets, timeout_s)

    def interrupt(self) -> None:
        """See `CApiSession.interrupt`."""
        interrupt(self.session)

    def trace(self, feeds: list[str], fetches: list[str], arrays: Iterable[Any]) -> Any:
        """See `CApiSession.trace`."""
        return traced(self.session, feeds, fetches, arrays)

    def close(self) -> None:
        """Free the session; every callable must be gone."""
        self.session.close()


def _load(session: Any, tags: list[str], path: str, device: Device | None) -> Any:
    """Restore and initialise the meta graph; its nodes are placed on `device`, if given."""
    tf1 = tensorflow().compat.v1
    if device is None or device == CPU_0:
        return tf1.saved_model.load(session, tags, path)
    from tensorflow.python.saved_model import loader_impl

    loader = loader_impl.SavedModelLoader(path)
    assign_device(loader.get_meta_graph_def_from_tags(tags).graph_def, device)
    return loader.load(session, tags)


def _restore_the_rest(session: Any, graph: Any, meta_graph: Any, path: str) -> None:
    """Set the variables that the restore operation does not reach.

    A Keras 3 model given to `tf.saved_model.save` has two sets of variables: those that its
    signatures read carry other names than those that are restored. Both are nodes of one object
    graph. Which of its nodes a variable is, the functions tell that captured it, else its name.
    Where neither leaves no doubt, it stays unset, and reading it is an error: never another one's
    value.
    """
    tf1 = tensorflow().compat.v1
    variables = {
        index: node.variable.name
        for index, node in enumerate(meta_graph.object_graph_def.nodes)
        if node.WhichOneof("kind") == "variable"
    }
    handles = {op.name: op.outputs[0] for op in graph.get_operations() if op.type == "VarHandleOp"}
    captured = captured_handles(meta_graph, handles)
    named = handles_of(variables, handles)
    numbers = {h: n for n, h in named.items() if n not in captured.values()} | captured
    known = [(index, handles[name]) for name, index in numbers.items()]
    if not known:
        return
    raw = tensorflow().raw_ops
    set_already = session.run([raw.VarIsInitializedOp(resource=handle) for _, handle in known])
    unset = [pair for pair, is_set in zip(known, set_already, strict=True) if not is_set]
    if not unset:
        return
    reader = tf1.train.load_checkpoint(f"{path}/variables/variables")
    keys = _checkpoint_keys(reader, meta_graph.object_graph_def)
    values = {
        tf1.placeholder(value.dtype, value.shape): (handle, value)
        for index, handle in unset
        if index in keys
        for value in (reader.get_tensor(keys[index]),)
    }
    # In one run: each makes TensorFlow look at the whole graph again.
    session.run(
        [
            raw.AssignVariableOp(resource=h, value=placeholder)
            for placeholder, (h, _) in values.items()
        ],
        {placeholder: value for placeholder, (_, value) in values.items()},
    )


def captured_handles(meta_graph: Any, handles: Collection[str]) -> dict[str, int]:
    """Return by node that holds a variable the variable's number, as the calls in the graph tell.

    A call's inputs are the function's own, then what it captured, in the order in which the object
    graph lists that.
    """
    objects = meta_graph.object_graph_def
    found: dict[str, set[int]] = {}
    for node in meta_graph.graph_def.node:
        function = node.attr["f"].func.name if "f" in node.attr else ""
        if function not in objects.concrete_functions:
            continue
        bound = objects.concrete_functions[function].bound_inputs
        given = [source for source in node.input if not source.startswith("^")]
        for number, handle in zip(reversed(bound), reversed(given), strict=False):
            if handle in handles:
                found.setdefault(handle, set()).add(number)
    return {
        handle: number
        for handle, (number, *others) in found.items()
        if not others and objects.nodes[number].WhichOneof("kind") == "variable"
    }


def handles_of(variables: Mapping[int, str], handles: Collection[str]) -> dict[int, str]:
    """Return by a variable's number the node that holds it, where names leave no doubt.

    A node is called as its variable, or that with `_1`, `_2` and so on where the name was taken. So
    a name is doubtful if several variables have it, or several nodes may belong to it, or a node
    may belong to several.
    """
    times = Counter(variables.values())
    owners = {handle: [n for n in _names_behind(handle) if n in times] for handle in handles}
    owned = Counter(name for names in owners.values() for name in names)
    found = {
        names[0]: handle
        for handle, names in owners.items()
        if len(names) == 1 and times[names[0]] == 1 and owned[names[0]] == 1
    }
    return {index: found[name] for index, name in variables.items() if name in found}


def _names_behind(node: str) -> Iterator[str]:
    """Yield a node's name, and those that it may have been made of to be unique."""
    yield node
    while (match := re.fullmatch(r"(.+)_\d+", node)) is not None:
        node = match[1]
        yield node


def _checkpoint_keys(reader: Any, objects: Any) -> dict[int, str]:
    """Return by a variable's number in the object graph the key of its value.

    The checkpoint has an object graph of its own: both are walked from the root, by the same names.
    """
    from tensorflow.core.protobuf import trackable_object_graph_pb2

    stored = trackable_object_graph_pb2.TrackableObjectGraph.FromString(
        reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH")
    )
    pairs = {0: 0}
    waiting = [0]
    while waiting:
        number = waiting.pop()
        children = {c.local_name: c.node_id for c in stored.nodes[pairs[number]].children}
        for child in objects.nodes[number].children:
            if child.local_name in children and child.node_id not in pairs:
                pairs[child.node_id] = children[child.local_name]
                waiting.append(child.node_id)
    return {
        number: stored.nodes[place].attributes[0].checkpoint_key
        for number, place in pairs.items()
        if stored.nodes[place].attributes
    }


class ObjectModel:
    """A SavedModel loaded as an object: the last resort, for what no session can run."""

    def __init__(self, path: str, tags: tuple[str, ...]) -> None:
        self._module = tensorflow().saved_model.load(path, tags=list(tags))

    def make_signature_call(
        self, name: str, inputs: list[str], outputs: list[str]
    ) -> Callable[..., list[Any]]:
        """Return a callable over the signature's function: arrays in, values out."""
        function = self._module.signatures[name]
        constant = tensorflow().constant

        def call(*arrays: Any) -> list[Any]:
            answer = function(**{k: constant(a) for k, a in zip(inputs, arrays, strict=True)})
            return [answer[k].numpy() for k in outputs]

        return call

    def interrupt(self) -> None:
        """Do nothing: TensorFlow cannot end a run of a function that is called eagerly."""

    def close(self) -> None:
        """Drop the module."""
        del self._module
