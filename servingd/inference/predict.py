"""Predict: find the servable, bind the inputs to its signature, run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from servingd.core.interfaces import Completion, Lane, Lease, Models
from servingd.core.types import ModelSpec, Signature, Tensors, TensorSpec
from servingd.errors import FailedPrecondition, InvalidArgument

DEFAULT_SIGNATURE = "serving_default"

Shape = Sequence[int | None]


class PredictCall(Completion, Protocol):
    """One call, as its wire presents it; it is completed by the servable.

    It owns the lease that it is given and releases it when its reply is sent, failed or dropped.
    """

    lease: Lease | None
    lane: Lane | None
    """What is being called, once it is known."""

    spec: ModelSpec
    output_filter: Sequence[str]
    """The outputs that are wanted; empty: all of the signature."""

    aliases: Collection[str]
    """The names of the inputs that came."""

    def decode(self, alias: str, spec: TensorSpec) -> np.ndarray[Any, Any]:
        """One input as an array of the type of `spec`; raises InvalidArgument."""
        ...


def predict(models: Models, call: PredictCall) -> None:
    """Run one call. It is completed now or later; a ServingError raised here is its failure.

    The order of the checks, their codes and texts are TensorFlow Serving's. It does not check
    shapes against the signature, and we do: a wrong one may compute nonsense.
    """
    spec = call.spec
    lease = call.lease = models.acquire(spec)
    name = spec.signature_name or DEFAULT_SIGNATURE
    lane = lease.lanes.get(name)
    if lane is None:
        raise FailedPrecondition(f'Serving signature key "{name}" not found.')
    call.lane = lane
    signature = lane.signature
    inputs = _inputs(call, signature)
    if call.output_filter:
        _check_filter(call.output_filter, signature)
    lane.run(inputs, call)


def _inputs(call: PredictCall, signature: Signature) -> Tensors:
    aliases = call.aliases
    wanted = signature.inputs
    if len(aliases) != len(wanted):
        _check_count(aliases, signature)
    inputs: dict[str, np.ndarray[Any, Any]] = {}
    used = 0
    for alias, spec in wanted.items():
        if alias in aliases:
            used += 1
            array = inputs[alias] = call.decode(alias, spec)
            if spec.shape is not None:
                _check_shape(alias, array.shape, spec.shape)
        elif alias in signature.defaults:
            inputs[alias] = signature.defaults[alias]
        else:
            raise _missing(alias, spec, aliases, signature.defaults)
    if used != len(aliases):
        raise InvalidArgument(
            f"Inputs contains invalid name. Used request inputs: "
            f"{_list(a for a in aliases if a in wanted)}, request input: {_list(aliases)}"
        )
    return inputs


def _check_count(aliases: Collection[str], signature: Signature) -> None:
    wanted = signature.inputs
    if len(aliases) < len(wanted) and signature.defaults:
        return
    raise InvalidArgument(
        f"input size does not match signature: {len(aliases)}!={len(wanted)} "
        f"len({{{_list(aliases)}}}) != len({{{_list(wanted)}}}). "
        f"Sent extra: {{{_list(set(aliases) - set(wanted))}}}. "
        f"Missing but required: {{{_list(set(wanted) - set(aliases))}}}."
    )


def _missing(
    alias: str, spec: TensorSpec, aliases: Collection[str], defaults: Mapping[str, Any]
) -> InvalidArgument:
    return InvalidArgument(
        f"Signature input alias: {alias}(feed name: {spec.tensor_name}) not found in request and "
        f"no default value provided. Inputs expected to be in the request {{{_list(aliases)}}}, "
        f"or default input alias set: {{{_list(defaults)}}}"
    )


def _check_shape(alias: str, shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> None:
    if len(shape) == len(wanted):
        for size, fixed in zip(shape, wanted, strict=True):
            if fixed is not None and size != fixed:
                break
        else:
            return
    raise InvalidArgument(
        f"input {alias}: expected a tensor of shape {_shape(wanted)}, got {_shape(shape)}"
    )


def _check_filter(output_filter: Sequence[str], signature: Signature) -> None:
    seen: set[str] = set()
    for alias in output_filter:
        if alias not in signature.outputs:
            raise InvalidArgument(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in "
                f"the set {{{_list(signature.outputs)}}}."
            )
        if alias in seen:
            raise InvalidArgument(f"duplicate output tensor alias: {alias}")
        seen.add(alias)


def _list(names: Any) -> str:
    return ",".join(sorted(names))


def _shape(shape: Shape) -> str:
    return f"[{','.join('-1' if size is None else str(size) for size in shape)}]"
