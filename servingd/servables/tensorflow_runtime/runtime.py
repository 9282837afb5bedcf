"""TensorFlow, imported once and on first use, and its errors in our words."""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import os
import re
import threading
import time
from types import ModuleType

from servingd.errors import (
    InvalidArgument,
    ServingError,
    Unimplemented,
    as_serving_error,
    error_from_code,
)
from servingd.machine.memory import trim_heap
from servingd.servables.tensorflow_runtime.quiet import without_noise

_log = logging.getLogger(__name__)

# What TensorFlow appends for Python developers; it says nothing to a caller.
_TAIL = re.compile(r"\s*\[\[\{\{.*?\}\}\]\]|\s*Hint: If you want to see.*", re.S)
_UNKNOWN = re.compile(r"Op type not registered '([^']*)'")
TEXT_PACKAGE = "tensorflow_text"
"""TensorFlow Text: TensorFlow Serving's binary has its operations, TensorFlow has not."""
_OF_TEXT = frozenset(
    [
        "CaseFoldUTF8",
        "ConstrainedSequence",
        "FastBertNormalize",
        "FastWordpieceTokenizeWithOffsets",
        "FindSourceOffsets",
        "MaxSpanningTree",
        "NormalizeUTF8",
        "NormalizeUTF8WithOffsetsMap",
        "PhraseTokenize",
        "RegexSplitWithOffsets",
        "RougeL",
        "SentenceFragments",
        "SentenceFragmentsV2",
        "SentencepieceDetokenizeOp",
        "SentencepieceIdToStringOp",
        "SentencepieceOp",
        "SentencepieceStringToIdOp",
        "SentencepieceTokenizeOp",
        "SentencepieceTokenizeWithOffsetsOp",
        "SentencepieceVocabSizeOp",
        "SplitMergeTokenizeWithOffsets",
        "TokenizerFromLogits",
        "UnicodeScriptTokenizeWithOffsets",
        "WhitespaceTokenizeWithOffsets",
        "WordpieceTokenizeWithOffsets",
    ]
)
"""Its operations without the prefix `TFText>`."""
_HEAD = "Graph execution error:\n\n"

_importing = threading.Lock()

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_ENVIRONMENT = {
    # Each session has its own threads: a load never takes those of a model that serves.
    "TF_OVERRIDE_GLOBAL_THREADPOOL": "1",
    # TensorFlow's own INFO lines tell an operator nothing that ours do not.
    _LEVEL: "2",
}


def tensorflow() -> ModuleType:
    """Return the `tensorflow` module. The first call takes seconds; others wait for it.

    Raises Unimplemented where it is not installed, or cannot be imported.
    """
    with _importing:  # the cache alone would let two threads in
        return _import_tensorflow()


def is_loaded() -> bool:
    """Return whether TensorFlow is imported, all of it; never waits."""
    return _import_tensorflow.cache_info().currsize > 0


@functools.cache
def _import_tensorflow() -> ModuleType:
    """Import it, and take all that it made out of the garbage collector's sight.

    A collection would otherwise stop every thread for about 170 ms.
    """
    started = time.monotonic()
    said = _LEVEL in os.environ  # by the operator, who then hears what he asked for
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        with contextlib.nullcontext() if said else without_noise():
            import tensorflow as tf
    except ImportError as error:
        advice = 'install it with: pip install "servingd[cpu]"'
        raise Unimplemented(f"TensorFlow cannot be imported: {error}; {advice}") from error

    logger = tf.get_logger()
    logger.setLevel(
        logging.ERROR
    )  # it warns of the deprecation of what there is no other way to do
    for handler in list(logger.handlers):  # it propagates to ours as well
        logger.removeHandler(handler)
    gc.collect()
    gc.freeze()
    _log.info("TensorFlow %s imported in %.1f s", tf.__version__, time.monotonic() - started)
    module: ModuleType = tf
    return module


def translate(error: Exception) -> ServingError:
    """Return TensorFlow's error as ours: its canonical code, and its text without the tail."""
    if isinstance(error, UnicodeDecodeError):
        # TensorFlow quotes the caller's bytes in a text that should be UTF-8, and its code is lost.
        return InvalidArgument(clean(error.object.decode(errors="replace")))
    code = getattr(error, "error_code", None)
    if code is None:
        return as_serving_error(error)
    return error_from_code(int(code), clean(str(getattr(error, "message", error))))


def clean(message: str) -> str:
    """Return TensorFlow's text for callers, with how to get an unknown operation."""
    text = _TAIL.sub("", message.removeprefix(_HEAD)).strip()
    unknown = _UNKNOWN.search(text)
    return f"{text} ({_how_to_register(unknown[1])})" if unknown else text


def is_of_text(operation: str) -> bool:
    """Return whether an operation is TensorFlow Text's."""
    return operation.startswith("TFText>") or operation in _OF_TEXT


def _how_to_register(operation: str) -> str:
    if is_of_text(operation):
        return (
            f"{operation} is TensorFlow Text's: install the package tensorflow-text of "
            "TensorFlow's version"
        )
    return (
        f"what registers {operation} can be named by --op_libraries, if it is a library, or by "
        "--python_imports, if it is a module"
    )


def give_memory_back() -> None:
    """Return the memory that closed sessions leave behind to the system."""
    gc.collect()  # graphs are cyclic
    trim_heap()
