"""Which signatures work row by row, and up to how many rows at once a run gets cheaper per row.

A signature may be merged if f([a; b]) = [f(a); f(b)]. That every input and output has a first
dimension that may vary is necessary; the rest is tried out: different rows, whole and in parts.
(Permuting rows would prove nothing: a softmax over the batch survives it.)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

import numpy as np

from servingd.core.merging import merge, rows_of
from servingd.core.types import Signature, Tensors
from servingd.servables.saved_model.parity import agree
from servingd.servables.saved_model.sessions import RunningSession, SignatureCall
from servingd.servables.saved_model.tensorflow import translate
from servingd.servables.saved_model.warm_up import synthetic_inputs, varies

MAX_ROWS = 64

_SPLIT = 1
_ROWS = 4
_MAX_RUN_S = 0.15
"""A batch that would run longer is not tried: it would not be made either."""

_ABOUT = 1.1
"""Costs per row within this factor of the least are as good as that."""

_HANDOVER_S = 250e-6
"""What handing a batch over between threads costs besides its run."""

_log = logging.getLogger(__name__)


def rows_worth_merging(
    session: RunningSession,
    signatures: Mapping[str, Signature],
    warm: Mapping[str, bool],
    known: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """By signature that is proven to work row by row, up to how many rows a run gets cheaper.

    `warm` tells which may be run on made-up inputs; `known`, what was found for a graph of the same
    kind: that is not measured again. Runs each at several sizes, which also warms these. Never
    raises: what cannot be tried is not merged.
    """
    known = known or {}
    found: dict[str, int] = {}
    for name, signature in signatures.items():
        if not warm[name] or not _may_vary(signature):
            continue
        try:
            call = session.calls[name]
            if not _is_row_wise(call, signature):
                continue
            if name in known:
                _warm_up(call, signature, known[name])
                found[name] = known[name]
            else:
                found[name] = _knee(call, signature)
        except Exception as error:
            _log.debug("signature %s is not merged: %s", name, translate(error).message)
    return found


def warm_sizes(
    session: RunningSession, signatures: Mapping[str, Signature], rows_worth: Mapping[str, int]
) -> None:
    """Run signatures at the sizes that are worth merging. Raises what TensorFlow does."""
    for name, rows in rows_worth.items():
        _warm_up(session.calls[name], signatures[name], rows)


def _warm_up(call: SignatureCall, signature: Signature, most: int) -> None:
    one, rows = synthetic_inputs(signature, 1), 2
    while one is not None and rows <= most:
        call.run(merge([one] * rows).inputs)
        rows *= 2


def _may_vary(signature: Signature) -> bool:
    return varies(signature) and all(
        spec.shape is not None and len(spec.shape) > 0 and spec.shape[0] is None
        for spec in signature.outputs.values()
    )


def _is_row_wise(call: SignatureCall, signature: Signature) -> bool:
    whole = synthetic_inputs(signature, _ROWS, seed=1)
    if whole is None:
        return False
    answer = call.run(whole)
    parts = [call.run(_rows(whole, 0, _SPLIT)), call.run(_rows(whole, _SPLIT, _ROWS))]
    sizes = zip((answer, *parts), (_ROWS, _SPLIT, _ROWS - _SPLIT), strict=True)
    if not all(_has_rows(outputs, rows) for outputs, rows in sizes):
        return False
    together = [np.concatenate([part[alias] for part in parts]) for alias in answer]
    return agree(list(answer.values()), together) and agree(
        list(answer.values()), list(call.run(whole).values())
    )


def _rows(inputs: Tensors, start: int, stop: int) -> Tensors:
    return {alias: np.ascontiguousarray(array[start:stop]) for alias, array in inputs.items()}


def _has_rows(outputs: Tensors, rows: int) -> bool:
    return all(np.ndim(array) > 0 and np.shape(array)[0] == rows for array in outputs.values())


def _knee(call: SignatureCall, signature: Signature) -> int:
    """The smallest number of rows that costs about as little per row as any does.

    A batch costs the threads that bring its calls together something as well.
    """
    one = synthetic_inputs(signature, 1)
    assert one is not None  # several rows could be made
    rows, costs = 1, {1: _time(call, one)}
    while rows < MAX_ROWS and 2 * rows * costs[rows] <= _MAX_RUN_S:
        rows *= 2
        inputs = merge([one] * rows).inputs
        if rows_of(inputs) != rows:
            break
        costs[rows] = _time(call, inputs) / rows
    whole = {rows: each + _HANDOVER_S / rows for rows, each in costs.items()}
    least = min(whole.values())
    return min(rows for rows, each in whole.items() if each <= least * _ABOUT)


def _time(call: SignatureCall, inputs: Tensors) -> float:
    """The faster of a few runs, in seconds; a first one is not counted."""
    call.run(inputs)
    times = []
    for _ in range(3):
        started = time.perf_counter()
        call.run(inputs)
        times.append(time.perf_counter() - started)
        if times[-1] > _MAX_RUN_S / 4:
            break
    return min(times)
