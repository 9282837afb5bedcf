"""Opens a SavedModel by the first method that can run it, or a graph that was optimised before."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from servingd.core.types import CPU_0, Signature
from servingd.errors import Cancelled, Code, ServingError
from servingd.servables.saved_model.files.mapped_weights import MappedWeights, open_weights
from servingd.servables.saved_model.files.meta_graph import Initialiser, MetaGraph, node_name
from servingd.servables.saved_model.session import c_api
from servingd.servables.saved_model.session.callables import SessionBackend
from servingd.servables.saved_model.session.device_assignment import (
    graph_without_devices,
    has_device_names,
)
from servingd.servables.saved_model.session.options import SessionOptions
from servingd.servables.saved_model.session.python_session import ObjectModel, PythonSession
from servingd.servables.saved_model.session.session import RunningSession, SyntheticRunEnded
from servingd.servables.saved_model.session.warm_up import warm_up
from servingd.servables.tensorflow_runtime.runtime import translate

_log = logging.getLogger(__name__)

ASSIGN = "servingd_assign"
"""The operation of an optimised graph that gives its variables their values."""

NO_VALUES: Mapping[str, Any] = MappingProxyType({})

Backend: TypeAlias = SessionBackend | ObjectModel


class _Method(NamedTuple):
    """One method of opening a model."""

    name: str
    open: Callable[[], Backend]


def open_plain(
    path: str,
    tags: tuple[str, ...],
    options: SessionOptions,
    meta_graph: MetaGraph,
    safe_to_run: MutableMapping[str, bool],
) -> RunningSession:
    """Open the SavedModel under `path` as it is, warm, by the first method that can run it.

    `safe_to_run` says which signatures may be run on synthetic inputs; one whose run had to be
    ended is set to False. Where no method can run the model, the first that opens it is taken: the
    inputs of clients may do better. Raises a ServingError if no method opens it: that of the first
    one, which is TensorFlow's own loader.
    """
    methods = _methods(path, tags, options, meta_graph)
    opened: list[_Method] = []
    refused: ServingError | None = None
    for method in methods:
        failure: ServingError | None
        try:
            session, failure = _open_warm(method, meta_graph.signatures, safe_to_run, options)
        except Exception as error:
            failure = translate(error)
            refused = refused or failure
            if not opened and failure.code is not Code.FAILED_PRECONDITION:
                break  # another method would fare no better
        else:
            if failure is None:
                if opened:
                    _log.info("%s runs as %s, not as %s", path, method.name, opened[0].name)
                return session
            session.close()  # one at a time: a model may fill half of the memory
            opened.append(method)
        _log.info("%s cannot be run as %s, trying the next way: %s", path, method.name, failure)
    if not opened:
        assert refused is not None
        raise refused
    first = opened[0]
    _log.warning("%s answers made-up inputs in no way; it serves as %s", path, first.name)
    try:
        return _open_warm(first, meta_graph.signatures, safe_to_run, options)[0]
    except Exception as error:
        raise translate(error) from error


def _methods(
    path: str, tags: tuple[str, ...], options: SessionOptions, meta_graph: MetaGraph
) -> list[_Method]:
    """Return the methods to try, the fastest first."""
    methods = [
        _Method("a session", lambda: PythonSession(path, tags, options)),
        _Method("an object", lambda: ObjectModel(path, tags)),
    ]
    if c_api.is_sound():
        fastest = (
            _Method("a graph", lambda: _load_without_devices(path, meta_graph, options))
            if _must_clear_devices(meta_graph, options)
            else _Method("the C API", lambda: c_api.load_saved_model(path, tags, options))
        )
        methods.insert(0, fastest)
    return methods


def _open_warm(
    method: _Method,
    signatures: Mapping[str, Signature],
    safe_to_run: MutableMapping[str, bool],
    options: SessionOptions,
) -> tuple[RunningSession, ServingError | None]:
    """Open a session and warm it up; return it with the error that shows it unable to run.

    A signature whose run must be ended costs the session: it is opened again without that run.
    """
    while True:
        session = RunningSession(method.open(), signatures, options)
        try:
            result = warm_up(session, signatures, safe_to_run)
            session.slowest_s = result.slowest_s
            session.trace_devices(signatures, safe_to_run)
        except SyntheticRunEnded as ended:
            session.close()
            if options.limits.cancelled.is_set():
                raise Cancelled("the version is not wanted any more") from ended
            _log.warning(
                "signature %s is not warmed: on made-up inputs it runs for longer than %.0f s, or "
                "takes too much memory",
                ended.signature,
                options.limits.max_synthetic_s,
            )
            safe_to_run[ended.signature] = False
        except BaseException:
            session.close()
            raise
        else:
            return session, result.failure


def _must_clear_devices(meta_graph: MetaGraph, options: SessionOptions) -> bool:
    """Return whether the devices that the graph names must be cleared to place it as planned."""
    if options.device is None:
        return False
    return options.device != CPU_0 or has_device_names(meta_graph.graph_def)


def _load_without_devices(
    path: str, meta_graph: MetaGraph, options: SessionOptions
) -> c_api.CApiSession:
    """Restore and initialise as TensorFlow's loader does, but a graph that names no device."""
    graph_def = graph_without_devices(meta_graph.graph_def)
    backend = c_api.load_graph_def(graph_def, options, optimised=False)
    try:
        variables = f"{path}/variables/variables"
        if meta_graph.restores and os.path.exists(f"{variables}.index"):
            restore = node_name(meta_graph.restores)
            call = backend.make_call([meta_graph.restores_from], [], [restore])
            call(_path_tensor(variables))
            del call
        _initialise(backend, path, meta_graph.initialiser)
    except BaseException:
        backend.close()
        raise
    return backend


def _initialise(backend: c_api.CApiSession, source: str, initialiser: Initialiser) -> None:
    """Run the init operation, fed with the paths of the assets in the model's folder `source`."""
    if initialiser.operation:
        assets = initialiser.assets
        call = backend.make_call(list(assets), [], [node_name(initialiser.operation)])
        call(*(_path_tensor(f"{source}/assets/{file}") for file in assets.values()))


def open_optimised(
    graph: str,
    source: str,
    initialiser: Initialiser,
    options: SessionOptions,
    signatures: Mapping[str, Signature],
    values: Mapping[str, Any] | MappedWeights = NO_VALUES,
) -> RunningSession:
    """Open the optimised GraphDef in the file `graph`; initialise its tables from the assets.

    `source` is the model's folder; `values` are those of the variables that it still has, by what
    takes them, or what a file beside the graph has of them. They are shared, not copied. Raises a
    ServingError, OSError, BadWeights, or TensorFlow's errors.
    """
    backend = c_api.load_graph_def(graph, options, optimised=True)
    try:
        if isinstance(values, MappedWeights):
            file = open_weights(Path(graph).parent, values)
            try:
                backend.assign_mapped(file, values.tensors, ASSIGN)
            finally:
                os.close(file)
        elif values:
            backend.make_call(list(values), [], [ASSIGN])(*values.values())
        _initialise(backend, source, initialiser)
    except BaseException:
        backend.close()
        raise
    session = RunningSession(backend, signatures, options, optimised=True)
    if isinstance(values, MappedWeights):
        session.mapped = tuple(tensor.size for tensor in values.tensors)
    return session


def _path_tensor(path: str) -> Any:
    """Return a path as a scalar string tensor, shape `[]`, dtype object."""
    return np.array(path.encode(), object)
