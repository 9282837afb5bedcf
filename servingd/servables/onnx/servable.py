"""An ONNX model that answers calls: a session on each of its devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from servingd.core.batching.merge import merge, rows_of
from servingd.core.call_protocols import Completion
from servingd.core.shapes import explained
from servingd.core.types import Signature, Tensors
from servingd.errors import ServingError, Unavailable
from servingd.servables.onnx.session import Session
from servingd.servables.plugin import Servable
from servingd.servables.rows_worth import ENOUGH_ROWS, rows_worth_merging, seconds_of
from servingd.servables.synthetic_inputs import synthetic_inputs

_PARTS = (1, 3, 4)
"""Rows of the calls that are merged in a trial."""


class Merging(NamedTuple):
    """Up to how many rows merging pays, or why calls are not merged."""

    rows_worth: int
    refused: str = ""


class OnnxServable(Servable):
    """Calls go to the session with the fewest under way; see `servables.plugin.Servable`."""

    def __init__(self, signature: Signature, sessions: Sequence[Session], merging: Merging) -> None:
        self.signatures = {signature.name: signature}
        self._sessions = sessions
        self._merging = merging

    def rows_worth_merging(self, signature: str) -> int:
        """Return up to how many rows merging pays, as measured when it was loaded."""
        return self._merging.rows_worth

    def why_not_merged(self, signature: str) -> str:
        """Return what the analysis of the graph, or the trial, found against it."""
        return self._merging.refused

    def may_be_repeated(self, signature: str) -> bool:
        """Return True: a session keeps nothing from call to call."""
        return True

    def run(self, signature: Signature, inputs: Tensors, done: Completion) -> None:
        """Run in this thread, without the GIL. Raises ServingError."""
        sessions = self._sessions
        if not sessions:
            raise Unavailable("the servable is closed")
        session = sessions[0] if len(sessions) == 1 else min(sessions, key=lambda each: each.runs)
        try:
            outputs = session.run(inputs, getattr(done, "output_filter", None) or ())
        except ServingError as error:
            raise explained(error, signature, inputs) from error
        done.succeed(outputs)

    def close(self) -> None:
        """Free the sessions."""
        self._sessions = ()


def warm_up(session: Session, signature: Signature) -> None:
    """Run once on made-up inputs; a model may refuse them."""
    inputs = synthetic_inputs(signature, 1)
    if inputs is not None:
        try:
            session.run(inputs)
        except ServingError:
            return


def find_merging(session: Session, signature: Signature, refused: str) -> Merging:
    """Try merged runs of a model that may be merged unless `refused`, and measure what they save.

    The analysis decides; that merged and single runs agree on made-up inputs is a second safeguard.
    """
    if refused:
        return Merging(0, refused)
    try:
        if reason := _differs(session, signature):
            return Merging(0, reason)
        return Merging(_measured(session, signature))
    except ServingError as error:
        return Merging(0, f"it refuses made-up inputs: {error.message}")


def _differs(session: Session, signature: Signature) -> str:
    for seed in range(3):
        calls = [synthetic_inputs(signature, rows, seed * 9 + rows) for rows in _PARTS]
        if None in calls:
            return "inputs would be too large to be tried"
        given = [call for call in calls if call is not None]
        together = session.run(merge(given).inputs)
        apart = [session.run(call) for call in given]
        for alias, array in together.items():
            joined = np.concatenate([answer[alias] for answer in apart])
            if not _agree(array, joined):
                return f"a trial: output {alias} differs beside other rows"
    return ""


def _agree(one: np.ndarray, other: np.ndarray) -> bool:
    if one.shape != other.shape:
        return False
    if one.dtype.kind != "f":
        return bool(np.array_equal(one, other))
    tolerance = 1e-2 if one.dtype.itemsize == 2 else 1e-4
    return bool(np.allclose(one, other, rtol=tolerance, atol=tolerance, equal_nan=True))


def _measured(session: Session, signature: Signature) -> int:
    one = synthetic_inputs(signature, 1)
    if one is None:
        return 1

    def seconds(rows: int) -> float | None:
        inputs = merge([one] * rows).inputs
        return seconds_of(lambda: session.run(inputs)) if rows_of(inputs) == rows else None

    return rows_worth_merging(seconds, ENOUGH_ROWS)
