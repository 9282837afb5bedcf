"""GetModelMetadata: the signatures of a servable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from servingd.core.call_protocols import Models
from servingd.core.types import ModelSpec, ServableId, Signature
from servingd.errors import InvalidArgument

SIGNATURE_DEF = "signature_def"


def model_metadata(
    models: Models, spec: ModelSpec | None, fields: Sequence[str]
) -> tuple[ServableId, Mapping[str, Signature]]:
    """Return the version that answers, and all its signatures.

    The checks and their order are TensorFlow Serving's. Raises ServingError.
    """
    if spec is None:
        raise InvalidArgument("Missing ModelSpec")
    if not fields:
        raise InvalidArgument("GetModelMetadataRequest must specify at least one metadata_field")
    for field in fields:
        if field != SIGNATURE_DEF:
            raise InvalidArgument(f"Metadata field {field} is not supported")
    handle = models.acquire(spec)
    try:
        return handle.id, handle.metadata
    finally:
        handle.release()
