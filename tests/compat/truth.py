"""What TensorFlow itself makes of a SavedModel: its C++ loader, and a session's run by names.

Nothing of servingd is used here.
"""

from __future__ import annotations

import ctypes
import functools
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Refusal:
    """A canonical code, and TensorFlow's text."""

    code: int
    text: str


@dataclass
class Truth:
    """A model as TensorFlow has it: refused, or open for runs."""

    refused: Refusal | None = None
    session: Any = None
    signatures: dict[str, Any] = field(default_factory=dict)
    """SignatureDefs."""

    def run(self, name: str, inputs: dict[str, Any], wanted: list[str]) -> dict[str, Any] | Refusal:
        """These outputs of a signature; as TensorFlow Serving asks: names in, names out."""
        from tensorflow.core.protobuf import config_pb2

        definition = self.signatures[name]
        options = config_pb2.CallableOptions()
        options.feed.extend(definition.inputs[alias].name for alias in inputs)
        options.fetch.extend(definition.outputs[alias].name for alias in wanted)
        try:
            call = self.session._make_callable_from_options(options)
            return dict(zip(wanted, call(*inputs.values()), strict=True))
        except Exception as error:
            code = getattr(error, "error_code", None)
            return Refusal(-1 if code is None else int(code), str(getattr(error, "message", error)))


def truth_of(path: Path, tags: tuple[str, ...] = ("serve",)) -> Truth:
    """Load by the C++ loader; where that succeeds, open a session for runs."""
    import tensorflow as tf

    refused = loaded_by_cpp(path, tags)
    if refused is not None:
        return Truth(refused)
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        found = tf.compat.v1.saved_model.loader.load(session, list(tags), str(path))
    return Truth(None, session, dict(found.signature_def))


def loaded_by_cpp(path: Path, tags: tuple[str, ...]) -> Refusal | None:
    """Why TF_LoadSessionFromSavedModel refuses; None if it loads."""
    lib = _library()
    pointer = ctypes.c_void_p
    status, graph = pointer(lib.TF_NewStatus()), pointer(lib.TF_NewGraph())
    options = pointer(lib.TF_NewSessionOptions())
    names = (ctypes.c_char_p * len(tags))(*(tag.encode() for tag in tags))
    session = lib.TF_LoadSessionFromSavedModel(
        options, None, os.fsencode(path), names, len(tags), graph, None, status
    )
    code, text = lib.TF_GetCode(status), lib.TF_Message(status).decode(errors="replace")
    if session:
        lib.TF_CloseSession(pointer(session), status)
        lib.TF_DeleteSession(pointer(session), status)
    lib.TF_DeleteGraph(graph)
    lib.TF_DeleteSessionOptions(options)
    lib.TF_DeleteStatus(status)
    return Refusal(code, text) if code else None


@functools.cache
def _library() -> ctypes.CDLL:
    import tensorflow as tf

    lib = ctypes.CDLL(os.path.join(os.path.dirname(tf.__file__), "libtensorflow_cc.so.2"))
    for name in (
        "TF_NewStatus",
        "TF_NewGraph",
        "TF_NewSessionOptions",
        "TF_LoadSessionFromSavedModel",
    ):
        getattr(lib, name).restype = ctypes.c_void_p
    lib.TF_GetCode.argtypes = [ctypes.c_void_p]
    lib.TF_Message.argtypes = [ctypes.c_void_p]
    lib.TF_Message.restype = ctypes.c_char_p
    return lib
