"""Operations that TensorFlow does not have: loads the libraries and modules that register them.

Only flags name libraries and modules. Of a model no more is taken than the names of its operations:
a model must not choose what code runs.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import threading

from servingd.config.saved_model import Extensions
from servingd.errors import InvalidConfig, ServingError
from servingd.servables.tensorflow_runtime.runtime import TEXT_PACKAGE, is_of_text, tensorflow
from servingd.wire import protos

_log = logging.getLogger(__name__)

_loading = threading.Lock()


def load_extensions(configured: Extensions) -> None:
    """Load the libraries and modules that flags name, each once per process.

    Raises InvalidConfig naming the flag.
    """
    with _loading:
        for path in configured.op_libraries:
            _load_library(path)
        for name in configured.python_imports:
            _import(name)


def load_extensions_for(graph: protos.Graph) -> None:
    """Import TensorFlow Text if a graph has operations of it, and it is installed."""
    if not any(map(is_of_text, _operations(graph))):
        return
    with _loading:
        if importlib.util.find_spec(TEXT_PACKAGE) is None:
            return  # TensorFlow names the operation that it lacks, and `clean` adds how to get it
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
