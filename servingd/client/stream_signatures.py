"""What a caller of a stream sees where two signatures of a model make it."""

from __future__ import annotations

from collections.abc import Mapping

from servingd.client.answers import Signature, TensorSpec
from servingd.core import types
from servingd.core.stream_pairs import find_pairs
from servingd.core.types import DataType


def stream_signature(name: str, signatures: Mapping[str, Signature]) -> Signature | None:
    """Return the inputs and a part's outputs of the pair called `name`; None if there is none."""
    known = {
        key: types.Signature(key, _typed(one.inputs), _typed(one.outputs), one.method)
        for key, one in signatures.items()
    }
    pairs, _ = find_pairs(known)
    if name not in pairs:
        return None
    pair = pairs[name]
    init, step = signatures[pair.init], signatures[pair.step]
    outputs = {alias: step.outputs[alias] for alias in pair.signature.outputs}
    return Signature(init.inputs, outputs, init.method)


def _typed(specs: Mapping[str, TensorSpec]) -> dict[str, types.TensorSpec]:
    return {
        alias: types.TensorSpec(DataType.__members__.get(spec.dtype, DataType.INVALID), spec.shape)
        for alias, spec in specs.items()
    }
