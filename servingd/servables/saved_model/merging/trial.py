"""Checks that calls may be merged, and measures what that is worth, on the session that serves.

Whether a signature's calls may be merged is decided by `row_wise.analysis`. As a second check,
varied rows are run whole and in parts here: a signature whose answers differ is not merged.
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
from servingd.servables.rows_worth import (
    ENOUGH_ROWS,
    MAX_ROWS,
    MAX_RUN_S,
    rows_worth_merging,
    seconds_of,
)
from servingd.servables.saved_model.files.meta_graph import MetaGraph
from servingd.servables.saved_model.merging.row_wise.analysis import row_wise
from servingd.servables.saved_model.merging.row_wise.verdicts import Mergeable, RowWiseVerdict
from servingd.servables.saved_model.session.session import RunningSession
from servingd.servables.saved_model.trials.parity import agree
from servingd.servables.saved_model.trials.varied import (
    SEEDS,
    ExampleFeature,
    Strings,
    strings_of,
    varied_inputs,
)
from servingd.servables.synthetic_inputs import synthetic_inputs
from servingd.servables.tensorflow_runtime.runtime import translate
from servingd.wire import protos

_MAX_INPUT_BYTES = 16 << 20
"""Bytes of the inputs of a measured batch of more than `ENOUGH_ROWS` rows."""
_SIZED_BY_TEXT = ("Decode", "StringSplit", "StringNGrams", "Unicode")
"""How operations begin whose outputs are as large as a string's content says."""

_PARTS = (1, 2, 4, 9)
"""Rows of the calls that are merged in a trial of a model that is fast enough for 16 rows."""
_FEW_PARTS = (1, 3)
"""Rows of the calls that are merged in the first trial, and in all trials of a slow model."""
_TRIALS = 3
"""Kinds of inputs, of `SEEDS`, that must be answered alike; then no more are tried."""


_log = logging.getLogger(__name__)


class _Call(NamedTuple):
    """A signature of a session, to be run on synthetic inputs."""

    session: RunningSession
    name: str

    def run(self, inputs: Tensors) -> dict[str, Any]:
        return self.session.run_synthetic(self.name, inputs)


def find_mergeable(
    session: RunningSession,
    meta_graph: MetaGraph,
    safe_to_run: Mapping[str, bool],
    known: Mapping[str, int] | None = None,
) -> Mergeable:
    """Find out which signatures' calls may be merged, and up to how many rows that pays.

    `safe_to_run` says which signatures keep no state. `known` are rows worth merging that were
    measured for a graph of the same kind: they are not measured again. Every signature is run at
    several sizes, which also warms these. Never raises: what cannot be tried is not merged.
    """
    known = known or {}
    rows_worth: dict[str, int] = {}
    refused: dict[str, str] = {}
    graph = meta_graph.graph()
    verdicts = row_wise(graph, meta_graph.signatures)
    strings = strings_of(graph)
    for name, signature in meta_graph.signatures.items():
        try:
            call = _Call(session, name)
            reason = _refusal(call, signature, strings, verdicts[name], safe_to_run[name])
            if reason:
                refused[name] = reason
            elif name in known:
                _warm_up(call, signature, known[name])
                rows_worth[name] = known[name]
            else:
                one_size = rows_of_one_size(graph, signature, strings.features)
                rows_worth[name] = _rows_worth_merging(call, signature, one_size)
        except Exception as error:
            refused[name] = f"a trial failed: {translate(error).message}"
        if name in refused:
            _log.debug("signature %s is not merged: %s", name, refused[name])
    return Mergeable(rows_worth, refused)


def warm_up_sizes(
    session: RunningSession, signatures: Mapping[str, Signature], rows_worth: Mapping[str, int]
) -> None:
    """Run each signature at the batch sizes up to its rows worth. Raises what TensorFlow does."""
    for name, rows in rows_worth.items():
        _warm_up(_Call(session, name), signatures[name], rows)


def _warm_up(call: _Call, signature: Signature, max_rows: int) -> None:
    """Run batches of 2, 4, 8 ... rows, up to `max_rows`."""
    one, rows = synthetic_inputs(signature, 1), 2
    while one is not None and rows <= max_rows:
        call.run(merge([one] * rows).inputs)
        rows *= 2


# May calls be merged? -------------------------------------------------------------------------


def _refusal(
    call: _Call,
    signature: Signature,
    strings: Strings,
    verdict: RowWiseVerdict,
    keeps_no_state: bool,
) -> str:
    """Return why calls may not be merged; empty if they may."""
    if not verdict.row_wise:
        return verdict.reason
    if not keeps_no_state:
        return "it keeps state"
    return _trial_refusal(call, signature, strings)


def _trial_refusal(call: _Call, signature: Signature, strings: Strings) -> str:
    """Return why calls may not be merged though the analysis allows it; empty if they may.

    A model that refuses all synthetic inputs proves nothing against the analysis, but then it
    cannot be measured what merging is worth.
    """
    parts: Sequence[int] = _FEW_PARTS
    answered = 0
    for seed in range(SEEDS):
        whole = varied_inputs(signature, sum(parts), seed, strings)
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
        parts = _PARTS if per_row * sum(_PARTS) <= MAX_RUN_S else _FEW_PARTS
    return "" if answered else "it refuses made-up inputs: what merging is worth cannot be measured"


def _compare(call: _Call, whole: Tensors, parts: Sequence[int]) -> str:
    """Run rows at once and in `parts` rows; return how the answers differ, empty if they do not."""
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


# Up to how many rows does it pay? -------------------------------------------------------------


def _rows_worth_merging(call: _Call, signature: Signature, one_size: bool) -> int:
    """Measure a signature; return the rows up to which larger batches pay."""
    one = synthetic_inputs(signature, 1)
    if one is None:
        return 1

    def seconds(rows: int) -> float | None:
        inputs = merge([one] * rows).inputs
        return seconds_of(lambda: call.run(inputs)) if rows_of(inputs) == rows else None

    if not one_size:
        return rows_worth_merging(seconds, ENOUGH_ROWS)
    row_bytes = max(1, sum(array.nbytes for array in one.values()))
    fitting = _MAX_INPUT_BYTES // row_bytes
    return rows_worth_merging(seconds, max(ENOUGH_ROWS, min(MAX_ROWS, fitting)))


def rows_of_one_size(
    graph: protos.Graph, signature: Signature, features: Sequence[ExampleFeature]
) -> bool:
    """Whether a row takes about as much memory in every call as in a measured one."""
    shapes = [spec.shape for spec in signature.inputs.values()]
    if any(shape is None or None in shape[1:] for shape in shapes):
        return False
    if any(feature.values is None for feature in features):
        return False
    nodes = itertools.chain(graph.node, *(f.node_def for f in graph.library.function))
    return not any(node.op.startswith(_SIZED_BY_TEXT) for node in nodes)
