"""Predict: find the servable, bind the inputs to its signature, run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from servingd.core.call_protocols import Models
from servingd.core.types import Signature, Tensors, TensorSpec
from servingd.errors import FailedPrecondition, Internal, InvalidArgument, ServingError
from servingd.inference.checks import (
    CLASSIFY_METHOD,
    DEFAULT_SIGNATURE,
    NO_CHECKS,
    PREDICT_METHOD,
    REGRESS_METHOD,
    Checks,
    InferenceCall,
    check_served,
    check_shapes,
)
from servingd.wire.tensors.decoding import decode
from servingd.wire.tensors.types import type_name

if TYPE_CHECKING:
    from servingd.wire.protos import InputTensor, TensorProto

_METHODS = (PREDICT_METHOD, CLASSIFY_METHOD, REGRESS_METHOD)

Decode: TypeAlias = Callable[[str, TensorSpec], np.ndarray[Any, Any]]
"""Returns one input as an array of its spec's dtype; raises InvalidArgument."""


class PredictCall(InferenceCall, Protocol):
    """A Predict call."""

    @property
    def output_filter(self) -> Sequence[str]:
        """The outputs that the caller wants; empty: all of the signature."""
        ...

    def bind(self, signature: Signature) -> Tensors:
        """Return every input of the signature, in its order; raises ServingError for wrong ones."""
        ...

    def no_such_signature(self, name: str) -> ServingError:
        """Return the error of the call's API for a signature that the servable does not have."""
        ...


def predict(models: Models, call: PredictCall, checks: Checks = NO_CHECKS) -> None:
    """Run one call. It is completed now or later; a ServingError that is raised is its failure.

    The order of the checks, their codes and texts are TensorFlow Serving's.
    """
    spec = call.spec
    handle = call.handle = models.acquire(spec)
    name = spec.signature_name or DEFAULT_SIGNATURE
    runner = handle.runners.get(name)
    if runner is None:
        raise call.no_such_signature(name)
    call.runner = runner
    signature = runner.signature
    if checks.method_name and signature.method_name not in _METHODS:
        raise Internal(
            "Expected prediction signature method_name to be one of "
            f"{{{', '.join(_METHODS)}}}. Was: {signature.method_name}"
        )
    if signature.unserved:
        check_served(signature, signature.inputs)
    inputs = call.bind(signature)
    if checks.input_shapes:
        check_shapes(signature, inputs)
    if call.output_filter:
        _check_filter(call.output_filter, signature)
    if signature.unserved:
        check_served(signature, call.output_filter or signature.outputs)
    runner.run(inputs, call)


def bind(signature: Signature, aliases: Collection[str], decode: Decode) -> Tensors:
    """Return the inputs sent under `aliases`, bound to a signature by PredictRequest's rules."""
    wanted = signature.inputs
    if len(aliases) != len(wanted):
        _check_count(aliases, signature)
    inputs: dict[str, np.ndarray[Any, Any]] = {}
    used = 0
    for alias, spec in wanted.items():
        if alias in aliases:
            used += 1
            inputs[alias] = decode(alias, spec)
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


def bind_tensors(signature: Signature, tensors: Mapping[str, TensorProto | InputTensor]) -> Tensors:
    """Bind the tensors of a PredictRequest or its twin to a signature. Raises InvalidArgument."""

    def decode_input(alias: str, spec: TensorSpec) -> np.ndarray[Any, Any]:
        tensor = tensors[alias]
        array = decode(tensor, alias)
        data_type: int = tensor.dtype
        if data_type != spec.data_type:
            raise wrong_type(signature, alias, data_type)
        return array

    return bind(signature, tensors, decode_input)


def no_such_signature(name: str) -> ServingError:
    """Return gRPC's error for a missing signature; REST has another text."""
    return FailedPrecondition(f'Serving signature key "{name}" not found.')


def wrong_type(signature: Signature, alias: str, given: int) -> InvalidArgument:
    """Return the error for an input of type number `given`, in TensorFlow's words.

    They name an input by its place in the signature.
    """
    place = list(signature.inputs).index(alias)
    return InvalidArgument(
        f"Expects arg[{place}] to be {type_name(signature.inputs[alias].data_type)} "
        f"but {type_name(given)} is provided"
    )


def _check_count(aliases: Collection[str], signature: Signature) -> None:
    """Raise InvalidArgument if there are more inputs, or fewer, than the signature allows."""
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
    """Return the error for an input that was not sent and has no default."""
    return InvalidArgument(
        f"Signature input alias: {alias}(feed name: {spec.tensor_name}) not found in request and "
        f"no default value provided. Inputs expected to be in the request {{{_list(aliases)}}}, "
        f"or default input alias set: {{{_list(defaults)}}}"
    )


def _check_filter(output_filter: Sequence[str], signature: Signature) -> None:
    """Raise InvalidArgument if an output does not exist or is named twice."""
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


def _list(names: Iterable[str]) -> str:
    return ",".join(sorted(names))
