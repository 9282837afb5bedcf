"""Find the pairs of signatures that are streamed step by step, and say what does not fit.

A pair is called `X` if its signatures are `X_init` and `X_step`, and `generate` if they are `init`
and `step`. `X_init` makes the state from the caller's inputs; `X_step` takes the state and returns
the next one by the same names. Its other outputs are a part of the answer, but for `stop`, which
ends the stream after this part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from servingd.core.types import DataType, Signature, TensorSpec

STOP = "stop"
PLAIN_NAME = "generate"
"""The name of the pair `init` and `step`."""

_INIT, _STEP = "init", "step"


@dataclass(frozen=True, slots=True)
class StreamPair:
    """Two signatures that make a stream."""

    init: str
    step: str
    signature: Signature
    """What a caller sees: the inputs of `init`, and the outputs of a part."""
    state: tuple[str, ...]
    """The state's names, in the order of the inputs of `step`."""
    first_part: bool
    """Whether `init` makes a part as well."""


def find_pairs(signatures: Mapping[str, Signature]) -> tuple[dict[str, StreamPair], dict[str, str]]:
    """Return the pairs by their names, and by name why others that look like pairs are none."""
    pairs: dict[str, StreamPair] = {}
    misfits: dict[str, str] = {}
    for name, init, step in _candidates(signatures):
        reason = _misfit(signatures[init], signatures[step])
        if reason:
            misfits[name] = reason
        else:
            pairs[name] = _pair(name, signatures[init], signatures[step])
    return pairs, misfits


def _candidates(signatures: Mapping[str, Signature]) -> list[tuple[str, str, str]]:
    """Return name, init and step of what looks like a pair; a longer name wins over the plain."""
    found: dict[str, tuple[str, str]] = {}
    if _INIT in signatures and _STEP in signatures:
        found[PLAIN_NAME] = (_INIT, _STEP)
    for init in signatures:
        name = init.removesuffix(f"_{_INIT}")
        if name and name != init and f"{name}_{_STEP}" in signatures:
            found[name] = (init, f"{name}_{_STEP}")
    return [(name, *both) for name, both in sorted(found.items())]


def _pair(name: str, init: Signature, step: Signature) -> StreamPair:
    parts = _parts(step, step)
    return StreamPair(
        init.name,
        step.name,
        Signature(name, init.inputs, parts, init.method_name, init.defaults),
        tuple(step.inputs),
        bool(_parts(init, step)),
    )


def _parts(of: Signature, step: Signature) -> dict[str, TensorSpec]:
    """Return the outputs that are neither state nor the flag."""
    return {
        name: spec for name, spec in of.outputs.items() if name not in step.inputs and name != STOP
    }


def _misfit(init: Signature, step: Signature) -> str:
    """Return why two signatures are no pair; empty if they are one."""
    for signature in (init, step):
        flag = signature.outputs.get(STOP)
        if signature.unserved:
            return f"{signature.name} has tensors that cannot be served"
        if flag is not None and flag.data_type != DataType.BOOL:
            return f"output {STOP} of {signature.name} is not a bool"
    return _misfit_of_state(init, step) or _misfit_of_parts(init, step)


def _misfit_of_state(init: Signature, step: Signature) -> str:
    if not step.inputs:
        return f"{step.name} has no input, so there is no state"
    if STOP in step.inputs:
        return f"{STOP} is an input of {step.name}, but it cannot be part of the state"
    for name, wanted in step.inputs.items():
        for signature in (init, step):
            made = signature.outputs.get(name)
            if made is None:
                return f"{signature.name} has no output {name}, which {step.name} takes"
            if not _goes_into(made, wanted):
                return f"output {name} of {signature.name} does not fit the input of {step.name}"
    return ""


def _misfit_of_parts(init: Signature, step: Signature) -> str:
    parts, first = _parts(step, step), _parts(init, step)
    if not parts:
        return f"{step.name} has no output besides the state"
    if first and (
        first.keys() != parts.keys()
        or any(first[name].data_type != spec.data_type for name, spec in parts.items())
    ):
        return f"{init.name} has outputs besides the state, and they are not those of {step.name}"
    return ""


def _goes_into(made: TensorSpec, wanted: TensorSpec) -> bool:
    """Return whether a tensor like `made` may be one like `wanted`; unknown sizes may be any."""
    if made.data_type != wanted.data_type:
        return False
    if made.shape is None or wanted.shape is None:
        return True
    return len(made.shape) == len(wanted.shape) and all(
        a is None or b is None or a == b for a, b in zip(made.shape, wanted.shape, strict=True)
    )
