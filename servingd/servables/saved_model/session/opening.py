"""The ways of opening a SavedModel: several that may run it, and the one for optimised graphs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from servingd.core.types import CPU_0, Signature
from servingd.errors import Cancelled, Code, ServingError
from servingd.servables.saved_model.files.meta_graph import Initialiser, MetaGraph
from servingd.servables.saved_model.session import c_api
from servingd.servables.saved_model.session.device_assignment import names_devices, without_devices
from servingd.servables.saved_model.session.options import SessionOptions
from servingd.servables.saved_model.session.python_session import ObjectModel, PythonSession
from servingd.servables.saved_model.session.session import (
    MadeUpRunEnded,
    Openable,
    RunningSession,
    tried,
)
from servingd.servables.tensorflow.runtime import translate

_log = logging.getLogger(__name__)

Body: TypeAlias = "Openable | ObjectModel"


class _Way(NamedTuple):
    """One way of opening a model."""

    name: str
    open: Callable[[], Body]


def open_plain(
    path: str,
    tags: tuple[str, ...],
    options: SessionOptions,
    meta_graph: MetaGraph,
    warm: MutableMapping[str, bool],
) -> RunningSession:
    """Open a SavedModel as it is, warm, by the first way that can run it.

    `warm` tells which signatures may be run with made-up inputs; one whose run had to be ended is
    struck off. Where no way can run it, the first
    that opens it counts: inputs that a client has may do better. Raises a ServingError if none
    opens it, with what the first one says: that is TensorFlow's own loader.
    """
    ways = _ways(path, tags, options, meta_graph)
    opened: list[_Way] = []
    refused: ServingError | None = None
    for way in ways:
        wrong: ServingError | None
        try:
            session, wrong = _open_warm(way, meta_graph.signatures, warm, options)
        except Exception as error:
            wrong = translate(error)
            refused = refused or wrong
            if not opened and wrong.code is not Code.FAILED_PRECONDITION:
                break  # another way would fare no better
        else:
            if wrong is None:
                if opened:
                    _log.info("%s runs as %s, not as %s", path, way.name, opened[0].name)
                return session
            session.close()  # one at a time: a model may fill half of the memory
            opened.append(way)
        _log.info("%s cannot be run as %s, trying the next way: %s", path, way.name, wrong)
    if not opened:
        assert refused is not None
        raise refused
    first = opened[0]
    _log.warning("%s answers made-up inputs in no way; it serves as %s", path, first.name)
    try:
        return _open_warm(first, meta_graph.signatures, warm, options)[0]
    except Exception as error:
        raise translate(error) from error


def _ways(
    path: str, tags: tuple[str, ...], options: SessionOptions, meta_graph: MetaGraph
) -> list[_Way]:
    ways = [
        _Way("a session", lambda: PythonSession(path, tags, options)),
        _Way("an object", lambda: ObjectModel(path, tags)),
    ]
    if c_api.is_sound():
        if _is_moved(meta_graph, options):
            ways.insert(0, _Way("a graph", lambda: _load_moved(path, meta_graph, options)))
        else:
            ways.insert(0, _Way("the C API", lambda: c_api.load_saved_model(path, tags, options)))
    return ways


def _open_warm(
    way: _Way,
    signatures: Mapping[str, Signature],
    warm: MutableMapping[str, bool],
    options: SessionOptions,
) -> tuple[RunningSession, ServingError | None]:
    """A warm session, and what speaks against it, if something does."""
    while True:
        session = RunningSession(way.open(), signatures, options)
        try:
            found = tried(session, signatures, warm)
            session.slowest_s = found.slowest_s
            session.look(signatures, warm)
        except MadeUpRunEnded as ended:
            session.close()
            if options.limits.cancelled.is_set():
                raise Cancelled("the version is not wanted any more") from ended
            _log.warning(
                "signature %s is not warmed: on made-up inputs it runs for longer than %.0f s, or "
                "takes too much memory",
                ended.signature,
                options.limits.made_up_s,
            )
            warm[ended.signature] = False
        except BaseException:
            session.close()
            raise
        else:
            return session, found.wrong


def _is_moved(meta_graph: MetaGraph, options: SessionOptions) -> bool:
    """Whether its graph must not be opened as it is, for the sake of the devices in it."""
    if options.device is None:
        return False
    return options.device != CPU_0 or names_devices(meta_graph.graph_def)


def _load_moved(path: str, meta_graph: MetaGraph, options: SessionOptions) -> c_api.CApiSession:
    """What TensorFlow's loader does, but with a graph that names no device."""
    graph_def = without_devices(meta_graph.graph_def)
    backend = c_api.load_graph_def(graph_def, options, optimised=False)
    try:
        variables = f"{path}/variables/variables"
        if meta_graph.restores and os.path.exists(f"{variables}.index"):
            call = backend.make_call([meta_graph.restores_from], [], [_op(meta_graph.restores)])
            call(_path_tensor(variables))
            del call
        _initialise(backend, path, meta_graph.initialiser)
    except BaseException:
        backend.close()
        raise
    return backend


def _initialise(backend: c_api.CApiSession, source: str, initialiser: Initialiser) -> None:
    if initialiser.operation:
        assets = initialiser.assets
        call = backend.make_call(list(assets), [], [_op(initialiser.operation)])
        call(*(_path_tensor(f"{source}/assets/{file}") for file in assets.values()))


def _op(tensor: str) -> str:
    return tensor.split(":", 1)[0]


def open_optimised(
    path: str,
    source: str,
    initialiser: Initialiser,
    options: SessionOptions,
    signatures: Mapping[str, Signature],
) -> RunningSession:
    """Open an optimised graph and initialise its tables from the model's assets."""
    backend = c_api.load_graph_def(path, options, optimised=True)
    try:
        _initialise(backend, source, initialiser)
    except BaseException:
        backend.close()
        raise
    return RunningSession(backend, signatures, options, optimised=True)


def _path_tensor(path: str) -> Any:
    return np.array(path.encode(), object)
