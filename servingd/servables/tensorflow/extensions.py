"""Operations that TensorFlow does not bring: who registers them, and what to say where nobody does.

Only flags name libraries and modules; of a model no more is taken than the names of its operations.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import threading

from servingd.config.saved_model import Extensions
from servingd.errors import InvalidConfig, ServingError
from servingd.servables.tensorflow.runtime import TEXT_PACKAGE, is_of_text, tensorflow
from servingd.wire import protos

_log = logging.getLogger(__name__)

_one_at_a_time = threading.Lock()


def bring(said: Extensions) -> None:
    """Load what an operator named, each once per process. Raises InvalidConfig naming the flag."""
    with _one_at_a_time:
        for path in said.op_libraries:
            _load_library(path)
        for name in said.python_imports:
            _import(name)


def bring_for(graph: protos.Graph) -> None:
    """Import the packages that bring a graph's operations, where they are installed."""
    if not any(map(is_of_text, _operations(graph))):
        return
    with _one_at_a_time:
        if importlib.util.find_spec(TEXT_PACKAGE) is None:
            return  # TensorFlow says which operation it lacks, and we add what brings it
        try:
            _import(TEXT_PACKAGE)
        except ServingError as error:
            _log.error("%s", error)


def _operations(graph: protos.Graph) -> set[str]:
    bodies = (node.op for function in graph.library.function for node in function.node_def)
    return {node.op for node in graph.node} | set(bodies)


@functools.cache
def _load_library(path: str) -> None:
    tf = tensorflow()
    try:
        tf.load_op_library(path)
    except Exception as error:
        text = getattr(error, "message", error)
        raise InvalidConfig(f"op_libraries: {path} cannot be loaded: {text}") from error
    _log.info("operations of %s are registered", path)


@functools.cache
def _import(name: str) -> None:
    tensorflow()
    try:
        importlib.import_module(name)
    except Exception as error:
        text = f"python_imports: {name} cannot be imported: {type(error).__name__}: {error}"
        raise InvalidConfig(text) from error
    _log.info("operations of %s are registered", name)
