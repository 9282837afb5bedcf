"""SignatureDefs that a TF Lite model carries in its metadata, as TensorFlow Serving reads them."""

from __future__ import annotations

import logging
import struct

from google.protobuf.message import DecodeError

from servingd.core.types import Signature
from servingd.errors import ServingError
from servingd.servables.tensorflow_runtime.runtime import tensorflow
from servingd.wire import protos
from servingd.wire.signatures import signature_from_def

_METADATA = b"signature_defs_metadata"

_log = logging.getLogger(__name__)


def signature_defs(content: bytes) -> dict[str, Signature]:
    """Return the signatures by name; none if the metadata holds none, or does not parse."""
    found: dict[str, Signature] = {}
    try:
        for name, serialised in _entries(content):
            definition = protos.SignatureDef.FromString(serialised)
            found[name] = signature_from_def(name, definition)
    except (DecodeError, ServingError, ValueError, IndexError, TypeError, struct.error) as error:
        _log.warning("a TF Lite model's SignatureDefs cannot be read: %s", error)
        return {}
    return found


def _entries(content: bytes) -> list[tuple[str, bytes]]:
    """Return names and serialised SignatureDefs: they are a map of flexbuffers in a buffer."""
    tensorflow()  # brings flatbuffers
    from flatbuffers import flexbuffers
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.Model.GetRootAsModel(content, 0)
    for index in range(model.MetadataLength()):
        metadata = model.Metadata(index)
        if metadata.Name() != _METADATA:
            continue
        packed = model.Buffers(metadata.Buffer()).DataAsNumpy().tobytes()
        entries = flexbuffers.GetRoot(packed).AsMap
        return [
            (key.AsKey, value.AsBlob if value.IsBlob else bytes(value.AsStringBytes))
            for key, value in zip(entries.Keys, entries.Values, strict=True)
        ]
    return []
