"""Runs of a whole session on synthetic inputs: to warm it, to measure it, to compare two.

A model may refuse synthetic inputs: that proves nothing against it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from servingd.core.types import Signature, Tensors
from servingd.errors import Code, InvalidArgument, ServingError
from servingd.servables.saved_model.files.meta_graph import MetaGraph
from servingd.servables.saved_model.session.session import RunningSession, SyntheticRunEnded
from servingd.servables.saved_model.trials.parity import agree
from servingd.servables.saved_model.trials.varied import strings_of, varied_inputs
from servingd.servables.synthetic_inputs import has_open_rows, synthetic_inputs
from servingd.servables.tensorflow_runtime.runtime import translate

_UNSET_VARIABLE = ("Could not find variable", "Read variable failure")
"""TensorFlow's messages for a variable that was not restored: of a session, and of XLA."""
_INPUT_ERRORS = (
    Code.INVALID_ARGUMENT,
    Code.OUT_OF_RANGE,
    Code.RESOURCE_EXHAUSTED,
    Code.CANCELLED,
    Code.DEADLINE_EXCEEDED,
)
"""TensorFlow's codes for inputs that a model refuses, and for runs that are too large or long."""

_WARM_RUNS = 3
_WARM_S = 0.5
"""A signature is warmed by this many runs, or by runs of this many seconds: whichever is less."""

_log = logging.getLogger(__name__)


class WarmUpResult(NamedTuple):
    """The outcome of a session's runs on synthetic inputs."""

    slowest_s: float
    """Seconds of the slowest signature, by the fastest of its runs; 0 if no run succeeded."""
    failure: ServingError | None
    """The error that shows that this session cannot run the model, if there is one."""


def warm_up(
    session: RunningSession, signatures: Mapping[str, Signature], safe_to_run: Mapping[str, bool]
) -> WarmUpResult:
    """Run every signature that is safe to run on synthetic inputs of one row.

    A session cannot run the model if a variable is not set, or if no run succeeds and one fails
    with an error that its inputs do not explain. Raises SyntheticRunEnded.
    """
    slowest, failures = 0.0, []
    for name, signature in signatures.items():
        if safe_to_run[name]:
            seconds, failure = _warm_up_signature(session, signature)
            slowest = max(slowest, seconds)
            failures += [failure] if failure is not None else []
    for failure in failures:
        if any(text in failure.message for text in _UNSET_VARIABLE):
            return WarmUpResult(slowest, failure)
    others = [f for f in failures if f.code not in _INPUT_ERRORS]
    return WarmUpResult(slowest, others[0] if others and not slowest else None)


def slowest_run_s(
    session: RunningSession, signatures: Mapping[str, Signature], safe_to_run: Mapping[str, bool]
) -> float:
    """Warm a session up; return the seconds of its slowest signature, 0 if no run succeeded."""
    return warm_up(session, signatures, safe_to_run).slowest_s


def _warm_up_signature(
    session: RunningSession, signature: Signature
) -> tuple[float, ServingError | None]:
    """Run a signature a few times; return the fastest run's seconds, and the error of a failure."""
    inputs = synthetic_inputs(signature, 1)
    times: list[float] = []
    while inputs is not None and len(times) < _WARM_RUNS and sum(times) < _WARM_S:
        started = time.perf_counter()
        try:
            session.run_synthetic(signature.name, inputs)
        except SyntheticRunEnded:
            raise
        except Exception as error:
            failure = translate(error)
            _log.debug("warm-up of signature %s: %s", signature.name, failure.message)
            return min(times, default=0.0), failure
        times.append(time.perf_counter() - started)
    return min(times, default=0.0), None


def same_answers(
    one: RunningSession,
    other: RunningSession,
    meta_graph: MetaGraph,
    safe_to_run: Mapping[str, bool],
) -> bool:
    """Return whether two sessions answer synthetic inputs alike. Warms both.

    Both refusing an input with INVALID_ARGUMENT counts as alike. Raises the ServingError of any
    other failure.
    """
    strings = strings_of(meta_graph.graph())
    for name, signature in meta_graph.signatures.items():
        rows = 3 if has_open_rows(signature) else 1
        trials = (synthetic_inputs(signature, 1), varied_inputs(signature, rows, 1, strings))
        for inputs in trials:
            if inputs is None or not safe_to_run[name]:
                continue
            if not agree(_answer(one, signature, inputs), _answer(other, signature, inputs)):
                return False
    return True


def _answer(session: RunningSession, signature: Signature, inputs: Tensors) -> list[Any] | str:
    """Return the outputs, or the name of the error with which the model refuses the inputs."""
    try:
        return list(session.run_synthetic(signature.name, inputs).values())
    except SyntheticRunEnded:
        raise
    except Exception as error:
        translated = translate(error)
        if isinstance(translated, InvalidArgument):
            return "InvalidArgument"
        raise translated from error
