"""Protobuf's messages as plain values: what both APIs answer with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from servingd.client.answers import ModelMetadata, Signature, TensorSpec, VersionStatus
from servingd.core.types import DataType
from servingd.errors import Code, InvalidArgument
from servingd.wire import protos

if TYPE_CHECKING:
    from servingd.wire.protos import (
        GetModelStatusResponse,
        ReloadConfigRequest,
        SignatureDefMap,
        TensorInfo,
    )

_PLATFORM = "tensorflow"


def metadata_of(name: str, version: int, found: SignatureDefMap) -> ModelMetadata:
    """Return a model's metadata; names are in alphabetical order."""
    signatures = {
        key: Signature(
            {alias: spec_of(info) for alias, info in sorted(one.inputs.items())},
            {alias: spec_of(info) for alias, info in sorted(one.outputs.items())},
            one.method_name,
        )
        for key, one in sorted(found.signature_def.items())
    }
    return ModelMetadata(name, version, signatures)


def shape_of(info: TensorInfo) -> tuple[int | None, ...] | None:
    """Return a tensor's shape, with None for a dimension that may vary; None: the rank may."""
    shape = info.tensor_shape
    if shape.unknown_rank:
        return None
    return tuple(dim.size if dim.size >= 0 else None for dim in shape.dim)


def spec_of(info: TensorInfo) -> TensorSpec:
    """Return one input or output."""
    try:
        dtype = DataType(info.dtype).name
    except ValueError:  # newer than this client
        dtype = str(int(info.dtype))
    return TensorSpec(dtype, shape_of(info), info.name)


def versions_of(found: GetModelStatusResponse) -> list[VersionStatus]:
    """Return the states of versions."""
    states = protos.ModelVersionStatus.State
    return [
        VersionStatus(
            one.version,
            states.Name(one.state),
            Code(one.status.error_code).name,
            one.status.error_message,
        )
        for one in found.model_version_status
    ]


def reload_request(models: Any) -> ReloadConfigRequest:
    """Return the request for new models.

    `models` is the text of a `models.config`, or a list of mappings with the fields of ModelConfig,
    whose platform is `tensorflow` where none is named. Raises InvalidArgument.
    """
    from google.protobuf import json_format, text_format

    request = protos.ReloadConfigRequest()
    try:
        if isinstance(models, str):
            text_format.Parse(models, request.config, descriptor_pool=protos.POOL)
            return request
        request.config.model_config_list.SetInParent()
        for fields in models:
            added = request.config.model_config_list.config.add()
            json_format.ParseDict(
                {"model_platform": _PLATFORM, **fields}, added, descriptor_pool=protos.POOL
            )
    except (text_format.ParseError, json_format.ParseError, TypeError) as error:
        raise InvalidArgument(f"models: {error}") from error
    return request
