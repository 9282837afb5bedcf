"""SignatureDefs as the core's signatures, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from servingd.core.types import DataType, Signature, TensorSpec
from servingd.errors import InvalidArgument, Unimplemented
from servingd.wire import protos
from servingd.wire.tensors.decoding import decode
from servingd.wire.tensors.encoding import encode
from servingd.wire.tensors.types import numpy_dtype

if TYPE_CHECKING:
    from servingd.wire.protos import SignatureDef, SignatureDefMap, TensorInfo, TensorShapeProto

_KNOWN = frozenset(map(int, DataType))

_REFERENCE = 100
"""The difference of `DT_FLOAT_REF` and its like to the type that they refer to."""


def signature_from_def(name: str, definition: SignatureDef) -> Signature:
    """Return a SignatureDef as a signature; its aliases are sorted.

    A tensor without a name of its own (a sparse or composite one) gets an empty `tensor_name`. It
    is shown, and cannot be fed or fetched; so is one of a type that is not served.
    """
    tensors = [*definition.inputs.items(), *definition.outputs.items()]
    return Signature(
        name=name,
        inputs={alias: _spec(info) for alias, info in sorted(definition.inputs.items())},
        outputs={alias: _spec(info) for alias, info in sorted(definition.outputs.items())},
        method_name=definition.method_name,
        defaults={alias: decode(tensor, alias) for alias, tensor in definition.defaults.items()},
        definition=definition.SerializeToString(deterministic=True),
        unserved={alias: reason for alias, info in tensors if (reason := _why_not(info))},
    )


def _why_not(info: TensorInfo) -> str:
    """Return why a tensor cannot be fed or fetched; empty if it can."""
    if not info.name:
        kind = {"coo_sparse": "sparse", "composite_tensor": "composite"}
        return f"a {kind.get(info.WhichOneof('encoding') or '', 'nameless')} tensor is not served"
    try:
        numpy_dtype(_data_type(info))
    except (InvalidArgument, Unimplemented) as error:
        return error.message
    return ""


def signature_def(signature: Signature) -> SignatureDef:
    """Return the signature's own SignatureDef, or one made from its specs."""
    if signature.definition:
        brought: SignatureDef = protos.SignatureDef.FromString(signature.definition)
        return brought
    definition = protos.SignatureDef(method_name=signature.method_name)
    for specs, infos in (
        (signature.inputs, definition.inputs),
        (signature.outputs, definition.outputs),
    ):
        for alias, spec in specs.items():
            _fill(infos[alias], spec)
    for alias, value in signature.defaults.items():
        content = encode(value, signature.inputs[alias].data_type)
        definition.defaults[alias].MergeFromString(content)
    return definition


def signature_def_map(signatures: Mapping[str, Signature]) -> SignatureDefMap:
    """Return the SignatureDefMap of a GetModelMetadata response."""
    result = protos.SignatureDefMap()
    for name, signature in signatures.items():
        result.signature_def[name].CopyFrom(signature_def(signature))
    return result


def _spec(info: TensorInfo) -> TensorSpec:
    return TensorSpec(_data_type(info), _shape(info.tensor_shape), info.name)


def _data_type(info: TensorInfo) -> DataType:
    """Return a tensor's type; INVALID for a number that we do not know.

    An old graph may refer to a variable; what is fed or fetched is its value.
    """
    number = info.dtype - _REFERENCE if info.dtype > _REFERENCE else info.dtype
    return DataType(number) if number in _KNOWN else DataType.INVALID


def _shape(shape: TensorShapeProto) -> tuple[int | None, ...] | None:
    if shape.unknown_rank:
        return None
    return tuple(None if dim.size < 0 else dim.size for dim in shape.dim)


def _fill(info: TensorInfo, spec: TensorSpec) -> None:
    info.name = spec.tensor_name
    info.dtype = int(spec.data_type)  # type: ignore[assignment]
    if spec.shape is None:
        info.tensor_shape.unknown_rank = True
        return
    for size in spec.shape:
        info.tensor_shape.dim.add(size=-1 if size is None else size)
