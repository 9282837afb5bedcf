"""A second lock on merging, and what merging is worth: real runs on the session that serves.

Whether a signature may be merged is decided by `analysis`. Here varied rows are run whole and in
parts, and whatever does not answer alike is not merged, whatever the analysis says.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from servingd.core.batching.merge import merge, rows_of
from servingd.core.types import Signature, Tensors
from servingd.errors import InvalidArgument
from servingd.servables.made_up_inputs import synthetic_inputs
from servingd.servables.saved_model.files.meta_graph import MetaGraph
from servingd.servables.saved_model.row_wise.analysis import Mergeable, Verdict, row_wise
from servingd.servables.saved_model.session.session import RunningSession
from servingd.servables.saved_model.trials.parity import agree
from servingd.servables.saved_model.trials.varied import (
    SEEDS,
    ExampleFeature,
    example_features,
    varied_inputs,
)
from servingd.servables.tensorflow.runtime import translate

MAX_ROWS = 64

_PARTS = (1, 2, 4, 9)
"""Rows of the calls that are merged in a trial."""
_FEW_PARTS = (1, 3)
"""Of a model that is slow."""
_TRIALS = 3
"""Kinds of inputs that must be answered, of those that are tried."""

_MAX_RUN_S = 0.15
"""A batch that would run longer is not tried: it would not be made either."""

_ABOUT = 1.1
"""Costs per row within this factor of the least are as good as that."""

_HANDOVER_S = 250e-6
"""What handing a batch over between threads costs besides its run."""

_log = logging.getLogger(__name__)


class _Call(NamedTuple):
    """A signature of a session, run on made-up inputs."""

    session: RunningSession
    name: str

    def run(self, inputs: Tensors) -> dict[str, Any]:
        return self.session.run_made_up(self.name, inputs)


def find_mergeable(
    session: RunningSession,
    meta_graph: MetaGraph,
    warm: Mapping[str, bool],
    known: Mapping[str, int] | None = None,
) -> Mergeable:
    """By signature that works row by row, up to how many rows a run gets cheaper.

    `warm` tells which keep no state; `known`, what was found worth while for a graph of the same
    kind, which is not measured again. Runs each at several sizes, which also warms these. Never
    raises: what cannot be tried is not merged.
    """
    known = known or {}
    rows_worth: dict[str, int] = {}
    refused: dict[str, str] = {}
    graph = meta_graph.graph()
    verdicts = row_wise(graph, meta_graph.signatures)
    features = example_features(graph)
    for name, signature in meta_graph.signatures.items():
        try:
            call = _Call(session, name)
            reason = _refusal(call, signature, features, verdicts[name], warm[name])
            if reason:
                refused[name] = reason
            elif name in known:
                _warm_up(call, signature, known[name])
                rows_worth[name] = known[name]
            else:
                rows_worth[name] = _knee(call, signature)
        except Exception as error:
            refused[name] = f"a trial failed: {translate(error).message}"
        if name in refused:
            _log.debug("signature %s is not merged: %s", name, refused[name])
    return Mergeable(rows_worth, refused)


def warm_sizes(
    session: RunningSession, signatures: Mapping[str, Signature], rows_worth: Mapping[str, int]
) -> None:
    """Run signatures at the sizes that are worth merging. Raises what TensorFlow does."""
    for name, rows in rows_worth.items():
        _warm_up(_Call(session, name), signatures[name], rows)


def _warm_up(call: _Call, signature: Signature, most: int) -> None:
    one, rows = synthetic_inputs(signature, 1), 2
    while one is not None and rows <= most:
        call.run(merge([one] * rows).inputs)
        rows *= 2


# The second lock --------------------------------------------------------------------------------


def _refusal(
    call: _Call,
    signature: Signature,
    features: Sequence[ExampleFeature],
    verdict: Verdict,
    keeps_no_state: bool,
) -> str:
    """Why rows may not be merged; empty if they answer together as they do apart."""
    if not verdict.row_wise:
        return verdict.reason
    if not keeps_no_state:
        return "it keeps state"
    return _tried(call, signature, features)


def _tried(call: _Call, signature: Signature, features: Sequence[ExampleFeature]) -> str:
    """Why rows may not be merged after all, whatever the analysis says.

    A model that refuses all that is made up proves nothing against the analysis, but nobody could
    tell what merging is worth.
    """
    parts: Sequence[int] = _FEW_PARTS
    answered = 0
    for seed in range(SEEDS):
        whole = varied_inputs(signature, sum(parts), seed, features)
        if whole is None:
            return "inputs would be too large to be tried"
        started = time.perf_counter()
        try:
            reason = _compare(call, whole, parts)
        except Exception as error:
            if isinstance(translate(error), InvalidArgument):
                continue
            raise
        if reason:
            return reason
        answered += 1
        if answered == _TRIALS:
            return ""
        per_row = (time.perf_counter() - started) / (2 * sum(parts))
        parts = _PARTS if per_row * sum(_PARTS) <= _MAX_RUN_S else _FEW_PARTS
    return "" if answered else "it refuses made-up inputs: what merging is worth cannot be measured"


def _compare(call: _Call, whole: Tensors, parts: Sequence[int]) -> str:
    answer = call.run(whole)
    rows = sum(parts)
    if not all(np.ndim(array) and np.shape(array)[0] == rows for array in answer.values()):
        return "a trial: its answer does not have as many rows as its input"
    ends = list(itertools.accumulate(parts))
    apart = [
        call.run(_rows(whole, end - count, end)) for count, end in zip(parts, ends, strict=True)
    ]
    for alias, array in answer.items():
        together = np.concatenate([np.asarray(own[alias]) for own in apart])
        if not agree([array], [together]):
            return f"a trial: output {alias} differs beside other rows"
    return ""


def _rows(inputs: Tensors, start: int, stop: int) -> dict[str, Any]:
    return {alias: np.ascontiguousarray(array[start:stop]) for alias, array in inputs.items()}


# What it is worth -------------------------------------------------------------------------------


def _knee(call: _Call, signature: Signature) -> int:
    """The smallest number of rows that costs about as little per row as any does.

    A batch costs the threads that bring its calls together something as well. It may be wrong, and
    costs time then: answers do not depend on it.
    """
    one = synthetic_inputs(signature, 1)
    if one is None:
        return 1
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


def _time(call: _Call, inputs: Tensors) -> float:
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
